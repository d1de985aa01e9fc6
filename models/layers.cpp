#include <ebb/models/layers.h>

#include <fmt/format.h>

#include <ebb/graph/error.h>
#include <ebb/ops/window.h>

namespace ebb {
namespace {

Tensor activated(const Tensor& x, Activation f) { return f ? f(x) : x; }

}  // namespace

Dense::Dense(DenseOptions options) : options_(options) {
  if (options.units < 1) throw ValueError(fmt::format("Dense: units must be at least 1, got {}", options.units));
}

Tensor Dense::forward(const Tensor& x) {
  if (!weight.defined()) {
    if (x.rank() < 2) fail<ShapeError>("Dense", fmt::format("needs an input (n, features), got {}", x.shape().str()));
    weight = make_parameter(options_.weight_init, {x.size(-1), options_.units}, x, "weight");
    if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.units}, x, "bias");
  }
  return options_.use_bias ? linear(x, weight, bias, options_.activation) : activated(matmul(x, weight), options_.activation);
}

void Dense::visit(Visitor& v) {
  v("weight", weight);
  if (options_.use_bias) v("bias", bias);
}

Conv2D::Conv2D(Conv2DOptions options) : options_(options) {
  if (options.filters < 1) throw ValueError(fmt::format("Conv2D: filters must be at least 1, got {}", options.filters));
}

void Conv2D::build(const Tensor& x) {
  if (weight.defined()) return;
  if (x.rank() != 4) fail<ShapeError>("Conv2D", fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
  weight = make_parameter(options_.weight_init, {options_.kernel.h, options_.kernel.w, x.size(3), options_.filters}, x, "weight");
  if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.filters}, x, "bias");
}

Tensor Conv2D::forward(const Tensor& x) {
  build(x);
  if (has_bias_and_relu()) return conv2d_relu(x, weight, bias, geometry());
  const Tensor y = conv2d(x, weight, geometry());
  return activated(options_.use_bias ? y + bias : y, options_.activation);
}

Tensor Conv2D::forward_joined(const Tensor& x, const Module& next) {
  const auto* pool = dynamic_cast<const MaxPool2D*>(&next);
  if (!pool || !has_bias_and_relu()) return {};
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

Tensor GlobalAvgPool2D::forward(const Tensor& x) {
  if (x.rank() != 4) fail<ShapeError>("GlobalAvgPool2D", fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
  return mean(x, {1, 2});
}

Dropout::Dropout(double rate) : rate_(rate) {
  if (!(rate >= 0 && rate < 1)) throw ValueError(fmt::format("Dropout: the rate must be in [0, 1), got {}", rate));
}

}  // namespace ebb
