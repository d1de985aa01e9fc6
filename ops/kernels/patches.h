// Internal: patches of images as rows of a matrix (im2col), and convolutions as products with it: for any window.
#pragma once
#include <cstdint>

#include <ebb/ops/kernels/convolve_pieces.h>

namespace ebb::detail {

/// Patches of images [begin, end) as rows, and the adjoint, which adds to images.
template <class T>
void patches_of(const Window& v, const T* x, std::int64_t begin, std::int64_t end, T* rows);
template <class T>
void add_patches(const Window& v, const T* rows, std::int64_t begin, std::int64_t end, T* x);

/// Images in a block, so that their patches fill half of an L2 cache.
template <class T>
std::int64_t block_of_patches(const Window& v) {
  const std::int64_t bytes = v.positions() * v.patch() * static_cast<std::int64_t>(sizeof(T));
  return std::clamp<std::int64_t>(half_l2 / std::max<std::int64_t>(1, bytes), 1, std::max<std::int64_t>(1, v.n));
}

/// Products with patches that are written out: an algorithm as in convolve_pieces.h.
template <class T>
struct Patches {
  Convolution<T> c;

  static bool suits(const Convolution<T>&) { return true; }
  explicit Patches(const Convolution<T>& convolution) : c(convolution) {}
  static constexpr Cut cut = Cut::blocks;
  std::int64_t block() const { return block_of_patches<T>(c.v); }
  Scratch<T> scratch(std::int64_t images) const { return Scratch<T>(images * c.v.positions() * c.v.patch()); }
  void forward(const Piece& p, const T* bias, bool relu, T* y, T* scratch);
  bool backward(const Piece& p, const T* dy, T* dx, T* sums, bool add, T* scratch);
  std::int64_t sums_size() const { return c.kernel_size(); }
  bool kernel_gradient(std::int64_t parts, const T* sums, T* dk) const;
};

}  // namespace ebb::detail
