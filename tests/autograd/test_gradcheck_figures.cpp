// The checker checked: wrong gradients that it must catch and hard right ones that it must pass, told as a table.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <ebb/autograd/gradcheck.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/apply.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

using In = std::span<const Tensor>;
using Out = std::vector<Tensor>;

/// A function with a rule of its own.
struct Ruled {
  static constexpr std::string_view name = "ruled";
  static constexpr Keeps keeps = Keeps::inputs;
  std::function<Tensor(In)> f;
  std::function<Out(In, const Tensor&)> rule;
  Tensor forward(In x) const { return f(x); }
  Out backward(const Saved& s, const Tensor& g) const {
    Out x;
    for (int i = 0; i < s.inputs(); ++i) x.push_back(s.input(i));
    return rule(x, g);
  }
};
MultiFunction ruled(std::function<Tensor(In)> f, std::function<Out(In, const Tensor&)> rule) {
  return [=](In x) { return apply(Ruled{f, rule}, x); };
}

struct Trial {
  std::string name;
  MultiFunction f;
  Out inputs;
  int order = 1;
  std::string why = "";  // it is known to be missed
};

Tensor at(std::initializer_list<double> v) { return tensor(v, f64); }
Tensor some(std::int64_t n, std::uint64_t seed = 5) {
  Generator random(seed);
  return uniform({n}, 0.3, 1.7, f64, random);
}
/// 1 but for one element.
Tensor but_for(std::int64_t n, std::int64_t at, double value) {
  Tensor t = ones({n}, f64);
  t.mutable_values<double>()[static_cast<std::size_t>(at)] = value;
  return t;
}

/// A function, its derivative, and points.
struct Smooth {
  const char* name;
  std::function<Tensor(const Tensor&)> f, slope;
};
const std::vector<Smooth>& smooth() {
  static const std::vector<Smooth> all{
      {"exp", [](auto& x) { return exp(x); }, [](auto& x) { return exp(x); }},
      {"sin", [](auto& x) { return sin(x); }, [](auto& x) { return cos(x); }},
      {"square", [](auto& x) { return square(x); }, [](auto& x) { return x * 2; }},
      {"log", [](auto& x) { return log(x); }, [](auto& x) { return 1.0 / x; }},
      {"sqrt", [](auto& x) { return sqrt(x); }, [](auto& x) { return 0.5 / sqrt(x); }},
      {"tanh", [](auto& x) { return tanh(x); }, [](auto& x) { return 1.0 - square(tanh(x)); }},
      {"cube", [](auto& x) { return x * x * x; }, [](auto& x) { return square(x) * 3; }},
      {"reciprocal", [](auto& x) { return 1.0 / x; }, [](auto& x) { return -1.0 / square(x); }},
  };
  return all;
}

std::vector<Trial> wrong_ones() {
  std::vector<Trial> out;
  using Fault = std::function<Tensor(const Tensor& x, const Tensor& g, const Tensor& slope)>;
  const std::vector<std::pair<std::string, Fault>> faults{
      {"sign", [](auto&, auto& g, auto& d) { return -g * d; }},
      {"factor 1.00001", [](auto&, auto& g, auto& d) { return g * d * 1.00001; }},
      {"half", [](auto&, auto& g, auto& d) { return g * d * 0.5; }},
      {"nothing", [](auto&, auto& g, auto&) { return g * 0.0; }},
      {"the slope forgotten", [](auto&, auto& g, auto&) { return g * 1.00001; }},
      {"the cotangent forgotten", [](auto&, auto& g, auto& d) { return d + g * 0.0; }},
      {"the cotangent clipped to 1", [](auto&, auto& g, auto& d) { return clip(g, -2, 2) * d; }},
      {"the cotangent's size", [](auto&, auto& g, auto& d) { return abs(g) * d; }},
      {"one element by 0.1%", [](auto&, auto& g, auto& d) { return g * d * but_for(d.numel(), 2, 1.001); }},
      {"one element by 0.01%", [](auto&, auto& g, auto& d) { return g * d * but_for(d.numel(), 1, 0.9999); }},
      {"a constant added", [](auto&, auto& g, auto& d) { return g * d + 1e-3; }},
      {"nan in one element", [](auto&, auto& g, auto& d) { return g * d * but_for(d.numel(), 3, NAN); }},
  };
  for (const Smooth& s : smooth())
    for (const auto& [name, fault] : faults)
      out.push_back({fmt::format("{}: {}", s.name, name),
                     ruled([s](In x) { return s.f(x[0]); },
                           [s, fault](In x, const Tensor& g) { return Out{fault(x[0], g, s.slope(x[0]))}; }),
                     {some(5)}});
  const auto linear_of = [](double scale, double factor) {
    return ruled([=](In x) { return sin(x[0]) * scale; },
                 [=](In x, const Tensor& g) { return Out{g * cos(x[0]) * (scale * factor)}; });
  };
  out.push_back({"sign at output scale 1e-15", linear_of(1e-15, -1), {some(4)}});
  out.push_back({"factor 1000 at output scale 1e-18", linear_of(1e-18, 1000), {some(4)}});
  out.push_back({"sign at output scale 1e-150", linear_of(1e-150, -1), {some(4)}});
  out.push_back({"factor 1.0001 at output scale 1e100", linear_of(1e100, 1.0001), {some(4)}});
  const auto beside = [](double small, double factor) {
    return ruled([=](In x) { return sin(x[0]) + sin(x[1]) * small; },
                 [=](In x, const Tensor& g) {
                   return Out{g * cos(x[0]), g * cos(x[1]) * (small * factor)};
                 });
  };
  out.push_back({"sign, 1e-6 of the neighbor", beside(1e-6, -1), {some(4), some(4, 6)}});
  out.push_back({"sign, 1e-10 of the neighbor", beside(1e-10, -1), {some(4), some(4, 6)}});
  out.push_back({"half, 1e-10 of the neighbor", beside(1e-10, 0.5), {some(4), some(4, 6)}});
  out.push_back({"missing, 1e-10 of the neighbor", beside(1e-10, 0), {some(4), some(4, 6)}});
  out.push_back({"sign, 1e-13 of the neighbor", beside(1e-13, -1), {some(4), some(4, 6)}});
  const auto wide = [](std::int64_t n, double factor) {
    return ruled([](In x) { return sin(x[0]); },
                 [=](In x, const Tensor& g) { return Out{g * cos(x[0]) * but_for(n, n / 3, factor)}; });
  };
  out.push_back({"one of 10,000 by 1e-4", wide(10000, 1.0001), {some(10000)}});
  out.push_back({"one of 10,000 by 1e-5", wide(10000, 1.00001), {some(10000)}});
  out.push_back({"one of 10,000 missing", wide(10000, 0), {some(10000)}});
  const auto product = [](std::function<Out(In, const Tensor&)> rule) {
    return ruled([](In x) { return matmul(x[0], x[1]); }, rule);
  };
  Generator random(3);
  const Tensor a = randn({3, 3}, f64, random), b = randn({3, 3}, f64, random);
  out.push_back({"matmul: not transposed",
                 product([](In x, const Tensor& g) {
                   return Out{matmul(g, x[1]), matmul(x[0], g, {.transpose_a = true})};
                 }),
                 {a, b}});
  out.push_back({"matmul: inputs exchanged",
                 product([](In x, const Tensor& g) {
                   return Out{matmul(x[0], g, {.transpose_a = true}), matmul(g, x[1], {.transpose_b = true})};
                 }),
                 {a, b}});
  out.push_back({"matmul: one input stopped", [](In x) { return matmul(x[0], stop_gradient(x[1])); }, {a, b}});
  out.push_back({"stopped", [](In x) { return stop_gradient(x[0]); }, {some(3)}});
  out.push_back({"partly stopped", [](In x) { return x[0] * stop_gradient(x[0]); }, {some(3)}});
  out.push_back({"recorded value differs",
                 [](In x) { return recording() && x[0].tracked() ? sin(x[0]) * 1.001 : sin(x[0]); },
                 {some(3)}});
  out.push_back({"another value each time", [n = 0](In x) mutable { return sin(x[0]) * (1 + 1e-9 * ++n); }, {some(3)}});
  out.push_back({"another value from the fifth time on",
                 [n = 0](In x) mutable { return sin(x[0]) * (++n > 4 ? 1.1 : 1); },
                 {some(3)}});
  out.push_back({"changes its input",
                 [](In x) {
                   Tensor same = x[0].detach();
                   const Tensor y = sin(x[0]);
                   same.mutable_values<double>()[0] += 1e-3;
                   return y;
                 },
                 {some(3)}});
  out.push_back({"nan value", [](In x) { return log(x[0]); }, {at({-1, 1})}});
  out.push_back({"infinite gradient", [](In x) { return sqrt(x[0]); }, {at({0, 1})}});
  const auto corner = [](double on, double left) {
    return ruled([](In x) { return relu(x[0]); },
                 [=](In x, const Tensor& g) {
                   return Out{g * where(greater(x[0], 0.0), scalar(1, f64),
                                        where(less(x[0], 0.0), scalar(left, f64), scalar(on, f64)))};
                 });
  };
  out.push_back({"relu: outside of the sides on the kink", corner(1.5, 0), {at({0, 1})}});
  out.push_back({"relu: below the sides on the kink", corner(-0.1, 0), {at({0, 1})}});
  for (const double d : {1e-3, 1e-5, 1e-7, 1e-8})
    out.push_back({fmt::format("relu: leaks {} left of the kink", d), corner(0, 0.01), {at({-d, 1})}});
  const auto flat =
      ruled([](In x) { return sin(x[0]); }, [](In x, const Tensor& g) { return Out{g * cos(x[0].detach())}; });
  out.push_back({"order 2: flat", flat, {some(3)}, 2});
  out.push_back({"order 2: another rule when recorded",
                 ruled([](In x) { return sin(x[0]); },
                       [](In x, const Tensor& g) { return Out{g * cos(x[0]) * (recording() ? 1.001 : 1)}; }),
                 {some(3)},
                 2});
  out.push_back(
      {"order 2: the cotangent cut off",
       ruled([](In x) { return sin(x[0]); }, [](In x, const Tensor& g) { return Out{g.detach() * cos(x[0])}; }),
       {some(3)},
       2});
  out.push_back({"hook that halves",
                 [](In x) { return sin(on_gradient(x[0], [](const Tensor& g) { return g * 0.5; })); },
                 {some(3)}});
  out.push_back({"sin(1e5 x) by 1%",
                 [](In x) { return sin(x[0] * 1e5) * 1.0 + stop_gradient(sin(x[0] * 1e5)) * 0.01; },
                 {at({0.3, 1.1})}});
  out.push_back(
      {"1e6 + sin by 1%", [](In x) { return sin(x[0]) + stop_gradient(sin(x[0]) * 0.01 + 1e6); }, {at({0.3, 1.1})}});
  out.push_back(
      {"log at 1e-7 by 1%", [](In x) { return log(x[0]) + stop_gradient(log(x[0])) * 0.01; }, {at({1e-7, 1})}});
  // what no checker at one point, in float64 and within a tolerance can see
  out.push_back({"factor 1 + 1e-8", linear_of(1, 1 + 1e-8), {some(4)}, 1, "below the tolerance of 1e-6"});
  out.push_back({"wrong beyond 100",
                 ruled([](In x) { return square(x[0]); },
                       [](In x, const Tensor& g) {
                         return Out{g * x[0] * where(greater(x[0], 100.0), scalar(3, f64), scalar(2, f64))};
                       }),
                 {some(4)},
                 1,
                 "right where it is looked at"});
  out.push_back(
      {"sign, 1e-18 of the neighbor", beside(1e-18, -1), {some(4), some(4, 6)}, 1, "below the rounding of the value"});
  out.push_back({"order 2 fault at order 1", flat, {some(3)}, 1, "order 1 was asked"});
  out.push_back({"relu: leaks 1e-15 left of the kink",
                 corner(0, 0.5),
                 {at({-1e-15, 1})},
                 1,
                 "too near to be told from the kink"});
  return out;
}

std::vector<Trial> right_ones() {
  std::vector<Trial> out;
  const auto add = [&](std::string name, std::function<Tensor(const Tensor&)> f, const Tensor& x,
                       std::initializer_list<int> orders = {1, 2}) {
    for (const int order : orders) out.push_back({name, [f](In in) { return f(in[0]); }, {x}, order});
  };
  for (const double v : {1e-5, 1e-6, 1e-7, 1e-8}) {
    add(
        fmt::format("log at {}", v), [](auto& x) { return log(x); }, at({v, 1}));
    add(
        fmt::format("sqrt at {}", v), [](auto& x) { return sqrt(x); }, at({v, 1}));
    add(
        fmt::format("pow 0.3 at {}", v), [](auto& x) { return pow(x, 0.3); }, at({v, 1}));
    add(
        fmt::format("reciprocal at {}", v), [](auto& x) { return 1.0 / x; }, at({v}));
  }
  for (const double v : {1e-3, 1e-5, 1e-7, 1e-9, -1e-7, -1e-9, 0.0}) {
    add(
        fmt::format("relu at {}", v), [](auto& x) { return relu(x); }, at({v, 1}));
    add(
        fmt::format("abs at {}", v), [](auto& x) { return abs(x); }, at({v, -1}));
    add(
        fmt::format("clip at 1 + {}", v), [](auto& x) { return clip(x, -1, 1); }, at({1 + v, 0.5}));
    add(
        fmt::format("max, a tie but for {}", v), [](auto& x) { return max(x); }, at({1 + v, 1, 0.5}));
    add(fmt::format("relu squared at {}", v), [](auto& x) { return square(relu(x)); }, at({v, 1}), {1});
    add(fmt::format("x |x| at {}", v), [](auto& x) { return x * abs(x); }, at({v, 1}), {1});
  }
  add(
      "sin(1e5 x)", [](auto& x) { return sin(x * 1e5); }, at({0.3, 1.1, -0.7}));
  add(
      "1e6 + sin", [](auto& x) { return sin(x) + 1e6; }, at({0.3, 1.1, -0.7}));
  add(
      "sin at 1e8", [](auto& x) { return sin(x); }, at({1e8, 1e8 + 1}));
  add(
      "square at 1e8", [](auto& x) { return square(x); }, at({1e8, -3e7}));
  add(
      "exp at 50", [](auto& x) { return exp(x); }, at({50, -50, 1}));
  for (const double scale : {1e-150, 1e-18, 1e-15, 1e15, 1e100})
    add(
        fmt::format("sin times {}", scale), [=](auto& x) { return sin(x) * scale; }, some(4));
  add(
      "sum of softmax", [](auto& x) { return sum(softmax(x)); }, some(5));
  add(
      "softmax", [](auto& x) { return softmax(x); }, some(5));
  add(
      "logsumexp far out", [](auto& x) { return logsumexp(x * 100); }, some(5));
  add(
      "tanh saturated", [](auto& x) { return tanh(x * 8); }, some(5));
  add("a part in float32", [](auto& x) { return cast(cast(x, f32), f64) * 2; }, some(4), {1});
  add(
      "cancelling", [](auto& x) { return (x + 1e6) - 1e6; }, some(4));
  add(
      "constant", [](auto& x) { return x * 0.0 + 3; }, some(4));
  add(
      "a scalar", [](auto& x) { return sin(x); }, scalar(0.4, f64));
  add(
      "nothing", [](auto& x) { return exp(x); }, zeros({0}, f64));
  add(
      "10,000 elements", [](auto& x) { return sin(x); }, some(10000));
  add(
      "minus infinity in a mask",
      [](auto& x) {
        return softmax(x + tensor({0, 0, -INFINITY}, f64));
      },
      some(3));
  for (const double small : {1e-6, 1e-10, 1e-14, 0.0})
    for (const int order : {1, 2})
      out.push_back({fmt::format("an input of {} of its neighbor", small),
                     [=](In x) { return sin(x[0]) + sin(x[1]) * small; },
                     {some(4), some(4, 6)},
                     order});
  Generator random(11);
  const Tensor a = randn({4, 5}, f64, random), b = randn({5, 3}, f64, random), image = randn({2, 5, 5, 2}, f64, random),
               kernel = randn({3, 3, 2, 3}, f64, random);
  for (const int order : {1, 2}) {
    out.push_back({"matmul", [](In x) { return matmul(x[0], x[1]); }, {a, b}, order});
    out.push_back({"tanh of a convolution", [](In x) { return tanh(conv2d(x[0], x[1])); }, {image, kernel}, order});
    out.push_back({"relu of a convolution", [](In x) { return relu(conv2d(x[0], x[1])); }, {image, kernel}, order});
    out.push_back({"max pool of ties", [](In x) { return max_pool2d(x[0]); }, {ones({1, 4, 4, 1}, f64)}, order});
    out.push_back({"checkpoint of what depends on another",
                   [](In x) {
                     return checkpoint([](In y) { return y[0] * y[1]; }, Out{x[0], square(x[0])});
                   },
                   {some(3)},
                   order});
    out.push_back({"a hook that looks",
                   [](In x) { return sin(on_gradient(x[0], [](const Tensor&) { return Tensor(); })); },
                   {some(3)},
                   order});
    out.push_back({"a quotient", [](In x) { return x[0] / x[1]; }, {some(4), some(4, 8) * 1e-4}, order});
  }
  return out;
}

GradcheckReport run(const Trial& t) { return gradcheck(t.f, t.inputs, {.order = t.order}); }

}  // namespace

TEST_CASE("gradcheck: wrong gradients are caught, right ones pass") {
  int caught = 0, missed = 0, unsure = 0, passed = 0, alarms = 0, cannot = 0;
  std::string list;
  const auto line = [&](const char* what, const Trial& t, const std::string& text) {
    list += fmt::format("  {:<12} {} (order {}): {}\n", what, t.name, t.order, text);
  };
  const std::vector<Trial> wrong = wrong_ones(), right = right_ones();
  for (const Trial& t : wrong) {
    const GradcheckReport r = run(t);
    const bool seen = !r && (r.wrong_count > 0 || !r.problem.empty());
    caught += seen;
    unsure += !r && !seen;
    missed += static_cast<bool>(r);
    INFO(t.name << ": " << r);
    CHECK(seen == t.why.empty());
    if (!seen) line(r ? "missed" : "cannot tell", t, t.why.empty() ? r.str() : t.why);
  }
  for (const Trial& t : right) {
    const GradcheckReport r = run(t);
    const bool alarm = !r && (r.wrong_count > 0 || !r.problem.empty());
    alarms += alarm;
    cannot += !r && !alarm;
    passed += static_cast<bool>(r);
    INFO(t.name << ", order " << t.order << ": " << r);
    CHECK_FALSE(alarm);
    if (!r) line(alarm ? "false alarm" : "cannot tell", t, r.str());
  }
  fmt::print(
      "gradcheck of {} wrong functions: {} caught, {} missed, {} cannot tell; of {} right ones: {} passed, {} false "
      "alarms, {} cannot tell\n{}",
      wrong.size(), caught, missed, unsure, right.size(), passed, alarms, cannot, list);
  std::fflush(stdout);
  CHECK(wrong.size() >= 100);
  CHECK(right.size() >= 100);
}
