// Boost.Graph's measures and clusterings on recorded graphs.
#include "graph/boost_table.h"  // first: some of the headers below need what it includes

#include <boost/graph/bandwidth.hpp>
#include <boost/graph/bc_clustering.hpp>
#include <boost/graph/betweenness_centrality.hpp>
#include <boost/graph/bron_kerbosch_all_cliques.hpp>
#include <boost/graph/closeness_centrality.hpp>
#include <boost/graph/clustering_coefficient.hpp>
#include <boost/graph/connected_components.hpp>
#include <boost/graph/core_numbers.hpp>
#include <boost/graph/degree_centrality.hpp>
#include <boost/graph/eccentricity.hpp>
#include <boost/graph/geodesic_distance.hpp>
#include <boost/graph/graph_stats.hpp>
#include <boost/graph/page_rank.hpp>
#include <boost/graph/profile.hpp>
#include <boost/graph/wavefront.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace ebb::testing {
namespace {

bool close(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::abs(a[i] - b[i]) > 1e-9 * std::max(1.0, std::abs(b[i]))) return false;
  return a.size() == b.size();
}

void betweenness() {
  on_samples([](const Sample& s) {
    const std::size_t n = s.plain.n;
    // shortest ways between all pairs, parallel edges counted each
    std::vector<std::vector<std::size_t>> d;
    std::vector<std::vector<double>> ways(n, std::vector<double>(n));
    for (std::size_t u = 0; u < n; ++u) {
      d.push_back(s.plain.distances(u));
      ways[u][u] = 1;
      for (std::size_t v = u + 1; v-- > 0;)
        for (const std::size_t w : s.plain.out[v])
          if (d[u][v] < n && d[u][w] == d[u][v] + 1) ways[u][w] += ways[u][v];
    }
    std::vector<double> expected(n), found(n), by_edge(s.plain.edges());
    for (std::size_t u = 0; u < n; ++u)
      for (std::size_t w = 0; w < n; ++w)
        for (std::size_t v = 0; v < n && u != w && d[u][w] < n; ++v)
          if (v != u && v != w && d[u][v] < n && d[v][w] < n && d[u][v] + d[v][w] == d[u][w])
            expected[v] += ways[u][v] * ways[v][w] / ways[u][w];
    boost::brandes_betweenness_centrality(s.graph, by_position(found, s.graph));
    CHECK(close(found, expected));
    boost::brandes_betweenness_centrality(
        s.both, by_position(found, s.both),
        boost::make_iterator_property_map(by_edge.begin(), get(boost::edge_index, s.both)));
    double total = 0, lengths = 0;  // each way counts each of its edges
    for (const double b : by_edge) total += b;
    for (std::size_t u = 0; u < n; ++u)
      for (std::size_t w = 0; w < n; ++w) lengths += d[u][w] < n ? static_cast<double>(d[u][w]) : 0;
    CHECK(total == doctest::Approx(lengths));
    boost::relative_betweenness_centrality(s.graph, by_position(found, s.graph));
    double highest = 0, gap = 0;
    for (std::size_t v = 0; v < n; ++v) {
      expected[v] *= 2.0 / static_cast<double>(n * n - 3 * n + 2);
      highest = std::max(highest, expected[v]);
    }
    CHECK(close(found, expected));
    for (const double e : expected) gap += highest - e;
    CHECK(boost::central_point_dominance(s.graph, by_position(found, s.graph)) ==
          doctest::Approx(gap / static_cast<double>(n - 1)));
  });
}

void clustering() {
  on_samples([](const Sample& s) {
    auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<double> centrality(s.plain.edges());
    std::vector<std::size_t> group(s.plain.n);
    const auto groups = [&](const UndirectedCopy& g) {
      return boost::connected_components(g,
                                         boost::make_iterator_property_map(group.begin(), get(boost::vertex_index, g)));
    };
    const std::size_t before = groups(copy);
    const auto done = [&](double, const UndirectedCopy::edge_descriptor&, const UndirectedCopy& g) {
      return groups(g) > before;
    };
    boost::betweenness_centrality_clustering(
        copy, done, boost::make_iterator_property_map(centrality.begin(), get(boost::edge_index, copy)));
    CHECK(groups(copy) == before + 1);
  });
}

void degrees() {
  on_samples([](const Sample& s) {
    std::vector<std::size_t> out(s.plain.n), in(s.plain.n);
    boost::all_degree_centralities(s.graph, by_position(out, s.graph));
    boost::all_prestige_values(s.both, by_position(in, s.both));
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      CHECK(out[u] == s.plain.out[u].size());
      CHECK(in[u] == s.plain.in[u].size());
    }
  });
}

constexpr int far = std::numeric_limits<int>::max();

/// The distances from each node, as maps by node.
struct Distances {
  explicit Distances(const Sample& s) : graph(s.graph) {
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      rows.emplace_back();
      for (const std::size_t d : s.plain.distances(u))
        rows.back().push_back(d == s.plain.n ? far : static_cast<int>(d));
    }
  }
  auto from(const Node* n) { return by_position(rows[graph.index_of(n)], graph); }
  auto map() {
    return boost::make_function_property_map<const Node*>([this](const Node* n) { return from(n); });
  }
  const Graph& graph;
  std::vector<std::vector<int>> rows;
};

void closeness() {
  on_samples([](const Sample& s) {
    Distances d(s);
    std::vector<double> found(s.plain.n), expected;
    boost::all_closeness_centralities(s.graph, d.map(), by_position(found, s.graph));
    for (const auto& row : d.rows) {
      double sum = 0;
      for (const int v : row) sum = v == far ? std::numeric_limits<double>::infinity() : sum + v;
      expected.push_back(sum == 0 || std::ranges::count(row, far) ? 0 : 1 / sum);
    }
    for (std::size_t u = 0; u < s.plain.n; ++u)
      if (s.plain.n > 1) CHECK(found[u] == doctest::Approx(expected[u]));
  });
}

void geodesic() {
  on_samples([](const Sample& s) {
    Distances d(s);
    for (const Node* n : s.graph.nodes()) {
      const auto& row = d.rows[s.graph.index_of(n)];
      const double mean = boost::mean_geodesic(s.graph, d.from(n));
      if (std::ranges::count(row, far)) CHECK(mean == std::numeric_limits<double>::infinity());
      else {
        double sum = 0;
        for (const int v : row) sum += v;
        CHECK(mean == doctest::Approx(sum / static_cast<double>(s.plain.n - 1)));
      }
    }
  });
}

void eccentricities() {
  on_samples([](const Sample& s) {
    Distances d(s);
    std::vector<int> found(s.plain.n), expected;
    const auto [radius, diameter] = boost::all_eccentricities(s.graph, d.map(), by_position(found, s.graph));
    for (const auto& row : d.rows) expected.push_back(std::ranges::max(row));
    CHECK(found == expected);
    CHECK(radius == std::ranges::min(expected));
    CHECK(diameter == std::ranges::max(expected));
  });
}

void clustering_coefficients() {
  on_samples([](const Sample& s) {
    std::vector<double> found(s.plain.n), expected(s.plain.n);
    const double mean = boost::all_clustering_coefficients(s.graph, by_position(found, s.graph));
    double sum = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      const auto& out = s.plain.out[u];
      double linked = 0;
      for (std::size_t i = 0; i < out.size(); ++i)
        for (std::size_t j = i + 1; j < out.size(); ++j)
          linked += std::ranges::count(s.plain.out[out[i]], out[j]) > 0 ||
                    std::ranges::count(s.plain.out[out[j]], out[i]) > 0;
      if (out.size() > 1) expected[u] = linked / static_cast<double>(out.size() * (out.size() - 1));
      sum += expected[u];
    }
    CHECK(close(found, expected));
    CHECK(mean == doctest::Approx(sum / static_cast<double>(s.plain.n)));
  });
}

void cores() {
  on_samples([](const Sample& s) {
    auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<int> found(s.plain.n), expected(s.plain.n);
    boost::core_numbers(copy, boost::make_iterator_property_map(found.begin(), get(boost::vertex_index, copy)),
                        all_weigh<UndirectedCopy>(1), get(boost::vertex_index, copy),
                        boost::make_core_numbers_visitor(boost::null_visitor()));
    std::vector<char> gone(s.plain.n);  // the node of the least degree goes, one after the other
    for (int level = 0; std::ranges::count(gone, 0) > 0;) {
      std::size_t least = Plain::none;
      int degree = far;
      for (std::size_t u = 0; u < s.plain.n; ++u) {
        int here = 0;
        for (const auto* list : {&s.plain.out[u], &s.plain.in[u]})
          for (const std::size_t v : *list) here += !gone[v];
        if (!gone[u] && here < degree) least = u, degree = here;
      }
      expected[least] = level = std::max(level, degree);
      gone[least] = 1;
    }
    CHECK(found == expected);
  });
}

void page_rank() {
  on_samples([](const Sample& s) {
    const auto n = static_cast<double>(s.plain.n);
    std::vector<double> out_only(s.plain.n), both(s.plain.n), expected(s.plain.n, 1 / n);
    boost::graph::page_rank(s.graph, by_position(out_only, s.graph));  // along out-edges
    boost::graph::page_rank(s.both, by_position(both, s.both));        // against in-edges
    for (int i = 0; i < 20; ++i) {
      std::vector<double> next(s.plain.n, 0.15);
      for (std::size_t u = 0; u < s.plain.n; ++u)
        for (const std::size_t v : s.plain.out[u])
          next[v] += 0.85 * expected[u] / static_cast<double>(s.plain.out[u].size());
      expected = next;
    }
    CHECK(close(out_only, expected));
    CHECK(close(both, expected));
  });
}

void cliques() {
  on_samples([](const Sample& s) {
    const auto copy = numbered<SimpleCopy>(s.graph);
    std::size_t largest = 2;
    for (std::size_t a = 0; a < s.plain.n; ++a)
      for (std::size_t b = 0; b < a; ++b)
        for (std::size_t c = 0; c < b && edge(a, b, copy).second; ++c) {
          if (!edge(a, c, copy).second || !edge(b, c, copy).second) continue;
          largest = std::max<std::size_t>(largest, 3);
          for (std::size_t d = 0; d < c; ++d)
            if (edge(a, d, copy).second && edge(b, d, copy).second && edge(c, d, copy).second) largest = 4;
        }
    CHECK(boost::bron_kerbosch_clique_number(copy) == largest);  // none of the samples has one of five
  });
}

void band() {
  on_samples([](const Sample& s) {
    std::size_t widest = 0, sum = 0, rows = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      std::size_t here = 0;
      for (const std::size_t v : s.plain.out[u]) here = std::max(here, u - v), sum += u - v;
      widest = std::max(widest, here);
      rows += here + 1;
      CHECK(boost::ith_bandwidth(s.graph.nodes()[u], s.graph) == here);
    }
    CHECK(boost::bandwidth(s.graph) == widest);
    CHECK(boost::edgesum(s.graph, get(boost::vertex_index, s.graph)) == sum);
    CHECK(boost::profile(s.graph) == rows);
  });
}

void wavefronts() {
  on_samples([](const Sample& s) {
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<double> front;
    for (std::size_t i = 0; i < s.plain.n; ++i) {
      std::set<std::size_t> active{i};
      for (std::size_t u = 0; u <= i; ++u)
        for (const auto* list : {&s.plain.out[u], &s.plain.in[u]})
          for (const std::size_t v : *list)
            if (v >= i) active.insert(v);
      front.push_back(static_cast<double>(active.size()));
      CHECK(boost::ith_wavefront(i, copy) == active.size());
    }
    double sum = 0, squares = 0;
    for (const double f : front) sum += f, squares += f * f;
    CHECK(static_cast<double>(boost::max_wavefront(copy)) == std::ranges::max(front));
    CHECK(boost::aver_wavefront(copy) == doctest::Approx(sum / static_cast<double>(s.plain.n)));
    CHECK(boost::rms_wavefront(copy) == doctest::Approx(std::sqrt(squares / static_cast<double>(s.plain.n))));
  });
}

void statistics() {
  on_samples([](const Sample& s) {
    std::size_t repeated = 0;
    std::map<unsigned long, unsigned long> by_degree;
    for (const auto& out : s.plain.out) {
      repeated += out.size() - std::set<std::size_t>(out.begin(), out.end()).size();
      ++by_degree[out.size()];
    }
    CHECK(boost::graph::num_dup_edges(s.graph) == repeated);
    CHECK(boost::graph::degree_dist(s.graph) == by_degree);
    std::size_t nodes = 0, edges = 0;
    for (const auto& [dup, count] : boost::graph::dup_edge_dist(s.graph)) nodes += count, edges += dup * count;
    CHECK(nodes == s.plain.n);
    CHECK(edges == repeated);
  });
}

constexpr BoostRow rows[] = {
    {"brandes_betweenness_centrality, relative_betweenness_centrality, central_point_dominance",
     "betweenness_centrality.hpp", Needs::graph, betweenness},
    {"betweenness_centrality_clustering", "bc_clustering.hpp", Needs::copy, clustering},
    {"degree_centrality, all_degree_centralities, all_prestige_values", "degree_centrality.hpp", Needs::in_edges,
     degrees},
    {"closeness_centrality, all_closeness_centralities", "closeness_centrality.hpp", Needs::graph, closeness},
    {"mean_geodesic", "geodesic_distance.hpp", Needs::graph, geodesic},
    {"eccentricity, all_eccentricities", "eccentricity.hpp", Needs::graph, eccentricities},
    {"clustering_coefficient, all_clustering_coefficients", "clustering_coefficient.hpp", Needs::graph,
     clustering_coefficients},
    {"core_numbers", "core_numbers.hpp", Needs::copy, cores},
    {"graph::page_rank", "page_rank.hpp", Needs::graph, page_rank},
    {"bron_kerbosch_all_cliques, bron_kerbosch_clique_number", "bron_kerbosch_all_cliques.hpp", Needs::copy, cliques},
    {"bandwidth, ith_bandwidth, edgesum", "bandwidth.hpp", Needs::graph, band},
    {"profile", "profile.hpp", Needs::graph, band},
    {"ith_wavefront, max_wavefront, aver_wavefront, rms_wavefront", "wavefront.hpp", Needs::copy, wavefronts},
    {"graph::num_dup_edges, graph::dup_edge_dist, graph::degree_dist", "graph_stats.hpp", Needs::graph, statistics},
};

}  // namespace

std::span<const BoostRow> boost_measures() { return rows; }

TEST_CASE("boost graph: measures give right answers") { try_all(boost_measures()); }

}  // namespace ebb::testing
