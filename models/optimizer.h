// Optimisers: SGD, RMSprop, Adam, with Keras' defaults and formulas.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ebb/autograd/backward.h>
#include <ebb/models/module.h>

namespace ebb {

/// Changes parameters in place by their gradients. State is kept per parameter and made when it is first needed.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual std::string_view name() const = 0;  ///< in lower case, such as "adam"
  double lr() const { return lr_; }  ///< learning rate of the next step
  void set_lr(double lr) { lr_ = lr; }  ///< from the next step on
  /// Steps taken so far.
  std::int64_t steps() const { return steps_; }

  /// One step for all parameters that have a gradient. Throws GradientError when none has.
  void step(std::span<Tensor> parameters, const Gradients& gradients);
  void step(Module& module, const Gradients& gradients);  ///< one step for the module's parameters

 protected:
  explicit Optimizer(double lr);  ///< ValueError on a negative rate
  /// Number of tensors of state that a parameter has, each of its shape, zeros at first.
  virtual int slots() const = 0;
  /// Called once a step, before the parameters.
  virtual void begin_step() {}
  virtual void update(Tensor& parameter, const Tensor& gradient, std::span<Tensor> slots) = 0;  ///< changes one parameter

 private:
  struct State {
    Ref<Node> owner;  // keeps the key from being given to another parameter
    std::vector<Tensor> slots;
  };
  double lr_;
  std::int64_t steps_ = 0;
  std::unordered_map<const Node*, State> state_;
};

/// Of SGD.
struct SGDOptions {
  double lr = 0.01;  ///< learning rate
  double momentum = 0;  ///< share of the last step that is taken again
  bool nesterov = false;  ///< look ahead along the momentum
};
/// w += v, v = momentum v - lr g; with Nesterov w += momentum v - lr g; without momentum w -= lr g (Keras 3, sgd.py).
class SGD : public Optimizer {
 public:
  explicit SGD(SGDOptions options = {});  ///< ValueError on options out of range
  std::string_view name() const override { return "sgd"; }

 protected:
  int slots() const override { return options_.momentum > 0 ? 1 : 0; }
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots) override;

 private:
  SGDOptions options_;
};

/// Of RMSprop.
struct RMSpropOptions {
  double lr = 1e-3;  ///< learning rate
  double rho = 0.9;  ///< of the running mean of g^2
  double momentum = 0;  ///< share of the last step that is taken again
  double eps = 1e-7;  ///< keeps the division defined
  bool centered = false;  ///< subtract the squared mean of g
  bool eps_inside_sqrt = true;  ///< Keras 3: g / sqrt(v + eps). false: g / (sqrt(v) + eps), as Keras 2 and PyTorch
};
/// v = rho v + (1 - rho) g^2; w -= lr g / sqrt(v + eps). Centered subtracts the squared mean of g from v; with momentum
/// the step is accumulated (Keras 3, rmsprop.py; Tieleman and Hinton 2012).
class RMSprop : public Optimizer {
 public:
  explicit RMSprop(RMSpropOptions options = {});  ///< ValueError on options out of range
  std::string_view name() const override { return "rmsprop"; }

 protected:
  int slots() const override { return 1 + (options_.centered ? 1 : 0) + (options_.momentum > 0 ? 1 : 0); }
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots) override;

 private:
  RMSpropOptions options_;
};

/// Of Adam.
struct AdamOptions {
  double lr = 1e-3;  ///< learning rate
  double beta1 = 0.9;  ///< of the running mean of g
  double beta2 = 0.999;  ///< of the running mean of g^2
  double eps = 1e-7;  ///< keeps the division defined
};
/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= a m / (sqrt(v) + eps), a = lr sqrt(1 - b2^t) / (1 - b1^t)
/// (Kingma and Ba 2015, the form before section 2.1; Keras 3, adam.py).
class Adam : public Optimizer {
 public:
  explicit Adam(AdamOptions options = {});  ///< ValueError on options out of range
  std::string_view name() const override { return "adam"; }

 protected:
  int slots() const override { return 2; }
  void begin_step() override;
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots) override;

 private:
  AdamOptions options_;
  double step_size_ = 0;
};

}  // namespace ebb
