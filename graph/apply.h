// Primitive: what an op is. apply(): the only way to run one and record it.
#pragma once
#include <array>
#include <concepts>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <ebb/graph/attribute.h>
#include <ebb/graph/node.h>
#include <ebb/graph/small_array.h>
#include <ebb/graph/tensor.h>

namespace ebb {

/// A primitive op is a plain struct:
///
///     struct Swish {
///       static constexpr std::string_view name = "swish";
///       static constexpr Keeps keeps = Keeps::inputs;       // what backward reads
///       double beta = 1;                                    // options and state are members
///       Tensor forward(const Tensor& x) { ... }             // may call ops: nothing is recorded inside
///       Tensor backward(const Saved& s, const Tensor& g) const { ... }   // written in ops
///     };
///     Tensor swish(const Tensor& x, double beta = 1) { return ebb::apply(Swish{beta}, x); }
///
/// forward takes one `const Tensor&` per input, or one `std::span<const Tensor>`. backward has one of three forms:
///   Tensor backward(saved, g)             one input
///   Tensor backward(saved, g, int i)      called for each input whose gradient is wanted
///   range of Tensor backward(saved, g)    all at once, where the inputs share work; unwanted ones may stay undefined
/// A rule in ops can be differentiated again, and runs in vmap(). Where the same takes fewer passes over memory by
/// hand, an op has that as `fast_backward(saved, g)`, of the first or the third form: the engine takes it where nothing
/// is recorded and no tensor stands for several. gradcheck() and the op table's tests hold both to the same numbers.
/// Optional, for what only backward reads: `bool recorded`, set by apply() before forward to whether a node follows.
/// Optional, for memory plans: `const Tensor& state() const`, what the op itself holds for backward, and `static
/// constexpr int temporaries`, how many tensors like the output backward makes that live beside all of its results (-1:
/// its one result is the gradient that it got); `double flops(std::span<const Shape* const> inputs, const Shape&
/// output) const`, for profiles; `Attributes attributes() const`, the options by name, for observers and exporters;
/// operator==, so that equal sub-expressions can be found. `static constexpr Vmap vmap`, how the op runs on many
/// tensors at once, or `Tensor batched(inputs...)`, a forward for them (batch.h); `void add_gradient(const Tensor& g,
/// Tensor& sum) const`, for an op of one input whose gradient is mostly zeros: adds it to what other ops gave that
/// input, in place. `static constexpr Tangent tangents`, how it goes forward (node.h; without it, right but slower), or
/// a rule for that: `Tensor tangent(const Saved& s, std::span<const Tensor> t) const`, with an undefined t where an
/// input does not move. An op without backward is refused when it would be recorded. `static constexpr bool broadcasts
/// = true` says that the inputs broadcast to the output: backward then returns gradients of the output's shape and the
/// engine sums.
template <class Op>
concept Primitive = std::movable<Op> && requires {
  { Op::name } -> std::convertible_to<std::string_view>;
};

/// How an op runs where an input stands for n tensors of its shape, as in vmap() and jacobian(). Without any of it an
/// op runs n times.
enum class Vmap : std::uint8_t {
  each,     ///< n times: right wherever forward is const, and reads no tensor but its inputs and ordinary values
  aligned,  ///< once, on inputs with a further axis of n in front, which broadcast or are only one; no option counts
            ///< axes. What `broadcasts` says so much by itself
  rows,     ///< the same, for inputs that do not broadcast
  by_ops,   ///< as it stands: forward consists of ops
};

namespace detail {

template <class Op>
concept RuleForEach = requires(const Op& op, const Saved& s, const Tensor& g) {
  { op.backward(s, g, 0) } -> std::same_as<Tensor>;
};
template <class Op>
concept RuleForAll = requires(const Op& op, const Saved& s, const Tensor& g) { op.backward(s, g); };

template <class Op>
concept FastRule = requires(const Op& op, const Saved& s, const Tensor& g) { op.fast_backward(s, g); };

template <class Op>
concept AddsGradient = requires(const Op& op, const Tensor& g, Tensor& sum) { op.add_gradient(g, sum); };

template <class Op>
constexpr Keeps keeps_of() {
  if constexpr (requires { Op::keeps; }) return Op::keeps;
  else return Keeps::nothing;
}
template <class Op>
constexpr bool broadcasts_of() {
  if constexpr (requires { Op::broadcasts; }) return Op::broadcasts;
  else return false;
}

template <class Op>
constexpr Tangent tangents_of() {
  if constexpr (requires { &Op::tangent; }) return Tangent::own;
  else if constexpr (requires { Op::tangents; }) return Op::tangents;
  else return Tangent::by_backward;
}

template <class Op>
constexpr Vmap vmap_of() {
  if constexpr (requires { Op::vmap; }) return Op::vmap;
  else if constexpr (broadcasts_of<Op>() && std::is_trivially_copyable_v<Op>)
    return Vmap::aligned;  // it holds no tensor
  else return Vmap::each;
}
template <class Op>
double flops_of(const Op& op, std::span<const Shape* const> inputs, const Shape& output) {
  if constexpr (requires { op.flops(inputs, output); }) return op.flops(inputs, output);
  else return static_cast<double>(output.numel());
}

template <class Op>
Attributes attributes_of(const Op& op) {
  if constexpr (requires { op.attributes(); }) return op.attributes();
  else return {};
}

/// Constructs the inputs of a node in their place behind it.
void fill_inputs(Input* slots, const Tensor* const* inputs, int count, Keeps keeps);
Kept kept(const Tensor& t);
/// The first gradients that a rule gave for all inputs, for as many as there are.
void move_to(std::span<Tensor> out, std::span<Tensor> gradients);

template <class Op>
class OpNode final : public Node {
 public:
  static Ref<Node> make(Op&& op, const Tensor* const* inputs, int count, const Tensor& out) {
    const std::size_t bytes = sizeof(OpNode) + static_cast<std::size_t>(count) * sizeof(Input);
    return Ref<Node>::adopt(::new (allocate_block(bytes)) OpNode(std::move(op), inputs, count, out, bytes));
  }
  std::string_view op() const override { return Op::name; }
  double flops() const override {
    const auto in = inputs();
    SmallArray<const Shape*, 8> shapes(in.size());
    for (std::size_t i = 0; i < in.size(); ++i) shapes[i] = &in[i].shape;
    return flops_of(op_, shapes.all(), shape());
  }
  std::size_t state_bytes() const override {
    if constexpr (requires { op_.state(); }) return op_.state().defined() ? Storage::footprint(op_.state().bytes()) : 0;
    else return 0;
  }
  int temporaries() const override {
    if constexpr (requires { Op::temporaries; }) return Op::temporaries;
    else return 0;
  }
  bool same_op(const Node& other) const override {
    const auto* o = dynamic_cast<const OpNode*>(&other);
    if constexpr (std::is_empty_v<Op>) return o != nullptr;
    else if constexpr (std::equality_comparable<Op>) return o && o->op_ == op_;
    else return false;
  }

  void backward(const Saved& saved, const Tensor& g, std::span<Tensor> out) const override {
    if constexpr (FastRule<Op>)
      if (!recording() && !batching())
        return hand_out(
            saved, [&] { return op_.fast_backward(saved, g); }, out);
    if constexpr (RuleForEach<Op>) {
      for (int i = 0; i < static_cast<int>(out.size()); ++i)
        if (saved.wants(i)) out[static_cast<std::size_t>(i)] = op_.backward(saved, g, i);
    } else if constexpr (RuleForAll<Op>) {
      hand_out(
          saved, [&] { return op_.backward(saved, g); }, out);
    }
  }
  void tangent(const Saved& saved, std::span<const Tensor> in, Tensor& out) const override;
  bool adds_gradient() const override { return AddsGradient<Op>; }
  void add_gradient(const Tensor& g, Tensor& sum) const override {
    if constexpr (AddsGradient<Op>) op_.add_gradient(g, sum);
  }

 private:
  OpNode(Op&& op, const Tensor* const* inputs, int count, const Tensor& out, std::size_t bytes)
      : Node(out.shape(), out.dtype(), reinterpret_cast<Input*>(this + 1), count, bytes, broadcasts_of<Op>(),
             tangents_of<Op>()),
        op_(std::move(op)) {
    fill_inputs(reinterpret_cast<Input*>(this + 1), inputs, count, keeps_of<Op>());
    if constexpr (keeps_of<Op>() == Keeps::output || keeps_of<Op>() == Keeps::inputs_and_output) keep_output(kept(out));
  }
  template <class Rule>
  static void hand_out(const Saved& saved, const Rule& rule, std::span<Tensor> out) {
    if constexpr (std::same_as<decltype(rule()), Tensor>) {
      if (saved.wants(0)) out[0] = rule();
    } else {
      auto gradients = rule();
      move_to(out, gradients);
    }
  }
  static_assert(alignof(Op) <= 64 && std::is_nothrow_move_constructible_v<Op>);
  Op op_;
};

/// What running and recording need of an op's type: they exist once, not for each op.
struct OpKind {
  std::string_view name;
  Tensor (*forward)(void* op, std::span<const Tensor* const> inputs);
  double (*flops)(const void* op, std::span<const Shape* const> inputs, const Shape& output);
  Attributes (*attributes)(const void* op);
  /// Null for an op without backward. Moves from op.
  Ref<Node> (*node)(void* op, const Tensor* const* inputs, int count, const Tensor& output);
  Vmap vmap;
  bool pure;                                                           ///< forward leaves the op as it was
  Tensor (*batched)(void* op, std::span<const Tensor* const> inputs);  ///< null: as `vmap` says
  const Tensor* (*held)(const void* op);  ///< a tensor beside the inputs that forward reads, which may be batched too
};

template <class Op>
const Tensor* held_of(const Op& op) {
  if constexpr (requires { op.held.value(); }) return &op.held.value();
  else if constexpr (requires { op.held(); }) return op.held();
  else if constexpr (requires { op.choice; }) return &op.choice;
  else return nullptr;
}

template <Primitive Op>
constexpr OpKind op_kind(Tensor (*forward)(void*, std::span<const Tensor* const>), bool pure,
                         Tensor (*batched)(void*, std::span<const Tensor* const>)) {
  OpKind kind{.name = Op::name,
              .forward = forward,
              .flops = [](const void* op, std::span<const Shape* const> inputs,
                          const Shape& output) { return flops_of(*static_cast<const Op*>(op), inputs, output); },
              .attributes = [](const void* op) { return attributes_of(*static_cast<const Op*>(op)); },
              .node = nullptr,
              .vmap = vmap_of<Op>(),
              .pure = pure,
              .batched = batched,
              .held = [](const void* op) { return held_of(*static_cast<const Op*>(op)); }};
  if constexpr (RuleForEach<Op> || RuleForAll<Op>)
    kind.node = [](void* op, const Tensor* const* inputs, int count, const Tensor& output) {
      return OpNode<Op>::make(std::move(*static_cast<Op*>(op)), inputs, count, output);
    };
  return kind;
}

[[noreturn]] void refuse_none(std::string_view op);
/// Runs op and records it if any input is tracked.
Tensor run(const OpKind& kind, void* op, std::span<const Tensor* const> inputs);
Tensor run(const OpKind& kind, void* op, std::span<const Tensor> inputs);

/// Of an op that takes its inputs one by one.
template <Primitive Op, class... T>
const OpKind& kind_of() {
  constexpr auto forward = [](void* self, std::span<const Tensor* const> in) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) -> Tensor {
      return static_cast<Op*>(self)->forward(*in[i]...);
    }(std::index_sequence_for<T...>{});
  };
  constexpr bool pure = requires(const Op& o, const T&... in) { o.forward(in...); };
  constexpr auto batched = []() -> Tensor (*)(void*, std::span<const Tensor* const>) {
    if constexpr (requires(Op& o, const T&... in) { o.batched(in...); })
      return [](void* self, std::span<const Tensor* const> in) {
        return [&]<std::size_t... i>(std::index_sequence<i...>) -> Tensor {
          return static_cast<Op*>(self)->batched(*in[i]...);
        }(std::index_sequence_for<T...>{});
      };
    else return nullptr;
  }();
  static constexpr OpKind kind = op_kind<Op>(forward, pure, batched);
  return kind;
}

/// Of an op that takes them together.
template <Primitive Op>
const OpKind& kind_of_many() {
  constexpr auto forward = [](void* self, std::span<const Tensor* const> in) -> Tensor {
    return static_cast<Op*>(self)->forward(std::span<const Tensor>(in[0], in.size()));
  };
  constexpr bool pure = requires(const Op& o, std::span<const Tensor> in) { o.forward(in); };
  constexpr auto batched = []() -> Tensor (*)(void*, std::span<const Tensor* const>) {
    if constexpr (requires(Op& o, std::span<const Tensor> in) { o.batched(in); })
      return [](void* self, std::span<const Tensor* const> in) -> Tensor {
        return static_cast<Op*>(self)->batched(std::span<const Tensor>(in[0], in.size()));
      };
    else return nullptr;
  }();
  static constexpr OpKind kind = op_kind<Op>(forward, pure, batched);
  return kind;
}

template <class Op>
void OpNode<Op>::tangent([[maybe_unused]] const Saved& saved, [[maybe_unused]] std::span<const Tensor> in,
                         [[maybe_unused]] Tensor& out) const {
  if constexpr (tangents_of<Op>() == Tangent::own) out = op_.tangent(saved, in);
  else if constexpr (tangents_of<Op>() == Tangent::linear || tangents_of<Op>() == Tangent::multilinear) {
    if constexpr (requires { op_.held.unchanged(Op::name, ""); }) (void)op_.held.unchanged(Op::name, "what it holds");
    Op op = op_;
    if constexpr (requires { op.forward(in); }) out = run(kind_of_many<Op>(), &op, in);
    else if constexpr (requires { op.forward(in[0]); }) out = run(kind_of<Op, Tensor>(), &op, in);
    else if constexpr (requires { op.forward(in[0], in[1]); }) out = run(kind_of<Op, Tensor, Tensor>(), &op, in);
    else out = run(kind_of<Op, Tensor, Tensor, Tensor>(), &op, in);
  }
}

}  // namespace detail

/// Runs op on the inputs and, when any of them is tracked and this thread records, adds a node to the graph.
/// Throws what forward throws; ValueError on an undefined input; GradientError on a tracked op without backward.
template <Primitive Op, std::same_as<Tensor>... T>
Tensor apply(Op op, const T&... inputs) {
  const std::array<const Tensor*, sizeof...(T)> in{&inputs...};
  if constexpr (requires { op.recorded; }) op.recorded = recording() && (inputs.tracked() || ...);
  return detail::run(detail::kind_of<Op, T...>(), &op, in);
}

/// The same for ops with any number of inputs (one at least, else ValueError). Call it as ebb::apply: without that, an
/// argument of std, such as a std::vector, brings std::apply in, which takes anything.
template <Primitive Op>
Tensor apply(Op op, std::span<const Tensor> inputs) {
  if (inputs.empty()) detail::refuse_none(Op::name);
  return detail::run(detail::kind_of_many<Op>(), &op, inputs);
}

}  // namespace ebb
