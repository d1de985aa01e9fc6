// (over 400 lines because transforms of tiles, filters and results are one calculation)
#include <ebb/ops/kernels/winograd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/tile.h>

namespace ebb {
namespace {

bool asked() {
  const char* off = std::getenv("EBB_WINOGRAD");
  return !off || std::strcmp(off, "0") != 0;
}
std::atomic<bool> allowed{asked()};

}  // namespace

void set_winograd(bool on) { allowed = on; }
bool winograd() { return allowed; }

namespace detail {
namespace {

template <int R, int C>
struct Matrix {
  static constexpr int rows = R, cols = C;
  float at[R][C];
  constexpr Matrix<C, R> transposed() const {
    Matrix<C, R> t{};
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < C; ++j) t.at[j][i] = at[i][j];
    return t;
  }
};

// y = out [(filter g filter^T) * (in x in^T)] out^T, from the interpolation points 0, 1, -1, then 2, then -2, and
// infinity.
template <int M>
struct Maps;
template <>
struct Maps<2> {
  static constexpr Matrix<4, 4> in{{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}};
  static constexpr Matrix<4, 3> filter{{{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}}};
  static constexpr Matrix<2, 4> out{{{1, 1, 1, 0}, {0, 1, -1, -1}}};
};
template <>
struct Maps<3> {
  static constexpr Matrix<5, 5> in{
      {{2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}}};
  static constexpr Matrix<5, 3> filter{
      {{.5f, 0, 0}, {-.5f, -.5f, -.5f}, {-1 / 6.f, 1 / 6.f, -1 / 6.f}, {1 / 6.f, 1 / 3.f, 2 / 3.f}, {0, 0, 1}}};
  static constexpr Matrix<3, 5> out{{{1, 1, 1, 1, 0}, {0, 1, -1, 2, 0}, {0, 1, 1, 4, 1}}};
};
template <>
struct Maps<4> {
  static constexpr Matrix<6, 6> in{{{4, 0, -5, 0, 1, 0},
                                    {0, -4, -4, 1, 1, 0},
                                    {0, 4, -4, -1, 1, 0},
                                    {0, -2, -1, 2, 1, 0},
                                    {0, 2, -1, -2, 1, 0},
                                    {0, 4, 0, -5, 0, 1}}};
  static constexpr Matrix<6, 3> filter{{{.25f, 0, 0},
                                        {-1 / 6.f, -1 / 6.f, -1 / 6.f},
                                        {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                                        {1 / 24.f, 1 / 12.f, 1 / 6.f},
                                        {1 / 24.f, -1 / 12.f, 1 / 6.f},
                                        {0, 0, 1}}};
  static constexpr Matrix<4, 6> out{
      {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
};
template <int M>
struct Adjoints {
  static constexpr auto in = Maps<M>::in.transposed();
  static constexpr auto filter = Maps<M>::filter.transposed();
  static constexpr auto out = Maps<M>::out.transposed();
};

/// sum += row I of L, from column K on, times v; zeros and ones cost nothing.
template <const auto& L, int I, int K, bool Started, class V>
inline void EBB_INLINE combine(const V* v, V& sum) {
  if constexpr (K < L.cols) {
    constexpr float l = L.at[I][K];
    if constexpr (l == 0) return combine<L, I, K + 1, Started>(v, sum);
    if constexpr (l != 0) {
      if constexpr (!Started) sum = l == 1 ? v[K] : l * v[K];
      else if constexpr (l == 1) sum += v[K];
      else if constexpr (l == -1) sum -= v[K];
      else sum += l * v[K];
      combine<L, I, K + 1, true>(v, sum);
    }
  }
}
template <const auto& L, int I, class V, class Use>
inline void EBB_INLINE each_row(const V* v, const Use& use) {
  if constexpr (I < L.rows) {
    V sum;
    combine<L, I, 0, false>(v, sum);
    use(I, sum);
    each_row<L, I + 1>(v, use);
  }
}
/// store(i, j, element of L x L^T) for a square x of registers; load(i, j, register).
template <const auto& L, class V, class Load, class Store>
inline void EBB_INLINE sandwich(const Load& load, const Store& store) {
  V half[L.rows][L.cols];
#pragma GCC unroll 8
  for (int j = 0; j < L.cols; ++j) {
    V column[L.cols];
#pragma GCC unroll 8
    for (int i = 0; i < L.cols; ++i) load(i, j, column[i]);
    each_row<L, 0>(column, [&](int i, const V& sum) EBB_INLINE { half[i][j] = sum; });
  }
#pragma GCC unroll 8
  for (int i = 0; i < L.rows; ++i) each_row<L, 0>(half[i], [&](int j, const V& sum) EBB_INLINE { store(i, j, sum); });
}

// By the number of lanes: a type given as a template argument would lose that it may lie at any address.
template <int W>
inline const typename Lanes<W>::type& EBB_INLINE at(const float* p) {
  return *reinterpret_cast<const typename Lanes<W>::type*>(p);
}
template <int W>
inline typename Lanes<W>::type& EBB_INLINE at(float* p) {
  return *reinterpret_cast<typename Lanes<W>::type*>(p);
}

template <int W>
inline bool EBB_INLINE is_zero(const typename Lanes<W>::type& v) {
  bool all = true;
  for (int k = 0; k < W; ++k) all = all && v[k] == 0;
  return all;
}

/// A square of an image: `size` x `size` positions from (y, x) on, some of which may lie outside.
struct Square {
  std::int64_t y, x, size, h, w, c;
  bool inside() const { return y >= 0 && x >= 0 && y + size <= h && x + size <= w; }
  /// use(row, first column inside, columns inside); rows outside have none.
  template <class Use>
  void EBB_INLINE rows(const Use& use) const {
    const std::int64_t first = std::max<std::int64_t>(0, -x), last = std::max(first, std::min(size, w - x));
    for (std::int64_t i = 0; i < size; ++i) use(i, first, y + i >= 0 && y + i < h ? last - first : 0);
  }
  /// The square as it is, or, at an edge, a copy with zeros where there is no image; and the step from row to row.
  const float* read(const float* image, float* copy, std::int64_t& step) const {
    if (inside()) {
      step = w * c;
      return image + (y * w + x) * c;
    }
    step = size * c;
    rows([&](std::int64_t i, std::int64_t first, std::int64_t count) {
      float* to = copy + i * step;
      if (count < size) std::fill(to, to + step, 0.f);
      if (count) std::copy_n(image + ((y + i) * w + x + first) * c, count * c, to + first * c);
    });
    return copy;
  }
};

/// use(number of the tile, square of `size` inputs or outputs) for the tiles of all images.
template <class Use>
inline void EBB_INLINE each_tile(const Window& v, int m, std::int64_t images, bool inputs, const Use& use) {
  const std::int64_t rows = (v.oh + m - 1) / m, cols = (v.ow + m - 1) / m;
  std::int64_t t = 0;
  for (std::int64_t i = 0; i < images; ++i)
    for (std::int64_t ty = 0; ty < rows; ++ty)
      for (std::int64_t tx = 0; tx < cols; ++tx, ++t)
        use(i, t,
            inputs ? Square{ty * m - v.top, tx * m - v.left, m + 2, v.h, v.w, v.c}
                   : Square{ty * m, tx * m, m, v.oh, v.ow, 0});
}

/// f(m as a constant, lanes as a constant). Registers of four lanes are too few for the transforms to pay.
template <class F>
void with(int m, const F& f) {
  const auto run = [&](auto lanes) EBB_INLINE {
    if (m == 2) f(std::integral_constant<int, 2>{}, lanes);
    else if (m == 3) f(std::integral_constant<int, 3>{}, lanes);
    else f(std::integral_constant<int, 4>{}, lanes);
  };
  if (isa() == Isa::avx512) run_avx512([&]() EBB_INLINE { run(std::integral_constant<int, 16>{}); });
  else run_avx2([&]() EBB_INLINE { run(std::integral_constant<int, 8>{}); });
}

/// Squares of L.cols x L.cols of the images to planes: the map of inputs, and the adjoint of the map back.
template <const auto& L, int W>
inline void EBB_INLINE gather(const Window& v, int m, std::int64_t images, bool inputs, std::int64_t c,
                              const float* from, std::int64_t image_size, float* planes, std::int64_t step,
                              float* copy) {
  using V = typename Lanes<W>::type;
  each_tile(v, m, images, inputs, [&](std::int64_t i, std::int64_t t, Square s) EBB_INLINE {
    s.c = c;
    std::int64_t row;
    const float* square = s.read(from + i * image_size, copy, row);
    for (std::int64_t k = 0; k < c; k += W)
      sandwich<L, V>([&](int a, int b, V& to) EBB_INLINE { to = at<W>(square + a * row + b * c + k); },
                     [&](int a, int b, const V& sum)
                         EBB_INLINE { at<W>(planes + (a * L.rows + b) * step + t * c + k) = sum; });
  });
}

}  // namespace

// Not a multiple of the page size, which would put one element of all points into the same few lines of the L1 cache.
std::int64_t Winograd::plane(std::int64_t rows, std::int64_t columns) { return rows * columns + 16; }

Winograd::Winograd(const Window& v, std::int64_t out) {
  if (!winograd() || isa() == Isa::baseline || v.kh != 3 || v.kw != 3 || v.sh != 1 || v.sw != 1 || v.dh != 1 ||
      v.dw != 1)
    return;
  if (v.c == 0 || out == 0 || v.c % Product::lanes || out % Product::lanes || v.n * v.positions() == 0) return;
  // Passes over a register of each: products, transforms, and for small batches what the filters' transform costs.
  const auto n = static_cast<double>(v.n), c = static_cast<double>(v.c), o = static_cast<double>(out);
  double best = 9.0 * n * static_cast<double>(v.positions()) * c * o;
  int best_m = 0;
  for (const int size : {2, 3, 4}) {
    m = size;
    const double squares = n * static_cast<double>(tiles(v)), p = static_cast<double>(points());
    const double cost = squares * p * (c * o + 8 * (c + o)) + 8 * p * c * o;
    if (cost < best) best = cost, best_m = size;
  }
  m = best_m;
}

std::int64_t Winograd::block_images(const Window& v, std::int64_t out, std::int64_t most) const {
  constexpr std::int64_t rows = 16;
  const std::int64_t bytes = tiles(v) * points() * (v.c + out) * 4, enough = (rows + tiles(v) - 1) / tiles(v);
  return std::clamp<std::int64_t>((512 << 10) / bytes, 1, std::max(enough, most));
}

std::int64_t Winograd::scratch_size(const Window& v, std::int64_t out, std::int64_t images) const {
  const std::int64_t t = images * tiles(v);
  return points() * (plane(t, v.c) + plane(t, out) + std::max(v.c, out));
}

Tensor Winograd::filters(const float* k, std::int64_t c, std::int64_t out, bool flip) const {
  Tensor result = Tensor::workspace({points(), plane(c, out)}, f32);
  float* to = result.mutable_values<float>().data();
  Tensor turned;
  if (flip) {
    turned = Tensor::workspace({9, out, c}, f32);
    float* t = turned.mutable_values<float>().data();
    transpose_each(t, k, 9, c, out);
    k = t;
  }
  const std::int64_t size = c * out, step = plane(c, out);
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int W = decltype(lanes)::value;
    using V = typename Lanes<W>::type;
    static constexpr auto& G = Maps<decltype(mm)::value>::filter;
    for (std::int64_t e = 0; e < size; e += W)
      sandwich<G, V>([&](int i, int j, V& x) EBB_INLINE { x = at<W>(k + (i * 3 + j) * size + e); },
                     [&](int i, int j, const V& sum) EBB_INLINE { at<W>(to + (i * G.rows + j) * step + e) = sum; });
  });
  return result;
}

bool Winograd::forward(const Window& v, std::int64_t out, std::int64_t images, const float* x, const float* u,
                       const float* bias, bool relu, float* y, float* scratch) const {
  const std::int64_t t = images * tiles(v), step_in = plane(t, v.c), step_out = plane(t, out);
  float *in = scratch, *sums = in + points() * step_in, *copy = sums + points() * step_out;
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    gather<Maps<M>::in, W>(v, M, images, true, v.c, x, v.image_size(), in, step_in, copy);
  });
  for (std::int64_t p = 0; p < points(); ++p)
    multiply({.m = t,
              .n = out,
              .outer = 1,
              .inner = v.c,
              .a = in + p * step_in,
              .a_row = v.c,
              .a_outer = 0,
              .a_inner = 1,
              .b = u + p * plane(v.c, out),
              .b_outer = 0,
              .b_inner = out,
              .c = sums + p * step_out,
              .c_row = out});
  bool finite = true;
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    using V = typename Lanes<W>::type;
    V odd{};  // 0 as long as all sums are finite
    each_tile(v, M, images, false, [&](std::int64_t i, std::int64_t n, Square s) EBB_INLINE {
      float* to = y + ((i * v.oh + s.y) * v.ow + s.x) * out;
      float* square = s.inside() ? to : copy;
      const std::int64_t row = (s.inside() ? v.ow : M) * out;
      for (std::int64_t o = 0; o < out; o += W) {
        const V shift = bias ? at<W>(bias + o) : V{};
        sandwich<Maps<M>::out, V>([&](int a, int b, V& z)
                                      EBB_INLINE { z = at<W>(sums + (a * (M + 2) + b) * step_out + n * out + o); },
                                  [&](int a, int b, const V& sum) EBB_INLINE {
                                    V z = sum + shift;
                                    odd += z - z;
                                    if (relu) z = z <= 0 ? V{} : z;  // NaN stays
                                    at<W>(square + a * row + b * out + o) = z;
                                  });
      }
      if (!s.inside())
        s.rows([&](std::int64_t a, std::int64_t first, std::int64_t count) {
          if (count) std::copy_n(copy + a * row + first * out, count * out, to + (a * v.ow + first) * out);
        });
    });
    finite = is_zero<W>(odd);
  });
  return finite;
}

bool Winograd::backward(const Window& v, std::int64_t out, std::int64_t images, const float* x, const float* dy,
                        const float* flipped, float* dx, float* sums, bool add, float* scratch) const {
  const std::int64_t t = images * tiles(v), step_in = plane(t, v.c), step_out = plane(t, out);
  float *in = scratch, *up = in + points() * step_in, *copy = up + points() * step_out;
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    gather<Adjoints<M>::out, W>(v, M, images, false, out, dy, v.positions() * out, up, step_out, copy);
    if (sums) gather<Maps<M>::in, W>(v, M, images, true, v.c, x, v.image_size(), in, step_in, copy);
  });
  for (std::int64_t p = 0; p < points(); ++p) {
    if (sums)
      multiply({.m = v.c,
                .n = out,
                .outer = 1,
                .inner = t,
                .a = in + p * step_in,
                .a_row = 1,
                .a_outer = 0,
                .a_inner = v.c,
                .b = up + p * step_out,
                .b_outer = 0,
                .b_inner = out,
                .c = sums + p * plane(v.c, out),
                .c_row = out,
                .add = add});
    if (dx)  // the transformed inputs have had their turn
      multiply({.m = t,
                .n = v.c,
                .outer = 1,
                .inner = out,
                .a = up + p * step_out,
                .a_row = out,
                .a_outer = 0,
                .a_inner = 1,
                .b = flipped + p * plane(v.c, out),
                .b_outer = 0,
                .b_inner = v.c,
                .c = in + p * step_in,
                .c_row = v.c});
  }
  bool finite = true;
  if (!dx) return finite;
  std::fill(dx, dx + images * v.image_size(), 0.f);
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    using V = typename Lanes<W>::type;
    V odd{};
    each_tile(v, M, images, true, [&](std::int64_t i, std::int64_t n, Square s) EBB_INLINE {
      float* to = dx + i * v.image_size() + (s.y * v.w + s.x) * v.c;
      float* square = s.inside() ? to : copy;
      const std::int64_t row = (s.inside() ? v.w : M + 2) * v.c;
      if (!s.inside()) std::fill(copy, copy + s.size * row, 0.f);
      for (std::int64_t c = 0; c < v.c; c += W)
        sandwich<Adjoints<M>::in, V>([&](int a, int b, V& z)
                                         EBB_INLINE { z = at<W>(in + (a * (M + 2) + b) * step_in + n * v.c + c); },
                                     [&](int a, int b, const V& sum) EBB_INLINE {
                                       odd += sum - sum;
                                       at<W>(square + a * row + b * v.c + c) += sum;
                                     });
      if (!s.inside())
        s.rows([&](std::int64_t a, std::int64_t first, std::int64_t count) EBB_INLINE {
          float* __restrict into = to + (a * v.w + first) * v.c;
          const float* __restrict from = copy + a * row + first * v.c;
          for (std::int64_t e = 0; e < count * v.c; ++e) into[e] += from[e];
        });
    });
    finite = is_zero<W>(odd);
  });
  return finite;
}

void Winograd::filter_gradient(std::int64_t c, std::int64_t out, std::int64_t parts, const float* sums,
                               float* dk) const {
  const std::int64_t size = c * out, step = plane(c, out);
  parallel_for(size, even_block(size, elementwise_block / (points() * parts), Product::lanes),
               [&](std::int64_t begin, std::int64_t end) {
                 with(m, [&](auto mm, auto lanes) EBB_INLINE {
                   constexpr int W = decltype(lanes)::value;
                   using V = typename Lanes<W>::type;
                   static constexpr auto& G = Adjoints<decltype(mm)::value>::filter;
                   for (std::int64_t e = begin; e < end; e += W)
                     sandwich<G, V>(
                         [&](int i, int j, V& x) EBB_INLINE {
                           const float* from = sums + (i * G.cols + j) * step + e;
                           x = at<W>(from);
                           for (std::int64_t part = 1; part < parts; ++part) x += at<W>(from + part * points() * step);
                         },
                         [&](int i, int j, const V& sum) EBB_INLINE { at<W>(dk + (i * 3 + j) * size + e) = sum; });
                 });
               });
}

}  // namespace detail
}  // namespace ebb
