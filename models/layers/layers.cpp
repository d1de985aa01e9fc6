#include <ebb/models/layers/layers.h>

#include <fmt/core.h>

#include <cmath>

#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/models/layers/conv.h>
#include <ebb/ops/kernels/window.h>

namespace ebb {
namespace {

Tensor activated(const Tensor& x, Activation f) { return f ? f(x) : x; }

}  // namespace

Dense::Dense(DenseOptions options) : options_(options) {
  detail::expect_initializers("Dense", options.weight_init, options.bias_init);
  if (options.units < 1) throw ValueError(fmt::format("Dense: units must be at least 1, got {}", options.units));
}

Tensor Dense::forward(const Tensor& x) {
  if (!weight.defined()) {
    if (x.rank() < 2) fail<ShapeError>("Dense", fmt::format("needs an input (n, features), got {}", x.shape().str()));
    weight = make_parameter(options_.weight_init, {x.size(-1), options_.units}, x, "weight");
    if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.units}, x, "bias");
  }
  return options_.use_bias ? linear(x, weight, bias, options_.activation)
                           : activated(matmul(x, weight), options_.activation);
}

void Dense::visit(Visitor& v) {
  v("weight", weight);
  if (options_.use_bias) v("bias", bias);
}

Conv2D::Conv2D(Conv2DOptions options) : options_(options) {
  detail::expect_initializers("Conv2D", options.weight_init, options.bias_init);
  if (options.filters < 1) throw ValueError(fmt::format("Conv2D: filters must be at least 1, got {}", options.filters));
  if (options.groups < 1 || options.filters % options.groups)
    throw ValueError(
        fmt::format("Conv2D: {} filters cannot be shared among {} groups", options.filters, options.groups));
}

void Conv2D::build(const Tensor& x) {
  if (weight.defined()) return;
  if (x.rank() != 4)
    fail<ShapeError>("Conv2D", fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
  if (x.size(3) % options_.groups)
    fail<ShapeError>("Conv2D", fmt::format("{} channels cannot be shared among {} groups: {}", x.size(3),
                                           options_.groups, x.shape().str()));
  weight = make_parameter(options_.weight_init,
                          {options_.kernel.h, options_.kernel.w, x.size(3) / options_.groups, options_.filters}, x,
                          "weight");
  if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.filters}, x, "bias");
}

Tensor Conv2D::forward(const Tensor& x) {
  build(x);
  if (has_bias_and_relu() && options_.groups == 1) return conv2d_relu(x, weight, bias, geometry());
  const bool one_group = options_.groups == 1;
  Composition whole(one_group ? "conv2d" : "conv2d_grouped");
  const Tensor y = one_group ? conv2d(x, weight, geometry()) : conv2d_grouped(x, weight, options_.groups, geometry());
  return detail::finished(whole, y, x, weight, bias, geometry(), options_.activation);
}

Tensor Conv2D::forward_joined(const Tensor& x, const Module& next) {
  const auto* pool = dynamic_cast<const MaxPool2D*>(&next);
  if (!pool || !has_bias_and_relu() || options_.groups != 1) return {};
  const PoolOptions& p = pool->options();
  const bool padded = p.pad.is_same || p.pad.top || p.pad.left || p.pad.bottom || p.pad.right;
  if (padded || (p.stride.h && p.stride.h != p.size.h) || (p.stride.w && p.stride.w != p.size.w)) return {};
  build(x);
  const detail::Window v("conv2d", x.shape(), options_.kernel, options_.stride, options_.pad, options_.dilation);
  if (p.size.h < 1 || p.size.w < 1 || p.size.h > v.oh || p.size.w > v.ow || p.size.h * p.size.w > 255) return {};
  return conv2d_relu(x, weight, bias, geometry(), p.size);
}

void Conv2D::visit(Visitor& v) {
  v("weight", weight);
  if (options_.use_bias) v("bias", bias);
}

namespace {
void expect_rate(std::string_view layer, double rate) {
  detail::expect(rate >= 0 && rate < 1, layer, "the rate must be in [0, 1)", rate);
}
}  // namespace

Tensor GlobalAvgPool2D::forward(const Tensor& x) {
  detail::expect_images("GlobalAvgPool2D", x);
  return mean(x, {1, 2});
}

Tensor GlobalMaxPool2D::forward(const Tensor& x) {
  detail::expect_images("GlobalMaxPool2D", x);
  return max(x, {1, 2});
}

Reshape::Reshape(ReshapeOptions options) : options_(std::move(options)) {
  for (const std::int64_t n : options_.sizes)
    if (n < 1) throw ValueError(fmt::format("Reshape: sizes must be at least 1, got {}", n));
}

Tensor Reshape::forward(const Tensor& x) {
  const Shape sample(options_.sizes);
  if (x.rank() && x.size(0) == 0 &&
      x.shape().without(0).numel() != sample.numel())  // which no number of samples tells apart there
    fail<ShapeError>("Reshape",
                     fmt::format("cannot give samples {} the shape {}", x.shape().without(0).str(), sample.str()));
  return reshape(x, sample.inserted(0, x.rank() ? x.size(0) : 1));
}

Dropout::Dropout(DropoutOptions options) : options_(options) { expect_rate("Dropout", options.rate); }

SpatialDropout2D::SpatialDropout2D(DropoutOptions options) : options_(options) {
  expect_rate("SpatialDropout2D", options.rate);
}

Tensor SpatialDropout2D::forward(const Tensor& x) {
  detail::expect_images("SpatialDropout2D", x);
  return x * dropout(ones({x.size(0), 1, 1, x.size(3)}, x.dtype()), options_.rate);
}

Embedding::Embedding(EmbeddingOptions options) : options_(options) {
  if (options.size < 1 || options.units < 1)
    throw ValueError(
        fmt::format("Embedding: size and units must be at least 1, got {} and {}", options.size, options.units));
}

namespace {
/// Indices that came as floats. A fraction is no index, and of large numbers float32 knows but every second one.
Tensor whole_numbers(const Tensor& x) {
  const double most = x.dtype() == f32 ? 0x1p24 : 0x1p53;
  visit_float(x.dtype(), [&]<class T>(T) {
    for (const auto v : detail::every_value<T>(x))
      if (!(std::trunc(v) == v && std::abs(static_cast<double>(v)) < most))
        throw ValueError(
            fmt::format("Embedding: {} as {} is no index: needs whole numbers below 2^{}; int64 has no such limit", v,
                        name_of(x.dtype()), x.dtype() == f32 ? 24 : 53));
  });
  return cast(x.detach(), i64);
}
}  // namespace

Tensor Embedding::forward(const Tensor& x) {
  if (!weight.defined()) {
    const auto init = [](const Shape& shape, DType dtype) { return uniform(shape, -0.05, 0.05, dtype); };
    weight = make_parameter(init, {options_.size, options_.units}, Tensor::empty({0}, options_.dtype), "weight");
  }
  return gather(weight, is_float(x.dtype()) ? whole_numbers(x) : x);
}

}  // namespace ebb
