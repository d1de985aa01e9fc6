// Products with Jacobians and Hessians against the matrices, and forward against reverse mode for every row of the table.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/jacobian.h>
#include <ebb/graph/error.h>

#include "op_table.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

double dot(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  double total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) total += x[i] * y[i];
  return total;
}

const UnaryFunction curved = [](const Tensor& x) { return sum(exp(x) * sin(x)) + sum(square(x)) * sum(x); };

}  // namespace

TEST_CASE("jacobian: of a linear map it is the matrix, of an elementwise one diagonal") {
  const Tensor a = randn({3, 4}, f64), x = randn({1, 4}, f64);
  const Tensor j = jacobian([&](const Tensor& v) { return matmul(v, a, {.transpose_b = true}); }, x);
  CHECK(j.shape() == Shape{1, 3, 1, 4});
  CHECK(distance(j.viewed_as({3, 4}), a) < 1e-15);
  const Tensor d = jacobian([](const Tensor& v) { return sin(v); }, tensor({0.5, 1.5}, f64));
  CHECK(d.to_vector() == std::vector<double>{std::cos(0.5), 0, 0, std::cos(1.5)});
}

TEST_CASE("jacobian: of a function that ignores its input it is zero") {
  const Tensor j = jacobian([](const Tensor&) { return ones({2}, f64); }, ones({3}, f64));
  CHECK(j.shape() == Shape{2, 3});
  CHECK(j.to_vector() == std::vector<double>(6, 0.0));
}

TEST_CASE("hessian: symmetric, known for a cubic, and hvp multiplies by it") {
  const Tensor x = tensor({0.3, -0.7, 1.1}, f64), v = tensor({1.0, 2.0, -0.5}, f64);
  const Tensor cubic = hessian([](const Tensor& t) { return sum(t * square(t)); }, x);
  CHECK(distance(cubic, tensor({1.8, 0, 0, 0, -4.2, 0, 0, 0, 6.6}, {3, 3}, f64)) < 1e-14);
  const Tensor h = hessian(curved, x);
  CHECK(distance(h, transpose(h)) < 1e-14);
  CHECK(distance(hvp(curved, x, v), matmul(h, v.viewed_as({3, 1})).viewed_as({3})) < 1e-14);
  CHECK(distance(jvp([](const Tensor& t) { return jacobian(curved, t); }, x, v), zeros({3}, f64)) == 0);  // a constant: made without recording
}

TEST_CASE("jvp: equals the Jacobian times the tangent") {
  const Tensor x = randn({2, 3}, f64), v = randn({2, 3}, f64);
  const UnaryFunction f = [](const Tensor& t) { return softmax(t * t); };
  const Tensor j = jacobian(f, x).viewed_as({6, 6});
  CHECK(distance(jvp(f, x, v), matmul(j, v.viewed_as({6, 1})).viewed_as({2, 3})) < 1e-14);
}

TEST_CASE("jvp and vjp: <v, J u> = <J^T v, u> for every row of the op table") {
  for (const Row& row : rows()) {
    if (row.order < 1) continue;
    CAPTURE(row.name);
    for (const Case& c : row.cases) {
      const std::vector<Tensor> x = inputs_for(row, c);
      const Function& f = row.function(c);
      std::vector<Tensor> u;
      Generator random(7);
      for (const Tensor& t : x) u.push_back(uniform(t.shape(), -1, 1, f64, random));
      const Tensor forward = jvp(f, x, u);
      const Tensor v = uniform(forward.shape(), -1, 1, f64, random);
      const std::vector<Tensor> reverse = vjp(f, x, v);
      double left = dot(v, forward), right = 0, size = 1e-12;
      for (std::size_t i = 0; i < x.size(); ++i) {
        right += dot(reverse[i], u[i]);
        size += std::abs(dot(abs(reverse[i]), abs(u[i])));
      }
      CHECK(std::abs(left - right) <= 1e-12 * size);
    }
  }
}

TEST_CASE("jacobian: what does not fit is refused") {
  const UnaryFunction f = [](const Tensor& t) { return sin(t); };
  CHECK_THROWS_WITH_AS(jvp(f, ones({2}, f64), ones({3}, f64)), "jvp: the tangent float64 (3,) does not fit float64 (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(hvp(curved, ones({2}, f64), ones({2}, f32)), "hvp: the vector float32 (2,) does not fit float64 (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(hessian(f, ones({2}, f64)), "hessian: needs a function with one element, got (2,)", ShapeError);
  const std::vector<Tensor> two{ones({2}, f64), ones({2}, f64)};
  CHECK_THROWS_WITH_AS(jvp([](std::span<const Tensor> x) { return x[0] * x[1]; }, two, std::span(two).first(1)), "jvp: 2 inputs and 1 tangents", ValueError);
}
