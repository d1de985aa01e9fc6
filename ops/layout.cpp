// Ops that move elements and compute nothing.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using Permutation = std::array<std::int8_t, Shape::max_rank>;

struct Reshape {
  static constexpr std::string_view name = "reshape";
  static constexpr Tangent tangents = Tangent::linear;
  Shape shape;
  bool operator==(const Reshape&) const = default;
  static constexpr int temporaries = -1;  // views, forward and backward
  double flops(std::span<const Shape* const>, const Shape&) const { return 0; }
  Tensor forward(const Tensor& x) const {
    if (shape.numel() != x.numel())
      fail<ShapeError>(
          name, fmt::format("{} has {} elements, {} has {}", x.shape().str(), x.numel(), shape.str(), shape.numel()));
    return x.viewed_as(shape);
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return reshape(g, s.input_shape(0)); }
  Tensor batched(const Tensor& x) const {
    return detail::run_whole(Reshape{shape.inserted(0, detail::mode.batch)}, detail::whole(x));
  }
};

struct Transpose {
  static constexpr std::string_view name = "transpose";
  static constexpr Tangent tangents = Tangent::linear;
  Permutation axes;
  int rank;
  Attributes attributes() const { return {{"axes", std::vector<std::int64_t>(axes.begin(), axes.begin() + rank)}}; }
  bool operator==(const Transpose&) const = default;
  Tensor forward(const Tensor& x) const {
    const auto bytes = static_cast<std::int64_t>(size_of(x.dtype()));
    std::array<std::int64_t, Shape::max_rank> sizes, strides;
    std::int64_t step = bytes;
    for (int i = rank - 1; i >= 0; --i) {
      strides[at(i)] = step;
      step *= x.shape()[i];
    }
    std::array<detail::CopyAxis, Shape::max_rank> moved;
    for (int i = 0; i < rank; ++i) {
      sizes[at(i)] = x.shape()[axes[at(i)]];
      moved[at(i)] = {sizes[at(i)], strides[at(axes[at(i)])]};
    }
    Tensor out = Tensor::empty(Shape(std::span<const std::int64_t>(sizes.data(), at(rank))), x.dtype());
    if (out.numel() > 0) detail::permute(out.mutable_raw(), x.raw(), bytes, std::span(moved).first(at(rank)));
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const {
    Permutation inverse{};
    for (int i = 0; i < rank; ++i) inverse[at(axes[at(i)])] = static_cast<std::int8_t>(i);
    return apply(Transpose{inverse, rank}, g);
  }
  Tensor batched(const Tensor& x) const {
    const Tensor all = detail::whole(x);  // refuses one axis too many
    Permutation next{};
    for (int i = 0; i < rank; ++i) next[at(i + 1)] = static_cast<std::int8_t>(axes[at(i)] + 1);
    return detail::run_whole(Transpose{next, rank + 1}, all);
  }
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
};

/// A tensor as (outer, n, row bytes) around one axis.
struct AxisView {
  std::int64_t outer = 1, n, row;
  AxisView(const Shape& shape, int axis, DType dtype) : n(shape[axis]), row(static_cast<std::int64_t>(size_of(dtype))) {
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) row *= shape[i];
  }
};

Tensor unslice(const Tensor& g, int axis, std::int64_t begin, std::int64_t step, std::int64_t size);

/// Elements begin, begin + step, ... of one axis, `count` of them.
struct Slice {
  static constexpr std::string_view name = "slice";
  static constexpr Tangent tangents = Tangent::linear;
  int axis;
  std::int64_t begin, step, count;
  Attributes attributes() const { return {{"axis", axis}, {"begin", begin}, {"step", step}, {"count", count}}; }
  Tensor forward(const Tensor& x) const {
    Tensor out = Tensor::empty(x.shape().with(axis, count), x.dtype());
    const AxisView v(x.shape(), axis, x.dtype());
    const std::byte* const from = x.raw() + begin * v.row;
    std::byte* const to = out.mutable_raw();
    const std::int64_t whole = v.n * v.row, part = count * v.row;
    if (step == 1 || count < 2) detail::copy_runs(to, part, from, whole, v.outer, part);
    else
      detail::parallel_for(v.outer, detail::in_block(v.outer, part), [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t o = first; o < last; ++o)
          detail::copy_runs(to + o * part, v.row, from + o * whole, step * v.row, count, v.row);
      });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return unslice(g, axis, begin, step, s.input_shape(0)[axis]);
  }
  Tensor batched(const Tensor& x) const {
    return detail::run_whole(Slice{axis + 1, begin, step, count}, detail::whole(x));
  }
  /// A recurrent layer takes a slice for each step: as many whole tensors of zeros would be more work than all the
  /// rest.
  void add_gradient(const Tensor& g, Tensor& sum) const {
    visit_float(g.dtype(), [&]<class T>(T) {
      const AxisView v(sum.shape(), axis, g.dtype());
      const std::int64_t row = v.row / static_cast<std::int64_t>(sizeof(T));
      const std::int64_t run = step == 1 ? count * row : row, runs = step == 1 ? 1 : count;
      const T* from = g.values<T>().data();
      T* to = sum.mutable_values<T>().data();
      detail::parallel_simd_for<T>(v.outer * runs, detail::even_rows(v.outer * runs, run),
                                   [=, this](std::int64_t first, std::int64_t last) EBB_INLINE {
                                     for (std::int64_t i = first; i < last; ++i) {
                                       const T* __restrict x = from + i * run;
                                       T* __restrict y = to + (i / runs * v.n + begin + i % runs * step) * row;
                                       for (std::int64_t j = 0; j < run; ++j) y[j] += x[j];
                                     }
                                   });
    });
  }
};

/// The adjoint of Slice: an axis of `size` zeros with g at begin, begin + step, ...
struct Unslice {
  static constexpr std::string_view name = "unslice";
  static constexpr Tangent tangents = Tangent::linear;
  int axis;
  std::int64_t begin, step, size;
  Attributes attributes() const { return {{"axis", axis}, {"begin", begin}, {"step", step}, {"size", size}}; }
  Tensor forward(const Tensor& g) const {
    Tensor out = Tensor::empty(g.shape().with(axis, size), g.dtype());
    const AxisView v(g.shape(), axis, g.dtype());
    const std::byte* const from = g.raw();
    std::byte* const to = out.mutable_raw();
    const std::int64_t before = begin * v.row, part = v.n * v.row, whole = size * v.row;
    detail::parallel_for(v.outer, detail::in_block(v.outer, whole), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t o = first; o < last; ++o) {
        std::byte* const row = to + o * whole;
        if (step == 1 || v.n < 2) {
          detail::zero(row, before);
          detail::copy(row + before, from + o * part, part);
          detail::zero(row + before + part, whole - before - part);
        } else {
          detail::zero(row, whole);
          detail::copy_runs(row + before, step * v.row, from + o * part, v.row, v.n, v.row);
        }
      }
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return apply(Slice{axis, begin, step, s.input_shape(0)[axis]}, g);
  }
  Tensor batched(const Tensor& g) const {
    return detail::run_whole(Unslice{axis + 1, begin, step, size}, detail::whole(g));
  }
};

Tensor unslice(const Tensor& g, int axis, std::int64_t begin, std::int64_t step, std::int64_t size) {
  return apply(Unslice{axis, begin, step, size}, g);
}

struct Concat {
  static constexpr std::string_view name = "concat";
  static constexpr Tangent tangents = Tangent::linear;
  int axis;
  Attributes attributes() const { return {{"axis", axis}}; }
  Tensor forward(std::span<const Tensor> parts) const {
    const Tensor& first = parts[0];
    std::int64_t total = 0;
    for (const Tensor& p : parts) {
      if (p.rank() != first.rank() || p.shape().with(axis, 0) != first.shape().with(axis, 0))
        fail<ShapeError>(name, fmt::format("shapes differ outside of axis {}: {} and {}", axis, first.shape().str(),
                                           p.shape().str()));
      detail::expect_alike(name, first, p);
      total += p.shape()[axis];
    }
    Tensor out = Tensor::empty(first.shape().with(axis, total), first.dtype());
    const AxisView v(out.shape(), axis, out.dtype());
    const std::int64_t whole = total * v.row;
    std::byte* const to = out.mutable_raw();
    // A row at a time, as the result lies in memory; of short ones some of each part, so that their elements move in
    // loops.
    const std::int64_t few = std::max<std::int64_t>(1, 256 / std::max<std::int64_t>(1, whole));
    detail::parallel_for(v.outer, detail::in_block(v.outer, whole), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; o += few) {
        std::byte* t = to + o * whole;
        for (const Tensor& p : parts) {
          const std::int64_t run = p.shape()[axis] * v.row;
          detail::copy_runs(t, whole, p.raw() + o * run, run, std::min(few, end - o), run);
          t += run;
        }
      }
    });
    return out;
  }
  std::vector<Tensor> backward(const Saved& s, const Tensor& g) const {
    std::vector<Tensor> out(static_cast<std::size_t>(s.inputs()));
    std::int64_t begin = 0;
    for (int i = 0; i < s.inputs(); ++i) {
      const std::int64_t count = s.input_shape(i)[axis];
      if (s.wants(i)) out[static_cast<std::size_t>(i)] = apply(Slice{axis, begin, 1, count}, g);
      begin += count;
    }
    return out;
  }
  Tensor batched(std::span<const Tensor> parts) const {
    const std::int64_t n = detail::mode.batch;
    std::vector<Tensor> all;
    for (const Tensor& p : parts) all.push_back(detail::repeated(p, n));
    return detail::run_whole(Concat{axis + 1}, std::span<const Tensor>(all));
  }
};

}  // namespace

Tensor reshape(const Tensor& x, const Shape& shape) { return x.shape() == shape ? x : apply(Reshape{shape}, x); }

Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> sizes) {
  std::vector<std::int64_t> filled(sizes);
  const auto open = std::ranges::find(filled, -1);
  if (open != filled.end()) {
    *open = 1;
    std::int64_t rest = 1;
    for (const std::int64_t n : filled) rest = n < 0 ? 0 : detail::multiply_sizes(rest, n);
    if (rest == 0 || x.numel() % rest)
      fail<ShapeError>("reshape", fmt::format("{} does not divide into ({})", x.shape().str(), fmt::join(sizes, ", ")));
    *open = x.numel() / rest;
  }
  return reshape(x, Shape(filled));
}

Tensor flatten(const Tensor& x) {
  if (x.rank() == 0) fail<ShapeError>("flatten", "a scalar has no batch axis");
  return reshape(x, Shape{x.shape()[0], x.shape().without(0).numel()});
}

Tensor transpose(const Tensor& x, std::initializer_list<int> axes) {
  Permutation p{};
  unsigned seen = 0;
  std::size_t n = 0;
  if (std::ssize(axes) == x.rank())
    for (const int a : axes) {
      const int axis = x.shape().normalize(a, Transpose::name);
      p[n++] = static_cast<std::int8_t>(axis);
      seen |= 1u << axis;
    }
  if (std::ssize(axes) != x.rank() || seen != (1u << x.rank()) - 1)
    fail<ShapeError>(Transpose::name,
                     fmt::format("({}) does not name each axis of {} once", fmt::join(axes, ", "), x.shape().str()));
  return apply(Transpose{p, x.rank()}, x);
}

Tensor transpose(const Tensor& x) {
  Permutation p{};
  for (int i = 0; i < x.rank(); ++i) p[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(x.rank() - 1 - i);
  return apply(Transpose{p, x.rank()}, x);
}

Tensor slice(const Tensor& x, SliceOptions o) {
  const int axis = x.shape().normalize(o.axis, Slice::name);
  const std::int64_t n = x.shape()[axis];
  const auto clip_to = [n](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n); };
  if (o.step < 1) fail<ValueError>(Slice::name, fmt::format("the step must be at least 1, got {}", o.step));
  const std::int64_t begin = clip_to(o.begin), end = clip_to(o.end);
  return apply(Slice{axis, begin, o.step, begin < end ? (end - begin - 1) / o.step + 1 : 0}, x);
}

Tensor pad(const Tensor& x, PadOptions o) {
  const int axis = x.shape().normalize(o.axis, "pad");
  if (o.before < 0 || o.after < 0)
    fail<ValueError>("pad", fmt::format("pads must not be negative, got {} and {}", o.before, o.after));
  Composition whole("pad");
  return whole.gives(
      unslice(x, axis, o.before, 1, detail::add_sizes(detail::add_sizes(o.before, x.shape()[axis]), o.after)), {&x},
      [&] {
        return Attributes{{"axis", axis}, {"before", o.before}, {"after", o.after}};
      });
}

Tensor concat(std::span<const Tensor> parts, int axis) {
  if (parts.empty()) fail<ValueError>(Concat::name, "nothing to join");
  return apply(Concat{parts[0].shape().normalize(axis, Concat::name)}, parts);
}
Tensor concat(std::initializer_list<Tensor> parts, int axis) {
  return concat(std::span(parts.begin(), parts.size()), axis);
}

Tensor stack(std::span<const Tensor> parts, int axis) {
  Composition whole("stack");
  std::vector<Tensor> rows;
  rows.reserve(parts.size());
  for (const Tensor& p : parts) {
    const int at = axis < 0 ? axis + p.rank() + 1 : axis;
    if (at < 0 || at > p.rank())
      fail<ShapeError>("stack", fmt::format("axis {} does not exist in {}", axis, p.shape().str()));
    rows.push_back(reshape(p, p.shape().inserted(at, 1)));
  }
  return whole.gives(concat(rows, axis), parts, [=] { return Attributes{{"axis", axis}}; });
}

}  // namespace ebb
