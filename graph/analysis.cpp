#include <ebb/graph/analysis.h>

#include <boost/graph/dag_shortest_paths.hpp>
#include <boost/graph/topological_sort.hpp>
#include <boost/property_map/function_property_map.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <unordered_map>
#include <utility>

#include <ebb/graph/boost_graph.h>
#include <ebb/graph/error.h>

namespace ebb {

void verify(const Graph& graph) {
  std::vector<const Node*> order;
  std::vector<boost::default_color_type> colors(graph.size());
  const auto color_map = boost::make_iterator_property_map(colors.begin(), get(boost::vertex_index, graph));
  try {
    boost::topological_sort(graph, std::back_inserter(order), boost::color_map(color_map));
  } catch (const boost::not_a_dag&) {
    throw GradientError("verify: the graph has a cycle");
  }
  for (const Node* node : order)
    for (const Input& in : node->inputs()) {
      if (!in.node) continue;
      if (in.node->id() >= node->id())
        throw GradientError(
            fmt::format("verify: {} #{} is older than its input #{}", node->op(), node->id(), in.node->id()));
      if (in.node->shape() != in.shape || in.node->dtype() != in.dtype)
        throw GradientError(fmt::format("verify: {} #{} expects {}, its input {} has {}", node->op(), node->id(),
                                        in.shape.str(), in.node->op(), in.node->shape().str()));
    }
}

std::vector<Tensor> unreached(const Graph& graph, std::span<const Tensor> variables) {
  std::vector<Tensor> out;
  for (const Tensor& v : variables)
    if (!graph.contains(v.node().get())) out.push_back(v);
  return out;
}

CriticalPath critical_path(const Graph& graph) {
  CriticalPath best;
  if (graph.size() == 0) return best;
  // The longest path is the shortest one with negated lengths. It starts at any node that no other consumes.
  const auto index = get(boost::vertex_index, graph);
  std::vector<char> consumed(graph.size());
  for (const Node* n : graph.nodes())
    for (const Input& in : n->inputs())
      if (in.node) consumed[graph.index_of(in.node.get())] = 1;
  const auto weight = boost::make_function_property_map<GraphEdge, double>(
      [&](const GraphEdge& e) { return -target(e, graph)->flops(); });
  for (std::size_t i = 0; i < graph.size(); ++i) {
    if (consumed[i]) continue;
    const Node* root = graph.nodes()[i];
    std::vector<double> distance(graph.size());
    std::vector<const Node*> before(graph.size());
    boost::dag_shortest_paths(graph, root,
                              boost::weight_map(weight)
                                  .vertex_index_map(index)
                                  .distance_map(boost::make_iterator_property_map(distance.begin(), index))
                                  .predecessor_map(boost::make_iterator_property_map(before.begin(), index)));
    const auto end = static_cast<std::size_t>(std::ranges::min_element(distance) - distance.begin());
    const double flops = root->flops() - distance[end];
    if (!best.nodes.empty() && flops <= best.flops) continue;
    best.flops = flops;
    best.nodes.clear();
    for (const Node* n = graph.nodes()[end];; n = before[graph.index_of(n)]) {
      best.nodes.push_back(n);
      if (n == root) break;
    }
  }
  return best;
}

MemoryPlan plan_backward(const Graph& graph) {
  const auto gradient_bytes = [](const Node& n) {
    return Storage::footprint(static_cast<std::size_t>(n.shape().numel()) * size_of(n.dtype()));
  };
  const auto each_kept = [](const Node& n, const auto& use) {
    for (const Input& in : n.inputs())
      if (in.kept.storage && !(in.node && in.node->is_variable())) use(in.kept.storage.get());
    if (n.kept_output().storage) use(n.kept_output().storage.get());
  };
  // A value that several nodes keep is freed with the last of them.
  std::unordered_map<const Storage*, int> keepers;
  MemoryPlan plan;
  for (const Node* n : graph.nodes()) {
    if (n->is_variable()) continue;
    plan.kept += n->footprint() + n->state_bytes();
    each_kept(*n, [&](Storage* s) {
      if (keepers[s]++ == 0) plan.kept += Storage::footprint(s->bytes());
    });
  }
  std::size_t live = plan.kept;
  std::vector<char> has_gradient(graph.size());
  for (std::size_t i = graph.size(); i-- > 0;) {
    const Node& n = *graph.nodes()[i];
    if (i + 1 == graph.size()) {
      has_gradient[i] = 1;
      live += gradient_bytes(n);
    }
    if (n.is_variable()) continue;
    std::size_t passing = 0, given = gradient_bytes(n);  // the rule's own, and what it is given
    if (n.temporaries() > 0) passing = static_cast<std::size_t>(n.temporaries()) * gradient_bytes(n);
    if (n.temporaries() < 0) live -= std::exchange(given, 0);
    for (const Input& in : n.inputs()) {
      if (!in.node) continue;
      char& has = has_gradient[graph.index_of(in.node.get())];
      if (!has || !n.adds_gradient())
        (has ? passing : live) += gradient_bytes(*in.node);  // a further one is added to the first
      has = 1;
    }
    if (live + passing > plan.peak) {
      plan.peak = live + passing;
      plan.at = &n;
    }
    live -= given;
    each_kept(n, [&](Storage* s) {
      if (--keepers[s] == 0) live -= Storage::footprint(s->bytes());
    });
  }
  return plan;
}

std::vector<std::vector<const Node*>> common_subexpressions(const Graph& graph) {
  // Value numbering in forward order: a node stands for the first one that computes the same from the same values.
  std::vector<const Node*> value(graph.size());
  std::map<std::vector<const Node*>, std::vector<const Node*>> by_inputs;
  std::map<const Node*, std::vector<const Node*>> groups;
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const Node* n = graph.nodes()[i];
    value[i] = n;
    std::vector<const Node*> key;
    for (const Input& in : n->inputs()) key.push_back(in.node ? value[graph.index_of(in.node.get())] : nullptr);
    if (n->is_variable() || std::ranges::find(key, nullptr) != key.end()) continue;
    std::vector<const Node*>& alike = by_inputs[key];
    const auto same = std::ranges::find_if(alike, [&](const Node* other) { return n->same_op(*other); });
    if (same == alike.end()) {
      alike.push_back(n);
      continue;
    }
    value[i] = *same;
    auto& group = groups[*same];
    if (group.empty()) group.push_back(*same);
    group.push_back(n);
  }
  std::vector<std::vector<const Node*>> out;
  for (auto& [_, group] : groups) out.push_back(std::move(group));
  std::ranges::sort(out, [](const auto& a, const auto& b) { return a[0]->id() < b[0]->id(); });
  return out;
}

}  // namespace ebb
