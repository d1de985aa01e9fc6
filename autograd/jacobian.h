// Derivatives beyond the gradient: products with the Jacobian and the Hessian, and the matrices themselves.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

using MultiFunction = std::function<Tensor(std::span<const Tensor>)>;  ///< of several tensors
using UnaryFunction = std::function<Tensor(const Tensor&)>;  ///< of one tensor

/// J^T u: the gradients of <u, f(x)> for each input. Zeros where f does not depend on one.
std::vector<Tensor> vjp(const MultiFunction& f, std::span<const Tensor> inputs, const Tensor& cotangent);
/// J v: how f(x) changes as the inputs move along the tangents, one tangent an input, of its shape. Forward mode made
/// of two reverse passes: the gradient of J^T u is linear in u, and its gradient in u is J (Townsend 2017).
Tensor jvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> tangents);
Tensor jvp(const UnaryFunction& f, const Tensor& x, const Tensor& tangent);  ///< the same for a function of one tensor

/// All derivatives of f(x), of shape f(x).shape + x.shape: one reverse pass for each element of f(x).
Tensor jacobian(const UnaryFunction& f, const Tensor& x);
/// Second derivatives of a function with one element, of shape x.shape + x.shape.
Tensor hessian(const UnaryFunction& f, const Tensor& x);
/// H v without making H: the gradient of <gradient of f, v>, of x's shape.
Tensor hvp(const UnaryFunction& f, const Tensor& x, const Tensor& v);

}  // namespace ebb
