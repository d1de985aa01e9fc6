// The derivative of a function along a line by differences, and how far it can be trusted. Part of gradcheck.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb::detail::checking {

using Rows =
    std::vector<std::vector<double>>;  ///< numbers for the elements of each input; an empty row: an input that stays

/// A weighted sum of what a function gives: the scalar whose gradient is checked.
struct Probed {
  std::function<std::vector<Tensor>(std::span<const Tensor>)> outputs;  ///< float64
  std::vector<Tensor> weights;                                          ///< of the outputs' shapes
};

/// What a Probed gives at the point itself.
struct Base {
  Base(const Probed& f, std::span<const Tensor> inputs);
  std::vector<Tensor> outputs;
  double size = 0;   ///< sum of |weight * output|
  double noise = 0;  ///< of the sum, from the rounding of the outputs alone
};

/// A slope by differences less the claimed one, and a bound of its error by its own account.
struct Estimate {
  double off = std::numeric_limits<double>::quiet_NaN();
  double error = std::numeric_limits<double>::infinity();
};

enum class Verdict : std::uint8_t {
  right,
  kink,  ///< the slope jumps here, and the claimed one lies between the two
  wrong,
  unsure,  ///< the differences do not settle
};

struct Judgment {
  Verdict verdict = Verdict::unsure;
  Estimate estimate = {};
  double gap = 0;  ///< between the slopes to both sides, on a kink
};

/// What a slope is held against.
struct Bounds {
  double scale = 0;      ///< of the claimed slope
  double tolerance = 0;  ///< relative to scale
  double absolute = 0;   ///< allowed beside that
  double step = 0;       ///< to try first
  bool quick = false;    ///< a clear difference at the first step is enough for "wrong"
};

/// The function along x + t d. All differences are of the function less the claimed gradient times the exact move, so
/// that the rounding of x + t d cancels.
class Line {
 public:
  Line(const Probed& f, const Base& base, std::span<const Tensor> inputs, const Rows& gradient, const Rows& direction);
  /// Two central differences and Richardson's combination of them, as ever; where that does not agree, a ladder of
  /// steps with Ridders' extrapolation and a measured noise level; where that does not either, the slopes to both
  /// sides.
  Judgment judge(const Bounds& bounds);
  std::int64_t evaluations() const { return evaluations_; }

 private:
  struct At {
    double change = 0, claimed = 0;  // of the function since t = 0, and what the gradient says
  };
  At at(double t);
  double rest(double t) {
    const At a = at(t);
    return a.change - a.claimed;
  }
  double central(double h) { return (rest(h) - rest(-h)) / (2 * h); }
  bool staircase();
  double measured_noise();
  Estimate both_sides(double enough, double scale, double noise, double& variation);
  Estimate one_side(double sign, double scale, double noise);

  const Probed& f_;
  const Base& base_;
  std::span<const Tensor> inputs_;
  const Rows& gradient_;
  const Rows& direction_;
  double shortest_ = 0;  // smaller t would be lost in the rounding of x
  std::int64_t evaluations_ = 0;
};

}  // namespace ebb::detail::checking
