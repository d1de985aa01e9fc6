// Three ops of one's own, each a plain struct, and the proof of their gradients at order 1 and 2. Exit code 1 if wrong.
#include <ebb/ebb.h>

#include <cmath>
#include <iostream>
using namespace ebb;

// Backward reads the output: the derivative of 2^x is ln 2 times the value itself. It works element by element
// (symmetric), so that forward mode can take backward's rule as it stands; gradcheck at order 2 would find if that was
// not so.
struct Exp2 {
  static constexpr std::string_view name = "exp2";
  static constexpr Keeps keeps = Keeps::output;
  static constexpr Tangent tangents = Tangent::symmetric;
  Tensor forward(const Tensor& x) const { return exp(x * std::log(2.0)); }
  Tensor backward(const Saved& saved, const Tensor& g) const { return g * saved.output() * std::log(2.0); }
};
Tensor exp2(const Tensor& x) { return ebb::apply(Exp2{}, x); }

// Two inputs that broadcast: the rule gives gradients of the output's shape for one input at a time, the engine sums.
struct Hypotenuse {
  static constexpr std::string_view name = "hypotenuse";
  static constexpr Keeps keeps = Keeps::inputs_and_output;
  static constexpr bool broadcasts = true;
  static constexpr Tangent tangents = Tangent::symmetric;
  Tensor forward(const Tensor& a, const Tensor& b) const { return sqrt(square(a) + square(b)); }
  Tensor backward(const Saved& saved, const Tensor& g, int i) const { return g * saved.input(i) / saved.output(); }
};
Tensor hypotenuse(const Tensor& a, const Tensor& b) { return ebb::apply(Hypotenuse{}, a, b); }

// State that forward makes and backward uses: here the mask of what lies above a threshold, held by the op itself.
struct Threshold {
  static constexpr std::string_view name = "threshold";
  double limit;
  Tensor mask = {};
  Tensor forward(const Tensor& x) {
    mask = cast(greater(x, limit), x.dtype());
    return x * mask;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return g * mask; }
};
Tensor threshold(const Tensor& x, double limit) { return ebb::apply(Threshold{limit}, x); }

int main() {
  const Tensor x = uniform({4, 3}, 0.2, 2, f64), row = uniform({3}, 0.2, 2, f64);
  bool all = true;
  const auto prove = [&](const char* what, const GradcheckReport& report) {
    std::cout << what << ": " << report << '\n';
    all = all && report;
  };
  prove("exp2", gradcheck([](auto& a) { return exp2(a); }, {x}, {.order = 2}));
  prove("hypotenuse", gradcheck([](auto& a, auto& b) { return hypotenuse(a, b); }, {x, row}, {.order = 2}));
  prove("threshold", gradcheck([](auto& a) { return square(threshold(a, 0.1)); }, {x}, {.order = 2}));
  return all ? 0 : 1;
}
