// The one adaptor between ebb's nodes and the Boost Graph Library: include it to run a BGL algorithm on a Graph.
// vertex = const Node*, out-edges = inputs that are not constants. mul(x, x) has two parallel edges.
#pragma once
#include <boost/graph/graph_traits.hpp>
#include <boost/graph/properties.hpp>
#include <boost/iterator/iterator_facade.hpp>
#include <boost/property_map/property_map.hpp>

#include <cstddef>
#include <limits>
#include <utility>

#include <ebb/graph/graph.h>

namespace ebb {

/// An edge of the BGL view: input `input` of node `from`. It leads from a consumer to what it depends on.
struct GraphEdge {
  const Node* from = nullptr;  ///< the consumer
  std::ptrdiff_t input = 0;  ///< which of its inputs
  friend bool operator==(const GraphEdge&, const GraphEdge&) = default;  ///< the same input of the same node
  /// By the consumer's creation, then the input.
  friend bool operator<(const GraphEdge& a, const GraphEdge& b) {
    return a.from->id() != b.from->id() ? a.from->id() < b.from->id() : a.input < b.input;
  }
};

/// Walks the inputs of one node, past the constants.
class OutEdgeIterator
    : public boost::iterator_facade<OutEdgeIterator, GraphEdge, boost::forward_traversal_tag, GraphEdge> {
 public:
  OutEdgeIterator() = default;  ///< the end of nothing
  OutEdgeIterator(const Node* node, std::ptrdiff_t input) : node_(node), input_(input) { skip(); }  ///< from this input on

 private:
  friend class boost::iterator_core_access;
  void skip() {
    const auto inputs = node_->inputs();
    while (input_ < std::ssize(inputs) && !inputs[static_cast<std::size_t>(input_)].node) ++input_;
  }
  void increment() {
    ++input_;
    skip();
  }
  bool equal(const OutEdgeIterator& o) const { return node_ == o.node_ && input_ == o.input_; }
  GraphEdge dereference() const { return {node_, input_}; }
  const Node* node_ = nullptr;
  std::ptrdiff_t input_ = 0;
};

/// Walks the edges of all nodes of a Graph.
class EdgeIterator : public boost::iterator_facade<EdgeIterator, GraphEdge, boost::forward_traversal_tag, GraphEdge> {
 public:
  EdgeIterator() = default;  ///< the end of nothing
  /// The edges of the nodes in [node, end).
  EdgeIterator(const Node* const* node, const Node* const* end) : node_(node), end_(end) { enter(); }

 private:
  friend class boost::iterator_core_access;
  void enter() {
    for (; node_ != end_; ++node_) {
      edge_ = OutEdgeIterator(*node_, 0);
      if (edge_ != last()) return;
    }
    edge_ = {};
  }
  OutEdgeIterator last() const { return {*node_, std::ssize((*node_)->inputs())}; }
  void increment() {
    if (++edge_ != last()) return;
    ++node_;
    enter();
  }
  bool equal(const EdgeIterator& o) const { return node_ == o.node_ && edge_ == o.edge_; }
  GraphEdge dereference() const { return *edge_; }
  const Node* const* node_ = nullptr;
  const Node* const* end_ = nullptr;
  OutEdgeIterator edge_;
};

/// vertex_index property map: the position in Graph::nodes().
struct VertexIndexMap {
  using key_type = const Node*;  ///< what it maps
  using value_type = std::size_t;  ///< to what
  using reference = std::size_t;  ///< by value
  using category = boost::readable_property_map_tag;  ///< it cannot be written
  const Graph* graph = nullptr;  ///< must outlive the map
  /// Position of the node in the graph.
  friend std::size_t get(const VertexIndexMap& map, const Node* node) { return map.graph->index_of(node); }
};

}  // namespace ebb

namespace boost {
template <>
struct graph_traits<ebb::Graph> {
  using vertex_descriptor = const ebb::Node*;
  using edge_descriptor = ebb::GraphEdge;
  using directed_category = directed_tag;
  using edge_parallel_category = allow_parallel_edge_tag;
  struct traversal_category : vertex_list_graph_tag, incidence_graph_tag, edge_list_graph_tag {};
  using vertex_iterator = const ebb::Node* const*;
  using out_edge_iterator = ebb::OutEdgeIterator;
  using edge_iterator = ebb::EdgeIterator;
  using vertices_size_type = std::size_t;
  using edges_size_type = std::size_t;
  using degree_size_type = std::size_t;
  static vertex_descriptor null_vertex() { return nullptr; }
};
template <>
struct property_map<ebb::Graph, vertex_index_t> {
  using type = ebb::VertexIndexMap;
  using const_type = ebb::VertexIndexMap;
};
}  // namespace boost

namespace ebb {

/// The map of positions, as BGL asks for it.
inline VertexIndexMap get(boost::vertex_index_t, const Graph& g) { return {&g}; }
/// Position of one node.
inline std::size_t get(boost::vertex_index_t, const Graph& g, const Node* node) { return g.index_of(node); }
inline const Node* source(const GraphEdge& e, const Graph&) { return e.from; }  ///< the consumer
/// What it depends on.
inline const Node* target(const GraphEdge& e, const Graph&) {
  return e.from->inputs()[static_cast<std::size_t>(e.input)].node.get();
}
/// IncidenceGraph: a node's inputs.
inline std::pair<OutEdgeIterator, OutEdgeIterator> out_edges(const Node* node, const Graph&) {
  return {OutEdgeIterator(node, 0), OutEdgeIterator(node, std::ssize(node->inputs()))};
}
/// IncidenceGraph: the number of inputs that are nodes.
inline std::size_t out_degree(const Node* node, const Graph&) {
  std::size_t n = 0;
  for (const Input& in : node->inputs()) n += in.node ? 1 : 0;
  return n;
}
/// VertexListGraph: the nodes in forward order.
inline std::pair<const Node* const*, const Node* const*> vertices(const Graph& g) {
  return {g.nodes().data(), g.nodes().data() + g.size()};
}
inline std::size_t num_vertices(const Graph& g) { return g.size(); }  ///< vertexListGraph: the number of nodes
/// EdgeListGraph: every input that is a node.
inline std::pair<EdgeIterator, EdgeIterator> edges(const Graph& g) {
  const auto [begin, end] = vertices(g);
  return {EdgeIterator(begin, end), EdgeIterator(end, end)};
}
inline std::size_t num_edges(const Graph& g) { return g.edges(); }  ///< edgeListGraph: the number of such inputs

}  // namespace ebb
