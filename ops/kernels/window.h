// Internal: the geometry of a window sliding over an NHWC image.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include <ebb/graph/attribute.h>
#include <ebb/graph/shape.h>
#include <ebb/ops/kernels/geometry.h>

namespace ebb::detail {

struct Window {
  std::int64_t n = 0, h = 0, w = 0, c = 0;  // input
  std::int64_t kh, kw, sh, sw, dh, dw, top, left;
  std::int64_t oh = 0, ow = 0;  // output
  bool apart = false;           // windows side by side, all of them inside the image

  /// Throws ShapeError unless image has 4 axes and the window fits into it.
  Window(std::string_view op, const Shape& image, Pair kernel, Pair stride, Padding pad, Pair dilation);

  std::int64_t patch() const { return kh * kw * c; }     // elements of one patch
  std::int64_t positions() const { return oh * ow; }     // patches of one image
  std::int64_t image_size() const { return h * w * c; }  // elements of one image

  /// The rows and columns of the window at an output that lie inside the image, and where its first element does or
  /// would.
  struct Place {
    std::int64_t y, x, top, bottom, left, right;
  };
  Place place(std::int64_t oy, std::int64_t ox) const {
    if (apart) return {oy * kh, ox * kw, 0, kh, 0, kw};
    const std::int64_t y = oy * sh - top, x = ox * sw - left;
    return {
        y, x, std::max<std::int64_t>(0, -y), std::min(kh, h - y), std::max<std::int64_t>(0, -x), std::min(kw, w - x)};
  }
};

/// The options of an op with a window, for Op::attributes; pads are top, left, bottom, right.
inline Attributes window_attributes(Pair kernel, const Conv2dOptions& o) {
  const auto pair = [](Pair p) { return std::vector<std::int64_t>{p.h, p.w}; };
  return {{"kernel", pair(kernel)},
          {"stride", pair(o.stride)},
          {"dilation", pair(o.dilation)},
          {"same", o.pad.is_same},
          {"pads", std::vector<std::int64_t>{o.pad.top, o.pad.left, o.pad.bottom, o.pad.right}}};
}

}  // namespace ebb::detail
