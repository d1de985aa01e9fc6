#include <ebb/autograd/gradcheck.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/jacobian.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using Vectors = std::vector<std::vector<double>>;  // one row of numbers per input

Vectors zeros_like(std::span<const Tensor> inputs) {
  Vectors v;
  for (const Tensor& x : inputs) v.emplace_back(static_cast<std::size_t>(x.numel()), 0.0);
  return v;
}

/// A scalar function of the inputs together with the gradient that is to be checked.
struct Scalar {
  MultiFunction value;                                                   // float64, one element
  std::function<std::vector<Tensor>(std::span<const Tensor>)> gradient;  // one per input, undefined where zero
};

double evaluate(const Scalar& s, std::span<const Tensor> inputs) {
  const Training as_recorded(true);
  return s.value(inputs).item();
}

/// The inputs moved by t along a direction.
std::vector<Tensor> moved(std::span<const Tensor> inputs, const Vectors& direction, double t) {
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Tensor x = inputs[i].clone();
    const auto v = x.mutable_values<double>();
    for (std::size_t j = 0; j < v.size(); ++j) v[j] += t * direction[i][j];
    out.push_back(std::move(x));
  }
  return out;
}

/// Derivative along a direction: central differences at h and h/2, combined so that the h^2 error cancels (Richardson).
double slope(const Scalar& s, std::span<const Tensor> inputs, const Vectors& direction, double h) {
  const auto central = [&](double t) {
    return (evaluate(s, moved(inputs, direction, t)) - evaluate(s, moved(inputs, direction, -t))) / (2 * t);
  };
  return (4 * central(h / 2) - central(h)) / 3;
}

class Checker {
 public:
  Checker(std::vector<Tensor> inputs, const GradcheckOptions& options)
      : inputs_(std::move(inputs)), options_(options), random_(options.seed) {}

  /// Compares the gradient of s with differences. At order 2 the cotangent comes as one more input.
  void check(const Scalar& s, std::span<const Tensor> inputs, int order) {
    std::vector<Tensor> variables;
    for (const Tensor& x : inputs) variables.push_back(variable(x.clone()));
    Vectors gradient = zeros_like(inputs);
    {
      const Training on(true);
      const std::vector<Tensor> g = s.gradient(variables);
      for (std::size_t i = 0; i < inputs.size(); ++i)
        if (g[i].defined()) gradient[i] = g[i].to_vector();
    }
    if (options_.probe == Probe::direction) {
      for (int k = 0; k < options_.directions; ++k) along_direction(s, inputs, gradient, order);
    } else {
      each_element(s, inputs, gradient, order);
    }
  }

  std::vector<Tensor>& inputs() { return inputs_; }
  Generator& random() { return random_; }
  GradcheckReport report;
  bool create_graph = false;  // of the gradients that are being checked

 private:
  /// Relative to the larger derivative, but to no less than a hundredth of the gradient's own size.
  static double relative(double analytic, double numeric, double size) {
    const double error = std::abs(analytic - numeric) / std::max({std::abs(analytic), std::abs(numeric), 0.01 * size, 1e-8});
    return std::isnan(error) ? INFINITY : error;
  }
  double tolerance(int order) const { return order == 1 ? options_.tolerance : options_.tolerance2; }

  void along_direction(const Scalar& s, std::span<const Tensor> inputs, const Vectors& gradient, int order) {
    Vectors direction = zeros_like(inputs);
    double analytic = 0, size = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      for (std::size_t j = 0; j < direction[i].size(); ++j) {
        direction[i][j] = 2 * random_.uniform() - 1;
        analytic += gradient[i][j] * direction[i][j];
        size += std::abs(gradient[i][j] * direction[i][j]);
      }
    const double numeric = slope(s, inputs, direction, options_.step), error = relative(analytic, numeric, size);
    if (error <= tolerance(order)) return note(order, -1, -1, analytic, numeric, error);
    // Which element? Or is it a kink somewhere, which only the elements one by one can tell.
    const std::int64_t kinks = report.kinks;
    const bool all_well = each_element(s, inputs, gradient, order);
    if (all_well && report.kinks == kinks) each_step(s, inputs, direction, order, -1, -1, analytic, size);
  }

  /// True when every element is right.
  bool each_element(const Scalar& s, std::span<const Tensor> inputs, const Vectors& gradient, int order) {
    double size = 0;
    for (const auto& row : gradient)
      for (const double g : row) size = std::max(size, std::abs(g));
    bool all = true;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      for (std::size_t j = 0; j < gradient[i].size(); ++j) {
        Vectors direction = zeros_like(inputs);
        direction[i][j] = std::max(1.0, std::abs(inputs[i].values<double>()[j]));
        const double unit = direction[i][j];
        all &= each_step(s, inputs, direction, order, static_cast<int>(i), static_cast<std::int64_t>(j),
                         gradient[i][j] * unit, size * unit);
      }
    return all;
  }

  /// Compares along one direction: with the step asked for; where that fails with smaller ones, which a kink nearby does
  /// not reach; and where those fail too, with the slopes to both sides.
  bool each_step(const Scalar& s, std::span<const Tensor> inputs, const Vectors& direction, int order, int input,
                 std::int64_t element, double analytic, double size) {
    double numeric = 0, error = INFINITY;
    for (const double shrink : {1.0, 1e-2}) {
      const double n = slope(s, inputs, direction, options_.step * shrink), e = relative(analytic, n, size);
      if (e < error) {
        error = e;
        numeric = n;
      }
      if (error <= tolerance(order)) {
        note(order, input, element, analytic, numeric, error);
        return true;
      }
    }
    if (on_kink(s, inputs, direction, analytic, size, tolerance(order))) {
      ++report.kinks;
      return true;
    }
    note(order, input, element, analytic, numeric, error);
    report.ok = false;
    return false;
  }

  /// One-sided slopes at two small steps. On a kink they differ from each other by the same amount at both steps; beside
  /// one, or for a smooth function, the difference vanishes with the step.
  static bool on_kink(const Scalar& s, std::span<const Tensor> inputs, const Vectors& direction, double analytic, double size,
                      double tolerance) {
    const double middle = evaluate(s, inputs);
    const auto one_sided = [&](double h) { return (evaluate(s, moved(inputs, direction, h)) - middle) / h; };
    const double right = one_sided(1e-6), left = one_sided(-1e-6), nearer_right = one_sided(1e-8), nearer_left = one_sided(-1e-8);
    const double gap = std::abs(right - left), nearer_gap = std::abs(nearer_right - nearer_left);
    const double scale = std::max({std::abs(left), std::abs(right), 0.01 * size, 1e-8});
    if (gap < 1e-3 * scale || std::abs(gap - nearer_gap) > 1e-3 * gap + 1e-6 * scale) return false;
    const double slack = std::max(tolerance, 1e-5) * scale;  // one-sided differences are only good to the first order
    return analytic >= std::min(left, right) - slack && analytic <= std::max(left, right) + slack;
  }

  /// Keeps the worst derivative, measured against its tolerance.
  void note(int order, int input, std::int64_t element, double analytic, double numeric, double error) {
    if (report.order != 0 && error / tolerance(order) <= report.error / tolerance(report.order)) return;
    report.order = order;
    report.create_graph = create_graph;
    report.input = input;
    report.element = element;
    report.analytic = analytic;
    report.numeric = numeric;
    report.error = error;
  }

  std::vector<Tensor> inputs_;
  const GradcheckOptions& options_;
  Generator random_;
};

/// Gradients of <cotangent, y>, undefined where y does not depend on an x.
std::vector<Tensor> gradient_of(const Tensor& y, std::span<const Tensor> xs, const Tensor& cotangent, bool create_graph) {
  if (!y.tracked()) return std::vector<Tensor>(xs.size());
  return grad(y, xs, {.retain_graph = true, .create_graph = create_graph, .allow_unused = true, .cotangent = cotangent});
}

void check_first(Checker& checker, const MultiFunction& f, const Tensor& weights) {
  const Scalar s{[&](std::span<const Tensor> x) {
                   const NoGrad quiet;
                   return sum(f(x) * weights);
                 },
                 [&](std::span<const Tensor> x) { return gradient_of(f(x), x, weights, checker.create_graph); }};
  checker.check(s, checker.inputs(), 1);
}

/// The gradient is a function of the inputs and of the cotangent: its weighted sum is differentiated once more.
void check_second(Checker& checker, const MultiFunction& f, const Tensor& weights) {
  std::vector<Tensor> points = checker.inputs();
  points.push_back(weights);
  std::vector<Tensor> mix;
  for (const Tensor& x : checker.inputs()) mix.push_back(uniform(x.shape(), -1, 1, f64, checker.random()));
  const auto weighted = [&](std::span<const Tensor> x, std::span<const Tensor> variables) {
    const auto own = variables.first(variables.size() - 1);
    const std::vector<Tensor> g = gradient_of(f(own), own, x.back(), true);
    Tensor total = scalar(0, f64);
    for (std::size_t i = 0; i < g.size(); ++i)
      if (g[i].defined()) total = total + sum(g[i] * mix[i]);
    return total;
  };
  const Scalar s{[&](std::span<const Tensor> x) {
                   std::vector<Tensor> variables;
                   for (const Tensor& t : x) variables.push_back(variable(t));
                   return weighted(x, variables).detach();
                 },
                 [&](std::span<const Tensor> x) { return gradient_of(weighted(x, x), x, Tensor(), false); }};
  checker.check(s, points, 2);
}

}  // namespace

std::string GradcheckReport::str() const {
  if (!problem.empty()) return problem;
  std::string where = input < 0 ? "along a random direction" : fmt::format("input {} element {}", input, element);
  const std::string at_kinks = kinks ? fmt::format("; {} element{} on a kink, slope between the one-sided ones", kinks, kinks == 1 ? "" : "s") : "";
  if (order == 0) return "gradcheck passed" + (kinks ? at_kinks : "; nothing to check");
  return fmt::format("gradcheck {}: order {}{}, {}: analytic {:.12g}, numeric {:.12g}, relative error {:.3g}{}",
                     ok ? "passed; worst" : "FAILED", order, create_graph ? " with create_graph" : "", where, analytic, numeric, error, at_kinks);
}

std::ostream& operator<<(std::ostream& out, const GradcheckReport& report) { return out << report.str(); }

GradcheckReport gradcheck(const MultiFunction& f, std::vector<Tensor> inputs, const GradcheckOptions& options) {
  if (options.order < 1 || options.order > 2) fail<ValueError>("gradcheck", fmt::format("order must be 1 or 2, got {}", options.order));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dtype() != f64)
      fail<DTypeError>("gradcheck", fmt::format("input {} must be float64, got {}", i, describe(inputs[i])));
    inputs[i] = inputs[i].detach();
  }
  Checker checker(std::move(inputs), options);
  const auto run = [&] {
    const NoGrad quiet;
    const Training as_recorded(true);
    return f(checker.inputs());
  };
  const Tensor y = run();
  if (y.dtype() != f64) {
    checker.report.ok = false;
    checker.report.problem = fmt::format("gradcheck FAILED: the function gave {}, not float64", describe(y));
    return checker.report;
  }
  if (!same_bits(y, run())) {
    checker.report.ok = false;
    checker.report.problem = "gradcheck FAILED: the function gave two different values for the same inputs";
    return checker.report;
  }
  const auto first = [&] {
    if (options.probe == Probe::jacobian) {
      for (std::int64_t k = 0; k < y.numel(); ++k) {
        Tensor basis = zeros(y.shape(), f64);
        basis.mutable_values<double>()[static_cast<std::size_t>(k)] = 1;
        check_first(checker, f, basis);
      }
    } else {
      check_first(checker, f, uniform(y.shape(), -1, 1, f64, checker.random()));
    }
  };
  first();
  if (options.order == 1) return checker.report;
  // A rule may have two ways: a fast one, and one in ops that can be differentiated again. Differences of the second way's
  // gradients only tell that it agrees with itself, so its gradients are held against those of the function too.
  const std::int64_t kinks = std::exchange(checker.report.kinks, 0);
  checker.create_graph = true;
  first();
  checker.report.kinks = std::max(kinks, checker.report.kinks);
  checker.create_graph = false;
  check_second(checker, f, uniform(y.shape(), -1, 1, f64, checker.random()));
  return checker.report;
}

}  // namespace ebb
