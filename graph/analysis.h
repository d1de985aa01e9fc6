// Questions about a graph.
#pragma once
#include <span>
#include <string>
#include <vector>

#include <ebb/graph/graph.h>

namespace ebb {

/// Checks what every recorded graph must satisfy: a topological order exists, ids grow from inputs to consumers, and
/// each edge agrees with its node's shape and dtype. Throws GradientError naming the first node that breaks it.
void verify(const Graph& graph);

/// The variables among `variables` that no root of the graph depends on: parameters that will never learn.
std::vector<Tensor> unreached(const Graph& graph, std::span<const Tensor> variables);

/// The most expensive chain of dependent nodes, inputs first, and its floating-point operations: what no number of
/// processors gets below.
struct CriticalPath {
  std::vector<const Node*> nodes;  ///< the chain, inputs first
  double flops = 0;                ///< of them all
};
CriticalPath critical_path(const Graph& graph);  ///< by each node's flops()

/// Memory that a recorded graph holds and that its backward pass needs, in the allocator's own counting.
struct MemoryPlan {
  std::size_t kept = 0;      ///< the nodes and the values they keep, each storage counted once, variables' own left out
  std::size_t peak = 0;      ///< with the gradients that are alive at the worst moment of backward
  const Node* at = nullptr;  ///< the node whose rule runs at that moment
};
/// Follows backward() through the graph without running it. What a rule written in several ops makes on its way is not
/// known here and not counted (only what the op says of itself: see Primitive's `temporaries`); a rule that passes its
/// gradient on unchanged is counted as making one.
MemoryPlan plan_backward(const Graph& graph);

/// Groups of nodes that compute the same value: one op with the same options from the same inputs. Only ops that can be
/// compared, and inputs that are nodes, count.
std::vector<std::vector<const Node*>> common_subexpressions(const Graph& graph);

}  // namespace ebb
