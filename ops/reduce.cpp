// Reductions.
#include <fmt/core.h>

#include <array>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include <ebb/graph/apply.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/rows.h>

namespace ebb {

Axes::Axes(std::initializer_list<int> axes) : count_(0) {
  for (const int a : axes) {
    if (count_ == Shape::max_rank) fail<ShapeError>("axes", "more than 8 axes");
    axes_[static_cast<std::size_t>(count_++)] = static_cast<std::int8_t>(std::clamp(a, -100, 100));
  }
}

unsigned Axes::mask(const Shape& shape, std::string_view op) const {
  if (count_ < 0) return (1u << shape.rank()) - 1;
  unsigned m = 0;
  for (int i = 0; i < count_; ++i) {
    const int axis = shape.normalize(axes_[static_cast<std::size_t>(i)], op);
    if (m >> axis & 1) fail<ShapeError>(op, fmt::format("axis {} is given twice for {}", axis, shape.str()));
    m |= 1u << axis;
  }
  return m;
}

namespace {

Shape reduced(const Shape& shape, unsigned mask, bool keepdims) {
  std::array<std::int64_t, Shape::max_rank> sizes;
  std::size_t rank = 0;
  for (int i = 0; i < shape.rank(); ++i) {
    if (!(mask >> i & 1)) sizes[rank++] = shape[i];
    else if (keepdims) sizes[rank++] = 1;
  }
  return Shape(std::span<const std::int64_t>(sizes.data(), rank));
}

/// (outer, n, inner): the last run of reduced axes of a shape, in the middle.
struct Run {
  std::int64_t outer = 1, n = 1, inner = 1;
  unsigned rest = 0;  // what is left to reduce after this run
};
Run last_run(const Shape& shape, unsigned mask) {
  Run r;
  int i = shape.rank() - 1;
  for (; i >= 0 && !(mask >> i & 1); --i) r.inner *= shape[i];
  for (; i >= 0 && (mask >> i & 1); --i) {
    r.n *= shape[i];
    mask &= ~(1u << i);
  }
  for (; i >= 0; --i) r.outer *= shape[i];
  r.rest = mask;
  return r;
}

using detail::elementwise_block;

// How a row is folded, block by block; the blocks' results meet in double.

struct Total : detail::Adding {
  static constexpr std::int64_t block = 4096;  // so that the error does not grow with the row
  template <class T>
  EBB_INLINE static T row(const T* x, std::int64_t n) { return detail::fold<Adding>(x, n); }
};

struct Largest : detail::Larger {
  static constexpr std::int64_t block = 512;  // read twice: a comparison that keeps a NaN is a slow one
  template <class T>
  EBB_INLINE T operator()(T a, T b) const { return (b > a) | (b != b) ? b : a; }
  template <class T>
  EBB_INLINE static T row(const T* x, std::int64_t n) {
    const T top = detail::fold<Larger>(x, n);
    detail::IntegerOf<T> nan = 0;
    for (std::int64_t i = 0; i < n; ++i) nan |= x[i] != x[i];
    return nan ? std::numeric_limits<T>::quiet_NaN() : top;
  }
};

template <class Op, class T>
EBB_INLINE inline double fold_row(const T* x, std::int64_t n) {
  double all = Op::template start<double>;
  for (std::int64_t i = 0; i < n; i += Op::block)
    all = Op()(all, static_cast<double>(Op::row(x + i, std::min(n - i, Op::block))));
  return all;
}

/// y[i] = row i of x, folded; few long rows piece by piece.
template <class Op, class T>
void fold_rows(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  if (rows > 8 || n <= elementwise_block) {
    const std::int64_t block = rows * n <= elementwise_block ? rows : std::max<std::int64_t>(1, elementwise_block / n);
    return detail::parallel_for(rows, block, [=](std::int64_t begin, std::int64_t end) {
      detail::simd_for<T>([=]() EBB_INLINE {
        for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(fold_row<Op>(x + i * n, n));
      });
    });
  }
  std::vector<double> parts(static_cast<std::size_t>((n + elementwise_block - 1) / elementwise_block));
  for (std::int64_t i = 0; i < rows; ++i, x += n) {
    detail::parallel_for(n, elementwise_block, [x, p = parts.data()](std::int64_t begin, std::int64_t end) {
      detail::simd_for<T>([=]() EBB_INLINE { p[begin / elementwise_block] = fold_row<Op>(x + begin, end - begin); });
    });
    y[i] = static_cast<T>(std::accumulate(parts.begin(), parts.end(), Op::template start<double>, Op()));
  }
}

/// y[j] = op(y[j], x[i][j]) for each row i.
template <class Op, class T>
void fold_columns(const T* x, std::int64_t rows, std::int64_t inner, T* y) {
  detail::simd_for<T>([=]() EBB_INLINE {
    const T* __restrict in = x;
    T* __restrict out = y;
    constexpr Op op;
    std::int64_t i = 0;
    if constexpr (std::is_same_v<Op, Total>)  // four at once: a narrow row waits for what the one before stored
      for (; i + 4 <= rows; i += 4, in += 4 * inner)
        for (std::int64_t j = 0; j < inner; ++j) out[j] += (in[j] + in[inner + j]) + (in[2 * inner + j] + in[3 * inner + j]);
    for (; i < rows; ++i, in += inner)
      for (std::int64_t j = 0; j < inner; ++j) out[j] = op(out[j], in[j]);
  });
}

template <class Op, class T>
void fold_run(const T* x, T* y, const Run& r) {
  if (r.inner == 1) return fold_rows<Op>(x, y, r.outer, r.n);
  std::fill(y, y + r.outer * r.inner, Op::template start<T>);
  const std::int64_t rows = std::max<std::int64_t>(64, elementwise_block / std::max<std::int64_t>(1, r.inner));
  const std::int64_t chunks = (r.n + rows - 1) / rows;
  if (chunks <= 1 || r.outer > 1)
    return detail::parallel_for(r.outer, std::max<std::int64_t>(1, rows / std::max<std::int64_t>(1, r.n)),
                                [&](std::int64_t begin, std::int64_t end) {
                                  for (std::int64_t i = begin; i < end; ++i)
                                    fold_columns<Op>(x + i * r.n * r.inner, r.n, r.inner, y + i * r.inner);
                                });
  // A tall matrix: results of fixed pieces, folded in their order.
  Tensor parts = Tensor::empty({chunks, r.inner}, dtype_of<T>());
  T* p = parts.mutable_values<T>().data();
  detail::parallel_for(r.n, rows, [&](std::int64_t begin, std::int64_t end) {
    T* const part = p + begin / rows * r.inner;
    std::fill(part, part + r.inner, Op::template start<T>);
    fold_columns<Op>(x + begin * r.inner, end - begin, r.inner, part);
  });
  fold_columns<Op>(p, chunks, r.inner, y);
}

struct Sum {
  static constexpr std::string_view name = "sum";
  unsigned mask;
  bool keepdims;
  Attributes attributes() const { return {{"mask", mask}, {"keepdims", keepdims}}; }
  bool operator==(const Sum&) const = default;
  double flops(std::span<const Shape* const> in, const Shape&) const { return static_cast<double>(in[0]->numel()); }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    const Shape out_shape = reduced(x.shape(), mask, keepdims);
    Tensor from = x;
    Shape shape = x.shape();
    unsigned left = mask;
    while (true) {
      const Run r = last_run(shape, left);
      const Shape next = reduced(shape, left & ~r.rest, true);
      Tensor to = Tensor::empty(r.rest ? next : out_shape, x.dtype());
      visit_float(x.dtype(), [&](auto zero) {
        using T = decltype(zero);
        fold_run<Total>(from.values<T>().data(), to.mutable_values<T>().data(), r);
      });
      if (!r.rest) return to;
      from = to;
      shape = next;
      left = r.rest;
    }
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return broadcast_to(reshape(g, reduced(s.input_shape(0), mask, true)), s.input_shape(0));
  }
};

struct Max {
  static constexpr std::string_view name = "max";
  static constexpr Keeps keeps = Keeps::inputs_and_output;
  unsigned mask;
  bool keepdims;
  Attributes attributes() const { return {{"mask", mask}, {"keepdims", keepdims}}; }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    Tensor from = x;
    Shape shape = x.shape();
    unsigned left = mask;
    while (left) {
      const Run r = last_run(shape, left);
      if (r.n == 0) fail<ShapeError>(name, fmt::format("no elements to choose from in {}", x.shape().str()));
      shape = reduced(shape, left & ~r.rest, true);
      Tensor to = Tensor::empty(shape, x.dtype());
      visit_float(x.dtype(), [&](auto zero) {
        using T = decltype(zero);
        fold_run<Largest>(from.values<T>().data(), to.mutable_values<T>().data(), r);
      });
      from = to;
      left = r.rest;
    }
    return from.viewed_as(reduced(x.shape(), mask, keepdims));
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0).detach();
    const Shape kept = reduced(x.shape(), mask, true);
    const Tensor hit = cast(equal(x, s.output().detach().viewed_as(kept)), x.dtype());
    return reshape(g, kept) * (hit / broadcast_to(sum_to(hit, kept), x.shape()));
  }
};

struct BroadcastTo {
  static constexpr std::string_view name = "broadcast_to";
  Shape shape;
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    if (!broadcasts_to(x.shape(), shape))
      fail<ShapeError>(name, fmt::format("{} does not broadcast to {}", x.shape().str(), shape.str()));
    Tensor out = Tensor::empty(shape, x.dtype());
    const Tensor zero = scalar(0, x.dtype());
    const auto first = [](auto v, auto) { return v; };
    visit_float(x.dtype(), [&](auto z) {
      using T = decltype(z);
      detail::zip(x, zero, out, &first, detail::zip_run<T, T, detail::Loop::vector, decltype(first)>);
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return sum_to(g, s.input_shape(0)); }
};

/// Position of the first largest of n elements; a NaN is not larger than what is before it, and nothing than a NaN.
template <class T>
std::int64_t first_largest(const T* x, std::int64_t n, std::int64_t step) {
  if (step == 1 && n >= 64 && x[0] == x[0]) {
    T top;
    detail::simd_for<T>([&]() EBB_INLINE { top = detail::fold<detail::Larger>(x, n); });
    return std::find(x, x + n, top) - x;
  }
  T top = x[0];
  std::int64_t first = 0;
  for (std::int64_t i = 1; i < n; ++i)
    if (x[i * step] > top) top = x[i * step], first = i;
  return first;
}

/// Position of the first largest element along one axis.
struct Argmax {
  static constexpr std::string_view name = "argmax";
  int axis;
  Attributes attributes() const { return {{"axis", axis}}; }
  Tensor forward(const Tensor& x) const {
    const Run r = last_run(x.shape(), 1u << axis);
    if (r.n == 0) fail<ShapeError>(name, fmt::format("no elements to choose from in {}", x.shape().str()));
    Tensor out = Tensor::empty(x.shape().without(axis), i64);
    visit_dtype(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* in = x.values<T>().data();
      std::int64_t* best = out.mutable_values<std::int64_t>().data();
      detail::parallel_for(r.outer, detail::even_rows(r.outer, r.n * r.inner), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t o = begin; o < end; ++o)
          for (std::int64_t j = 0; j < r.inner; ++j) best[o * r.inner + j] = first_largest(in + o * r.n * r.inner + j, r.n, r.inner);
      });
    });
    return out;
  }
};

}  // namespace

Tensor sum(const Tensor& x, Axes axes, ReduceOptions options) {
  const unsigned mask = axes.mask(x.shape(), Sum::name);
  return apply(Sum{mask, options.keepdims}, x);
}

Tensor mean(const Tensor& x, Axes axes, ReduceOptions options) {
  const unsigned mask = axes.mask(x.shape(), "mean");
  std::int64_t n = 1;
  for (int i = 0; i < x.rank(); ++i)
    if (mask >> i & 1) n *= x.shape()[i];
  if (n == 0) fail<ShapeError>("mean", fmt::format("no elements to average in {}", x.shape().str()));
  return apply(Sum{mask, options.keepdims}, x) / static_cast<double>(n);
}

Tensor max(const Tensor& x, Axes axes, ReduceOptions options) {
  const unsigned mask = axes.mask(x.shape(), Max::name);
  return apply(Max{mask, options.keepdims}, x);
}

namespace {
/// The checks of a reduction that is built of others, so that errors carry the name that was called.
void expect_reducible(std::string_view op, const Tensor& x, const Axes& axes) {
  if (x.defined()) detail::expect_float(op, x);
  const unsigned mask = axes.mask(x.shape(), op);
  for (int i = 0; i < x.rank(); ++i)
    if ((mask >> i & 1) && x.shape()[i] == 0)
      fail<ShapeError>(op, fmt::format("no elements to reduce in {}", x.shape().str()));
}
}  // namespace

Tensor min(const Tensor& x, Axes axes, ReduceOptions options) {
  expect_reducible("min", x, axes);
  return -max(-x, axes, options);
}

Tensor variance(const Tensor& x, Axes axes, ReduceOptions options) {
  expect_reducible("variance", x, axes);
  return mean(square(x - mean(x, axes, {.keepdims = true})), axes, options);
}

Tensor logsumexp(const Tensor& x, Axes axes, ReduceOptions options) {
  expect_reducible("logsumexp", x, axes);
  const Tensor top = stop_gradient(max(x.detach(), axes, {.keepdims = true}));  // any shift gives the same value
  const Tensor s = log(sum(exp(x - top), axes, {.keepdims = true})) + top;
  return options.keepdims ? s : reshape(s, reduced(x.shape(), axes.mask(x.shape(), "logsumexp"), false));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  if (!broadcasts_to(shape, x.shape()))
    fail<ShapeError>("sum_to", fmt::format("{} does not broadcast to {}", shape.str(), x.shape().str()));
  const int shift = x.rank() - shape.rank();
  unsigned mask = (1u << shift) - 1;
  for (int i = 0; i < shape.rank(); ++i)
    if (shape[i] == 1) mask |= 1u << (i + shift);
  return reshape(apply(Sum{mask, true}, x), shape);
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  return x.shape() == shape ? x : apply(BroadcastTo{shape}, x);
}

Tensor argmax(const Tensor& x, int axis) { return apply(Argmax{x.shape().normalize(axis, Argmax::name)}, x); }

}  // namespace ebb
