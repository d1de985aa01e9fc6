// Internal: loops over broadcast operands.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>
#include <ebb/ops/loops.h>

namespace ebb::detail {

/// N operands walked together over their broadcast shape: axes of size 1 dropped, neighbours merged where every
/// operand allows it. The last axis has stride 0 or 1 for each operand.
template <int N>
struct Walk {
  int rank = 0;
  std::array<std::int64_t, Shape::max_rank> sizes;
  std::array<std::array<std::int64_t, Shape::max_rank>, N> strides;

  Walk(const Shape& out, std::array<const Shape*, N> shapes) {
    std::array<std::int64_t, N> next;
    next.fill(1);
    // From the last axis to the first; merged axes grow in place.
    for (int axis = out.rank() - 1; axis >= 0; --axis) {
      const std::int64_t n = out[axis];
      std::array<std::int64_t, N> stride;
      for (std::size_t k = 0; k < N; ++k) {
        const int own = axis - (out.rank() - shapes[k]->rank());
        const std::int64_t size = own < 0 ? 1 : (*shapes[k])[own];
        stride[k] = size == 1 ? 0 : next[k];
        next[k] *= size;
      }
      if (n == 1) continue;
      bool merges = rank > 0;
      for (std::size_t k = 0; merges && k < N; ++k)
        merges = stride[k] == strides[k][at(rank - 1)] * sizes[at(rank - 1)];
      if (merges) {
        sizes[at(rank - 1)] *= n;
        continue;
      }
      sizes[at(rank)] = n;
      for (std::size_t k = 0; k < N; ++k) strides[k][at(rank)] = stride[k];
      ++rank;
    }
    if (rank == 0) {
      rank = 1;
      sizes[0] = out.numel();
      for (auto& s : strides) s[0] = 0;
    }
    inner = sizes[0];  // axis 0 of the walk is the innermost
    outer = 1;
    for (int i = 1; i < rank; ++i) outer *= sizes[at(i)];
  }

  std::int64_t inner, outer;

  /// Offset of each operand at outer row i.
  [[gnu::noinline]] std::array<std::int64_t, N> offsets(std::int64_t i) const {
    std::array<std::int64_t, N> o{};
    for (int axis = 1; axis < rank; ++axis) {
      const std::int64_t j = i % sizes[at(axis)];
      i /= sizes[at(axis)];
      for (std::size_t k = 0; k < N; ++k) o[k] += j * strides[k][at(axis)];
    }
    return o;
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

/// out[i] = f(a[i], b[i]) with broadcasting, for elements of type T.
template <class T, class Out, Loop how = Loop::vector, class F>
void zip(const Tensor& a, const Tensor& b, Tensor& out, const F& f) {
  const Walk<2> walk(out.shape(), {&a.shape(), &b.shape()});
  const T* pa = reinterpret_cast<const T*>(a.raw());
  const T* pb = reinterpret_cast<const T*>(b.raw());
  Out* po = out.mutable_values<Out>().data();
  const bool step_a = walk.strides[0][0] != 0, step_b = walk.strides[1][0] != 0;
  const auto row = [&](const T* __restrict x, const T* __restrict y, Out* __restrict o, std::int64_t n) EBB_INLINE {
    if (step_a && step_b) for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[i], y[i]));
    else if (step_a) for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[i], y[0]));
    else if (step_b) for (std::int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(x[0], y[i]));
    else std::fill(o, o + n, static_cast<Out>(f(x[0], y[0])));
  };
  // One long row is cut into pieces, of many rows several are taken at a time: one loop for both, which exists in many versions.
  const bool one = walk.outer == 1;
  const std::int64_t block = one ? elementwise_block : std::max<std::int64_t>(1, elementwise_block / std::max<std::int64_t>(1, walk.inner));
  parallel_for(one ? walk.inner : walk.outer, block, [&](std::int64_t begin, std::int64_t end) {
    run_loop<how, T>([&]() EBB_INLINE {
      const std::int64_t first = one ? begin : 0, n = one ? end - begin : walk.inner, last = one ? 1 : end;
      for (std::int64_t i = one ? 0 : begin; i < last; ++i) {
        const auto o = walk.offsets(i);
        row(pa + o[0] + (step_a ? first : 0), pb + o[1] + (step_b ? first : 0), po + i * walk.inner + first, n);
      }
    });
  });
}

/// A float op of two inputs.
template <Loop how = Loop::vector, class F>
Tensor float_zip(std::string_view op, const Tensor& a, const Tensor& b, const F& f) {
  expect_float(op, a);
  expect_alike(op, a, b);
  Tensor out = Tensor::empty(broadcast(a.shape(), b.shape(), op), a.dtype());
  visit_float(a.dtype(), [&](auto zero) { zip<decltype(zero), decltype(zero), how>(a, b, out, f); });
  return out;
}

/// A float op of one input.
template <Loop how = Loop::vector, class F>
Tensor float_map(std::string_view op, const Tensor& x, const F& f) {
  expect_float(op, x);
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  visit_float(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    map<how>(x.values<T>().data(), out.mutable_values<T>().data(), x.numel(), f);
  });
  return out;
}

/// The gradient of relu, sigmoid and tanh given that of their value y and y itself, in one pass: ops like any other.
Tensor relu_grad(const Tensor& g, const Tensor& y);
Tensor sigmoid_grad(const Tensor& g, const Tensor& y);
Tensor tanh_grad(const Tensor& g, const Tensor& y);

/// to += from, elementwise, for tensors of one shape and float type. The caller knows that nobody else reads `to`.
void add_in_place(Tensor& to, const Tensor& from);

}  // namespace ebb::detail
