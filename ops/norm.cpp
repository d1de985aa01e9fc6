// Batch normalization over all axes but the last.
#include <fmt/core.h>

#include <cmath>
#include <vector>

#include <ebb/graph/apply.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/rows.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// Rows of channels as wide rows: several rows side by side, so that narrow ones fill vector registers too, in fixed
/// blocks that stay in L2 while they are read twice.
struct Rows {
  std::int64_t n, c, fold, wide, block, blocks;
  explicit Rows(const Shape& shape)
      : n(shape.numel() / shape.at(-1)),
        c(shape.at(-1)),
        fold(c >= 64 ? 1 : 64 / c),
        wide(fold * c),
        block(std::max<std::int64_t>(1, detail::elementwise_block / wide) * fold),
        blocks((n + block - 1) / block) {}
  /// How many rows of [begin, end) lie in place k of a wide row.
  std::int64_t count(std::int64_t begin, std::int64_t end, std::int64_t k) const {
    return (end - begin - k + fold - 1) / fold;
  }
  /// body(block, begin, end) on the pool.
  template <class F>
  void each_block(const F& body) const {
    detail::parallel_for(n, block, [&](std::int64_t begin, std::int64_t end) { body(begin / block, begin, end); });
  }
  /// c values repeated for a wide row.
  template <class T>
  std::vector<T> repeated(const T* values) const {
    std::vector<T> out;
    for (std::int64_t k = 0; k < fold; ++k) out.insert(out.end(), values, values + c);
    return out;
  }
};

/// f(i, j) for the elements of rows [begin, end): i counts elements, j the place in a wide row.
template <class F>
EBB_INLINE inline void each_element(const Rows& r, std::int64_t begin, std::int64_t end, const F& f) {
  std::int64_t i = begin * r.c;
  for (; i + r.wide <= end * r.c; i += r.wide)
    for (std::int64_t j = 0; j < r.wide; ++j) f(i + j, j);
  for (std::int64_t j = 0; i + j < end * r.c; ++j) f(i + j, j);
}

/// sums[j] += f(i, j) over those elements.
template <class T, class F>
EBB_INLINE inline void add_elements(const Rows& r, std::int64_t begin, std::int64_t end, const F& f, double* sums) {
  const std::int64_t first = begin * r.c, whole = (end * r.c - first) / r.wide, last = first + whole * r.wide;
  detail::add_rows<T>(
      whole, r.wide, [&](std::int64_t i, std::int64_t j) EBB_INLINE { return f(first + i * r.wide + j, j); }, sums);
  for (std::int64_t j = 0; last + j < end * r.c; ++j) sums[j] += static_cast<double>(f(last + j, j));
}

/// Mean and variance of each channel as (2, c): two passes within a block, blocks joined in double (Chan et al. 1979),
/// so that a mean far from zero costs no digits.
template <class T>
void moments_of(const Rows& r, const T* x, T* out) {
  std::vector<double> parts(static_cast<std::size_t>(r.blocks * 2 * r.wide));
  std::vector<T> centers(static_cast<std::size_t>(r.blocks * r.wide));
  r.each_block([&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    double* __restrict mean = parts.data() + b * 2 * r.wide;
    double* __restrict squares = mean + r.wide;
    T* __restrict center = centers.data() + b * r.wide;
    detail::simd_for<T>([&]() EBB_INLINE {
      add_elements<T>(
          r, begin, end, [=](std::int64_t i, std::int64_t) EBB_INLINE { return x[i]; }, mean);
      for (std::int64_t k = 0; k < r.fold; ++k) {
        const auto rows = static_cast<double>(std::max<std::int64_t>(1, r.count(begin, end, k)));
        for (std::int64_t j = k * r.c; j < (k + 1) * r.c; ++j) {
          mean[j] /= rows;
          center[j] = static_cast<T>(mean[j]);
        }
      }
      add_elements<T>(
          r, begin, end,
          [=](std::int64_t i, std::int64_t j) EBB_INLINE { return (x[i] - center[j]) * (x[i] - center[j]); }, squares);
      for (std::int64_t k = 0; k < r.fold; ++k) {  // the center is the mean but for a rounding
        const auto rows = static_cast<double>(r.count(begin, end, k));
        for (std::int64_t j = k * r.c; j < (k + 1) * r.c; ++j) {
          const double off = mean[j] - static_cast<double>(center[j]);
          squares[j] = std::max(0.0, squares[j] - off * off * rows);
        }
      }
    });
  });
  std::vector<double> mean(static_cast<std::size_t>(r.c)), squares(mean.size());
  double n = 0;
  for (std::int64_t b = 0; b < r.blocks; ++b)
    for (std::int64_t k = 0; k < r.fold; ++k) {
      const auto m = static_cast<double>(r.count(b * r.block, std::min(r.n, (b + 1) * r.block), k));
      if (m == 0) continue;
      const double* part = parts.data() + b * 2 * r.wide + k * r.c;
      for (std::size_t j = 0; j < mean.size(); ++j) {
        const double d = part[j] - mean[j];
        mean[j] += d * m / (n + m);
        squares[j] += part[static_cast<std::size_t>(r.wide) + j] + d * d * n * m / (n + m);
      }
      n += m;
    }
  for (std::size_t j = 0; j < mean.size(); ++j) {
    out[j] = static_cast<T>(mean[j]);
    out[mean.size() + j] = static_cast<T>(squares[j] / n);
  }
}

/// Gradients for x (null when unwanted) and, as (2, c), for gamma and beta, in two passes over x and g.
template <class T>
void slopes_of(const Rows& r, const T* x, const T* g, const T* gamma, const T* moments, double epsilon, T* dx, T* out) {
  const std::vector<T> mean = r.repeated(moments);
  std::vector<double> parts(static_cast<std::size_t>(r.blocks * 2 * r.wide));
  r.each_block([&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    double* const plain = parts.data() + b * 2 * r.wide;
    detail::simd_for<T>([&]() EBB_INLINE {
      const T* __restrict m = mean.data();
      const std::int64_t rows =
          std::max<std::int64_t>(8, 2048 / r.wide / 8 * 8);  // that stay in the L1 cache for the second sum
      for (std::int64_t first = begin; first < end; first += rows * r.fold) {
        const std::int64_t last = std::min(end, first + rows * r.fold);
        add_elements<T>(
            r, first, last, [=](std::int64_t i, std::int64_t) EBB_INLINE { return g[i]; }, plain);
        add_elements<T>(
            r, first, last, [=](std::int64_t i, std::int64_t j) EBB_INLINE { return g[i] * (x[i] - m[j]); },
            plain + r.wide);
      }
    });
  });
  std::vector<T> by_g(mean.size()), by_x(mean.size()), shift(mean.size());
  for (std::int64_t j = 0; j < r.c; ++j) {
    double plain = 0, centered = 0;
    for (std::int64_t b = 0; b < r.blocks; ++b)
      for (std::int64_t k = 0; k < r.fold; ++k) {
        plain += parts[static_cast<std::size_t>(b * 2 * r.wide + k * r.c + j)];
        centered += parts[static_cast<std::size_t>((b * 2 + 1) * r.wide + k * r.c + j)];
      }
    const double s = 1 / std::sqrt(static_cast<double>(moments[r.c + j]) + epsilon),
                 a = static_cast<double>(gamma[j]) * s;
    out[j] = static_cast<T>(centered * s);
    out[r.c + j] = static_cast<T>(plain);
    for (std::int64_t k = 0; k < r.fold; ++k) {
      const auto at = static_cast<std::size_t>(k * r.c + j);
      by_g[at] = static_cast<T>(a);
      by_x[at] = static_cast<T>(-a * s * s * centered / static_cast<double>(r.n));
      shift[at] = static_cast<T>(-a * plain / static_cast<double>(r.n));
    }
  }
  if (dx)
    r.each_block([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      detail::simd_for<T>([&]() EBB_INLINE {
        const T *__restrict m = mean.data(), *__restrict p = by_g.data(), *__restrict q = by_x.data(), *__restrict s = shift.data();
        T* __restrict to = dx;
        each_element(r, begin, end, [&](std::int64_t i, std::int64_t j) EBB_INLINE {
          to[i] = p[j] * g[i] + q[j] * (x[i] - m[j]) + s[j];
        });
      });
    });
}

Tensor row_of(const Tensor& pair, std::int64_t i) { return pair.rows(i, i + 1).viewed_as({pair.size(1)}); }

struct BatchNorm {
  static constexpr std::string_view name = "batch_norm";
  static constexpr Keeps keeps = Keeps::inputs;
  BatchNormOptions options;
  Tensor moments = {};  // (2, c): mean and variance of the batch
  const Tensor& state() const { return moments; }
  Attributes attributes() const { return {{"epsilon", options.epsilon}}; }

  Tensor forward(const Tensor& x, const Tensor& gamma, const Tensor& beta) {
    const Rows r(x.shape());
    moments = Tensor::empty({2, r.c}, x.dtype());
    Tensor y = Tensor::empty(x.shape(), x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* px = x.values<T>().data();
      T *py = y.mutable_values<T>().data(), *pm = moments.mutable_values<T>().data();
      moments_of(r, px, pm);
      std::vector<T> scale(static_cast<std::size_t>(r.c));
      for (std::int64_t j = 0; j < r.c; ++j)
        scale[static_cast<std::size_t>(j)] =
            static_cast<T>(static_cast<double>(gamma.values<T>()[static_cast<std::size_t>(j)]) /
                           std::sqrt(static_cast<double>(pm[r.c + j]) + options.epsilon));
      const std::vector<T> mean = r.repeated(pm), a = r.repeated(scale.data()), b = r.repeated(beta.values<T>().data());
      r.each_block([&](std::int64_t, std::int64_t begin, std::int64_t end) {
        detail::simd_for<T>([&]() EBB_INLINE {
          const T* __restrict m = mean.data(), * __restrict p = a.data(), * __restrict q = b.data();
          T* __restrict to = py;
          each_element(r, begin, end,
                       [&](std::int64_t i, std::int64_t j) EBB_INLINE { to[i] = p[j] * (px[i] - m[j]) + q[j]; });
        });
      });
    });
    if (options.moments) *options.moments = {row_of(moments, 0), row_of(moments, 1)};
    return y;
  }

  // With x^ = (x - mean) / s, s^2 = variance + epsilon: dbeta = sum g, dgamma = sum g x^,
  // dx = gamma / s (g - (dbeta + x^ dgamma) / n).
  std::vector<Tensor> backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), gamma = s.input(1);
    const Tensor centered = x - mean(x, 0), scale = pow(mean(square(centered), 0) + options.epsilon, -0.5),
                 normal = centered * scale;
    const Tensor dbeta = sum(g, 0), dgamma = sum(g * normal, 0);
    return {gamma * scale * (g - (dbeta + normal * dgamma) / static_cast<double>(x.size(0))), dgamma, dbeta};
  }
  std::vector<Tensor> fast_backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), gamma = s.input(1);
    const Rows r(x.shape());
    Tensor pair = Tensor::empty({2, r.c}, x.dtype()), dx = s.wants(0) ? Tensor::empty(x.shape(), x.dtype()) : Tensor();
    visit_float(x.dtype(), [&]<class T>(T) {
      slopes_of(r, x.values<T>().data(), g.values<T>().data(), gamma.values<T>().data(), moments.values<T>().data(),
                options.epsilon, dx.defined() ? dx.mutable_values<T>().data() : nullptr,
                pair.mutable_values<T>().data());
    });
    return {dx, row_of(pair, 0), row_of(pair, 1)};
  }
  Tensor batched(const Tensor& x, const Tensor& gamma, const Tensor& beta) const {
    return batch_norm_plain(x, gamma, beta, options);
  }
};

/// The checks, and x as rows of channels.
Tensor rows_for(std::string_view op, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                const BatchNormOptions& o) {
  detail::expect_float(op, x);
  detail::expect_alike(op, x, gamma);
  detail::expect_alike(op, x, beta);
  if (x.rank() < 2 || x.numel() == 0)
    fail<ShapeError>(op, fmt::format("needs an input (n, ..., channels), got {}", x.shape().str()));
  if (const Shape c{x.size(-1)}; gamma.shape() != c || beta.shape() != c)
    fail<ShapeError>(op, fmt::format("{} needs gamma and beta {}, got {} and {}", x.shape().str(), c.str(),
                                     gamma.shape().str(), beta.shape().str()));
  if (!(o.epsilon > 0)) fail<ValueError>(op, fmt::format("epsilon must be above 0, got {}", o.epsilon));
  return reshape(x, {-1, x.size(-1)});
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, BatchNormOptions o) {
  Composition whole(BatchNorm::name);
  return whole.gives(reshape(apply(BatchNorm{o}, rows_for(BatchNorm::name, x, gamma, beta, o), gamma, beta), x.shape()),
                     {&x, &gamma, &beta}, [&] {
                       return Attributes{{"epsilon", o.epsilon}};
                     });
}

Tensor batch_norm_plain(const Tensor& x, const Tensor& gamma, const Tensor& beta, BatchNormOptions o) {
  Composition whole("batch_norm_plain");
  const Tensor rows = rows_for("batch_norm_plain", x, gamma, beta, o), m = mean(rows, 0), v = variance(rows, 0);
  if (o.moments) *o.moments = {m.detach(), v.detach()};
  return whole.gives(reshape((rows - m) / sqrt(v + o.epsilon) * gamma + beta, x.shape()), {&x, &gamma, &beta}, [&] {
    return Attributes{{"epsilon", o.epsilon}};
  });
}

}  // namespace ebb
