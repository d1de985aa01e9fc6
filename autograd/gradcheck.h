// gradcheck: are the gradients of a function right? In float64, against central differences.
#pragma once
#include <concepts>
#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/autograd/jacobian.h>

namespace ebb {

/// How the derivative is probed.
enum class Probe {
  direction,  ///< along random directions through all inputs at once: cheap for any size
  elements,   ///< each input element in turn, against a random weighting of the outputs
  jacobian,   ///< each input element against each output element
};

/// How hard gradcheck() looks.
struct GradcheckOptions {
  /// 2 also checks the gradients as they are made to be differentiated again (some rules then go another way), and their
  /// own gradients, in the inputs and in the cotangent
  int order = 1;
  Probe probe = Probe::direction;  ///< along what
  int directions = 3;              ///< random directions to try with Probe::direction
  double tolerance = 1e-6;         ///< largest relative error at order 1
  double tolerance2 = 1e-5;        ///< largest relative error at order 2
  double step = 1e-4;              ///< of the differences, relative to max(1, |x|); two step sizes are combined
  std::uint64_t seed = 1;  ///< of the directions
};

/// What a check found; converts to true when all is well, prints what differs.
struct GradcheckReport {
  bool ok = true;  ///< nothing was found wrong
  int order = 0;               ///< of the worst derivative
  bool create_graph = false;   ///< the worst derivative is one of a gradient that is to be differentiated again
  int input = -1;              ///< of the worst derivative; -1 for a direction through all
  std::int64_t element = -1;   ///< of that input
  double analytic = 0, numeric = 0;  ///< the derivatives that differ most
  double error = 0;            ///< its relative error: the largest that was seen
  std::int64_t kinks = 0;      ///< elements that lie found on a kink, where any slope between the two one-sided ones is right
  std::string problem;         ///< what went wrong otherwise: a missing gradient, a function that is not the same twice
  explicit operator bool() const { return ok; }  ///< true when nothing was found wrong
  std::string str() const;  ///< one line for people
  friend std::ostream& operator<<(std::ostream& out, const GradcheckReport& report);  ///< prints str()
};

/// A difference that straddles a kink (relu, abs, max near their corner) is taken again with smaller steps. On the kink
/// itself a slope between the left and the right one passes, and is counted. A direction that fails is taken apart, so
/// that the report names the element.
///
/// Checks the gradients of f at `inputs` (float64 tensors, else DTypeError). Relative errors are measured against the
/// larger of the two derivatives, but not against less than a hundredth of the gradient's own size.
GradcheckReport gradcheck(const MultiFunction& f, std::vector<Tensor> inputs, const GradcheckOptions& options = {});

/// The same for a function that takes its inputs one by one: gradcheck([](auto& x, auto& w) { ... }, {x, w}).
template <class F>
  requires(!std::invocable<F, std::span<const Tensor>>)
GradcheckReport gradcheck(F f, std::vector<Tensor> inputs, const GradcheckOptions& options = {}) {
  using T = const Tensor&;
  return gradcheck(MultiFunction([f = std::move(f)](std::span<const Tensor> x) -> Tensor {
                     if constexpr (std::invocable<F, T>) return f(x[0]);
                     else if constexpr (std::invocable<F, T, T>) return f(x[0], x[1]);
                     else if constexpr (std::invocable<F, T, T, T>) return f(x[0], x[1], x[2]);
                     else if constexpr (std::invocable<F, T, T, T, T>) return f(x[0], x[1], x[2], x[3]);
                     else return f(x[0], x[1], x[2], x[3], x[4]);
                   }),
                   std::move(inputs), options);
}

}  // namespace ebb
