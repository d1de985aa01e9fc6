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
  virtual std::string_view name() const = 0;
  double lr() const { return lr_; }
  void set_lr(double lr) { lr_ = lr; }
  /// Steps taken so far.
  std::int64_t steps() const { return steps_; }

  /// One step for all parameters that have a gradient. Throws GradientError when none has.
  void step(std::span<Tensor> parameters, const Gradients& gradients);
  void step(Module& module, const Gradients& gradients);

 protected:
  explicit Optimizer(double lr);
  /// Number of tensors of state that a parameter has, each of its shape, zeros at first.
  virtual int slots() const = 0;
  /// Called once a step, before the parameters.
  virtual void begin_step() {}
  virtual void update(Tensor& parameter, const Tensor& gradient, std::span<Tensor> slots) = 0;

 private:
  struct State {
    Ref<Node> owner;  // keeps the key from being given to another parameter
    std::vector<Tensor> slots;
  };
  double lr_;
  std::int64_t steps_ = 0;
  std::unordered_map<const Node*, State> state_;
};

struct SGDOptions {
  double lr = 0.01;
  double momentum = 0;
  bool nesterov = false;
};
/// w += v, v = momentum v - lr g; with Nesterov w += momentum v - lr g; without momentum w -= lr g (Keras 3, sgd.py).
class SGD : public Optimizer {
 public:
  explicit SGD(SGDOptions options = {});
  std::string_view name() const override { return "sgd"; }

 protected:
  int slots() const override { return options_.momentum > 0 ? 1 : 0; }
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots) override;

 private:
  SGDOptions options_;
};

struct RMSpropOptions {
  double lr = 1e-3;
  double rho = 0.9;
  double momentum = 0;
  double eps = 1e-7;
  bool centered = false;
  bool eps_inside_sqrt = true;  ///< Keras 3: g / sqrt(v + eps). false: g / (sqrt(v) + eps), as Keras 2 and PyTorch
};
/// v = rho v + (1 - rho) g^2; w -= lr g / sqrt(v + eps). Centered subtracts the squared mean of g from v; with momentum
/// the step is accumulated (Keras 3, rmsprop.py; Tieleman and Hinton 2012).
class RMSprop : public Optimizer {
 public:
  explicit RMSprop(RMSpropOptions options = {});
  std::string_view name() const override { return "rmsprop"; }

 protected:
  int slots() const override { return 1 + (options_.centered ? 1 : 0) + (options_.momentum > 0 ? 1 : 0); }
  void update(Tensor& w, const Tensor& g, std::span<Tensor> slots) override;

 private:
  RMSpropOptions options_;
};

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-7;
};
/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= a m / (sqrt(v) + eps), a = lr sqrt(1 - b2^t) / (1 - b1^t)
/// (Kingma and Ba 2015, the form before section 2.1; Keras 3, adam.py).
class Adam : public Optimizer {
 public:
  explicit Adam(AdamOptions options = {});
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
