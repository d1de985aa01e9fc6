// Arithmetic with broadcasting, and functions of one number.
// (over 400 lines because every op has its struct)
#include <array>
#include <cmath>
#include <numbers>

#include <ebb/graph/apply.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::chain_div;
using detail::chain_mul;
using detail::float_map;
using detail::float_zip;
using detail::Loop;

// ---- links of the chain rule ---------------------------------------------------------------------------------------

struct ChainMul {
  static constexpr std::string_view name = "chain_mul";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& g, const Tensor& d) const {
    return float_zip<Loop::whole>(name, g, d, [](auto x, auto y) { return (x == 0) | (y == 0) ? 0 : x * y; });
  }
  Tensor backward(const Saved& s, const Tensor& v, int i) const { return chain_mul(v, s.input(1 - i)); }
};

struct ChainDiv {
  static constexpr std::string_view name = "chain_div";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& g, const Tensor& b) const {
    return float_zip<Loop::whole>(name, g, b, [](auto x, auto y) { return x == 0 ? 0 : x / y; });
  }
  Tensor backward(const Saved& s, const Tensor& v, int i) const {
    const Tensor d = chain_div(v, s.input(1));
    return i == 0 ? d : -chain_mul(d, chain_div(s.input(0), s.input(1)));
  }
};

// ---- two inputs ----------------------------------------------------------------------------------------------------

struct Add {
  static constexpr std::string_view name = "add";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x + y; });
  }
  Tensor backward(const Saved&, const Tensor& g, int) const { return g; }
};

struct Sub {
  static constexpr std::string_view name = "sub";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x - y; });
  }
  Tensor backward(const Saved&, const Tensor& g, int i) const { return i == 0 ? g : -g; }
};

struct Mul {
  static constexpr std::string_view name = "mul";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x * y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const { return g * s.input(1 - i); }
};

struct Div {
  static constexpr std::string_view name = "div";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return x / y; });
  }
  // -g a / b^2 as (g / b) (a / b): neither leaves the range of its type unless a gradient or the quotient does
  std::array<Tensor, 2> backward(const Saved& s, const Tensor& g) const {
    const Tensor b = s.input(1), d = chain_div(g, b);
    return {d, s.wants(1) ? -chain_mul(d, s.input(0) / b) : Tensor()};
  }
};

struct Pow {
  static constexpr std::string_view name = "pow";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip<Loop::calls>(name, a, b, [](auto x, auto y) { return std::pow(x, y); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor a = s.input(0), b = s.input(1);
    if (i == 0) return chain_mul(g, chain_mul(b, pow(a, b - 1)));
    const Tensor zero = scalar(0, a.dtype()),
                 base = where(equal(a, zero), scalar(1, a.dtype()), a);  // 0^b does not change
    return chain_mul(g, chain_mul(pow(a, b), log(base)));
  }
};

struct Atan2 {
  static constexpr std::string_view name = "atan2";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& y, const Tensor& x) const {
    return float_zip<Loop::calls>(name, y, x, [](auto v, auto w) { return std::atan2(v, w); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor y = s.input(0), x = s.input(1), d = chain_div(chain_mul(g, i == 0 ? x : y), square(x) + square(y));
    return i == 0 ? d : -d;
  }
};

/// 1 where x > y, one half at a tie, else 0: the share of the gradient that the larger input takes.
struct Share {
  static constexpr std::string_view name = "share";
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip<Loop::whole>(name, a, b, [](auto x, auto y) {
      using T = decltype(x);
      return x > y ? T(1) : x == y ? T(0.5) : T(0);
    });
  }
};

struct Maximum {
  static constexpr std::string_view name = "maximum";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return (x > y) | (x != x) ? x : y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return chain_mul(g, apply(Share{}, s.input(i).detach(), s.input(1 - i).detach()));
  }
};

struct Minimum {
  static constexpr std::string_view name = "minimum";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return float_zip(name, a, b, [](auto x, auto y) { return (x < y) | (x != x) ? x : y; });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return chain_mul(g, apply(Share{}, s.input(1 - i).detach(), s.input(i).detach()));
  }
};

// ---- one input -----------------------------------------------------------------------------------------------------

/// x * scale + shift. A divisor other than 1 takes the place of its reciprocal, the scale: most reciprocals are not
/// exact.
struct Affine {
  static constexpr std::string_view name = "affine";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  double scale, shift, divisor = 1;
  Attributes attributes() const { return {{"scale", scale}, {"shift", shift}}; }
  bool operator==(const Affine&) const = default;
  Tensor forward(const Tensor& x) const {
    if (divisor != 1) return float_map(name, x, [d = divisor](auto v) { return v / static_cast<decltype(v)>(d); });
    return float_map(name, x, [a = scale, b = shift](auto v) {
      using T = decltype(v);
      return v * static_cast<T>(a) + static_cast<T>(b);
    });
  }
  Tensor backward(const Saved&, const Tensor& g) const { return scale == 1 ? g : apply(Affine{scale, 0, divisor}, g); }
};

struct PowScalar {
  static constexpr std::string_view name = "pow_scalar";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  double exponent;
  Attributes attributes() const { return {{"exponent", exponent}}; }
  bool operator==(const PowScalar&) const = default;
  Tensor forward(const Tensor& x) const {
    return float_map<Loop::calls>(name, x, [e = exponent](auto v) { return std::pow(v, static_cast<decltype(v)>(e)); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return exponent == 0 ? zeros_like(g) : chain_mul(g, affine(pow(s.input(0), exponent - 1), exponent, 0));
  }
};

struct Exp {
  static constexpr std::string_view name = "exp";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::exp_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return chain_mul(g, s.output()); }
};

struct Log {
  static constexpr std::string_view name = "log";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::log_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return chain_div(g, s.input(0)); }
};

struct Log1p {
  static constexpr std::string_view name = "log1p";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::log1p_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return chain_div(g, s.input(0) + 1); }
};

struct Sqrt {
  static constexpr std::string_view name = "sqrt";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return std::sqrt(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return chain_div(g * 0.5, s.output()); }
};

struct Rsqrt {
  static constexpr std::string_view name = "rsqrt";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return 1 / std::sqrt(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor y = s.output();
    return chain_mul(chain_mul(chain_mul(g * -0.5, y), y), y);
  }
};

struct Square {
  static constexpr std::string_view name = "square";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return v * v; });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * (s.input(0) * 2); }
};

struct Reciprocal {
  static constexpr std::string_view name = "reciprocal";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return 1 / v; });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor y = s.output();
    return -chain_mul(chain_mul(g, y), y);
  }
};

/// -1, 0 or 1: the slope of abs.
struct Sign {
  static constexpr std::string_view name = "sign";
  static constexpr Vmap vmap = Vmap::aligned;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) {
      using T = decltype(v);
      return v > 0 ? T(1) : v < 0 ? T(-1) : T(0);
    });
  }
};

struct Abs {
  static constexpr std::string_view name = "abs";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) { return std::abs(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return chain_mul(g, apply(Sign{}, s.input(0).detach())); }
};

/// sin (0 quarters) or cos (1) in float32: vectorized where the angle is not too large for it, else `exact`, as in
/// float64.
template <int quarters, class F>
Tensor trigonometric(std::string_view op, const Tensor& x, const F& exact) {
  const auto run = [](const detail::Map& m, std::int64_t begin, std::int64_t end) {
    std::int32_t far = 0;
    detail::simd([&]() EBB_INLINE {
      const float* __restrict in = static_cast<const float*>(m.x);
      float* __restrict out = static_cast<float*>(m.out);
      std::int32_t any = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        out[i] = detail::trig_of<quarters>(in[i]);
        any |= std::abs(in[i]) <= detail::trig_limit ? 0 : 1;
      }
      far = any;
    });
    const auto* in = static_cast<const float*>(m.x);
    for (std::int64_t i = begin; far && i < end; ++i)
      if (!(std::abs(in[i]) <= detail::trig_limit))
        static_cast<float*>(m.out)[i] = (*static_cast<const F*>(m.f))(in[i]);
  };
  return float_map(op, x, &exact, run, detail::map_run<double, double, Loop::calls, F>);
}

struct Sin {
  static constexpr std::string_view name = "sin";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return trigonometric<0>(name, x, [](auto v) { return std::sin(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * cos(s.input(0)); }
};

struct Cos {
  static constexpr std::string_view name = "cos";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return trigonometric<1>(name, x, [](auto v) { return std::cos(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return -g * sin(s.input(0)); }
};

struct Erf {
  static constexpr std::string_view name = "erf";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::erf_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return g * exp(-square(s.input(0))) * (2 * std::numbers::inv_sqrtpi);
  }
};

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return apply(Add{}, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return apply(Sub{}, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return apply(Mul{}, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return apply(Div{}, a, b); }
Tensor pow(const Tensor& a, const Tensor& b) { return apply(Pow{}, a, b); }
Tensor atan2(const Tensor& y, const Tensor& x) { return apply(Atan2{}, y, x); }
Tensor maximum(const Tensor& a, const Tensor& b) { return apply(Maximum{}, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return apply(Minimum{}, a, b); }
Tensor affine(const Tensor& x, double scale, double shift) { return apply(Affine{scale, shift}, x); }
Tensor operator/(const Tensor& x, double by) {
  int exponent = 0;
  if (std::abs(std::frexp(by, &exponent)) == 0.5 && std::abs(exponent) < 120)
    return affine(x, 1 / by, 0);  // a power of two
  return apply(Affine{1 / by, 0, by}, x);
}
Tensor operator/(double a, const Tensor& b) { return a == 1 ? reciprocal(b) : div(scalar(a, b.dtype()), b); }
Tensor detail::chain_mul(const Tensor& g, const Tensor& d) { return apply(ChainMul{}, g, d); }
Tensor detail::chain_div(const Tensor& g, const Tensor& b) { return apply(ChainDiv{}, g, b); }

Tensor pow(const Tensor& x, double exponent) {
  if (exponent == 1) return x;
  if (exponent == 2) return square(x);
  return apply(PowScalar{exponent}, x);
}

Tensor exp(const Tensor& x) { return apply(Exp{}, x); }
Tensor log(const Tensor& x) { return apply(Log{}, x); }
Tensor log1p(const Tensor& x) { return apply(Log1p{}, x); }
Tensor sqrt(const Tensor& x) { return apply(Sqrt{}, x); }
Tensor rsqrt(const Tensor& x) { return apply(Rsqrt{}, x); }
Tensor square(const Tensor& x) { return apply(Square{}, x); }
Tensor reciprocal(const Tensor& x) { return apply(Reciprocal{}, x); }
Tensor abs(const Tensor& x) { return apply(Abs{}, x); }
Tensor sin(const Tensor& x) { return apply(Sin{}, x); }
Tensor cos(const Tensor& x) { return apply(Cos{}, x); }
Tensor erf(const Tensor& x) { return apply(Erf{}, x); }

}  // namespace ebb
