// Optimizers: SGD, RMSprop, Adam, AdamW, Nadam, Adagrad, Lion, with Keras' defaults and formulas. All take a decoupled
// weight decay: before its step a parameter is multiplied by 1 - lr weight_decay (Loshchilov and Hutter 2019).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ebb/autograd/backward.h>
#include <ebb/models/layers/module.h>
#include <ebb/models/train/history.h>

namespace ebb {

/// What is different for parameters whose path contains `match`, such as "bias" or "layers.0.".
struct ParameterGroup {
  std::string match;     ///< a part of the path
  double lr_factor = 1;  ///< their rate is lr times this
  bool decay = true;     ///< false: no weight decay
};

/// Options by name, as files and command lines have them; a switch is 0 or 1.
using OptimizerOptions = std::map<std::string, double>;

/// Changes parameters in place by their gradients. State is kept per parameter and made when it is first needed; a
/// parameter is identified by the address of its elements, so that its state survives freeze() and unfreeze().
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual std::string_view name() const = 0;  ///< in lower case, such as "adam"
  /// lr as it is now, and all other options.
  virtual OptimizerOptions options() const = 0;
  double lr() const { return lr_; }  ///< learning rate of the next step
  /// Throws ValueError unless lr is a finite number from 0.
  void set_lr(double lr);
  /// Steps taken so far.
  std::int64_t steps() const { return steps_; }

  /// One step for all parameters that have a gradient. Throws GradientError when none has, ValueError if two parameters
  /// share memory. The first step warns on stderr about variables with gradients that belong to no module.
  void step(Module& module, const Gradients& gradients);
  void step(std::span<const NamedTensor> parameters, const Gradients& gradients);  ///< the same for these
  /// The same for parameters without a path. Only a group with an empty `match` applies to them.
  void step(std::span<Tensor> parameters, const Gradients& gradients);

  /// Parameters that differ from the rest; the first group that matches counts. Takes effect with the next step, which
  /// throws ValueError when a group matches no parameter.
  void set_groups(std::vector<ParameterGroup> groups);
  const std::vector<ParameterGroup>& groups() const { return groups_; }  ///< as they were set

  /// Number of tensors of state that a parameter has, each of its shape.
  virtual int slots() const = 0;

  /// Checks for omissions before the first step. Throws ValueError if a group matches no parameter. Returns a warning
  /// of one line about variables with a gradient that are no parameter of this module (without `all`: of any module);
  /// "" if there are none.
  std::string overlooked(Module& module, const Gradients& gradients, bool all = true);

  /// Tensors of state of one parameter, for saving; empty before its first step. The number of steps is steps().
  std::span<const Tensor> state(const Tensor& parameter) const;
  /// The tensors of state of all parameters.
  std::vector<Tensor> states() const;
  /// Restores the state of a parameter. Throws ShapeError unless there are slots() tensors of its shape and dtype.
  void set_state(const Tensor& parameter, std::vector<Tensor> slots);
  void set_steps(std::int64_t steps) { steps_ = steps; }  ///< as if so many had been taken

 protected:
  Optimizer(double lr, double weight_decay);  ///< ValueError on a negative or infinite one
  /// Initial value of the tensors of state.
  virtual double slot_start() const { return 0; }
  /// Called once a step, before the parameters.
  virtual void begin_step() {}
  /// Rate and decay of one parameter's step.
  struct Step {
    double lr;    ///< with the factor of its group
    double keep;  ///< the parameter is multiplied by this first: weight decay
  };
  virtual void update(Tensor& parameter, const Tensor& gradient, std::span<Tensor> slots,
                      const Step& step) = 0;  ///< changes one parameter

 private:
  struct State {
    Ref<Storage> owner;  // keeps the key from being given to another parameter
    std::vector<Tensor> slots;
    std::uint64_t call = 0;  // of step(), that used it last
  };
  void step_one(Tensor& w, const Tensor& g, const Step& step);
  void expect_groups_used(std::span<const NamedTensor> parameters) const;
  template <class Each>
  void step_all(std::size_t count, const Gradients& gradients, const Each& each);
  double lr_, weight_decay_;
  std::int64_t steps_ = 0;
  std::vector<ParameterGroup> groups_;
  std::unordered_map<const std::byte*, State> state_;  // by the first of its elements
  std::uint64_t calls_ = 0;
  bool looked_ = false;  // the check for unused groups has run since the last set_groups()
};

/// Makes an optimizer by name; `options` override its defaults. Throws ValueError on an unknown name or option; the
/// message lists the valid ones.
std::unique_ptr<Optimizer> make_optimizer(std::string_view name, const OptimizerOptions& options = {});
/// "sgd", "rmsprop", "adam", ...
std::vector<std::string> optimizer_names();

// An optimizer is one struct, its rule: its name, its options with their ranges, the tensors of state that it keeps,
// and (in optimizer.cpp) its formula. Class, factory, checks and files follow from it.

/// What values an option may have.
enum class Range {
  any,           ///< lr and weight_decay, which Optimizer checks, and switches
  share,         ///< 0 <= value < 1
  above_zero,    ///< as float32 too
  not_negative,  ///< 0 or more
};

namespace detail {
/// ValueError unless the option's value lies in its range.
void expect_in(Range range, std::string_view who, std::string_view what, double value);

/// Factors of one step that are the same for all parameters, and what a rule carries from step to step to make them.
struct StepFactors {
  double of_mean = 1, of_gradient = 0, of_square = 1;
  std::int64_t counted = 0;  // steps in `product`
  double product = 1;
};
/// One parameter and what its step needs.
struct Change {
  Tensor& w;
  const Tensor& g;
  std::span<Tensor> slots;
  double lr, keep;  // Optimizer::Step
  const StepFactors& at;
};
}  // namespace detail

/// w += v, v = momentum v - lr g; with Nesterov w += momentum v - lr g; without momentum w -= lr g (Keras 3, sgd.py).
struct SGDOptions {
  double lr = 0.01;         ///< learning rate
  double momentum = 0;      ///< share of the last step that is taken again
  bool nesterov = false;    ///< look ahead along the momentum
  double weight_decay = 0;  ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "sgd";
  int slots() const { return momentum > 0 ? 1 : 0; }
  void change(const detail::Change& c) const;  ///< the formula
  template <class F>
  void each(F f) {
    f("lr", lr), f("momentum", momentum, Range::share), f("nesterov", nesterov), f("weight_decay", weight_decay);
  }
};

/// v = rho v + (1 - rho) g^2; w -= lr g / sqrt(v + epsilon). Centered subtracts the squared mean of g from v; with
/// momentum the step is accumulated (Keras 3, rmsprop.py; Tieleman and Hinton 2012).
struct RMSpropOptions {
  double lr = 1e-3;                 ///< learning rate
  double rho = 0.9;                 ///< decay rate of the running mean of g^2
  double momentum = 0;              ///< share of the last step that is taken again
  double epsilon = 1e-7;            ///< keeps the division defined
  bool centered = false;            ///< subtract the squared mean of g
  bool epsilon_inside_sqrt = true;  ///< Keras 3: g / sqrt(v + epsilon). false: g / (sqrt(v) + epsilon), as PyTorch
  double weight_decay = 0;          ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "rmsprop";
  int slots() const { return 1 + (centered ? 1 : 0) + (momentum > 0 ? 1 : 0); }
  void change(const detail::Change& c) const;  ///< the formula
  template <class F>
  void each(F f) {
    f("lr", lr), f("rho", rho, Range::share), f("momentum", momentum, Range::share),
        f("epsilon", epsilon, Range::above_zero);
    f("centered", centered), f("epsilon_inside_sqrt", epsilon_inside_sqrt), f("weight_decay", weight_decay);
  }
};

namespace detail {
/// The options that the relatives of Adam begin with.
template <class Rule, class F>
void each_of_adam(Rule& o, F& f) {
  f("lr", o.lr), f("beta1", o.beta1, Range::share), f("beta2", o.beta2, Range::share),
      f("epsilon", o.epsilon, Range::above_zero);
}
}  // namespace detail

/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= a m / (sqrt(v) + epsilon), a = lr sqrt(1 - b2^t) / (1 - b1^t)
/// (Kingma and Ba 2015, the form before section 2.1; Keras 3, adam.py).
struct AdamOptions {
  double lr = 1e-3;         ///< learning rate
  double beta1 = 0.9;       ///< decay rate of the running mean of g
  double beta2 = 0.999;     ///< decay rate of the running mean of g^2
  double epsilon = 1e-7;    ///< keeps the division defined
  double weight_decay = 0;  ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "adam";
  int slots() const { return 2; }
  void begin(double t, detail::StepFactors& factors) const;  ///< before step t, for all parameters
  void change(const detail::Change& c) const;                ///< the formula
  template <class F>
  void each(F f) {
    detail::each_of_adam(*this, f), f("weight_decay", weight_decay);
  }
};

/// Adam with weight decay (Keras 3, adamw.py; PyTorch's default decay is 0.01).
struct AdamWOptions {
  double lr = 1e-3;             ///< learning rate
  double beta1 = 0.9;           ///< decay rate of the running mean of g
  double beta2 = 0.999;         ///< decay rate of the running mean of g^2
  double epsilon = 1e-7;        ///< keeps the division defined
  double weight_decay = 0.004;  ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "adamw";
  int slots() const { return 2; }
  void begin(double t, detail::StepFactors& factors) const;  ///< before step t, for all parameters
  void change(const detail::Change& c) const;                ///< the formula
  template <class F>
  void each(F f) {
    detail::each_of_adam(*this, f), f("weight_decay", weight_decay);
  }
};

/// Adam with Nesterov's momentum: u_t = b1 (1 - 0.96^(t d) / 2), U_t = u_1 ... u_t, m and v as in Adam;
/// w -= lr (u_{t+1} m / (1 - U_{t+1}) + (1 - u_t) g / (1 - U_t)) / (sqrt(v / (1 - b2^t)) + epsilon)
/// (Dozat 2016; Keras 3, nadam.py, where d = 1).
struct NadamOptions {
  double lr = 1e-3;           ///< learning rate
  double beta1 = 0.9;         ///< decay rate of the running mean of g
  double beta2 = 0.999;       ///< decay rate of the running mean of g^2
  double epsilon = 1e-7;      ///< keeps the division defined
  double momentum_decay = 1;  ///< PyTorch: 0.004
  double weight_decay = 0;    ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "nadam";
  int slots() const { return 2; }
  void begin(double t, detail::StepFactors& factors) const;  ///< before step t, for all parameters
  void change(const detail::Change& c) const;                ///< the formula
  template <class F>
  void each(F f) {
    detail::each_of_adam(*this, f), f("momentum_decay", momentum_decay, Range::not_negative),
        f("weight_decay", weight_decay);
  }
};

/// a += g^2; w -= lr g / sqrt(a + epsilon) (Duchi et al. 2011; Keras 3, adagrad.py).
struct AdagradOptions {
  double lr = 1e-3;                        ///< learning rate
  double initial_accumulator_value = 0.1;  ///< of the accumulated squares
  double epsilon = 1e-7;                   ///< keeps the division defined; may be 0 where the squares start above 0
  double weight_decay = 0;                 ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "adagrad";
  int slots() const { return 1; }
  double slot_start() const { return initial_accumulator_value; }
  void change(const detail::Change& c) const;  ///< the formula
  template <class F>
  void each(F f) {
    f("lr", lr), f("initial_accumulator_value", initial_accumulator_value, Range::not_negative),
        f("epsilon", epsilon, initial_accumulator_value > 0 ? Range::not_negative : Range::above_zero);
    f("weight_decay", weight_decay);
  }
};

/// w -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g (Chen et al. 2023; Keras 3, lion.py).
struct LionOptions {
  double lr = 1e-3;         ///< learning rate
  double beta1 = 0.9;       ///< decay rate of the running mean of g
  double beta2 = 0.99;      ///< decay rate of the stored running mean of g
  double weight_decay = 0;  ///< the parameter falls by this share of itself, times lr

  static constexpr std::string_view name = "lion";
  int slots() const { return 1; }
  void change(const detail::Change& c) const;  ///< the formula
  template <class F>
  void each(F f) {
    f("lr", lr), f("beta1", beta1, Range::share), f("beta2", beta2, Range::share), f("weight_decay", weight_decay);
  }
};

/// The optimizer of a rule.
template <class Rule>
class OptimizerOf : public Optimizer {
 public:
  /// ValueError on options out of range.
  explicit OptimizerOf(Rule rule = {}) : Optimizer(rule.lr, rule.weight_decay), rule_(rule) {
    rule_.each([](const char* option, auto value, Range range = Range::any) {
      detail::expect_in(range, Rule::name, option, static_cast<double>(value));
    });
  }
  std::string_view name() const override { return Rule::name; }
  OptimizerOptions options() const override {
    OptimizerOptions out;
    Rule rule = rule_;
    rule.each([&](const char* option, auto value, Range = Range::any) { out[option] = static_cast<double>(value); });
    out["lr"] = lr();
    return out;
  }
  int slots() const override { return rule_.slots(); }

 protected:
  double slot_start() const override {
    if constexpr (requires(const Rule& r) { r.slot_start(); }) return rule_.slot_start();
    else return 0;
  }
  void begin_step() override {
    if constexpr (requires(const Rule& r, detail::StepFactors& f) { r.begin(1.0, f); })
      rule_.begin(static_cast<double>(steps()), factors_);
  }
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots, const Step& step) override {
    rule_.change({w, g, slots, step.lr, step.keep, factors_});
  }

 private:
  Rule rule_;
  detail::StepFactors factors_;
};

using SGD = OptimizerOf<SGDOptions>;          ///< stochastic gradient descent
using RMSprop = OptimizerOf<RMSpropOptions>;  ///< steps scaled by a running mean of squares
using Adam = OptimizerOf<AdamOptions>;        ///< adaptive moments
using AdamW = OptimizerOf<AdamWOptions>;      ///< Adam with weight decay
using Nadam = OptimizerOf<NadamOptions>;      ///< Adam with Nesterov's momentum
using Adagrad = OptimizerOf<AdagradOptions>;  ///< steps scaled by the sum of squares
using Lion = OptimizerOf<LionOptions>;        ///< steps of one size, by sign

/// Running averages of a module's parameters, which often do better than the parameters of any one step:
/// average = decay average + (1 - decay) w after each step, beginning with the first w.
class WeightAverage {
 public:
  /// Throws ValueError unless 0 <= decay < 1.
  explicit WeightAverage(double decay = 0.999);
  void update(Module& module);  ///< takes in the parameters after a step
  /// Swaps parameters and averages; a second call restores them. Does nothing before the first update.
  void swap(Module& module);
  const TensorMap& averages() const { return averages_; }  ///< by path; update() changes them in place
  void set_averages(const TensorMap& averages);            ///< restores what averages() returned

 private:
  double decay_;
  TensorMap averages_;
};

}  // namespace ebb
