#include <ebb/ops/kernels/window.h>

#include <fmt/core.h>

#include <algorithm>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/elementwise.h>

namespace ebb::detail {
namespace {

struct Pads {
  std::int64_t before, after;
};
/// The padding "same": as much as ceil(size / stride) windows of `span` elements need. An odd one goes to the end.
Pads same_padding(std::int64_t size, std::int64_t span, std::int64_t stride) {
  const std::int64_t last = size == 0 ? -stride : (size - 1) / stride * stride;  // where the last window begins
  const std::int64_t all = std::max<std::int64_t>(0, last + span - size);
  return {all / 2, all - all / 2};
}

}  // namespace

Window::Window(std::string_view op, const Shape& image, Pair kernel, Pair stride, Padding pad, Pair dilation)
    : kh(kernel.h),
      kw(kernel.w),
      sh(stride.h),
      sw(stride.w),
      dh(dilation.h),
      dw(dilation.w),
      top(pad.top),
      left(pad.left) {
  if (image.rank() != 4) fail<ShapeError>(op, fmt::format("needs an image batch (n, h, w, c), got {}", image.str()));
  if (kh < 1 || kw < 1 || sh < 1 || sw < 1 || dh < 1 || dw < 1 || pad.top < 0 || pad.left < 0 || pad.bottom < 0 ||
      pad.right < 0)
    fail<ValueError>(
        op, fmt::format("kernel {}x{}, stride {}x{} and dilation {}x{} must be positive and pads not negative", kh, kw,
                        sh, sw, dh, dw));
  n = image[0];
  h = image[1];
  w = image[2];
  c = image[3];
  const std::int64_t span_h = add_sizes(multiply_sizes(dh, kh - 1), 1),
                     span_w = add_sizes(multiply_sizes(dw, kw - 1), 1);
  if (std::max(span_h, span_w) == INT64_MAX)
    fail<ShapeError>(op, fmt::format("a window of {}x{} elements, {}x{} apart, is too large", kh, kw, dh, dw));
  std::int64_t bottom = pad.bottom, right = pad.right;
  if (pad.is_same) {
    const Pads vertical = same_padding(h, span_h, sh), horizontal = same_padding(w, span_w, sw);
    top = vertical.before, bottom = vertical.after;
    left = horizontal.before, right = horizontal.after;
  }
  const std::int64_t padded_h = add_sizes(add_sizes(h, top), bottom), padded_w = add_sizes(add_sizes(w, left), right);
  if (padded_h < span_h || padded_w < span_w)
    fail<ShapeError>(op, fmt::format("a window of {}x{} does not fit into {} padded to {}x{}", span_h, span_w,
                                     image.str(), padded_h, padded_w));
  if (multiply_sizes(multiply_sizes(padded_h, padded_w), std::max<std::int64_t>(1, c)) >
      std::int64_t{1} << 50)  // no window has more elements
    fail<ShapeError>(op, fmt::format("{} padded to {}x{} has too many elements", image.str(), padded_h, padded_w));
  sh = std::min(sh, padded_h), sw = std::min(sw, padded_w);  // there is one window then, as with a longer stride
  oh = (padded_h - span_h) / sh + 1;
  ow = (padded_w - span_w) / sw + 1;
  apart = sh == kh && sw == kw && dh == 1 && dw == 1 && top == 0 && left == 0 && oh * kh <= h && ow * kw <= w;
}

}  // namespace ebb::detail
