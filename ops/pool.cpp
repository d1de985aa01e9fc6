// Pooling over NHWC windows; every loop runs along the channels, which are contiguous. Largest elements are those of
// convolve_tail.cpp.
#include <fmt/core.h>

#include <algorithm>

#include <ebb/graph/batch.h>
#include <ebb/ops/kernels/convolve_tail.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/rows.h>
#include <ebb/ops/kernels/window.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/pool.h>

namespace ebb {
namespace {

using detail::Window;

Window window_of(std::string_view op, const Shape& image, const PoolOptions& o) {
  const Pair stride{o.stride.h ? o.stride.h : o.size.h, o.stride.w ? o.stride.w : o.size.w};
  const Window v(op, image, o.size, stride, o.pad, 1);
  // Otherwise some windows would hold nothing but padding, and neither a largest element nor a mean.
  if (!o.pad.is_same && std::max(o.pad.top, o.pad.bottom) >= v.kh)
    fail<ValueError>(op, fmt::format("pads of {} and {} must be smaller than the window's height {}", o.pad.top,
                                     o.pad.bottom, v.kh));
  if (!o.pad.is_same && std::max(o.pad.left, o.pad.right) >= v.kw)
    fail<ValueError>(
        op, fmt::format("pads of {} and {} must be smaller than the window's width {}", o.pad.left, o.pad.right, v.kw));
  if (v.h == 0 || v.w == 0) fail<ShapeError>(op, fmt::format("no elements to pool in {}", image.str()));
  return v;
}

Attributes pool_attributes(const PoolOptions& o) {
  return detail::window_attributes(
      o.size, {.stride = {o.stride.h ? o.stride.h : o.size.h, o.stride.w ? o.stride.w : o.size.w}, .pad = o.pad});
}

/// Calls use(output offset, input offset, what lies inside the image) for each window of images [begin, end); offsets
/// point at the first channel, that into the image at the window's first element, wherever it is.
template <class F>
inline void EBB_INLINE each_window(const Window& v, std::int64_t begin, std::int64_t end, const F& use) {
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t oy = 0; oy < v.oh; ++oy)
      for (std::int64_t ox = 0; ox < v.ow; ++ox) {
        const Window::Place in = v.place(oy, ox);
        use(((i * v.oh + oy) * v.ow + ox) * v.c, ((i * v.h + in.y) * v.w + in.x) * v.c, in);
      }
}

/// Calls use(output offset, input offset, position in the window) for each element of each window of images
/// [begin, end) that lies inside the image; offsets point at the first channel.
template <class F>
inline void EBB_INLINE each_element(const Window& v, std::int64_t begin, std::int64_t end, const F& use) {
  each_window(v, begin, end, [&](std::int64_t to, std::int64_t from, const Window::Place& in) EBB_INLINE {
    for (std::int64_t ky = in.top; ky < in.bottom; ++ky)
      for (std::int64_t kx = in.left; kx < in.right; ++kx) use(to, from + (ky * v.w + kx) * v.c, ky * v.kw + kx);
  });
}

/// Runs body(begin, end) over the images.
template <class F>
void over_images(const Window& v, const F& body) {
  detail::parallel_for(v.n, detail::even_rows(v.n, v.image_size()), body);
}

/// Index of the element inside a window: one byte where it fits.
template <class F>
void with_index(DType t, const F& f) {
  if (t == u8) f(std::uint8_t{});
  else f(std::int64_t{});
}

/// g of a pooled shape, sent back to where the largest elements were.
struct Unpool {
  static constexpr std::string_view name = "max_unpool2d";
  PoolOptions options;
  Shape image;
  Tensor choice;
  Tensor forward(const Tensor& g) const;
  Tensor backward(const Saved&, const Tensor& g) const;
  Tensor batched(const Tensor& g) const {
    const std::int64_t n = detail::mode.batch;
    return detail::run_on_merged(Unpool{options, image.with(0, n * image[0]), all_of(choice, n)}, all_of(g, n));
  }
  /// n times (b, ...) as (n b, ...), also of what is the same for each.
  static Tensor all_of(const Tensor& t, std::int64_t n) {
    return detail::merged(detail::batched(t) ? t : detail::apart(detail::repeated(t, n), n));
  }
};

/// From x the elements that an earlier max-pool chose: the adjoint of Unpool.
struct Repool {
  static constexpr std::string_view name = "max_repool2d";
  PoolOptions options;
  Tensor choice;
  Tensor forward(const Tensor& x) const {
    const Window v = window_of(name, x.shape(), options);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.c}, x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      with_index(choice.dtype(), [&]<class I>(I) {
        const T* px = x.values<T>().data();
        const I* pi = choice.values<I>().data();
        T* py = out.mutable_values<T>().data();
        over_images(v, [&](std::int64_t begin, std::int64_t end) {
          each_element(v, begin, end, [&](std::int64_t to, std::int64_t from, std::int64_t k) {
            for (std::int64_t c = 0; c < v.c; ++c)
              if (pi[to + c] == static_cast<I>(k)) py[to + c] = px[from + c];
          });
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(Unpool{options, s.input_shape(0), choice}, g); }
  Tensor batched(const Tensor& x) const {
    const std::int64_t n = detail::mode.batch;
    return detail::run_on_merged(Repool{options, Unpool::all_of(choice, n)}, Unpool::all_of(x, n));
  }
};

Tensor Unpool::forward(const Tensor& g) const {
  const Window v = window_of(name, image, options);
  Tensor out = Tensor::empty(image, g.dtype());
  visit_float(g.dtype(), [&]<class T>(T) {
    with_index(choice.dtype(), [&]<class I>(I) {
      const T* pg = g.values<T>().data();
      const I* pi = choice.values<I>().data();
      T* px = out.mutable_values<T>().data();
      over_images(v, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * v.positions() * v.c;
        detail::unmax_windows<T>(v, end - begin, pg + first, nullptr, pi + first, px + begin * v.image_size(), nullptr);
      });
    });
  });
  return out;
}

Tensor Unpool::backward(const Saved&, const Tensor& g) const { return apply(Repool{options, choice}, g); }

struct MaxPool2d {
  static constexpr std::string_view name = "max_pool2d";
  PoolOptions options;
  Attributes attributes() const { return pool_attributes(options); }
  bool recorded = false;
  Tensor choice = {};  // if recorded
  const Tensor& state() const { return choice; }

  Tensor forward(const Tensor& x) {
    detail::expect_float(name, x);
    const Window v = window_of(name, x.shape(), options);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.c}, x.dtype());
    if (recorded) choice = Tensor::empty(out.shape(), v.kh * v.kw <= 255 ? u8 : i64);
    visit_float(x.dtype(), [&]<class T>(T) {
      with_index(choice.defined() ? choice.dtype() : u8, [&]<class I>(I) {
        const T* px = x.values<T>().data();
        T* py = out.mutable_values<T>().data();
        I* pi = choice.defined() ? choice.mutable_values<I>().data() : nullptr;
        over_images(v, [&](std::int64_t begin, std::int64_t end) {
          const std::int64_t first = begin * v.positions() * v.c;
          detail::max_windows(v, end - begin, px + begin * v.image_size(), false, py + first, pi ? pi + first : pi);
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(Unpool{options, s.input_shape(0), choice}, g); }
  Tensor batched(const Tensor& x) {
    const Tensor y = detail::run_merged(*this, x);
    if (choice.defined()) choice = detail::apart(detail::unmerged(choice, detail::mode.batch), detail::mode.batch);
    return y;
  }
};

/// The adjoint of AvgPool2d: each g spread evenly over its window.
struct AvgUnpool2d {
  static constexpr std::string_view name = "avg_unpool2d";
  PoolOptions options;
  Shape image;
  Tensor forward(const Tensor& g) const;
  Tensor backward(const Saved&, const Tensor& g) const { return avg_pool2d(g, options); }
  Tensor batched(const Tensor& g) const {
    return detail::run_merged(AvgUnpool2d{options, image.with(0, detail::mode.batch * image[0])}, g);
  }
};

/// The elements of a window that lie inside the image. Sums are divided by it: its reciprocal need not be exact.
template <class T>
T count_of(const Window::Place& in) {
  return static_cast<T>((in.bottom - in.top) * (in.right - in.left));
}

struct AvgPool2d {
  static constexpr std::string_view name = "avg_pool2d";
  static constexpr Tangent tangents = Tangent::linear;
  PoolOptions options;
  Attributes attributes() const { return pool_attributes(options); }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    const Window v = window_of(name, x.shape(), options);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.c}, x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* px = x.values<T>().data();
      T* py = out.mutable_values<T>().data();
      typedef T V __attribute__((vector_size(64), aligned(alignof(T)), may_alias));
      constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
      over_images(v, [&](std::int64_t begin, std::int64_t end) {
        detail::simd_for<T>([&]() EBB_INLINE {
          each_window(v, begin, end, [&](std::int64_t to, std::int64_t from, const Window::Place& in) EBB_INLINE {
            const T count = count_of<T>(in);
            std::int64_t c = 0;
            if (in.bottom - in.top + in.right - in.left > 16) {  // a running sum would lose digits
              constexpr std::int64_t widest = 256;
              for (; c < v.c; c += widest) {
                const std::int64_t n = std::min(widest, v.c - c);
                double sums[widest];
                std::fill(sums, sums + n, 0.0);
                for (std::int64_t ky = in.top; ky < in.bottom; ++ky) {
                  const T* const row = px + from + (ky * v.w + in.left) * v.c + c;
                  detail::add_rows<T>(
                      in.right - in.left, n,
                      [&](std::int64_t i, std::int64_t j) EBB_INLINE { return row[i * v.c + j]; }, sums);
                }
                for (std::int64_t j = 0; j < n; ++j)
                  py[to + c + j] = static_cast<T>(sums[j] / static_cast<double>(count));
              }
            }
            for (; c + lanes <= v.c; c += lanes) {
              V sum = {};
              for (std::int64_t ky = in.top; ky < in.bottom; ++ky)
                for (std::int64_t kx = in.left; kx < in.right; ++kx)
                  sum += *reinterpret_cast<const V*>(px + from + (ky * v.w + kx) * v.c + c);
              *reinterpret_cast<V*>(py + to + c) = sum / count;
            }
            for (; c < v.c; ++c) {
              T sum = 0;
              for (std::int64_t ky = in.top; ky < in.bottom; ++ky)
                for (std::int64_t kx = in.left; kx < in.right; ++kx) sum += px[from + (ky * v.w + kx) * v.c + c];
              py[to + c] = sum / count;
            }
          });
        });
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return apply(AvgUnpool2d{options, s.input_shape(0)}, g); }
  Tensor batched(const Tensor& x) const { return detail::run_merged(*this, x); }
};

Tensor AvgUnpool2d::forward(const Tensor& g) const {
  const Window v = window_of(name, image, options);
  Tensor out = zeros(image, g.dtype());
  visit_float(g.dtype(), [&]<class T>(T) {
    const T* pg = g.values<T>().data();
    T* px = out.mutable_values<T>().data();
    over_images(v, [&](std::int64_t begin, std::int64_t end) {
      detail::simd_for<T>([&]() EBB_INLINE {
        each_window(v, begin, end, [&](std::int64_t to, std::int64_t from, const Window::Place& in) EBB_INLINE {
          const T count = count_of<T>(in);
          const T* __restrict slope = pg + to;
          for (std::int64_t ky = in.top; ky < in.bottom; ++ky)
            for (std::int64_t kx = in.left; kx < in.right; ++kx) {
              T* __restrict row = px + from + (ky * v.w + kx) * v.c;
              for (std::int64_t c = 0; c < v.c; ++c) row[c] += slope[c] / count;
            }
        });
      });
    });
  });
  return out;
}

}  // namespace

Tensor detail::max_unpool2d(const Tensor& g, const Tensor& choice, PoolOptions o, const Shape& image) {
  return apply(Unpool{o, image, choice}, g);
}

Tensor detail::max_repool2d(const Tensor& x, const Tensor& choice, PoolOptions o) {
  return apply(Repool{o, choice}, x);
}

Tensor detail::max_pool2d_batched(const Tensor& x, PoolOptions o, Tensor* choice) {
  MaxPool2d op{o, choice != nullptr};
  const Tensor y = op.batched(x);
  if (choice) *choice = op.choice;
  return y;
}

Tensor max_pool2d(const Tensor& x, PoolOptions o) { return apply(MaxPool2d{o}, x); }
Tensor avg_pool2d(const Tensor& x, PoolOptions o) { return apply(AvgPool2d{o}, x); }

}  // namespace ebb
