// Ops that choose by index.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/rows.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// The indices as int64, each checked to lie in [0, n).
Tensor checked(std::string_view op, const Tensor& indices, std::int64_t n) {
  if (indices.dtype() != i64 && indices.dtype() != u8)
    fail<DTypeError>(op, fmt::format("indices must be int64 or uint8, got {}", describe(indices)));
  const Tensor out = cast(indices, i64);
  for (const std::int64_t i : detail::every_value<std::int64_t>(out))
    if (i < 0 || i >= n) fail<ValueError>(op, fmt::format("index {} is outside of [0, {})", i, n));
  return out;
}

Shape joined(const Shape& a, const Shape& b) {
  std::vector<std::int64_t> sizes(a.begin(), a.end());
  sizes.insert(sizes.end(), b.begin(), b.end());
  return Shape(sizes);
}

/// Of batched ops: indices (n, ...) into n tables of so many rows, one behind the other.
Tensor into_tables(const Tensor& indices, std::int64_t n, std::int64_t rows) {
  Tensor all = detail::repeated(indices, n).clone();
  auto* to = all.mutable_values<std::int64_t>().data();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < indices.numel(); ++j) *to++ += i * rows;
  return all;
}

struct Gather {
  static constexpr std::string_view name = "gather";
  static constexpr Tangent tangents = Tangent::linear;
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
    detail::parallel_for(indices.numel(), detail::in_block(indices.numel(), row),
                         [=](std::int64_t begin, std::int64_t end) {
                           for (std::int64_t i = begin; i < end; ++i)
                             std::memcpy(to + i * row, from + rows[i] * row, static_cast<std::size_t>(row));
                         });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    return scatter_rows(g, held.unchanged(name, "indices"), s.input_shape(0)[0]);
  }
  Tensor batched(const Tensor& x) const {
    const Tensor table = detail::merged(x);
    const detail::AsOne as_one;
    const std::int64_t n = as_one.size();
    return detail::apart(
        Gather{detail::batched(x) ? into_tables(held.value(), n, x.shape()[0]) : detail::whole(held.value())}.forward(
            table),
        n);
  }
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
      fail<ShapeError>(name, fmt::format("{} does not begin with the shape of the indices {}", g.shape().str(),
                                         indices.shape().str()));
    const Shape rest(std::span(g.shape().begin() + lead, g.shape().end()));
    Tensor out = Tensor::empty(rest.inserted(0, rows), g.dtype());
    if (out.numel() == 0) return out;
    visit_float(g.dtype(), [&]<class T>(T) {
      const T* from = g.values<T>().data();
      T* to = out.mutable_values<T>().data();
      const auto index = indices.values<std::int64_t>();
      const std::int64_t n = rest.numel(), count = indices.numel();
      // Which rows of g each row of the result gets, in their order: begin[row] .. begin[row + 1] of `order`.
      Tensor memory = Tensor::workspace({rows + 1 + count}, i64);
      std::int64_t *const begin = memory.mutable_values<std::int64_t>().data(), *const order = begin + rows + 1;
      std::fill(begin, begin + rows + 1, 0);
      for (const std::int64_t i : index) ++begin[i];
      std::exclusive_scan(begin, begin + rows + 1, begin, std::int64_t{0});
      for (std::int64_t k = 0; k < count; ++k) order[begin[index[static_cast<std::size_t>(k)]]++] = k;
      std::copy_backward(begin, begin + rows, begin + rows + 1);  // each had moved to where the next one began
      begin[0] = 0;
      const std::int64_t work = n * (1 + count / rows);
      detail::parallel_simd_for<T>(
          rows, std::max<std::int64_t>(1, detail::elementwise_block / work),
          [=](std::int64_t first, std::int64_t last) EBB_INLINE {
            constexpr std::int64_t widest = 256;
            double sums[widest];
            for (std::int64_t row = first; row < last; ++row) {
              const std::int64_t* const which = order + begin[row];
              const std::int64_t many = begin[row + 1] - begin[row];
              T* __restrict y = to + row * n;
              if (many == 0) std::fill(y, y + n, T(0));
              else if (many == 1) std::copy_n(from + which[0] * n, n, y);
              else if (many <= 8) {
                const T* __restrict a = from + which[0] * n, * __restrict b = from + which[1] * n;
                for (std::int64_t j = 0; j < n; ++j) y[j] = a[j] + b[j];
                for (std::int64_t i = 2; i < many; ++i) {
                  const T* __restrict x = from + which[i] * n;
                  for (std::int64_t j = 0; j < n; ++j) y[j] += x[j];
                }
              } else
                for (std::int64_t column = 0; column < n; column += widest) {
                  const std::int64_t columns = std::min(widest, n - column);
                  std::fill(sums, sums + columns, 0.0);
                  const T* const x = from + column;
                  detail::add_rows<T>(
                      many, columns, [=](std::int64_t i, std::int64_t j) EBB_INLINE { return x[which[i] * n + j]; },
                      sums);
                  for (std::int64_t j = 0; j < columns; ++j) y[column + j] = static_cast<T>(sums[j]);
                }
            }
          });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return apply(Gather{held.unchanged(name, "indices")}, g); }
  Tensor batched(const Tensor& g) const {
    const detail::AsOne as_one;
    const std::int64_t n = as_one.size();
    return detail::apart(
        detail::unmerged(ScatterRows{into_tables(held.value(), n, rows), n * rows}.forward(detail::repeated(g, n)), n),
        n);
  }
};

struct Pick {
  static constexpr std::string_view name = "pick";
  detail::Held held;
  Attributes attributes() const { return {{"indices", held.value()}}; }
  Tensor forward(const Tensor& x) const {
    const Tensor& indices = held.value();
    detail::expect_float(name, x);
    Tensor out = Tensor::empty(indices.shape(), x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
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
  Tensor backward(const Saved& s, const Tensor& g) const {
    return place(g, held.unchanged(name, "indices"), s.input_shape(0).at(-1));
  }
  Tensor batched(const Tensor& x) const {
    const detail::AsOne as_one;
    return detail::apart(
        Pick{detail::repeated(held.value(), as_one.size())}.forward(detail::repeated(x, as_one.size())), as_one.size());
  }
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
      fail<ShapeError>(name,
                       fmt::format("values {} and indices {} differ in shape", g.shape().str(), indices.shape().str()));
    Tensor out = Tensor::empty(g.shape().inserted(g.rank(), classes), g.dtype());
    visit_float(g.dtype(), [&]<class T>(T) {
      const T* from = g.values<T>().data();
      T* to = out.mutable_values<T>().data();
      const std::int64_t* index = indices.values<std::int64_t>().data();
      const std::int64_t n = classes;
      detail::parallel_for(g.numel(), detail::in_block(g.numel(), n * static_cast<std::int64_t>(sizeof(T))),
                           [=](std::int64_t begin, std::int64_t end) {
                             std::fill(to + begin * n, to + end * n, T{});
                             for (std::int64_t i = begin; i < end; ++i) to[i * n + index[i]] = from[i];
                           });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return apply(Pick{held.unchanged(name, "indices")}, g); }
  Tensor batched(const Tensor& g) const {
    const detail::AsOne as_one;
    return detail::apart(
        Place{detail::repeated(held.value(), as_one.size()), classes}.forward(detail::repeated(g, as_one.size())),
        as_one.size());
  }
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
    fail<ShapeError>(Pick::name,
                     fmt::format("indices {} do not fit the rows of {}", indices.shape().str(), x.shape().str()));
  return apply(Pick{checked(Pick::name, indices, x.size(-1))}, x);
}

Tensor place(const Tensor& g, const Tensor& indices, std::int64_t classes) {
  return apply(Place{checked(Place::name, indices, classes), classes}, g);
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  Composition whole("one_hot");
  return whole.gives(place(ones(indices.shape(), dtype), indices, classes), {&indices}, [=] {
    return Attributes{{"classes", classes}};
  });
}

}  // namespace ebb
