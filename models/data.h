// Data sets.
#pragma once
#include <ebb/models/data/augment.h>
#include <ebb/models/data/csv.h>
#include <ebb/models/data/dataset.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/data/preprocess.h>
#include <ebb/models/data/split.h>
