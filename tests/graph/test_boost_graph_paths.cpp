// Boost.Graph's shortest paths and cycles on recorded graphs.
#include "graph/boost_table.h"  // first: howard_cycle_ratio.hpp needs what it includes

#include <boost/graph/bellman_ford_shortest_paths.hpp>
#include <boost/graph/dag_shortest_paths.hpp>
#include <boost/graph/dijkstra_shortest_paths.hpp>
#include <boost/graph/dijkstra_shortest_paths_no_color_map.hpp>
#include <boost/graph/floyd_warshall_shortest.hpp>
#include <boost/graph/hawick_circuits.hpp>
#include <boost/graph/howard_cycle_ratio.hpp>
#include <boost/graph/johnson_all_pairs_shortest.hpp>
#include <boost/graph/r_c_shortest_paths.hpp>
#include <boost/graph/tiernan_all_cycles.hpp>

#include <algorithm>
#include <limits>

namespace ebb::testing {
namespace {

constexpr int far = 1'000'000;

/// Weights that differ, from `lowest` to lowest + 4.
int weight_of(const Graph& g, const GraphEdge& e, int lowest) {
  return lowest + static_cast<int>(
                      (3 * g.index_of(e.from) + 7 * g.index_of(target(e, g)) + static_cast<std::size_t>(e.input)) % 5);
}
auto weights(const Graph& g, int lowest) {
  return boost::make_function_property_map<GraphEdge, int>(
      [&g, lowest](const GraphEdge& e) { return weight_of(g, e, lowest); });
}

/// Shortest (or, with sign -1, longest) distances by one pass, as every edge leads to a lower number.
std::vector<int> expected_distances(const Sample& s, std::size_t from, int lowest, int sign = 1) {
  std::vector<int> d(s.plain.n, far);
  d[from] = 0;
  for (std::size_t u = from + 1; u-- > 0;) {
    if (d[u] == far) continue;
    for (auto [e, end] = out_edges(s.graph.nodes()[u], s.graph); e != end; ++e) {
      int& to = d[s.graph.index_of(target(*e, s.graph))];
      to = std::min(to, d[u] + sign * weight_of(s.graph, *e, lowest));
    }
  }
  return d;
}

/// Distances as Boost gives them: the largest number stands for no way.
std::vector<int> told(std::vector<int> d) {
  for (int& v : d)
    if (v >= far) v = far;
  return d;
}

void dijkstra() {
  on_samples([](const Sample& s) {
    std::vector<int> d(s.plain.n);
    std::vector<const Node*> before(s.plain.n);
    boost::dijkstra_shortest_paths(s.graph, s.root,
                                   boost::weight_map(weights(s.graph, 1))
                                       .distance_map(by_position(d, s.graph))
                                       .predecessor_map(by_position(before, s.graph)));
    const auto expected = expected_distances(s, s.root_index(), 1);
    CHECK(told(d) == expected);
    for (std::size_t v = 0; v < s.plain.n; ++v) {
      if (d[v] >= far || v == s.root_index()) continue;
      int step = far;
      for (auto [e, end] = out_edges(before[v], s.graph); e != end; ++e)
        if (target(*e, s.graph) == s.graph.nodes()[v]) step = std::min(step, weight_of(s.graph, *e, 1));
      CHECK(d[s.graph.index_of(before[v])] + step == d[v]);
    }
    boost::dijkstra_shortest_paths_no_color_map(
        s.graph, s.root, boost::weight_map(weights(s.graph, 1)).distance_map(by_position(d, s.graph)));
    CHECK(told(d) == expected);
  });
}

void bellman_ford() {
  on_samples([](const Sample& s) {
    std::vector<int> d(s.plain.n);
    CHECK(boost::bellman_ford_shortest_paths(
        s.graph, static_cast<int>(s.plain.n),
        boost::weight_map(weights(s.graph, -2)).distance_map(by_position(d, s.graph)).root_vertex(s.root)));
    CHECK(told(d) == expected_distances(s, s.root_index(), -2));
  });
}

void dag() {
  on_samples([](const Sample& s) {
    for (const int sign : {1, -1}) {  // shortest and longest
      std::vector<int> d(s.plain.n);
      const auto signed_weights = boost::make_function_property_map<GraphEdge, int>(
          [&](const GraphEdge& e) { return sign * weight_of(s.graph, e, 1); });
      boost::dag_shortest_paths(s.graph, s.root,
                                boost::weight_map(signed_weights).distance_map(by_position(d, s.graph)));
      CHECK(told(d) == expected_distances(s, s.root_index(), 1, sign));
    }
  });
}

void johnson() {
  on_samples([](const Sample& s) {
    std::vector<std::vector<int>> d(s.plain.n, std::vector<int>(s.plain.n));
    REQUIRE(boost::johnson_all_pairs_shortest_paths(s.graph, d, boost::weight_map(weights(s.graph, -1))));
    for (std::size_t u = 0; u < s.plain.n; ++u) CHECK(told(d[u]) == expected_distances(s, u, -1));
  });
}

/// A matrix whose rows and columns are nodes.
struct NodeMatrix {
  const Graph& g;
  std::vector<std::vector<int>> rows;
  struct Row {
    const Graph& g;
    std::vector<int>& row;
    int& operator[](const Node* n) const { return row[g.index_of(n)]; }
  };
  Row operator[](const Node* n) { return {g, rows[g.index_of(n)]}; }
};

void floyd_warshall() {
  on_samples([](const Sample& s) {
    NodeMatrix d{s.graph, std::vector<std::vector<int>>(s.plain.n, std::vector<int>(s.plain.n))};
    REQUIRE(boost::floyd_warshall_all_pairs_shortest_paths(s.graph, d, boost::weight_map(weights(s.graph, -1))));
    for (std::size_t u = 0; u < s.plain.n; ++u) CHECK(told(d.rows[u]) == expected_distances(s, u, -1));
  });
}

/// Length and number of edges of a path.
struct Label {
  int length = 0, edges = 0;
  friend bool operator==(const Label&, const Label&) = default;
  friend bool operator<(const Label& a, const Label& b) {
    return a.length != b.length ? a.length < b.length : a.edges < b.edges;
  }
};

void constrained() {  // a call inside finds its function only by the edge type of Boost's own graphs
  on_samples([](const Sample& s) {
    if (s.plain.n > 45) return;  // more labels than a test has time for
    const auto copy = numbered<NumberedCopy>(s.graph);
    using Edge = NumberedCopy::edge_descriptor;
    const auto weight = [&](const Edge& e) {
      return 1 + static_cast<int>((3 * source(e, copy) + 7 * target(e, copy)) % 5);
    };
    const std::size_t root = s.root_index();
    for (const int most : {2, 4, 6}) {
      const auto extend = [&](const NumberedCopy&, Label& to, const Label& from, const Edge& e) {
        to = {from.length + weight(e), from.edges + 1};
        return to.edges <= most;
      };
      const auto dominates = [](const Label& a, const Label& b) { return a.length <= b.length && a.edges <= b.edges; };
      // the same by one table: the shortest way with exactly k edges
      std::vector<std::vector<int>> by_edges(static_cast<std::size_t>(most) + 1, std::vector<int>(s.plain.n, far));
      by_edges[0][root] = 0;
      for (std::size_t k = 0; k + 1 < by_edges.size(); ++k)
        for (auto [e, end] = edges(copy); e != end; ++e)
          if (const int from = by_edges[k][source(*e, copy)]; from != far)
            by_edges[k + 1][target(*e, copy)] = std::min(by_edges[k + 1][target(*e, copy)], from + weight(*e));
      for (std::size_t v = 0; v < s.plain.n; v += 3) {
        if (v == root) continue;
        std::vector<std::vector<Edge>> paths;  // all that no other beats in length and edges
        std::vector<Label> labels;
        boost::r_c_shortest_paths(copy, get(boost::vertex_index, copy), get(boost::edge_index, copy), root, v, paths,
                                  labels, Label{}, extend, dominates);
        std::vector<Label> expected, found;
        for (int k = 1, best = far; k <= most; ++k)
          if (const int length = by_edges[static_cast<std::size_t>(k)][v]; length < best)
            expected.push_back({best = length, k});
        for (std::size_t i = 0; i < paths.size(); ++i) {
          int length = 0;
          for (const Edge& e : paths[i]) length += weight(e);
          CHECK(source(paths[i].back(), copy) == root);  // a path comes from its end
          CHECK(target(paths[i].front(), copy) == v);
          CHECK(labels[i] == Label{length, static_cast<int>(paths[i].size())});
          if (std::ranges::find(found, labels[i]) == found.end()) found.push_back(labels[i]);
        }
        std::ranges::sort(found, {}, &Label::edges);
        CHECK(found == expected);
      }
    }
  });
}

struct CountCycles {
  std::size_t* n;
  void cycle(const auto&, const auto&) { ++*n; }
};

void hawick() {
  on_samples([](const Sample& s) {
    std::size_t cycles = 0;
    boost::hawick_circuits(s.graph, CountCycles{&cycles});
    boost::hawick_unique_circuits(s.graph, CountCycles{&cycles});
    CHECK(cycles == 0);
  });
}

void tiernan() {
  on_samples([](const Sample& s) {
    if (s.plain.n > 45) return;  // tries every path
    std::size_t cycles = 0;
    CountCycles count{&cycles};
    boost::tiernan_all_cycles(s.both, count);
    CHECK(cycles == 0);
    CHECK(boost::tiernan_girth(s.both) == std::numeric_limits<std::size_t>::max());
    CHECK(boost::tiernan_circumference(s.both) == std::numeric_limits<std::size_t>::max());  // 1.74 says "no cycle" so
  });
}

void howard() {
  on_samples([](const Sample& s) {
    const auto one = all_weigh<BidirectionalGraph>(1.0);
    CHECK(boost::minimum_cycle_ratio(s.both, get(boost::vertex_index, s.both), one, one) ==
          std::numeric_limits<double>::infinity());
    CHECK(boost::maximum_cycle_ratio(s.both, get(boost::vertex_index, s.both), one, one) ==
          -std::numeric_limits<double>::infinity());
    const auto copy = numbered<NumberedCopy>(s.graph);
    const auto same = all_weigh<NumberedCopy>(1.0);
    CHECK(boost::minimum_cycle_mean(copy, get(boost::vertex_index, copy), same, get(boost::edge_index, copy)) ==
          std::numeric_limits<double>::infinity());
    CHECK(boost::maximum_cycle_mean(copy, get(boost::vertex_index, copy), same, get(boost::edge_index, copy)) ==
          -std::numeric_limits<double>::infinity());
  });
}

constexpr BoostRow rows[] = {
    {"dijkstra_shortest_paths", "dijkstra_shortest_paths.hpp", Needs::graph, dijkstra},
    {"dijkstra_shortest_paths_no_color_map", "dijkstra_shortest_paths_no_color_map.hpp", Needs::graph, dijkstra},
    {"bellman_ford_shortest_paths", "bellman_ford_shortest_paths.hpp", Needs::graph, bellman_ford},
    {"dag_shortest_paths", "dag_shortest_paths.hpp", Needs::graph, dag},
    {"johnson_all_pairs_shortest_paths", "johnson_all_pairs_shortest.hpp", Needs::graph, johnson},
    {"floyd_warshall_all_pairs_shortest_paths", "floyd_warshall_shortest.hpp", Needs::graph, floyd_warshall},
    {"r_c_shortest_paths", "r_c_shortest_paths.hpp", Needs::copy, constrained},
    {"hawick_circuits, hawick_unique_circuits", "hawick_circuits.hpp", Needs::nothing, hawick},
    {"tiernan_all_cycles, tiernan_girth, tiernan_circumference", "tiernan_all_cycles.hpp", Needs::nothing, tiernan},
    {"minimum_cycle_ratio, maximum_cycle_ratio, minimum_cycle_mean, maximum_cycle_mean", "howard_cycle_ratio.hpp",
     Needs::nothing, howard},
};

}  // namespace

std::span<const BoostRow> boost_paths() { return rows; }

TEST_CASE("boost graph: paths give right answers") { try_all(boost_paths()); }

}  // namespace ebb::testing
