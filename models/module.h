// Module: something with parameters and a forward pass.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

class Module;

/// Walks a module's members, handing out each by its path, such as "layers.0.weight".
class Visitor {
 public:
  virtual ~Visitor() = default;
  void operator()(std::string_view name, Tensor& parameter);  ///< a parameter
  void operator()(std::string_view name, Module& module);  ///< a module, with its own members
  /// A value that is saved but not trained, such as a running mean.
  void buffer(std::string_view name, Tensor& value);

 protected:
  /// Path of a member of the module that is being visited.
  std::string path(std::string_view name) const;
  std::size_t depth() const { return names_.size(); }  ///< of the module being visited; 0 for the first
  virtual void on_parameter(std::string_view, Tensor&) {}  ///< called with its path
  virtual void on_buffer(std::string_view, Tensor&) {}  ///< called with its path
  /// Called before the module's own members.
  virtual void on_module(std::string_view, Module&) {}

 private:
  std::vector<std::string_view> names_;
};

/// Base of layers and models: members, forward, and one visit naming the members.
///
///     struct Block : Module {
///       Dense a{64}, b{64};
///       Tensor forward(const Tensor& x) override { return x + b(relu(a(x))); }
///       void visit(Visitor& v) override { v("a", a); v("b", b); }
///     };
///
/// A copy of a module shares its parameters; copy_state() makes two modules alike. Layers create their parameters when they first
/// see an input, in its dtype, from the default generator: build() does that without data. Several threads may call one module, predict() and evaluate() with it and take gradients through it as long as none changes it (a step of an optimiser, freeze(), hooks, averages kept in training); they wait for the first pass, which creates the parameters.
class Module {
 public:
  virtual ~Module() = default;
  virtual Tensor forward(const Tensor& x) = 0;  ///< what the module computes; call the module itself, not this
  virtual void visit(Visitor&) {}  ///< names the members that have parameters: v("a", a)
  /// Kind of layer, as the summary shows it.
  virtual std::string_view type() const { return "Module"; }

  /// forward, with this module's name as one step of the layer path in errors and drawings.
  Tensor operator()(const Tensor& x);
  /// This module and then `next` in one pass over the data: an undefined tensor when this one knows no such pass, or when
  /// one of them has hooks, which see what lies between.
  Tensor joined(const Tensor& x, const Module& next);
  /// Called with the input and the result of every forward pass; may replace the result.
  using ForwardHook = std::function<void(const Tensor& input, Tensor& output)>;
  /// Called with the gradient of the result during backward; returns the one to go on with, or an undefined tensor.
  using BackwardHook = std::function<Tensor(const Tensor& gradient)>;
  /// Adds a hook and returns its number. Forward hooks run in the order in which they were added.
  std::size_t on_forward(ForwardHook hook);
  /// Adds a hook and returns its number. Backward hooks run from the last added to the first, which is the way of the gradient.
  std::size_t on_backward(BackwardHook hook);
  bool remove_hook(std::size_t number);  ///< of either kind; false when there is none of that number
  void clear_hooks();  ///< removes all of both kinds

  const std::string& name() const { return name_; }  ///< as its owner's visit names it
  void set_name(std::string name) { name_ = std::move(name); }  ///< for a module that nobody owns

 protected:
  /// For joined().
  virtual Tensor forward_joined(const Tensor&, const Module& /*next*/) { return {}; }

 private:
  bool hooked() const { return !forward_hooks_.empty() || !backward_hooks_.empty(); }

  std::string name_;
  std::vector<std::pair<std::size_t, ForwardHook>> forward_hooks_;
  std::vector<std::pair<std::size_t, BackwardHook>> backward_hooks_;
  std::size_t hooks_added_ = 0;
  bool members_named_ = false;
};

/// A parameter or buffer and where it is.
struct NamedTensor {
  std::string path;  ///< such as "layers.0.weight"
  Tensor* tensor;  ///< the module's own
  bool trained;  ///< a parameter; false for a buffer
};

/// All parameters and buffers in the order of visit. Members that are not built yet are left out.
std::vector<NamedTensor> named_tensors(Module& module);
/// The parameters that are tracked, that is, not frozen; one that is shared comes once, by its first path.
std::vector<NamedTensor> named_parameters(Module& module);
/// Handles on the parameters that are tracked, that is, not frozen; one that is shared comes once.
std::vector<Tensor> parameters(Module& module);
/// Number of elements of all parameters, frozen ones too; one that is shared counts once.
std::int64_t parameter_count(Module& module);

/// Runs one sample of zeros of this shape (without the batch axis) through the module, so that its layers create their
/// parameters; returns the output's shape without the batch axis.
Shape build(Module& module, const Shape& sample, DType dtype = DType::f32);

/// Makes the parameters constants: no gradient is computed for them and no optimiser changes them. unfreeze undoes it.
void freeze(Module& module);
void unfreeze(Module& module);  ///< the parameters are variables again

/// Gives every parameter and buffer of `to` the value of the one at the same path in `from`; throws ShapeError naming
/// the paths when they differ.
void copy_state(Module& from, Module& to);

}  // namespace ebb
