// Forward mode over a recorded graph.
#pragma once
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb::detail {

/// How the ys change as the xs, tracked tensors that they were computed from, move along the tangents, one an x: one
/// pass over the ops between them, in the order in which they ran, each as Tangent in graph/node.h says. Undefined for
/// a y that stays where it is. With `graph` the results are recorded.
std::vector<Tensor> pushed(std::span<const Tensor> ys, std::span<const Tensor> xs, std::span<const Tensor> tangents,
                           bool graph);

}  // namespace ebb::detail
