// Layers and networks of them.
#pragma once
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/gradcheck_module.h>
#include <ebb/models/layers/init.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/module.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
