// Activation functions, and the gradients of those that have one in one pass.
#include <cmath>
#include <numbers>

#include <ebb/graph/batch.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::float_map;
using detail::float_zip;

/// g (1 - y^2), the gradient of tanh in one pass.
struct TanhGrad {
  static constexpr std::string_view name = "tanh_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return float_zip<detail::Loop::whole>(name, g, y, [](auto d, auto v) { return d * ((1 - v) * (1 + v)); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor y = s.input(1);
    return i == 0 ? apply(TanhGrad{}, g, y) : g * s.input(0) * (-2 * y);
  }
};

struct Tanh {
  static constexpr std::string_view name = "tanh";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::tanh_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::tanh_grad(g, s.output()); }
};

/// g y (1 - y), the gradient of sigmoid in one pass.
struct SigmoidGrad {
  static constexpr std::string_view name = "sigmoid_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return float_zip<detail::Loop::whole>(name, g, y, [](auto d, auto v) { return d * v * (1 - v); });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor y = s.input(1);
    return i == 0 ? apply(SigmoidGrad{}, g, y) : g * s.input(0) * (1 - 2 * y);
  }
};

struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::sigmoid_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::sigmoid_grad(g, s.output()); }
};

struct Softplus {
  static constexpr std::string_view name = "softplus";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(
        name, x, [](auto v) EBB_INLINE { return (v > 0 ? v : 0) + detail::log1p_of(detail::exp_of(-std::abs(v))); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * sigmoid(s.input(0)); }
};

/// g where y > 0, else slope g: the gradient of relu and leaky_relu in one pass. Linear in g, and flat in y on both
/// sides of the kink.
struct ReluGrad {
  static constexpr std::string_view name = "relu_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  detail::Held held;  // of relu its output, of leaky_relu its input
  double slope;
  Attributes attributes() const { return {{"y", held.value()}, {"slope", slope}}; }
  Tensor forward(const Tensor& g) const {
    const Tensor& y = held.value();
    if (slope == 0) return float_zip<detail::Loop::whole>(name, g, y, [](auto d, auto v) { return v > 0 ? d : 0; });
    return float_zip<detail::Loop::whole>(
        name, g, y, [k = slope](auto d, auto v) { return v > 0 ? d : d * static_cast<decltype(d)>(k); });
  }
  Tensor backward(const Saved&, const Tensor& g) const {
    return apply(ReluGrad{held.unchanged(name, "values of relu"), slope}, g);
  }
  Tensor batched(const Tensor& g) const {
    return detail::run_whole(ReluGrad{detail::whole(held.value()), slope}, detail::whole(g));
  }
};

struct Relu {
  static constexpr std::string_view name = "relu";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE { return detail::relu_of(v); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return detail::relu_grad(g, s.output()); }
};

struct LeakyRelu {
  static constexpr std::string_view name = "leaky_relu";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  double slope;
  Attributes attributes() const { return {{"slope", slope}}; }
  bool operator==(const LeakyRelu&) const = default;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [k = slope](auto v) { return v > 0 ? v : v * static_cast<decltype(v)>(k); });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(ReluGrad{s.input(0).detach(), slope}, g); }
};

/// g where x > 0, else g alpha e^x: the gradient of elu in one pass.
struct EluGrad {
  static constexpr std::string_view name = "elu_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  double alpha;
  Attributes attributes() const { return {{"alpha", alpha}}; }
  bool operator==(const EluGrad&) const = default;
  Tensor forward(const Tensor& g, const Tensor& x) const {
    return float_zip<detail::Loop::whole>(name, g, x, [a = alpha](auto d, auto v) EBB_INLINE {
      return v > 0 ? d : d * (static_cast<decltype(d)>(a) * detail::exp_of(v));
    });
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    const Tensor x = s.input(1);
    if (i == 0) return apply(EluGrad{alpha}, g, x);
    return g * s.input(0) * where(greater(x, 0.0), scalar(0, x.dtype()), alpha * exp(minimum(x, scalar(0, x.dtype()))));
  }
};

struct Elu {
  static constexpr std::string_view name = "elu";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  double alpha;
  Attributes attributes() const { return {{"alpha", alpha}}; }
  bool operator==(const Elu&) const = default;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [a = alpha](auto v) EBB_INLINE {
      return v > 0 ? v : static_cast<decltype(v)>(a) * detail::expm1_of(v);
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(EluGrad{alpha}, g, s.input(0)); }
};

/// g (Phi(x) + x phi(x)), the gradient of gelu in one pass.
struct GeluGrad {
  static constexpr std::string_view name = "gelu_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& x) const {
    return float_zip<detail::Loop::whole>(name, g, x, [](auto d, auto v) EBB_INLINE {
      using T = decltype(v);
      const auto tail = detail::NormalTail<T>::of(v);
      const T slope = tail.power == 0 ? T(0) : v * tail.power * static_cast<T>(density);
      return d * ((v < 0 ? tail.beyond : 1 - tail.beyond) + slope);
    });
  }
  Tensor backward(const Saved& s, const Tensor& v, int i) const {
    const Tensor x = s.input(1), squares = square(x);
    if (i == 0) return apply(GeluGrad{}, v, x);
    return v * s.input(0) * detail::chain_mul(exp(-0.5 * squares) * density, 2 - squares);
  }
  static constexpr double density = std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // 1 / sqrt(2 pi)
};

struct Gelu {
  static constexpr std::string_view name = "gelu";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE {
      using T = decltype(v);
      const T beyond = detail::NormalTail<T>::of(v).beyond;
      return v < 0 ? beyond == 0 ? T(0) : v * beyond : v * (1 - beyond);
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(GeluGrad{}, g, s.input(0)); }
};

/// g s(x) (1 + x s(-x)), s being the sigmoid: the gradient of silu in one pass.
struct SiluGrad {
  static constexpr std::string_view name = "silu_grad";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& x) const {
    return float_zip<detail::Loop::whole>(name, g, x, [](auto d, auto v) EBB_INLINE {
      using T = decltype(v);
      const T e = detail::exp_of(v < 0 ? v : -v), small = e / (1 + e), large = 1 / (1 + e);
      const T slope = small == 0 ? T(0) : v * (small * large);
      return d * ((v < 0 ? small : large) + slope);
    });
  }
  Tensor backward(const Saved& s, const Tensor& v, int i) const {
    const Tensor x = s.input(1);
    if (i == 0) return apply(SiluGrad{}, v, x);
    const Tensor up = sigmoid(x), down = sigmoid(-x);
    return v * s.input(0) * detail::chain_mul(up * down, 2 + x * (down - up));
  }
};

struct Silu {
  static constexpr std::string_view name = "silu";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::aligned;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    return float_map(name, x, [](auto v) EBB_INLINE {
      const auto s = detail::sigmoid_of(v);
      return s == 0 ? 0 : v * s;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(SiluGrad{}, g, s.input(0)); }
};

}  // namespace

namespace detail {
Tensor relu_grad(const Tensor& g, const Tensor& y) { return apply(ReluGrad{y.detach(), 0}, g); }
Tensor sigmoid_grad(const Tensor& g, const Tensor& y) { return apply(SigmoidGrad{}, g, y); }
Tensor tanh_grad(const Tensor& g, const Tensor& y) { return apply(TanhGrad{}, g, y); }
}  // namespace detail

Tensor tanh(const Tensor& x) { return apply(Tanh{}, x); }
Tensor sigmoid(const Tensor& x) { return apply(Sigmoid{}, x); }
Tensor softplus(const Tensor& x) { return apply(Softplus{}, x); }
Tensor relu(const Tensor& x) { return apply(Relu{}, x); }
Tensor gelu(const Tensor& x) { return apply(Gelu{}, x); }
Tensor silu(const Tensor& x) { return apply(Silu{}, x); }
Tensor leaky_relu(const Tensor& x, double slope) { return apply(LeakyRelu{slope}, x); }
Tensor elu(const Tensor& x, double alpha) { return apply(Elu{alpha}, x); }

}  // namespace ebb
