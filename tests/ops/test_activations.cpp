// Tails of the activation functions.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/backward.h>
#include <ebb/ops/ops.h>

#include "restore.h"

using namespace ebb;

namespace {
double phi(double x) { return std::exp(-x * x / 2) * 0.3989422804014327; }
double cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double true_sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
}  // namespace

TEST_CASE("activations: gelu and silu keep their tails, and their gradients too") {
  testing::on_every_instruction_set([] {
    for (double x = -12; x <= 12; x += 0.0137) {
      const auto at = static_cast<double>(static_cast<float>(x));
      CAPTURE(at);
      const Tensor v = variable(tensor({at}));
      CHECK(std::abs(gelu(v).item() - at * cdf(at)) <= 1e-6 * std::abs(at * cdf(at)));
      CHECK(std::abs(silu(v).item() - at * true_sigmoid(at)) <= 1e-6 * std::abs(at * true_sigmoid(at)));
      // near their zeros the gradients lose what their terms take from one another
      CHECK(std::abs(grad(gelu(v), v, {.cotangent = ones({1})}).item() - (cdf(at) + at * phi(at))) <=
            1e-6 * (cdf(at) + std::abs(at) * phi(at)));
      const double s = true_sigmoid(at), down = true_sigmoid(-at);
      CHECK(std::abs(grad(silu(v), v, {.cotangent = ones({1})}).item() - s * (1 + at * down)) <=
            1e-6 * s * (1 + std::abs(at) * down));
    }
    for (const DType dtype : {f32, f64}) {
      const Tensor x = variable(tensor({-INFINITY, INFINITY, -1e4, 1e4}, dtype));
      CHECK(gelu(x).to_vector() == std::vector<double>{0, INFINITY, 0, 1e4});
      CHECK(silu(x).to_vector() == std::vector<double>{0, INFINITY, 0, 1e4});
      CHECK(grad(gelu(x), x, {.cotangent = ones({4}, dtype)}).to_vector() == std::vector<double>{0, 1, 0, 1});
      CHECK(grad(silu(x), x, {.cotangent = ones({4}, dtype)}).to_vector() == std::vector<double>{0, 1, 0, 1});
      CHECK(std::isnan(gelu(tensor({NAN}, dtype)).item()));
      CHECK(std::isnan(silu(tensor({NAN}, dtype)).item()));
    }
  });
}

TEST_CASE("activations: the gradients of sigmoid and tanh err by no more than the rounding of their values") {
  for (double x = -12; x <= 12; x += 0.037) {
    const auto at = static_cast<double>(static_cast<float>(x));
    CAPTURE(at);
    const Tensor v = variable(tensor({at}));
    CHECK(std::abs(grad(sigmoid(v), v, {.cotangent = ones({1})}).item() - true_sigmoid(at) * true_sigmoid(-at)) <=
          0x1p-22);
    CHECK(std::abs(grad(tanh(v), v, {.cotangent = ones({1})}).item() - 1 / std::pow(std::cosh(at), 2)) <= 0x1p-21);
  }
}
