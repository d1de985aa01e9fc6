// Internal: convolutions that read the window where it lies in the image, in float32.
#pragma once
#include <cstdint>

#include <ebb/ops/kernels/convolve_pieces.h>

namespace ebb::detail {

/// Products of rows of the image with the kernel, in registers; an image with padding is copied into its padding first.
/// An algorithm as in convolve_pieces.h.
struct Direct {
  Convolution<float> c;
  Window v;  // of the padded image
  bool pads;
  Tensor turned;  // the kernel as (kh, kw, out, c), for the gradient of the image

  static bool suits(const Convolution<float>& c);
  explicit Direct(const Convolution<float>& c);
  static constexpr Cut cut = Cut::rows;
  /// Few, for threads to have even shares.
  std::int64_t block() const { return std::clamp<std::int64_t>(v.n / 8, 1, 4); }
  Scratch<float> scratch(std::int64_t images) const;
  void forward(const Piece& p, const float* bias, bool relu, float* y, float* scratch);
  bool backward(const Piece& p, const float* dy, float* dx, float* sums, bool add, float* scratch);
  std::int64_t sums_size() const { return c.kernel_size(); }
  bool kernel_gradient(std::int64_t parts, const float* sums, float* dk) const;

 private:
  const float* padded(const Piece& p, float* scratch) const;
  void image_gradient(const float* dy, float* dx) const;
};

}  // namespace ebb::detail
