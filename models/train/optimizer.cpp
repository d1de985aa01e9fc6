// (over 400 lines because every rule stands with its formula)
#include <ebb/models/train/optimizer.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/models/train/tell.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/threads.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// One pass over a parameter, its gradient and its state: rule(w, g, s...) for each element, all by reference but g.
/// The parameter is multiplied by `keep` on the way.
template <std::size_t N, class Rule>
void fused(Tensor& w, const Tensor& g, std::span<Tensor> slots, double keep, const Rule& rule) {
  visit_float(w.dtype(), [&]<class T>(T) {
    T* pw = w.mutable_values<T>().data();
    const T* pg = g.values<T>().data();
    std::array<T*, 3> s{};
    for (std::size_t i = 0; i < slots.size(); ++i) s[i] = slots[i].mutable_values<T>().data();
    // A rule takes longer per element than most loops do: threads share a parameter in smaller blocks.
    const std::int64_t n = w.numel(), block = n <= detail::elementwise_block
                                                  ? n
                                                  : detail::even_block(n, detail::elementwise_block / 4, 16);
    detail::parallel_for(n, block, [&](std::int64_t begin, std::int64_t end) {
      const auto loop = [&]() EBB_INLINE {
        T* __restrict a = pw;
        const T* __restrict b = pg;
        [[maybe_unused]] T* __restrict p = s[0], * __restrict q = s[1], * __restrict r = s[2];
        const T k = static_cast<T>(keep);
        for (std::int64_t i = begin; i < end; ++i) {
          // All is read before anything is written: a load waits for an earlier store whose address differs from its
          // own by a multiple of 4 KiB (4 KiB aliasing).
          T x = a[i] * k;
          const T d = b[i];
          if constexpr (N == 0) rule(x, d);
          if constexpr (N == 1) {
            T first = p[i];
            rule(x, d, first);
            p[i] = first;
          }
          if constexpr (N == 2) {
            T first = p[i], second = q[i];
            rule(x, d, first, second);
            p[i] = first, q[i] = second;
          }
          if constexpr (N == 3) {
            T first = p[i], second = q[i], third = r[i];
            rule(x, d, first, second, third);
            p[i] = first, q[i] = second, r[i] = third;
          }
          a[i] = x;
        }
      };
      // float64 is for proofs: its loops are compiled once, not for each instruction set
      if constexpr (sizeof(T) == 4) detail::simd_for<T>(loop);
      else loop();
    });
  });
}

/// Names of options in files and programs of before, and what they are called now.
constexpr std::pair<const char*, const char*> renamed[] = {
    {"eps", "epsilon"}, {"eps_inside_sqrt", "epsilon_inside_sqrt"}, {"start", "initial_accumulator_value"}};

template <class Rule>
std::unique_ptr<Optimizer> make(const OptimizerOptions& given) {
  Rule rule;
  std::string names;
  OptimizerOptions left = given;
  rule.each([&](const char* name, auto& value, Range = Range::any) {
    names += (names.empty() ? "" : ", ") + std::string(name);
    auto option = left.extract(name);
    for (const auto& [old, now] : renamed)
      if (option.empty() && now == std::string_view(name)) option = left.extract(old);
    if (option.empty()) return;
    const double v = option.mapped();
    if constexpr (std::is_same_v<decltype(value), bool&>)
      detail::expect(v == 0 || v == 1, Rule::name, fmt::format("{} must be 0 or 1", name), v);
    value = static_cast<std::remove_reference_t<decltype(value)>>(v);
  });
  if (!left.empty())
    throw ValueError(
        fmt::format("{}: unknown option \"{}\"; expected one of {}", Rule::name, left.begin()->first, names));
  return std::make_unique<OptimizerOf<Rule>>(rule);
}

struct NamedRule {
  std::string_view name;
  std::unique_ptr<Optimizer> (*make)(const OptimizerOptions&);
};
template <class... Rules>
constexpr std::array<NamedRule, sizeof...(Rules)> rules_of() {
  return {NamedRule{Rules::name, make<Rules>}...};
}
constexpr auto rules =
    rules_of<SGDOptions, RMSpropOptions, AdamOptions, AdamWOptions, NadamOptions, AdagradOptions, LionOptions>();

}  // namespace

void detail::expect_in(Range range, std::string_view who, std::string_view what, double value) {
  switch (range) {
    case Range::any: return;
    case Range::share: return expect(value >= 0 && value < 1, who, fmt::format("{} must be in [0, 1)", what), value);
    // Without it a gradient of 0 would be divided by its root, 0.
    case Range::above_zero:
      return expect(static_cast<float>(value) > 0, who, fmt::format("{} must be above 0", what), value);
    case Range::not_negative: return expect(value >= 0, who, fmt::format("{} must not be negative", what), value);
  }
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> out;
  for (const NamedRule& rule : rules) out.emplace_back(rule.name);
  return out;
}

std::unique_ptr<Optimizer> make_optimizer(std::string_view name, const OptimizerOptions& options) {
  for (const NamedRule& rule : rules)
    if (rule.name == name) return rule.make(options);
  throw ValueError(
      fmt::format("unknown optimizer \"{}\"; expected one of {}", name, fmt::join(optimizer_names(), ", ")));
}

// ---- what all share ------------------------------------------------------------------------------------------------

Optimizer::Optimizer(double lr, double weight_decay) : weight_decay_(weight_decay) {
  set_lr(lr);
  detail::expect(weight_decay >= 0 && std::isfinite(weight_decay), "optimizer",
                 "weight_decay must be a finite number from 0", weight_decay);
}

void Optimizer::set_lr(double lr) {
  detail::expect(lr >= 0 && std::isfinite(lr), "optimizer", "lr must be a finite number from 0", lr);
  lr_ = lr;
}

void Optimizer::set_groups(std::vector<ParameterGroup> groups) {
  for (const ParameterGroup& g : groups)
    detail::expect(g.lr_factor >= 0 && std::isfinite(g.lr_factor), "optimizer",
                   fmt::format("lr_factor of \"{}\" must be a finite number from 0", g.match), g.lr_factor);
  groups_ = std::move(groups);
  looked_ = false;
}

void Optimizer::expect_groups_used(std::span<const NamedTensor> parameters) const {
  for (const ParameterGroup& g : groups_)
    if (std::ranges::none_of(
            parameters, [&](const NamedTensor& t) { return t.trained && t.path.find(g.match) != std::string::npos; }))
      throw ValueError(fmt::format("{}: the group \"{}\" matches none of the {} parameters{}", name(), g.match,
                                   std::ranges::count_if(parameters, &NamedTensor::trained),
                                   parameters.empty() ? "" : fmt::format(", such as {}", parameters[0].path)));
}

std::string Optimizer::overlooked(Module& module, const Gradients& gradients, bool all) {
  const std::vector<NamedTensor> own = named_tensors(module);  // frozen ones too, which a group may be meant for
  expect_groups_used(own);
  looked_ = true;
  std::unordered_set<const Node*> known;
  for (const NamedTensor& t : own)
    if (t.tensor->tracked()) known.insert(t.tensor->node().get());
  std::string names;
  std::size_t count = 0;
  for (const auto& entry : gradients.entries()) {
    if (known.contains(entry.variable.get()) || (!all && detail::ModuleAccess::owned(entry.variable.get()))) continue;
    if (++count > 4) continue;
    const std::string_view called = entry.variable->name();
    names += count == 4 ? ", .."
                        : fmt::format("{}{} {}", count > 1 ? ", " : "", called.empty() ? "a variable" : called,
                                      entry.variable->shape().str());
  }
  if (count == 0) return {};
  return fmt::format(
      "warning: {}: the loss depends on {} tensor{} that no visit of the module names, and that {} not trained: {}",
      name(), count, count > 1 ? "s" : "", count > 1 ? "are" : "is", names);
}

void Optimizer::step_one(Tensor& w, const Tensor& g, const Step& step) {
  if (g.shape() != w.shape() || g.dtype() != w.dtype())  // gradients can be changed before a step
    throw ShapeError(
        fmt::format("{}: the gradient {} does not fit the parameter {}", name(), describe(g), describe(w)));
  State& state = state_[w.raw()];
  if (state.call == calls_ && slots() > 0)
    throw ValueError(fmt::format(
        "{}: two parameters are one piece of memory, {} the second time: make them one variable", name(), describe(w)));
  state.call = calls_;
  state.owner = w.storage();
  if (!state.slots.empty() && state.slots[0].shape() != w.shape())
    state.slots.clear();  // another parameter at the same place
  for (int i = static_cast<int>(state.slots.size()); i < slots(); ++i)
    state.slots.push_back(full(w.shape(), slot_start(), w.dtype()));
  update(w, g, state.slots, step);
}

/// each(i) is the i-th parameter and its path.
template <class Each>
void Optimizer::step_all(std::size_t count, const Gradients& gradients, const Each& each) {
  // The moments of a weight without gradients decay to denormal numbers, with which arithmetic is slow.
  const FlushDenormals flush;
  if (detail::mode.observer)  // before anything changes
    for (std::size_t i = 0; i < count; ++i) {
      const auto [w, path] = each(i);
      if (gradients.contains(*w))
        detail::observe_step(steps_ + 1, path.empty() ? w->node()->name() : path, gradients[*w]);
    }
  ++steps_;
  ++calls_;
  begin_step();
  bool any = false;
  for (std::size_t i = 0; i < count; ++i) {
    const auto [w, path] = each(i);
    if (!gradients.contains(*w)) continue;
    any = true;
    const auto group = std::ranges::find_if(
        groups_, [&, p = path](const ParameterGroup& g) { return p.find(g.match) != std::string_view::npos; });
    const bool own = group != groups_.end();
    const double lr = own ? lr_ * group->lr_factor : lr_;
    step_one(*w, gradients[*w], {lr, own && !group->decay ? 1 : 1 - lr * weight_decay_});
  }
  if (any) return;
  --steps_;
  throw GradientError(fmt::format("{}: none of the {} parameters has a gradient", name(), count));
}

void Optimizer::step(std::span<const NamedTensor> parameters, const Gradients& gradients) {
  if (!looked_) expect_groups_used(parameters);
  looked_ = true;
  step_all(parameters.size(), gradients,
           [&](std::size_t i) { return std::pair(parameters[i].tensor, std::string_view(parameters[i].path)); });
}

void Optimizer::step(std::span<Tensor> parameters, const Gradients& gradients) {
  step_all(parameters.size(), gradients, [&](std::size_t i) { return std::pair(&parameters[i], std::string_view()); });
}

void Optimizer::step(Module& module, const Gradients& gradients) {
  if (!looked_)
    if (const std::string line = overlooked(module, gradients, false); !line.empty()) tell(stderr, line + "\n");
  step(named_parameters(module), gradients);
}

std::span<const Tensor> Optimizer::state(const Tensor& parameter) const {
  const auto it = state_.find(parameter.raw());
  return it == state_.end() ? std::span<const Tensor>() : it->second.slots;
}

std::vector<Tensor> Optimizer::states() const {
  std::vector<Tensor> out;
  for (const auto& [_, state] : state_) out.insert(out.end(), state.slots.begin(), state.slots.end());
  return out;
}

void Optimizer::set_state(const Tensor& w, std::vector<Tensor> state) {
  if (static_cast<int>(state.size()) != slots())
    throw ShapeError(fmt::format("{}: keeps {} tensors for a parameter, got {}", name(), slots(), state.size()));
  for (const Tensor& t : state)
    if (t.shape() != w.shape() || t.dtype() != w.dtype())
      throw ShapeError(fmt::format("{}: the state {} does not fit the parameter {}", name(), describe(t), describe(w)));
  state_[w.raw()] = {w.storage(), std::move(state)};
}

// ---- formulas ------------------------------------------------------------------------------------------------------

namespace {

template <std::size_t N, class F>
void fused(const detail::Change& c, const F& formula) {
  fused<N>(c.w, c.g, c.slots, c.keep, formula);
}
AdamOptions adam_of(const AdamWOptions& o) { return {o.lr, o.beta1, o.beta2, o.epsilon, o.weight_decay}; }

}  // namespace

void SGDOptions::change(const detail::Change& c) const {
  const double rate = c.lr, m = momentum;
  if (m == 0) return fused<0>(c, [=](auto& x, auto d) { x -= static_cast<decltype(d)>(rate) * d; });
  if (nesterov)
    return fused<1>(c, [=](auto& x, auto d, auto& v) {
      using T = decltype(d);
      v = static_cast<T>(m) * v - static_cast<T>(rate) * d;
      x += static_cast<T>(m) * v - static_cast<T>(rate) * d;
    });
  fused<1>(c, [=](auto& x, auto d, auto& v) {
    using T = decltype(d);
    v = static_cast<T>(m) * v - static_cast<T>(rate) * d;
    x += v;
  });
}

void RMSpropOptions::change(const detail::Change& c) const {
  const double rate = c.lr, share = rho, again = momentum;
  // epsilon inside the root or outside of it, without a branch in the loop
  const double in = epsilon_inside_sqrt ? epsilon : 0, out = epsilon_inside_sqrt ? 0 : epsilon;
  const auto scaled = [=](auto d, auto v) {
    using T = decltype(d);
    return static_cast<T>(rate) * d / (std::sqrt(v + static_cast<T>(in)) + static_cast<T>(out));
  };
  // v - a^2 is never negative but by rounding, and a root must not see that
  const auto spread = [](auto v, auto a) { return std::max(v - a * a, decltype(v)(0)); };
  const auto mean = [=](auto& v, auto next) {
    using T = decltype(next);
    return v = static_cast<T>(share) * v + static_cast<T>(1 - share) * next;
  };
  if (!centered && momentum == 0) return fused<1>(c, [=](auto& x, auto d, auto& v) { x -= scaled(d, mean(v, d * d)); });
  if (!centered)
    return fused<2>(c, [=](auto& x, auto d, auto& v, auto& s) {
      s = static_cast<decltype(d)>(again) * s + scaled(d, mean(v, d * d));
      x -= s;
    });
  if (momentum == 0)
    return fused<2>(c, [=](auto& x, auto d, auto& v, auto& a) {
      mean(v, d * d);
      mean(a, d);
      x -= scaled(d, spread(v, a));
    });
  fused<3>(c, [=](auto& x, auto d, auto& v, auto& a, auto& s) {
    mean(v, d * d);
    mean(a, d);
    s = static_cast<decltype(d)>(again) * s + scaled(d, spread(v, a));
    x -= s;
  });
}

void AdamOptions::begin(double t, detail::StepFactors& f) const {
  f.of_mean = std::sqrt(1 - std::pow(beta2, t)) / (1 - std::pow(beta1, t));
}
void AdamOptions::change(const detail::Change& c) const {
  const double a = c.lr * c.at.of_mean, b1 = beta1, b2 = beta2, e = epsilon;
  fused<2>(c, [=](auto& x, auto d, auto& m, auto& v) {
    using T = decltype(d);
    m += (d - m) * static_cast<T>(1 - b1);
    v += (d * d - v) * static_cast<T>(1 - b2);
    x -= static_cast<T>(a) * m / (std::sqrt(v) + static_cast<T>(e));
  });
}

void AdamWOptions::begin(double t, detail::StepFactors& f) const { adam_of(*this).begin(t, f); }
void AdamWOptions::change(const detail::Change& c) const { adam_of(*this).change(c); }

void NadamOptions::begin(double t, detail::StepFactors& f) const {
  const auto u = [&](double at) { return beta1 * (1 - 0.5 * std::pow(0.96, at * momentum_decay)); };
  const auto now = static_cast<std::int64_t>(t);
  if (f.counted >= now) f = {};  // set_steps() went back
  while (f.counted < now) f.product *= u(static_cast<double>(++f.counted));
  const double next = u(t + 1);
  f.of_mean = next / (1 - f.product * next);
  f.of_gradient = (1 - u(t)) / (1 - f.product);
  f.of_square = 1 / (1 - std::pow(beta2, t));
}
void NadamOptions::change(const detail::Change& c) const {
  const double b1 = beta1, b2 = beta2, e = epsilon;
  const double from_m = c.lr * c.at.of_mean, from_g = c.lr * c.at.of_gradient, correction = c.at.of_square;
  fused<2>(c, [=](auto& x, auto d, auto& m, auto& v) {
    using T = decltype(d);
    m += (d - m) * static_cast<T>(1 - b1);
    v += (d * d - v) * static_cast<T>(1 - b2);
    x -= (static_cast<T>(from_m) * m + static_cast<T>(from_g) * d) /
         (std::sqrt(v * static_cast<T>(correction)) + static_cast<T>(e));
  });
}

void AdagradOptions::change(const detail::Change& c) const {
  const double rate = c.lr, e = epsilon;
  fused<1>(c, [=](auto& x, auto d, auto& a) {
    using T = decltype(d);
    a += d * d;
    x -= static_cast<T>(rate) * d / std::sqrt(a + static_cast<T>(e));
  });
}

void LionOptions::change(const detail::Change& c) const {
  const double rate = c.lr, b1 = beta1, b2 = beta2;
  fused<1>(c, [=](auto& x, auto d, auto& m) {
    using T = decltype(d);
    const T mixed = static_cast<T>(b1) * m + static_cast<T>(1 - b1) * d;
    x -= static_cast<T>(rate) * static_cast<T>((mixed > 0) - (mixed < 0));
    m = static_cast<T>(b2) * m + static_cast<T>(1 - b2) * d;
  });
}

// ---- averages ------------------------------------------------------------------------------------------------------

WeightAverage::WeightAverage(double decay) : decay_(decay) {
  detail::expect_in(Range::share, "weight average", "decay", decay);
}

void WeightAverage::update(Module& module) {
  for (const NamedTensor& t : named_parameters(module)) {
    Tensor& average = averages_[t.path];
    if (!average.defined()) {
      average = t.tensor->clone();
      continue;
    }
    const double decay = decay_;
    fused<0>(average, *t.tensor, {}, decay, [=](auto& x, auto w) { x += static_cast<decltype(w)>(1 - decay) * w; });
  }
}

void WeightAverage::set_averages(const TensorMap& averages) {
  averages_.clear();
  for (const auto& [path, t] : averages) averages_[path] = t.clone();
}

void WeightAverage::swap(Module& module) {
  for (const NamedTensor& t : named_parameters(module)) {
    const auto it = averages_.find(t.path);
    if (it == averages_.end()) continue;
    const Tensor now = t.tensor->clone();
    t.tensor->assign(it->second);
    it->second = now;
  }
}

}  // namespace ebb
