#include <ebb/ops/kernels/winograd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>

#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/direct.h>
#include <ebb/ops/kernels/tile.h>
#include <ebb/ops/kernels/winograd_maps.h>

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

using namespace winograd_maps;

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

bool all_finite(const float* x, std::int64_t n) {
  std::int32_t odd = 0;
  simd([&]() EBB_INLINE {
    for (std::int64_t i = 0; i < n; ++i) odd |= (std::bit_cast<std::int32_t>(x[i]) & 0x7f800000) == 0x7f800000;
  });
  return odd == 0;
}

}  // namespace

// Not a multiple of the page size, which would put one element of all points into the same few lines of the L1 cache.
std::int64_t Winograd::plane(std::int64_t rows, std::int64_t columns) { return rows * columns + 16; }

int Winograd::tile_size(const Convolution<float>& c) {
  const Window& v = c.v;
  if (!winograd() || isa() == Isa::baseline || v.kh != 3 || v.kw != 3 || v.sh != 1 || v.sw != 1 || v.dh != 1 ||
      v.dw != 1)
    return 0;
  if (v.c == 0 || c.out == 0 || v.c % Product::lanes || c.out % Product::lanes || v.n * v.positions() == 0) return 0;
  // Passes over a register of each: products, transforms, and for small batches what the filters' transform costs. To
  // transform a number takes about as long as eight products.
  constexpr double transform = 8;
  const auto n = static_cast<double>(v.n), in = static_cast<double>(v.c), out = static_cast<double>(c.out);
  double best = 9.0 * n * static_cast<double>(v.positions()) * in * out;
  int best_m = 0;
  for (const int m : {2, 3, 4}) {
    const double squares = n * static_cast<double>(tiles(v, m)), p = static_cast<double>(points(m));
    const double cost = squares * p * (in * out + transform * (in + out)) + transform * p * in * out;
    if (cost < best) best = cost, best_m = m;
  }
  return best_m;
}

Winograd::Winograd(const Convolution<float>& convolution) : c(convolution), m(tile_size(c)) {
  constexpr std::int64_t most_kept = 1 << 16;  // elements, 256 KiB, and up to four times that when transformed
  if (c.pass != Pass::forward || c.v.n != 1 || c.kernel_size() > most_kept) filters_of_.emplace();
}

/// Images to a block, so that their transforms fill half of an L2 cache: so few that all threads have some, but enough
/// for products with rows that are worth the passes over the filters and over their gradient.
std::int64_t Winograd::block() const {
  constexpr std::int64_t rows = 16, most_forward = 8;
  const std::int64_t most = c.pass == Pass::forward ? most_forward : c.v.n / most_groups;
  const std::int64_t bytes = tiles() * points() * (c.v.c + c.out) * 4, enough = (rows + tiles() - 1) / tiles();
  return std::clamp<std::int64_t>(half_l2 / bytes, 1, std::max(enough, most));
}

Scratch<float> Winograd::scratch(std::int64_t images) const {
  const std::int64_t t = images * tiles();
  return Scratch<float>(points() * (plane(t, c.v.c) + plane(t, c.out) + std::max(c.v.c, c.out)));
}

Tensor Winograd::transformed() const {
  const std::int64_t size = c.v.c * c.out, step = plane(c.v.c, c.out);
  Tensor result = Tensor::workspace({points(), step}, f32);
  float* to = result.mutable_values<float>().data();
  const float* k = c.k;
  Tensor turned;
  if (c.pass != Pass::forward) {
    turned = Tensor::workspace({9, c.out, c.v.c}, f32);
    float* t = turned.mutable_values<float>().data();
    transpose_each(t, k, 9, c.v.c, c.out);
    k = t;
  }
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

/// For a single image, whose products take little longer than the transform: a thread keeps its last ones beside a copy
/// of the kernel. Every number of it is compared, since a kernel may be changed in ways that nobody is told of.
const float* Winograd::kept_filters() const {
  struct Kept {
    Tensor kernel, filters;
    int m = 0;
  };
  thread_local std::array<Kept, 8> kept;
  thread_local std::size_t oldest = 0;
  const Shape shape{9, c.v.c, c.out};
  const auto bytes = static_cast<std::size_t>(shape.numel()) * sizeof(float);
  for (const Kept& e : kept)
    if (e.m == m && e.kernel.shape() == shape && std::memcmp(e.kernel.values<float>().data(), c.k, bytes) == 0)
      return e.filters.values<float>().data();
  Kept& e = kept[oldest++ % kept.size()];
  e = {};
  e = {Tensor::workspace(shape, f32), transformed(), m};
  std::memcpy(e.kernel.mutable_values<float>().data(), c.k, bytes);
  return e.filters.values<float>().data();
}

const float* Winograd::filters() {
  Tensor& u = (*filters_of_)[static_cast<std::size_t>(thread_index())];
  if (!u.defined()) u = transformed();
  return u.values<float>().data();
}

void Winograd::forward(const Piece& p, const float* bias, bool relu, float* y, float* scratch) {
  const float* u = filters_of_ ? filters() : kept_filters();
  if (outputs(p.begin, p.end, u, bias, relu, y, scratch)) return;
  Direct direct(c);
  const Scratch<float> margin = direct.scratch(1);
  for (std::int64_t i = p.begin; i < p.end; ++i, y += c.outputs())
    if (!outputs(i, i + 1, u, bias, relu, y, scratch))
      direct.forward({i, i + 1, 0, c.v.oh, p.pool, p.at}, bias, relu, y, margin.data);
}

void Winograd::gather_inputs(std::int64_t begin, std::int64_t end, float* planes, float* copy) const {
  const Window& v = c.v;
  const float* x = c.x + begin * v.image_size();
  const std::int64_t images = end - begin, step = plane(images * tiles(), v.c);
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    gather<Maps<M>::in, W>(v, M, images, true, v.c, x, v.image_size(), planes, step, copy);
  });
}

bool Winograd::outputs(std::int64_t begin, std::int64_t end, const float* u, const float* bias, bool relu, float* y,
                       float* scratch) const {
  const Window& v = c.v;
  const std::int64_t out = c.out, images = end - begin, t = images * tiles(), step_in = plane(t, v.c),
                     step_out = plane(t, out);
  float *in = scratch, *sums = in + points() * step_in, *copy = sums + points() * step_out;
  gather_inputs(begin, end, in, copy);
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

bool Winograd::backward(const Piece& p, const float* dy, float* dx, float* sums, bool add, float* scratch) {
  const Window& v = c.v;
  const float* flipped = dx ? filters() : nullptr;
  if (dx) dx += p.begin * v.image_size();
  const std::int64_t out = c.out, images = p.end - p.begin, t = images * tiles(), step_in = plane(t, v.c),
                     step_out = plane(t, out);
  float *in = scratch, *up = in + points() * step_in, *copy = up + points() * step_out;
  with(m, [&](auto mm, auto lanes) EBB_INLINE {
    constexpr int M = decltype(mm)::value, W = decltype(lanes)::value;
    gather<Adjoints<M>::out, W>(v, M, images, false, out, dy, v.positions() * out, up, step_out, copy);
  });
  if (sums) gather_inputs(p.begin, p.end, in, copy);
  for (std::int64_t point = 0; point < points(); ++point) {
    if (sums)
      multiply({.m = v.c,
                .n = out,
                .outer = 1,
                .inner = t,
                .a = in + point * step_in,
                .a_row = 1,
                .a_outer = 0,
                .a_inner = v.c,
                .b = up + point * step_out,
                .b_outer = 0,
                .b_inner = out,
                .c = sums + point * plane(v.c, out),
                .c_row = out,
                .add = add});
    if (dx)  // the transformed inputs have had their turn
      multiply({.m = t,
                .n = v.c,
                .outer = 1,
                .inner = out,
                .a = up + point * step_out,
                .a_row = out,
                .a_outer = 0,
                .a_inner = 1,
                .b = flipped + point * plane(v.c, out),
                .b_outer = 0,
                .b_inner = v.c,
                .c = in + point * step_in,
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
      for (std::int64_t e = 0; e < v.c; e += W)
        sandwich<Adjoints<M>::in, V>([&](int a, int b, V& z)
                                         EBB_INLINE { z = at<W>(in + (a * (M + 2) + b) * step_in + n * v.c + e); },
                                     [&](int a, int b, const V& sum) EBB_INLINE {
                                       odd += sum - sum;
                                       at<W>(square + a * row + b * v.c + e) += sum;
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

bool Winograd::kernel_gradient(std::int64_t parts, const float* sums, float* dk) const {
  const std::int64_t size = c.v.c * c.out, step = plane(c.v.c, c.out);
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
  return all_finite(dk, c.kernel_size());
}

}  // namespace detail
}  // namespace ebb
