// Internal: what follows a convolution, and its gradient, on a block of images that is in cache.
#pragma once
#include <cstdint>

#include <ebb/ops/kernels/convolve.h>

namespace ebb::detail {

/// y (rows, channels) += bias, unless null; then relu.
template <class T>
void add_bias(std::int64_t rows, std::int64_t channels, const T* bias, bool relu, T* y);

/// A max-pool of windows side by side behind a convolution.
inline Window pool_of(const Window& conv, std::int64_t channels, Pair pool) {
  return {"max_pool2d", {conv.n, conv.oh, conv.ow, channels}, pool, pool, 0, 1};
}
/// Largest element of each window of images, or 0 if that is larger and relu asked for, and where in the window the
/// first such element was, unless null. The window has no dilation; a NaN is larger than anything.
template <class T, class I>
void max_windows(const Window& pool, std::int64_t images, const T* x, bool relu, T* y, I* choice);
/// The adjoint: dx from g where `choice` says, and, unless they are null, only where y is positive, and g's sum over
/// windows added to db.
template <class T, class I>
void unmax_windows(const Window& pool, std::int64_t images, const T* g, const T* y, const I* choice, T* dx, double* db);

/// The gradient of the convolution's output for these images, or rows of one, that begin where `up` does: up.g itself,
/// or sent back through pool and relu into `buffer`; db, which is null without relu, gets its sum over positions added.
template <class T>
const T* tail_gradient(const Window& pool, std::int64_t images, const Upstream<T>& up, T* buffer, double* db);

}  // namespace ebb::detail
