// Composition: several ops that are one to whoever watches or draws.
#pragma once
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>

#include <ebb/graph/attribute.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/tensor.h>

namespace ebb {

/// A composition has run: a function that consists of ops, with what it was given and what it gave.
struct CompositionEvent {
  std::string_view name;                  ///< as the function's
  std::span<const Tensor* const> inputs;  ///< all tensors that it reads, in the function's order
  const Tensor& output;                   ///< with its node, if it was recorded
  std::span<const Attribute> attributes;  ///< the function's options
};

/// While one lives, the ops that this thread runs are parts of one function, whose name drawings and observers see:
///
///     Tensor mean(const Tensor& x, Axes axes) {
///       Composition whole("mean");
///       return whole.gives(sum(x, axes) / n, {&x}, [&] { return Attributes{{"mask", mask}}; });
///     }
///
/// Observers see its ops too (Observer::enters_composition), and profiles and anomalies are of ops. Of compositions
/// inside compositions a drawing shows the outermost. Where nothing is recorded and nobody watches, it does nothing.
class Composition {
 public:
  /// Opens the scope of a composition of this name, such as "mean".
  explicit Composition(std::string_view name) {
    if (detail::mode.record || detail::mode.observer) begin(name);
  }
  ~Composition() {
    if (runs_) end();
  }
  Composition(const Composition&) = delete;
  Composition& operator=(const Composition&) = delete;

  /// The result, which ends the composition. `attributes` is called if somebody watches.
  template <class F>
  Tensor gives(Tensor result, std::initializer_list<const Tensor*> inputs, const F& attributes) {
    return ended(std::move(result), std::span<const Tensor* const>(inputs.begin(), inputs.size()), attributes);
  }
  /// The same of a function without options.
  Tensor gives(Tensor result, std::initializer_list<const Tensor*> inputs) {
    return gives(std::move(result), inputs, [] { return Attributes(); });
  }
  /// The same of a function of any number of tensors.
  template <class F>
  Tensor gives(Tensor result, std::span<const Tensor> inputs, const F& attributes) {
    return ended(std::move(result), inputs, attributes);
  }

 private:
  template <class Inputs, class F>
  Tensor ended(Tensor result, Inputs inputs, const F& attributes) {
    if (!runs_) return result;
    if (detail::mode.observer) [[unlikely]]
      tell(result, inputs, attributes());
    end();
    return result;
  }
  void begin(std::string_view name);
  void end();
  void tell(const Tensor& result, std::span<const Tensor* const> inputs, const Attributes& attributes) const;
  void tell(const Tensor& result, std::span<const Tensor> inputs, const Attributes& attributes) const;

  std::string_view name_ = {};
  const ScopePath* before_ = nullptr;
  std::uint32_t number_before_ = 0;
  bool runs_ = false;
};

}  // namespace ebb
