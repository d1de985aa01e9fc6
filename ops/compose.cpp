// Compositions: functions that users expect and that need no gradient of their own.
#include <fmt/core.h>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/graph/error.h>
#include <ebb/ops/kernels/window.h>
#include <ebb/ops/ops.h>

namespace ebb {

Tensor selu(const Tensor& x) {
  constexpr double scale = 1.0507009873554805, alpha = 1.6732632423543772;
  Composition whole("selu");
  return whole.gives(scale * elu(x, alpha), {&x}, [=] { return Attributes{{"scale", scale}, {"alpha", alpha}}; });
}

Tensor clip(const Tensor& x, double low, double high) {
  if (!(low <= high)) fail<ValueError>("clip", fmt::format("low {} is above high {}", low, high));
  Composition whole("clip");
  return whole.gives(minimum(maximum(x, scalar(low, x.dtype())), scalar(high, x.dtype())), {&x}, [=] {
    return Attributes{{"low", low}, {"high", high}};
  });
}

Tensor conv2d_grouped(const Tensor& x, const Tensor& kernel, std::int64_t groups, Conv2dOptions o) {
  if (x.rank() != 4)
    fail<ShapeError>("conv2d_grouped", fmt::format("needs an image batch (n, h, w, c), got {}", x.shape().str()));
  if (kernel.rank() != 4)
    fail<ShapeError>("conv2d_grouped", fmt::format("needs a kernel (kh, kw, in, out), got {}", kernel.shape().str()));
  if (groups < 1 || kernel.size(3) % groups || kernel.size(2) * groups != x.size(3))
    fail<ShapeError>("conv2d_grouped", fmt::format("{} groups do not fit the image {} and the kernel {}", groups,
                                                   x.shape().str(), kernel.shape().str()));
  const std::int64_t taps = kernel.size(0) * kernel.size(1), in = kernel.size(2), out = kernel.size(3) / groups;
  Composition whole("conv2d_grouped");
  const auto gives = [&](Tensor y) {
    return whole.gives(std::move(y), {&x, &kernel}, [&] { return detail::window_attributes(0, o); });
  };
  const Tensor patches = im2col(x, {kernel.size(0), kernel.size(1)}, o);  // (n, oh, ow, taps * groups * in)
  const Shape result = patches.shape().with(3, groups * out);
  const std::int64_t places = patches.shape().without(3).numel();
  if (in == 1 && out == 1)  // depthwise
    return gives(reshape(sum(reshape(patches, {places, taps, groups}) * reshape(kernel, {taps, groups}), 1), result));
  const Tensor rows =
      transpose(reshape(patches, {places, taps, groups, in}), {2, 0, 1, 3});  // (groups, places, taps, in)
  const Tensor columns = transpose(reshape(kernel, {taps, in, groups, out}), {2, 0, 1, 3});  // (groups, taps, in, out)
  const Tensor y = matmul(reshape(rows, {groups, places, taps * in}), reshape(columns, {groups, taps * in, out}));
  return gives(reshape(transpose(y, {1, 0, 2}), result));  // (places, groups, out)
}

Tensor dropout(const Tensor& x, double rate, Generator& generator) {
  if (!(rate >= 0 && rate < 1)) fail<ValueError>("dropout", fmt::format("the rate must be in [0, 1), got {}", rate));
  if (rate == 0 || !training()) return x;
  Composition whole("dropout");
  const std::int64_t n = detail::mode.batch;  // a mask for each of the batch
  const Tensor mask =
      bernoulli(n ? x.shape().inserted(0, n) : x.shape(), 1 - rate, 1 / (1 - rate), x.dtype(), generator);
  return whole.gives(x * (n ? detail::apart(mask, n) : mask), {&x}, [=] { return Attributes{{"rate", rate}}; });
}

}  // namespace ebb
