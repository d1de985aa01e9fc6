// Internal: max-pooling as part of another op's rule (pool.cpp).
#pragma once
#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/geometry.h>

namespace ebb::detail {

/// g of a pooled shape sent back to the elements of `image` that a max-pool chose.
Tensor max_unpool2d(const Tensor& g, const Tensor& choice, PoolOptions options, const Shape& image);
/// The way back: from x what it chose.
Tensor max_repool2d(const Tensor& x, const Tensor& choice, PoolOptions options);
/// max_pool2d of a batched tensor; choice, unless null, is what max_unpool2d needs.
Tensor max_pool2d_batched(const Tensor& x, PoolOptions options, Tensor* choice);

}  // namespace ebb::detail
