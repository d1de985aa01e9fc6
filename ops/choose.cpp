// Comparison, choice and conversion.
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <functional>

#include <ebb/graph/batch.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// Comparisons take any element type and give uint8, which carries no gradient.
template <class F>
Tensor compare(std::string_view op, const Tensor& a, const Tensor& b, const F& f) {
  detail::expect_alike(op, a, b);
  Tensor out = Tensor::empty(broadcast(a.shape(), b.shape(), op), u8);
  visit_dtype(a.dtype(), [&]<class T>(T) {
    constexpr auto how =
        std::is_same_v<T, float> ? detail::Loop::vector : detail::Loop::calls;  // one version for the others
    detail::zip(a, b, out, &f, detail::zip_run<T, std::uint8_t, how, F>);
  });
  return out;
}

struct Greater {
  static constexpr std::string_view name = "greater";
  static constexpr Vmap vmap = Vmap::aligned;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return compare(name, a, b, [](auto x, auto y) { return x > y; });
  }
};

struct Equal {
  static constexpr std::string_view name = "equal";
  static constexpr Vmap vmap = Vmap::aligned;
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return compare(name, a, b, [](auto x, auto y) { return x == y; });
  }
};

/// Elements one beside the other (step 1), or one for all (0).
template <class T>
struct Strided {
  const T* first;
  std::int64_t step;
};

/// out[i] = c[i] ? a[i] : b[i]
template <class T>
EBB_INLINE inline void choose(Strided<std::uint8_t> c, Strided<T> a, Strided<T> b, T* out, std::int64_t n) {
  T* __restrict o = out;
  if (c.step == 0) {
    const Strided<T> from = *c.first ? a : b;
    if (from.step) std::copy(from.first, from.first + n, o);
    else std::fill(o, o + n, *from.first);
    return;
  }
  // by bits: a choice would be a jump or a store under a mask
  using Bits = detail::IntegerOf<T>;
  const std::uint8_t* __restrict pc = c.first;
  const auto each = [&](auto x, auto y) EBB_INLINE {
    for (std::int64_t i = 0; i < n; ++i) {
      const Bits yes = -Bits(pc[i] != 0);
      o[i] = std::bit_cast<T>((std::bit_cast<Bits>(x(i)) & yes) | (std::bit_cast<Bits>(y(i)) & ~yes));
    }
  };
  const auto one = [](const T* p) EBB_INLINE { return [v = *p](std::int64_t) EBB_INLINE { return v; }; };
  const auto all = [](const T* __restrict p) EBB_INLINE { return [p](std::int64_t i) EBB_INLINE { return p[i]; }; };
  if (a.step && b.step) each(all(a.first), all(b.first));
  else if (a.step) each(all(a.first), one(b.first));
  else if (b.step) each(one(a.first), all(b.first));
  else each(one(a.first), one(b.first));
}

struct Where {
  static constexpr std::string_view name = "where";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr bool broadcasts = true;
  detail::Held held;
  Attributes attributes() const { return {{"condition", held.value()}}; }
  Tensor forward(const Tensor& a, const Tensor& b) const {
    const Tensor& condition = held.value();
    if (condition.dtype() != u8)
      fail<DTypeError>(name, fmt::format("the condition must be uint8, got {}", describe(condition)));
    detail::expect_float(name, a);
    detail::expect_alike(name, a, b);
    Tensor out = Tensor::empty(broadcast(broadcast(a.shape(), b.shape(), name), condition.shape(), name), a.dtype());
    const detail::Walk<3> walk(out.shape(), {&condition.shape(), &a.shape(), &b.shape()});
    visit_float(a.dtype(), [&]<class T>(T) {
      const std::uint8_t* pc = condition.values<std::uint8_t>().data();
      const T *pa = a.values<T>().data(), *pb = b.values<T>().data();
      T* po = out.mutable_values<T>().data();
      const std::int64_t c = walk.strides[0][0], s = walk.strides[1][0], t = walk.strides[2][0];
      walk.in_blocks([&](std::int64_t begin, std::int64_t end) {
        detail::simd_for<T>([&]() EBB_INLINE {
          walk.rows_of(begin, end, [&](std::int64_t row, std::int64_t first, std::int64_t n) EBB_INLINE {
            const auto o = walk.offsets(row);
            choose(Strided<std::uint8_t>{pc + o[0] + first * c, c}, Strided<T>{pa + o[1] + first * s, s},
                   Strided<T>{pb + o[2] + first * t, t}, po + row * walk.inner + first, n);
          });
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g, int i) const {
    const Tensor& condition = held.unchanged(name, "conditions");
    const Tensor zero = scalar(0, g.dtype());
    return i == 0 ? where(condition, g, zero) : where(condition, zero, g);
  }
  Tensor batched(const Tensor& a, const Tensor& b) const {
    const int rank = std::max({held.value().rank(), a.rank(), b.rank()});
    return detail::run_whole(Where{detail::whole(held.value(), rank)}, detail::whole(a, rank), detail::whole(b, rank));
  }
};

struct Cast {
  static constexpr std::string_view name = "cast";
  static constexpr Tangent tangents = Tangent::linear;
  static constexpr Vmap vmap = Vmap::aligned;
  DType to;
  Tensor forward(const Tensor& x) const {
    Tensor out = Tensor::empty(x.shape(), to);
    visit_dtype(x.dtype(), [&]<class From>(From) {
      visit_dtype(to, [&]<class To>(To) {
        constexpr std::identity same;
        detail::map(x, out, &same, detail::map_run<From, To, detail::Loop::vector, std::identity>);
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return cast(g, s.input_dtype(0)); }
};

}  // namespace

Tensor greater(const Tensor& a, const Tensor& b) { return apply(Greater{}, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return apply(Greater{}, b, a); }
Tensor equal(const Tensor& a, const Tensor& b) { return apply(Equal{}, a, b); }
// Integers are compared as doubles: the number need not be one of their type.
Tensor greater(const Tensor& a, double b) {
  return is_float(a.dtype()) ? greater(a, scalar(b, a.dtype())) : greater(cast(a, f64), scalar(b, f64));
}
Tensor less(const Tensor& a, double b) {
  return is_float(a.dtype()) ? less(a, scalar(b, a.dtype())) : less(cast(a, f64), scalar(b, f64));
}
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) { return apply(Where{condition}, a, b); }
Tensor cast(const Tensor& x, DType dtype) { return x.dtype() == dtype ? x : apply(Cast{dtype}, x); }
Tensor stop_gradient(const Tensor& x) { return x.detach(); }

}  // namespace ebb
