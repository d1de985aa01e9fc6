// Boost.Graph's orderings and colorings on recorded graphs: of the nodes without directions, as sparse matrices are
// ordered.
#include "graph/boost_table.h"  // first: some of the headers below need what it includes

#include <boost/graph/bandwidth.hpp>
#include <boost/graph/cuthill_mckee_ordering.hpp>
#include <boost/graph/edge_coloring.hpp>
#include <boost/graph/king_ordering.hpp>
#include <boost/graph/metric_tsp_approx.hpp>
#include <boost/graph/minimum_degree_ordering.hpp>
#include <boost/graph/sequential_vertex_coloring.hpp>
#include <boost/graph/sloan_ordering.hpp>
#include <boost/graph/smallest_last_ordering.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <set>

#include <ebb/ops/ops.h>

namespace ebb::testing {
namespace {

/// With what the orderings of sparse matrices keep for each vertex.
using OrderCopy = boost::adjacency_list<
    boost::setS, boost::vecS, boost::undirectedS,
    boost::property<boost::vertex_color_t, boost::default_color_type,
                    boost::property<boost::vertex_degree_t, int, boost::property<boost::vertex_priority_t, double>>>,
    boost::property<boost::edge_index_t, int>>;

/// Every position once.
bool is_permutation(std::vector<std::size_t> order, std::size_t n) {
  std::ranges::sort(order);
  std::vector<std::size_t> all(n);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return order == all;
}

/// Band of the matrix whose rows come in this order.
std::size_t band_of(const OrderCopy& g, const std::vector<std::size_t>& order) {
  std::vector<std::size_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
  return boost::bandwidth(g, boost::make_iterator_property_map(place.begin(), get(boost::vertex_index, g)));
}

/// A grid in a random-looking order has a wide band; what an ordering for small bands must make narrow.
OrderCopy shuffled_path(std::size_t n) {
  OrderCopy g(n);
  for (std::size_t i = 0; i + 1 < n; ++i) add_edge(7 * i % n, 7 * (i + 1) % n, g);
  return g;
}

void cuthill_mckee() {
  on_samples([](const Sample& s) {
    const auto g = numbered<OrderCopy>(s.graph);
    std::vector<std::size_t> order;
    boost::cuthill_mckee_ordering(g, std::back_inserter(order));
    CHECK(is_permutation(order, s.plain.n));
  });
  const auto path = shuffled_path(20);
  std::vector<std::size_t> order;
  boost::cuthill_mckee_ordering(path, std::back_inserter(order));
  CHECK(band_of(path, order) == 1);
}

void king() {
  on_samples([](const Sample& s) {
    const auto g = numbered<OrderCopy>(s.graph);
    std::vector<std::size_t> order;
    boost::king_ordering(g, std::back_inserter(order));
    CHECK(is_permutation(order, s.plain.n));
  });
  const auto path = shuffled_path(20);
  std::vector<std::size_t> order;
  boost::king_ordering(path, std::back_inserter(order));
  CHECK(band_of(path, order) == 1);
}

void sloan() {
  on_samples([](const Sample& s) {
    if (s.plain.pieces() != 1) return;  // it takes a connected graph
    auto g = numbered<OrderCopy>(s.graph);
    std::vector<std::size_t> order(s.plain.n);
    for (std::size_t v = 0; v < s.plain.n; ++v) put(boost::vertex_degree, g, v, static_cast<int>(out_degree(v, g)));
    boost::sloan_ordering(g, order.begin(), get(boost::vertex_color, g), get(boost::vertex_degree, g),
                          get(boost::vertex_priority, g));
    CHECK(is_permutation(order, s.plain.n));
  });
}

void minimum_degree() {
  on_samples([](const Sample& s) {
    const auto simple = numbered<SimpleCopy>(s.graph);
    using Both = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS>;
    Both g(s.plain.n);  // each edge in both directions
    for (auto [e, end] = edges(simple); e != end; ++e)
      add_edge(source(*e, simple), target(*e, simple), g), add_edge(target(*e, simple), source(*e, simple), g);
    std::vector<int> degree(s.plain.n), inverse(s.plain.n), order(s.plain.n), super(s.plain.n, 1);
    const auto index = get(boost::vertex_index, g);
    boost::minimum_degree_ordering(g, boost::make_iterator_property_map(degree.begin(), index), inverse.data(),
                                   order.data(), boost::make_iterator_property_map(super.begin(), index), 0, index);
    CHECK(is_permutation({order.begin(), order.end()}, s.plain.n));
    for (std::size_t i = 0; i < s.plain.n; ++i)
      CHECK(inverse[static_cast<std::size_t>(order[i])] == static_cast<int>(i));
  });
}

bool colored(const Plain& p, const std::vector<std::size_t>& color) {
  for (std::size_t u = 0; u < p.n; ++u)
    for (const std::size_t v : p.out[u])
      if (color[u] == color[v]) return false;
  return true;
}

void vertex_coloring() {
  on_samples([](const Sample& s) {
    const auto g = numbered<SimpleCopy>(s.graph);
    std::vector<std::size_t> color(s.plain.n);
    const std::size_t colors = boost::sequential_vertex_coloring(
        g, boost::make_iterator_property_map(color.begin(), get(boost::vertex_index, g)));
    CHECK(colored(s.plain, color));
    CHECK(colors == std::ranges::max(color) + 1);
  });
}

void smallest_last() {
  on_samples([](const Sample& s) {
    const auto g = numbered<SimpleCopy>(s.graph);
    const std::vector<std::size_t> order = boost::smallest_last_vertex_ordering(g);
    CHECK(is_permutation(order, s.plain.n));
    // from the end on, each has the least degree among those that are left
    std::vector<char> left(s.plain.n, 1);
    const auto degree = [&](std::size_t u) {
      std::size_t n = 0;
      for (auto [a, end] = adjacent_vertices(u, g); a != end; ++a) n += left[*a];
      return n;
    };
    for (std::size_t i = s.plain.n; i-- > 0;) {
      for (std::size_t u = 0; u < s.plain.n; ++u)
        if (left[u]) CHECK(degree(order[i]) <= degree(u));
      left[order[i]] = 0;
    }
    std::vector<std::size_t> color(s.plain.n);
    boost::sequential_vertex_coloring(
        g, boost::make_iterator_property_map(order.begin(), boost::typed_identity_property_map<std::size_t>()),
        boost::make_iterator_property_map(color.begin(), get(boost::vertex_index, g)));
    CHECK(colored(s.plain, color));
  });
}

void edges_colored() {
  on_samples([](const Sample& s) {
    const auto g = numbered<SimpleCopy>(s.graph);
    std::vector<std::size_t> color(num_edges(g));
    const auto map = boost::make_iterator_property_map(color.begin(), get(boost::edge_index, g));
    const std::size_t colors = boost::edge_coloring(g, map);
    std::size_t most = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      std::set<std::size_t> seen;
      for (auto [e, end] = out_edges(u, g); e != end; ++e) CHECK(seen.insert(get(map, *e)).second);
      most = std::max(most, seen.size());
    }
    CHECK(colors <= most + 1);  // Vizing
  });
}

void tour() {  // of a complete graph with a metric, which no recorded graph is: of points here
  using Complete = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS, boost::no_property,
                                         boost::property<boost::edge_weight_t, double>>;
  constexpr std::size_t n = 9;
  Complete g(n);
  const auto angle = [](std::size_t i) { return 2 * 3.14159265358979 * static_cast<double>(4 * i % n) / n; };
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j) add_edge(i, j, 2 * std::abs(std::sin((angle(i) - angle(j)) / 2)), g);
  std::vector<std::size_t> stops;
  double length = 0;
  boost::metric_tsp_approx(
      g, boost::make_tsp_tour_len_visitor(g, std::back_inserter(stops), length, get(boost::edge_weight, g)));
  CHECK(stops.size() == n + 1);
  CHECK(length < 2 * 2 * n * std::sin(3.14159265358979 / n) + 1e-9);  // at most twice the shortest, which goes round
  const Tensor x = variable(scalar(1));
  const Graph line(exp(x));
  CHECK(num_edges(line) < num_vertices(line) * (num_vertices(line) - 1));
}

constexpr BoostRow rows[] = {
    {"cuthill_mckee_ordering", "cuthill_mckee_ordering.hpp", Needs::copy, cuthill_mckee},
    {"king_ordering", "king_ordering.hpp", Needs::copy, king},
    {"sloan_ordering, sloan_start_end_vertices", "sloan_ordering.hpp", Needs::copy, sloan},
    {"minimum_degree_ordering", "minimum_degree_ordering.hpp", Needs::copy, minimum_degree},
    {"sequential_vertex_coloring", "sequential_vertex_coloring.hpp", Needs::copy, vertex_coloring},
    {"smallest_last_vertex_ordering", "smallest_last_ordering.hpp", Needs::copy, smallest_last},
    {"edge_coloring", "edge_coloring.hpp", Needs::copy, edges_colored},
    {"metric_tsp_approx", "metric_tsp_approx.hpp", Needs::nothing, tour},
};

}  // namespace

std::span<const BoostRow> boost_orders() { return rows; }

TEST_CASE("boost graph: orders give right answers") { try_all(boost_orders()); }

}  // namespace ebb::testing
