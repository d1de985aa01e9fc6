// Losses of one element and another.
#include <fmt/core.h>

#include <cmath>

#include <ebb/graph/apply.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// -t log s(x) - (1 - t) log(1 - s(x)), s being the sigmoid. A logit may be infinite: where it is right it costs
/// nothing.
struct BceWithLogits {
  static constexpr std::string_view name = "bce_with_logits";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x, const Tensor& t) const {
    return detail::float_zip<detail::Loop::whole>(name, x, t, [](auto v, auto p) EBB_INLINE {
      const auto wrong = v > 0 ? 1 - p : -p;
      return (wrong == 0 ? 0 : v * wrong) + detail::log1p_of(detail::exp_of(-std::abs(v)));
    });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return i == 0 ? g * (sigmoid(s.input(0)) - s.input(1)) : -detail::chain_mul(g, s.input(0));
  }
};

/// d^2 / 2 where |d| is at most delta, delta (|d| - delta / 2) beyond.
struct Huber {
  static constexpr std::string_view name = "huber";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  double delta;
  Attributes attributes() const { return {{"delta", delta}}; }
  bool operator==(const Huber&) const = default;
  Tensor forward(const Tensor& d) const {
    return detail::float_map(name, d, [k = delta](auto v) {
      using T = decltype(v);
      const T size = std::abs(v), limit = static_cast<T>(k);
      return size > limit ? limit * (size - limit / 2) : size * size / 2;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * clip(s.input(0), -delta, delta); }
};

Tensor difference(const char* op, const Tensor& a, const Tensor& b) {
  detail::expect_labels(op, b);
  if (a.shape() != b.shape())
    fail<ShapeError>(op, fmt::format("prediction {} and target {} differ in shape", a.shape().str(), b.shape().str()));
  return a - b;
}

}  // namespace

Tensor bce_with_logits(const Tensor& logits, const Tensor& targets) {
  detail::expect_labels(BceWithLogits::name, targets);
  if (logits.shape() != targets.shape())
    fail<ShapeError>(BceWithLogits::name, fmt::format("logits {} and targets {} differ in shape", logits.shape().str(),
                                                      targets.shape().str()));
  Composition whole(BceWithLogits::name);
  return whole.gives(mean(apply(BceWithLogits{}, logits, targets)), {&logits, &targets});
}

Tensor mse(const Tensor& prediction, const Tensor& target) {
  Composition whole("mse");
  return whole.gives(mean(square(difference("mse", prediction, target))), {&prediction, &target});
}
Tensor mae(const Tensor& prediction, const Tensor& target) {
  Composition whole("mae");
  return whole.gives(mean(abs(difference("mae", prediction, target))), {&prediction, &target});
}

Tensor huber(const Tensor& prediction, const Tensor& target, double delta) {
  if (!(delta > 0)) fail<ValueError>(Huber::name, fmt::format("delta must be above 0, got {}", delta));
  Composition whole(Huber::name);
  return whole.gives(mean(apply(Huber{delta}, difference("huber", prediction, target))), {&prediction, &target}, [=] {
    return Attributes{{"delta", delta}};
  });
}

Tensor kl_divergence(const Tensor& logits, const Tensor& targets) {
  detail::expect_labels("kl_divergence", targets);
  if (logits.rank() != 2 || logits.numel() == 0)
    fail<ShapeError>("kl_divergence", fmt::format("needs logits (n, classes), got {}", logits.shape().str()));
  if (logits.shape() != targets.shape())
    fail<ShapeError>("kl_divergence", fmt::format("logits {} and targets {} differ in shape", logits.shape().str(),
                                                  targets.shape().str()));
  Composition whole("kl_divergence");
  const Tensor none = equal(targets, zeros_like(targets)),
               zero = scalar(0, logits.dtype());  // 0 log 0 = 0, whatever the logit
  const Tensor safe = where(greater(targets, 0.0), targets, scalar(1, targets.dtype()));
  return whole.gives(
      sum(targets * (log(safe) - where(none, zero, log_softmax(logits)))) / static_cast<double>(logits.size(0)),
      {&logits, &targets});
}

}  // namespace ebb
