#include <ebb/graph/graph.h>

#include <boost/graph/depth_first_search.hpp>

#include <algorithm>

#include <ebb/graph/boost_graph.h>
#include <ebb/graph/error.h>

namespace ebb {
namespace {

std::size_t hash(const Node* node) {
  return static_cast<std::size_t>((reinterpret_cast<std::uintptr_t>(node) >> 6) * 0x9E3779B97F4A7C15u >> 20);
}

/// Colors for depth_first_visit: nodes are numbered in order of discovery and the colors lie beside the numbers.
struct NodeColors {
  using key_type = const Node*;
  using value_type = boost::default_color_type;
  using reference = value_type;
  using category = boost::read_write_property_map_tag;
  NodeIndex* index;
  std::vector<value_type>* colors;
  friend value_type get(const NodeColors& m, const Node* n) {
    const std::size_t i = m.index->find(n);
    return i == NodeIndex::none ? boost::white_color : (*m.colors)[i];
  }
  friend void put(const NodeColors& m, const Node* n, value_type c) {
    const std::size_t i = m.index->find(n);
    if (i != NodeIndex::none) {
      (*m.colors)[i] = c;
      return;
    }
    m.index->insert(n, m.colors->size());
    m.colors->push_back(c);
  }
};

struct Collector : boost::default_dfs_visitor {
  explicit Collector(std::vector<const Node*>& order) : out(&order) {}
  void finish_vertex(const Node* n, const Graph&) { out->push_back(n); }
  void back_edge(const GraphEdge& e, const Graph&) {
    fail<GradientError>(e.from->op(), "the graph has a cycle through this node");
  }
  std::vector<const Node*>* out;
};

}  // namespace

std::size_t NodeIndex::probe(const Node* node) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = hash(node) & mask;
  while (slots_[i].node && slots_[i].node != node) i = (i + 1) & mask;
  return i;
}

std::size_t NodeIndex::find(const Node* node) const {
  if (slots_.empty()) return none;
  const Slot& slot = slots_[probe(node)];
  return slot.node ? slot.position : none;
}

void NodeIndex::insert(const Node* node, std::size_t position) {
  if (2 * (used_ + 1) > slots_.size()) grow();
  Slot& slot = slots_[probe(node)];
  used_ += slot.node == nullptr;
  slot = {node, position};
}

void NodeIndex::grow() {
  std::vector<Slot> old(std::max<std::size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& s : old)
    if (s.node) slots_[probe(s.node)] = s;
}

Graph::Graph(const Tensor& root) { collect({&root, 1}, 0); }
Graph::Graph(std::span<const Tensor> roots, std::uint64_t since) { collect(roots, since); }

void Graph::collect(std::span<const Tensor> roots, std::uint64_t since) {
  std::vector<boost::default_color_type> colors;
  const NodeColors map{&index_, &colors};
  for (const Tensor& root : roots) {
    const Node* start = root.node().get();
    if (start && get(map, start) == boost::white_color)
      boost::depth_first_visit(*this, start, Collector(nodes_), map,
                               [since](const Node* n, const Graph&) { return n->id() < since; });
  }
  const auto by_id = [](const Node* a, const Node* b) { return a->id() < b->id(); };
  if (!std::ranges::is_sorted(nodes_, by_id)) std::ranges::sort(nodes_, by_id);
  for (std::size_t i = 0; i < nodes_.size(); ++i) index_.insert(nodes_[i], i);
}

std::size_t Graph::edges() const {
  std::size_t n = 0;
  for (const Node* node : nodes_)
    for (const Input& in : node->inputs()) n += in.node ? 1 : 0;
  return n;
}

}  // namespace ebb
