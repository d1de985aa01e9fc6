// Checks for weights that are not finite.
#pragma once
#include <string>

#include <ebb/models/layers/module.h>
#include <ebb/models/train/history.h>

namespace ebb {

/// Names the first parameter or buffer that holds a NaN or an infinity: "layers.0.weight holds nan"; empty when all
/// elements are finite. A training that diverged leaves such weights.
std::string not_finite(Module& module);
std::string not_finite(const TensorMap& tensors);  ///< the same for tensors by name

}  // namespace ebb
