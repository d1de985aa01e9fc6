// Functions of float32: within the stated ulp on every instruction set, and right at the edges.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/ops.h>

#include "restore.h"

using namespace ebb;
using testing::on_every_instruction_set;

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

/// The worst over every 2003rd float in [low, high], from the smallest denormals up.
Worst worst(Tensor (*f)(const Tensor&), double (*truth)(double), float low = -120, float high = 120) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits <= std::numeric_limits<std::uint32_t>::max(); bits += 2003) {
    const float v = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (v >= low && v <= high) x.push_back(v);
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
  on_every_instruction_set([] {
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
  });
}

TEST_CASE("functions: log within 1 ulp, log1p, erf, softplus and elu within 2, on every instruction set") {
  constexpr float most = std::numeric_limits<float>::max();
  on_every_instruction_set([&] {
    CHECK(worst(
              log, [](double v) { return std::log(v); }, 0, most)
              .normal <= 1);
    const Worst l = worst(
        log1p, [](double v) { return std::log1p(v); }, -1, most);
    CHECK(l.normal <= 2);
    CHECK(l.denormal <= 1);
    const Worst e = worst(erf, [](double v) { return std::erf(v); });
    CHECK(e.normal <= 2);
    CHECK(e.denormal <= 1);
    const Worst s = worst(softplus, [](double v) { return std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v))); });
    CHECK(s.normal <= 2);
    CHECK(s.denormal <= 1);
    const Worst m = worst([](const Tensor& x) { return elu(x); }, [](double v) { return v > 0 ? v : std::expm1(v); });
    CHECK(m.normal <= 2);
    CHECK(m.denormal <= 1);
    using Values = std::vector<double>;
    CHECK(log(tensor({0, 1, infinity})).to_vector() == Values{-infinity, 0, infinity});
    CHECK(log1p(tensor({-1, 0, infinity})).to_vector() == Values{-infinity, 0, infinity});
    CHECK(erf(tensor({-infinity, 0, infinity})).to_vector() == Values{-1, 0, 1});
    CHECK(softplus(tensor({-infinity, infinity})).to_vector() == Values{0, infinity});
    CHECK(elu(tensor({-infinity, 0, infinity})).to_vector() == Values{-1, 0, infinity});
    for (const double v : {-1e-30, -2.0, -std::numeric_limits<double>::infinity()})
      CHECK(std::isnan(log(tensor({v})).item()));
    CHECK(std::isnan(log1p(tensor({-1.5})).item()));
    for (const auto f : {log, log1p, erf, softplus, selu}) CHECK(std::isnan(f(tensor({std::nan("")})).item()));
  });
}

TEST_CASE("functions: sin and cos within 2 ulp up to a million, beyond it as the C library, on every instruction set") {
  const auto sine = [](double v) { return std::sin(v); };
  const auto cosine = [](double v) { return std::cos(v); };
  on_every_instruction_set([&] {
    CHECK(worst(sin, sine, -detail::trig_limit, detail::trig_limit).normal <= 2);
    CHECK(worst(cos, cosine, -detail::trig_limit, detail::trig_limit).normal <= 2);
    // a large angle among small ones, whose results it must not change
    const Tensor small = tensor({0.5, -3, 100}), mixed = tensor({0.5, -3, 100, 3e7, -1e30});
    for (const bool is_sin : {true, false}) {
      using Function = Tensor (*)(const Tensor&);
      const Function f = is_sin ? Function{sin} : Function{cos};
      const std::vector<double> y = f(mixed).to_vector();
      CHECK(std::vector(y.begin(), y.begin() + 3) == f(small).to_vector());
      for (const std::size_t i : {std::size_t{3}, std::size_t{4}}) {
        const auto x = static_cast<double>(mixed.values<float>()[i]);
        CHECK(ulps(static_cast<float>(y[i]), is_sin ? std::sin(x) : std::cos(x)) <= 1);
      }
      CHECK(std::isnan(f(tensor({std::nan("")})).item()));
      CHECK(std::isnan(f(tensor({std::numeric_limits<double>::infinity()})).item()));
    }
  });
}
