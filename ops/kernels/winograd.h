// Internal: 3x3 convolutions of stride 1 by fewer multiplications (Winograd 1980; Lavin and Gray 2016), in float32.
#pragma once
#include <cstdint>

#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/window.h>

namespace ebb::detail {

/// Computes tiles of m x m outputs from (m + 2) x (m + 2) inputs with (m + 2)^2 products for each pair of channels
/// instead of 9 m^2: each input and each filter goes through a small linear map, products are summed over channels, one
/// matrix product for each of the (m + 2)^2 points, and a linear map brings the sums back. The gradients are the
/// adjoints of these steps, so they need the same number of products.
struct Winograd {
  int m = 0;  // 2, 3 or 4; 0: the window is not for this, or too small to gain

  Winograd(const Window& v, std::int64_t out_channels);
  explicit operator bool() const { return m != 0; }

  std::int64_t points() const { return (m + 2) * (m + 2); }
  std::int64_t tiles(const Window& v) const { return ((v.oh + m - 1) / m) * ((v.ow + m - 1) / m); }
  /// Images to a block, so that their transforms fill about half of an L2 cache: at most so many, but enough for
  /// products with rows that are worth the passes over the filters and over their gradient.
  std::int64_t block_images(const Window& v, std::int64_t out_channels, std::int64_t most) const;
  /// Floats of working memory for a block.
  std::int64_t scratch_size(const Window& v, std::int64_t out_channels, std::int64_t images) const;

  /// Floats from one point's matrix to the next.
  static std::int64_t plane(std::int64_t rows, std::int64_t columns);
  /// Filters (3, 3, c, out) as points planes of (c, out); with `flip` of (out, c).
  Tensor filters(const float* k, std::int64_t c, std::int64_t out, bool flip) const;
  /// y for `images` images from x; bias may be null. False when a sum was infinite or no number: a pixel spoils the
  /// whole tiles that it is in, not only what sees it, and y is not to be used.
  bool forward(const Window& v, std::int64_t out, std::int64_t images, const float* x, const float* filters,
               const float* bias, bool relu, float* y, float* scratch) const;
  /// From dy of `images` images: dx, unless null, by the flipped filters; and the gradient of the transformed filters,
  /// unless null, added to `sums` or written there. False when an element of dx was infinite or no number.
  bool backward(const Window& v, std::int64_t out, std::int64_t images, const float* x, const float* dy,
                const float* flipped, float* dx, float* sums, bool add, float* scratch) const;
  /// Gradient of the filters from `parts` gradients of the transformed filters, points planes each.
  void filter_gradient(std::int64_t c, std::int64_t out, std::int64_t parts, const float* sums, float* dk) const;
};

}  // namespace ebb::detail
