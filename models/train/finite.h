// Weights that are numbers.
#pragma once
#include <string>

#include <ebb/models/layers/module.h>
#include <ebb/models/train/history.h>

namespace ebb {

/// The first parameter or buffer with an element that is no finite number, and that number: "layers.0.weight holds
/// nan"; empty when there is none. Such weights are what a training that went wrong leaves; nothing that is computed
/// with them means anything.
std::string not_finite(Module& module);
std::string not_finite(const TensorMap& tensors);  ///< the same of tensors by name

}  // namespace ebb
