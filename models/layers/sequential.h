// Sequential: layers one after the other.
#pragma once
#include <concepts>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ebb/models/layers/layers.h>

namespace ebb {

/// A function as a layer.
class Function final : public Module {
 public:
  explicit Function(
      std::function<Tensor(const Tensor&)> f);  ///< any function of one tensor; ValueError on an empty one
  Tensor forward(const Tensor& x) override { return f_(x); }
  std::string_view type() const override { return "Function"; }
  /// The function when it is a plain one, such as relu; null for a lambda.
  Activation plain() const;

 private:
  std::function<Tensor(const Tensor&)> f_;
};

/// Anything that can stand in a Sequential: a layer by value, a shared one, or a function Tensor(const Tensor&). Throws
/// ValueError on a null pointer and an empty function.
class Layer {
 public:
  template <std::derived_from<Module> M>
  Layer(M module) : module_(std::make_shared<M>(std::move(module))), copy_(copy_of<M>) {}  ///< a layer by value
  template <std::derived_from<Module> M>
  /// A layer that others hold too.
  Layer(std::shared_ptr<M> module) : module_(std::move(module)), copy_(copy_of<M>) {
    expect_module();
  }
  /// A function, such as relu.
  Layer(Tensor (*function)(const Tensor&)) : Layer(std::function<Tensor(const Tensor&)>(function)) {}
  template <class F>
    requires(std::invocable<F, const Tensor&> && !std::derived_from<F, Module>)
  Layer(F function) : Layer(std::function<Tensor(const Tensor&)>(std::move(function))) {}  ///< a lambda
  Layer(std::function<Tensor(const Tensor&)> function);                                    ///< any function

  Module& operator*() const { return *module_; }                    ///< the module
  Module* operator->() const { return module_.get(); }              ///< the module
  const std::shared_ptr<Module>& share() const { return module_; }  ///< the module, to be held as well
  Layer copied(detail::Cloning& into) const;                        ///< for clone()

 private:
  friend class Sequential;
  void expect_module() const;  ///< throws ValueError
  /// Null when M cannot be copied, or is not the module's own type.
  template <class M>
  static std::shared_ptr<Module> copy_of(const Module& module) {
    if constexpr (std::copy_constructible<M>)
      if (typeid(module) == typeid(M)) return std::make_shared<M>(static_cast<const M&>(module));
    return nullptr;
  }
  std::shared_ptr<Module> module_;
  std::shared_ptr<Module> (*copy_)(const Module&);
};

/// The name of Keras' class for a kind of layer: "MaxPooling2D" for "MaxPool2D"; the kind itself where there is no
/// other.
std::string keras_class(std::string_view type);
namespace detail {
/// "max_pooling2d" for "MaxPooling2D".
std::string snake_case(std::string_view name);
}  // namespace detail

/// Layers one after the other. Their paths are "layers.0", "layers.1", ...; summaries name them by kind as Keras does:
/// conv2d, max_pooling2d, conv2d_1, dense, ... A copy shares the layers.
class Sequential : public Module {
 public:
  Sequential() = default;
  Sequential(const Sequential& other);                 ///< shares the layers, built or not
  Sequential& operator=(const Sequential&) = default;  ///< likewise
  Sequential(Sequential&&) = default;                  ///< moves them
  Sequential& operator=(Sequential&&) = default;       ///< likewise
  /// Parameters are made when the first data come, or by build().
  Sequential(std::initializer_list<Layer> layers);
  explicit Sequential(const std::vector<Layer>& layers);  ///< likewise
  /// The shape of one sample (without the batch axis): parameters are made at once and shapes checked.
  Sequential(const Shape& sample, std::initializer_list<Layer> layers);
  Sequential(const Shape& sample, const std::vector<Layer>& layers);  ///< likewise

  /// Appends a layer; builds it when the input shape is known.
  void add(Layer layer);
  const std::vector<Layer>& layers() const { return layers_; }  ///< in order
  /// The sample shape given at construction, if any.
  const std::optional<Shape>& input_shape() const { return input_; }

  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Sequential"; }

 private:
  std::vector<Layer> layers_;
  std::vector<std::string> paths_;
  std::optional<Shape> input_;
  Tensor last_;  // what a sample of zeros has become so far
};

}  // namespace ebb
