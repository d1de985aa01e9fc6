#include <ebb/models/optimizer.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include <ebb/graph/error.h>
#include <ebb/ops/loops.h>

namespace ebb {
namespace {

void expect(bool ok, std::string_view who, std::string_view rule, double value) {
  if (!ok) throw ValueError(fmt::format("{}: {}, got {}", who, rule, value));
}

/// One pass over a parameter, its gradient and its state: rule(w, g, s...) for each element, all by reference.
template <std::size_t N, class Rule>
void fused(Tensor& w, const Tensor& g, std::span<Tensor> slots, const Rule& rule) {
  visit_float(w.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* pw = w.mutable_values<T>().data();
    const T* pg = g.values<T>().data();
    std::array<T*, 3> s{};
    for (std::size_t i = 0; i < slots.size(); ++i) s[i] = slots[i].mutable_values<T>().data();
    detail::parallel_for(w.numel(), detail::elementwise_block, [&](std::int64_t begin, std::int64_t end) {
      detail::simd([&]() EBB_INLINE {
        T* __restrict a = pw;
        const T* __restrict b = pg;
        [[maybe_unused]] T *__restrict p = s[0], *__restrict q = s[1], *__restrict r = s[2];
        for (std::int64_t i = begin; i < end; ++i) {
          if constexpr (N == 0) rule(a[i], b[i]);
          else if constexpr (N == 1) rule(a[i], b[i], p[i]);
          else if constexpr (N == 2) rule(a[i], b[i], p[i], q[i]);
          else rule(a[i], b[i], p[i], q[i], r[i]);
        }
      });
    });
  });
}

}  // namespace

Optimizer::Optimizer(double lr) : lr_(lr) { expect(lr >= 0 && std::isfinite(lr), "optimizer", "lr must be a finite number from 0", lr); }

void Optimizer::step(std::span<Tensor> parameters, const Gradients& gradients) {
  ++steps_;
  begin_step();
  bool any = false;
  for (Tensor& w : parameters) {
    if (!gradients.contains(w)) continue;
    any = true;
    const Tensor& g = gradients[w];
    if (g.shape() != w.shape() || g.dtype() != w.dtype())  // gradients can be changed before a step
      throw ShapeError(fmt::format("{}: the gradient {} does not fit the parameter {}", name(), describe(g), describe(w)));
    State& state = state_[w.node().get()];
    state.owner = w.node();
    for (int i = static_cast<int>(state.slots.size()); i < slots(); ++i) state.slots.push_back(zeros_like(w));
    update(w, g, state.slots);
  }
  if (any) return;
  --steps_;
  throw GradientError(fmt::format("{}: none of the {} parameters has a gradient", name(), parameters.size()));
}

void Optimizer::step(Module& module, const Gradients& gradients) {
  std::vector<Tensor> all = parameters(module);
  step(all, gradients);
}

SGD::SGD(SGDOptions options) : Optimizer(options.lr), options_(options) {
  expect(options.momentum >= 0 && options.momentum < 1, "sgd", "momentum must be in [0, 1)", options.momentum);
}

void SGD::update(Tensor& w, const Tensor& g, std::span<Tensor> slots) {
  const double rate = lr(), m = options_.momentum;
  if (m == 0) return fused<0>(w, g, slots, [=](auto& x, auto d) { x -= static_cast<decltype(d)>(rate) * d; });
  if (options_.nesterov)
    return fused<1>(w, g, slots, [=](auto& x, auto d, auto& v) {
      using T = decltype(d);
      v = static_cast<T>(m) * v - static_cast<T>(rate) * d;
      x += static_cast<T>(m) * v - static_cast<T>(rate) * d;
    });
  fused<1>(w, g, slots, [=](auto& x, auto d, auto& v) {
    using T = decltype(d);
    v = static_cast<T>(m) * v - static_cast<T>(rate) * d;
    x += v;
  });
}

RMSprop::RMSprop(RMSpropOptions options) : Optimizer(options.lr), options_(options) {
  expect(options.rho >= 0 && options.rho < 1, "rmsprop", "rho must be in [0, 1)", options.rho);
  expect(options.momentum >= 0 && options.momentum < 1, "rmsprop", "momentum must be in [0, 1)", options.momentum);
  expect(options.eps >= 0, "rmsprop", "eps must not be negative", options.eps);
}

void RMSprop::update(Tensor& w, const Tensor& g, std::span<Tensor> slots) {
  const double rate = lr(), rho = options_.rho, eps = options_.eps, momentum = options_.momentum;
  const bool inside = options_.eps_inside_sqrt;
  // eps inside the root or outside of it, without a branch in the loop
  const double in = inside ? eps : 0, out = inside ? 0 : eps;
  const auto scaled = [=](auto d, auto v) {
    using T = decltype(d);
    return static_cast<T>(rate) * d / (std::sqrt(v + static_cast<T>(in)) + static_cast<T>(out));
  };
  // v - a^2 is never negative but by rounding, and a root must not see that
  const auto spread = [](auto v, auto a) { return std::max(v - a * a, decltype(v)(0)); };
  const auto mean = [=](auto& v, auto next) {
    using T = decltype(next);
    return v = static_cast<T>(rho) * v + static_cast<T>(1 - rho) * next;
  };
  if (!options_.centered && momentum == 0)
    return fused<1>(w, g, slots, [=](auto& x, auto d, auto& v) { x -= scaled(d, mean(v, d * d)); });
  if (!options_.centered)
    return fused<2>(w, g, slots, [=](auto& x, auto d, auto& v, auto& s) {
      s = static_cast<decltype(d)>(momentum) * s + scaled(d, mean(v, d * d));
      x -= s;
    });
  if (momentum == 0)
    return fused<2>(w, g, slots, [=](auto& x, auto d, auto& v, auto& a) {
      mean(v, d * d);
      mean(a, d);
      x -= scaled(d, spread(v, a));
    });
  fused<3>(w, g, slots, [=](auto& x, auto d, auto& v, auto& a, auto& s) {
    mean(v, d * d);
    mean(a, d);
    s = static_cast<decltype(d)>(momentum) * s + scaled(d, spread(v, a));
    x -= s;
  });
}

Adam::Adam(AdamOptions options) : Optimizer(options.lr), options_(options) {
  expect(options.beta1 >= 0 && options.beta1 < 1, "adam", "beta1 must be in [0, 1)", options.beta1);
  expect(options.beta2 >= 0 && options.beta2 < 1, "adam", "beta2 must be in [0, 1)", options.beta2);
  expect(options.eps >= 0, "adam", "eps must not be negative", options.eps);
}

void Adam::begin_step() {
  const auto t = static_cast<double>(steps());
  step_size_ = lr() * std::sqrt(1 - std::pow(options_.beta2, t)) / (1 - std::pow(options_.beta1, t));
}

void Adam::update(Tensor& w, const Tensor& g, std::span<Tensor> slots) {
  const double a = step_size_, b1 = options_.beta1, b2 = options_.beta2, eps = options_.eps;
  fused<2>(w, g, slots, [=](auto& x, auto d, auto& m, auto& v) {
    using T = decltype(d);
    m += (d - m) * static_cast<T>(1 - b1);
    v += (d * d - v) * static_cast<T>(1 - b2);
    x -= static_cast<T>(a) * m / (std::sqrt(v) + static_cast<T>(eps));
  });
}

}  // namespace ebb
