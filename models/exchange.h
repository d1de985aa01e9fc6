// Models and weights for other frameworks.
#pragma once
#include <ebb/models/exchange/interop.h>
#include <ebb/models/exchange/onnx.h>
