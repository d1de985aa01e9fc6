#include <ebb/autograd/backward.h>

#include <fmt/core.h>

#include <string>
#include <utility>

#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/graph/small_array.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

std::string label(const Tensor& t) {
  const std::string_view name = t.tracked() ? t.node()->name() : std::string_view();
  return name.empty() ? describe(t) : fmt::format("\"{}\", {}", name, describe(t));
}

/// One reverse walk over a graph.
class Walk {
 public:
  Walk(const Graph& graph, bool create_graph, bool retain_graph)
      : graph_(graph), slots_(graph.size()), create_(create_graph), retain_(retain_graph || create_graph) {}

  /// Only nodes on a path to one of these get a gradient; by default all do. With `partial`, paths end at the first of
  /// them.
  void want(std::span<const Tensor> xs, bool partial) {
    partial_ = partial;
    needed_.assign(graph_.size(), 0);
    for (const Tensor& x : xs)
      if (const std::size_t i = graph_.index_of(x.node().get()); i != NodeIndex::none) needed_[i] = wanted;
    for (std::size_t i = 0; i < graph_.size(); ++i)
      for (const Input& in : graph_.nodes()[i]->inputs())
        if (!needed_[i] && in.node)
          if (const std::size_t at = graph_.index_of(in.node.get()); at != NodeIndex::none && needed_[at])
            needed_[i] = on_path;
  }

  void run(std::span<const Tensor> roots, std::span<Tensor> seeds) {
    const NoGrad quiet(!create_);
    for (std::size_t i = 0; i < roots.size(); ++i)
      accumulate(slots_[graph_.index_of(roots[i].node().get())], std::move(seeds[i]));
    for (std::size_t i = graph_.size(); i-- > 0;) {
      const Node& node = *graph_.nodes()[i];
      if (node.is_variable()) continue;
      if (slots_[i].defined() && !(partial_ && needed_[i] == wanted)) step(node, i);
      if (!retain_) const_cast<Node&>(node).free_kept();
    }
  }

  Tensor take(const Node* node) {
    const std::size_t i = graph_.index_of(node);
    return i == NodeIndex::none ? Tensor() : slots_[i];
  }

 private:
  static constexpr char on_path = 1, wanted = 2;

  bool needs(std::size_t i) const { return needed_.empty() || needed_[i] != 0; }

  void step(const Node& node, std::size_t position) {
    const auto inputs = node.inputs();
    detail::SmallArray<std::size_t, 8> at(inputs.size());
    bool any = false;
    for (std::size_t j = 0; j < inputs.size(); ++j) {
      at[j] = Saved::unwanted;
      if (!inputs[j].node) continue;
      const std::size_t place = graph_.index_of(inputs[j].node.get());
      if (needs(place)) at[j] = place, any = true;
    }
    const detail::AtScopeOf scope(node);
    detail::expect_kept(node);
    Tensor gradient = slots_[position];
    if (needed_.empty() || needed_[position] != wanted) slots_[position] = Tensor();
    if (!any) return;
    const detail::ObservedRule rule(node);
    if (node.adds_gradient() && owned(slots_[at[0]])) {
      node.add_gradient(gradient, slots_[at[0]]);
      if (detail::mode.observer) detail::observe_gradient(node, 0, slots_[at[0]]);
      return;
    }
    detail::SmallArray<Tensor, 4> out(inputs.size());
    node.backward(Saved(node, at.all()), gradient, out.all());
    gradient = Tensor();  // from here on the slots are the only owners, and may add in place
    for (std::size_t j = 0; j < inputs.size(); ++j)
      if (at[j] != Saved::unwanted) {
        Tensor g = detail::fitted(node, j, std::move(out[j]));
        if (detail::mode.observer) detail::observe_gradient(node, static_cast<int>(j), g);
        accumulate(slots_[at[j]], std::move(g));
      }
  }

  /// A sum that nobody else sees, and that is not part of a graph itself.
  bool owned(const Tensor& slot) const {
    return slot.defined() && !create_ && !detail::batching() && slot.storage()->unique();
  }

  void accumulate(Tensor& slot, Tensor g) {
    if (!slot.defined()) slot = std::move(g);
    else if (owned(slot)) detail::add_in_place(slot, g);
    else slot = slot + g;
  }

  const Graph& graph_;
  std::vector<Tensor> slots_;
  std::vector<char> needed_;
  bool create_, retain_, partial_ = false;
};

Tensor seed_for(const char* who, const Tensor& y, const Tensor& cotangent) {
  if (!y.tracked())
    fail<GradientError>(
        who,
        fmt::format(
            "{} does not depend on any variable; was it computed under NoGrad, or of constants? variable(x) makes one",
            describe(y)));
  if (!cotangent.defined()) {
    if (y.numel() != 1)
      fail<GradientError>(who, fmt::format("needs a value with one element, got {}; reduce it with sum or mean{}",
                                           y.shape().str(), who[0] == 'g' ? ", or give a cotangent" : ""));
    return ones(y.shape(), y.dtype());
  }
  if (cotangent.shape() != y.shape() || cotangent.dtype() != y.dtype())
    fail<ShapeError>(who, fmt::format("the cotangent {} does not fit {}", describe(cotangent), describe(y)));
  return cotangent;
}

}  // namespace

const Tensor& Gradients::operator[](const Tensor& variable) const {
  const std::size_t i = index_.find(variable.node().get());
  if (i == NodeIndex::none)
    fail<GradientError>("gradients",
                        fmt::format("none for {}: {}", label(variable),
                                    variable.tracked() ? "the loss does not depend on it" : "it is a constant"));
  return entries_[i].gradient;
}

bool Gradients::contains(const Tensor& variable) const { return index_.find(variable.node().get()) != NodeIndex::none; }

void Gradients::add(Ref<Node> variable, Tensor gradient) {
  index_.insert(variable.get(), entries_.size());
  entries_.push_back({std::move(variable), std::move(gradient)});
}

Gradients backward(const Tensor& loss, BackwardOptions options) {
  Tensor seed = seed_for("backward", loss, {});
  const Graph graph(loss);
  Walk walk(graph, options.create_graph, options.retain_graph);
  walk.run({&loss, 1}, {&seed, 1});
  Gradients out;
  for (const Node* node : graph.nodes())
    if (node->is_variable())
      if (Tensor g = walk.take(node); g.defined()) out.add(Ref<Node>::share(const_cast<Node*>(node)), std::move(g));
  return out;
}

std::vector<Tensor> grad(const Tensor& y, std::span<const Tensor> xs, GradOptions options) {
  Tensor seed = seed_for("grad", y, options.cotangent);
  const Graph graph(y);
  for (std::size_t i = 0; i < xs.size() && !options.allow_unused; ++i)
    if (!xs[i].tracked() || !graph.contains(xs[i].node().get()))
      fail<GradientError>("grad", fmt::format("y does not depend on input {} ({})", i, label(xs[i])));
  Walk walk(graph, options.create_graph, options.retain_graph);
  walk.want(xs, options.partial);
  walk.run({&y, 1}, {&seed, 1});
  std::vector<Tensor> out;
  out.reserve(xs.size());
  for (const Tensor& x : xs) out.push_back(x.tracked() ? walk.take(x.node().get()) : Tensor());
  return out;
}

std::vector<Tensor> grad(const Tensor& y, std::initializer_list<Tensor> xs, GradOptions options) {
  return grad(y, std::span(xs.begin(), xs.size()), std::move(options));
}

Tensor grad(const Tensor& y, const Tensor& x, GradOptions options) { return grad(y, {&x, 1}, std::move(options))[0]; }

Tensor detail::transposed(std::span<const Tensor> gs, std::vector<Tensor> ts, const Tensor& u, bool create_graph) {
  const Graph graph(gs, u.node()->id());
  if (!graph.contains(u.node().get())) return {};
  ebb::Walk walk(graph, create_graph, true);
  walk.want({&u, 1}, false);
  walk.run(gs, ts);
  return walk.take(u.node().get());
}

Tensor detail::fitted(const Node& node, std::size_t j, Tensor g) {
  const Input& in = node.inputs()[j];
  if (!g.defined()) fail<GradientError>(node.op(), fmt::format("backward gave no gradient for input {}", j));
  if (g.dtype() != in.dtype || (g.shape() != in.shape && !(node.broadcasts() && broadcasts_to(in.shape, g.shape()))))
    fail<GradientError>(node.op(), fmt::format("backward gave {} for input {}, which is {} {}", describe(g), j,
                                               name_of(in.dtype), in.shape.str()));
  return g.shape() == in.shape ? g : sum_to(g, in.shape);
}

void detail::expect_kept(const Node& node) {
  if (node.freed())
    fail<GradientError>(node.op(),
                        "backward ran through this graph before and freed it; pass {.retain_graph = true} "
                        "the first time, or compute the value again");
}

}  // namespace ebb
