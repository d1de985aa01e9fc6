// gradcheck must catch wrong rules, pass right ones, and say where the error is.
// (over 400 lines because every promise of the check is tried on wrong and right rules)
#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/autograd/tools.h>
#include <ebb/autograd/vmap.h>
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
      CHECK(
          gradcheck([](auto& x) { return apply(Scaled{1}, x); }, {randn({5}, f64)}, {.order = order, .probe = probe}));
      CHECK(gradcheck(product(Fault::none), points(), {.order = order, .probe = probe}));
    }
  CHECK(gradcheck([](auto& x, auto& k) { return conv2d(x, k, {.stride = 2, .pad = 1}); },
                  {randn({2, 7, 7, 3}, f64), randn({3, 3, 3, 4}, f64)}, {.order = 2}));
}

TEST_CASE("gradcheck catches wrong rules with every probe") {
  for (const Probe probe : {Probe::direction, Probe::elements, Probe::jacobian}) {
    for (const double factor : {-1.0, 1.0001, 0.9999, 0.0, 2.0}) {
      CAPTURE(factor);
      CHECK_FALSE(
          gradcheck([factor](auto& x) { return apply(Scaled{factor}, x); }, {randn({5}, f64)}, {.probe = probe}));
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
    const GradcheckReport report = gradcheck(product(Fault::second_order), points(), {.order = 2, .probe = probe});
    CHECK_FALSE(report);
    CHECK(report.order == 2);
  }
}

namespace {

/// x^2 with two rules, of which the one in ops is wrong by a factor: its derivative is that of itself.
struct TwoWays {
  static constexpr std::string_view name = "two_ways";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const { return x * x; }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * s.input(0) * 2.1; }
  Tensor fast_backward(const Saved& s, const Tensor& g) const { return g * s.input(0) * 2; }
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
    CHECK(report.str().find("gradcheck FAILED: order 1 with create_graph, ") == 0);
    CHECK(report.str().find("input 0 element 0: analytic ") != std::string::npos);
  }
  // A kink counts once for both, and again where the gradient jumps.
  const GradcheckReport corner = gradcheck([](auto& x) { return relu(x); }, {tensor({0, 1}, f64)}, {.order = 2});
  CHECK(corner);
  CHECK(corner.kinks == 2);
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

TEST_CASE("gradcheck: nothing passes because nothing was looked at") {
  const auto f = [](auto& x) { return sin(x); };
  const auto g = [](auto& x, auto& w) { return x * w; };
  const Tensor x = randn({3}, f64);
  for (const int directions : {0, -3}) CHECK_THROWS_AS(gradcheck(f, {x}, {.directions = directions}), ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.directions = 0}), "gradcheck: directions must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.tolerance = 0}), "gradcheck: tolerance must be positive, got 0", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.tolerance2 = NAN}), "gradcheck: tolerance2 must be positive, got nan",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.absolute = -1}), "gradcheck: absolute must not be negative, got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.step = 0}), "gradcheck: step must be in (0, 0.25], got 0", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.repeat = -1}), "gradcheck: repeat must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.sees = 1e-9}),
                       "gradcheck: sees must be 0 or more than twice the tolerance, got 1e-09", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x}, {.names = {"a", "b"}}), "gradcheck: 2 names for 1 inputs", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(f, {x, x}), "gradcheck: the function does not take 2 inputs, which were given",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(g, {x}), "gradcheck: the function does not take 1 input, which was given", ValueError);
  CHECK_THROWS_AS(gradcheck(f, {}), ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(MultiFunction([](std::span<const Tensor> in) { return in[0]; }), {}),
                       "gradcheck: needs at least one input", ValueError);
  CHECK(gradcheck([](auto& a, auto& b, auto& c, auto& d, auto& e, auto& h) { return a * b + c * d + e * h; },
                  {x, x, x, x, x, x}));
}

TEST_CASE("gradcheck: the report counts what is wrong, and names the first few by their indices") {
  const auto halved = [](const Tensor& mask) {
    return [mask](auto& x, auto& w) { return x * w + stop_gradient(x * w) * mask - x * w * mask; };
  };
  const Tensor x = randn({3, 4}, f64), w = variable(randn({3, 4}, f64), "w");
  Tensor mask = zeros({3, 4}, f64);
  mask.mutable_values<double>()[6] = 0.5;
  const GradcheckReport one = gradcheck(halved(mask), {x, w});
  CHECK_FALSE(one);
  CHECK(one.wrong_count == 2);  // in x and in w
  CHECK(one.counted);
  REQUIRE(one.wrong.size() == 2);
  CHECK(one.wrong[0].element == 6);
  CHECK(one.wrong[0].where == "input 0 element 6 (1, 2)");
  CHECK(one.wrong[1].where == "input 1 \"w\" element 6 (1, 2)");
  CHECK(one.str().find("gradcheck FAILED: order 1, 2 wrong: input 0 element 6 (1, 2): analytic ") == 0);
  const GradcheckReport all = gradcheck(halved(full({3, 4}, 0.5, f64)), {x, w}, {.names = {"the image"}});
  CHECK(all.wrong_count == 24);
  CHECK(all.wrong.size() == 5);
  CHECK(all.wrong[0].where == "input 0 \"the image\" element 0 (0, 0)");
  // a large one is halved
  Tensor wide = zeros({3000}, f64);
  wide.mutable_values<double>()[1234] = 1;
  const GradcheckReport found =
      gradcheck([&](auto& v) { return sin(v) + stop_gradient(sin(v)) * wide; }, {randn({3000}, f64)});
  CHECK(found.wrong_count == 1);
  CHECK(found.wrong[0].element == 1234);
  // NaN is told where it is
  const GradcheckReport nan = gradcheck([](auto& v) { return sqrt(v); }, {tensor({1, 2, 3, 0}, f64)});
  CHECK(nan.wrong[0].element == 3);
  CHECK(nan.str().find("gradcheck FAILED: order 1, input 0 element 3: the gradient is ") == 0);  // inf or -inf
}

TEST_CASE("gradcheck: its power is told, and kept to when it is asked for") {
  const std::int64_t n = 10000;
  for (const double wrong : {1e-3, 1e-4, 2e-5}) {
    Tensor mask = zeros({n}, f64);
    mask.mutable_values<double>()[7777] = wrong;
    const auto f = [&](auto& v) { return v * v + stop_gradient(v * v) * mask; };
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const GradcheckReport r = gradcheck(f, {rand({n}, f64) + 0.5}, {.sees = wrong / 2, .seed = seed});
      CHECK_FALSE(r);
      CHECK(r.wrong_count == 1);
    }
  }
  const GradcheckReport plain = gradcheck([](auto& v) { return v * v; }, {rand({n}, f64) + 0.5});
  CHECK(plain.sees > 0);
  CHECK(plain.sees < 1e-4);
  CHECK(plain.str().find("one element wrong by ") != std::string::npos);
  const GradcheckReport finer = gradcheck([](auto& v) { return tanh(v); }, {randn({64}, f64)}, {.sees = 5e-6});
  CHECK(finer);
  CHECK(finer.sees <= 5e-6);
}

TEST_CASE("gradcheck: a relu network is checked in bounded time, and a wrong one of its size found") {
  Generator random(4);
  const Tensor w1 = randn({100, 200}, f64, random) * 0.14, w2 = randn({200, 10}, f64, random) * 0.1;
  const auto net = [&](auto& x) { return matmul(relu(matmul(x, w1)), w2); };
  const GradcheckReport r = gradcheck(net, {randn({64, 100}, f64, random)});
  INFO(r);
  CHECK(r);
  const auto leaky = [&](auto& x) {
    const Tensor h = matmul(x, w1);
    return matmul(relu(h) + stop_gradient(h * 0.01) - h * 0.01, w2);
  };
  CHECK_FALSE(gradcheck(leaky, {randn({64, 100}, f64, random)}));
}

TEST_CASE("gradcheck: two runs may differ by what is asked for") {
  const auto shaky = [n = 0](auto& x) mutable { return sin(x) * (1 + 1e-13 * (++n % 3)); };
  CHECK_FALSE(gradcheck(shaky, {ones({3}, f64)}));
  CHECK(gradcheck(shaky, {ones({3}, f64)}, {.repeat = 1e-11}));
}

namespace {

/// What GoogleTest makes of a value that EXPECT_TRUE gets.
class AssertionResult {
 public:
  explicit AssertionResult(bool ok) : ok_(ok) {}
  explicit operator bool() const { return ok_; }
  const char* failure_message() const { return message_.c_str(); }
  template <class T>
  AssertionResult& operator<<(const T& value) {
    std::ostringstream out;
    out << value;
    message_ += out.str();
    return *this;
  }

 private:
  bool ok_;
  std::string message_;
};

}  // namespace

TEST_CASE("gradcheck: GoogleTest's EXPECT_TRUE shows the report") {
  const GradcheckReport report = gradcheck(product(Fault::sign), points());
  const AssertionResult shown(report);
  CHECK_FALSE(static_cast<bool>(shown));
  CHECK(shown.failure_message() == report.str());
  const AssertionResult well(gradcheck(product(Fault::none), points()));
  CHECK(static_cast<bool>(well));
}

TEST_CASE("gradcheck: inputs are left alone, empty ones pass, NaN fails") {
  const Tensor x = randn({4}, f64), before = x.clone();
  CHECK(gradcheck([](auto& v) { return sin(v); }, {x}, {.order = 2, .probe = Probe::elements}));
  CHECK(same_bits(x, before));
  CHECK(gradcheck([](auto& v) { return exp(v); }, {zeros({0}, f64)}, {.order = 2}));
  CHECK_FALSE(gradcheck([](auto& v) { return log(v); }, {tensor({-1, 1}, f64)}));
  CHECK_FALSE(gradcheck([](auto& v) { return sqrt(v); }, {tensor({0, 1}, f64)}));
}

TEST_CASE("gradcheck: on a kink, slopes between the two sides pass and are counted, beyond them they fail") {
  const Tensor x = tensor({0, 1, -1}, f64);
  const GradcheckReport report = gradcheck([](auto& v) { return relu(v); }, {x}, {.probe = Probe::elements});
  CHECK(report);
  CHECK(report.kinks == 1);
  CHECK(gradcheck([](auto& v) { return abs(v); }, {x}, {.probe = Probe::elements}));
  CHECK(gradcheck([](auto& v) { return maximum(v, v * 0.5); }, {x}, {.probe = Probe::elements}));
  CHECK(gradcheck([](auto& v) { return relu(v); }, {tensor({1e-5, -3e-6, 2}, f64)}));  // near, not on
  CHECK_FALSE(gradcheck([](auto& v) { return relu(v) + stop_gradient(v) * 2; }, {x}, {.probe = Probe::elements}));
}

TEST_CASE("gradcheck: with a mask of its own, dropout is checked as in training, also under Training(false)") {
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
      const GradcheckReport r = gradcheck(
          [&](auto& v) {
            return ebb::apply(Corner{slope, 0}, v);
          },
          {x}, {.probe = probe});
      CHECK(r);
      if (slope == 0.5) continue;  // the mean of both sides is what a central difference gives: nothing to notice
      CHECK(r.kinks > 0);
      CHECK(r.str().find("on a kink") != std::string::npos);
    }
  CHECK(gradcheck([](auto& v) { return abs(v); }, {x}));
  CHECK(gradcheck([](auto& v) { return max(v); }, {tensor({2, 2, 1}, f64)}));  // a tie
  CHECK(gradcheck([](auto& v) { return max_pool2d(v); }, {ones({1, 2, 2, 1}, f64)}, {.probe = Probe::elements}).kinks ==
        4);
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
  for (const Probe probe : {Probe::direction, Probe::elements})
    CHECK_FALSE(gradcheck(shared, {window}, {.probe = probe}));
}

TEST_CASE("derivatives, vmap, checkpoint and gradcheck refuse an empty function") {
  const UnaryFunction one;
  const MultiFunction several;
  const ManyFunction many;
  const Tensor x = ones({2}, f64);
  const std::vector<Tensor> xs{x};
  CHECK_THROWS_WITH_AS(checkpoint(one, x), "checkpoint: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(checkpoint(several, xs), "checkpoint: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(vmap(one, x), "vmap: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(vmap(several, xs), "vmap: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(vmap(many, xs), "vmap: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(vjp(several, xs, x), "vjp: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(jvp(one, x, x), "jvp: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(jvp(several, xs, xs), "jvp: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(jacobian(one, x), "jacobian: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(jacobian(several, xs), "jacobian: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(hessian(one, x), "hessian: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(hessian(several, xs), "hessian: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(hvp(one, x, x), "hvp: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(hvp(several, xs, xs), "hvp: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(several, xs), "gradcheck: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(one, xs), "gradcheck: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(static_cast<Tensor (*)(const Tensor&)>(nullptr), xs),
                       "gradcheck: the function is empty", ValueError);
}
