// Handles on the way of gradients: recomputation, hooks, clipping.
#pragma once
#include <functional>
#include <span>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/jacobian.h>

namespace ebb {

/// f(inputs), keeping for backward only the inputs: what happens inside is computed again when the gradient is needed
/// (Chen et al. 2016). Variables and other tracked tensors that f captures get their gradients too; random numbers
/// are the same the second time, and layers leave their state as the first time left it. f is kept until then: it must
/// own what it captures. Costs one more forward pass of f.
Tensor checkpoint(const MultiFunction& f, std::span<const Tensor> inputs);
Tensor checkpoint(const UnaryFunction& f, const Tensor& x);  ///< the same for a function of one tensor

/// While one lives in a thread, layers there keep what they hold beside their parameters, such as running averages, as
/// it is: for a pass that only repeats another, or must leave no trace.
class HoldState {
 public:
  HoldState();
  ~HoldState();
  HoldState(const HoldState&) = delete;
  HoldState& operator=(const HoldState&) = delete;

 private:
  bool before_;
};
/// Whether a HoldState lives: asked by layers before they change their state.
bool state_held();

/// x itself, with `f` called on its gradient during backward. f returns the gradient to go on with, of the same shape,
/// or an undefined tensor to leave it as it is.
Tensor on_gradient(const Tensor& x, std::function<Tensor(const Tensor& gradient)> f);

/// The 2-norm of all gradients together.
double global_norm(const Gradients& gradients);
/// Scales all gradients so that their global norm is at most max_norm; returns the norm before (Pascanu et al. 2013).
double clip_by_global_norm(Gradients& gradients, double max_norm);
/// Cuts every element to [-limit, limit].
void clip_by_value(Gradients& gradients, double limit);

namespace detail {
/// x as a node of its own: a gradient can be taken in it apart from x's other uses, and goes on to x. x itself if not
/// tracked.
Tensor separate(const Tensor& x);
}  // namespace detail
}  // namespace ebb
