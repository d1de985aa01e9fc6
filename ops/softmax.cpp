// Softmax along the last axis, and the cross-entropy of logits.
#include <fmt/core.h>

#include <cmath>
#include <utility>

#include <ebb/graph/apply.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/functions.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// y = exp(x - max of its row) for rows of n.
template <class T>
void exp_rows(const T* x, T* y, std::int64_t rows, std::int64_t n) {
  detail::simd_for<T>([&]() EBB_INLINE {
    const T* __restrict in = x;
    T* __restrict out = y;
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* row = in + i * n;
      T top = row[0];
      for (std::int64_t j = 1; j < n; ++j) top = row[j] > top ? row[j] : top;
      for (std::int64_t j = 0; j < n; ++j) out[i * n + j] = row[j] - top;
    }
    for (std::int64_t i = 0; i < rows * n; ++i) out[i] = detail::exp_of(out[i]);  // few classes still fill a vector
  });
}

template <class T>
T row_max(const T* x, std::int64_t n) {
  T top = x[0];
  for (std::int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

template <class T>
T row_total(const T* x, std::int64_t n) {
  T total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

/// y = exp(x - max) along the last axis, then row(x, y, n) for each row.
template <class F>
Tensor each_row(std::string_view op, const Tensor& x, const F& row) {
  detail::expect_float(op, x);
  if (x.rank() == 0) fail<ShapeError>(op, "a scalar has no rows");
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  const std::int64_t n = x.size(-1);
  if (x.numel() == 0) return out;
  visit_float(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* px = x.values<T>().data();
    T* py = out.mutable_values<T>().data();
    detail::parallel_for(x.numel() / n, std::max<std::int64_t>(1, 8192 / n), [&](std::int64_t begin, std::int64_t end) {
      exp_rows(px + begin * n, py + begin * n, end - begin, n);
      for (std::int64_t i = begin; i < end; ++i) row(px + i * n, py + i * n, n);
    });
  });
  return out;
}

struct Softmax {
  static constexpr std::string_view name = "softmax";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return each_row(name, x, [](const auto*, auto* out, std::int64_t n) {
      const auto scale = 1 / row_total(out, n);
      for (std::int64_t i = 0; i < n; ++i) out[i] *= scale;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor y = s.output(), gy = g * y;
    return gy - y * sum(gy, -1, {.keepdims = true});
  }
};

struct LogSoftmax {
  static constexpr std::string_view name = "log_softmax";
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return each_row(name, x, [](const auto* in, auto* out, std::int64_t n) {
      const auto top = row_max(in, n), shift = std::log(row_total(out, n));
      for (std::int64_t i = 0; i < n; ++i) out[i] = in[i] - top - shift;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return g - exp(s.output()) * sum(g, -1, {.keepdims = true}); }
};

// ---- cross-entropy -------------------------------------------------------------------------------------------------

/// What the logits are held against: one class a row, or probabilities; smoothed.
struct Target {
  detail::Held held;  // int64 (n), or the type of the logits (n, c)
  double smoothing;
  const Tensor& labels() const { return held.value(); }
  bool sparse() const { return labels().dtype() == i64; }
  Tensor probabilities(std::int64_t classes, DType dtype) const {
    const Tensor p = sparse() ? one_hot(labels(), classes, dtype) : labels();
    return smoothing == 0 ? p : affine(p, 1 - smoothing, smoothing / static_cast<double>(classes));
  }
};

Target target_of(std::string_view op, const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& o) {
  if (!(o.label_smoothing >= 0 && o.label_smoothing < 1))
    fail<ValueError>(op, fmt::format("label_smoothing must be in [0, 1), got {}", o.label_smoothing));
  detail::expect_float(op, logits);
  if (logits.rank() != 2 || logits.numel() == 0) fail<ShapeError>(op, fmt::format("needs logits (n, classes), got {}", logits.shape().str()));
  if (o.class_weights.defined()) {  // a target that does not add up to one: its probabilities times the row's weight
    detail::expect_alike(op, logits, o.class_weights);
    if (o.class_weights.shape() != Shape{logits.size(1)})
      fail<ShapeError>(op, fmt::format("logits {} need class weights ({},), got {}", logits.shape().str(), logits.size(1), o.class_weights.shape().str()));
    const Tensor t = target_of(op, logits, labels, {}).probabilities(logits.size(1), logits.dtype());
    const Tensor weight = sum(t * o.class_weights.detach(), -1, {.keepdims = true});
    return {Target{t, o.label_smoothing}.probabilities(logits.size(1), logits.dtype()) * weight, 0};
  }
  if (is_float(labels.dtype())) {
    detail::expect_alike(op, logits, labels);
    if (labels.shape() != logits.shape())
      fail<ShapeError>(op, fmt::format("logits {} and label probabilities {} differ in shape", logits.shape().str(), labels.shape().str()));
    return {labels.detach(), o.label_smoothing};
  }
  if (labels.shape() != Shape{logits.shape()[0]})
    fail<ShapeError>(op, fmt::format("logits {} need labels ({},), got {}", logits.shape().str(), logits.shape()[0], labels.shape().str()));
  const Tensor classes = cast(labels, i64);
  for (const std::int64_t c : classes.values<std::int64_t>())
    if (c < 0 || c >= logits.shape()[1])
      fail<ValueError>(op, fmt::format("label {} is outside of [0, {})", c, logits.shape()[1]));
  return {classes, o.label_smoothing};
}

/// g (softmax(x) - target) / n in one pass over the logits.
struct CrossEntropyGrad {
  static constexpr std::string_view name = "cross_entropy_grad";
  static constexpr Keeps keeps = Keeps::inputs;
  Target target;
  Tensor forward(const Tensor& x, const Tensor& g) const {
    const std::int64_t rows = x.shape()[0], n = x.shape()[1];
    Tensor out = Tensor::empty(x.shape(), x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* px = x.values<T>().data();
      T* py = out.mutable_values<T>().data();
      const T share = static_cast<T>(g.item()) / static_cast<T>(rows);
      const T keep = static_cast<T>(1 - target.smoothing), spread = static_cast<T>(target.smoothing / static_cast<double>(n));
      exp_rows(px, py, rows, n);
      for (std::int64_t i = 0; i < rows; ++i, py += n) {
        const T scale = share / row_total(py, n);
        if (target.sparse()) {
          for (std::int64_t j = 0; j < n; ++j) py[j] = py[j] * scale - share * spread;
          py[target.labels().values<std::int64_t>()[static_cast<std::size_t>(i)]] -= share * keep;
        } else {
          const T* p = target.labels().values<T>().data() + i * n;
          T mass = 0;  // the target's own sum, which need not be one
          for (std::int64_t j = 0; j < n; ++j) mass += keep * p[j] + spread;
          for (std::int64_t j = 0; j < n; ++j) py[j] = py[j] * scale * mass - share * (keep * p[j] + spread);
        }
      }
    });
    return out;
  }
  // With p = softmax(x), t the target, m its row sums: the value is g (m p - t) / n.
  Tensor backward(const Saved& s, const Tensor& v, int i) const {
    target.held.unchanged(name, "labels");
    const Tensor x = s.input(0), g = s.input(1), t = target.probabilities(x.shape()[1], x.dtype());
    const Tensor m = sum(t, -1, {.keepdims = true}), p = softmax(x);
    const double share = 1 / static_cast<double>(x.shape()[0]);
    if (i == 1) return sum(v * (m * p - t)) * share;
    const Tensor vp = v * p * m;
    return g * (vp - p * sum(vp, -1, {.keepdims = true})) * share;
  }
};

struct CrossEntropy {
  static constexpr std::string_view name = "cross_entropy";
  static constexpr Keeps keeps = Keeps::inputs;
  Target target;
  const Tensor& state() const { return target.labels(); }
  Tensor forward(const Tensor& x) const {
    const std::int64_t rows = x.shape()[0], n = x.shape()[1];
    Tensor exps = Tensor::empty(x.shape(), x.dtype());
    double total = 0;
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* px = x.values<T>().data();
      T* pe = exps.mutable_values<T>().data();
      exp_rows(px, pe, rows, n);
      const double keep = 1 - target.smoothing, spread = target.smoothing / static_cast<double>(n);
      double product = 1;  // of the rows' sums, which are at least 1: one logarithm for many
      for (std::int64_t i = 0; i < rows; ++i, px += n, pe += n) {
        const auto top = static_cast<double>(row_max(px, n)), z = static_cast<double>(row_total(pe, n));
        if (target.sparse()) {
          const T hit = px[target.labels().values<std::int64_t>()[static_cast<std::size_t>(i)]];
          product *= z;
          if (!(product < 1e200)) total += std::log(std::exchange(product, 1));
          total += top - keep * static_cast<double>(hit);
          if (spread != 0) total -= spread * static_cast<double>(row_total(px, n));
        } else {
          const T* p = target.labels().values<T>().data() + i * n;
          const double log_z = top + std::log(z);
          for (std::int64_t j = 0; j < n; ++j)
            total += (keep * static_cast<double>(p[j]) + spread) * (log_z - static_cast<double>(px[j]));
        }
      }
      total += std::log(product);
    });
    return scalar(total / static_cast<double>(rows), x.dtype());
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    target.held.unchanged(name, "labels");
    return apply(CrossEntropyGrad{target}, s.input(0), g);
  }
};

}  // namespace

Tensor softmax(const Tensor& x) { return apply(Softmax{}, x); }
Tensor log_softmax(const Tensor& x) { return apply(LogSoftmax{}, x); }

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, CrossEntropyOptions o) {
  return apply(CrossEntropy{target_of(CrossEntropy::name, logits, labels, o)}, logits);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) { return cross_entropy(logits, labels, {}); }

Tensor cross_entropy_plain(const Tensor& logits, const Tensor& labels, CrossEntropyOptions o) {
  const Target target = target_of("cross_entropy_plain", logits, labels, o);
  const Tensor t = target.probabilities(logits.shape()[1], logits.dtype());
  return sum(t * log_softmax(logits)) / -static_cast<double>(logits.shape()[0]);
}

}  // namespace ebb
