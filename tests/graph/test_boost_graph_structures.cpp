// Boost.Graph's components, closures, dominators, views, copies and comparisons on recorded graphs.
// (over 400 lines because each structure is compared with the same plain graph)
#include <boost/graph/adjacency_matrix.hpp>
#include <boost/graph/biconnected_components.hpp>
#include <boost/graph/bipartite.hpp>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/connected_components.hpp>
#include <boost/graph/create_condensation_graph.hpp>
#include <boost/graph/dominator_tree.hpp>
#include <boost/graph/filtered_graph.hpp>
#include <boost/graph/incremental_components.hpp>
#include <boost/graph/isomorphism.hpp>
#include <boost/graph/mcgregor_common_subgraphs.hpp>
#include <boost/graph/reverse_graph.hpp>
#include <boost/graph/strong_components.hpp>
#include <boost/graph/subgraph.hpp>
#include <boost/graph/transitive_closure.hpp>
#include <boost/graph/transitive_reduction.hpp>
#include <boost/graph/transpose_graph.hpp>
#include <boost/graph/vf2_sub_graph_iso.hpp>
#include <boost/pending/disjoint_sets.hpp>

#include <algorithm>
#include <map>
#include <set>

#include <ebb/ops/ops.h>

#include "graph/boost_table.h"

namespace ebb::testing {
namespace {

std::size_t different(std::vector<std::size_t> v) {
  std::ranges::sort(v);
  return v.size() - std::ranges::unique(v).size();
}

void strong() {
  on_samples([](const Sample& s) {  // without cycles each node is a component of its own
    std::vector<std::size_t> component(s.plain.n);
    CHECK(boost::strong_components(s.graph, by_position(component, s.graph)) == s.plain.n);
    CHECK(different(component) == s.plain.n);
  });
}

void connected() {
  on_samples([](const Sample& s) {
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<std::size_t> component(s.plain.n);
    CHECK(boost::connected_components(
              copy, boost::make_iterator_property_map(component.begin(), get(boost::vertex_index, copy))) ==
          s.plain.pieces());
  });
}

void biconnected() {
  on_samples([](const Sample& s) {
    const auto copy = numbered<SimpleCopy>(s.graph);  // of parallel edges it would number one
    std::vector<std::size_t> component(num_edges(copy)), cuts;
    const auto map = boost::make_iterator_property_map(component.begin(), get(boost::edge_index, copy));
    const std::size_t blocks = boost::biconnected_components(copy, map, std::back_inserter(cuts)).first;
    std::vector<std::set<std::size_t>> nodes(blocks);
    for (auto [e, end] = edges(copy); e != end; ++e) nodes[get(map, *e)].insert({source(*e, copy), target(*e, copy)});
    std::size_t links = 0;
    for (const auto& block : nodes) links += block.size() - 1;
    CHECK(links == s.plain.n - s.plain.pieces());  // as the blocks of a graph form a tree
    std::vector<std::size_t> alone, expected;
    boost::articulation_points(copy, std::back_inserter(alone));
    for (std::size_t u = 0; u < s.plain.n; ++u)
      if (s.plain.pieces(u) > s.plain.pieces()) expected.push_back(u);
    std::ranges::sort(cuts), std::ranges::sort(alone);
    CHECK(cuts == expected);
    CHECK(alone == expected);
  });
}

void incremental() {
  on_samples([](const Sample& s) {
    std::vector<std::size_t> rank(s.plain.n);
    std::vector<const Node*> parent(s.plain.n);
    boost::disjoint_sets sets(by_position(rank, s.graph), by_position(parent, s.graph));
    boost::initialize_incremental_components(s.graph, sets);
    boost::incremental_components(s.graph, sets);
    std::size_t pieces = 0;
    for (const Node* n : s.graph.nodes()) pieces += sets.find_set(n) == n;
    CHECK(pieces == s.plain.pieces());
    CHECK(boost::same_component(s.root, target(*out_edges(s.root, s.graph).first, s.graph), sets));
  });
}

void bipartite() {
  on_samples([](const Sample& s) {
    const auto copy = numbered<UndirectedCopy>(s.graph);
    std::vector<int> side(s.plain.n, -1);
    bool two_sides = true;
    for (std::size_t start = s.plain.n; start-- > 0;) {
      if (side[start] >= 0) continue;
      std::vector<std::size_t> open{start};
      side[start] = 0;
      while (!open.empty()) {
        const std::size_t u = open.back();
        open.pop_back();
        for (const auto* list : {&s.plain.out[u], &s.plain.in[u]})
          for (const std::size_t v : *list) {
            if (side[v] < 0) side[v] = 1 - side[u], open.push_back(v);
            else two_sides &= side[v] != side[u];
          }
      }
    }
    CHECK(boost::is_bipartite(copy) == two_sides);
    std::vector<std::size_t> cycle;
    boost::find_odd_cycle(copy, std::back_inserter(cycle));
    CHECK(cycle.empty() == two_sides);
    if (two_sides) return;
    CHECK(cycle.size() % 2 == 1);
    for (std::size_t i = 0; i < cycle.size(); ++i) CHECK(edge(cycle[i], cycle[(i + 1) % cycle.size()], copy).second);
  });
}

void condensation() {
  on_samples([](const Sample& s) {
    std::vector<std::size_t> component(s.plain.n);
    const std::size_t n = boost::strong_components(s.graph, by_position(component, s.graph));
    std::vector<std::vector<const Node*>> lists;
    boost::build_component_lists(s.graph, n, by_position(component, s.graph), lists);
    boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property,
                          boost::property<boost::edge_weight_t, int>>
        small;
    boost::create_condensation_graph(s.graph, lists, by_position(component, s.graph), small,
                                     get(boost::edge_weight, small));
    std::size_t distinct = 0, all = 0;
    for (const auto& out : s.plain.out) distinct += different(out);
    for (auto [e, end] = edges(small); e != end; ++e)
      all += static_cast<std::size_t>(get(boost::edge_weight, small, *e));
    CHECK(num_vertices(small) == s.plain.n);
    CHECK(num_edges(small) == distinct);
    CHECK(all == s.plain.edges());
  });
}

void closure() {
  on_samples([](const Sample& s) {
    DirectedCopy all;
    std::vector<std::size_t> to(s.plain.n);
    boost::transitive_closure(s.graph, all, by_position(to, s.graph), get(boost::vertex_index, s.graph));
    REQUIRE(num_vertices(all) == s.plain.n);
    for (std::size_t u = 0; u < s.plain.n; ++u)
      for (std::size_t v = 0; v < s.plain.n; ++v)
        REQUIRE(edge(to[u], to[v], all).second == (u != v && s.plain.reach[u][v]));
  });
}

void closure_of_matrix() {
  using Matrix = boost::adjacency_matrix<boost::directedS>;
  on_samples([](const Sample& s) {
    for (const bool warren : {false, true}) {
      Matrix m(s.plain.n);
      for (auto [e, end] = edges(s.graph); e != end; ++e)
        add_edge(s.graph.index_of(source(*e, s.graph)), s.graph.index_of(target(*e, s.graph)), m);
      if (warren) boost::warren_transitive_closure(m);
      else boost::warshall_transitive_closure(m);
      for (std::size_t u = 0; u < s.plain.n; ++u)
        for (std::size_t v = 0; v < s.plain.n; ++v) REQUIRE(edge(u, v, m).second == (u != v && s.plain.reach[u][v]));
    }
  });
}

void reduction() {
  on_samples([](const Sample& s) {
    DirectedCopy few;
    std::vector<std::size_t> to(s.plain.n);
    boost::transitive_reduction(s.both, few, by_position(to, s.both), get(boost::vertex_index, s.both));
    for (std::size_t u = 0; u < s.plain.n; ++u)
      for (std::size_t v = 0; v < s.plain.n; ++v) {
        bool direct = std::ranges::count(s.plain.out[u], v) > 0;
        for (std::size_t w = 0; w < s.plain.n; ++w)
          direct &= w == u || w == v || !s.plain.reach[u][w] || !s.plain.reach[w][v];
        REQUIRE(edge(to[u], to[v], few).second == direct);
      }
  });
}

/// The closest node that every way from the root to v passes.
std::vector<std::size_t> dominators(const Plain& p, std::size_t root) {
  std::vector<std::vector<std::size_t>> by(p.n);
  for (std::size_t d = 0; d < p.n; ++d) {
    std::vector<char> seen(p.n);
    std::vector<std::size_t> open;
    if (d != root) seen[root] = 1, open.push_back(root);
    while (!open.empty()) {
      const std::size_t u = open.back();
      open.pop_back();
      for (const std::size_t v : p.out[u])
        if (v != d && !seen[v]) seen[v] = 1, open.push_back(v);
    }
    for (std::size_t v = 0; v < p.n; ++v)
      if (p.reach[root][v] && !seen[v]) by[v].push_back(d);
  }
  std::vector<std::size_t> closest(p.n, Plain::none);
  for (std::size_t v = 0; v < p.n; ++v)
    for (const std::size_t d : by[v])
      if (d != v && (closest[v] == Plain::none || by[d].size() > by[closest[v]].size())) closest[v] = d;
  return closest;
}

void dominator_tree() {
  on_samples([](const Sample& s) {
    const BidirectionalGraph below(s.roots[0]);  // nodes that the entry does not reach mislead 1.74
    const Plain plain(below);
    const std::vector<std::size_t> expected = dominators(plain, below.index_of(s.root));
    std::vector<const Node*> above(below.size());
    boost::lengauer_tarjan_dominator_tree(below, s.root, by_position(above, below));
    for (std::size_t v = 0; v < plain.n; ++v) CHECK((above[v] ? below.index_of(above[v]) : Plain::none) == expected[v]);
  });
}

void dominator_tree_by_sets() {  // makes another graph of the type that it is given
  on_samples([](const Sample& s) {
    const std::vector<std::size_t> expected = dominators(s.plain, s.root_index());
    const auto copy = copy_of<DirectedCopy>(s.graph);
    std::vector<std::size_t> above(s.plain.n, Plain::none);
    boost::iterative_bit_vector_dominator_tree(
        copy, s.root_index(), boost::make_iterator_property_map(above.begin(), get(boost::vertex_index, copy)));
    for (std::size_t v = 0; v < s.plain.n; ++v)
      if (s.plain.reach[s.root_index()][v]) CHECK(above[v] == expected[v]);
  });
}

void copies() {
  on_samples([](const Sample& s) {
    const auto copy = copy_of<DirectedCopy>(s.graph);  // bundles: the node, the edge
    REQUIRE(num_vertices(copy) == s.plain.n);
    CHECK(num_edges(copy) == s.plain.edges());
    for (std::size_t u = 0; u < s.plain.n; ++u) CHECK(copy[u] == s.graph.nodes()[u]);
    for (auto [e, end] = edges(copy); e != end; ++e) {
      CHECK(copy[*e].from == copy[source(*e, copy)]);
      CHECK(target(copy[*e], s.graph) == copy[target(*e, copy)]);
    }
    boost::adjacency_list<boost::listS, boost::vecS, boost::directedS> bare;
    boost::copy_graph(s.both, bare);
    CHECK(num_edges(bare) == s.plain.edges());

    DirectedCopy part;
    std::vector<std::size_t> to(s.plain.n);
    const std::size_t root =
        boost::copy_component(s.graph, s.root, part, boost::orig_to_copy(by_position(to, s.graph)));
    const auto& below = s.plain.reach[s.root_index()];
    std::size_t edges_below = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) edges_below += below[u] ? s.plain.out[u].size() : 0;
    CHECK(num_vertices(part) == static_cast<std::size_t>(std::ranges::count(below, 1)));
    CHECK(num_edges(part) == edges_below);
    CHECK(part[root] == s.root);
  });
}

void transposed() {
  on_samples([](const Sample& s) {
    DirectedCopy turned;
    boost::transpose_graph(s.both, turned);
    CHECK(num_edges(turned) == s.plain.edges());
    for (auto [e, end] = edges(turned); e != end; ++e) {
      CHECK(turned[source(*e, turned)] == target(turned[*e], s.graph));
      CHECK(turned[target(*e, turned)] == turned[*e].from);
    }
  });
}

void filtered() {
  on_samples([](const Sample& s) {
    const auto inner = [](const Node* n) { return !n->is_variable(); };
    const std::function<bool(const Node*)> keep = inner;
    const auto without_variables = boost::make_filtered_graph(s.graph, boost::keep_all(), keep);
    std::size_t nodes = 0, links = 0;
    for (auto [v, end] = vertices(without_variables); v != end; ++v) {
      ++nodes;
      links += out_degree(*v, without_variables);
      for (auto [a, last] = adjacent_vertices(*v, without_variables); a != last; ++a) CHECK(inner(*a));
    }
    std::size_t expected = 0, expected_links = 0;
    for (std::size_t u = 0; u < s.plain.n; ++u) {
      if (!inner(s.graph.nodes()[u])) continue;
      ++expected;
      for (const std::size_t v : s.plain.out[u]) expected_links += inner(s.graph.nodes()[v]);
    }
    CHECK(nodes == expected);
    CHECK(links == expected_links);
    CHECK(std::distance(edges(without_variables).first, edges(without_variables).second) ==
          static_cast<std::ptrdiff_t>(links));

    // edges too: no second one between the same two nodes; and with in-edges
    const std::function<bool(const GraphEdge&)> first = [&](const GraphEdge& e) {
      return edge(e.from, target(e, s.graph), s.graph).first == e;
    };
    const auto simple = boost::make_filtered_graph(s.both, first);
    std::size_t in = 0, distinct = 0;
    for (const Node* n : s.graph.nodes()) in += in_degree(n, simple);
    for (const auto& out : s.plain.out) distinct += different(out);
    CHECK(in == distinct);
    std::vector<const Node*> order;
    boost::topological_sort(simple, std::back_inserter(order));
    CHECK(order.size() == s.plain.n);
  });
}

void reversed() {
  on_samples([](const Sample& s) {
    const auto up = boost::make_reverse_graph(s.both);
    for (std::size_t u = 0; u < s.plain.n; u += 3) {
      std::vector<boost::default_color_type> colors(s.plain.n);
      boost::breadth_first_search(up, s.graph.nodes()[u], boost::color_map(by_position(colors, s.both)));
      for (std::size_t v = 0; v < s.plain.n; ++v)
        CHECK((colors[v] == boost::black_color) == (s.plain.reach[v][u] != 0));
    }
  });
}

void sub() {
  using Parts = boost::subgraph<boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property,
                                                      boost::property<boost::edge_index_t, std::size_t>>>;
  on_samples([](const Sample& s) {
    Parts whole(s.plain.n);
    for (auto [e, end] = edges(s.graph); e != end; ++e)
      add_edge(s.graph.index_of(source(*e, s.graph)), s.graph.index_of(target(*e, s.graph)), whole);
    Parts& half = whole.create_subgraph();
    std::size_t expected = 0;
    for (std::size_t u = 0; u < s.plain.n; u += 2) {
      add_vertex(u, half);
      for (const std::size_t v : s.plain.out[u]) expected += v % 2 == 0;
    }
    CHECK(num_edges(half) == expected);
    CHECK(half.local_to_global(1) == 2);
  });
}

/// Whether a mapping of positions carries every edge over.
template <class F>
bool carries(const Sample& s, const Graph& other, const F& image) {
  std::map<std::pair<std::size_t, std::size_t>, int> count;
  for (std::size_t u = 0; u < s.plain.n; ++u)
    for (const std::size_t v : s.plain.out[u]) ++count[{image(u), image(v)}];
  for (auto [e, end] = edges(other); e != end; ++e)
    --count[{other.index_of(source(*e, other)), other.index_of(target(*e, other))}];
  return std::ranges::all_of(count, [](const auto& c) { return c.second == 0; });
}

void isomorphic() {
  on_samples([](const Sample& s) {
    const std::vector<Tensor> again = recorded(s.name);
    const Graph other(again);
    std::vector<const Node*> image(s.plain.n);
    REQUIRE(boost::isomorphism(s.graph, other, boost::isomorphism_map(by_position(image, s.graph))));
    CHECK(carries(s, other, [&](std::size_t u) { return other.index_of(image[u]); }));
    const std::vector<Tensor> longer{exp(again[0])};
    CHECK_FALSE(boost::isomorphism(s.graph, Graph(longer)));
  });
  const Tensor x = variable(scalar(1)), y = variable(scalar(2));
  CHECK_FALSE(boost::isomorphism(Graph(exp(x) + exp(y)), Graph(exp(exp(x)) + y)));  // five nodes and four edges each
}

void vf2() {
  const auto alike = [](const Node* a, const Node* b) { return a->op() == b->op(); };
  on_samples([&](const Sample& s) {
    const std::vector<Tensor> again = recorded(s.name);
    const BidirectionalGraph other(again);
    int found = 0;
    bool right = true;
    const auto one = [&](auto image, auto) {
      right &= carries(s, other, [&](std::size_t u) { return other.index_of(get(image, s.both.nodes()[u])); });
      return ++found < 3;
    };
    (void)boost::vf2_graph_iso(s.both, other, one, get(boost::vertex_index, s.both), get(boost::vertex_index, other),
                               boost::vertex_order_by_mult(s.both), boost::always_equivalent(), alike);
    CHECK(found > 0);
    CHECK(right);
  });
  // where x * y + x occurs in a larger graph
  const Tensor x = variable(scalar(1)), y = variable(scalar(2));
  const Tensor small = x * y + x, whole = exp((x * y + x) * (y * x + y));
  const BidirectionalGraph pattern(small), large(whole);
  int induced = 0, any = 0;
  const auto count = [](int& n) { return [&n](auto, auto) { return ++n, true; }; };
  boost::vf2_subgraph_iso(pattern, large, count(induced), get(boost::vertex_index, pattern),
                          get(boost::vertex_index, large), boost::vertex_order_by_mult(pattern),
                          boost::always_equivalent(), alike);
  boost::vf2_subgraph_mono(pattern, large, count(any), get(boost::vertex_index, pattern),
                           get(boost::vertex_index, large), boost::vertex_order_by_mult(pattern),
                           boost::always_equivalent(), alike);
  CHECK(induced == 2);  // x * y + x and y * x + y
  CHECK(any == 2);
}

void common_parts() {
  const Tensor x = variable(scalar(1)), y = variable(scalar(2));
  const Tensor a = exp(x * y) + x, b = sin(x * y) + y;
  const Graph first(a), second(b);
  std::size_t most = 0;
  boost::mcgregor_common_subgraphs_maximum(
      first, second, get(boost::vertex_index, first), get(boost::vertex_index, second), boost::always_equivalent(),
      [](const Node* p, const Node* q) { return p->op() == q->op(); }, false,
      [&](auto, auto, std::size_t size) { return most = std::max(most, size), true; });
  CHECK(most == 4);  // mul, add and both variables, not exp and sin
}

constexpr BoostRow rows[] = {
    {"strong_components", "strong_components.hpp", Needs::graph, strong},
    {"connected_components", "connected_components.hpp", Needs::copy, connected},
    {"biconnected_components, articulation_points", "biconnected_components.hpp", Needs::copy, biconnected},
    {"initialize_incremental_components, incremental_components, same_component", "incremental_components.hpp",
     Needs::graph, incremental},
    {"is_bipartite, find_odd_cycle", "bipartite.hpp", Needs::copy, bipartite},
    {"create_condensation_graph", "create_condensation_graph.hpp", Needs::graph, condensation},
    {"transitive_closure", "transitive_closure.hpp", Needs::graph, closure},
    {"warshall_transitive_closure, warren_transitive_closure", "transitive_closure.hpp", Needs::copy,
     closure_of_matrix},
    {"transitive_reduction", "transitive_reduction.hpp", Needs::in_edges, reduction},
    {"lengauer_tarjan_dominator_tree", "dominator_tree.hpp", Needs::in_edges, dominator_tree},
    {"iterative_bit_vector_dominator_tree", "dominator_tree.hpp", Needs::copy, dominator_tree_by_sets},
    {"copy_graph, copy_component", "copy.hpp", Needs::graph, copies},
    {"transpose_graph", "transpose_graph.hpp", Needs::in_edges, transposed},
    {"filtered_graph", "filtered_graph.hpp", Needs::graph, filtered},
    {"reverse_graph", "reverse_graph.hpp", Needs::in_edges, reversed},
    {"subgraph", "subgraph.hpp", Needs::copy, sub},
    {"isomorphism", "isomorphism.hpp", Needs::graph, isomorphic},
    {"vf2_graph_iso, vf2_subgraph_iso, vf2_subgraph_mono", "vf2_sub_graph_iso.hpp", Needs::in_edges, vf2},
    {"mcgregor_common_subgraphs", "mcgregor_common_subgraphs.hpp", Needs::graph, common_parts},
};

}  // namespace

std::span<const BoostRow> boost_structures() { return rows; }

TEST_CASE("boost graph: structures give right answers") { try_all(boost_structures()); }

}  // namespace ebb::testing
