#include <ebb/models/layers.h>

#include <fmt/format.h>

#include <ebb/graph/error.h>

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

Tensor Conv2D::forward(const Tensor& x) {
  if (!weight.defined()) {
    if (x.rank() != 4) fail<ShapeError>("Conv2D", fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
    weight = make_parameter(options_.weight_init, {options_.kernel.h, options_.kernel.w, x.size(3), options_.filters}, x, "weight");
    if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.filters}, x, "bias");
  }
  const Tensor y = conv2d(x, weight, {options_.stride, options_.pad, options_.dilation});
  return activated(options_.use_bias ? y + bias : y, options_.activation);
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
