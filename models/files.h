// Files: arrays, weights, pictures.
#pragma once
#include <ebb/models/files/numpy.h>
#include <ebb/models/files/picture.h>
#include <ebb/models/files/version.h>
