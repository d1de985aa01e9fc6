// gradcheck must catch wrong rules, pass right ones, and say where the error is.
#include <doctest/doctest.h>

#include <cmath>

#include <sstream>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/graph/apply.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

/// x^3 with a gradient that is wrong by a factor.
struct Scaled {
  static constexpr std::string_view name = "scaled";
  static constexpr Keeps keeps = Keeps::inputs;
  double factor;
  Tensor forward(const Tensor& x) const { return x * x * x; }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * square(s.input(0)) * (3 * factor); }
};

/// x y + y, and what a rule may forget.
enum class Fault { none, sign, term, one_element, second_order };
struct Product {
  static constexpr std::string_view name = "product";
  static constexpr Keeps keeps = Keeps::inputs;
  Fault fault;
  Tensor forward(const Tensor& x, const Tensor& y) const { return x * y + y; }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor x = s.input(0), y = s.input(1);
    if (i == 0) {
      if (fault == Fault::sign) return -g * y;
      if (fault == Fault::second_order) return g * y.detach();  // right, but flat to the next derivative
      return g * y;
    }
    if (fault == Fault::term) return g * x;
    Tensor right = g * (x + 1);
    if (fault == Fault::one_element) right = right * tensor({1, 1, 1.01, 1}, f64);
    return right;
  }
};
auto product(Fault fault) {
  return [fault](auto& x, auto& y) { return apply(Product{fault}, x, y); };
}

std::vector<Tensor> points() { return {tensor({0.5, -1, 2, 0.3}, f64), tensor({1.5, 0.2, -0.7, 1}, f64)}; }

}  // namespace

TEST_CASE("gradcheck passes right rules with every probe and order") {
  for (const Probe probe : {Probe::direction, Probe::elements, Probe::jacobian})
    for (const int order : {1, 2}) {
      CHECK(gradcheck([](auto& x) { return apply(Scaled{1}, x); }, {randn({5}, f64)},
                      {.order = order, .probe = probe}));
      CHECK(gradcheck(product(Fault::none), points(), {.order = order, .probe = probe}));
    }
  CHECK(gradcheck([](auto& x, auto& k) { return conv2d(x, k, {.stride = 2, .pad = 1}); },
                  {randn({2, 7, 7, 3}, f64), randn({3, 3, 3, 4}, f64)}, {.order = 2}));
}

TEST_CASE("gradcheck catches wrong rules with every probe") {
  for (const Probe probe : {Probe::direction, Probe::elements, Probe::jacobian}) {
    for (const double factor : {-1.0, 1.0001, 0.9999, 0.0, 2.0}) {
      CAPTURE(factor);
      CHECK_FALSE(gradcheck([factor](auto& x) { return apply(Scaled{factor}, x); }, {randn({5}, f64)},
                            {.probe = probe}));
    }
    for (const Fault fault : {Fault::sign, Fault::term, Fault::one_element})
      CHECK_FALSE(gradcheck(product(fault), points(), {.probe = probe}));
    // the gradient with respect to the second input is missing
    CHECK_FALSE(gradcheck([](auto& x, auto& y) { return x * stop_gradient(y); }, points(), {.probe = probe}));
    CHECK_FALSE(gradcheck([](auto& x) { return stop_gradient(x); }, {randn({3}, f64)}, {.probe = probe}));
  }
}

TEST_CASE("gradcheck at order 2 catches what order 1 cannot") {
  for (const Probe probe : {Probe::direction, Probe::elements}) {
    CHECK(gradcheck(product(Fault::second_order), points(), {.order = 1, .probe = probe}));
    const GradcheckReport report =
        gradcheck(product(Fault::second_order), points(), {.order = 2, .probe = probe});
    CHECK_FALSE(report);
    CHECK(report.order == 2);
  }
}

namespace {

/// x^2 with a rule in two ways, the second of which is wrong by a factor: its derivative is that of itself.
struct TwoWays {
  static constexpr std::string_view name = "two_ways";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const { return x * x; }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * s.input(0) * (recording() ? 2.1 : 2.0); }
};

}  // namespace

TEST_CASE("gradcheck at order 2 holds the gradient that is differentiated again against the function too") {
  const auto f = [](auto& x) { return ebb::apply(TwoWays{}, x); };
  for (const Probe probe : {Probe::direction, Probe::elements, Probe::jacobian}) {
    CHECK(gradcheck(f, {tensor({0.5, -1, 2}, f64)}, {.order = 1, .probe = probe}));
    const GradcheckReport report = gradcheck(f, {tensor({0.5, -1, 2}, f64)}, {.order = 2, .probe = probe});
    CHECK_FALSE(report);
    CHECK(report.order == 1);
    CHECK(report.create_graph);
    CHECK(report.error == doctest::Approx(0.1 / 2.1).epsilon(1e-3));
    CHECK(report.str().find("gradcheck FAILED: order 1 with create_graph, input 0 element ") == 0);
  }
  // A kink counts once for both, and again where the gradient jumps: in x and in the cotangent of order 2.
  CHECK(gradcheck([](auto& x) { return relu(x); }, {tensor({0, 1}, f64)}, {.order = 2}).kinks == 3);
}

TEST_CASE("gradcheck by elements names input and element") {
  const GradcheckReport report = gradcheck(product(Fault::one_element), points(), {.probe = Probe::elements});
  CHECK_FALSE(report);
  CHECK(report.order == 1);
  CHECK(report.input == 1);
  CHECK(report.element == 2);
  CHECK(report.error == doctest::Approx(0.01 / 1.01).epsilon(1e-3));
  CHECK(report.analytic / report.numeric == doctest::Approx(1.01).epsilon(1e-6));
  std::ostringstream out;
  out << report;
  CHECK(out.str() == report.str());
  CHECK(report.str().find("gradcheck FAILED: order 1, input 1 element 2: analytic ") == 0);
  // a direction that fails is taken apart
  const GradcheckReport apart = gradcheck(product(Fault::one_element), points());
  CHECK(apart.input == 1);
  CHECK(apart.element == 2);
  CHECK(gradcheck(product(Fault::none), points())
            .str()
            .find("gradcheck passed; worst: order 1, along a random direction") == 0);
}

TEST_CASE("gradcheck: functions that are not the same twice, or not float64") {
  int calls = 0;
  const GradcheckReport report =
      gradcheck([&calls](auto& x) { return x * static_cast<double>(++calls); }, {randn({2}, f64)});
  CHECK_FALSE(report);
  CHECK(report.str() == "gradcheck FAILED: the function gave two different values for the same inputs");
  CHECK_FALSE(gradcheck([](auto& x) { return dropout(x, 0.5); }, {randn({50}, f64)}));
  CHECK(gradcheck([](auto& x) { return cast(x, f32); }, {randn({2}, f64)}).str() ==
        "gradcheck FAILED: the function gave float32 (2,), not float64");
  CHECK_THROWS_WITH_AS(gradcheck([](auto& x) { return x; }, {randn({2})}),
                       "gradcheck: input 0 must be float64, got float32 (2,)", DTypeError);
  CHECK_THROWS_WITH_AS(gradcheck([](auto& x) { return x; }, {randn({2}, f64)}, {.order = 3}),
                       "gradcheck: order must be 1 or 2, got 3", ValueError);
}

TEST_CASE("gradcheck: inputs are left alone, empty ones pass, NaN fails") {
  const Tensor x = randn({4}, f64), before = x.clone();
  CHECK(gradcheck([](auto& v) { return sin(v); }, {x}, {.order = 2, .probe = Probe::elements}));
  CHECK(same_bits(x, before));
  CHECK(gradcheck([](auto& v) { return exp(v); }, {zeros({0}, f64)}, {.order = 2}));
  CHECK_FALSE(gradcheck([](auto& v) { return log(v); }, {tensor({-1, 1}, f64)}));
  CHECK_FALSE(gradcheck([](auto& v) { return sqrt(v); }, {tensor({0, 1}, f64)}));
}

TEST_CASE("gradcheck: on a kink, slopes between the two sides pass and are counted; beyond them they fail") {
  const Tensor x = tensor({0, 1, -1}, f64);
  const GradcheckReport report = gradcheck([](auto& v) { return relu(v); }, {x}, {.probe = Probe::elements});
  CHECK(report);
  CHECK(report.kinks == 1);
  CHECK(gradcheck([](auto& v) { return abs(v); }, {x}, {.probe = Probe::elements}));
  CHECK(gradcheck([](auto& v) { return maximum(v, v * 0.5); }, {x}, {.probe = Probe::elements}));
  CHECK(gradcheck([](auto& v) { return relu(v); }, {tensor({1e-5, -3e-6, 2}, f64)}));  // near, not on
  CHECK_FALSE(
      gradcheck([](auto& v) { return relu(v) + stop_gradient(v) * 2; }, {x}, {.probe = Probe::elements}));
}

TEST_CASE(
    "gradcheck: with a mask of its own, dropout is checked as in training, also under Training(false)") {
  const Training off(false);
  CHECK(gradcheck(
      [](auto& x) {
        Generator same(3);
        return dropout(x, 0.5, same) * x;
      },
      {randn({20}, f64)}, {.order = 2}));
}

namespace {

/// A relu whose slope on and left of its corner is wrong by choice.
struct Corner {
  static constexpr std::string_view name = "corner";
  static constexpr Keeps keeps = Keeps::inputs;
  double at_zero, left;
  Tensor forward(const Tensor& x) const { return relu(x); }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0).detach();
    const Tensor below = where(less(x, 0.0), scalar(left, f64), scalar(at_zero, f64));
    return g * where(greater(x, 0.0), scalar(1, f64), below);
  }
};

}  // namespace

TEST_CASE("gradcheck: on a kink any slope between the one-sided ones passes, in both ways of probing") {
  const Tensor x = tensor({0, 1, -1, 0}, f64);
  for (const Probe probe : {Probe::direction, Probe::elements})
    for (const double slope : {0.0, 0.5, 1.0}) {
      const GradcheckReport r = gradcheck([&](auto& v) { return ebb::apply(Corner{slope, 0}, v); }, {x}, {.probe = probe});
      CHECK(r);
      if (slope == 0.5) continue;  // the mean of both sides is what a central difference gives: nothing to notice
      CHECK(r.kinks > 0);
      CHECK(r.str().find("on a kink") != std::string::npos);
    }
  CHECK(gradcheck([](auto& v) { return abs(v); }, {x}));
  CHECK(gradcheck([](auto& v) { return max(v); }, {tensor({2, 2, 1}, f64)}));  // a tie
  CHECK(gradcheck([](auto& v) { return max_pool2d(v); }, {ones({1, 2, 2, 1}, f64)}, {.probe = Probe::elements}).kinks == 4);
  CHECK(gradcheck([](auto& v) { return square(v); }, {x}).kinks == 0);
}

TEST_CASE("gradcheck: on a kink a slope outside of the one-sided ones fails") {
  const Tensor x = tensor({0, 1}, f64);
  for (const double slope : {-0.1, 1.1, 2.0}) {
    const GradcheckReport r = gradcheck([&](auto& v) { return ebb::apply(Corner{slope, 0}, v); }, {x});
    CHECK_FALSE(r);
    CHECK(r.input == 0);
    CHECK(r.element == 0);
  }
}

TEST_CASE("gradcheck: beside a kink, nearer than the step, only the right slope passes") {
  for (const double x : {1e-5, -1e-5, 5e-5, -5e-5}) {
    CAPTURE(x);
    const GradcheckReport right = gradcheck([](auto& v) { return relu(v); }, {tensor({x}, f64)});
    CHECK(right);
    CHECK(right.kinks == 0);
    CHECK_FALSE(gradcheck([](auto& v) { return ebb::apply(Corner{0.5, 0.5}, v); }, {tensor({-std::abs(x)}, f64)}));
  }
  // Two elements of a window that nearly tie: all of the gradient belongs to the larger, and none of it to both.
  const Tensor window = tensor({1, 1 + 2e-5, 0, 0}, {1, 2, 2, 1}, f64);
  const GradcheckReport right = gradcheck([](auto& v) { return max_pool2d(v); }, {window});
  CHECK(right);
  CHECK(right.kinks == 0);
  const auto shared = [](auto& v) { return stop_gradient(max_pool2d(v) - avg_pool2d(v)) + avg_pool2d(v); };
  for (const Probe probe : {Probe::direction, Probe::elements}) CHECK_FALSE(gradcheck(shared, {window}, {.probe = probe}));
}
