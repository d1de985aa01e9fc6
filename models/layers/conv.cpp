#include <ebb/models/layers/conv.h>

#include <fmt/core.h>

#include <algorithm>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/window.h>

namespace ebb {

void detail::expect_images(std::string_view layer, const Tensor& x) {
  if (x.rank() != 4) fail<ShapeError>(layer, fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
}

Tensor detail::finished(Composition& whole, const Tensor& y, const Tensor& x, const Tensor& kernel, const Tensor& bias,
                        const Conv2dOptions& options, Activation activation) {
  const auto attributes = [&] { return window_attributes(0, options); };
  const Tensor sum = bias.defined() ? whole.gives(y + bias, {&x, &kernel, &bias}, attributes)
                                    : whole.gives(y, {&x, &kernel}, attributes);
  return activation ? activation(sum) : sum;
}

DepthwiseConv2D::DepthwiseConv2D(DepthwiseConv2DOptions options) : options_(options) {
  detail::expect_initializers("DepthwiseConv2D", options.weight_init, options.bias_init);
  if (options.multiplier < 1)
    throw ValueError(fmt::format("DepthwiseConv2D: multiplier must be at least 1, got {}", options.multiplier));
}

Tensor DepthwiseConv2D::forward(const Tensor& x) {
  detail::expect_images("DepthwiseConv2D", x);
  const std::int64_t c = x.size(3), m = options_.multiplier;
  if (!weight.defined()) {
    weight = make_parameter(options_.weight_init, {options_.kernel.h, options_.kernel.w, c, m}, x, "weight");
    if (options_.use_bias) bias = make_parameter(options_.bias_init, {c * m}, x, "bias");
  }
  const Tensor kernel = reshape(weight, {options_.kernel.h, options_.kernel.w, 1, -1});
  const Conv2dOptions o{options_.stride, options_.pad, options_.dilation};
  Composition whole("conv2d_grouped");
  return detail::finished(whole, conv2d_grouped(x, kernel, weight.size(2), o), x, kernel, bias, o, options_.activation);
}

void DepthwiseConv2D::visit(Visitor& v) {
  v("weight", weight);
  if (options_.use_bias) v("bias", bias);
}

Conv2DTranspose::Conv2DTranspose(Conv2DTransposeOptions options) : options_(options) {
  detail::expect_initializers("Conv2DTranspose", options.weight_init, options.bias_init);
  if (options.filters < 1)
    throw ValueError(fmt::format("Conv2DTranspose: filters must be at least 1, got {}", options.filters));
}

Tensor Conv2DTranspose::forward(const Tensor& x) {
  detail::expect_images("Conv2DTranspose", x);
  const Pair kernel = options_.kernel, stride = options_.stride;
  if (!weight.defined()) {
    weight = make_parameter(options_.weight_init, {kernel.h, kernel.w, options_.filters, x.size(3)}, x, "weight");
    if (options_.use_bias) bias = make_parameter(options_.bias_init, {options_.filters}, x, "bias");
  }
  const auto grown = [&](std::int64_t size, std::int64_t k, std::int64_t s) {
    return size * s + (options_.pad.is_same ? 0 : std::max<std::int64_t>(k - s, 0));
  };
  const Pair image{grown(x.size(1), kernel.h, stride.h) - options_.pad.top - options_.pad.bottom,
                   grown(x.size(2), kernel.w, stride.w) - options_.pad.left - options_.pad.right};
  const Conv2dOptions o{stride, options_.pad};
  Composition whole("conv2d_transpose");
  return detail::finished(whole, conv2d_transpose(x, weight, image, o), x, weight, bias, o, options_.activation);
}

void Conv2DTranspose::visit(Visitor& v) {
  v("weight", weight);
  if (options_.use_bias) v("bias", bias);
}

}  // namespace ebb
