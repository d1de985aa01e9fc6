// Derivatives beyond the gradient: products with the Jacobian and the Hessian, and the matrices themselves.
//
// All of them can be nested in one another: within f, the inputs that it is given are tracked, and what is computed
// from their derivatives is too. They record what they need under NoGrad as well.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

using MultiFunction = std::function<Tensor(std::span<const Tensor>)>;  ///< of several tensors
using UnaryFunction = std::function<Tensor(const Tensor&)>;            ///< of one tensor

/// Options of all functions here.
struct DerivativeOptions {
  /// Record the result, in the inputs and in what f captures. It is recorded anyway within another of these functions,
  /// and where an input is tracked
  bool create_graph = false;
};

/// J^T u: the gradients of <u, f(x)> for each input. Zeros where f does not depend on one.
std::vector<Tensor> vjp(const MultiFunction& f, std::span<const Tensor> inputs, const Tensor& cotangent,
                        DerivativeOptions options = {});
/// J v: how f(x) changes as the inputs move along the tangents, one tangent an input, of its shape. Forward mode: after
/// f, one pass over the ops that it recorded, in their order. Every op takes part, a user's own too: an op goes forward
/// as Tangent in graph/node.h says, by its backward rule where it says nothing.
Tensor jvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> tangents,
           DerivativeOptions options = {});
Tensor jvp(const UnaryFunction& f, const Tensor& x, const Tensor& tangent,
           DerivativeOptions options = {});  ///< the same for a function of one tensor

/// All derivatives of f(x), of shape f(x).shape + x.shape. The reverse passes, one for each element of f(x), run many
/// at once, as in vmap(), unless they are recorded.
Tensor jacobian(const UnaryFunction& f, const Tensor& x, DerivativeOptions options = {});
/// The same in each of several inputs.
std::vector<Tensor> jacobian(const MultiFunction& f, std::span<const Tensor> inputs, DerivativeOptions options = {});
/// Second derivatives of a function with one element, of shape x.shape + x.shape.
Tensor hessian(const UnaryFunction& f, const Tensor& x, DerivativeOptions options = {});
/// The same in each two of several inputs: [i][j] is of shape inputs[i].shape + inputs[j].shape.
std::vector<std::vector<Tensor>> hessian(const MultiFunction& f, std::span<const Tensor> inputs,
                                         DerivativeOptions options = {});
/// H v without making H: the gradient of <gradient of f, v>, of x's shape.
Tensor hvp(const UnaryFunction& f, const Tensor& x, const Tensor& v, DerivativeOptions options = {});
/// The same for several inputs, with one v an input.
std::vector<Tensor> hvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> v,
                        DerivativeOptions options = {});

namespace detail {
/// Whether this thread runs within one of these functions, so that its results are recorded.
bool differentiating();
}  // namespace detail
}  // namespace ebb
