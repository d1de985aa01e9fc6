// A table of a model's layers.
#pragma once
#include <string>

#include <ebb/models/sequential.h>

namespace ebb {

/// Layer names and kinds, output shapes and parameter counts in Keras' classic layout (65 columns), with the total in
/// bytes. Runs one sample of zeros through the module, which builds it if need be.
std::string summary(Module& module, const Shape& sample);
/// The same for a Sequential that knows its input shape; throws ValueError when it does not.
std::string summary(Sequential& model);

/// "99.41 KB": 1024 to a KB, two decimals.
std::string format_bytes(double bytes);
/// 40785 as "40,785".
std::string with_commas(std::int64_t n);

}  // namespace ebb
