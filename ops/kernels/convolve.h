// Internal: a convolution and its gradients on plain arrays, block by block; the ops of conv.cpp stand on these.
#pragma once
#include <cstdint>

#include <ebb/ops/kernels/window.h>

namespace ebb::detail {

/// What follows a convolution while a block is in cache.
template <class T>
struct Tail {
  const T* bias = nullptr;  // one a channel
  bool relu = false;
  Pair pool = 1;                   // windows of a max-pool, side by side; what is left over at the end is dropped
  std::uint8_t* choice = nullptr;  // which element of its window each output was; null: not asked for
};
/// y = conv2d(x, k) with its tail.
template <class T>
void convolve(const Window& v, std::int64_t out_channels, const T* x, const T* k, const Tail<T>& tail, T* y);

/// Gradient of a convolution's output, given that of its tail's.
template <class T>
struct Upstream {
  const T* g;
  const T* y = nullptr;                  // relu's output: the gradient passes where it is positive; null: no relu
  Pair pool = 1;                         // behind relu: only with y
  const std::uint8_t* choice = nullptr;  // of the pool
  /// The same from an element of g on.
  Upstream from(std::int64_t at) const { return {g + at, y ? y + at : nullptr, pool, choice ? choice + at : nullptr}; }
};
/// Gradients of the image, the kernel and, behind relu, the bias in one pass; each may be null.
template <class T>
void convolve_back(const Window& v, std::int64_t out_channels, const T* x, const T* k, const Upstream<T>& up, T* dx,
                   T* dk, T* db);

}  // namespace ebb::detail
