// exp, sigmoid and tanh of float32: within the stated ulp on every instruction set, and right at the edges.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <ebb/ops/functions.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Distance to the true value in units of the last place there; denormals have the smallest one.
double ulps(float got, double truth) {
  const auto nearest = static_cast<float>(truth);
  if (std::isinf(nearest)) return got == nearest ? 0 : 1e9;
  int exponent = 0;
  std::frexp(truth, &exponent);
  return std::abs(static_cast<double>(got) - truth) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

struct Worst {
  double normal = 0, denormal = 0;
};

/// The worst over every 2003rd float in [-120, 120], from the smallest denormals up.
Worst worst(Tensor (*f)(const Tensor&), double (*truth)(double)) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits <= std::numeric_limits<std::uint32_t>::max(); bits += 2003) {
    const float v = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::abs(v) <= 120) x.push_back(v);
  }
  const Tensor y = f(Tensor::from(x, {static_cast<std::int64_t>(x.size())}));
  const auto got = y.values<float>();
  Worst w;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double t = truth(static_cast<double>(x[i]));
    double& side = std::abs(t) < static_cast<double>(std::numeric_limits<float>::min()) ? w.denormal : w.normal;
    side = std::max(side, ulps(got[i], t));
  }
  return w;
}

double true_sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("functions: exp within 1 ulp, sigmoid and tanh within 2, on every instruction set") {
  const detail::Isa before = detail::isa();
  for (const detail::Isa isa : {detail::Isa::baseline, detail::Isa::avx2, detail::Isa::avx512}) {
    detail::set_isa(isa);
    const std::string set = detail::name_of(isa);
    CAPTURE(set);
    const Worst e = worst(exp, [](double v) { return std::exp(v); });
    CHECK(e.normal <= 1);
    CHECK(e.denormal <= 1);
    const Worst s = worst(sigmoid, true_sigmoid);
    CHECK(s.normal <= 2);
    CHECK(s.denormal <= 1);
    const Worst t = worst(tanh, [](double v) { return std::tanh(v); });
    CHECK(t.normal <= 2);
    CHECK(t.denormal <= 1);
    const Tensor edges = tensor({-infinity, infinity, 88.72283, 88.73, -104, 0});
    const std::vector<double> y = exp(edges).to_vector();
    CHECK(y[0] == 0);
    CHECK(std::isinf(y[1]));
    CHECK(std::isfinite(y[2]));
    CHECK(std::isinf(y[3]));
    CHECK(y[4] == 0);
    CHECK(y[5] == 1);
    CHECK(sigmoid(edges).to_vector()[0] == 0);
    CHECK(sigmoid(edges).to_vector()[1] == 1);
    CHECK(tanh(edges).to_vector()[0] == -1);
    CHECK(tanh(edges).to_vector()[1] == 1);
    for (const auto f : {exp, sigmoid, tanh, relu}) CHECK(std::isnan(f(tensor({std::nan("")})).item()));
  }
  detail::set_isa(before);
}
