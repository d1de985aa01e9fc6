// Internal: forward mode of the fused layers.
#pragma once
#include <span>

#include <ebb/graph/node.h>
#include <ebb/graph/tensor.h>

namespace ebb::detail {

/// Of p(x, w) + b, p linear in each, b broadcast: the tangent, given those of x, w and b; an op's rule for its part
/// before a pool or an activation. `after`, unless null, comes before b.
Tensor tangent_of_layer(const Saved& s, std::span<const Tensor> t, const void* op,
                        Tensor (*p)(const void* op, const Tensor& x, const Tensor& w),
                        Tensor (*after)(const void* op, const Tensor& d) = nullptr);

}  // namespace ebb::detail
