// A table of a model's layers.
#pragma once
#include <string>
#include <string_view>

#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/models/train/progress.h>

namespace ebb {

/// How a summary looks.
struct SummaryOptions {
  /// keras2_2: 65 columns, a rule between rows; keras2: as of 2.13, with sizes and long names on two lines; keras3: a
  /// box.
  KerasStyle style = KerasStyle::keras2;
  const Optimizer* optimizer = nullptr;  ///< Keras 3 counts its state too, once it has taken a step
};

/// Layer names and kinds under the names that Keras has for them, output shapes, parameter counts and their size. Runs
/// one sample of zeros through the module, which builds it if need be.
std::string summary(Module& module, const Shape& sample, const SummaryOptions& options = {});
/// The same for a Sequential that knows its input shape; throws ValueError when it does not.
std::string summary(Sequential& model, const SummaryOptions& options = {});

/// "99.41 KB": 1024 to a KB, two decimals.
std::string format_bytes(double bytes);
/// 40785 as "40,785".
std::string with_commas(std::int64_t n);

}  // namespace ebb
