// Graph as a model of the Boost.Graph concepts, with an adjacency_list copy as oracle.
#include <doctest/doctest.h>

#include <boost/concept/assert.hpp>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/dag_shortest_paths.hpp>
#include <boost/graph/graph_concepts.hpp>
#include <boost/graph/topological_sort.hpp>

#include <algorithm>
#include <iterator>
#include <map>

#include <ebb/autograd/backward.h>
#include <ebb/graph/analysis.h>
#include <ebb/graph/boost_graph.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/ops/ops.h>

#include "graph/boost_table.h"

using namespace ebb;
using namespace ebb::testing;

BOOST_CONCEPT_ASSERT((boost::VertexListGraphConcept<Graph>));
BOOST_CONCEPT_ASSERT((boost::IncidenceGraphConcept<Graph>));
BOOST_CONCEPT_ASSERT((boost::AdjacencyGraphConcept<Graph>));
BOOST_CONCEPT_ASSERT((boost::EdgeListGraphConcept<Graph>));
BOOST_CONCEPT_ASSERT((boost::VertexIndexGraphConcept<Graph>));
BOOST_CONCEPT_ASSERT((boost::VertexListGraphConcept<const Graph>));
BOOST_CONCEPT_ASSERT((boost::BidirectionalGraphConcept<BidirectionalGraph>));
BOOST_CONCEPT_ASSERT((boost::BidirectionalGraphConcept<const BidirectionalGraph>));
BOOST_CONCEPT_ASSERT((boost::AdjacencyGraphConcept<BidirectionalGraph>));
BOOST_CONCEPT_ASSERT((boost::VertexAndEdgeListGraphConcept<BidirectionalGraph>));
BOOST_CONCEPT_ASSERT((boost::ReadablePropertyMapConcept<VertexIndexMap, const Node*>));
BOOST_CONCEPT_ASSERT((boost::ReadablePropertyGraphConcept<Graph, const Node*, boost::vertex_name_t>));
BOOST_CONCEPT_ASSERT((boost::ReadablePropertyGraphConcept<BidirectionalGraph, const Node*, boost::vertex_index_t>));
BOOST_CONCEPT_ASSERT((boost::ReadablePropertyGraphConcept<BidirectionalGraph, GraphEdge, boost::edge_index_t>));

namespace {

using Copy = DirectedCopy;

/// A random graph of many shared sub-expressions, parallel edges, constants among the inputs, and dead ends.
std::vector<Tensor> random_expressions(std::uint64_t seed, int nodes) {
  Generator random(seed);
  std::vector<Tensor> pool{variable(scalar(1)), variable(scalar(2)), variable(scalar(3)), scalar(4)};
  for (int i = 0; i < nodes; ++i) {
    const Tensor a = pool[random.below(pool.size())], b = pool[random.below(pool.size())];
    switch (random.below(4)) {
      case 0: pool.push_back(add(a, b)); break;
      case 1: pool.push_back(mul(a, a)); break;
      case 2:
        pool.push_back(concat({reshape(a, {1}), reshape(b, {1}), reshape(a, {1})}));
        pool.back() = sum(pool.back());
        break;
      default: pool.push_back(exp(a));
    }
  }
  return pool;
}

/// A perceptron's loss: two layers, one weight used in both.
Tensor perceptron() {
  const Tensor x = ones({3, 4}), w = variable(full({4, 4}, 0.1), "w"), b = variable(zeros({4}), "b"),
               out = variable(full({4, 2}, 0.2), "out");
  return cross_entropy(matmul(relu(linear(tanh(linear(x, w, b)), w, b)), out), zeros({3}, i64));
}

/// Longest (or shortest) number of edges from the root, by index, over any graph of the concepts.
template <class G>
std::vector<int> path_lengths(const G& g, typename boost::graph_traits<G>::vertex_descriptor root, bool longest) {
  std::vector<int> distance(num_vertices(g));
  std::vector<boost::default_color_type> colors(num_vertices(g));
  const auto index = get(boost::vertex_index, g);
  const auto weight = boost::make_function_property_map<typename boost::graph_traits<G>::edge_descriptor>(
      [](const auto&) { return 1; });
  const auto compare = [longest](int a, int b) { return longest ? a > b : a < b; };
  const int far = longest ? -1'000'000 : 1'000'000;
  boost::dag_shortest_paths(
      g, root, boost::make_iterator_property_map(distance.begin(), index), weight,
      boost::make_iterator_property_map(colors.begin(), index), boost::dummy_property_map(),
      boost::dijkstra_visitor<>(), compare, [](int a, int b) { return a + b; }, far, 0);
  return distance;
}

}  // namespace

namespace ebb::testing {

std::vector<Tensor> recorded(std::string_view name) {
  if (name == "perceptron") return {perceptron()};
  if (name == "recurrent") {
    LSTM lstm(2);
    return {sum(square(lstm(ones({2, 2, 3}))))};
  }
  if (name == "residual") {
    const Tensor w = variable(full({3, 3}, 0.1), "w"), x = variable(ones({2, 3}), "x"), h = x + relu(matmul(x, w));
    return {sum(h + tanh(matmul(h, w))), sum(exp(h))};
  }
  if (name == "gradients") {
    const Tensor loss = perceptron();
    std::vector<Tensor> all{loss};
    const Gradients g = backward(loss, {.create_graph = true});
    for (const auto& entry : g.entries()) all.push_back(entry.gradient);
    return all;
  }
  std::vector<Tensor> pool = random_expressions(name == "random" ? 11 : 12, 60);
  std::erase_if(pool, [](const Tensor& t) { return !t.tracked() || t.node()->is_variable(); });
  return {pool.end() - 3, pool.end()};
}

const std::vector<Sample>& samples() {
  static const std::vector<Sample> all = [] {
    std::vector<Sample> out;
    for (const std::string_view name : {"perceptron", "recurrent", "residual", "gradients", "random", "random again"}) {
      const std::vector<Tensor> roots = recorded(name);
      BidirectionalGraph both(roots);
      const Graph graph(roots);
      out.push_back({name, roots, both, graph, Plain(graph), roots[0].node().get()});
    }
    return out;
  }();
  return all;
}

Plain::Plain(const Graph& g) : n(g.size()), out(n), in(n), reach(n, std::vector<char>(n)) {
  std::map<const Node*, std::size_t> position;
  for (std::size_t u = 0; u < n; ++u) {
    position[g.nodes()[u]] = u;
    reach[u][u] = 1;
    for (const Input& input : g.nodes()[u]->inputs()) {
      if (!input.node) continue;
      const std::size_t v = position.at(input.node.get());
      out[u].push_back(v), in[v].push_back(u);
      for (std::size_t w = 0; w <= v; ++w) reach[u][w] |= reach[v][w];
    }
  }
}

std::size_t Plain::edges() const {
  std::size_t total = 0;
  for (const auto& list : out) total += list.size();
  return total;
}

std::vector<std::size_t> Plain::distances(std::size_t from) const {
  std::vector<std::size_t> d(n, n);
  d[from] = 0;
  for (std::size_t u = from + 1; u-- > 0;)
    for (const std::size_t v : out[u])
      if (d[u] < n) d[v] = std::min(d[v], d[u] + 1);
  return d;
}

std::size_t Plain::pieces(std::size_t without) const {
  std::vector<char> seen(n);
  std::size_t total = 0;
  for (std::size_t start = 0; start < n; ++start) {
    if (seen[start] || start == without) continue;
    ++total;
    std::vector<std::size_t> open{start};
    seen[start] = 1;
    while (!open.empty()) {
      const std::size_t u = open.back();
      open.pop_back();
      for (const auto* list : {&out[u], &in[u]})
        for (const std::size_t v : *list)
          if (!seen[v] && v != without) seen[v] = 1, open.push_back(v);
    }
  }
  return total;
}

}  // namespace ebb::testing

TEST_CASE("boost graph: topological_sort gives the view's own order") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Tensor> pool = random_expressions(seed, 200);
    const Graph g(pool.back());
    std::vector<const Node*> order;
    std::vector<boost::default_color_type> colors(g.size());
    boost::topological_sort(
        g, std::back_inserter(order),
        boost::color_map(boost::make_iterator_property_map(colors.begin(), get(boost::vertex_index, g))));
    // edges lead from consumers to inputs and topological_sort gives the reverse: inputs come first, as in
    // the view
    REQUIRE(order.size() == g.size());
    std::vector<std::size_t> position(g.size());
    for (std::size_t i = 0; i < order.size(); ++i) position[g.index_of(order[i])] = i;
    for (const Node* n : g.nodes())
      for (const Input& in : n->inputs())
        if (in.node) {
          CHECK(position[g.index_of(in.node.get())] < position[g.index_of(n)]);
          CHECK(g.index_of(in.node.get()) < g.index_of(n));
        }
    verify(g);
  }
  // where there is one order only, the two are the same
  Tensor y = variable(scalar(1));
  for (int i = 0; i < 10; ++i) y = exp(y) + y;
  const Graph chain(y);
  std::vector<const Node*> order;
  std::vector<boost::default_color_type> colors(chain.size());
  boost::topological_sort(
      chain, std::back_inserter(order),
      boost::color_map(boost::make_iterator_property_map(colors.begin(), get(boost::vertex_index, chain))));
  CHECK(std::ranges::equal(order, chain.nodes()));
}

TEST_CASE("boost graph: an adjacency_list agrees on edges, reachability and path lengths") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Tensor> pool = random_expressions(seed, 150);
    std::vector<Tensor> roots(pool.end() - 5, pool.end());
    const Graph g(roots);
    const Copy copy = copy_of<Copy>(g);
    REQUIRE(num_edges(g) == num_edges(copy));
    std::size_t walked = 0;
    for (const Node* n : g.nodes()) {
      const auto [begin, end] = out_edges(n, g);
      CHECK(static_cast<std::size_t>(std::distance(begin, end)) == out_degree(n, g));
      CHECK(out_degree(n, g) == out_degree(g.index_of(n), copy));
      walked += out_degree(n, g);
    }
    CHECK(walked == g.edges());
    for (const Tensor& root : roots) {
      if (!root.tracked()) continue;
      const std::size_t start = g.index_of(root.node().get());
      std::vector<boost::default_color_type> colors(num_vertices(copy));
      boost::breadth_first_search(
          copy, start,
          boost::color_map(boost::make_iterator_property_map(colors.begin(), get(boost::vertex_index, copy))));
      const Graph below(root);
      for (std::size_t i = 0; i < g.size(); ++i)
        CHECK(below.contains(g.nodes()[i]) == (colors[i] == boost::black_color));
      for (const bool longest : {false, true})
        CHECK(path_lengths(g, root.node().get(), longest) == path_lengths(copy, start, longest));
    }
  }
}

TEST_CASE("boost graph: parallel edges, constants, empty graphs") {
  const Tensor x = variable(scalar(2)), y = x * x;
  const Graph g(y);
  CHECK(num_vertices(g) == 2);
  CHECK(num_edges(g) == 2);
  auto [edge, end] = out_edges(y.node().get(), g);
  const GraphEdge first = *edge++, second = *edge++;
  CHECK(edge == end);
  CHECK_FALSE(first == second);
  CHECK(first < second);
  CHECK(target(first, g) == target(second, g));
  CHECK(source(first, g) == y.node().get());

  const Tensor mixed = concat({ones({1}), variable(ones({1})), ones({1})});
  const Graph with_constants(mixed);
  CHECK(num_edges(with_constants) == 1);
  CHECK((*out_edges(mixed.node().get(), with_constants).first).input == 1);

  const Graph none(scalar(1));
  CHECK(num_vertices(none) == 0);
  CHECK(edges(none).first == edges(none).second);
  verify(none);
}

TEST_CASE("boost graph: in-edges, edge numbers and names") {
  on_samples([](const Sample& s) {
    const BidirectionalGraph& g = s.both;
    std::size_t number = 0;
    for (auto [e, end] = edges(g); e != end; ++e) CHECK(get(boost::edge_index, g, *e) == number++);
    CHECK(number == num_edges(g));
    for (const Node* n : g.nodes()) {
      std::vector<std::size_t> consumers;
      for (auto [e, end] = in_edges(n, g); e != end; ++e) {
        CHECK(target(*e, g) == n);
        consumers.push_back(g.index_of(e->from));
      }
      CHECK(consumers == s.plain.in[g.index_of(n)]);
      CHECK(in_degree(n, g) == consumers.size());
      CHECK(degree(n, g) == consumers.size() + out_degree(n, g));
    }
  });
  const Tensor x = variable(scalar(2), "x"), y = exp(x) * x;
  const Graph g(y);
  CHECK(get(boost::vertex_name, g, x.node().get()) == "x");
  CHECK(get(boost::vertex_name, g, y.node().get()) == "mul");
  CHECK(edge(y.node().get(), x.node().get(), g).second);
  CHECK_FALSE(edge(x.node().get(), y.node().get(), g).second);
  const BidirectionalGraph none(scalar(1));
  CHECK(num_edges(none) == 0);
}

TEST_CASE("boost graph: unreached names what the loss never sees") {
  const Tensor a = variable(scalar(1), "a"), b = variable(scalar(1), "b"), c = variable(scalar(1), "c");
  const Tensor loss = a * stop_gradient(b);
  const std::vector<Tensor> missing = unreached(Graph(loss), std::vector{a, b, c});
  REQUIRE(missing.size() == 2);
  CHECK(missing[0].node()->name() == "b");
  CHECK(missing[1].node()->name() == "c");
}

TEST_CASE("boost graph: gradient graphs are graphs too") {
  const Tensor x = variable(scalar(0.5, f64));
  Tensor y = sin(x) * x;
  for (int order = 0; order < 4; ++order) {
    y = grad(y, x, {.create_graph = true});
    const Graph g(y);
    verify(g);
    CHECK(g.contains(x.node().get()));
    CHECK(num_edges(g) == num_edges(copy_of<Copy>(g)));
  }
}
