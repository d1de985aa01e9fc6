// gradcheck: are the gradients of a function right? In float64, against differences.
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/autograd/jacobian.h>
#include <ebb/graph/given.h>

namespace ebb {

/// How the derivative is probed.
enum class Probe {
  direction,  ///< along random directions through all elements of an input at once: cheap for any size
  elements,   ///< each input element in turn, against a random weighting of the outputs
  jacobian,   ///< each input element against each output element
};

/// How hard gradcheck() looks.
struct GradcheckOptions {
  /// 2 also checks the gradients as they are made to be differentiated again (some rules then go another way), and
  /// their own gradients, in the inputs and in the cotangent; and forward mode against backward
  int order = 1;
  Probe probe = Probe::direction;  ///< along what
  int directions = 3;              ///< random directions to try with Probe::direction
  double tolerance = 1e-6;         ///< largest relative error at order 1
  double tolerance2 = 1e-5;        ///< largest relative error at order 2
  double absolute = 0;             ///< error allowed beside the relative one, per unit that an element moves
  double step = 1e-4;              ///< of the differences that are tried first, relative to max(1, |x|)
  double repeat = 0;               ///< largest relative difference between two runs of the function, or of its gradient
  /// With Probe::direction: an error of a single element by this part of its input's size (see GradcheckReport::sees)
  /// must be seen for certain. Directions are split over fewer elements until it is. 0: what the directions give
  double sees = 0;
  std::uint64_t seed = 1;               ///< of the directions
  std::vector<std::string> names = {};  ///< of the inputs, for the report; else those of variables
};

/// What a check found; converts to true when all is well, prints what differs.
struct GradcheckReport {
  bool ok = true;                    ///< nothing was found wrong, and nothing was left open
  int order = 0;                     ///< of the worst derivative
  bool create_graph = false;         ///< the worst derivative is one of a gradient that is to be differentiated again
  int input = -1;                    ///< of the worst derivative; -1 for a direction through several elements
  std::int64_t element = -1;         ///< of that input
  double analytic = 0, numeric = 0;  ///< the derivatives that differ most
  double error = 0;                  ///< its relative error: the largest that was seen
  std::int64_t kinks =
      0;  ///< elements that lie found on a kink, where any slope between the two one-sided ones is right
  std::int64_t unsure = 0;  ///< derivatives that the differences could not tell: "cannot tell" unless others are wrong
  /// A single element of a gradient that is wrong by more than this is seen for certain, whichever it is: relative to
  /// the larger of its own value and the median of its input's (in units of max(1, |x|)). 0 where nothing could be
  /// missed so
  double sees = 0;
  /// One wrong derivative.
  struct Wrong {
    int order = 0;                     ///< 1 or 2
    int input = -1;                    ///< which; at order 2 one more than there are inputs stands for the cotangent
    std::int64_t element = -1;         ///< of the input, row-major
    std::string where;                 ///< the input's name or number, and the element's indices
    double analytic = 0, numeric = 0;  ///< what was claimed, and what differences give
    std::string what;                  ///< empty, or what is wrong beside the slope
  };
  std::vector<Wrong> wrong;                      ///< the first few
  std::int64_t wrong_count = 0;                  ///< of all that were found
  bool counted = true;                           ///< every element was looked at: wrong_count is the whole number
  std::string problem;                           ///< what went wrong otherwise: a function that is not the same twice
  explicit operator bool() const { return ok; }  ///< true when nothing was found wrong, and nothing was left open
  /// For EXPECT_TRUE(gradcheck(...)): GoogleTest's AssertionResult, with the report as its message.
  template <class Result>
    requires requires(const Result& r) {
      { r.failure_message() } -> std::convertible_to<const char*>;
    }
  operator Result() const {
    Result result(ok);
    result << str();
    return result;
  }
  std::string str() const;  ///< for people: what is wrong, or how much was seen
  friend std::ostream& operator<<(std::ostream& out, const GradcheckReport& report);  ///< prints str()
};

/// Checks the gradients of f at `inputs` (float64 tensors, else DTypeError; at least one, else ValueError).
///
/// A derivative is compared with central differences at `step`. Where that does not agree, steps from 0.25 to the
/// rounding of x are extrapolated, and the estimate with the least error of its own is taken, with the noise of the
/// function measured; where that does not agree either, the slopes to both sides are compared: on a kink (relu, abs,
/// max at their corner) a slope between the two passes, and is counted. What the differences do not settle is reported
/// as "cannot tell". Errors are relative to the derivative and to the size of its own input's gradient, never to that
/// of another input.
///
/// Also checked: that the function gives the same value twice and with NoGrad, that it leaves its inputs alone, and
/// that the gradient is linear in the cotangent, for cotangents of size 1, 1e8 and 1e-8. Layers keep their state
/// (HoldState). Time: a direction takes 4 runs of f, up to 150 where it is hard; one that fails is halved to find the
/// elements, with at most 2,000 runs more.
GradcheckReport gradcheck(const MultiFunction& f, std::vector<Tensor> inputs, const GradcheckOptions& options = {});

namespace detail {
[[noreturn]] void refuse_arity(std::size_t inputs);

template <class F, std::size_t... i>
Tensor call_with(F& f, std::span<const Tensor> x, std::index_sequence<i...>) {
  return f(x[i]...);
}
template <class F, std::size_t... i>
constexpr bool takes(std::index_sequence<i...>) {
  return std::invocable<F&, decltype((static_cast<void>(i), std::declval<const Tensor&>()))...>;
}
}  // namespace detail

/// The same for a function that takes its inputs one by one, up to eight: gradcheck([](auto& x, auto& w) { ... }, {x,
/// w}). Throws ValueError when it takes another number than there are.
template <class F>
  requires(!std::invocable<F, std::span<const Tensor>>)
GradcheckReport gradcheck(F f, std::vector<Tensor> inputs, const GradcheckOptions& options = {}) {
  detail::expect_given(f, "gradcheck");
  MultiFunction many;
  const auto choose = [&]<std::size_t n>(std::integral_constant<std::size_t, n>) {
    using Places = std::make_index_sequence<n>;
    if constexpr (detail::takes<F>(Places{}))
      if (inputs.size() == n)
        many = [&f](std::span<const Tensor> x) -> Tensor { return detail::call_with(f, x, Places{}); };
  };
  [&]<std::size_t... n>(std::index_sequence<n...>) {
    (choose(std::integral_constant<std::size_t, n + 1>{}), ...);
  }(std::make_index_sequence<8>{});
  if (!many) detail::refuse_arity(inputs.size());
  return gradcheck(many, std::move(inputs), options);
}

}  // namespace ebb
