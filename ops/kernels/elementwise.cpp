#include <ebb/ops/kernels/elementwise.h>

#include <fmt/core.h>

namespace ebb::detail {

void expect_labels(std::string_view op, const Tensor& labels) {
  if (!labels.defined()) fail<ValueError>(op, "no labels: their tensor is undefined");
}

void expect_float(std::string_view op, const Tensor& x) {
  if (!is_float(x.dtype()))
    fail<DTypeError>(op, fmt::format("needs float32 or float64, got {}; cast(x, f32) converts", describe(x)));
}

void expect_alike(std::string_view op, const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype())
    fail<DTypeError>(op, fmt::format("types differ: {} and {}; cast(x, {}) converts", describe(a), describe(b),
                                     a.dtype() == f32 ? "f32" : "f64"));
}

std::int64_t add_sizes(std::int64_t a, std::int64_t b) { return a > INT64_MAX - b ? INT64_MAX : a + b; }
std::int64_t multiply_sizes(std::int64_t a, std::int64_t b) { return b != 0 && a > INT64_MAX / b ? INT64_MAX : a * b; }

const Tensor& Held::unchanged(std::string_view op, std::string_view what) const {
  if (value_.storage()->version() != version_)
    fail<GradientError>(op, fmt::format("{} {} changed in place after the op ran; compute the gradient before changing "
                                        "them, or give the op a copy",
                                        what, value_.shape().str()));
  return value_;
}

template <int N>
Walk<N>::Walk(const Shape& out, std::array<const Shape*, N> shapes) {
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
    for (std::size_t k = 0; merges && k < N; ++k) merges = stride[k] == strides[k][at(rank - 1)] * sizes[at(rank - 1)];
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

template <int N>
std::array<std::int64_t, N> Walk<N>::offsets(std::int64_t i) const {
  std::array<std::int64_t, N> o{};
  for (int axis = 1; axis < rank; ++axis) {
    const std::int64_t j = i % sizes[at(axis)];
    i /= sizes[at(axis)];
    for (std::size_t k = 0; k < N; ++k) o[k] += j * strides[k][at(axis)];
  }
  return o;
}

template struct Walk<2>;
template struct Walk<3>;

void map(const Tensor& x, Tensor& out, const void* f, MapRun run) {
  const Map m{f, x.raw(), out.mutable_raw()};
  parallel_for(x.numel(), even_block(x.numel(), elementwise_block, 16),
               [&](std::int64_t begin, std::int64_t end) { run(m, begin, end); });
}

void zip(const Tensor& a, const Tensor& b, Tensor& out, const void* f, ZipRun run) {
  const Zip z{f, a.raw(), b.raw(), out.mutable_raw(), Walk<2>(out.shape(), {&a.shape(), &b.shape()})};
  z.walk.in_blocks([&](std::int64_t begin, std::int64_t end) { run(z, begin, end); });
}

Tensor float_map(std::string_view op, const Tensor& x, const void* f, MapRun run32, MapRun run64) {
  expect_float(op, x);
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  map(x, out, f, x.dtype() == f32 ? run32 : run64);
  return out;
}

Tensor float_zip(std::string_view op, const Tensor& a, const Tensor& b, const void* f, ZipRun run32, ZipRun run64) {
  expect_float(op, a);
  expect_alike(op, a, b);
  Tensor out = Tensor::empty(broadcast(a.shape(), b.shape(), op), a.dtype());
  zip(a, b, out, f, a.dtype() == f32 ? run32 : run64);
  return out;
}

void add_in_place(Tensor& to, const Tensor& from) {
  visit_float(to.dtype(), [&]<class T>(T) {
    T* y = to.mutable_values<T>().data();
    const T* x = from.values<T>().data();
    parallel_simd_for<T>(to.numel(), even_block(to.numel(), elementwise_block, 16),
                         [=](std::int64_t begin, std::int64_t end) EBB_INLINE {
                           for (std::int64_t i = begin; i < end; ++i) y[i] += x[i];
                         });
  });
}

}  // namespace ebb::detail
