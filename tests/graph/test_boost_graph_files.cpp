// Boost.Graph's writers on recorded graphs, and what makes graphs: its readers and generators.
#include "graph/boost_table.h"  // first: some of the headers below need what it includes

#include <boost/graph/erdos_renyi_generator.hpp>
#include <boost/graph/graph_utility.hpp>
#include <boost/graph/graphml.hpp>
#include <boost/graph/graphviz.hpp>
#include <boost/graph/mesh_graph_generator.hpp>
#include <boost/graph/metis.hpp>
#include <boost/graph/plod_generator.hpp>
#include <boost/graph/random.hpp>
#include <boost/graph/read_dimacs.hpp>
#include <boost/graph/rmat_graph_generator.hpp>
#include <boost/graph/small_world_generator.hpp>
#include <boost/graph/ssca_graph_generator.hpp>
#include <boost/graph/write_dimacs.hpp>

#include <algorithm>
#include <iostream>
#include <random>
#include <sstream>
#include <string>

namespace ebb::testing {
namespace {

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

void graphviz() {
  on_samples([](const Sample& s) {
    std::ostringstream out;
    boost::write_graphviz(out, s.graph, boost::make_label_writer(get(boost::vertex_name, s.graph)));
    CHECK(occurrences(out.str(), "[label=") == s.plain.n);
    CHECK(occurrences(out.str(), "->") == s.plain.edges());
    for (std::size_t u = 0; u < s.plain.n; ++u)
      for (const std::size_t v : s.plain.out[u])
        CHECK(out.str().find("\n" + std::to_string(u) + "->" + std::to_string(v) + " ;") != std::string::npos);
  });
}

void graphml() {
  on_samples([](const Sample& s) {
    std::ostringstream out;
    boost::dynamic_properties properties;
    properties.property("name", get(boost::vertex_name, s.graph));
    boost::write_graphml(out, s.graph, properties, true);
    CHECK(occurrences(out.str(), "<node id=") == s.plain.n);
    CHECK(occurrences(out.str(), "<edge id=") == s.plain.edges());
    CHECK(occurrences(out.str(), ">" + get(boost::vertex_name, s.graph, s.root) + "</data>") > 0);
  });
}

void print() {
  on_samples([](const Sample& s) {
    std::ostringstream out;
    boost::print_graph(s.graph, get(boost::vertex_index, s.graph), out);
    CHECK(std::ranges::count(out.str(), '\n') == static_cast<std::ptrdiff_t>(s.plain.n));
    CHECK(out.str().starts_with("0 --> \n"));
  });
}

using Links = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
using FlowGraph = boost::adjacency_list<
    boost::vecS, boost::vecS, boost::directedS, boost::no_property,
    boost::property<boost::edge_capacity_t, int, boost::property<boost::edge_reverse_t, Links::edge_descriptor>>>;

void dimacs() {
  on_samples([](const Sample& s) {
    std::stringstream file;
    boost::write_dimacs_max_flow(s.graph, all_weigh<Graph>(3), get(boost::vertex_index, s.graph), s.root,
                                 s.graph.nodes()[0], file);
    FlowGraph read;
    std::size_t from = 0, to = 0;
    CHECK(boost::read_dimacs_max_flow(read, get(boost::edge_capacity, read), get(boost::edge_reverse, read), from, to,
                                      file) == 0);
    CHECK(num_vertices(read) == s.plain.n);
    CHECK(num_edges(read) == 2 * s.plain.edges());  // each with its reverse
    CHECK(from == s.root_index());
    CHECK(to == 0);
  });
}

template <class G>
concept Grows = requires(G& g) { add_vertex(g); } ||
                requires(G& g, typename boost::graph_traits<G>::vertex_descriptor v) { add_edge(v, v, g); };
template <class G>
concept Shrinks = requires(G& g, typename boost::graph_traits<G>::vertex_descriptor v) { remove_vertex(v, g); } ||
                  requires(G& g, typename boost::graph_traits<G>::vertex_descriptor v) { remove_edge(v, v, g); };

/// A recorded graph grows by running ops, and by nothing else.
void only_ops_change_it() {
  CHECK_FALSE(Grows<Graph>);
  CHECK_FALSE(Grows<BidirectionalGraph>);
  CHECK_FALSE(Shrinks<Graph>);
  CHECK_FALSE(Shrinks<BidirectionalGraph>);
  CHECK(Grows<DirectedCopy>);
  CHECK(Shrinks<DirectedCopy>);
}

void metis() {
  only_ops_change_it();
  std::istringstream file("3 2\n2 3\n1\n1\n");
  boost::graph::metis_reader reader(file);
  UndirectedCopy g(reader.num_vertices());
  CHECK(num_vertices(g) == 3);
}

using Bare = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS>;

template <class Iterator>
constexpr bool makes_no_recording = !std::is_constructible_v<Graph, Iterator, Iterator, std::size_t> &&
                                    !std::is_constructible_v<BidirectionalGraph, Iterator, Iterator, std::size_t>;

void erdos_renyi() {
  std::mt19937 random(1);
  using Iterator = boost::erdos_renyi_iterator<std::mt19937, Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(random, 20, std::size_t{30}), Iterator(), 20)) == 30);
}

void small_world() {
  std::mt19937 random(1);
  using Iterator = boost::small_world_iterator<std::mt19937, Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(random, 20, 4, 0.1), Iterator(), 20)) == 40);
}

void plod() {
  std::mt19937 random(1);
  using Iterator = boost::plod_iterator<std::mt19937, Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(random, 20, 2.5, 100), Iterator(), 20)) > 0);
}

void rmat() {
  std::mt19937 random(1);
  using Iterator = boost::rmat_iterator<std::mt19937, Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(random, 16, 30, 0.25, 0.25, 0.25, 0.25), Iterator(), 16)) <=
        30);  // the same edge may be drawn twice
}

void mesh() {
  using Iterator = boost::mesh_iterator<Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(3, 4, false), Iterator(), 12)) == 2 * (2 * 4 + 3 * 3));
}

void ssca() {
  std::mt19937 random(1);
  using Iterator = boost::ssca_iterator<std::mt19937, Bare>;
  CHECK(makes_no_recording<Iterator>);
  CHECK(num_edges(Bare(Iterator(random, 20, 3, 0.5, 2, 0.2), Iterator(), 20)) > 0);
}

void random_graph() {
  only_ops_change_it();
  std::mt19937 random(1);
  Bare g;
  boost::generate_random_graph(g, 10, 20, random);
  CHECK(num_edges(g) == 20);
}

constexpr BoostRow rows[] = {
    {"write_graphviz", "graphviz.hpp", Needs::graph, graphviz},
    {"write_graphml", "graphml.hpp", Needs::graph, graphml},
    {"print_graph", "graph_utility.hpp", Needs::graph, print},
    {"write_dimacs_max_flow", "write_dimacs.hpp", Needs::graph, dimacs},
    {"read_graphviz", "graphviz.hpp", Needs::nothing, only_ops_change_it},
    {"read_graphml", "graphml.hpp", Needs::nothing, only_ops_change_it},
    {"read_dimacs_max_flow", "read_dimacs.hpp", Needs::nothing, dimacs},
    {"metis_reader", "metis.hpp", Needs::nothing, metis},
    {"erdos_renyi_iterator", "erdos_renyi_generator.hpp", Needs::nothing, erdos_renyi},
    {"small_world_iterator", "small_world_generator.hpp", Needs::nothing, small_world},
    {"plod_iterator", "plod_generator.hpp", Needs::nothing, plod},
    {"rmat_iterator", "rmat_graph_generator.hpp", Needs::nothing, rmat},
    {"mesh_iterator", "mesh_graph_generator.hpp", Needs::nothing, mesh},
    {"ssca_iterator", "ssca_graph_generator.hpp", Needs::nothing, ssca},
    {"generate_random_graph", "random.hpp", Needs::nothing, random_graph},
    {"clear_vertex, remove_edge, remove_vertex, remove_edge_if", "graph_mutability_traits.hpp", Needs::nothing,
     only_ops_change_it},
};

}  // namespace

std::span<const BoostRow> boost_files() { return rows; }

TEST_CASE("boost graph: files give right answers") { try_all(boost_files()); }

}  // namespace ebb::testing
