// Matrix products over BLAS, with transpose flags instead of transposed copies, and the dense layer built on them.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/functions.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/tangent.h>

namespace ebb {
namespace {

/// How many pieces of a product are worth the threads' while. Never by how many threads there are, on which no bit may
/// depend. More pieces than threads let the faster ones do more; each piece of C packs the other operand again, which
/// costs a narrow one most.
std::int64_t pieces_of(std::int64_t longer, double flops) {
  if (flops < 2e6) return 1;  // the hand-over costs more than it gains
  return longer >= 512 && flops >= 32e6 ? 4 : 2;
}

/// Adds `count` matrices of `size` numbers, one behind the other in `more`, to c: elements [begin, end) of each.
template <class T>
void add_parts(T* c, const T* more, std::int64_t count, std::int64_t size, std::int64_t begin, std::int64_t end) {
  detail::simd_for<T>([=]() EBB_INLINE {
    for (std::int64_t part = 0; part < count; ++part) {
      T* __restrict to = c;
      const T* __restrict add = more + part * size;
      for (std::int64_t i = begin; i < end; ++i) to[i] += add[i];
    }
  });
}

/// C = op(A) B as the sum of products of `pieces` parts of k: of a dense layer's x W, each takes a part of W's rows. So
/// are the gradient and the optimizer's pass over W cut, and no thread has to fetch from another's cache what that has
/// updated; and BLAS packs each number of x once.
template <class T, class After>
void product_by_depth(std::int64_t pieces, bool ta, std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
                      const T* b, T* c, const After& after) {
  Tensor others = Tensor::workspace({pieces - 1, m, n}, dtype_of<T>());
  T* const more = others.mutable_values<T>().data();
  const std::int64_t lda = ta ? m : k, step = (k + pieces - 1) / pieces;
  detail::parallel_for(k, step, [&](std::int64_t begin, std::int64_t end) {
    T* const to = begin == 0 ? c : more + (begin / step - 1) * m * n;
    detail::gemm(ta, false, m, n, end - begin, a + (ta ? begin * lda : begin), lda, b + begin * n, n, T(0), to, n);
  });
  detail::parallel_for(m, std::max<std::int64_t>(1, detail::elementwise_block / 16 / n),
                       [&](std::int64_t begin, std::int64_t end) {
                         add_parts(c, more, pieces - 1, m * n, begin * n, end * n);
                         after(c + begin * n, end - begin, n, std::int64_t{0});
                       });
}

/// One product, cut along the longer side of C, or by depth.
/// after(begin of the piece in C, rows, columns, first column) is called while a piece is hot.
template <class T, class After>
void product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const T* a, const T* b, T* c,
             const After& after) {
  const std::int64_t lda = ta ? m : k, ldb = tb ? k : n;
  const std::int64_t columns = (n + 15) / 16 * 16;  // a narrow product takes as long as one of whole registers
  const std::int64_t pieces =
      pieces_of(std::max(m, n), 2.0 * static_cast<double>(m) * static_cast<double>(columns) * static_cast<double>(k));
  // Where C is small beside B, and its parts are in the cache when they are added. W^T is cut by W's rows along n.
  if (pieces > 1 && !tb && k >= 512 && k >= 2 * m && m * n <= 65536)
    return product_by_depth(pieces, ta, m, n, k, a, b, c, after);
  if (m >= n) {
    const std::int64_t step = (m + pieces - 1) / pieces;
    detail::parallel_for(m, std::max<std::int64_t>(1, step), [&](std::int64_t begin, std::int64_t end) {
      detail::gemm(ta, tb, end - begin, n, k, a + (ta ? begin : begin * lda), lda, b, ldb, T(0), c + begin * n, n);
      after(c + begin * n, end - begin, n, std::int64_t{0});
    });
  } else {
    const std::int64_t step = (n + pieces - 1) / pieces;
    detail::parallel_for(n, std::max<std::int64_t>(1, step), [&](std::int64_t begin, std::int64_t end) {
      detail::gemm(ta, tb, m, end - begin, k, a, lda, b + (tb ? begin * ldb : begin), ldb, T(0), c + begin, n);
      after(c + begin, m, end - begin, begin);
    });
  }
}

/// Leading axes of a matrix stack.
Shape batch_of(const Shape& s) {
  return Shape(std::span<const std::int64_t>(s.begin(), static_cast<std::size_t>(s.rank() - 2)));
}

struct Matmul {
  static constexpr std::string_view name = "matmul";
  static constexpr Tangent tangents = Tangent::multilinear;
  static constexpr Keeps keeps = Keeps::other_inputs;
  static constexpr bool broadcasts = true;  // of the leading axes
  bool ta, tb;
  Attributes attributes() const { return {{"transpose_a", ta}, {"transpose_b", tb}}; }
  bool operator==(const Matmul&) const = default;

  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(out.numel()) * static_cast<double>(in[0]->at(ta ? -2 : -1));
  }
  Tensor forward(const Tensor& a, const Tensor& b) const {
    detail::expect_float(name, a);
    detail::expect_alike(name, a, b);
    const auto text = [&] {
      return fmt::format("{}{} x {}{}", a.shape().str(), ta ? "^T" : "", b.shape().str(), tb ? "^T" : "");
    };
    if (a.rank() < 2 || b.rank() < 2)
      fail<ShapeError>(name, fmt::format("needs at least 2 axes on both sides: {}", text()));
    const std::int64_t m = a.size(ta ? -1 : -2), k = a.size(ta ? -2 : -1), n = b.size(tb ? -2 : -1);
    if (k != b.size(tb ? -1 : -2)) fail<ShapeError>(name, fmt::format("inner sizes differ: {}", text()));
    const Shape batch_a = batch_of(a.shape()), batch_b = batch_of(b.shape()), batch = broadcast(batch_a, batch_b, name);
    Tensor out = Tensor::empty(batch.inserted(batch.rank(), m).inserted(batch.rank() + 1, n), a.dtype());
    if (out.numel() == 0) return out;
    visit_float(a.dtype(), [&]<class T>(T) {
      const T *pa = a.values<T>().data(), *pb = b.values<T>().data();
      T* pc = out.mutable_values<T>().data();
      if (batch.rank() == 0) return product(ta, tb, m, n, k, pa, pb, pc, [](T*, auto, auto, auto) {});
      const detail::Walk<2> walk(batch, {&batch_a, &batch_b});
      detail::parallel_for(walk.outer * walk.inner, 1, [&](std::int64_t i, std::int64_t) {
        const auto row = walk.offsets(i / walk.inner);
        const std::int64_t j = i % walk.inner, ia = row[0] + j * walk.strides[0][0],
                           ib = row[1] + j * walk.strides[1][0];
        detail::gemm(ta, tb, m, n, k, pa + ia * m * k, ta ? m : k, pb + ib * k * n, tb ? k : n, T(0), pc + i * m * n,
                     n);
      });
    });
    return out;
  }

  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    if (i == 0) {
      const Tensor b = s.input(1);
      return ta ? matmul(b, g, {tb, true}) : matmul(g, b, {false, !tb});
    }
    const Tensor a = s.input(0);
    return tb ? matmul(g, a, {true, ta}) : matmul(a, g, {!ta, false});
  }
  // Few tall products where one side is an ordinary matrix, products of numbers where nothing is added up.
  Tensor batched(const Tensor& a, const Tensor& b) const {
    const bool only_a = !detail::batched(b) && b.rank() == 2, only_b = !detail::batched(a) && a.rank() == 2;
    const int rank = std::max(a.rank(), b.rank());
    const Tensor x = detail::whole(a, rank), y = detail::whole(b, rank);
    const detail::AsOne as_one;
    const std::int64_t n = as_one.size();
    if (only_a && !ta) return detail::apart(matmul(x, y, {false, tb}), n);
    if (only_b && b.rank() >= 2 && b.size(tb ? -2 : -1) <= 16) {  // (a y)^T = y^T a^T
      const Tensor yt = tb ? y : swapped(y), product = matmul(yt, x, {false, !ta});
      return detail::apart(swapped(product), n);
    }
    if (a.rank() >= 2 && b.rank() >= 2 && a.size(ta ? -2 : -1) == 1 && b.size(tb ? -1 : -2) == 1)
      return detail::apart((ta ? swapped(x) : x) * (tb ? swapped(y) : y), n);
    return detail::apart(forward(x, y), n);
  }
  /// With the last two axes the other way round.
  static Tensor swapped(const Tensor& x) {
    const int r = x.rank();
    if (x.size(r - 1) == 1 || x.size(r - 2) == 1)
      return x.viewed_as(x.shape().with(r - 1, x.size(r - 2)).with(r - 2, x.size(r - 1)));
    const Tensor rows = x.viewed_as({x.shape().without(r - 1).without(r - 2).numel(), x.size(r - 2), x.size(r - 1)});
    return transpose(rows, {0, 2, 1}).viewed_as(x.shape().with(r - 1, x.size(r - 2)).with(r - 2, x.size(r - 1)));
  }
};

enum class Activated { no, relu, sigmoid, tanh };

/// activation(x W + b): bias and activation in one pass over each piece of the product, one rule for all gradients.
template <Activated how>
struct Linear {
  static constexpr std::string_view names[4] = {"linear", "linear_relu", "linear_sigmoid", "linear_tanh"};
  static constexpr std::string_view name = names[static_cast<int>(how)];
  static constexpr Keeps keeps = how == Activated::no ? Keeps::other_inputs : Keeps::inputs_and_output;
  static constexpr int temporaries = how == Activated::no ? 0 : 1;  // the gradient of x W + b

  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(out.numel()) * static_cast<double>(in[0]->at(-1));
  }
  // x (m, k), kernel (k, n), bias (n): linear() has checked it
  Tensor forward(const Tensor& x, const Tensor& kernel, const Tensor& bias) const {
    const std::int64_t m = x.size(0), k = x.size(1), n = kernel.size(1);
    Tensor out = Tensor::empty({m, n}, x.dtype());
    if (out.numel() == 0) return out;
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* pb = bias.values<T>().data();
      product(false, false, m, n, k, x.values<T>().data(), kernel.values<T>().data(), out.mutable_values<T>().data(),
              [pb, n](T* c, std::int64_t rows, std::int64_t columns, std::int64_t first) {
                detail::simd_for<T>([=]() EBB_INLINE {
                  const T* __restrict add = pb + first;
                  for (std::int64_t i = 0; i < rows; ++i) {
                    T* __restrict row = c + i * n;
                    for (std::int64_t j = 0; j < columns; ++j) row[j] = activated(row[j] + add[j]);
                  }
                });
              });
    });
    return out;
  }
  std::array<Tensor, 3> backward(const Saved& s, const Tensor& g) const {
    const Tensor d = before_activation(s, g);
    std::array<Tensor, 3> out;
    if (s.wants(0)) out[0] = matmul(d, s.input(1), {.transpose_b = true});
    if (s.wants(1)) out[1] = matmul(s.input(0), d, {.transpose_a = true});
    if (s.wants(2)) out[2] = sum(d, 0);
    return out;
  }
  /// One product for each side that moves, where the transpose of backward takes two.
  Tensor tangent(const Saved& s, std::span<const Tensor> t) const {
    return before_activation(
        s, detail::tangent_of_layer(s, t, nullptr,
                                    [](const void*, const Tensor& a, const Tensor& b) { return matmul(a, b); }));
  }
  Tensor batched(const Tensor& x, const Tensor& kernel, const Tensor& bias) const {
    if (!detail::batched(kernel) && !detail::batched(bias)) return detail::run_merged(*this, x, kernel, bias);
    constexpr Tensor (*activation[4])(const Tensor&) = {nullptr, relu, sigmoid, tanh};
    return linear_plain(x, kernel, bias, activation[static_cast<int>(how)]);
  }

 private:
  /// The gradient of x W + b, given that of the output; and the other way with tangents.
  static Tensor before_activation(const Saved& s, const Tensor& g) {
    if constexpr (how == Activated::relu) return detail::relu_grad(g, s.output());
    if constexpr (how == Activated::sigmoid) return detail::sigmoid_grad(g, s.output());
    if constexpr (how == Activated::tanh) return detail::tanh_grad(g, s.output());
    return g;
  }
  template <class T>
  EBB_INLINE static T activated(T v) {
    if constexpr (how == Activated::relu) return detail::relu_of(v);
    else if constexpr (how == Activated::sigmoid) return detail::sigmoid_of(v);
    else if constexpr (how == Activated::tanh) return detail::tanh_of(v);
    else return v;
  }
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, MatmulOptions o) {
  // A stack times one matrix is one product of taller matrices.
  if (a.rank() > 2 && b.rank() == 2 && !o.transpose_a && a.size(-1) == b.size(o.transpose_b ? 1 : 0)) {
    const std::int64_t k = a.size(-1), n = b.size(o.transpose_b ? 0 : 1);
    const Shape rows{a.shape().without(a.rank() - 1).numel(), k};
    return reshape(apply(Matmul{false, o.transpose_b}, reshape(a, rows), b), a.shape().with(a.rank() - 1, n));
  }
  return apply(Matmul{o.transpose_a, o.transpose_b}, a, b);
}

Tensor linear(const Tensor& x, const Tensor& kernel, const Tensor& bias, Tensor (*activation)(const Tensor&)) {
  const bool fits = x.rank() >= 2 && kernel.rank() == 2 && bias.rank() == 1 && x.size(-1) == kernel.size(0) &&
                    kernel.size(1) == bias.size(0) && is_float(x.dtype()) && x.dtype() == kernel.dtype() &&
                    x.dtype() == bias.dtype();
  if (!fits) return linear_plain(x, kernel, bias, activation);  // which says what is wrong, or broadcasts the bias
  const auto run = [&](auto op) {
    if (x.rank() == 2) return apply(op, x, kernel, bias);
    const Shape rows{x.shape().without(x.rank() - 1).numel(), x.size(-1)};
    return reshape(apply(op, reshape(x, rows), kernel, bias), x.shape().with(x.rank() - 1, kernel.size(1)));
  };
  if (activation == relu) return run(Linear<Activated::relu>{});
  if (activation == sigmoid) return run(Linear<Activated::sigmoid>{});
  if (activation == tanh) return run(Linear<Activated::tanh>{});
  const Tensor y = run(Linear<Activated::no>{});
  return activation ? activation(y) : y;
}

Tensor linear_plain(const Tensor& x, const Tensor& kernel, const Tensor& bias, Tensor (*activation)(const Tensor&)) {
  Composition whole("linear_plain");
  const Tensor y = whole.gives(matmul(x, kernel) + bias, {&x, &kernel, &bias});
  return activation ? activation(y) : y;
}

}  // namespace ebb
