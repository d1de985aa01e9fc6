// Internal: what follows a convolution, and its gradient, on a block of images that is in cache.
#pragma once
#include <cstdint>

#include <ebb/ops/convolve.h>

namespace ebb::detail {

/// y (rows, channels) += bias, unless null; then relu.
template <class T>
void add_bias(std::int64_t rows, std::int64_t channels, const T* bias, bool relu, T* y);

/// Largest element of each window of images (oh, ow, channels), where in the window it was (unless null), and relu.
template <class T>
void pool_block(const Window& v, std::int64_t channels, std::int64_t images, const Tail<T>& tail, const T* conv, T* y, std::uint8_t* choice);

/// The gradient of the convolution's output for images [begin, end): up.g itself, or sent back through pool and relu
/// into `buffer`; db, unless null, gets its sum over positions added.
template <class T>
const T* tail_gradient(const Window& v, std::int64_t channels, const Upstream<T>& up, std::int64_t begin, std::int64_t end, T* buffer, T* db);

}  // namespace ebb::detail
