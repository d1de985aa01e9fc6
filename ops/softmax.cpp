// Softmax along the last axis, and the cross-entropy of logits.
#include <fmt/core.h>

#include <cmath>
#include <utility>
#include <vector>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/kernels/rows.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::fold, detail::Larger, detail::sum_of;

/// e = exp(x - max of its row) for rows of n, and the maxima.
template <class T>
void exp_group(const T* x, T* e, T* tops, std::int64_t rows, std::int64_t n) {
  detail::simd_for<T>([=]() EBB_INLINE {
    const T* __restrict in = x;
    T* __restrict out = e;
    for (std::int64_t i = 0; i < rows; ++i) {
      const T top = tops[i] = fold<Larger>(in + i * n, n);
      for (std::int64_t j = 0; j < n; ++j) out[i * n + j] = in[i * n + j] - top;
    }
    for (std::int64_t i = 0; i < rows * n; ++i) out[i] = detail::exp_of(out[i]);  // few classes still fill a vector
  });
}

/// The same, then row(i, e, top) with e where row i's are, for a group of rows at a time, which stays in L1. `e` has
/// room for all rows when they are to be kept (`keep`), else for one group.
constexpr std::int64_t group = 1024;
template <class T, class F>
void exp_rows(const T* x, T* e, bool keep, std::int64_t rows, std::int64_t n, const F& row) {
  constexpr std::int64_t most = 64;
  T tops[most];
  const std::int64_t some = n <= group / most ? most : std::max<std::int64_t>(1, group / n);
  for (std::int64_t begin = 0; begin < rows; begin += some) {
    const std::int64_t here = std::min(some, rows - begin);
    T* const out = keep ? e + begin * n : e;
    exp_group(x + begin * n, out, tops, here, n);
    detail::simd_for<T>([&]() EBB_INLINE {
      for (std::int64_t i = 0; i < here; ++i) row(begin + i, out + i * n, tops[i]);
    });
  }
}

/// Rows of one piece of the grid that threads share.
std::int64_t rows_of(std::int64_t n) { return std::max<std::int64_t>(1, 8192 / n); }

/// y = exp(x - max) along the last axis, then row(x, y, n, max) for each row.
template <class F>
Tensor each_row(std::string_view op, const Tensor& x, const F& row) {
  detail::expect_float(op, x);
  if (x.rank() == 0) fail<ShapeError>(op, "a scalar has no rows");
  Tensor out = Tensor::empty(x.shape(), x.dtype());
  const std::int64_t n = x.size(-1);
  if (x.numel() == 0) return out;
  visit_float(x.dtype(), [&]<class T>(T) {
    const T* px = x.values<T>().data();
    T* py = out.mutable_values<T>().data();
    detail::parallel_for(x.numel() / n, rows_of(n), [=](std::int64_t begin, std::int64_t end) {
      const T* from = px + begin * n;
      exp_rows(from, py + begin * n, true, end - begin, n,
               [=](std::int64_t i, T* y, T top) EBB_INLINE { row(from + i * n, y, n, top); });
    });
  });
  return out;
}

/// row(g, y, out, n) for each row of a gradient and of the value that it is of.
template <class F>
Tensor each_row(const Tensor& g, const Tensor& y, const F& row) {
  Tensor out = Tensor::empty(y.shape(), y.dtype());
  const std::int64_t n = y.size(-1);
  if (y.numel() == 0) return out;
  visit_float(y.dtype(), [&]<class T>(T) {
    const T *pg = g.values<T>().data(), *py = y.values<T>().data();
    T* po = out.mutable_values<T>().data();
    detail::parallel_simd_for<T>(y.numel() / n, rows_of(n), [=](std::int64_t begin, std::int64_t end) EBB_INLINE {
      for (std::int64_t i = begin * n; i < end * n; i += n) row(pg + i, py + i, po + i, n);
    });
  });
  return out;
}

/// With s the sum of g y of a row: y (g - s), in one pass.
struct SoftmaxGrad {
  static constexpr std::string_view name = "softmax_grad";
  static constexpr Vmap vmap = Vmap::rows;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return each_row(g, y, []<class T>(const T* gi, const T* yi, T* out, std::int64_t n) EBB_INLINE {
      const T s = static_cast<T>(sum_of<T>(n, [=](std::int64_t j) EBB_INLINE { return gi[j] * yi[j]; }));
      for (std::int64_t j = 0; j < n; ++j) out[j] = yi[j] * (gi[j] - s);
    });
  }
  Tensor backward(const Saved& saved, const Tensor& v, int i) const {
    const Tensor g = saved.input(0), y = saved.input(1);
    if (i == 0) return apply(SoftmaxGrad{}, v, y);
    return v * (g - sum(g * y, -1, {.keepdims = true})) - g * sum(v * y, -1, {.keepdims = true});
  }
};

struct Softmax {
  static constexpr std::string_view name = "softmax";
  static constexpr Tangent tangents = Tangent::symmetric;
  static constexpr Vmap vmap = Vmap::rows;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return each_row(name, x, []<class T>(const T*, T* out, std::int64_t n, T) EBB_INLINE {
      const T scale = 1 / static_cast<T>(sum_of(out, n));
      for (std::int64_t i = 0; i < n; ++i) out[i] *= scale;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(SoftmaxGrad{}, g, s.output()); }
};

/// With s the sum of a row of g: g - e^y s, in one pass.
struct LogSoftmaxGrad {
  static constexpr std::string_view name = "log_softmax_grad";
  static constexpr Vmap vmap = Vmap::rows;
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& g, const Tensor& y) const {
    return each_row(g, y, []<class T>(const T* gi, const T* yi, T* out, std::int64_t n) EBB_INLINE {
      const T s = static_cast<T>(sum_of(gi, n));
      for (std::int64_t j = 0; j < n; ++j) out[j] = gi[j] - detail::exp_of(yi[j]) * s;
    });
  }
  Tensor backward(const Saved& saved, const Tensor& v, int i) const {
    const Tensor g = saved.input(0), p = exp(saved.input(1));
    if (i == 0) return v - sum(v * p, -1, {.keepdims = true});
    return -v * p * sum(g, -1, {.keepdims = true});
  }
};

struct LogSoftmax {
  static constexpr std::string_view name = "log_softmax";
  static constexpr Vmap vmap = Vmap::rows;
  static constexpr Keeps keeps = Keeps::output;
  Tensor forward(const Tensor& x) const {
    return each_row(name, x, []<class T>(const T* in, T* out, std::int64_t n, T top) EBB_INLINE {
      const T shift = static_cast<T>(std::log(sum_of(out, n)));
      for (std::int64_t i = 0; i < n; ++i) out[i] = in[i] - top - shift;
    });
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(LogSoftmaxGrad{}, g, s.output()); }
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
  /// The cross-entropy in ops.
  Tensor loss(const Tensor& logits) const {
    const Tensor t = probabilities(logits.shape()[1], logits.dtype()), zero = scalar(0, t.dtype());
    return sum(t * where(equal(t, zero), zero, log_softmax(logits))) / -static_cast<double>(logits.shape()[0]);
  }
};

Target target_of(std::string_view op, const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& o) {
  if (!(o.label_smoothing >= 0 && o.label_smoothing < 1))
    fail<ValueError>(op, fmt::format("label_smoothing must be in [0, 1), got {}", o.label_smoothing));
  detail::expect_labels(op, labels);
  detail::expect_float(op, logits);
  if (logits.rank() != 2 || logits.numel() == 0)
    fail<ShapeError>(op, fmt::format("needs logits (n, classes), got {}", logits.shape().str()));
  if (o.class_weights.defined()) {  // a target that does not add up to one: its probabilities times the row's weight
    detail::expect_alike(op, logits, o.class_weights);
    if (o.class_weights.shape() != Shape{logits.size(1)})
      fail<ShapeError>(op, fmt::format("logits {} need class weights ({},), got {}", logits.shape().str(),
                                       logits.size(1), o.class_weights.shape().str()));
    const Tensor t = target_of(op, logits, labels, {}).probabilities(logits.size(1), logits.dtype());
    const Tensor weight = sum(t * o.class_weights.detach(), -1, {.keepdims = true});
    return {Target{t, o.label_smoothing}.probabilities(logits.size(1), logits.dtype()) * weight, 0};
  }
  if (is_float(labels.dtype())) {
    detail::expect_alike(op, logits, labels);
    if (labels.shape() != logits.shape())
      fail<ShapeError>(op, fmt::format("logits {} and label probabilities {} differ in shape", logits.shape().str(),
                                       labels.shape().str()));
    return {labels.detach(), o.label_smoothing};
  }
  if (labels.shape() != Shape{logits.shape()[0]})
    fail<ShapeError>(op, fmt::format("logits {} need labels ({},), got {}", logits.shape().str(), logits.shape()[0],
                                     labels.shape().str()));
  const Tensor classes = cast(labels, i64);
  for (const std::int64_t c : detail::every_value<std::int64_t>(classes))
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
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* px = x.values<T>().data();
      T* py = out.mutable_values<T>().data();
      const T share = static_cast<T>(g.item()) / static_cast<T>(rows);
      const T keep = static_cast<T>(1 - target.smoothing),
              spread = static_cast<T>(target.smoothing / static_cast<double>(n));
      const std::int64_t* classes = target.sparse() ? target.labels().values<std::int64_t>().data() : nullptr;
      const T* targets = classes ? nullptr : target.labels().values<T>().data();
      detail::parallel_for(rows, rows_of(n), [=](std::int64_t begin, std::int64_t end) {
        exp_rows(px + begin * n, py + begin * n, true, end - begin, n, [=](std::int64_t i, T* e, T) EBB_INLINE {
          T* __restrict y = e;
          const T scale = share / static_cast<T>(sum_of(e, n));
          if (classes) {
            for (std::int64_t j = 0; j < n; ++j) y[j] = y[j] * scale - share * spread;
            y[classes[begin + i]] -= share * keep;
          } else {
            const T* p = targets + (begin + i) * n;
            // the target's own sum, which need not be one
            const T mass =
                static_cast<T>(sum_of<T>(n, [=](std::int64_t j) EBB_INLINE { return keep * p[j] + spread; }));
            for (std::int64_t j = 0; j < n; ++j) y[j] = y[j] * scale * mass - share * (keep * p[j] + spread);
          }
        });
      });
    });
    return out;
  }
  // With p = softmax(x), t the target, m its row sums: the value is g (m p - t) / n.
  Tensor backward(const Saved& s, const Tensor& v, int i) const {
    target.held.unchanged(name, "labels");
    const Tensor x = s.input(0), g = s.input(1), t = target.probabilities(x.shape()[1], x.dtype());
    const Tensor m = sum(t, -1, {.keepdims = true}), p = softmax(x);
    const auto rows = static_cast<double>(x.shape()[0]);
    if (i == 1) return sum(v * (m * p - t)) / rows;
    const Tensor vp = v * p * m;
    return g * (vp - p * sum(vp, -1, {.keepdims = true})) / rows;
  }
  const Tensor* held() const { return &target.labels(); }
  Tensor batched(const Tensor& x, const Tensor& g) const {
    const Tensor t = target.probabilities(x.shape()[1], x.dtype());
    return g * (sum(t, -1, {.keepdims = true}) * softmax(x) - t) / static_cast<double>(x.shape()[0]);
  }
};

struct CrossEntropy {
  static constexpr std::string_view name = "cross_entropy";
  static constexpr Keeps keeps = Keeps::inputs;
  Target target;
  const Tensor& state() const { return target.labels(); }
  Tensor forward(const Tensor& x) const {
    const std::int64_t rows = x.shape()[0], n = x.shape()[1];
    const std::int64_t piece = rows_of(n);
    double total = 0;
    std::vector<double> totals(rows <= piece ? 0 : static_cast<std::size_t>((rows + piece - 1) / piece));
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* px = x.values<T>().data();
      const double keep = 1 - target.smoothing, spread = target.smoothing / static_cast<double>(n);
      const std::int64_t* classes = target.sparse() ? target.labels().values<std::int64_t>().data() : nullptr;
      const T* targets = classes ? nullptr : target.labels().values<T>().data();
      detail::parallel_for(rows, piece, [&](std::int64_t begin, std::int64_t end) {
        T few[group];
        Tensor many = n <= group ? Tensor() : Tensor::workspace({n}, x.dtype());
        T* const exps = n <= group ? few : many.mutable_values<T>().data();
        double sum = 0, product = 1;  // of the rows' sums, which are at least 1: one logarithm for many
        exp_rows(px + begin * n, exps, false, end - begin, n, [&](std::int64_t i, T* e, T top) EBB_INLINE {
          const T* row = px + (begin + i) * n;
          const double z = sum_of(e, n);
          if (classes) {
            product *= z;
            if (!(product < 1e200)) sum += std::log(std::exchange(product, 1));
            sum += static_cast<double>(top) - keep * static_cast<double>(row[classes[begin + i]]);
            if (spread != 0) sum -= spread * sum_of(row, n);
          } else {
            const T* p = targets + (begin + i) * n;
            const double log_z = static_cast<double>(top) + std::log(z);
            sum += sum_of<double>(
                n,
                [=](std::int64_t j) EBB_INLINE {  // a class that cannot be counts for nothing, though its logit be -inf
                  const double t = keep * static_cast<double>(p[j]) + spread;
                  return t == 0 ? 0 : t * (log_z - static_cast<double>(row[j]));
                });
          }
        });
        (totals.empty() ? total : totals[static_cast<std::size_t>(begin / piece)]) = sum + std::log(product);
      });
    });
    for (const double t : totals) total += t;
    return scalar(total / static_cast<double>(rows), x.dtype());
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    target.held.unchanged(name, "labels");
    return apply(CrossEntropyGrad{target}, s.input(0), g);
  }
  const Tensor* held() const { return &target.labels(); }
  Tensor batched(const Tensor& x) const { return target.loss(x); }
};

}  // namespace

Tensor softmax(const Tensor& x) { return apply(Softmax{}, x); }
Tensor log_softmax(const Tensor& x) { return apply(LogSoftmax{}, x); }

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, CrossEntropyOptions o) {
  return apply(CrossEntropy{target_of(CrossEntropy::name, logits, labels, o)}, logits);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) { return cross_entropy(logits, labels, {}); }

Tensor cross_entropy_plain(const Tensor& logits, const Tensor& labels, CrossEntropyOptions o) {
  Composition whole("cross_entropy_plain");
  return whole.gives(target_of("cross_entropy_plain", logits, labels, o).loss(logits), {&logits, &labels}, [&] {
    return Attributes{{"label_smoothing", o.label_smoothing}};
  });
}

}  // namespace ebb
