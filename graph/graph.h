// Graph: a non-owning view of everything that some roots depend on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <ebb/graph/node.h>
#include <ebb/graph/tensor.h>

namespace ebb {

/// A hash index from node to position; one probe in the usual case, no allocation per entry.
class NodeIndex {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);  ///< no position
  std::size_t find(const Node* node) const;                          ///< its position, or none
  void insert(const Node* node, std::size_t position);               ///< the node must not be there yet

 private:
  struct Slot {
    const Node* node = nullptr;
    std::size_t position = 0;
  };
  std::size_t probe(const Node* node) const;
  void grow();
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

/// The nodes that the roots depend on, in forward order (inputs before consumers, ties by creation). The roots must
/// outlive the view. Untracked roots contribute nothing. Also a model of the Boost.Graph concepts: see boost_graph.h.
class Graph {
 public:
  /// Throws GradientError on a cycle, which only a broken engine could make.
  explicit Graph(const Tensor& root);
  /// Of all of them together; of nodes older than `since`, an id, only those that newer ones lead to, without what is
  /// before them.
  explicit Graph(std::span<const Tensor> roots, std::uint64_t since = 0);

  std::span<const Node* const> nodes() const { return nodes_; }  ///< in forward order
  std::size_t size() const { return nodes_.size(); }             ///< number of nodes
  /// Position of a node in nodes(), or NodeIndex::none.
  std::size_t index_of(const Node* node) const { return index_.find(node); }
  /// Whether a root depends on the node.
  bool contains(const Node* node) const { return index_of(node) != NodeIndex::none; }
  /// Number of edges: inputs that are not constants, parallel ones counted each.
  std::size_t edges() const;

 private:
  void collect(std::span<const Tensor> roots, std::uint64_t since);
  std::vector<const Node*> nodes_;
  NodeIndex index_;
};

}  // namespace ebb
