// Internal: loops over broadcast operands.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// N operands walked together over their broadcast shape: axes of size 1 dropped, neighbors merged where every
/// operand allows it. The last axis has stride 0 or 1 for each operand.
template <int N>
struct Walk {
  int rank = 0;
  std::array<std::int64_t, Shape::max_rank> sizes;
  std::array<std::array<std::int64_t, Shape::max_rank>, N> strides;

  Walk(const Shape& out, std::array<const Shape*, N> shapes);

  std::int64_t inner, outer;

  /// Offset of each operand at outer row i.
  std::array<std::int64_t, N> offsets(std::int64_t i) const;

  /// f(begin, end) for some of the rows or, where there is but one, for some of its elements, on the pool.
  template <class F>
  void in_blocks(const F& f) const {
    if (outer == 1) return parallel_for(inner, even_block(inner, elementwise_block, 16), f);
    parallel_for(outer, even_rows(outer, inner), f);
  }
  /// f(row, first element, elements) for each row of such a block.
  template <class F>
  void EBB_INLINE rows_of(std::int64_t begin, std::int64_t end, const F& f) const {
    const bool one = outer == 1;
    const std::int64_t first = one ? begin : 0, n = one ? end - begin : inner, last = one ? 1 : end;
    for (std::int64_t row = one ? 0 : begin; row < last; ++row) f(row, first, n);
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
};

/// A tensor that an op holds for backward beside its inputs, such as indices, with the version that forward saw.
class Held {
 public:
  Held(const Tensor& t) : value_(t), version_(t.defined() ? t.storage()->version() : 0) {}
  /// For forward.
  const Tensor& value() const { return value_; }
  /// For backward: throws GradientError when the tensor was changed in place since.
  const Tensor& unchanged(std::string_view op, std::string_view what) const;

 private:
  Tensor value_;
  std::uint32_t version_;
};

/// Throws DTypeError unless both are of one type, and a float when asked.
void expect_alike(std::string_view op, const Tensor& a, const Tensor& b);
void expect_float(std::string_view op, const Tensor& x);
/// Throws ValueError on labels that are no tensor.
void expect_labels(std::string_view op, const Tensor& labels);

// Of an elementwise op, the loop alone is compiled for each function, element type and instruction set; what leads to
// it exists once. The loop is a MapRun or a ZipRun, the function (a lambda that it calls) is passed to it by address.

struct Map {
  const void *f, *x;
  void* out;
};
using MapRun = void (*)(const Map& m, std::int64_t begin, std::int64_t end);

/// out[i] = f(x[i]).
template <class T, class Out, Loop how, class F>
void map_run(const Map& m, std::int64_t begin, std::int64_t end) {
  run_loop<how, Out>([&]() EBB_INLINE {
    const F f = *static_cast<const F*>(m.f);
    const T* __restrict x = static_cast<const T*>(m.x);
    Out* __restrict o = static_cast<Out*>(m.out);
    for (std::int64_t i = begin; i < end; ++i) o[i] = static_cast<Out>(f(x[i]));
  });
}
void map(const Tensor& x, Tensor& out, const void* f, MapRun run);

/// Two operands in rows. A ZipRun takes a block of Walk::in_blocks.
struct Zip {
  const void *f, *a, *b;
  void* out;
  Walk<2> walk;
};
using ZipRun = void (*)(const Zip& z, std::int64_t begin, std::int64_t end);

/// out[i] = f(a[i], b[i]) with broadcasting, for elements of type T.
template <class T, class Out, Loop how, class F>
void zip_run(const Zip& z, std::int64_t begin, std::int64_t end) {
  run_loop<how, T>([&]() EBB_INLINE {
    const F f = *static_cast<const F*>(z.f);
    const bool step_a = z.walk.strides[0][0] != 0, step_b = z.walk.strides[1][0] != 0;
    z.walk.rows_of(begin, end, [&](std::int64_t row, std::int64_t first, std::int64_t n) EBB_INLINE {
      const auto offsets = z.walk.offsets(row);
      const T* __restrict x = static_cast<const T*>(z.a) + offsets[0] + (step_a ? first : 0);
      const T* __restrict y = static_cast<const T*>(z.b) + offsets[1] + (step_b ? first : 0);
      Out* __restrict o = static_cast<Out*>(z.out) + row * z.walk.inner + first;
      if constexpr (how == Loop::whole) {
        constexpr std::int64_t most = 256;
        T repeated[2][most];
        if (n > 0 && !step_a) std::fill(repeated[0], repeated[0] + std::min(n, most), x[0]);
        if (n > 0 && !step_b) std::fill(repeated[1], repeated[1] + std::min(n, most), y[0]);
        const std::int64_t chunk = step_a && step_b ? n : most;
        for (std::int64_t i = 0; i < n; i += chunk) {
          const T* __restrict p = step_a ? x + i : repeated[0], * __restrict q = step_b ? y + i : repeated[1];
          Out* __restrict to = o + i;
          const std::int64_t m = std::min(chunk, n - i);
          for (std::int64_t k = 0; k < m; ++k) to[k] = static_cast<Out>(f(p[k], q[k]));
        }
      } else if (step_a && step_b)
        for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[i], y[i]));
      else if (step_a)
        for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[i], y[0]));
      else if (step_b)
        for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[0], y[i]));
      else std::fill(o, o + n, static_cast<Out>(f(x[0], y[0])));
    });
  });
}
void zip(const Tensor& a, const Tensor& b, Tensor& out, const void* f, ZipRun run);

/// A float op of one input.
Tensor float_map(std::string_view op, const Tensor& x, const void* f, MapRun run32, MapRun run64);
template <Loop how = Loop::vector, class F>
Tensor float_map(std::string_view op, const Tensor& x, const F& f) {
  return float_map(op, x, &f, map_run<float, float, how, F>, map_run<double, double, how, F>);
}

/// A float op of two inputs, which broadcast.
Tensor float_zip(std::string_view op, const Tensor& a, const Tensor& b, const void* f, ZipRun run32, ZipRun run64);
template <Loop how = Loop::vector, class F>
Tensor float_zip(std::string_view op, const Tensor& a, const Tensor& b, const F& f) {
  return float_zip(op, a, b, &f, zip_run<float, float, how, F>, zip_run<double, double, how, F>);
}

/// a + b and a * b of sizes that are not negative, INT64_MAX where that is too large: Shape or the allocation refuses
/// it.
std::int64_t add_sizes(std::int64_t a, std::int64_t b);
std::int64_t multiply_sizes(std::int64_t a, std::int64_t b);

/// Links of the chain rule: g d and g / b, but 0 where g (of the product also where d) is 0, however infinite the other
/// is. So a gradient of 0 stops what follows it, and a slope of 0 what came before: d sqrt(maximum(x, 0)) is 0 below 0.
Tensor chain_mul(const Tensor& g, const Tensor& d);
Tensor chain_div(const Tensor& g, const Tensor& b);

/// The gradient of relu, sigmoid and tanh given that of their value y and y itself, in one pass: ops like any other.
Tensor relu_grad(const Tensor& g, const Tensor& y);
Tensor sigmoid_grad(const Tensor& g, const Tensor& y);
Tensor tanh_grad(const Tensor& g, const Tensor& y);

/// to += from, elementwise, for tensors of one shape and float type. The caller knows that nobody else reads `to`.
void add_in_place(Tensor& to, const Tensor& from);

}  // namespace ebb::detail
