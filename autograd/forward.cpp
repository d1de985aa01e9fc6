#include <ebb/autograd/forward.h>

#include <fmt/core.h>

#include <algorithm>

#include <ebb/autograd/backward.h>
#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/graph/small_array.h>
#include <ebb/ops/ops.h>

namespace ebb::detail {
namespace {

/// One node: the tangent of its output.
class Pushed {
 public:
  /// Tangents of the inputs, undefined where one does not move. One does.
  Pushed(const Node& node, std::span<const Tensor> tangents, bool graph)
      : node_(node), inputs_(node.inputs()), tangents_(tangents), graph_(graph), places_(inputs_.size()) {}

  Tensor run() {
    Tensor out;
    if (node_.tangents() != Tangent::by_backward) {
      const NoGrad quiet(!graph_);
      switch (node_.tangents()) {
        case Tangent::symmetric: out = symmetric(); break;
        case Tangent::linear: out = linear(); break;
        case Tangent::multilinear: out = multilinear(); break;
        case Tangent::own:
          node_.tangent(wanting([&](std::size_t i) { return tangents_[i].defined(); }), tangents_, out);
          break;
        case Tangent::by_backward: break;
      }
    }
    if (!out.defined()) out = by_backward();
    if (out.defined() && (out.shape() != node_.shape() || out.dtype() != node_.dtype()))
      fail<GradientError>(node_.op(), fmt::format("its tangent is {}, its value {} {}", describe(out),
                                                  name_of(node_.dtype()), node_.shape().str()));
    return out;
  }

 private:
  template <class F>
  Saved wanting(const F& wants) {
    for (std::size_t i = 0; i < inputs_.size(); ++i) places_[i] = wants(i) ? i : Saved::unwanted;
    return Saved(node_, places_.all());
  }
  static void add(Tensor& sum, const Tensor& t) { sum = sum.defined() ? sum + t : t; }

  /// Undefined where backward gives a gradient that is not of the output's shape any more: it has added up already.
  Tensor symmetric() {
    Tensor sum;
    SmallArray<Tensor, 4> out(inputs_.size());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (!tangents_[i].defined()) continue;
      node_.backward(wanting([i](std::size_t k) { return k == i; }), broadcast_to(tangents_[i], node_.shape()),
                     out.all());
      if (!out[i].defined() || out[i].shape() != node_.shape()) return {};
      add(sum, out[i]);
    }
    return sum;
  }

  Tensor linear() {
    std::vector<Tensor> in(tangents_.begin(), tangents_.end());
    for (std::size_t i = 0; i < in.size(); ++i)
      if (!in[i].defined()) in[i] = zeros(inputs_[i].shape, inputs_[i].dtype);
    Tensor out;
    node_.tangent(wanting([](std::size_t) { return false; }), in, out);
    return out;
  }

  Tensor multilinear() {
    const Saved saved = wanting([&](std::size_t i) { return tangents_[i].defined(); });
    Tensor sum;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (!tangents_[i].defined()) continue;
      std::vector<Tensor> in(inputs_.size());
      for (std::size_t k = 0; k < in.size(); ++k) in[k] = k == i ? tangents_[i] : saved.input(static_cast<int>(k));
      Tensor out;
      node_.tangent(saved, in, out);
      add(sum, out);
    }
    return sum;
  }

  /// backward of any cotangent u gives J^T u, recorded; the gradient of <J^T u, t> in u is J t (Townsend 2017).
  Tensor by_backward() {
    const Tensor u = variable(ones(node_.shape(), node_.dtype()));
    SmallArray<Tensor, 4> out(inputs_.size());
    node_.backward(wanting([&](std::size_t i) { return tangents_[i].defined(); }), u, out.all());
    std::vector<Tensor> gs, ts;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (!tangents_[i].defined()) continue;
      Tensor g = fitted(node_, i, std::move(out[i]));
      if (g.tracked() && g.node()->id() >= u.node()->id()) {
        gs.push_back(std::move(g));
        ts.push_back(tangents_[i]);
      } else if (!batching() && std::ranges::any_of(g.to_vector(), [](double v) { return v != 0; })) {
        fail<GradientError>(node_.op(),
                            "backward computes its gradient outside of ops, so that no tangent follows from it: write "
                            "it in ops, or say how "
                            "tangents go (Tangent)");
      }
    }
    return gs.empty() ? Tensor() : transposed(gs, ts, u, graph_);
  }

  const Node& node_;
  std::span<const Input> inputs_;
  std::span<const Tensor> tangents_;
  bool graph_;
  SmallArray<std::size_t, 8> places_;
};

}  // namespace

std::vector<Tensor> pushed(std::span<const Tensor> ys, std::span<const Tensor> xs, std::span<const Tensor> tangents,
                           bool graph) {
  std::uint64_t oldest = static_cast<std::uint64_t>(-1);
  for (const Tensor& x : xs) oldest = std::min(oldest, x.node()->id());
  const Graph all(ys, oldest);
  std::vector<Tensor> moved(all.size());
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (const std::size_t at = all.index_of(xs[i].node().get()); at != NodeIndex::none) moved[at] = tangents[i];
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Node& node = *all.nodes()[i];
    if (moved[i].defined() || node.id() < oldest) continue;
    const auto inputs = node.inputs();
    SmallArray<Tensor, 4> t(inputs.size());
    bool any = false;
    for (std::size_t j = 0; j < inputs.size(); ++j) {
      if (!inputs[j].node) continue;
      t[j] = moved[all.index_of(inputs[j].node.get())];
      any |= t[j].defined();
    }
    if (!any) continue;
    const AtScopeOf scope(node);
    expect_kept(node);
    const ObservedRule rule(node);
    moved[i] = Pushed(node, t.all(), graph).run();
  }
  std::vector<Tensor> out;
  for (const Tensor& y : ys) {
    const std::size_t at = y.tracked() ? all.index_of(y.node().get()) : NodeIndex::none;
    out.push_back(at == NodeIndex::none ? Tensor() : moved[at]);
  }
  return out;
}

}  // namespace ebb::detail
