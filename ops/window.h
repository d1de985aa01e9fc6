// Internal: the geometry of a window sliding over an NHWC image.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include <ebb/graph/attribute.h>
#include <ebb/ops/ops.h>

namespace ebb::detail {

struct Window {
  std::int64_t n = 0, h = 0, w = 0, c = 0;  // input
  std::int64_t kh, kw, sh, sw, dh, dw, top, left;
  std::int64_t oh = 0, ow = 0;  // output

  /// Throws ShapeError unless image has 4 axes and the window fits into it.
  Window(std::string_view op, const Shape& image, Pair kernel, Pair stride, Padding pad, Pair dilation);

  std::int64_t patch() const { return kh * kw * c; }    // elements of one patch
  std::int64_t positions() const { return oh * ow; }    // patches of one image
  std::int64_t image_size() const { return h * w * c; }  // elements of one image
};

/// The options of an op with a window, for Op::attributes; pads are top, left, bottom, right.
inline Attributes window_attributes(Pair kernel, const Conv2dOptions& o) {
  const auto pair = [](Pair p) { return std::vector<std::int64_t>{p.h, p.w}; };
  return {{"kernel", pair(kernel)}, {"stride", pair(o.stride)}, {"dilation", pair(o.dilation)}, {"same", o.pad.is_same},
          {"pads", std::vector<std::int64_t>{o.pad.top, o.pad.left, o.pad.bottom, o.pad.right}}};
}

/// g of a pooled shape sent back to the elements of `image` that a max-pool chose (pool.cpp).
Tensor max_unpool2d(const Tensor& g, const Tensor& choice, PoolOptions options, const Shape& image);

}  // namespace ebb::detail
