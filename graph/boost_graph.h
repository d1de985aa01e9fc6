// The one adaptor between ebb's nodes and the Boost Graph Library: include it to run a BGL algorithm on a Graph.
// vertex = const Node*, out-edges = inputs that are not constants. mul(x, x) has two parallel edges. What asks for
// in-edges or for numbered edges runs on a BidirectionalGraph; apps/docs/BOOST_GRAPH.md tells which algorithm needs
// what.
#pragma once
#include <boost/graph/adjacency_iterator.hpp>
#include <boost/graph/graph_traits.hpp>
#include <boost/graph/properties.hpp>
#include <boost/iterator/iterator_facade.hpp>
#include <boost/property_map/property_map.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/graph/graph.h>

namespace ebb {

/// An edge of the BGL view: input `input` of node `from`. It leads from a consumer to what it depends on.
struct GraphEdge {
  const Node* from = nullptr;                                            ///< the consumer
  std::ptrdiff_t input = 0;                                              ///< which of its inputs
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
  OutEdgeIterator(const Node* node, std::ptrdiff_t input) : node_(node), input_(input) {
    skip();
  }  ///< from this input on

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
  using key_type = const Node*;                       ///< what it maps
  using value_type = std::size_t;                     ///< to what
  using reference = std::size_t;                      ///< by value
  using category = boost::readable_property_map_tag;  ///< it cannot be written
  const Graph* graph = nullptr;                       ///< must outlive the map
  /// Position of the node in the graph.
  friend std::size_t get(const VertexIndexMap& map, const Node* node) { return map.graph->index_of(node); }
  std::size_t operator[](const Node* node) const { return get(*this, node); }  ///< the same
};

/// vertex_name property map: a variable's name, the op of other nodes. For write_graphviz and its like.
struct VertexNameMap {
  using key_type = const Node*;                       ///< what it maps
  using value_type = std::string;                     ///< to what
  using reference = std::string;                      ///< by value
  using category = boost::readable_property_map_tag;  ///< it cannot be written
  /// Name of the node.
  friend std::string get(const VertexNameMap&, const Node* node) {
    return std::string(node->name().empty() ? node->op() : node->name());
  }
};

/// What copy_graph carries over: the descriptor, into a graph with bundles of that type, or nothing, into one without.
template <class Descriptor>
struct CopiedProperty {
  Descriptor descriptor;                              ///< of the graph that is copied
  operator Descriptor() const { return descriptor; }  ///< for a bundle
  operator boost::no_property() const { return {}; }  ///< for a graph without bundles
};

/// vertex_all and edge_all property maps.
template <class Descriptor>
struct CopiedMap {
  using key_type = Descriptor;                        ///< what it maps
  using value_type = CopiedProperty<Descriptor>;      ///< to what
  using reference = value_type;                       ///< by value
  using category = boost::readable_property_map_tag;  ///< it cannot be written
  /// What is carried over for it.
  friend value_type get(const CopiedMap&, const Descriptor& d) { return {d}; }
};

}  // namespace ebb

namespace boost {
template <>
struct graph_traits<ebb::Graph> {
  using vertex_descriptor = const ebb::Node*;
  using edge_descriptor = ebb::GraphEdge;
  using directed_category = directed_tag;
  using edge_parallel_category = allow_parallel_edge_tag;
  struct traversal_category : vertex_list_graph_tag, incidence_graph_tag, adjacency_graph_tag, edge_list_graph_tag {};
  using vertex_iterator = const ebb::Node* const*;
  using out_edge_iterator = ebb::OutEdgeIterator;
  using in_edge_iterator = void;
  using adjacency_iterator =
      boost::adjacency_iterator<ebb::Graph, vertex_descriptor, out_edge_iterator, std::ptrdiff_t>;
  using edge_iterator = ebb::EdgeIterator;
  using vertices_size_type = std::size_t;
  using edges_size_type = std::size_t;
  using degree_size_type = std::size_t;
  static vertex_descriptor null_vertex() { return nullptr; }
};
template <>
struct graph_traits<const ebb::Graph> : graph_traits<ebb::Graph> {};

template <std::derived_from<ebb::Graph> G>
struct property_map<G, vertex_index_t> {
  using type = ebb::VertexIndexMap;
  using const_type = ebb::VertexIndexMap;
};
template <std::derived_from<ebb::Graph> G>
struct property_map<G, vertex_name_t> {
  using type = ebb::VertexNameMap;
  using const_type = ebb::VertexNameMap;
};
template <std::derived_from<ebb::Graph> G>
struct property_map<G, vertex_all_t> {
  using type = ebb::CopiedMap<const ebb::Node*>;
  using const_type = type;
};
template <std::derived_from<ebb::Graph> G>
struct property_map<G, edge_all_t> {
  using type = ebb::CopiedMap<ebb::GraphEdge>;
  using const_type = type;
};
}  // namespace boost

namespace ebb {

/// The map of positions, as BGL asks for it.
inline VertexIndexMap get(boost::vertex_index_t, const Graph& g) { return {&g}; }
/// Position of one node.
inline std::size_t get(boost::vertex_index_t, const Graph& g, const Node* node) { return g.index_of(node); }
inline VertexNameMap get(boost::vertex_name_t, const Graph&) { return {}; }  ///< the map of names
inline std::string get(boost::vertex_name_t, const Graph&, const Node* node) {
  return get(VertexNameMap{}, node);
}  ///< name of one node
inline CopiedMap<const Node*> get(boost::vertex_all_t, const Graph&) { return {}; }  ///< for copy_graph
inline CopiedMap<GraphEdge> get(boost::edge_all_t, const Graph&) { return {}; }      ///< for copy_graph
inline const Node* source(const GraphEdge& e, const Graph&) { return e.from; }       ///< the consumer
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
/// AdjacencyGraph: the inputs that are nodes.
inline auto adjacent_vertices(const Node* node, const Graph& g) {
  using Iterator = boost::graph_traits<Graph>::adjacency_iterator;
  const auto [begin, end] = out_edges(node, g);
  return std::pair(Iterator(begin, &g), Iterator(end, &g));
}
/// The first edge between two nodes, and whether there is one.
inline std::pair<GraphEdge, bool> edge(const Node* from, const Node* to, const Graph& g) {
  for (auto [e, end] = out_edges(from, g); e != end; ++e)
    if (target(*e, g) == to) return {*e, true};
  return {};
}
/// VertexListGraph: the nodes in forward order.
inline std::pair<const Node* const*, const Node* const*> vertices(const Graph& g) {
  return {g.nodes().data(), g.nodes().data() + g.size()};
}
inline std::size_t num_vertices(const Graph& g) { return g.size(); }  ///< VertexListGraph: the number of nodes
inline void renumber_vertex_indices(const Graph&) {}                  ///< VertexIndexGraph: positions have no gaps
/// EdgeListGraph: every input that is a node.
inline std::pair<EdgeIterator, EdgeIterator> edges(const Graph& g) {
  const auto [begin, end] = vertices(g);
  return {EdgeIterator(begin, end), EdgeIterator(end, end)};
}
inline std::size_t num_edges(const Graph& g) { return g.edges(); }  ///< EdgeListGraph: the number of such inputs

/// A Graph that also knows the consumers of each node and numbers its edges, for the algorithms that ask for in-edges,
/// for edge_index or for member types. What it adds takes 3 words a node and 2 an edge.
class BidirectionalGraph : public Graph, public boost::graph_traits<Graph> {
 public:
  using directed_category = boost::bidirectional_tag;  ///< BGL's
  /// BGL's
  struct traversal_category : boost::bidirectional_graph_tag,
                              boost::adjacency_graph_tag,
                              boost::vertex_list_graph_tag,
                              boost::edge_list_graph_tag {};
  using in_edge_iterator = const GraphEdge*;  ///< BGL's

  /// Of a copy of the graph's list of nodes; the roots must outlive this one too.
  explicit BidirectionalGraph(Graph graph)
      : Graph(std::move(graph)), first_in_(size() + 1), first_out_(size() + 1), in_(Graph::edges()) {
    for (std::size_t i = 0; i < size(); ++i)
      for (const Input& in : nodes()[i]->inputs())
        if (in.node) ++first_in_[index_of(in.node.get()) + 1], ++first_out_[i + 1];
    for (std::size_t i = 0; i < size(); ++i) first_in_[i + 1] += first_in_[i], first_out_[i + 1] += first_out_[i];
    std::vector<std::size_t> next(first_in_);
    for (auto [e, end] = ebb::edges(*this); e != end; ++e) in_[next[index_of(target(*e, *this))]++] = *e;
  }
  explicit BidirectionalGraph(const Tensor& root) : BidirectionalGraph(Graph(root)) {}  ///< of what one root depends on
  explicit BidirectionalGraph(std::span<const Tensor> roots)
      : BidirectionalGraph(Graph(roots)) {}  ///< of all of them together

  /// The edges that lead to a node, one for each input of a consumer that it is, in order of the consumers' creation.
  std::span<const GraphEdge> in_edges(const Node* node) const {
    const std::size_t i = index_of(node);
    return std::span(in_).subspan(first_in_[i], first_in_[i + 1] - first_in_[i]);
  }
  /// Position of an edge in edges(): 0 to num_edges - 1.
  std::size_t index_of_edge(const GraphEdge& e) const {
    std::size_t n = first_out_[index_of(e.from)];
    for (const Input& in : e.from->inputs().first(static_cast<std::size_t>(e.input))) n += in.node ? 1 : 0;
    return n;
  }

 private:
  std::vector<std::size_t> first_in_, first_out_;  // where a node's edges begin among those of all
  std::vector<GraphEdge> in_;
};

/// edge_index property map: the position in edges().
struct EdgeIndexMap {
  using key_type = GraphEdge;                         ///< what it maps
  using value_type = std::size_t;                     ///< to what
  using reference = std::size_t;                      ///< by value
  using category = boost::readable_property_map_tag;  ///< it cannot be written
  const BidirectionalGraph* graph = nullptr;          ///< must outlive the map
  /// Position of the edge in the graph.
  friend std::size_t get(const EdgeIndexMap& map, const GraphEdge& e) { return map.graph->index_of_edge(e); }
  std::size_t operator[](const GraphEdge& e) const { return get(*this, e); }  ///< the same
};

inline EdgeIndexMap get(boost::edge_index_t, const BidirectionalGraph& g) {
  return {&g};
}  ///< the map of edges' positions
/// Position of one edge.
inline std::size_t get(boost::edge_index_t, const BidirectionalGraph& g, const GraphEdge& e) {
  return g.index_of_edge(e);
}
/// BidirectionalGraph: a node's consumers.
inline std::pair<const GraphEdge*, const GraphEdge*> in_edges(const Node* node, const BidirectionalGraph& g) {
  const auto in = g.in_edges(node);
  return {in.data(), in.data() + in.size()};
}
inline std::size_t in_degree(const Node* node, const BidirectionalGraph& g) {
  return g.in_edges(node).size();
}  ///< inputs that it is
inline std::size_t degree(const Node* node, const BidirectionalGraph& g) {
  return in_degree(node, g) + out_degree(node, g);
}  ///< all of its edges

}  // namespace ebb

namespace boost {
template <std::derived_from<ebb::BidirectionalGraph> G>
struct property_map<G, edge_index_t> {
  using type = ebb::EdgeIndexMap;
  using const_type = ebb::EdgeIndexMap;
};
}  // namespace boost
