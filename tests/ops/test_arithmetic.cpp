// Arithmetic where numbers are very small, very large, zero or infinite.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <ebb/autograd/backward.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

using F = std::function<Tensor(const Tensor&)>;

double slope(const F& f, double at, DType dtype = f32, double cotangent = 1) {
  const Tensor x = variable(tensor({at}, dtype));
  return grad(f(x), x, {.cotangent = tensor({cotangent}, dtype)}).item();
}

bool near(double got, double wanted) { return std::abs(got - wanted) <= 1e-6 * std::abs(wanted); }

}  // namespace

TEST_CASE("arithmetic: the gradient of a quotient stays in range where its value does") {
  const auto by_b = [](double a, double b, double g) {
    const Tensor x = variable(tensor({b}));
    return grad(tensor({a}) / x, x, {.cotangent = tensor({g})}).item();
  };
  CHECK(near(by_b(1e-30, 1e-30, 1), -1e30));
  CHECK(near(by_b(1e20, 1e20, 1), -1e-20));
  CHECK(by_b(1e-30, 1e-30, 0) == 0);
  CHECK(by_b(1, 0, 0) == 0);
  CHECK(by_b(3, 2, 1) == -0.75);
  CHECK(slope([](const Tensor& x) { return reciprocal(x); }, 1e-30, f32, 0) == 0);
  CHECK(near(slope([](const Tensor& x) { return reciprocal(x); }, 1e20, f32, 1e10), -1e-30));
  CHECK(slope([](const Tensor& x) { return reciprocal(x); }, 0, f32, 0) == 0);
  CHECK(near(slope([](const Tensor& x) { return 1e-20 / x; }, 1e-20), -1e20));
  CHECK(near((1e-20 / tensor({1e-40})).item(), 1e-20 / static_cast<double>(1e-40f)));
  CHECK((41.0 / tensor({41})).item() == 1);
  CHECK((tensor({41}) / 41.0).item() == 1);
  CHECK((tensor({0}) / 0.0).to_vector()[0] != 0);  // no number
}

TEST_CASE("arithmetic: a mean of whole numbers is divided, not multiplied by a rounded reciprocal") {
  for (const DType dtype : {f32, f64})
    for (std::int64_t n = 1; n <= 300; ++n) {
      CAPTURE(n);
      CHECK(mean(ones({n}, dtype)).item() == 1);
      const Tensor x = variable(ones({n, 2}, dtype));
      CHECK(mean(x, 0).to_vector() == std::vector<double>{1, 1});
      const Tensor g = grad(mean(x, 0), x, {.cotangent = full({2}, static_cast<double>(n), dtype)});
      CHECK(g.to_vector() == std::vector<double>(static_cast<std::size_t>(2 * n), 1));
      if (n <= 20) CHECK(avg_pool2d(ones({1, n, n, 1}, dtype), {.size = n}).item() == 1);
    }
}

TEST_CASE("arithmetic: a gradient of 0 stops where a slope is infinite, and a slope of 0 stops an infinite gradient") {
  for (const DType dtype : {f32, f64}) {
    CHECK(slope([](const Tensor& x) { return maximum(sqrt(x * x), scalar(1e-3, x.dtype())); }, 0, dtype) == 0);
    const F masked[] = {[](const Tensor& x) { return sqrt(x); },
                        [](const Tensor& x) { return log(x); },
                        [](const Tensor& x) { return log1p(x - 1); },
                        [](const Tensor& x) { return pow(x, 0.5); },
                        [](const Tensor& x) { return pow(x, -1.0); },
                        [](const Tensor& x) { return reciprocal(x); },
                        [](const Tensor& x) { return 1 / x; },
                        [](const Tensor& x) { return ones_like(x) / x; },
                        [](const Tensor& x) { return pow(x, full({1}, 0.3, x.dtype())); },
                        [](const Tensor& x) { return exp(1 / x); },
                        [](const Tensor& x) { return logsumexp(log(x)); }};
    std::size_t number = 0;
    for (const F& f : masked) {
      CAPTURE(number);
      ++number;
      const auto safe = [&](const Tensor& x) { return where(greater(x, 0.0), f(x), scalar(0, x.dtype())); };
      CHECK(slope(safe, 0, dtype) == 0);
      CHECK(std::isfinite(slope(safe, 0.5, dtype)));
    }
    CHECK(slope([](const Tensor& x) { return where(less(x, 10), exp(x), scalar(0, x.dtype())); }, 1e4, dtype) == 0);
    CHECK(slope([](const Tensor& x) { return sqrt(maximum(x, scalar(0, x.dtype()))); }, -1, dtype) == 0);
    CHECK(slope([](const Tensor& x) { return sqrt(minimum(-x, scalar(0, x.dtype()))); }, -1, dtype) == 0);
    CHECK(slope([](const Tensor& x) { return sqrt(clip(x, 0, 10)); }, -1, dtype) == 0);
    CHECK(slope([](const Tensor& x) { return sqrt(relu(x)); }, -1, dtype) == 0);
    CHECK(slope([](const Tensor& x) { return sqrt(abs(x)); }, 0, dtype) == 0);
    const Tensor x = variable(tensor({-1, 0}, dtype));
    CHECK(grad(sqrt(max(x)), x).to_vector()[0] == 0);
  }
}

TEST_CASE("arithmetic: powers with the exponent 0, and of 0") {
  for (const DType dtype : {f32, f64}) {
    for (const double at : {0.0, 2.0, -3.0}) CHECK(slope([](const Tensor& x) { return pow(x, 0.0); }, at, dtype) == 0);
    const auto both = [&](double a, double b) {
      const Tensor x = variable(tensor({a}, dtype)), y = variable(tensor({b}, dtype));
      const std::vector<Tensor> in{x, y}, g = grad(pow(x, y), in, {.cotangent = ones({1}, dtype)});
      return std::vector<double>{g[0].item(), g[1].item()};
    };
    CHECK(both(0, 0) == std::vector<double>{0, 0});
    CHECK(both(0, 1) == std::vector<double>{1, 0});
    CHECK(both(0, 2) == std::vector<double>{0, 0});
    CHECK(both(2, 0) == std::vector<double>{0, log(tensor({2}, dtype)).item()});
  }
}
