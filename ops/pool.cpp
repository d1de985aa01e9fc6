// Pooling over NHWC windows; every loop runs along the channels, which are contiguous.
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <vector>

#include <ebb/graph/apply.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/window.h>

namespace ebb {
namespace {

using detail::Window;

Window window_of(std::string_view op, const Shape& image, const PoolOptions& o) {
  const Pair stride{o.stride.h ? o.stride.h : o.size.h, o.stride.w ? o.stride.w : o.size.w};
  const Window v(op, image, o.size, stride, o.pad, 1);
  // Otherwise some windows would hold nothing but padding, and neither a largest element nor a mean.
  if (!o.pad.is_same && std::max(o.pad.top, o.pad.bottom) >= v.kh)
    fail<ValueError>(op, fmt::format("pads of {} and {} must be smaller than the window's height {}", o.pad.top, o.pad.bottom, v.kh));
  if (!o.pad.is_same && std::max(o.pad.left, o.pad.right) >= v.kw)
    fail<ValueError>(op, fmt::format("pads of {} and {} must be smaller than the window's width {}", o.pad.left, o.pad.right, v.kw));
  if (v.h == 0 || v.w == 0) fail<ShapeError>(op, fmt::format("no elements to pool in {}", image.str()));
  return v;
}

Attributes pool_attributes(const PoolOptions& o) {
  return detail::window_attributes(o.size, {.stride = {o.stride.h ? o.stride.h : o.size.h, o.stride.w ? o.stride.w : o.size.w}, .pad = o.pad});
}

/// Calls use(output offset, input offset, position in the window) for each element of each window of images
/// [begin, end) that lies inside the image; offsets point at the first channel.
template <class F>
inline void EBB_INLINE each_element(const Window& v, std::int64_t begin, std::int64_t end, const F& use) {
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t oy = 0; oy < v.oh; ++oy)
      for (std::int64_t ox = 0; ox < v.ow; ++ox) {
        const std::int64_t to = ((i * v.oh + oy) * v.ow + ox) * v.c, y0 = oy * v.sh - v.top, x0 = ox * v.sw - v.left;
        for (std::int64_t ky = std::max<std::int64_t>(0, -y0); ky < std::min(v.kh, v.h - y0); ++ky)
          for (std::int64_t kx = std::max<std::int64_t>(0, -x0); kx < std::min(v.kw, v.w - x0); ++kx)
            use(to, ((i * v.h + y0 + ky) * v.w + x0 + kx) * v.c, ky * v.kw + kx);
      }
}

/// Runs body(begin, end) over the images of T, with loops vectorised.
template <class T, class F>
void over_images(const Window& v, const F& body) {
  const std::int64_t block = std::max<std::int64_t>(1, detail::elementwise_block / std::max<std::int64_t>(1, v.image_size()));
  detail::parallel_for(v.n, block, [&](std::int64_t begin, std::int64_t end) {
    detail::simd_for<T>([&]() EBB_INLINE { body(begin, end); });
  });
}

/// Index of the element inside a window: one byte where it fits.
template <class F>
void with_index(DType t, const F& f) {
  if (t == u8) f(std::uint8_t{});
  else f(std::int64_t{});
}

/// The first element of each window that lies inside the image: the choice when all of them are minus infinity.
template <class I>
void first_inside(const Window& v, I* choice) {
  for (std::int64_t i = 0; i < v.n * v.positions(); ++i, choice += v.c) {
    const std::int64_t y0 = i % v.positions() / v.ow * v.sh - v.top, x0 = i % v.ow * v.sw - v.left;
    std::fill(choice, choice + v.c, static_cast<I>(std::max<std::int64_t>(0, -y0) * v.kw + std::max<std::int64_t>(0, -x0)));
  }
}

/// g of a pooled shape, sent back to where the largest elements were.
struct Unpool {
  static constexpr std::string_view name = "max_unpool2d";
  PoolOptions options;
  Shape image;
  Tensor choice;
  Tensor forward(const Tensor& g) const;
  Tensor backward(const Saved&, const Tensor& g) const;
};

/// From x the elements that an earlier max-pool chose: the adjoint of Unpool.
struct Repool {
  static constexpr std::string_view name = "max_repool2d";
  PoolOptions options;
  Tensor choice;
  Tensor forward(const Tensor& x) const {
    const Window v = window_of(name, x.shape(), options);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.c}, x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      with_index(choice.dtype(), [&](auto index_zero) {
        using T = decltype(zero);
        using I = decltype(index_zero);
        const T* px = x.values<T>().data();
        const I* pi = choice.values<I>().data();
        T* py = out.mutable_values<T>().data();
        over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE {
          each_element(v, begin, end, [&](std::int64_t to, std::int64_t from, std::int64_t k) EBB_INLINE {
            for (std::int64_t c = 0; c < v.c; ++c)
              if (pi[to + c] == static_cast<I>(k)) py[to + c] = px[from + c];
          });
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(Unpool{options, s.input_shape(0), choice}, g); }
};

Tensor Unpool::forward(const Tensor& g) const {
  const Window v = window_of(name, image, options);
  Tensor out = zeros(image, g.dtype());
  visit_float(g.dtype(), [&](auto zero) {
    with_index(choice.dtype(), [&](auto index_zero) {
      using T = decltype(zero);
      using I = decltype(index_zero);
      const T* pg = g.values<T>().data();
      const I* pi = choice.values<I>().data();
      T* px = out.mutable_values<T>().data();
      over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE {
        each_element(v, begin, end, [&](std::int64_t to, std::int64_t from, std::int64_t k) EBB_INLINE {
          const auto here = static_cast<detail::IntegerOf<T>>(k);
          const I* __restrict chosen = pi + to;
          const T* __restrict in = pg + to;
          T* __restrict out_row = px + from;
          for (std::int64_t c = 0; c < v.c; ++c) out_row[c] += static_cast<detail::IntegerOf<T>>(chosen[c]) == here ? in[c] : T(0);
        });
      });
    });
  });
  return out;
}

Tensor Unpool::backward(const Saved&, const Tensor& g) const { return apply(Repool{options, choice}, g); }

/// Largest element of each window of images [begin, end), and with Choose where in the window it was. One pass along
/// the channels for each element of a window: the running maxima stay in L1.
template <bool Choose, class T, class I>
inline void EBB_INLINE max_windows(const Window& v, std::int64_t begin, std::int64_t end, const T* x, T* y, I* choice) {
  std::vector<detail::IntegerOf<T>> row(Choose ? static_cast<std::size_t>(v.c) : 0);  // as wide as T: one width is what vectorises
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t oy = 0; oy < v.oh; ++oy)
      for (std::int64_t ox = 0; ox < v.ow; ++ox) {
        const std::int64_t y0 = oy * v.sh - v.top, x0 = ox * v.sw - v.left, to = ((i * v.oh + oy) * v.ow + ox) * v.c;
        const std::int64_t ky0 = std::max<std::int64_t>(0, -y0), ky1 = std::min(v.kh, v.h - y0);
        const std::int64_t kx0 = std::max<std::int64_t>(0, -x0), kx1 = std::min(v.kw, v.w - x0);
        T* __restrict best = y + to;
        detail::IntegerOf<T>* __restrict where = row.data();
        const T* __restrict first = x + ((i * v.h + y0 + ky0) * v.w + x0 + kx0) * v.c;
        const auto k0 = static_cast<detail::IntegerOf<T>>(ky0 * v.kw + kx0);
        for (std::int64_t c = 0; c < v.c; ++c) {
          best[c] = first[c];
          if constexpr (Choose) where[c] = k0;
        }
        for (std::int64_t ky = ky0; ky < ky1; ++ky)
          for (std::int64_t kx = kx0; kx < kx1; ++kx) {
            const T* __restrict from = x + ((i * v.h + y0 + ky) * v.w + x0 + kx) * v.c;
            const auto k = static_cast<detail::IntegerOf<T>>(ky * v.kw + kx);
            for (std::int64_t c = 0; c < v.c; ++c) {
              const bool wins = (from[c] > best[c]) | (from[c] != from[c]);  // not ||: a branch is not vectorised
              best[c] = wins ? from[c] : best[c];
              if constexpr (Choose) where[c] = wins ? k : where[c];
            }
          }
        if constexpr (Choose)
          for (std::int64_t c = 0; c < v.c; ++c) choice[to + c] = static_cast<I>(where[c]);
      }
}

struct MaxPool2d {
  static constexpr std::string_view name = "max_pool2d";
  PoolOptions options;
  Attributes attributes() const { return pool_attributes(options); }
  bool recorded;  // the choice is only for backward
  Tensor choice = {};
  const Tensor& state() const { return choice; }

  Tensor forward(const Tensor& x) {
    detail::expect_float(name, x);
    const Window v = window_of(name, x.shape(), options);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.c}, x.dtype());
    if (recorded) choice = Tensor::empty(out.shape(), v.kh * v.kw <= 255 ? u8 : i64);
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* px = x.values<T>().data();
      T* py = out.mutable_values<T>().data();
      if (!recorded)
        return over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE {
          max_windows<false>(v, begin, end, px, py, static_cast<std::uint8_t*>(nullptr));
        });
      with_index(choice.dtype(), [&](auto index_zero) {
        auto* pi = choice.mutable_values<decltype(index_zero)>().data();
        over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE { max_windows<true>(v, begin, end, px, py, pi); });
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(Unpool{options, s.input_shape(0), choice}, g); }
};

/// The adjoint of AvgPool2d: each g spread evenly over its window.
struct AvgUnpool2d {
  static constexpr std::string_view name = "avg_unpool2d";
  PoolOptions options;
  Shape image;
  Tensor forward(const Tensor& g) const;
  Tensor backward(const Saved&, const Tensor& g) const { return avg_pool2d(g, options); }
};

/// Elements of the window at one output position that lie inside the image.
std::int64_t inside(const Window& v, std::int64_t position) {
  const std::int64_t y0 = position / v.ow * v.sh - v.top, x0 = position % v.ow * v.sw - v.left;
  return (std::min(v.kh, v.h - y0) - std::max<std::int64_t>(0, -y0)) *
         (std::min(v.kw, v.w - x0) - std::max<std::int64_t>(0, -x0));
}

struct AvgPool2d {
  static constexpr std::string_view name = "avg_pool2d";
  PoolOptions options;
  Attributes attributes() const { return pool_attributes(options); }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    const Window v = window_of(name, x.shape(), options);
    Tensor out = zeros({v.n, v.oh, v.ow, v.c}, x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* px = x.values<T>().data();
      T* py = out.mutable_values<T>().data();
      over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE {
        each_element(v, begin, end, [&](std::int64_t to, std::int64_t from, std::int64_t) EBB_INLINE {
          for (std::int64_t c = 0; c < v.c; ++c) py[to + c] += px[from + c];
        });
        for (std::int64_t p = begin * v.positions(); p < end * v.positions(); ++p) {
          const T share = T(1) / static_cast<T>(inside(v, p % v.positions()));
          for (std::int64_t c = 0; c < v.c; ++c) py[p * v.c + c] *= share;
        }
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(AvgUnpool2d{options, s.input_shape(0)}, g); }
};

Tensor AvgUnpool2d::forward(const Tensor& g) const {
  const Window v = window_of(name, image, options);
  Tensor out = zeros(image, g.dtype());
  visit_float(g.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* pg = g.values<T>().data();
    T* px = out.mutable_values<T>().data();
    over_images<T>(v, [&](std::int64_t begin, std::int64_t end) EBB_INLINE {
      each_element(v, begin, end, [&](std::int64_t to, std::int64_t from, std::int64_t) EBB_INLINE {
        const T share = T(1) / static_cast<T>(inside(v, to / v.c % v.positions()));
        for (std::int64_t c = 0; c < v.c; ++c) px[from + c] += share * pg[to + c];
      });
    });
  });
  return out;
}

}  // namespace

Tensor detail::max_unpool2d(const Tensor& g, const Tensor& choice, PoolOptions o, const Shape& image) {
  return apply(Unpool{o, image, choice}, g);
}

Tensor max_pool2d(const Tensor& x, PoolOptions o) { return apply(MaxPool2d{o, recording() && x.tracked()}, x); }
Tensor avg_pool2d(const Tensor& x, PoolOptions o) { return apply(AvgPool2d{o}, x); }

}  // namespace ebb
