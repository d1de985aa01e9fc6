// Ops that choose by index.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include <ebb/graph/apply.h>
#include <ebb/ops/copy.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// The indices as int64, each checked to lie in [0, n).
Tensor checked(std::string_view op, const Tensor& indices, std::int64_t n) {
  if (indices.dtype() != i64 && indices.dtype() != u8)
    fail<DTypeError>(op, fmt::format("indices must be int64 or uint8, got {}", describe(indices)));
  const Tensor out = cast(indices, i64);
  for (const std::int64_t i : out.values<std::int64_t>())
    if (i < 0 || i >= n) fail<ValueError>(op, fmt::format("index {} is outside of [0, {})", i, n));
  return out;
}

Shape joined(const Shape& a, const Shape& b) {
  std::vector<std::int64_t> sizes(a.begin(), a.end());
  sizes.insert(sizes.end(), b.begin(), b.end());
  return Shape(sizes);
}

struct Gather {
  static constexpr std::string_view name = "gather";
  detail::Held held;
  Attributes attributes() const { return {{"indices", held.value()}}; }
  Tensor forward(const Tensor& x) const {
    const Tensor& indices = held.value();
    Tensor out = Tensor::empty(joined(indices.shape(), x.shape().without(0)), x.dtype());
    if (out.numel() == 0) return out;
    const std::int64_t* const rows = indices.values<std::int64_t>().data();
    const std::byte* const from = x.raw();
    std::byte* const to = out.mutable_raw();
    const auto row = static_cast<std::int64_t>(x.bytes()) / x.shape()[0];
    detail::parallel_for(indices.numel(), detail::in_block(indices.numel(), row), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) std::memcpy(to + i * row, from + rows[i] * row, static_cast<std::size_t>(row));
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return scatter_rows(g, held.unchanged(name, "indices"), s.input_shape(0)[0]); }
};

struct ScatterRows {
  static constexpr std::string_view name = "scatter_rows";
  detail::Held held;
  Attributes attributes() const { return {{"indices", held.value()}}; }
  std::int64_t rows;
  Tensor forward(const Tensor& g) const {
    const Tensor& indices = held.value();
    detail::expect_float(name, g);
    const int lead = indices.rank();
    if (g.rank() < lead || Shape(std::span(g.shape().begin(), static_cast<std::size_t>(lead))) != indices.shape())
      fail<ShapeError>(name, fmt::format("{} does not begin with the shape of the indices {}", g.shape().str(), indices.shape().str()));
    const Shape rest(std::span(g.shape().begin() + lead, g.shape().end()));
    Tensor out = Tensor::empty(rest.inserted(0, rows), g.dtype());
    detail::zero(out.mutable_raw(), static_cast<std::int64_t>(out.bytes()));
    visit_float(g.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* from = g.values<T>().data();
      T* to = out.mutable_values<T>().data();
      const auto index = indices.values<std::int64_t>();
      const std::int64_t n = rest.numel();
      // A block has some of the columns, from top to bottom: each sum is one thread's, in the order of the indices.
      const std::int64_t columns = n * indices.numel() <= detail::elementwise_block ? n : 128;
      detail::parallel_for(n, columns, [=](std::int64_t begin, std::int64_t end) {
        detail::simd_for<T>([=]() EBB_INLINE {
          const T* __restrict x = from;
          for (const std::int64_t i : index) {
            T* __restrict y = to + i * n;
            for (std::int64_t j = begin; j < end; ++j) y[j] += x[j];
            x += n;
          }
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return apply(Gather{held.unchanged(name, "indices")}, g); }
};

struct Pick {
  static constexpr std::string_view name = "pick";
  detail::Held held;
  Attributes attributes() const { return {{"indices", held.value()}}; }
  Tensor forward(const Tensor& x) const {
    const Tensor& indices = held.value();
    detail::expect_float(name, x);
    Tensor out = Tensor::empty(indices.shape(), x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* row = x.values<T>().data();
      T* to = out.mutable_values<T>().data();
      const std::int64_t classes = x.size(-1);
      for (const std::int64_t i : indices.values<std::int64_t>()) {
        *to++ = row[i];
        row += classes;
      }
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return place(g, held.unchanged(name, "indices"), s.input_shape(0).at(-1)); }
};

struct Place {
  static constexpr std::string_view name = "place";
  detail::Held held;
  Attributes attributes() const { return {{"indices", held.value()}}; }
  std::int64_t classes;
  Tensor forward(const Tensor& g) const {
    const Tensor& indices = held.value();
    detail::expect_float(name, g);
    if (g.shape() != indices.shape())
      fail<ShapeError>(name, fmt::format("values {} and indices {} differ in shape", g.shape().str(), indices.shape().str()));
    Tensor out = Tensor::empty(g.shape().inserted(g.rank(), classes), g.dtype());
    visit_float(g.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* from = g.values<T>().data();
      T* to = out.mutable_values<T>().data();
      const std::int64_t* index = indices.values<std::int64_t>().data();
      const std::int64_t n = classes;
      detail::parallel_for(g.numel(), detail::in_block(g.numel(), n * static_cast<std::int64_t>(sizeof(T))), [=](std::int64_t begin, std::int64_t end) {
        std::fill(to + begin * n, to + end * n, T{});
        for (std::int64_t i = begin; i < end; ++i) to[i * n + index[i]] = from[i];
      });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return apply(Pick{held.unchanged(name, "indices")}, g); }
};

}  // namespace

Tensor gather(const Tensor& x, const Tensor& indices) {
  if (x.rank() == 0) fail<ShapeError>(Gather::name, "a scalar has no rows");
  return apply(Gather{checked(Gather::name, indices, x.shape()[0])}, x);
}

Tensor scatter_rows(const Tensor& g, const Tensor& indices, std::int64_t rows) {
  return apply(ScatterRows{checked(ScatterRows::name, indices, rows), rows}, g);
}

Tensor pick(const Tensor& x, const Tensor& indices) {
  if (x.rank() == 0 || x.shape().without(x.rank() - 1) != indices.shape())
    fail<ShapeError>(Pick::name, fmt::format("indices {} do not fit the rows of {}", indices.shape().str(), x.shape().str()));
  return apply(Pick{checked(Pick::name, indices, x.size(-1))}, x);
}

Tensor place(const Tensor& g, const Tensor& indices, std::int64_t classes) {
  return apply(Place{checked(Place::name, indices, classes), classes}, g);
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  return place(ones(indices.shape(), dtype), indices, classes);
}

}  // namespace ebb
