// Products with Jacobians and Hessians against the matrices, and forward against reverse mode for every row of the
// table.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/jacobian.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>

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

TEST_CASE("jacobian and hessian: of more elements than a word has bits") {
  const Tensor x = randn({200}, f64), j = jacobian([](const Tensor& v) { return square(v); }, x);
  CHECK(distance(j, one_hot(arange(200, i64), 200, f64) * (2.0 * x)) == 0);
  CHECK(distance(hessian([](const Tensor& v) { return sum(v * square(v)); }, x),
                 one_hot(arange(200, i64), 200, f64) * (6.0 * x)) < 1e-14);
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
  CHECK(distance(jvp([](const Tensor& t) { return jacobian(curved, t); }, x, v), hvp(curved, x, v)) < 1e-14);
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
  CHECK_THROWS_WITH_AS(jvp(f, ones({2}, f64), ones({3}, f64)),
                       "jvp: the tangent float64 (3,) does not fit float64 (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(hvp(curved, ones({2}, f64), ones({2}, f32)),
                       "hvp: the vector float32 (2,) does not fit float64 (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(hessian(f, ones({2}, f64)), "hessian: needs a function with one element, got (2,)", ShapeError);
  const std::vector<Tensor> two{ones({2}, f64), ones({2}, f64)};
  CHECK_THROWS_WITH_AS(jvp([](std::span<const Tensor> x) { return x[0] * x[1]; }, two, std::span(two).first(1)),
                       "jvp: 2 inputs and 1 tangents", ValueError);
}

namespace {

/// Third derivatives of sum(sin(t)): -cos on the diagonal.
double cubic_of_sine(const Tensor& third, const Tensor& x) {
  const std::int64_t n = x.numel();
  Tensor expected = zeros({n, n, n}, f64);
  for (std::int64_t i = 0; i < n; ++i)
    expected.mutable_values<double>()[static_cast<std::size_t>((i * n + i) * n + i)] =
        -std::cos(x.to_vector()[static_cast<std::size_t>(i)]);
  return distance(third, expected);
}

}  // namespace

TEST_CASE("jacobian, hessian, jvp, vjp, hvp: nested in one another, also under NoGrad") {
  const UnaryFunction sine = [](const Tensor& t) { return sin(t); },
                      total = [](const Tensor& t) { return sum(sin(t)); };
  const Tensor x = tensor({0.5, 1.5}, f64), v = tensor({2, -1}, f64);
  const auto all = [&] {
    CHECK(cubic_of_sine(
              jacobian(
                  [&](const Tensor& t) { return jacobian([&](const Tensor& u) { return jacobian(total, u); }, t); }, x),
              x) < 1e-14);
    CHECK(cubic_of_sine(jacobian([&](const Tensor& t) { return hessian(total, t); }, x), x) < 1e-14);
    CHECK(jacobian([&](const Tensor& t) { return jacobian(sine, t); }, x).to_vector() ==
          std::vector<double>{-std::sin(0.5), 0, 0, 0, 0, 0, 0, -std::sin(1.5)});
    const Tensor hv = hvp(total, x, v);
    CHECK(distance(hv, tensor({-2 * std::sin(0.5), std::sin(1.5)}, f64)) < 1e-15);
    CHECK(distance(jvp([&](const Tensor& t) { return jacobian(total, t); }, x, v), hv) < 1e-15);
    CHECK(distance(jvp([&](const Tensor& t) { return jvp(total, t, v); }, x, v), sum(hv * v)) < 1e-14);
    CHECK(distance(jacobian([&](const Tensor& t) { return jvp(total, t, v); }, x), hv) < 1e-15);
    CHECK(distance(jacobian([&](const Tensor& t) { return hvp(total, t, v); }, x),
                   tensor({-2 * std::cos(0.5), 0, 0, std::cos(1.5)}, {2, 2}, f64)) < 1e-14);
    const auto one = scalar(1, f64);
    CHECK(distance(jacobian(
                       [&](const Tensor& t) {
                         return vjp([&](std::span<const Tensor> u) { return total(u[0]); }, std::vector{t}, one)[0];
                       },
                       x),
                   hessian(total, x)) < 1e-15);
    // in the tangent and the cotangent, and in what an inner function captures
    CHECK(distance(jacobian([&](const Tensor& t) { return jvp(sine, x, t); }, v), jacobian(sine, x)) < 1e-15);
    CHECK(distance(jacobian(
                       [&](const Tensor& t) {
                         return vjp([&](std::span<const Tensor> u) { return sine(u[0]); }, std::vector{x}, t)[0];
                       },
                       v),
                   jacobian(sine, x)) < 1e-15);
    CHECK(distance(jacobian([&](const Tensor& t) { return jacobian([&](const Tensor& u) { return u * t; }, x); }, v),
                   jacobian(
                       [](const Tensor& t) {
                         return reshape(t, {2, 1}) * tensor({1, 0, 0, 1}, {2, 2}, f64);
                       },
                       v)) == 0);
  };
  all();
  const NoGrad quiet;
  all();
  CHECK_FALSE(training());
}

TEST_CASE("jacobian and hessian of several inputs, of any shape, recorded on request") {
  const MultiFunction f = [](std::span<const Tensor> x) { return matmul(x[0], x[1]); };
  const Tensor a = randn({2, 3}, f64), b = randn({3, 2}, f64);
  const std::vector<Tensor> in{a, b}, j = jacobian(f, in);
  CHECK(j[0].shape() == Shape{2, 2, 2, 3});
  CHECK(j[1].shape() == Shape{2, 2, 3, 2});
  CHECK(distance(j[0], jacobian([&](const Tensor& t) { return matmul(t, b); }, a)) == 0);
  CHECK_FALSE(j[0].tracked());
  const auto h = hessian([&](std::span<const Tensor> x) { return sum(square(f(x))); }, in);
  CHECK(h[0][1].shape() == Shape{2, 3, 3, 2});
  CHECK(distance(reshape(h[0][1], {6, 6}), transpose(reshape(h[1][0], {6, 6}))) < 1e-13);
  const std::vector<Tensor> v{randn({2, 3}, f64), randn({3, 2}, f64)};
  const std::vector<Tensor> hv = hvp([&](std::span<const Tensor> x) { return sum(square(f(x))); }, in, v);
  const auto times = [&](std::size_t i, std::size_t k) {
    return reshape(matmul(reshape(h[i][k], {6, 6}), reshape(v[k], {6, 1})), in[i].shape());
  };
  CHECK(distance(hv[0], times(0, 0) + times(0, 1)) < 1e-12);
  CHECK(distance(hv[1], times(1, 0) + times(1, 1)) < 1e-12);
  // recorded: in a tracked input, or in what f captures
  const Tensor w = variable(tensor({0.5, 1.5}, f64));
  CHECK(grad(sum(jacobian([](const Tensor& t) { return square(t); }, w)), w).to_vector() == std::vector<double>{2, 2});
  const Tensor x = tensor({3, 4}, f64);
  CHECK_FALSE(jacobian([&](const Tensor& t) { return t * w; }, x).tracked());
  CHECK(grad(sum(jacobian([&](const Tensor& t) { return t * w; }, x, {.create_graph = true})), w).to_vector() ==
        std::vector<double>{1, 1});
  const MultiFunction product = [&](std::span<const Tensor> t) { return t[0] * w * w; };
  CHECK(grad(sum(vjp(product, std::vector{x}, ones({2}, f64), {.create_graph = true})[0]), w).to_vector() ==
        std::vector<double>{1, 3});
  CHECK(grad(sum(jvp(product, std::vector{x}, std::vector{ones({2}, f64)}, {.create_graph = true})), w).to_vector() ==
        std::vector<double>{1, 3});
}

TEST_CASE("jacobian and hessian: many reverse passes at once give what one after another gives, in one walk") {
  struct Count : Observer {
    int ops = 0;
    void ran(const OpEvent&) override { ++ops; }
  };
  const auto walks = [](const auto& f) {
    const Count seen;
    f();
    return seen.ops;
  };
  const Tensor w = randn({7, 90}, f64), x = randn({1, 7}, f64);
  const UnaryFunction f = [&](const Tensor& t) { return tanh(matmul(t, w)); },
                      few = [&](const Tensor& t) { return tanh(matmul(t, slice(w, {.axis = 1, .end = 2}))); };
  CHECK(walks([&] { (void)jacobian(f, x); }) == walks([&] { (void)jacobian(few, x); }) - 1);  // the slice
  const Tensor j = jacobian(f, x);
  for (const std::int64_t k : {0, 50, 89}) {
    Tensor cotangent = zeros({1, 90}, f64);
    cotangent.mutable_values<double>()[static_cast<std::size_t>(k)] = 1;
    CHECK(distance(slice(j, {.axis = 1, .begin = k, .end = k + 1}).viewed_as({1, 7}),
                   vjp([&](std::span<const Tensor> t) { return f(t[0]); }, std::vector{x}, cotangent)[0]) < 1e-14);
  }
  CHECK(distance(j, jacobian(f, x, {.create_graph = true})) < 1e-14);
  // more than go at once: 3000 x 3000 elements
  const Tensor long_one = randn({3000}, f64), diagonal = jacobian([](const Tensor& t) { return square(t); }, long_one);
  CHECK(distance(sum(diagonal, 0), 2 * long_one) < 1e-14);
  CHECK(distance(sum(square(diagonal)), sum(square(2 * long_one))) < 1e-12);
  // a rule, or a hook, that reads the gradient's values: one after another
  std::vector<double> seen;
  const Tensor hooked = jacobian(
      [&](const Tensor& t) {
        return square(on_gradient(t, [&](const Tensor& g) { return seen.push_back(sum(g).item()), g; }));
      },
      tensor({1, 2}, f64));
  CHECK(hooked.to_vector() == std::vector<double>{2, 0, 0, 4});
  CHECK(seen == std::vector<double>{2, 4});
}

TEST_CASE("jacobian: a function that gives nothing is refused by all of them") {
  const UnaryFunction nothing = [](const Tensor&) { return Tensor(); };
  const Tensor x = tensor({1.0, 2.0}), v = ones_like(x);
  const char* text = "f: gave an undefined tensor: there is nothing to differentiate";
  CHECK_THROWS_WITH_AS(jacobian(nothing, x), text, ValueError);
  CHECK_THROWS_WITH_AS(hessian(nothing, x), text, ValueError);
  CHECK_THROWS_WITH_AS(jvp(nothing, x, v), text, ValueError);
  CHECK_THROWS_WITH_AS(hvp(nothing, x, v), text, ValueError);
  CHECK_THROWS_WITH_AS(vjp([](std::span<const Tensor>) { return Tensor(); }, {&x, 1}, v), text, ValueError);
}
