// Boost.Graph's flows, cuts, matchings and spanning trees on recorded graphs.
#include "graph/boost_table.h"  // first: some of the headers below need what it includes

#include <boost/graph/boykov_kolmogorov_max_flow.hpp>
#include <boost/graph/cycle_canceling.hpp>
#include <boost/graph/edge_connectivity.hpp>
#include <boost/graph/edmonds_karp_max_flow.hpp>
#include <boost/graph/find_flow_cost.hpp>
#include <boost/graph/kruskal_min_spanning_tree.hpp>
#include <boost/graph/max_cardinality_matching.hpp>
#include <boost/graph/maximum_adjacency_search.hpp>
#include <boost/graph/maximum_weighted_matching.hpp>
#include <boost/graph/prim_minimum_spanning_tree.hpp>
#include <boost/graph/push_relabel_max_flow.hpp>
#include <boost/graph/random_spanning_tree.hpp>
#include <boost/graph/stoer_wagner_min_cut.hpp>
#include <boost/graph/successive_shortest_path_nonnegative_weights.hpp>
#include <boost/graph/two_graphs_common_spanning_trees.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <ranges>

#include <ebb/ops/ops.h>

namespace ebb::testing {
namespace {

using Links = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
/// With capacities, costs, and a reverse edge for each: what flows need.
using FlowCopy = boost::adjacency_list<
    boost::vecS, boost::vecS, boost::directedS, boost::no_property,
    boost::property<boost::edge_capacity_t, int,
                    boost::property<boost::edge_residual_capacity_t, int,
                                    boost::property<boost::edge_reverse_t, Links::edge_descriptor,
                                                    boost::property<boost::edge_weight_t, int>>>>>;

int capacity_of(std::size_t u, std::size_t v) { return 1 + static_cast<int>((5 * u + 3 * v) % 7); }
int cost_of(std::size_t u, std::size_t v) { return static_cast<int>((2 * u + 7 * v) % 5); }

FlowCopy flow_copy(const Graph& g) {
  FlowCopy copy(g.size());
  for (auto [e, end] = edges(g); e != end; ++e) {
    const std::size_t u = g.index_of(source(*e, g)), v = g.index_of(target(*e, g));
    const auto there = add_edge(u, v, copy).first, back = add_edge(v, u, copy).first;
    put(boost::edge_capacity, copy, there, capacity_of(u, v)), put(boost::edge_capacity, copy, back, 0);
    put(boost::edge_weight, copy, there, cost_of(u, v)), put(boost::edge_weight, copy, back, -cost_of(u, v));
    put(boost::edge_reverse, copy, there, back), put(boost::edge_reverse, copy, back, there);
  }
  return copy;
}

using Matrix = std::vector<std::vector<int>>;

/// The largest flow by augmenting one path after the other.
int largest_flow(Matrix rest, std::size_t from, std::size_t to) {
  for (int total = 0;;) {
    std::vector<std::size_t> before(rest.size(), Plain::none), open{from};
    before[from] = from;
    while (!open.empty() && before[to] == Plain::none) {
      const std::size_t u = open.back();
      open.pop_back();
      for (std::size_t v = 0; v < rest.size(); ++v)
        if (rest[u][v] > 0 && before[v] == Plain::none) before[v] = u, open.push_back(v);
    }
    if (before[to] == Plain::none) return total;
    int least = std::numeric_limits<int>::max();
    for (std::size_t v = to; v != from; v = before[v]) least = std::min(least, rest[before[v]][v]);
    for (std::size_t v = to; v != from; v = before[v]) rest[before[v]][v] -= least, rest[v][before[v]] += least;
    total += least;
  }
}

Matrix capacities(const Plain& p, bool both_ways, const std::function<int(std::size_t, std::size_t)>& of) {
  Matrix m(p.n, std::vector<int>(p.n));
  for (std::size_t u = 0; u < p.n; ++u)
    for (const std::size_t v : p.out[u]) {
      m[u][v] += of(u, v);
      if (both_ways) m[v][u] += of(u, v);
    }
  return m;
}

/// The least that must be cut so that the graph, without directions, falls apart.
int least_cut(const Plain& p, const std::function<int(std::size_t, std::size_t)>& of) {
  const Matrix m = capacities(p, true, of);
  int least = std::numeric_limits<int>::max();
  for (std::size_t v = 1; v < p.n; ++v) least = std::min(least, largest_flow(m, 0, v));
  return least;
}

/// Sinks to try: some nodes below the root.
std::vector<std::size_t> sinks(const Sample& s) {
  std::vector<std::size_t> out;
  for (std::size_t v = 0; v < s.plain.n; v += 9)
    if (v != s.root_index()) out.push_back(v);
  return out;
}

template <class F>
void flow_is(const F& algorithm) {
  on_samples([&](const Sample& s) {
    const Matrix m = capacities(s.plain, false, capacity_of);
    for (const std::size_t sink : sinks(s)) {
      FlowCopy copy = flow_copy(s.graph);
      CHECK(algorithm(copy, s.root_index(), sink) == largest_flow(m, s.root_index(), sink));
      std::vector<int> balance(s.plain.n);  // what flows in is what flows out
      for (auto [e, end] = edges(copy); e != end; ++e) {
        const int flow = get(boost::edge_capacity, copy, *e) - get(boost::edge_residual_capacity, copy, *e);
        if (get(boost::edge_capacity, copy, *e) == 0) continue;
        CHECK(flow >= 0);
        balance[source(*e, copy)] -= flow, balance[target(*e, copy)] += flow;
      }
      for (std::size_t v = 0; v < s.plain.n; ++v)
        if (v != s.root_index() && v != sink) CHECK(balance[v] == 0);
    }
  });
}

void edmonds_karp() {
  flow_is([](FlowCopy& g, std::size_t from, std::size_t to) { return boost::edmonds_karp_max_flow(g, from, to); });
}
void push_relabel() {
  flow_is([](FlowCopy& g, std::size_t from, std::size_t to) { return boost::push_relabel_max_flow(g, from, to); });
}
void boykov_kolmogorov() {
  flow_is([](FlowCopy& g, std::size_t from, std::size_t to) {
    std::vector<boost::default_color_type> colors(num_vertices(g));
    std::vector<long> distance(num_vertices(g));
    std::vector<FlowCopy::edge_descriptor> before(num_vertices(g));
    const auto index = get(boost::vertex_index, g);
    return boost::boykov_kolmogorov_max_flow(
        g, get(boost::edge_capacity, g), get(boost::edge_residual_capacity, g), get(boost::edge_reverse, g),
        boost::make_iterator_property_map(before.begin(), index),
        boost::make_iterator_property_map(colors.begin(), index),
        boost::make_iterator_property_map(distance.begin(), index), index, from, to);
  });
}

void cheapest_flows() {
  on_samples([](const Sample& s) {
    for (const std::size_t sink : sinks(s)) {
      FlowCopy a = flow_copy(s.graph), b = flow_copy(s.graph);
      boost::edmonds_karp_max_flow(a, s.root_index(), sink);
      boost::cycle_canceling(a);
      boost::successive_shortest_path_nonnegative_weights(b, s.root_index(), sink);
      CHECK(boost::find_flow_cost(a) == boost::find_flow_cost(b));
      // no cheaper one: no cycle of negative cost is left, by Floyd's and Warshall's way
      for (const FlowCopy* g : {&a, &b}) {
        constexpr int far = 1'000'000;
        Matrix d(s.plain.n, std::vector<int>(s.plain.n, far));
        for (auto [e, end] = edges(*g); e != end; ++e)
          if (get(boost::edge_residual_capacity, *g, *e) > 0) {
            int& to = d[source(*e, *g)][target(*e, *g)];
            to = std::min(to, get(boost::edge_weight, *g, *e));
          }
        for (std::size_t k = 0; k < s.plain.n; ++k)
          for (std::size_t i = 0; i < s.plain.n; ++i)
            for (std::size_t j = 0; j < s.plain.n && d[i][k] < far; ++j)
              if (d[k][j] < far) d[i][j] = std::min(d[i][j], d[i][k] + d[k][j]);
        for (std::size_t i = 0; i < s.plain.n; ++i) CHECK(d[i][i] >= 0);
      }
    }
  });
}

using WeightedCopy = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS, boost::no_property,
                                           boost::property<boost::edge_weight_t, int>>;

WeightedCopy weighted(const Graph& g) {
  WeightedCopy copy(g.size());
  for (auto [e, end] = edges(g); e != end; ++e) {
    const std::size_t u = g.index_of(source(*e, g)), v = g.index_of(target(*e, g));
    add_edge(u, v, capacity_of(u, v), copy);
  }
  return copy;
}

void stoer_wagner() {
  on_samples([](const Sample& s) {
    const auto copy = weighted(s.graph);
    CHECK(boost::stoer_wagner_min_cut(copy, get(boost::edge_weight, copy)) == least_cut(s.plain, capacity_of));
  });
}

void edge_connectivity() {
  on_samples([](const Sample& s) {
    if (s.plain.pieces() != 1) return;  // it takes a connected graph
    auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<UndirectedCopy::edge_descriptor> cut;
    const auto n = boost::edge_connectivity(copy, std::back_inserter(cut));
    CHECK(static_cast<int>(n) == least_cut(s.plain, [](std::size_t, std::size_t) { return 1; }));
    CHECK(cut.size() == n);
  });
}

void adjacency_search() {
  on_samples([](const Sample& s) {
    const auto copy = weighted(s.graph);
    struct Order : boost::default_mas_visitor {
      std::vector<std::size_t>* order;
      void start_vertex(std::size_t v, const WeightedCopy&) { order->push_back(v); }
    } visitor;
    std::vector<std::size_t> order;
    visitor.order = &order;
    boost::maximum_adjacency_search(
        copy, boost::weight_map(get(boost::edge_weight, copy)).visitor(visitor).root_vertex(s.root_index()));
    REQUIRE(order.size() == s.plain.n);
    CHECK(order[0] == s.root_index());
    const Matrix m = capacities(s.plain, true, capacity_of);
    std::vector<int> tied(s.plain.n);  // to those that were taken
    std::vector<char> taken(s.plain.n);
    for (const std::size_t u : order) {
      for (std::size_t v = 0; v < s.plain.n; ++v)
        if (!taken[v] && u != order[0]) CHECK(tied[v] <= tied[u]);
      taken[u] = 1;
      for (std::size_t v = 0; v < s.plain.n; ++v) tied[v] += m[u][v];
    }
  });
}

void matchings() {
  using Unit = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS, boost::no_property,
                                     boost::property<boost::edge_weight_t, int>>;
  on_samples([](const Sample& s) {
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<std::size_t> mate(s.plain.n);
    CHECK(
        boost::checked_edmonds_maximum_cardinality_matching(copy, mate.data()));  // with its proof of being the largest
    std::size_t pairs = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      if (mate[u] == boost::graph_traits<UndirectedCopy>::null_vertex()) continue;
      CHECK(mate[mate[u]] == u);
      CHECK(edge(u, mate[u], copy).second);
      pairs += u < mate[u];
    }
    CHECK(boost::matching_size(copy, mate.data()) == pairs);
    Unit unit(s.plain.n);
    for (auto [e, end] = edges(copy); e != end; ++e)
      if (!edge(source(*e, copy), target(*e, copy), unit).second) add_edge(source(*e, copy), target(*e, copy), 1, unit);
    std::vector<std::size_t> heaviest(s.plain.n);
    boost::maximum_weighted_matching(unit, heaviest.data());
    CHECK(boost::matching_weight_sum(unit, heaviest.data()) == static_cast<int>(pairs));
  });
  const Tensor x = variable(scalar(1)), y = variable(scalar(2)), z = exp(x * y + x) * sin(y);
  const Graph small(z);
  const auto copy = weighted(small);
  std::vector<std::size_t> heaviest(small.size()), tried(small.size());
  boost::maximum_weighted_matching(copy, heaviest.data());
  boost::brute_force_maximum_weighted_matching(copy, tried.data());
  CHECK(boost::matching_weight_sum(copy, heaviest.data()) == boost::matching_weight_sum(copy, tried.data()));
}

/// Weight of a lightest forest, by taking the lightest edge that joins two trees.
int lightest(const Plain& p) {
  struct Edge {
    int weight;
    std::size_t u, v;
  };
  std::vector<Edge> all;
  for (std::size_t u = 0; u < p.n; ++u)
    for (const std::size_t v : p.out[u]) all.push_back({capacity_of(u, v), u, v});
  std::ranges::sort(all, {}, &Edge::weight);
  std::vector<std::size_t> tree(p.n);
  std::iota(tree.begin(), tree.end(), std::size_t{0});
  int total = 0;
  for (const Edge& e : all) {
    const std::size_t from = tree[e.u], to = tree[e.v];
    if (from == to) continue;
    total += e.weight;
    std::ranges::replace(tree, from, to);
  }
  return total;
}

void kruskal() {
  on_samples([](const Sample& s) {
    const auto weight = boost::make_function_property_map<GraphEdge, int>([&](const GraphEdge& e) {
      return capacity_of(s.graph.index_of(e.from), s.graph.index_of(target(e, s.graph)));
    });
    std::vector<GraphEdge> tree;
    boost::kruskal_minimum_spanning_tree(s.graph, std::back_inserter(tree), boost::weight_map(weight));
    int total = 0;
    for (const GraphEdge& e : tree) total += get(weight, e);
    CHECK(tree.size() == s.plain.n - s.plain.pieces());
    CHECK(total == lightest(s.plain));
  });
}

void prim() {
  on_samples([](const Sample& s) {
    if (s.plain.pieces() != 1) return;  // it takes a connected graph
    const auto copy = weighted(s.graph);
    std::vector<std::size_t> parent(s.plain.n);
    boost::prim_minimum_spanning_tree(copy, parent.data());
    int total = 0;
    for (std::size_t v = 0; v < s.plain.n; ++v) {
      int step = std::numeric_limits<int>::max();
      for (auto [e, end] = out_edges(v, copy); e != end; ++e)
        if (target(*e, copy) == parent[v]) step = std::min(step, get(boost::edge_weight, copy, *e));
      if (parent[v] != v) total += step;
    }
    CHECK(std::ranges::count_if(std::views::iota(std::size_t{0}, s.plain.n),
                                [&](std::size_t v) { return parent[v] == v; }) == 1);
    CHECK(total == lightest(s.plain));
  });
}

void random_tree() {
  std::mt19937 random(1);
  on_samples([&](const Sample& s) {
    if (s.plain.pieces() != 1) return;
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<std::size_t> parent(s.plain.n);
    boost::random_spanning_tree(
        copy, random,
        boost::root_vertex(s.root_index())
            .predecessor_map(boost::make_iterator_property_map(parent.begin(), get(boost::vertex_index, copy))));
    for (std::size_t v = 0; v < s.plain.n; ++v) {
      std::size_t at = v, steps = 0;
      for (; at != s.root_index() && steps <= s.plain.n; ++steps) {
        REQUIRE(parent[at] < s.plain.n);
        CHECK(edge(at, parent[at], copy).second);
        at = parent[at];
      }
      CHECK(at == s.root_index());
    }
  });
}

void common_trees() {
  const Tensor x = variable(scalar(1)), y = variable(scalar(2)),
               z = x * y + x;  // a triangle with a tail: three spanning trees
  const auto copy = numbered<UndirectedCopy>(Graph(z));
  std::vector<std::vector<bool>> trees;
  boost::two_graphs_common_spanning_trees(
      copy, copy, boost::tree_collector<std::vector<std::vector<bool>>, std::vector<bool>>(trees),
      std::vector<bool>(num_edges(copy)));
  CHECK(trees.size() == 3);
}

constexpr BoostRow rows[] = {
    {"edmonds_karp_max_flow", "edmonds_karp_max_flow.hpp", Needs::copy, edmonds_karp},
    {"push_relabel_max_flow", "push_relabel_max_flow.hpp", Needs::copy, push_relabel},
    {"boykov_kolmogorov_max_flow", "boykov_kolmogorov_max_flow.hpp", Needs::copy, boykov_kolmogorov},
    {"cycle_canceling", "cycle_canceling.hpp", Needs::copy, cheapest_flows},
    {"successive_shortest_path_nonnegative_weights", "successive_shortest_path_nonnegative_weights.hpp", Needs::copy,
     cheapest_flows},
    {"find_flow_cost", "find_flow_cost.hpp", Needs::copy, cheapest_flows},
    {"stoer_wagner_min_cut", "stoer_wagner_min_cut.hpp", Needs::copy, stoer_wagner},
    {"edge_connectivity", "edge_connectivity.hpp", Needs::copy, edge_connectivity},
    {"maximum_adjacency_search", "maximum_adjacency_search.hpp", Needs::copy, adjacency_search},
    {"edmonds_maximum_cardinality_matching", "max_cardinality_matching.hpp", Needs::copy, matchings},
    {"maximum_weighted_matching", "maximum_weighted_matching.hpp", Needs::copy, matchings},
    {"kruskal_minimum_spanning_tree", "kruskal_min_spanning_tree.hpp", Needs::graph, kruskal},
    {"prim_minimum_spanning_tree", "prim_minimum_spanning_tree.hpp", Needs::copy, prim},
    {"random_spanning_tree", "random_spanning_tree.hpp", Needs::copy, random_tree},
    {"two_graphs_common_spanning_trees", "two_graphs_common_spanning_trees.hpp", Needs::copy, common_trees},
};

}  // namespace

std::span<const BoostRow> boost_flows() { return rows; }

TEST_CASE("boost graph: flows give right answers") { try_all(boost_flows()); }

}  // namespace ebb::testing
