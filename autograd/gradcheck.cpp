#include <ebb/autograd/gradcheck.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/checker.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::checking::Checker, detail::checking::Claim;

/// Gradients of <cotangent, y>, undefined where y does not depend on an x.
std::vector<Tensor> gradient_of(const Tensor& y, std::span<const Tensor> xs, const Tensor& cotangent,
                                bool create_graph) {
  if (!y.tracked()) return std::vector<Tensor>(xs.size());
  return grad(y, xs,
              {.retain_graph = true, .create_graph = create_graph, .allow_unused = true, .cotangent = cotangent});
}

bool alike(const Tensor& a, const Tensor& b, double tolerance) {
  if (same_bits(a, b)) return true;
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const auto x = a.values<double>(), y = b.values<double>();
  double size = 0, most = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    if (x[k] == y[k] || (std::isnan(x[k]) && std::isnan(y[k]))) continue;
    const double difference = std::abs(x[k] - y[k]);
    if (!std::isfinite(difference)) return false;
    most = std::max(most, difference);
  }
  for (const double v : x)
    if (std::isfinite(v)) size = std::max(size, std::abs(v));
  return most <= tolerance * size;
}

/// g(a u + b v) = a g(u) + b g(v), with large and with small ones: a rule may do nothing else with the cotangent.
void check_cotangent(Checker& checker, const MultiFunction& f, const Tensor& u) {
  std::vector<Tensor> xs;
  for (const Tensor& x : checker.inputs()) xs.push_back(variable(x.clone()));
  const Tensor y = f(xs);
  const NoGrad quiet(!checker.create_graph);
  const auto g = [&](const Tensor& cotangent) { return gradient_of(y, xs, cotangent, checker.create_graph); };
  const Tensor v = uniform(u.shape(), -1, 1, f64, checker.random());
  const std::vector<Tensor> gu = g(u), gv = g(v), again = g(u);
  const auto size_of = [&](const Tensor& weights) {
    const auto w = weights.values<double>(), values = y.values<double>();
    double total = 0;
    for (std::size_t k = 0; k < w.size(); ++k)
      if (std::isfinite(values[k])) total += std::abs(w[k] * values[k]);
    return total;
  };
  const auto compare = [&](double a, double b) {
    const std::vector<Tensor> mixed = g(u * a + v * b);
    const double rounding =
        1e-13 * (std::abs(a) * size_of(u) + std::abs(b) * size_of(v));  // a gradient of 0 may be no more than that
    for (std::size_t i = 0; i < xs.size(); ++i) {
      if (!mixed[i].defined() || !gu[i].defined() || !gv[i].defined()) continue;
      const auto m = mixed[i].values<double>(), p = gu[i].values<double>(), q = gv[i].values<double>();
      double size = 0;
      for (std::size_t j = 0; j < m.size(); ++j) size = std::max(size, std::abs(a * p[j]) + std::abs(b * q[j]));
      for (std::size_t j = 0; j < m.size(); ++j) {
        const double expected = a * p[j] + b * q[j], scale = std::abs(a * p[j]) + std::abs(b * q[j]) + 0.01 * size;
        if (std::isfinite(expected) && !(std::abs(m[j] - expected) <= checker.options().tolerance * scale + rounding))
          return checker.refute(1, static_cast<int>(i), static_cast<std::int64_t>(j), m[j], expected,
                                "the gradient is not linear in the cotangent");
      }
    }
  };
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (gu[i].defined() && !alike(gu[i], again[i], checker.options().repeat))
      return checker.fault(fmt::format("the gradient of input {} is different when it is taken again", i));
  compare(1e8, -0.7e8);
  compare(1e-8, 0);
}

/// Weights between one and two, of either sign: none is too small to be seen.
Tensor random_weights(const Shape& shape, Generator& random) {
  const Tensor w = uniform(shape, -1, 1, f64, random);
  return w + where(less(w, 0.0), scalar(-1, f64), scalar(1, f64));
}

void check_first(Checker& checker, const MultiFunction& f, const Tensor& weights) {
  const Claim claim{{[&](std::span<const Tensor> x) {
                       const NoGrad quiet;
                       return std::vector<Tensor>{f(x)};
                     },
                     {weights}},
                    [&](std::span<const Tensor> x) { return gradient_of(f(x), x, weights, checker.create_graph); }};
  checker.check(claim, checker.inputs(), 1);
}

/// The gradient is a function of the inputs and of the cotangent: its weighted sum is differentiated once more.
void check_second(Checker& checker, const MultiFunction& f, const Tensor& weights) {
  std::vector<Tensor> points = checker.inputs();
  points.push_back(weights);
  std::vector<Tensor> mix;
  for (const Tensor& x : checker.inputs()) mix.push_back(random_weights(x.shape(), checker.random()));
  const auto gradients = [&](std::span<const Tensor> variables) {
    const auto own = variables.first(variables.size() - 1);
    std::vector<Tensor> g = gradient_of(f(own), own, variables.back(), true);
    for (std::size_t i = 0; i < g.size(); ++i)
      if (!g[i].defined()) g[i] = zeros(own[i].shape(), f64);
    return g;
  };
  const Claim claim{{[&](std::span<const Tensor> x) {
                       std::vector<Tensor> variables;
                       for (const Tensor& t : x) variables.push_back(variable(t));
                       return gradients(variables);
                     },
                     mix},
                    [&](std::span<const Tensor> x) {
                      Tensor total = scalar(0, f64);
                      const std::vector<Tensor> g = gradients(x);
                      for (std::size_t i = 0; i < g.size(); ++i)
                        if (g[i].tracked()) total = total + sum(g[i] * mix[i]);
                      return gradient_of(total, x, Tensor(), false);
                    }};
  checker.check(claim, points, 2);
}

/// Forward mode goes another way through the ops than backward: <w, J t> = <J^T w, t>.
void check_forward(Checker& checker, const MultiFunction& f, const Tensor& weights) {
  std::vector<Tensor> xs, ts;
  for (const Tensor& x : checker.inputs()) {
    xs.push_back(variable(x.clone()));
    ts.push_back(random_weights(x.shape(), checker.random()));
  }
  const Tensor y = f(xs);
  const std::vector<Tensor> g = gradient_of(y, xs, weights, false);
  double size = 0;
  const auto product = [&size](const Tensor& a, const Tensor& b) {
    const auto p = a.values<double>(), q = b.values<double>();
    double total = 0;
    for (std::size_t k = 0; k < p.size(); ++k) total += p[k] * q[k], size += std::abs(p[k] * q[k]);
    return total;
  };
  (void)product(weights, y.detach());
  const double rounding = 1e-12 * std::exchange(size, 0);  // a slope of 0 may be no more than that
  const double forward = product(weights, jvp(f, checker.inputs(), ts));
  double backward = 0;
  for (std::size_t i = 0; i < g.size(); ++i)
    if (g[i].defined()) backward += product(g[i], ts[i]);
  const double allowed = std::max(checker.options().tolerance, checker.options().repeat) * size + rounding;
  if (std::isfinite(allowed) && !(std::abs(forward - backward) <= allowed))
    checker.fault(fmt::format(
        "forward mode (jvp) gives {:.12g} for a slope that backward says is {:.12g}: an op promises too much (Tangent)",
        forward, backward));
}

void expect_options(const GradcheckOptions& o, std::size_t inputs) {
  const auto expect = [](bool holds, const char* rule, double value) {
    if (!holds) fail<ValueError>("gradcheck", fmt::format("{}, got {}", rule, value));
  };
  expect(o.order == 1 || o.order == 2, "order must be 1 or 2", o.order);
  expect(o.directions >= 1, "directions must be at least 1", o.directions);
  expect(o.tolerance > 0 && std::isfinite(o.tolerance), "tolerance must be positive", o.tolerance);
  expect(o.tolerance2 > 0 && std::isfinite(o.tolerance2), "tolerance2 must be positive", o.tolerance2);
  expect(o.absolute >= 0 && std::isfinite(o.absolute), "absolute must not be negative", o.absolute);
  expect(o.step > 0 && o.step <= 0.25, "step must be in (0, 0.25]", o.step);
  expect(o.repeat >= 0 && std::isfinite(o.repeat), "repeat must not be negative", o.repeat);
  expect(o.sees == 0 || (o.sees > 2 * std::max(o.tolerance, o.order == 2 ? o.tolerance2 : 0) && std::isfinite(o.sees)),
         "sees must be 0 or more than twice the tolerance", o.sees);
  if (inputs == 0) fail<ValueError>("gradcheck", "needs at least one input");
  if (o.names.size() > inputs)
    fail<ValueError>("gradcheck", fmt::format("{} names for {} inputs", o.names.size(), inputs));
}

}  // namespace

void detail::refuse_arity(std::size_t inputs) {
  fail<ValueError>("gradcheck", fmt::format("the function does not take {} input{}, which {} given", inputs,
                                            inputs == 1 ? "" : "s", inputs == 1 ? "was" : "were"));
}

std::string GradcheckReport::str() const {
  if (!problem.empty()) return problem;
  const std::string at_kinks =
      kinks ? fmt::format("; {} element{} on a kink, slope between the one-sided ones", kinks, kinks == 1 ? "" : "s")
            : "";
  const std::string open =
      unsure ? fmt::format("; {} derivative{} that the differences cannot tell", unsure, unsure == 1 ? "" : "s") : "";
  if (!wrong.empty()) {
    std::string list;
    for (const Wrong& w : wrong)
      list += (list.empty() ? "" : "; ") + w.where + ": " +
              (w.what.empty() || std::isfinite(w.analytic)
                   ? (w.what.empty() ? "" : w.what + ": ") +
                         fmt::format("analytic {:.12g}, numeric {:.12g}", w.analytic, w.numeric)
                   : w.what);
    const bool whole = wrong_count == 1 && counted;
    return fmt::format("gradcheck FAILED: order {}{}, {}{}{}{}", wrong[0].order,
                       create_graph ? " with create_graph" : "",
                       whole ? "" : fmt::format("{}{} wrong: ", counted ? "" : "at least ", wrong_count), list,
                       static_cast<std::size_t>(wrong_count) > wrong.size() ? "; ..." : "", open + at_kinks);
  }
  const std::string worst =
      order == 0
          ? std::string()
          : fmt::format("; worst: order {}{}, {}: analytic {:.12g}, numeric {:.12g}, relative error {:.3g}", order,
                        create_graph ? " with create_graph" : "",
                        input < 0 ? "along a random direction" : fmt::format("input {} element {}", input, element),
                        analytic, numeric, error);
  const std::string power = sees > 0 ? fmt::format("; one element wrong by {:.2g} is seen for certain", sees) : "";
  if (unsure)
    return fmt::format("gradcheck CANNOT TELL: {} derivative{} on which the differences do not settle{}{}", unsure,
                       unsure == 1 ? "" : "s", worst, at_kinks);
  if (order == 0) return "gradcheck passed" + (kinks ? at_kinks : "; nothing to check");
  return "gradcheck passed" + worst + power + at_kinks;
}

std::ostream& operator<<(std::ostream& out, const GradcheckReport& report) { return out << report.str(); }

GradcheckReport gradcheck(const MultiFunction& f, std::vector<Tensor> inputs, const GradcheckOptions& asked) {
  detail::expect_given(f, "gradcheck");
  expect_options(asked, inputs.size());
  GradcheckOptions options = asked;
  options.names.resize(inputs.size());
  std::vector<Tensor> before;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dtype() != f64)
      fail<DTypeError>("gradcheck", fmt::format("input {} must be float64, got {}", i, describe(inputs[i])));
    if (options.names[i].empty() && inputs[i].tracked()) options.names[i] = inputs[i].node()->name();
    before.push_back(inputs[i].clone());
    inputs[i] = inputs[i].detach();
  }
  const HoldState held;
  const Training as_recorded(true);  // also where nothing is recorded
  Checker checker(std::move(inputs), options);
  GradcheckReport& report = checker.report;
  const auto run = [&](bool record) {
    const NoGrad quiet(!record);
    std::vector<Tensor> xs = checker.inputs();
    if (record)
      for (Tensor& x : xs) x = variable(x);
    return f(xs);
  };
  const Tensor y = run(false);
  if (y.dtype() != f64) {
    checker.fault(fmt::format("the function gave {}, not float64", describe(y)));
    return report;
  }
  const auto same = [&](const Tensor& again, double tolerance, const char* what) {
    if (!alike(y, again, tolerance)) checker.fault(what);
    return report.ok;
  };
  if (!same(run(false), options.repeat, "the function gave two different values for the same inputs")) return report;
  if (!same(run(true), std::max(1e-12, options.repeat),
            "the function gives another value when it is recorded than with NoGrad"))
    return report;
  const auto values = y.values<double>();
  if (const auto nan = std::ranges::find_if(values, [](double v) { return std::isnan(v); }); nan != values.end()) {
    checker.fault(fmt::format("the function gives nan at element {} of {}", nan - values.begin(), y.shape().str()));
    return report;
  }
  const Tensor weights = random_weights(y.shape(), checker.random());
  const auto first = [&] {
    check_cotangent(checker, f, weights);
    if (options.probe == Probe::jacobian) {
      for (std::int64_t k = 0; k < y.numel(); ++k) {
        Tensor basis = zeros(y.shape(), f64);
        basis.mutable_values<double>()[static_cast<std::size_t>(k)] = 1;
        check_first(checker, f, basis);
      }
    } else {
      check_first(checker, f, weights);
    }
  };
  first();
  if (options.order == 2 && report.ok) {
    // A rule may have two ways: a fast one, and one in ops that can be differentiated again. Differences of the second
    // way's gradients only tell that it agrees with itself, so its gradients are held against those of the function
    // too.
    checker.create_graph = true;
    first();
    checker.create_graph = false;
    if (report.ok) check_second(checker, f, weights);
    if (report.ok) check_forward(checker, f, weights);
  }
  checker.finish();
  same(run(false), options.repeat, "the function gave another value in the end than at first, for the same inputs");
  for (std::size_t i = 0; i < before.size(); ++i)
    if (!same_bits(before[i], checker.inputs()[i])) checker.fault(fmt::format("the function changes input {}", i));
  return report;
}

}  // namespace ebb
