// Arithmetic with broadcasting, and functions of one number.
#include <cmath>
#include <numbers>

#include <ebb/graph/apply.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/functions.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::float_map;
using detail::float_zip;
using detail::Loop;

// ---- two inputs ----------------------------------------------------------------------------------------------------

struct Add {
  static constexpr std::string_view name = "add";
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x + y; });
  }
  Tensor backward(const Saved&, const Tensor& g, int) const { return g; }
};

struct Sub {
  static constexpr std::string_view name = "sub";
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x - y; });
  }
  Tensor backward(const Saved&, const Tensor& g, int i) const { return i == 0 ? g : -g; }
};

struct Mul {
  static constexpr std::string_view name = "mul";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x * y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const { return g * s.input(1 - i); }
};

struct Div {
  static constexpr std::string_view name = "div";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x / y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor b = s.input(1);
    return i == 0 ? g / b : -g * s.input(0) / square(b);
  }
};

struct Pow {
  static constexpr std::string_view name = "pow";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip<Loop::calls>(name, a, b, [](auto x, auto y) { return std::pow(x, y); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor a = s.input(0), b = s.input(1);
    return i == 0 ? g * b * pow(a, b - 1) : g * pow(a, b) * log(a);
  }
};

/// 1 where x > y, one half at a tie, else 0: the share of the gradient that the larger input takes.
struct Share {
  static constexpr std::string_view name = "share";
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) {
      using T = decltype(x);
      return x > y ? T(1) : x == y ? T(0.5) : T(0);
    });
  }
};

struct Maximum {
  static constexpr std::string_view name = "maximum";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return (x > y) | (x != x) ? x : y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return g * apply(Share{}, s.input(i).detach(), s.input(1 - i).detach());
  }
};

struct Minimum {
  static constexpr std::string_view name = "minimum";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return (x < y) | (x != x) ? x : y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return g * apply(Share{}, s.input(1 - i).detach(), s.input(i).detach());
  }
};

// ---- one input -----------------------------------------------------------------------------------------------------

struct Affine {
  static constexpr std::string_view name = "affine";
  double scale, shift;
  Attributes attributes() const { return {{"scale", scale}, {"shift", shift}}; }
  bool operator==(const Affine&) const = default;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [a = scale, b = shift](auto v) {
      using T = decltype(v);
      return v * static_cast<T>(a) + static_cast<T>(b);
    });
  }
  Tensor backward(const Saved&, const Tensor& g) const { return scale == 1 ? g : affine(g, scale, 0); }
};

struct PowScalar {
  static constexpr std::string_view name = "pow_scalar";
  static constexpr Keeps keeps = Keeps::inputs;
  double exponent;
  Attributes attributes() const { return {{"exponent", exponent}}; }
  bool operator==(const PowScalar&) const = default;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [e = exponent](auto v) { return std::pow(v, static_cast<decltype(v)>(e)); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * affine(pow(s.input(0), exponent - 1), exponent, 0); }
};

struct Exp {
  static constexpr std::string_view name = "exp";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::exp_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * s.output(); }
};

struct Log {
  static constexpr std::string_view name = "log";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return std::log(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g / s.input(0); }
};

struct Log1p {
  static constexpr std::string_view name = "log1p";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return std::log1p(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g / (s.input(0) + 1); }
};

struct Sqrt {
  static constexpr std::string_view name = "sqrt";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return std::sqrt(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * 0.5 / s.output(); }
};

struct Square {
  static constexpr std::string_view name = "square";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return v * v; });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * (s.input(0) * 2); }
};

struct Reciprocal {
  static constexpr std::string_view name = "reciprocal";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return 1 / v; });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return -g * square(s.output()); }
};

/// -1, 0 or 1: the slope of abs.
struct Sign {
  static constexpr std::string_view name = "sign";
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) {
      using T = decltype(v);
      return v > 0 ? T(1) : v < 0 ? T(-1) : T(0);
    });
  }
};

struct Abs {
  static constexpr std::string_view name = "abs";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return std::abs(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * apply(Sign{}, s.input(0).detach()); }
};

struct Sin {
  static constexpr std::string_view name = "sin";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return std::sin(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * cos(s.input(0)); }
};

struct Cos {
  static constexpr std::string_view name = "cos";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return std::cos(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return -g * sin(s.input(0)); }
};

struct Erf {
  static constexpr std::string_view name = "erf";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return std::erf(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return g * exp(-square(s.input(0))) * (2 * std::numbers::inv_sqrtpi);
  }
};

/// g (1 - y^2), the gradient of tanh in one pass.
struct TanhGrad {
  static constexpr std::string_view name = "tanh_grad";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return float_zip(name, g, y, [](auto d, auto v) { return d * (1 - v * v); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor y = s.input(1);
    return i == 0 ? apply(TanhGrad{}, g, y) : g * s.input(0) * (-2 * y);
  }
};

struct Tanh {
  static constexpr std::string_view name = "tanh";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::tanh_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::tanh_grad(g, s.output()); }
};

/// g y (1 - y), the gradient of sigmoid in one pass.
struct SigmoidGrad {
  static constexpr std::string_view name = "sigmoid_grad";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return float_zip(name, g, y, [](auto d, auto v) { return d * v * (1 - v); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor y = s.input(1);
    return i == 0 ? apply(SigmoidGrad{}, g, y) : g * s.input(0) * (1 - 2 * y);
  }
};

struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::sigmoid_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::sigmoid_grad(g, s.output()); }
};

struct Softplus {
  static constexpr std::string_view name = "softplus";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [](auto v) { return (v > 0 ? v : 0) + std::log1p(std::exp(-std::abs(v))); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * sigmoid(s.input(0)); }
};

/// g where y > 0, else 0: the gradient of relu in one pass. Linear in g, and flat in y on both sides of the kink.
struct ReluGrad {
  static constexpr std::string_view name = "relu_grad";
  detail::Held y;
  Attributes attributes() const { return {{"y", y.value()}}; }
  Tensor forward(const Tensor& g) const {
    return float_zip(name, g, y.value(), [](auto d, auto v) { return v > 0 ? d : 0; });
  }
  Tensor backward(const Saved&, const Tensor& g) const { return apply(ReluGrad{y.unchanged(name, "outputs of relu")}, g); }
};

struct Relu {
  static constexpr std::string_view name = "relu";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::relu_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::relu_grad(g, s.output()); }
};

}  // namespace

namespace detail {
Tensor relu_grad(const Tensor& g, const Tensor& y) { return apply(ReluGrad{y.detach()}, g); }
Tensor sigmoid_grad(const Tensor& g, const Tensor& y) { return apply(SigmoidGrad{}, g, y); }
Tensor tanh_grad(const Tensor& g, const Tensor& y) { return apply(TanhGrad{}, g, y); }
}  // namespace detail

Tensor add(const Tensor& a, const Tensor& b) { return apply(Add{}, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return apply(Sub{}, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return apply(Mul{}, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return apply(Div{}, a, b); }
Tensor pow(const Tensor& a, const Tensor& b) { return apply(Pow{}, a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return apply(Maximum{}, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return apply(Minimum{}, a, b); }
Tensor affine(const Tensor& x, double scale, double shift) { return apply(Affine{scale, shift}, x); }
Tensor operator/(double a, const Tensor& b) { return affine(reciprocal(b), a, 0); }

Tensor pow(const Tensor& x, double exponent) {
  if (exponent == 0) return ones_like(x);
  if (exponent == 1) return x;
  if (exponent == 2) return square(x);
  return apply(PowScalar{exponent}, x);
}

Tensor exp(const Tensor& x) { return apply(Exp{}, x); }
Tensor log(const Tensor& x) { return apply(Log{}, x); }
Tensor log1p(const Tensor& x) { return apply(Log1p{}, x); }
Tensor sqrt(const Tensor& x) { return apply(Sqrt{}, x); }
Tensor square(const Tensor& x) { return apply(Square{}, x); }
Tensor reciprocal(const Tensor& x) { return apply(Reciprocal{}, x); }
Tensor abs(const Tensor& x) { return apply(Abs{}, x); }
Tensor sin(const Tensor& x) { return apply(Sin{}, x); }
Tensor cos(const Tensor& x) { return apply(Cos{}, x); }
Tensor erf(const Tensor& x) { return apply(Erf{}, x); }
Tensor tanh(const Tensor& x) { return apply(Tanh{}, x); }
Tensor sigmoid(const Tensor& x) { return apply(Sigmoid{}, x); }
Tensor softplus(const Tensor& x) { return apply(Softplus{}, x); }
Tensor relu(const Tensor& x) { return apply(Relu{}, x); }

}  // namespace ebb
