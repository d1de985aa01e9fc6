// Module: something with parameters and a forward pass.
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>

namespace ebb {

class Module;
namespace detail {
struct ModuleAccess;
}

/// Walks a module's members, handing out each by its path, such as "layers.0.weight".
class Visitor {
 public:
  virtual ~Visitor() = default;
  void operator()(std::string_view name, Tensor& parameter);  ///< a parameter
  void operator()(std::string_view name, Module& module);     ///< a module, with its own members
  /// A value that is saved but not trained, such as a running mean.
  void buffer(std::string_view name, Tensor& value);

 protected:
  /// Path of a member of the module that is being visited.
  std::string path(std::string_view name) const;
  std::size_t depth() const { return names_.size(); }      ///< of the module being visited; 0 for the first
  virtual void on_parameter(std::string_view, Tensor&) {}  ///< called with its path
  virtual void on_buffer(std::string_view, Tensor&) {}     ///< called with its path
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
/// A copy of a module shares its parameters: both are one network. clone() makes an independent one, and copy_state()
/// copies values between two. Layers create their parameters when they first see an input, in its dtype, from the
/// default generator; build() does that without data. Until then a copy is refused. Several threads may use one module
/// while none changes it (steps, freeze(), hooks, training); they wait for the first call, which creates the
/// parameters.
class Module {
 public:
  Module() = default;
  /// Shares the parameters of `other`. Throws ValueError if it is not built yet; clone() can copy an unbuilt module.
  Module(const Module& other);
  Module& operator=(const Module& other);  ///< likewise
  Module(Module&&) = default;              ///< moves the parameters
  Module& operator=(Module&&) = default;   ///< likewise
  virtual ~Module() = default;
  virtual Tensor forward(const Tensor& x) = 0;  ///< what the module computes; call the module itself, not this
  virtual void visit(Visitor&) {}               ///< names the members that have parameters: v("a", a)
  /// Kind of layer, as the summary shows it.
  virtual std::string_view type() const { return "Module"; }

  /// forward, with this module's name as one step of the layer path in errors and drawings.
  Tensor operator()(const Tensor& x);
  /// Runs this module and then `next` in one pass over the data. Returns an undefined tensor if there is no such pass,
  /// or if one of them has hooks, which need the value between them.
  Tensor joined(const Tensor& x, const Module& next);
  /// Called with the input and the result of every forward pass; may replace the result.
  using ForwardHook = std::function<void(const Tensor& input, Tensor& output)>;
  /// Called with the gradient of the result during backward; returns the gradient to pass on, or an undefined tensor to
  /// keep it.
  using BackwardHook = std::function<Tensor(const Tensor& gradient)>;
  /// Adds a hook and returns its number. Forward hooks run in the order in which they were added.
  std::size_t on_forward(ForwardHook hook);
  /// Adds a hook and returns its number. Backward hooks run from the last added to the first, which is the way of the
  /// gradient.
  std::size_t on_backward(BackwardHook hook);
  bool remove_hook(std::size_t number);  ///< of either kind; false when there is none of that number
  void clear_hooks();                    ///< removes all of both kinds

  const std::string& name() const {
    return name_;
  }  ///< shown in summaries; given by its owner's visit(), or set_name()
  void set_name(std::string name) { name_ = std::move(name); }  ///< an unowned module also uses it in layer paths
  bool frozen() const {
    return frozen_;
  }  ///< from freeze() to unfreeze(): a layer that keeps averages leaves them alone

 protected:
  /// For joined().
  virtual Tensor forward_joined(const Tensor&, const Module& /*next*/) { return {}; }

 private:
  friend struct detail::ModuleAccess;
  bool hooked() const { return !forward_hooks_.empty() || !backward_hooks_.empty(); }
  const std::string& step() const;

  std::string name_;
  // As its owner's visit names it; one of a few that are never changed, since owners may come later.
  const std::string* member_ = nullptr;
  std::vector<std::pair<std::size_t, ForwardHook>> forward_hooks_;
  std::vector<std::pair<std::size_t, BackwardHook>> backward_hooks_;
  std::size_t hooks_added_ = 0;
  bool members_named_ = false, frozen_ = false;
};

/// Internal: members of Module that module visitors set.
struct detail::ModuleAccess {
  static bool& frozen(Module& m) { return m.frozen_; }
  static void set_step(Module& m, std::string_view name);  ///< of the layer path
  /// True if some module's visit() has named this variable, so that an optimizer can reach it.
  static bool owned(const Node* variable);
  static void set_owned(const Node* variable);
};

/// A parameter or buffer and where it is.
struct NamedTensor {
  std::string path;  ///< such as "layers.0.weight"
  Tensor* tensor;    ///< the module's own
  bool trained;      ///< a parameter; false for a buffer
};

/// All parameters and buffers in the order of visit. Members that are not built yet are left out. Throws ValueError
/// when two have one path.
std::vector<NamedTensor> named_tensors(Module& module);
/// Throws ValueError, with the path, when a parameter or buffer is not made yet.
void expect_built(std::string_view who, Module& module);
/// All parameters that are not frozen. A shared one appears once, under its first path.
std::vector<NamedTensor> named_parameters(Module& module);
/// Handles on all parameters that are not frozen. A shared one appears once.
std::vector<Tensor> parameters(Module& module);
/// Number of elements of all parameters, frozen ones too; one that is shared counts once. Throws ValueError on a module
/// that is not built.
std::int64_t parameter_count(Module& module);

/// Runs one sample of zeros of this shape (without the batch axis) through the module, so that its layers create their
/// parameters; returns the output's shape without the batch axis.
Shape build(Module& module, const Shape& sample, DType dtype = DType::f32);

/// Makes the parameters constants: no gradient is computed for them and no optimizer changes them, and layers leave
/// their averages alone. unfreeze undoes it, and an optimizer goes on with the state that it has for them. Both throw
/// ValueError on a module that is not built.
///
/// Both act on this module and its members only. A copy of a plain layer shares the elements but is frozen separately:
/// a frozen copy follows the values that the other is trained to, and passes no gradient to them (a critic for a
/// generator). Copies of a Sequential have the same layers and are frozen together. To rejoin two copies, unfreeze a
/// module that holds both: a copy that is unfrozen alone gets variables of its own, and an optimizer that keeps state
/// refuses both sets together.
void freeze(Module& module);
void unfreeze(Module& module);  ///< the parameters are variables again

/// Gives every parameter and buffer of `to` the value of the one at the same path in `from`; throws ShapeError naming
/// the paths when they differ, ValueError on a module that is not built.
void copy_state(Module& from, Module& to);

namespace detail {
/// While one exists, copying a module makes a clone: it may be unbuilt, and a Sequential copies its layers instead of
/// sharing them.
class Cloning {
 public:
  Cloning();
  Cloning(const Cloning&) = delete;
  Cloning& operator=(const Cloning&) = delete;
  ~Cloning();
  static Cloning* now();  ///< null when none lives in this thread
  /// The clone of a shared module, made by `copy` on the first request and reused afterwards.
  std::shared_ptr<Module> one(const std::shared_ptr<Module>& module, std::shared_ptr<Module> (*copy)(const Module&));
  /// Gives the copy tensors of its own.
  static void separate(Module& from, Module& copy);

 private:
  std::unordered_map<const Module*, std::shared_ptr<Module>> copies_;
  Cloning* before_;
};
}  // namespace detail

/// Makes an independent copy of a module: existing parameters and buffers are copied, members shared in the original
/// are shared in the copy, frozen parts stay frozen, and hooks are copied. Throws ValueError where a member is held by
/// a pointer of the module's own, or a layer's type cannot be copied.
template <std::derived_from<Module> M>
M clone(const M& module) {
  if (typeid(module) != typeid(M)) throw ValueError("clone: needs the module's own type, got a base of it");
  const detail::Cloning meanwhile;
  M copy(module);
  detail::Cloning::separate(const_cast<M&>(module), copy);
  return copy;
}

}  // namespace ebb
