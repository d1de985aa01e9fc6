#include <ebb/models/layers/norm.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/from_file.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

void expect_epsilon(std::string_view layer, double epsilon) {
  detail::expect(epsilon > 0, layer, "epsilon must be above 0", epsilon);
}

/// (x - mean) / sqrt(variance + epsilon) over some axes.
Tensor standardized(const Tensor& x, Axes axes, double epsilon) {
  const Tensor centered = x - mean(x, axes, {.keepdims = true});
  return centered / sqrt(mean(square(centered), axes, {.keepdims = true}) + epsilon);
}

/// Makes weight and bias (c) where a layer has them and applies them.
template <class L>
Tensor scaled(L& layer, Tensor y) {
  const Shape c{y.size(-1)};
  if (layer.options().scale && !layer.weight.defined()) layer.weight = make_parameter(ones_init, c, y, "weight");
  if (layer.options().center && !layer.bias.defined()) layer.bias = make_parameter(zeros_init, c, y, "bias");
  if (layer.options().scale) y = y * layer.weight;
  return layer.options().center ? y + layer.bias : y;
}

}  // namespace

BatchNormalization::BatchNormalization(BatchNormalizationOptions options) : options_(options) {
  if (!(options.momentum >= 0 && options.momentum <= 1))
    throw ValueError(fmt::format("BatchNormalization: momentum must be in [0, 1], got {}", options.momentum));
  expect_epsilon("BatchNormalization", options.epsilon);
}

Tensor BatchNormalization::forward(const Tensor& x) {
  if (!running_mean.defined()) {
    if (x.rank() < 2)
      fail<ShapeError>("BatchNormalization", fmt::format("needs an input (n, ..., channels), got {}", x.shape().str()));
    const Shape c{x.size(-1)};
    for (int i = 0; i < 2; ++i) detail::FromFile::take(c);
    weight = options_.scale ? make_parameter(ones_init, c, x, "weight") : ones(c, x.dtype());
    bias = options_.center ? make_parameter(zeros_init, c, x, "bias") : zeros(c, x.dtype());
    running_mean = zeros(c, x.dtype());
    running_var = ones(c, x.dtype());
  }
  const Tensor& trained = options_.scale ? weight : bias;
  const bool still = frozen() || ((options_.scale || options_.center) && !trained.tracked());
  if (!training() || still) {
    const Tensor scale = weight / sqrt(running_var + options_.epsilon);
    return x * scale + (bias - running_mean * scale);
  }
  Moments batch;
  const Tensor y = batch_norm(x, weight, bias, {options_.epsilon, &batch});
  if (state_held()) return y;
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

LayerNormalization::LayerNormalization(LayerNormalizationOptions options) : options_(options) {
  expect_epsilon("LayerNormalization", options.epsilon);
}

Tensor LayerNormalization::forward(const Tensor& x) {
  if (x.rank() < 2)
    fail<ShapeError>("LayerNormalization", fmt::format("needs an input (n, ..., features), got {}", x.shape().str()));
  return scaled(*this, standardized(x, -1, options_.epsilon));
}

void LayerNormalization::visit(Visitor& v) {
  if (options_.scale) v("weight", weight);
  if (options_.center) v("bias", bias);
}

GroupNormalization::GroupNormalization(GroupNormalizationOptions options) : options_(options) {
  if (options.groups < 1)
    throw ValueError(fmt::format("GroupNormalization: groups must be at least 1, got {}", options.groups));
  expect_epsilon("GroupNormalization", options.epsilon);
}

Tensor GroupNormalization::forward(const Tensor& x) {
  if (x.rank() < 2)
    fail<ShapeError>("GroupNormalization", fmt::format("needs an input (n, ..., channels), got {}", x.shape().str()));
  if (x.size(-1) % options_.groups)
    fail<ShapeError>("GroupNormalization", fmt::format("{} channels cannot be shared among {} groups: {}", x.size(-1),
                                                       options_.groups, x.shape().str()));
  const std::int64_t n = x.size(0), c = x.size(-1);
  std::int64_t places = 1;
  for (int axis = 1; axis + 1 < x.rank(); ++axis) places *= x.size(axis);
  const Tensor parts = reshape(x, {n, places, options_.groups, c / options_.groups});
  return scaled(*this, reshape(standardized(parts, {1, 3}, options_.epsilon), x.shape()));
}

void GroupNormalization::visit(Visitor& v) {
  if (options_.scale) v("weight", weight);
  if (options_.center) v("bias", bias);
}

void Standardize::fit(const Tensor& samples, double factor) {
  if (!samples.defined() || samples.rank() == 0 || samples.numel() == 0)
    throw ShapeError(
        fmt::format("Standardize: needs samples (n, ...), got {}", samples.defined() ? describe(samples) : "none"));
  const auto n = static_cast<std::size_t>(samples.size(0)), width = static_cast<std::size_t>(samples.numel()) / n;
  const auto rows = static_cast<double>(n);
  std::vector<double> means(width), scales(width);
  // Two passes, a block of rows at a time: a data set of bytes is not to become one of doubles.
  const auto each = [&](const auto& visit) {
    for (std::int64_t begin = 0; begin < samples.size(0); begin += 1024) {
      const auto part = samples.rows(begin, std::min(begin + 1024, samples.size(0))).to_vector();
      for (std::size_t i = 0; i < part.size(); ++i) visit(i % width, part[i] * factor);
    }
  };
  each([&](std::size_t j, double v) {
    if (!std::isfinite(v)) throw ValueError(fmt::format("Standardize: feature {} has the value {}", j, v));
    means[j] += v / rows;
  });
  each([&](std::size_t j, double v) { scales[j] += (v - means[j]) * (v - means[j]) / rows; });
  for (std::size_t j = 0; j < width; ++j) {
    // Below this a variance is rounding (scikit-learn's _is_constant_feature).
    constexpr double epsilon = std::numeric_limits<double>::epsilon();
    const double noise = rows * means[j] * epsilon;
    scales[j] = scales[j] <= rows * epsilon * scales[j] + noise * noise ? 1 : std::sqrt(scales[j]);
  }
  const Shape sample = samples.shape().without(0);
  const DType dtype = samples.dtype() == f64 ? f64 : f32;
  mean = cast(Tensor::from(means, sample), dtype);
  scale = cast(Tensor::from(scales, sample), dtype);
}

Tensor Standardize::forward(const Tensor& x) {
  const Tensor floats = is_float(x.dtype()) ? x : cast(x, mean.defined() ? mean.dtype() : f32);
  if (x.rank() == 0) fail<ShapeError>("Standardize", "needs samples (n, ...), got one number");
  const Shape sample = x.shape().without(0);
  if (!mean.defined()) {
    for (int i = 0; i < 2; ++i) detail::FromFile::take(sample);
    mean = zeros(sample, floats.dtype());
    scale = ones(sample, floats.dtype());
  }
  if (sample != mean.shape())
    fail<ShapeError>("Standardize",
                     fmt::format("was fitted to samples {}, got {}", mean.shape().str(), x.shape().str()));
  return (floats - cast(mean, floats.dtype())) / cast(scale, floats.dtype());
}

}  // namespace ebb
