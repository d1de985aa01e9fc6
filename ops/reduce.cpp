// Reductions.
// (over 400 lines because all of them share the trees in which they add, and the walks over axes)
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/rows.h>
#include <ebb/ops/ops.h>

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

// ---- sums ----------------------------------------------------------------------------------------------------------

/// The sum of each of `rows` rows. A row is cut in pieces, whatever the number of rows: a few long ones go to all
/// threads.
template <class T>
void sum_rows(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  constexpr std::int64_t piece = elementwise_block;
  if (rows > 8 || n <= piece) {
    const std::int64_t block = rows * n <= piece ? rows : std::max<std::int64_t>(1, piece / n);
    return detail::parallel_simd_for<T>(rows, block, [=](std::int64_t begin, std::int64_t end) EBB_INLINE {
      for (std::int64_t i = begin; i < end; ++i) {
        double all = 0;
        for (std::int64_t at = 0; at < n; at += piece) all += detail::sum_of(x + i * n + at, std::min(piece, n - at));
        y[i] = static_cast<T>(all);
      }
    });
  }
  const std::int64_t pieces = (n + piece - 1) / piece;
  Tensor memory = Tensor::workspace({rows * pieces}, f64);
  double* const parts = memory.mutable_values<double>().data();
  detail::parallel_for(rows * pieces, 1, [=](std::int64_t i, std::int64_t) {
    const std::int64_t at = i % pieces * piece;
    detail::simd_for<T>(
        [=]() EBB_INLINE { parts[i] = detail::sum_of(x + i / pieces * n + at, std::min(piece, n - at)); });
  });
  for (std::int64_t i = 0; i < rows; ++i)
    y[i] = static_cast<T>(std::accumulate(parts + i * pieces, parts + (i + 1) * pieces, 0.0));
}

/// The columns of `outer` matrices (n, inner) added up. A matrix is cut in pieces of rows, by its own sizes alone: what
/// a sample gives does not depend on how many there are. Of narrow matrices several rows lie side by side in the vector
/// registers.
struct ColumnSums {
  static constexpr std::int64_t widest = 1024;  // columns in one go: their sums stay in the L1 cache
  const std::int64_t outer, n, inner;
  const std::int64_t fold = inner >= 64 ? 1 : std::max<std::int64_t>(1, 64 / std::max<std::int64_t>(1, inner));

  template <class T>
  void run(const T* x, T* y) const {
    if (outer == 1 && n <= 128 && inner <= 256)  // what a small layer's bias gets
      return detail::simd_for<T>([=, this]() EBB_INLINE {
        double sums[256];
        add(x, n, inner, sums);
        for (std::int64_t j = 0; j < inner; ++j) y[j] = static_cast<T>(sums[j]);
      });
    const std::int64_t piece = std::max<std::int64_t>(128, elementwise_block / std::max<std::int64_t>(1, inner));
    const std::int64_t pieces = std::max<std::int64_t>(1, (n + piece - 1) / piece);
    // Several columns for each task, so that threads share short wide matrices too.
    const std::int64_t strip = std::clamp<std::int64_t>(
        elementwise_block / std::max<std::int64_t>(1, std::min(n, piece)) / 64 * 64, 256, widest);
    const std::int64_t strips = (inner + strip - 1) / strip;
    Tensor memory = pieces == 1 ? Tensor() : Tensor::workspace({outer * pieces, inner}, f64);
    double* const parts = pieces == 1 ? nullptr : memory.mutable_values<double>().data();
    const std::int64_t work = std::min(n, piece) * std::min(inner, strip);
    detail::parallel_simd_for<T>(
        outer * pieces * strips, std::max<std::int64_t>(1, elementwise_block / std::max<std::int64_t>(1, work)),
        [=, this](std::int64_t begin, std::int64_t end) EBB_INLINE {
          for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t part = i / strips, column = i % strips * strip, first = part % pieces * piece,
                               rows = std::min(piece, n - first);
            double sums[widest];
            const std::int64_t columns = std::min(strip, inner - column);
            add(x + (part / pieces * n + first) * inner + column, rows, columns, sums);
            double* const to = parts + part * inner + column;
            T* const only = y + part * inner + column;
            if (parts) std::copy(sums, sums + columns, to);
            else
              for (std::int64_t j = 0; j < columns; ++j) only[j] = static_cast<T>(sums[j]);
          }
        });
    if (!parts) return;
    for (std::int64_t o = 0; o < outer; ++o)
      detail::parallel_simd_for<double>(inner, std::max<std::int64_t>(64, elementwise_block / pieces),
                                        [=, this](std::int64_t begin, std::int64_t end) EBB_INLINE {
                                          double* __restrict to = parts + o * pieces * inner;
                                          for (std::int64_t k = 1; k < pieces; ++k) {
                                            const double* __restrict from = to + k * inner;
                                            for (std::int64_t j = begin; j < end; ++j) to[j] += from[j];
                                          }
                                          for (std::int64_t j = begin; j < end; ++j)
                                            y[o * inner + j] = static_cast<T>(to[j]);
                                        });
  }

 private:
  /// sums[j] = the sum of column j
  template <class T>
  EBB_INLINE void add(const T* x, std::int64_t rows, std::int64_t columns, double* sums) const {
    const std::int64_t wide = fold * columns, whole = rows / fold,
                       step = fold * inner;  // fold > 1 only where a strip is all columns
    std::fill(sums, sums + wide, 0.0);
    detail::add_rows<T>(
        whole, wide, [=](std::int64_t i, std::int64_t j) EBB_INLINE { return x[i * step + j]; }, sums);
    const T* const rest = x + whole * step;
    for (std::int64_t j = 0; j < (rows - whole * fold) * columns; ++j) sums[j] += static_cast<double>(rest[j]);
    for (std::int64_t k = 1; k < fold; ++k)
      for (std::int64_t j = 0; j < columns; ++j) sums[j] += sums[k * columns + j];
  }
};

// ---- largest elements ----------------------------------------------------------------------------------------------

struct Largest : detail::Larger {
  static constexpr std::int64_t block = 512;  // read twice: a comparison that keeps a NaN is a slow one
  template <class T>
  EBB_INLINE T operator()(T a, T b) const {
    return (b > a) | (b != b) ? b : a;
  }
  template <class T>
  EBB_INLINE static T row(const T* x, std::int64_t n) {
    T all = start<T>;
    for (std::int64_t first = 0; first < n; first += block) {
      const std::int64_t last = std::min(n, first + block);
      const T top = detail::fold<Larger>(x + first, last - first);
      detail::IntegerOf<T> nan = 0;
      for (std::int64_t i = first; i < last; ++i) nan |= x[i] != x[i];
      all = Largest()(all, nan ? std::numeric_limits<T>::quiet_NaN() : top);
    }
    return all;
  }
};

/// The largest of each row; few long rows piece by piece.
template <class T>
void largest_in_rows(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  if (rows > 8 || n <= elementwise_block) {
    const std::int64_t block = rows * n <= elementwise_block ? rows : std::max<std::int64_t>(1, elementwise_block / n);
    return detail::parallel_simd_for<T>(rows, block, [=](std::int64_t begin, std::int64_t end) EBB_INLINE {
      for (std::int64_t i = begin; i < end; ++i) y[i] = Largest::row(x + i * n, n);
    });
  }
  std::vector<T> parts(static_cast<std::size_t>((n + elementwise_block - 1) / elementwise_block));
  for (std::int64_t i = 0; i < rows; ++i, x += n) {
    detail::parallel_for(n, elementwise_block, [x, p = parts.data()](std::int64_t begin, std::int64_t end) {
      detail::simd_for<T>([=]() EBB_INLINE { p[begin / elementwise_block] = Largest::row(x + begin, end - begin); });
    });
    y[i] = std::accumulate(parts.begin(), parts.end(), Largest::start<T>, Largest());
  }
}

/// y[j] = the larger of y[j] and x[i][j], for each row i.
template <class T>
void largest_in_columns(const T* x, std::int64_t rows, std::int64_t inner, T* y) {
  detail::simd_for<T>([=]() EBB_INLINE {
    const T* __restrict in = x;
    T* __restrict out = y;
    for (std::int64_t i = 0; i < rows; ++i, in += inner)
      for (std::int64_t j = 0; j < inner; ++j) out[j] = Largest()(out[j], in[j]);
  });
}

template <class T>
void largest_of(const T* x, T* y, const Run& r) {
  if (r.inner == 1) return largest_in_rows(x, y, r.outer, r.n);
  std::fill(y, y + r.outer * r.inner, Largest::start<T>);
  const std::int64_t rows = std::max<std::int64_t>(64, elementwise_block / std::max<std::int64_t>(1, r.inner));
  const std::int64_t chunks = (r.n + rows - 1) / rows;
  if (chunks <= 1 || r.outer > 1)
    return detail::parallel_for(r.outer, std::max<std::int64_t>(1, rows / std::max<std::int64_t>(1, r.n)),
                                [&](std::int64_t begin, std::int64_t end) {
                                  for (std::int64_t i = begin; i < end; ++i)
                                    largest_in_columns(x + i * r.n * r.inner, r.n, r.inner, y + i * r.inner);
                                });
  // A tall matrix: results of fixed pieces, folded in their order.
  Tensor parts = full({chunks, r.inner}, -std::numeric_limits<double>::infinity(), dtype_of<T>());
  T* p = parts.mutable_values<T>().data();
  detail::parallel_for(r.n, rows, [&](std::int64_t begin, std::int64_t end) {
    largest_in_columns(x + begin * r.inner, end - begin, r.inner, p + begin / rows * r.inner);
  });
  largest_in_columns(p, chunks, r.inner, y);
}

struct Sum {
  static constexpr std::string_view name = "sum";
  static constexpr Tangent tangents = Tangent::linear;
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
      visit_float(x.dtype(), [&]<class T>(T) {
        const T* const in = from.values<T>().data();
        T* const out = to.mutable_values<T>().data();
        if (to.numel() == 0) return;
        if (r.inner == 1) sum_rows(in, out, r.outer, r.n);
        else ColumnSums{r.outer, r.n, r.inner}.run(in, out);
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
  Tensor batched(const Tensor& x) const { return detail::run_whole(Sum{mask << 1, keepdims}, detail::whole(x)); }
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
      visit_float(x.dtype(),
                  [&]<class T>(T) { largest_of(from.values<T>().data(), to.mutable_values<T>().data(), r); });
      from = to;
      left = r.rest;
    }
    return from.viewed_as(reduced(x.shape(), mask, keepdims));
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0).detach();
    const Shape kept = reduced(x.shape(), mask, true);
    const Tensor hit = cast(equal(x, s.output().detach().viewed_as(kept)), x.dtype());
    return detail::chain_mul(reshape(g, kept), hit / sum_to(hit, kept));
  }
  Tensor batched(const Tensor& x) const { return detail::run_whole(Max{mask << 1, keepdims}, detail::whole(x)); }
};

/// log(sum(exp(x))), with the gradient exp(x - y): of infinite elements each takes its share, of none but -inf there is
/// none.
struct LogSumExp {
  static constexpr std::string_view name = "logsumexp";
  static constexpr Keeps keeps = Keeps::inputs_and_output;
  unsigned mask;
  bool keepdims;
  Attributes attributes() const { return {{"mask", mask}, {"keepdims", keepdims}}; }
  bool operator==(const LogSumExp&) const = default;
  Tensor forward(const Tensor& x) const {
    const Tensor shift = finite(apply(Max{mask, true}, x));  // any shift gives the same value
    return reshape(log(apply(Sum{mask, true}, exp(x - shift))) + shift, reduced(x.shape(), mask, keepdims));
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), y = reshape(s.output(), reduced(x.shape(), mask, true)), up = reshape(g, y.shape());
    const Tensor bounded = finite(y.detach());
    if (!detail::batching() && same_bits(bounded, y.detach())) return up * exp(x - y);
    const Tensor top = scalar(std::numeric_limits<double>::infinity(), x.dtype()),
                 hit = cast(equal(x.detach(), top), x.dtype());
    const Tensor share = where(equal(y.detach(), top), detail::chain_div(hit, apply(Sum{mask, true}, hit)),
                               exp(x - where(equal(y.detach(), bounded), y, bounded)));
    return detail::chain_mul(up, share);
  }
  /// x with 0 for what is infinite or no number.
  static Tensor finite(const Tensor& x) {
    return where(less(abs(x), std::numeric_limits<double>::infinity()), x, scalar(0, x.dtype()));
  }
  Tensor batched(const Tensor& x) const { return detail::run_whole(LogSumExp{mask << 1, keepdims}, detail::whole(x)); }
};

struct BroadcastTo {
  static constexpr std::string_view name = "broadcast_to";
  static constexpr Tangent tangents = Tangent::linear;
  Shape shape;
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    if (!broadcasts_to(x.shape(), shape))
      fail<ShapeError>(name, fmt::format("{} does not broadcast to {}", x.shape().str(), shape.str()));
    Tensor out = Tensor::empty(shape, x.dtype());
    const Tensor zero = scalar(0, x.dtype());
    const auto first = [](auto v, auto) { return v; };
    visit_float(x.dtype(), [&]<class T>(T) {
      detail::zip(x, zero, out, &first, detail::zip_run<T, T, detail::Loop::vector, decltype(first)>);
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return sum_to(g, s.input_shape(0)); }
  Tensor batched(const Tensor& x) const {
    return detail::run_whole(BroadcastTo{shape.inserted(0, detail::mode.batch)}, detail::whole(x, shape.rank()));
  }
};

/// Position of the first NaN, else of the first largest of n elements.
template <class T>
std::int64_t first_largest(const T* x, std::int64_t n, std::int64_t step) {
  if (step == 1 && n >= 64) {
    T top;
    detail::simd_for<T>([&]() EBB_INLINE { top = Largest::row(x, n); });
    return (top == top ? std::find(x, x + n, top) : std::find_if(x, x + n, [](T v) { return v != v; })) - x;
  }
  T top = x[0];
  std::int64_t first = 0;
  for (std::int64_t i = 1; i < n && top == top; ++i)
    if (!(x[i * step] <= top)) top = x[i * step], first = i;
  return first;
}

/// Position of the first NaN, else of the first largest element, along one axis.
struct Argmax {
  static constexpr std::string_view name = "argmax";
  int axis;
  Attributes attributes() const { return {{"axis", axis}}; }
  Tensor forward(const Tensor& x) const {
    const Run r = last_run(x.shape(), 1u << axis);
    if (r.n == 0) fail<ShapeError>(name, fmt::format("no elements to choose from in {}", x.shape().str()));
    Tensor out = Tensor::empty(x.shape().without(axis), i64);
    visit_dtype(x.dtype(), [&]<class T>(T) {
      const T* in = x.values<T>().data();
      std::int64_t* best = out.mutable_values<std::int64_t>().data();
      detail::parallel_for(r.outer, detail::even_rows(r.outer, r.n * r.inner),
                           [&](std::int64_t begin, std::int64_t end) {
                             for (std::int64_t o = begin; o < end; ++o)
                               for (std::int64_t j = 0; j < r.inner; ++j)
                                 best[o * r.inner + j] = first_largest(in + o * r.n * r.inner + j, r.n, r.inner);
                           });
    });
    return out;
  }
  Tensor batched(const Tensor& x) const { return detail::run_whole(Argmax{axis + 1}, detail::whole(x)); }
};

Attributes reduction_attributes(unsigned mask, ReduceOptions options) {
  return {{"mask", mask}, {"keepdims", options.keepdims}};
}

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
  Composition whole("mean");
  return whole.gives(apply(Sum{mask, options.keepdims}, x) / static_cast<double>(n), {&x},
                     [&] { return reduction_attributes(mask, options); });
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
  Composition whole("min");
  return whole.gives(-max(-x, axes, options), {&x},
                     [&] { return reduction_attributes(axes.mask(x.shape(), "min"), options); });
}

Tensor variance(const Tensor& x, Axes axes, ReduceOptions options) {
  expect_reducible("variance", x, axes);
  Composition whole("variance");
  // The mean that was taken off has been rounded: its rest, whose own gradient is 0, is taken off the squares.
  const Tensor d = x - mean(x, axes, {.keepdims = true});
  const Tensor v = mean(square(d), axes, options);
  return whole.gives(v - minimum(square(mean(d.detach(), axes, options)), v.detach()), {&x},
                     [&] { return reduction_attributes(axes.mask(x.shape(), "variance"), options); });
}

Tensor logsumexp(const Tensor& x, Axes axes, ReduceOptions options) {
  expect_reducible("logsumexp", x, axes);
  return apply(LogSumExp{axes.mask(x.shape(), LogSumExp::name), options.keepdims}, x);
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
