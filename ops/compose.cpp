// Compositions: functions that users expect and that need no gradient of their own.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

namespace ebb {

Tensor leaky_relu(const Tensor& x, double slope) { return where(greater(x, 0.0), x, x * slope); }

Tensor elu(const Tensor& x, double alpha) {
  const Tensor below = minimum(x, scalar(0, x.dtype()));  // keeps exp from overflowing where it is not used
  return where(greater(x, 0.0), x, alpha * (exp(below) - 1));
}

Tensor selu(const Tensor& x) { return 1.0507009873554805 * elu(x, 1.6732632423543772); }

Tensor gelu(const Tensor& x) { return x * (erf(x / std::numbers::sqrt2) + 1) * 0.5; }

Tensor silu(const Tensor& x) { return x * sigmoid(x); }

Tensor clip(const Tensor& x, double low, double high) {
  if (!(low <= high)) fail<ValueError>("clip", fmt::format("low {} is above high {}", low, high));
  return minimum(maximum(x, scalar(low, x.dtype())), scalar(high, x.dtype()));
}

Tensor bce_with_logits(const Tensor& logits, const Tensor& targets) {
  if (logits.shape() != targets.shape())
    fail<ShapeError>("bce_with_logits", fmt::format("logits {} and targets {} differ in shape", logits.shape().str(), targets.shape().str()));
  return mean(softplus(logits) - logits * targets);  // -t log s(x) - (1 - t) log(1 - s(x))
}

namespace {
Tensor difference(const char* op, const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape())
    fail<ShapeError>(op, fmt::format("prediction {} and target {} differ in shape", a.shape().str(), b.shape().str()));
  return a - b;
}
}  // namespace

Tensor mse(const Tensor& prediction, const Tensor& target) { return mean(square(difference("mse", prediction, target))); }
Tensor mae(const Tensor& prediction, const Tensor& target) { return mean(abs(difference("mae", prediction, target))); }

Tensor dropout(const Tensor& x, double rate, Generator& generator) {
  if (!(rate >= 0 && rate < 1)) fail<ValueError>("dropout", fmt::format("the rate must be in [0, 1), got {}", rate));
  if (rate == 0 || !training()) return x;
  return x * bernoulli(x.shape(), 1 - rate, 1 / (1 - rate), x.dtype(), generator);
}

}  // namespace ebb
