// Losses, softmax and logsumexp of infinite logits and errors.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {
constexpr double infinity = INFINITY;
using Values = std::vector<double>;

void near(const Values& got, const Values& wanted) {
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK((got[i] == wanted[i] || std::abs(got[i] - wanted[i]) <= 1e-6));
  }
}
}  // namespace

TEST_CASE("losses: a class that cannot be costs nothing where it is not the target") {
  for (const DType dtype : {f32, f64}) {
    const Tensor value = tensor({-infinity, 0, 0}, {1, 3}, dtype), t = tensor({0, 1, 0}, {1, 3}, dtype),
                 ones3 = ones({3}, dtype);
    const Tensor label = tensor({1}, i64);
    const auto check = [&](auto f) {
      const Tensor x = variable(value);
      const Tensor y = f(x);
      CHECK(y.item() == doctest::Approx(std::log(2.0)));
      near(grad(y, x).to_vector(), {0, -0.5, 0.5});
    };
    check([&](const Tensor& x) { return cross_entropy(x, label); });
    check([&](const Tensor& x) { return cross_entropy(x, t); });
    check([&](const Tensor& x) { return cross_entropy(x, label, {.class_weights = ones3}); });
    check([&](const Tensor& x) { return cross_entropy(x, t, {.class_weights = ones3}); });
    check([&](const Tensor& x) { return cross_entropy_plain(x, label); });
    check([&](const Tensor& x) { return cross_entropy_plain(x, t); });
    check([&](const Tensor& x) { return kl_divergence(x, t); });
    CHECK(std::isinf(cross_entropy(value, tensor({0}, i64)).item()));
    CHECK(std::isinf(cross_entropy(value, label, {.label_smoothing = 0.1}).item()));
    CHECK(kl_divergence(tensor({-infinity, 0}, {1, 2}, dtype), tensor({0, 1}, {1, 2}, dtype)).item() == 0);
    const Tensor targets = variable(t);
    near(grad(kl_divergence(value, targets), targets).to_vector(), {0, 1 + std::log(2.0), 0});
    const Tensor x = variable(value), y = log_softmax(x);
    near(y.to_vector(), {-infinity, -std::log(2.0), -std::log(2.0)});
    near(grad(y, x, {.cotangent = t}).to_vector(), {0, 0.5, -0.5});
  }
}

TEST_CASE("losses: logsumexp of infinite elements, and its gradient") {
  for (const DType dtype : {f32, f64}) {
    const auto check = [&](std::initializer_list<double> values, double wanted, const Values& slopes) {
      const Tensor x = variable(tensor(values, dtype));
      const Tensor y = logsumexp(x);
      CHECK(y.item() == wanted);
      near(grad(y, x).to_vector(), slopes);
    };
    check({-infinity, -infinity}, -infinity, {0, 0});
    check({infinity, 0}, infinity, {1, 0});
    check({infinity, infinity, 0, -infinity}, infinity, {0.5, 0.5, 0, 0});
    check({-infinity, 3}, 3, {0, 1});
    CHECK(std::isnan(logsumexp(tensor({NAN, 0}, dtype)).item()));
    const Tensor rows = variable(tensor({-infinity, -infinity, 0, 0, infinity, 1}, {3, 2}, dtype));
    const Tensor y = logsumexp(rows, 1, {.keepdims = true});
    near(y.to_vector(), {-infinity, std::log(2.0), infinity});
    near(grad(y, rows, {.cotangent = ones({3, 1}, dtype)}).to_vector(), {0, 0, 0.5, 0.5, 1, 0});
  }
}

TEST_CASE("losses: infinite logits and errors of one element") {
  for (const DType dtype : {f32, f64}) {
    const Tensor x = variable(tensor({infinity, -infinity, 0, 50, -50}, dtype)), t = tensor({1, 0, 1, 1, 0}, dtype);
    const Tensor y = bce_with_logits(x, t);
    CHECK(y.item() == doctest::Approx(std::log(2.0) / 5));
    near(grad(y, x).to_vector(), {0, 0, -0.1, 0, 0});
    CHECK(bce_with_logits(tensor({infinity}, dtype), tensor({0}, dtype)).item() == infinity);
    CHECK(bce_with_logits(tensor({-infinity}, dtype), tensor({0.5}, dtype)).item() == infinity);
    const Tensor d = variable(tensor({infinity, -infinity, 0.5, 3}, dtype));
    near(grad(huber(d, zeros({4}, dtype), 2), d).to_vector(), {0.5, -0.5, 0.125, 0.5});
  }
}

TEST_CASE("losses: labels that are undefined are told as that") {
  const Tensor y = ones({2, 3});
  const auto says = [&](auto loss, const char* message) {
    CHECK_THROWS_WITH_AS(loss(y, Tensor()), message, ValueError);
  };
  const auto plain = [](Tensor (*f)(const Tensor&, const Tensor&)) { return f; };
  says(plain(cross_entropy), "cross_entropy: no labels: their tensor is undefined");
  says(plain(mse), "mse: no labels: their tensor is undefined");
  says(plain(mae), "mae: no labels: their tensor is undefined");
  says(plain(bce_with_logits), "bce_with_logits: no labels: their tensor is undefined");
  says(plain(kl_divergence), "kl_divergence: no labels: their tensor is undefined");
  says([](const Tensor& a, const Tensor& b) { return huber(a, b); }, "huber: no labels: their tensor is undefined");
}
