// Internal: 3x3 convolutions of stride 1 by fewer multiplications (Winograd 1980; Lavin and Gray 2016), in float32.
#pragma once
#include <array>
#include <cstdint>
#include <optional>

#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/convolve_pieces.h>
#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// Computes tiles of m x m outputs from (m + 2) x (m + 2) inputs with (m + 2)^2 products for each pair of channels
/// instead of 9 m^2: each input and each filter goes through a small linear map, products are summed over channels, one
/// matrix product for each of the (m + 2)^2 points, and a linear map brings the sums back. The gradients are the
/// adjoints of these steps, so they need the same number of products. An algorithm as in convolve_pieces.h.
struct Winograd {
  Convolution<float> c;
  int m;  // 2, 3 or 4

  static bool suits(const Convolution<float>& c) { return tile_size(c) != 0; }
  explicit Winograd(const Convolution<float>& c);
  static constexpr Cut cut = Cut::blocks;
  std::int64_t block() const;
  Scratch<float> scratch(std::int64_t images) const;
  /// An image with a result that is infinite or no number is convolved in the plain way: here a pixel would spoil the
  /// whole tiles that it is in, not only what sees it.
  void forward(const Piece& p, const float* bias, bool relu, float* y, float* scratch);
  /// False when an element of dx was infinite or no number.
  bool backward(const Piece& p, const float* dy, float* dx, float* sums, bool add, float* scratch);
  std::int64_t sums_size() const { return points() * plane(c.v.c, c.out); }
  bool kernel_gradient(std::int64_t parts, const float* sums, float* dk) const;

 private:
  /// The m that takes the least time; 0: none gains.
  static int tile_size(const Convolution<float>& c);
  /// Floats from one point's matrix to the next.
  static std::int64_t plane(std::int64_t rows, std::int64_t columns);
  static std::int64_t tiles(const Window& v, int m) { return ((v.oh + m - 1) / m) * ((v.ow + m - 1) / m); }
  std::int64_t tiles() const { return tiles(c.v, m); }
  static std::int64_t points(int m) { return (m + 2) * (m + 2); }
  std::int64_t points() const { return points(m); }
  /// The kernel (3, 3, c, out) as points() planes of (c, out); for backward of (out, c).
  Tensor transformed() const;
  const float* filters();
  const float* kept_filters() const;
  /// Transformed squares of images [begin, end); `copy` has room for one square.
  void gather_inputs(std::int64_t begin, std::int64_t end, float* planes, float* copy) const;
  /// y for images [begin, end). False when a sum was infinite or no number; y is not to be used then.
  bool outputs(std::int64_t begin, std::int64_t end, const float* filters, const float* bias, bool relu, float* y,
               float* scratch) const;

  /// Made by each thread that needs them: to take them from the cache of another would take longer.
  std::optional<std::array<Tensor, most_threads>> filters_of_;
};

}  // namespace ebb::detail
