// Boost.Graph's layouts and planar graphs on recorded graphs.
#include "graph/boost_table.h"  // first: some of the headers below need what it includes

#include <boost/graph/boyer_myrvold_planar_test.hpp>
#include <boost/graph/chrobak_payne_drawing.hpp>
#include <boost/graph/circle_layout.hpp>
#include <boost/graph/fruchterman_reingold.hpp>
#include <boost/graph/gursoy_atun_layout.hpp>
#include <boost/graph/is_kuratowski_subgraph.hpp>
#include <boost/graph/is_straight_line_drawing.hpp>
#include <boost/graph/kamada_kawai_spring_layout.hpp>
#include <boost/graph/make_biconnected_planar.hpp>
#include <boost/graph/make_connected.hpp>
#include <boost/graph/make_maximal_planar.hpp>
#include <boost/graph/planar_canonical_ordering.hpp>
#include <boost/graph/planar_face_traversal.hpp>
#include <boost/graph/random_layout.hpp>
#include <boost/graph/topology.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>

#include <ebb/ops/ops.h>

namespace ebb::testing {
namespace {

using Square = boost::square_topology<std::mt19937>;
using Point = Square::point_type;

double between(const Point& a, const Point& b) { return std::hypot(a[0] - b[0], a[1] - b[1]); }

void circle() {
  on_samples([](const Sample& s) {
    std::vector<Point> at(s.plain.n);
    boost::circle_graph_layout(s.graph, by_position(at, s.graph), 10.0);
    for (std::size_t i = 0; i < s.plain.n; ++i) {
      CHECK(std::hypot(at[i][0], at[i][1]) == doctest::Approx(10));
      CHECK(between(at[i], at[(i + 1) % s.plain.n]) ==
            doctest::Approx(20 * std::sin(3.14159265358979 / static_cast<double>(s.plain.n))));
    }
  });
}

void anywhere() {
  std::mt19937 random(1);
  const Square square(random, 10);
  on_samples([&](const Sample& s) {
    std::vector<Point> at(s.plain.n);
    boost::random_graph_layout(s.graph, by_position(at, s.graph), square);
    for (const Point& p : at) CHECK((std::abs(p[0]) <= 10 && std::abs(p[1]) <= 10));
    CHECK(between(at[0], at[1]) > 0);
  });
}

void springs() {
  std::mt19937 random(1);
  const Square square(random, 10);
  on_samples([&](const Sample& s) {
    if (s.plain.pieces() != 1) return;  // without a way between two nodes they have no distance
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<Point> at(s.plain.n);
    const auto map = boost::make_iterator_property_map(at.begin(), get(boost::vertex_index, copy));
    boost::circle_graph_layout(copy, map, 1.0);
    CHECK(
        boost::kamada_kawai_spring_layout(copy, map, all_weigh<UndirectedCopy>(1.0), square, boost::edge_length(1.0)));
  });
  const Tensor x = variable(scalar(1)), y = exp(sin(x));
  const auto chain = numbered<UndirectedCopy>(Graph(y));
  std::vector<Point> at(3);
  const auto map = boost::make_iterator_property_map(at.begin(), get(boost::vertex_index, chain));
  boost::circle_graph_layout(chain, map, 1.0);
  CHECK(boost::kamada_kawai_spring_layout(chain, map, all_weigh<UndirectedCopy>(1.0), square, boost::edge_length(1.0)));
  CHECK(between(at[0], at[1]) == doctest::Approx(1).epsilon(0.02));
  CHECK(between(at[1], at[2]) == doctest::Approx(1).epsilon(0.02));
  CHECK(between(at[0], at[2]) == doctest::Approx(2).epsilon(0.02));
}

/// Linked nodes lie nearer to one another than any two do on average.
bool draws_together(const Sample& s, const std::vector<Point>& at) {
  double linked = 0, all = 0;
  for (std::size_t u = 0; u < s.plain.n; ++u) {
    for (const std::size_t v : s.plain.out[u]) linked += between(at[u], at[v]) / static_cast<double>(s.plain.edges());
    for (std::size_t v = 0; v < s.plain.n; ++v)
      all += between(at[u], at[v]) / static_cast<double>(s.plain.n * (s.plain.n - 1));
  }
  return linked < all;
}

void forces() {
  std::mt19937 random(1);
  const Square square(random, 100);
  on_samples([&](const Sample& s) {
    std::vector<Point> at(s.plain.n);
    boost::random_graph_layout(s.graph, by_position(at, s.graph), square);
    boost::fruchterman_reingold_force_directed_layout(s.graph, by_position(at, s.graph), square);
    CHECK(draws_together(s, at));
  });
}

void self_organizing() {
  std::mt19937 random(1);
  const Square square(random, 1);
  on_samples([&](const Sample& s) {
    const auto copy = numbered<UndirectedCopy>(s.graph);  // nodes move with their neighbors in both directions
    std::vector<Point> at(s.plain.n);
    boost::gursoy_atun_layout(copy, square,
                              boost::make_iterator_property_map(at.begin(), get(boost::vertex_index, copy)),
                              boost::iterations(static_cast<int>(40 * s.plain.n)));
    CHECK(draws_together(s, at));
  });
}

using Edge = UndirectedCopy::edge_descriptor;
using Embedding = std::vector<std::vector<Edge>>;

void number_edges(UndirectedCopy& g) {
  int next = 0;
  for (auto [e, end] = edges(g); e != end; ++e) put(boost::edge_index, g, *e, next++);
}

/// A plane embedding, or none.
bool embed(const UndirectedCopy& g, Embedding& embedding) {
  embedding.assign(num_vertices(g), {});
  return boost::boyer_myrvold_planarity_test(boost::boyer_myrvold_params::graph = g,
                                             boost::boyer_myrvold_params::embedding = boost::make_iterator_property_map(
                                                 embedding.begin(), get(boost::vertex_index, g)));
}

/// Without parallel edges.
UndirectedCopy simple(const Graph& g) {
  UndirectedCopy copy(g.size());
  for (auto [e, end] = edges(g); e != end; ++e) {
    const std::size_t u = g.index_of(source(*e, g)), v = g.index_of(target(*e, g));
    if (!edge(u, v, copy).second) add_edge(u, v, copy);
  }
  number_edges(copy);
  return copy;
}

/// Products of all pairs of two threes of variables: K3,3 is part of it.
Tensor not_planar() {
  std::vector<Tensor> left, right;
  Tensor sum_of_all = scalar(0);
  for (int i = 0; i < 3; ++i) left.push_back(variable(scalar(i))), right.push_back(variable(scalar(i)));
  for (const Tensor& a : left)
    for (const Tensor& b : right) sum_of_all = sum_of_all + a * b;
  return sum_of_all;
}

void planarity() {
  on_samples([](const Sample& s) {
    const auto g = simple(s.graph);
    Embedding embedding;
    std::vector<Edge> minor;
    const bool planar = boost::boyer_myrvold_planarity_test(g);
    CHECK(embed(g, embedding) == planar);
    CHECK(boost::boyer_myrvold_planarity_test(
              boost::boyer_myrvold_params::graph = g,
              boost::boyer_myrvold_params::kuratowski_subgraph = std::back_inserter(minor)) == planar);
    if (!planar) CHECK(boost::is_kuratowski_subgraph(g, minor.begin(), minor.end()));
    else if (s.plain.pieces() == 1) {
      struct Faces : boost::planar_face_traversal_visitor {
        std::size_t n = 0;
        void begin_face() { ++n; }
      } faces;
      boost::planar_face_traversal(g, boost::make_iterator_property_map(embedding.begin(), get(boost::vertex_index, g)),
                                   faces);
      CHECK(num_vertices(g) + faces.n == num_edges(g) + 2);  // Euler
    }
  });
  const Tensor z = not_planar();
  const auto g = simple(Graph(z));
  std::vector<Edge> minor;
  CHECK_FALSE(boost::boyer_myrvold_planarity_test(
      boost::boyer_myrvold_params::graph = g,
      boost::boyer_myrvold_params::kuratowski_subgraph = std::back_inserter(minor)));
  CHECK(boost::is_kuratowski_subgraph(g, minor.begin(), minor.end()));
}

void straight_lines() {
  struct Place {
    std::size_t x = 0, y = 0;
  };
  on_samples([](const Sample& s) {
    auto g = simple(s.graph);
    Embedding embedding;
    if (!embed(g, embedding)) return;
    const auto map = [&] { return boost::make_iterator_property_map(embedding.begin(), get(boost::vertex_index, g)); };
    const std::size_t links = num_edges(g);
    boost::make_connected(g);
    CHECK(num_edges(g) == links + s.plain.pieces() - 1);
    number_edges(g), embed(g, embedding);
    boost::make_biconnected_planar(g, map());
    number_edges(g);
    REQUIRE(embed(g, embedding));
    boost::make_maximal_planar(g, map());
    CHECK(num_edges(g) == 3 * num_vertices(g) - 6);
    number_edges(g);
    REQUIRE(embed(g, embedding));
    std::vector<std::size_t> order;
    boost::planar_canonical_ordering(g, map(), std::back_inserter(order));
    REQUIRE(order.size() == s.plain.n);
    std::vector<Place> at(s.plain.n);
    const auto places = boost::make_iterator_property_map(at.begin(), get(boost::vertex_index, g));
    boost::chrobak_payne_straight_line_drawing(g, map(), order.begin(), order.end(), places);
    CHECK(boost::is_straight_line_drawing(g, places));
    for (const Place& p : at) CHECK((p.x <= 2 * s.plain.n - 4 && p.y <= s.plain.n - 2));
    std::swap(at[order[0]], at[order.back()]);
    CHECK_FALSE(boost::is_straight_line_drawing(g, places));  // moved, its edges cross
  });
}

constexpr BoostRow rows[] = {
    {"circle_graph_layout", "circle_layout.hpp", Needs::graph, circle},
    {"random_graph_layout", "random_layout.hpp", Needs::graph, anywhere},
    {"kamada_kawai_spring_layout", "kamada_kawai_spring_layout.hpp", Needs::copy, springs},
    {"fruchterman_reingold_force_directed_layout", "fruchterman_reingold.hpp", Needs::graph, forces},
    {"gursoy_atun_layout", "gursoy_atun_layout.hpp", Needs::copy, self_organizing},
    {"boyer_myrvold_planarity_test", "boyer_myrvold_planar_test.hpp", Needs::copy, planarity},
    {"is_kuratowski_subgraph", "is_kuratowski_subgraph.hpp", Needs::copy, planarity},
    {"planar_face_traversal", "planar_face_traversal.hpp", Needs::copy, planarity},
    {"make_connected", "make_connected.hpp", Needs::copy, straight_lines},
    {"make_biconnected_planar", "make_biconnected_planar.hpp", Needs::copy, straight_lines},
    {"make_maximal_planar", "make_maximal_planar.hpp", Needs::copy, straight_lines},
    {"planar_canonical_ordering", "planar_canonical_ordering.hpp", Needs::copy, straight_lines},
    {"chrobak_payne_straight_line_drawing", "chrobak_payne_drawing.hpp", Needs::copy, straight_lines},
    {"is_straight_line_drawing", "is_straight_line_drawing.hpp", Needs::copy, straight_lines},
};

}  // namespace

std::span<const BoostRow> boost_drawings() { return rows; }

TEST_CASE("boost graph: drawings give right answers") { try_all(boost_drawings()); }

}  // namespace ebb::testing
