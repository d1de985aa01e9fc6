#include <ebb/autograd/tools.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

thread_local bool state_held_here = false;

/// A tensor that stands for a node whose value nobody reads.
Tensor stand_in(const Ref<Node>& node) {
  const Ref<Storage> nothing = Storage::allocate(0);
  return Tensor(nothing, nothing->data(), node->shape(), node->dtype(), node);
}

/// While one lives: ops are recorded, with the random numbers and the mode of an earlier run.
class Replay {
 public:
  Replay(const Generator& random, bool train, std::int64_t batch)
      : batch_(batch),
        record_(std::exchange(detail::mode.record, true)),
        generator_(std::exchange(default_generator(), random)),
        training_(train) {}
  ~Replay() {
    detail::mode.record = record_;
    default_generator() = generator_;
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  detail::Batching batch_;
  bool record_;
  Generator generator_;
  Training training_;
  HoldState held_;
};

/// A segment that is computed again. Inputs: the `own` arguments of f, then what f captured, for which only the place
/// in the graph matters.
struct Checkpoint {
  static constexpr std::string_view name = "checkpoint";
  static constexpr Keeps keeps = Keeps::inputs;
  MultiFunction f;
  int own;
  std::vector<Ref<Node>> captured;
  Generator random;
  bool train;
  std::int64_t batch;

  std::vector<Tensor> backward(const Saved& s, const Tensor& g) const {
    const bool again = recording();  // the gradient is to be differentiated: it has to depend on the inputs themselves
    std::vector<Tensor> xs;
    for (int i = 0; i < own; ++i) {
      const Tensor x = s.input(i);
      xs.push_back(!is_float(x.dtype()) ? x : again && s.wants(i) ? detail::separate(x) : variable(x.detach()));
    }
    Tensor y;
    {
      const Replay replay(random, train, batch);
      y = f(xs);
    }
    for (const Ref<Node>& node : captured) xs.push_back(stand_in(node));
    // An input or captured tensor may depend on another one: that part of the gradient is for the graph outside.
    std::vector<Tensor> out = grad(
        y, xs, {.retain_graph = true, .create_graph = again, .allow_unused = true, .partial = true, .cotangent = g});
    for (std::size_t i = 0; i < out.size(); ++i)
      if (!out[i].defined() && s.wants(static_cast<int>(i))) out[i] = zeros(xs[i].shape(), xs[i].dtype());
    return out;
  }
};

struct Hook {
  static constexpr std::string_view name = "hook";
  static constexpr Vmap vmap = Vmap::by_ops;
  std::function<Tensor(const Tensor&)> f;
  Tensor forward(const Tensor& x) const { return x.detach(); }
  Tensor backward(const Saved&, const Tensor& g) const {
    const Tensor changed = f ? f(g) : Tensor();
    return changed.defined() ? changed : g;
  }
};

}  // namespace

HoldState::HoldState() : before_(std::exchange(state_held_here, true)) {}
HoldState::~HoldState() { state_held_here = before_; }
bool state_held() { return state_held_here; }

Tensor detail::separate(const Tensor& x) { return apply(Hook{}, x); }

Tensor checkpoint(const MultiFunction& f, std::span<const Tensor> inputs) {
  detail::expect_given(f, "checkpoint");
  if (!recording()) return f(inputs);
  const Generator random = default_generator();
  const bool train = training();
  // Once with recording, to learn what f captures: tracked tensors from before this mark, and variables that are not
  // its arguments (a layer may make its parameters in here).
  const std::uint64_t mark = variable(scalar(0)).node()->id();
  std::vector<Tensor> xs;
  for (const Tensor& x : inputs) xs.push_back(is_float(x.dtype()) ? variable(x.detach()) : x);
  const Tensor y = f(xs);
  const auto is_argument = [&](const Ref<Node>& n) {
    return std::ranges::any_of(xs, [&](const Tensor& x) { return x.node() == n; });
  };
  std::vector<Ref<Node>> captured;
  const auto note = [&](const Ref<Node>& n) {
    if ((n->id() < mark || n->is_variable()) && !is_argument(n) && std::ranges::find(captured, n) == captured.end())
      captured.push_back(n);
  };
  const Graph graph(y);
  for (const Node* node : graph.nodes())
    for (const Input& in : node->inputs())
      if (in.node && node->id() > mark) note(in.node);
  if (y.tracked()) note(y.node());  // f may return what it captured
  bool tracked = !captured.empty();
  for (const Tensor& x : inputs) tracked |= x.tracked();
  if (!y.tracked() || !tracked) return y.detach();
  std::vector<Tensor> all(inputs.begin(), inputs.end());
  for (const Ref<Node>& node : captured) all.push_back(stand_in(node));
  std::vector<const Tensor*> in;
  for (const Tensor& t : all) in.push_back(&t);
  return y.detach().with_node(detail::OpNode<Checkpoint>::make(
      {f, static_cast<int>(inputs.size()), std::move(captured), random, train, detail::mode.batch}, in.data(),
      static_cast<int>(all.size()), y));
}

Tensor checkpoint(const UnaryFunction& f, const Tensor& x) {
  detail::expect_given(f, "checkpoint");
  return checkpoint([f](std::span<const Tensor> in) { return f(in[0]); }, {&x, 1});
}

Tensor on_gradient(const Tensor& x, std::function<Tensor(const Tensor&)> f) { return apply(Hook{std::move(f)}, x); }

double global_norm(const Gradients& gradients) {
  const NoGrad quiet;
  double total = 0;
  for (const auto& entry : gradients.entries()) total += sum(square(cast(entry.gradient, f64))).item();
  return std::sqrt(total);
}

double clip_by_global_norm(Gradients& gradients, double max_norm) {
  if (!(max_norm > 0))
    fail<ValueError>("clip_by_global_norm", fmt::format("the norm must be positive, got {}", max_norm));
  const double norm = global_norm(gradients);
  if (norm > max_norm)
    for (auto& entry : gradients.entries()) entry.gradient = entry.gradient * (max_norm / norm);
  return norm;
}

void clip_by_value(Gradients& gradients, double limit) {
  if (!(limit > 0)) fail<ValueError>("clip_by_value", fmt::format("the limit must be positive, got {}", limit));
  for (auto& entry : gradients.entries()) entry.gradient = clip(entry.gradient, -limit, limit);
}

}  // namespace ebb
