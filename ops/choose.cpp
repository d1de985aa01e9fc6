// Comparison, choice and conversion.
#include <fmt/core.h>

#include <functional>

#include <ebb/graph/apply.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// Comparisons take any element type and give uint8, which carries no gradient; no step waits for them: one version.
template <class F>
Tensor compare(std::string_view op, const Tensor& a, const Tensor& b, const F& f) {
  detail::expect_alike(op, a, b);
  Tensor out = Tensor::empty(broadcast(a.shape(), b.shape(), op), u8);
  visit_dtype(a.dtype(), [&](auto zero) { detail::zip(a, b, out, &f, detail::zip_run<decltype(zero), std::uint8_t, detail::Loop::calls, F>); });
  return out;
}

struct Greater {
  static constexpr std::string_view name = "greater";
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return compare(name, a, b, [](auto x, auto y) { return x > y; });
  }
};

struct Equal {
  static constexpr std::string_view name = "equal";
  Tensor forward(const Tensor& a, const Tensor& b) const {
    return compare(name, a, b, [](auto x, auto y) { return x == y; });
  }
};

struct Where {
  static constexpr std::string_view name = "where";
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
    visit_float(a.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const std::uint8_t* pc = condition.values<std::uint8_t>().data();
      const T *pa = a.values<T>().data(), *pb = b.values<T>().data();
      T* po = out.mutable_values<T>().data();
      const std::int64_t c = walk.strides[0][0], s = walk.strides[1][0], t = walk.strides[2][0];
      for (std::int64_t i = 0; i < walk.outer; ++i, po += walk.inner) {
        const auto o = walk.offsets(i);
        for (std::int64_t j = 0; j < walk.inner; ++j) po[j] = pc[o[0] + j * c] ? pa[o[1] + j * s] : pb[o[2] + j * t];
      }
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g, int i) const {
    const Tensor& condition = held.unchanged(name, "conditions");
    const Tensor zero = scalar(0, g.dtype());
    return i == 0 ? where(condition, g, zero) : where(condition, zero, g);
  }
};

struct Cast {
  static constexpr std::string_view name = "cast";
  DType to;
  Tensor forward(const Tensor& x) const {
    Tensor out = Tensor::empty(x.shape(), to);
    visit_dtype(x.dtype(), [&](auto from_zero) {
      visit_dtype(to, [&](auto to_zero) {
        constexpr std::identity same;
        detail::map(x, out, &same, detail::map_run<decltype(from_zero), decltype(to_zero), detail::Loop::vector, std::identity>);
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
