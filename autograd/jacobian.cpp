#include <ebb/autograd/jacobian.h>

#include <fmt/core.h>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

std::vector<Tensor> as_variables(std::span<const Tensor> inputs) {
  std::vector<Tensor> out;
  out.reserve(inputs.size());
  for (const Tensor& x : inputs) out.push_back(variable(x.detach()));
  return out;
}

void expect_like(const char* op, const Tensor& v, const Tensor& x, const char* what) {
  if (v.shape() != x.shape() || v.dtype() != x.dtype())
    fail<ShapeError>(op, fmt::format("the {} {} does not fit {}", what, describe(v), describe(x)));
}

Tensor or_zeros(Tensor g, const Tensor& like) { return g.defined() ? std::move(g) : zeros_like(like); }

Shape joined(const Shape& a, const Shape& b) {
  std::vector<std::int64_t> sizes(a.begin(), a.end());
  sizes.insert(sizes.end(), b.begin(), b.end());
  return Shape(sizes);
}

/// Rows d y[k] / d x of an already computed y; with create_graph, still differentiable.
Tensor rows_of(const Tensor& y, const Tensor& x) {
  std::vector<Tensor> rows;
  for (std::int64_t k = 0; k < y.numel(); ++k) {
    Tensor basis = zeros_like(y.detach());
    visit_float(y.dtype(), [&](auto zero) { basis.mutable_values<decltype(zero)>()[static_cast<std::size_t>(k)] = 1; });
    rows.push_back(y.tracked() ? or_zeros(grad(y, {x}, {.retain_graph = true, .allow_unused = true, .cotangent = basis})[0], x.detach())
                               : zeros_like(x.detach()));
  }
  const Shape shape = joined(y.shape(), x.shape());
  return rows.empty() ? zeros(shape, x.dtype()) : stack(rows).viewed_as(shape);
}

Tensor gradient_graph(const char* op, const UnaryFunction& f, const Tensor& x) {
  const Tensor y = f(x);
  if (y.numel() != 1) fail<ShapeError>(op, fmt::format("needs a function with one element, got {}", y.shape().str()));
  if (!y.tracked()) return zeros_like(x.detach());
  return or_zeros(grad(y, {x}, {.create_graph = true, .allow_unused = true})[0], x.detach());
}

}  // namespace

std::vector<Tensor> vjp(const MultiFunction& f, std::span<const Tensor> inputs, const Tensor& cotangent) {
  const std::vector<Tensor> xs = as_variables(inputs);
  const Tensor y = f(xs);
  expect_like("vjp", cotangent, y, "cotangent");
  std::vector<Tensor> out(xs.size());
  if (y.tracked()) out = grad(y, xs, {.allow_unused = true, .cotangent = cotangent});
  for (std::size_t i = 0; i < xs.size(); ++i) out[i] = or_zeros(std::move(out[i]), inputs[i]);
  return out;
}

Tensor jvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> tangents) {
  if (inputs.size() != tangents.size())
    fail<ValueError>("jvp", fmt::format("{} inputs and {} tangents", inputs.size(), tangents.size()));
  for (std::size_t i = 0; i < inputs.size(); ++i) expect_like("jvp", tangents[i], inputs[i], "tangent");
  const std::vector<Tensor> xs = as_variables(inputs);
  const Tensor y = f(xs);
  if (!y.tracked()) return zeros_like(y);
  const Tensor u = variable(zeros_like(y.detach()));
  const std::vector<Tensor> g = grad(y, xs, {.create_graph = true, .allow_unused = true, .cotangent = u});
  Tensor s;
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (!g[i].defined()) continue;
    const Tensor term = sum(g[i] * tangents[i].detach());
    s = s.defined() ? s + term : term;
  }
  if (!s.defined() || !s.tracked()) return zeros_like(y.detach());
  return or_zeros(grad(s, {u}, {.allow_unused = true})[0], y.detach());
}

Tensor jvp(const UnaryFunction& f, const Tensor& x, const Tensor& tangent) {
  return jvp([&](std::span<const Tensor> in) { return f(in[0]); }, {&x, 1}, {&tangent, 1});
}

Tensor jacobian(const UnaryFunction& f, const Tensor& x) {
  const Tensor v = variable(x.detach());
  return rows_of(f(v), v);
}

Tensor hessian(const UnaryFunction& f, const Tensor& x) {
  const Tensor v = variable(x.detach());
  return rows_of(gradient_graph("hessian", f, v), v);
}

Tensor hvp(const UnaryFunction& f, const Tensor& x, const Tensor& v) {
  expect_like("hvp", v, x, "vector");
  const Tensor at = variable(x.detach());
  const Tensor s = sum(gradient_graph("hvp", f, at) * v.detach());
  return s.tracked() ? or_zeros(grad(s, {at}, {.allow_unused = true})[0], x) : zeros_like(x.detach());
}

}  // namespace ebb
