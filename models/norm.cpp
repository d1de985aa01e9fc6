#include <ebb/models/norm.h>

#include <fmt/format.h>

#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

namespace ebb {

BatchNormalization::BatchNormalization(BatchNormalizationOptions options) : options_(options) {
  if (!(options.momentum >= 0 && options.momentum <= 1))
    throw ValueError(fmt::format("BatchNormalization: momentum must be in [0, 1], got {}", options.momentum));
  if (!(options.epsilon > 0)) throw ValueError(fmt::format("BatchNormalization: epsilon must be above 0, got {}", options.epsilon));
}

Tensor BatchNormalization::forward(const Tensor& x) {
  if (!running_mean.defined()) {
    if (x.rank() < 2) fail<ShapeError>("BatchNormalization", fmt::format("needs an input (n, ..., channels), got {}", x.shape().str()));
    const Shape c{x.size(-1)};
    weight = options_.scale ? make_parameter(ones_init, c, x, "weight") : ones(c, x.dtype());
    bias = options_.center ? make_parameter(zeros_init, c, x, "bias") : zeros(c, x.dtype());
    running_mean = zeros(c, x.dtype());
    running_var = ones(c, x.dtype());
  }
  const Tensor& trained = options_.scale ? weight : bias;
  const bool frozen = (options_.scale || options_.center) && !trained.tracked();
  if (!training() || frozen) {
    const Tensor scale = weight / sqrt(running_var + options_.epsilon);
    return x * scale + (bias - running_mean * scale);
  }
  Moments batch;
  const Tensor y = batch_norm(x, weight, bias, {options_.epsilon, &batch});
  const double m = options_.momentum;
  running_mean.assign(running_mean * m + batch.mean * (1 - m));
  running_var.assign(running_var * m + batch.variance * (1 - m));
  return y;
}

void BatchNormalization::visit(Visitor& v) {
  if (options_.scale) v("weight", weight);
  if (options_.center) v("bias", bias);
  v.buffer("running_mean", running_mean);
  v.buffer("running_var", running_var);
}

}  // namespace ebb
