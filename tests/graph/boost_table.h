// Recorded graphs to try Boost.Graph's algorithms on, and copies of them.
#pragma once
#include <doctest/doctest.h>

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/copy.hpp>
#include <boost/property_map/function_property_map.hpp>

#include <string_view>
#include <vector>

#include <ebb/graph/boost_graph.h>

#include "boost_rows.h"

namespace ebb::testing {

/// The same graph in plain lists that the adaptor had no hand in: for answers by other means. Numbers are positions in
/// nodes(), so that every edge leads from a higher number to a lower one.
struct Plain {
  explicit Plain(const Graph& g);
  std::size_t n;
  std::vector<std::vector<std::size_t>> out, in;  ///< parallel edges each
  std::vector<std::vector<char>> reach;           ///< [from][to], a node reaches itself
  std::size_t edges() const;
  /// Fewest edges from a node to each; n where there is no way.
  std::vector<std::size_t> distances(std::size_t from) const;
  /// Groups of nodes that edges join in any direction: how many there are, without a node.
  std::size_t pieces(std::size_t without = none) const;
  static constexpr std::size_t none = static_cast<std::size_t>(-1);
};

/// A recorded graph: its roots, whose handles keep it alive, and the views.
struct Sample {
  std::string_view name;
  std::vector<Tensor> roots;
  BidirectionalGraph both;  // has in-edges
  Graph graph;              // has not
  Plain plain;
  const Node* root;  ///< of the first one: every node is below it where there is one root
  std::size_t root_index() const { return graph.index_of(root); }
};

/// The roots of a sample, recorded anew.
std::vector<Tensor> recorded(std::string_view name);
/// A perceptron's loss, a recurrent layer's, a residual block with two outputs, a loss with its gradients, and random
/// expressions.
const std::vector<Sample>& samples();

/// Calls f(sample) for each, with its name in the messages.
template <class F>
void on_samples(const F& f) {
  for (const Sample& s : samples()) {
    CAPTURE(s.name);
    f(s);
  }
}

/// A property map by position over a vector.
template <class T>
auto by_position(std::vector<T>& v, const Graph& g) {
  return boost::make_iterator_property_map(v.begin(), get(boost::vertex_index, g));
}

/// The same weight for every edge, of any graph.
template <class G, class T = int>
auto all_weigh(T weight) {
  return boost::make_function_property_map<typename boost::graph_traits<G>::edge_descriptor, T>(
      [weight](const auto&) { return weight; });
}

using DirectedCopy = boost::adjacency_list<boost::vecS, boost::vecS, boost::bidirectionalS, const Node*, GraphEdge>;
using NumberedCopy = boost::adjacency_list<boost::vecS, boost::vecS, boost::bidirectionalS, boost::no_property,
                                           boost::property<boost::edge_index_t, int>>;
using UndirectedCopy = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS, boost::no_property,
                                             boost::property<boost::edge_index_t, int>>;
using SimpleCopy = boost::adjacency_list<boost::setS, boost::vecS, boost::undirectedS, boost::no_property,
                                         boost::property<boost::edge_index_t, int>>;

template <class C>
C copy_of(const Graph& g) {
  C copy;
  boost::copy_graph(g, copy);
  return copy;
}

/// With its edges numbered. A SimpleCopy holds one of several parallel edges.
template <class C>
C numbered(const Graph& g) {
  C copy(g.size());
  int next = 0;
  for (auto [e, end] = edges(g); e != end; ++e) {
    const auto [added, fresh] = add_edge(g.index_of(source(*e, g)), g.index_of(target(*e, g)), copy);
    if (fresh) put(boost::edge_index, copy, added, next++);
  }
  return copy;
}

}  // namespace ebb::testing
