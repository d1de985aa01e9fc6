// The comparing part of gradcheck: a claimed gradient against differences, direction by direction or element by
// element.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ebb/autograd/differences.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/ops/random.h>

namespace ebb::detail::checking {

/// A Probed with the gradient that is to be checked.
struct Claim {
  Probed probed;
  std::function<std::vector<Tensor>(std::span<const Tensor>)> gradient;  // one per input, undefined where zero
};

/// Elements [begin, end) of an input.
struct Range {
  std::size_t input;
  std::size_t begin, end;
};
using Group = std::vector<Range>;

class Checker {
 public:
  Checker(std::vector<Tensor> inputs, const GradcheckOptions& options)
      : options_(options), inputs_(std::move(inputs)), random_(options.seed) {}

  /// Compares the gradient of a claim with differences. At order 2 the cotangent comes as one more input.
  void check(const Claim& claim, std::span<const Tensor> inputs, int order);
  /// Notes what is wrong with one element, or with none of them (input < 0).
  void refute(int order, int input, std::int64_t element, double analytic, double numeric, std::string what = {});
  void fault(std::string problem) {
    report.ok = false;
    if (report.problem.empty()) report.problem = "gradcheck FAILED: " + std::move(problem);
  }

  void finish() {
    report.kinks = static_cast<std::int64_t>(kinks_.size());
    if (report.unsure > 0) report.ok = false;
  }

  const GradcheckOptions& options() const { return options_; }
  std::vector<Tensor>& inputs() { return inputs_; }
  Generator& random() { return random_; }
  GradcheckReport report;
  bool create_graph = false;  // of the gradients that are being checked

 private:
  /// One claim at one point.
  struct Task {
    const Claim& claim;
    std::span<const Tensor> inputs;
    int order;
    Rows gradient;
    Base base;
    std::vector<double> size,
        median;  // of each input's gradient, per unit: the largest; the median of those not 0, or 1e-6 of it
  };

  double tolerance(int order) const { return order == 1 ? options_.tolerance : options_.tolerance2; }
  static double unit(const Task& t, std::size_t input, std::size_t j) {
    return std::max(1.0, std::abs(t.inputs[input].values<double>()[j]));
  }
  /// A random direction over a group, and what the gradient says of it.
  struct Direction {
    Rows rows;
    double analytic = 0;  // the slope
    double scale = 0;     // the largest share of a single element in it
    double furthest = 0;  // how far the element goes that moves most
  };
  Direction draw(const Task& t, const Group& group, double median);
  Judgment judge(const Task& t, const Direction& d, bool quick, std::int64_t& runs) const;

  void sweep(Task& t, const Group& group);
  bool along(Task& t, const Group& group, double median, double& sees);
  bool element(Task& t, std::size_t input, std::size_t j, bool quick);
  bool find(Task& t, const Group& group, double median, std::int64_t& runs);
  void note(const Task& t, int input, std::int64_t element, double analytic, const Estimate& e, double scale);

  const GradcheckOptions& options_;
  std::vector<Tensor> inputs_;
  Generator random_;
  std::set<std::tuple<int, std::size_t, std::size_t>> kinks_;  // order, input, element
};

}  // namespace ebb::detail::checking
