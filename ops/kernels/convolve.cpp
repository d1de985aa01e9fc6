// (over 400 lines because forward and backward share the blocks and strips in which images are read)
#include <ebb/ops/kernels/convolve.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <type_traits>

#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/kernels/convolve_tail.h>
#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/tile.h>
#include <ebb/ops/kernels/winograd.h>

namespace ebb::detail {

template <class T>
void patches_of(const Window& v, const T* x, std::int64_t begin, std::int64_t end, T* rows) {
  const std::int64_t run = v.kw * v.c;
  for (std::int64_t i = begin; i < end; ++i) {
    const T* image = x + i * v.image_size();
    for (std::int64_t oy = 0; oy < v.oh; ++oy)
      for (std::int64_t ox = 0; ox < v.ow; ++ox) {
        const std::int64_t x0 = ox * v.sw - v.left;
        const bool whole = v.dw == 1 && x0 >= 0 && x0 + v.kw <= v.w;
        for (std::int64_t ky = 0; ky < v.kh; ++ky, rows += run) {
          const std::int64_t y = oy * v.sh - v.top + ky * v.dh;
          if (y < 0 || y >= v.h) {
            std::fill(rows, rows + run, T(0));
          } else if (whole) {
            std::memcpy(rows, image + (y * v.w + x0) * v.c, static_cast<std::size_t>(run) * sizeof(T));
          } else {
            for (std::int64_t kx = 0; kx < v.kw; ++kx) {
              const std::int64_t at = x0 + kx * v.dw;
              if (at < 0 || at >= v.w) std::fill(rows + kx * v.c, rows + (kx + 1) * v.c, T(0));
              else std::copy_n(image + (y * v.w + at) * v.c, v.c, rows + kx * v.c);
            }
          }
        }
      }
  }
}

template <class T>
void add_patches(const Window& v, const T* rows, std::int64_t begin, std::int64_t end, T* x) {
  simd_for<T>([&]() EBB_INLINE {
    for (std::int64_t i = begin; i < end; ++i) {
      T* image = x + i * v.image_size();
      for (std::int64_t oy = 0; oy < v.oh; ++oy)
        for (std::int64_t ox = 0; ox < v.ow; ++ox)
          for (std::int64_t ky = 0; ky < v.kh; ++ky) {
            const std::int64_t y = oy * v.sh - v.top + ky * v.dh;
            for (std::int64_t kx = 0; kx < v.kw; ++kx, rows += v.c) {
              const std::int64_t at = ox * v.sw - v.left + kx * v.dw;
              if (y < 0 || y >= v.h || at < 0 || at >= v.w) continue;
              T* __restrict to = image + (y * v.w + at) * v.c;
              for (std::int64_t c = 0; c < v.c; ++c) to[c] += rows[c];
            }
          }
    }
  });
}

std::int64_t block_images(const Window& v, std::int64_t bytes) {
  return std::clamp<std::int64_t>((512 << 10) / std::max<std::int64_t>(1, bytes), 1, std::max<std::int64_t>(1, v.n));
}

namespace {

/// Working memory of one block.
template <class T>
struct Scratch {
  Tensor memory;
  T* data;
  explicit Scratch(std::int64_t n)
      : memory(Tensor::workspace({n}, dtype_of<T>())), data(memory.mutable_values<T>().data()) {}
};

/// Transformed filters, made by each thread that needs them: to take them from the cache of another would take longer.
class Filters {
 public:
  Filters(const Winograd& winograd, const float* k, std::int64_t c, std::int64_t out, bool flip)
      : winograd_(winograd), k_(k), c_(c), out_(out), flip_(flip) {}
  const float* mine() {
    Tensor& u = of_thread_[static_cast<std::size_t>(thread_index())];
    if (!u.defined()) u = winograd_.filters(k_, c_, out_, flip_);
    return u.values<float>().data();
  }

 private:
  const Winograd& winograd_;
  const float* k_;
  std::int64_t c_, out_;
  bool flip_;
  std::array<Tensor, most_threads> of_thread_;
};

/// Transformed filters for a single image, whose products take little longer than the transform: a thread keeps its
/// last ones beside a copy of the kernel. Every number of it is compared, since a kernel may be changed in ways that
/// nobody is told of.
const float* kept_filters(const Winograd& winograd, const float* k, std::int64_t c, std::int64_t out) {
  struct Kept {
    Tensor kernel, filters;
    int m = 0;
  };
  thread_local std::array<Kept, 8> kept;
  thread_local std::size_t oldest = 0;
  const Shape shape{9, c, out};
  const auto bytes = static_cast<std::size_t>(shape.numel()) * sizeof(float);
  for (const Kept& e : kept)
    if (e.m == winograd.m && e.kernel.shape() == shape && std::memcmp(e.kernel.values<float>().data(), k, bytes) == 0)
      return e.filters.values<float>().data();
  Kept& e = kept[oldest++ % kept.size()];
  e = {};
  e = {Tensor::workspace(shape, f32), winograd.filters(k, c, out, false), winograd.m};
  std::memcpy(e.kernel.mutable_values<float>().data(), k, bytes);
  return e.filters.values<float>().data();
}

// ---- how one block is convolved ------------------------------------------------------------------------------------

/// The window read where it lies in the image, which for this is copied into its padding first if it has any.
struct Direct {
  Window v;  // of the padded image
  std::int64_t out;
  bool pads;

  static bool suits(const Window& v, std::int64_t out) {
    return v.dw == 1 && out > 0 && out % Product::lanes == 0 && v.c > 0;
  }
  Direct(const Window& w, std::int64_t out_channels) : v(w), out(out_channels) {
    v.h = std::max(v.h + v.top, (v.oh - 1) * v.sh + v.dh * (v.kh - 1) + 1);  // what no window reaches is left out
    v.w = std::max(v.w + v.left, (v.ow - 1) * v.sw + v.kw);
    pads = v.h != w.h || v.w != w.w;
  }
  /// Images to a block: few, for threads to have even shares.
  std::int64_t block_images() const { return std::clamp<std::int64_t>(v.n / 8, 1, 4); }
  /// Zeros for padded(), which leaves those around the image as they are.
  Scratch<float> margin() const {
    Scratch<float> zeros(pads ? v.image_size() : 0);
    std::fill_n(zeros.data, zeros.memory.numel(), 0.f);
    return zeros;
  }

  /// One image with its padding.
  const float* padded(const Window& w, const float* x, float* scratch) const {
    if (!pads) return x;
    for (std::int64_t y = 0; y < w.h; ++y)
      std::copy_n(x + y * w.w * w.c, w.w * w.c, scratch + ((y + v.top) * v.w + v.left) * v.c);
    return scratch;
  }
  /// Rows [first, last) of the output of one image.
  void forward(const float* x, const float* k, const float* bias, bool relu, std::int64_t first, std::int64_t last,
               float* y) const {
    for (std::int64_t oy = first; oy < last; ++oy, y += v.ow * out)
      multiply({.m = v.ow,
                .n = out,
                .outer = v.kh,
                .inner = v.kw * v.c,
                .a = x + oy * v.sh * v.w * v.c,
                .a_row = v.sw * v.c,
                .a_outer = v.dh * v.w * v.c,
                .a_inner = 1,
                .b = k,
                .b_outer = v.kw * v.c * out,
                .b_inner = out,
                .c = y,
                .c_row = out,
                .bias = bias,
                .relu = relu});
  }
  /// From rows [first, last) of the gradient of one image's output.
  void kernel_gradient(const float* x, const float* dy, std::int64_t first, std::int64_t last, float* dk,
                       bool add) const {
    for (std::int64_t ky = 0; ky < v.kh; ++ky)
      multiply({.m = v.kw * v.c,
                .n = out,
                .outer = last - first,
                .inner = v.ow,
                .a = x + (first * v.sh + ky * v.dh) * v.w * v.c,
                .a_row = 1,
                .a_outer = v.sh * v.w * v.c,
                .a_inner = v.sw * v.c,
                .b = dy,
                .b_outer = v.ow * out,
                .b_inner = out,
                .c = dk + ky * v.kw * v.c * out,
                .c_row = out,
                .add = add});
  }

  /// Whether there is a gradient of the image too.
  static bool suits_back(const Window& v, std::int64_t out) {
    return suits(v, out) && v.c % Product::lanes == 0 && v.dh == 1;
  }
  /// Each row of the image (w is without padding; k is (kh, kw, out, c)) adds up, for each column of the window, the
  /// rows of dy that it went into.
  void image_gradient(const Window& w, const float* dy, const float* k, float* dx) const {
    std::fill(dx, dx + w.image_size(), 0.f);
    for (std::int64_t y = 0; y < w.h; ++y) {
      const std::int64_t at = y + w.top, oy = std::min(w.oh - 1, at / w.sh),
                         ky = at - oy * w.sh;  // oy falls while ky grows
      const std::int64_t taps = std::min(oy + 1, (w.kh - ky + w.sh - 1) / w.sh);
      for (std::int64_t kx = 0; taps > 0 && kx < w.kw; ++kx) {
        const std::int64_t first = (std::max<std::int64_t>(0, w.left - kx) + w.sw - 1) / w.sw;
        const std::int64_t last = std::min(w.ow, (w.w + w.left - kx + w.sw - 1) / w.sw);
        if (first < last)
          multiply({.m = last - first,
                    .n = w.c,
                    .outer = taps,
                    .inner = out,
                    .a = dy + (oy * w.ow + first) * out,
                    .a_row = out,
                    .a_outer = -w.ow * out,
                    .a_inner = 1,
                    .b = k + (ky * w.kw + kx) * out * w.c,
                    .b_outer = w.sh * w.kw * out * w.c,
                    .b_inner = w.c,
                    .c = dx + (y * w.w + first * w.sw + kx - w.left) * w.c,
                    .c_row = w.sw * w.c,
                    .add = true});
      }
    }
  }
};

bool all_finite(const float* x, std::int64_t n) {
  std::int32_t odd = 0;
  simd([&]() EBB_INLINE {
    for (std::int64_t i = 0; i < n; ++i) odd |= (std::bit_cast<std::int32_t>(x[i]) & 0x7f800000) == 0x7f800000;
  });
  return odd == 0;
}

/// The outputs of one image, a few rows of the pool's windows at a time: the convolution's outputs stay in the L1 cache
/// until they are pooled, and their gradients until they are used.
struct Strips {
  Window all;         // the pool of the whole image
  std::int64_t rows;  // of windows in a strip; the last has what is left
  Strips(const Window& v, std::int64_t out, Pair pool, bool whole) : all(pool_of(v, out, pool)), rows(all.oh) {
    constexpr std::int64_t fits = (16 << 10) / static_cast<std::int64_t>(sizeof(float));
    if (!whole) rows = std::clamp<std::int64_t>(fits / (pool.h * v.ow * out), 1, rows);
  }
  /// Elements of the largest strip, with rows that no window covers.
  std::int64_t outputs() const { return (rows * all.kh + all.h - all.oh * all.kh) * all.w * all.c; }
  /// use(pool of a strip, its first row of the convolution's outputs, the last one's end, its place among the pooled
  /// elements)
  template <class Use>
  void each(const Use& use) const {
    for (std::int64_t r = 0; r < all.oh; r += rows) {
      Window strip = all;
      strip.oh = std::min(rows, all.oh - r);
      const std::int64_t first = r * all.kh, last = r + strip.oh == all.oh ? all.h : first + strip.oh * all.kh;
      strip.h = last - first;
      use(strip, first, last, r * all.ow * all.c);
    }
  }
};

}  // namespace

template <class T>
void convolve(const Window& v, std::int64_t out, const T* x, const T* k, const Tail<T>& tail, T* y) {
  const bool pools = tail.pool.h != 1 || tail.pool.w != 1;
  const std::int64_t conv_size = v.positions() * out, y_size = (v.oh / tail.pool.h) * (v.ow / tail.pool.w) * out;
  // Blocks of images: convolve(first, last, to) writes them with bias, and with relu when no pool follows.
  const auto in_blocks = [&](std::int64_t block, const auto& conv) {
    parallel_for(v.n, block, [&](std::int64_t begin, std::int64_t end) {
      if (!pools) return conv(begin, end, y + begin * y_size);
      const Scratch<T> whole((end - begin) * conv_size);
      conv(begin, end, whole.data);
      max_windows(pool_of(v, out, tail.pool), end - begin, whole.data, tail.relu, y + begin * y_size,
                  tail.choice ? tail.choice + begin * y_size : nullptr);
    });
  };
  const bool relu = tail.relu && !pools;
  if constexpr (std::is_same_v<T, float>) {
    if (const Winograd fast(v, out); fast) {
      const std::int64_t block = fast.block_images(v, out, 8);
      const auto images = [&](std::int64_t begin, std::int64_t end, const float* filters, float* to) {
        const Scratch<float> scratch(fast.scratch_size(v, out, end - begin));
        if (fast.forward(v, out, end - begin, x + begin * v.image_size(), filters, tail.bias, relu, to, scratch.data))
          return;
        // Of these images, those with a result that is not finite in the plain way.
        const Direct direct(v, out);
        const Scratch<float> margin = direct.margin();
        for (std::int64_t i = begin; i < end; ++i, to += conv_size)
          if (!fast.forward(v, out, 1, x + i * v.image_size(), filters, tail.bias, relu, to, scratch.data))
            direct.forward(direct.padded(v, x + i * v.image_size(), margin.data), k, tail.bias, relu, 0, v.oh, to);
      };
      if (v.n == 1 && v.patch() * out <= 1 << 16)  // 256 KiB, and up to four times that when transformed
        return in_blocks(block, [&](std::int64_t begin, std::int64_t end, float* to) {
          images(begin, end, kept_filters(fast, k, v.c, out), to);
        });
      Filters filters(fast, k, v.c, out, false);
      return in_blocks(
          block, [&](std::int64_t begin, std::int64_t end, float* to) { images(begin, end, filters.mine(), to); });
    }
    if (Direct::suits(v, out)) {
      const Direct direct(v, out);
      const Strips strips(v, out, tail.pool, !pools);
      return parallel_for(v.n, direct.block_images(), [&](std::int64_t begin, std::int64_t end) {
        const Scratch<float> scratch = direct.margin(), outputs(pools ? strips.outputs() : 0);
        for (std::int64_t i = begin; i < end; ++i) {
          const float* image = direct.padded(v, x + i * v.image_size(), scratch.data);
          strips.each([&](const Window& strip, std::int64_t first, std::int64_t last, std::int64_t at) {
            at += i * y_size;
            direct.forward(image, k, tail.bias, relu, first, last, pools ? outputs.data : y + at);
            if (pools) max_windows(strip, 1, outputs.data, tail.relu, y + at, tail.choice ? tail.choice + at : nullptr);
          });
        }
      });
    }
  }
  in_blocks(block_images(v, v.positions() * v.patch() * static_cast<std::int64_t>(sizeof(T))),
            [&](std::int64_t begin, std::int64_t end, T* to) {
              const std::int64_t rows = (end - begin) * v.positions();
              const Scratch<T> cols(rows * v.patch());
              patches_of(v, x, begin, end, cols.data);
              gemm(false, false, rows, out, v.patch(), cols.data, v.patch(), k, out, T(0), to, out);
              add_bias(rows, out, tail.bias, relu, to);
            });
}

template <class T>
void convolve_back(const Window& v, std::int64_t out, const T* x, const T* k, const Upstream<T>& up, T* dx, T* dk,
                   T* db) {
  const Window pool = pool_of(v, out, up.pool);
  const std::int64_t pooled_size = pool.positions() * out;
  const bool copies = up.y || up.choice;
  // The gradient of what the convolution of some images gave.
  const auto upstream = [&](std::int64_t begin, std::int64_t end, const Scratch<T>& buffer, double* bias) {
    return tail_gradient(pool, end - begin, up.from(begin * pooled_size), buffer.data, bias);
  };
  const auto buffer_of = [&](std::int64_t images) { return Scratch<T>(copies ? images * v.positions() * out : 0); };

  constexpr std::int64_t most_groups = 4;
  // Sums over images are made in a few groups, whatever the number of threads, and the groups are added in order.
  // back(first, last, db, sums, add) does a block; `size` sums a group.
  const auto in_groups = [&](std::int64_t block, std::int64_t size, const auto& back, const auto& reduce) {
    const std::int64_t share = dk || db ? std::max(block, (v.n + most_groups - 1) / most_groups) : block,
                       used = (v.n + share - 1) / share;
    const Scratch<T> sums(dk ? used * size : 0);
    const Scratch<double> biases(db ? used * out : 0);
    parallel_for(used, 1, [&](std::int64_t group, std::int64_t) {
      const std::int64_t first = group * share, last = std::min(v.n, first + share);
      double* bias = db ? biases.data + group * out : nullptr;
      if (db) std::fill(bias, bias + out, 0.0);
      for (std::int64_t begin = first; begin < last; begin += block) {
        const std::int64_t end = std::min(last, begin + block);
        back(begin, end, bias, dk ? sums.data + group * size : nullptr, begin != first);
      }
    });
    for (std::int64_t c = 0; db && c < out; ++c) {
      double all = 0;
      for (std::int64_t group = 0; group < used; ++group) all += biases.data[group * out + c];
      db[c] = static_cast<T>(all);
    }
    if (dk) reduce(used, sums.data);
  };
  const std::int64_t kernel_size = v.patch() * out;
  const auto add_up = [&](std::int64_t parts, const T* sums) {
    std::fill(dk, dk + kernel_size, T(0));
    for (std::int64_t part = 0; part < parts; ++part)
      for (std::int64_t j = 0; j < kernel_size; ++j) dk[j] += sums[part * kernel_size + j];
  };

  if constexpr (std::is_same_v<T, float>) {
    if (const Winograd fast(v, out); fast) {
      Filters filters(fast, k, v.c, out, true);
      std::atomic<bool> finite = true;
      in_groups(
          fast.block_images(v, out, v.n / most_groups), fast.points() * Winograd::plane(v.c, out),
          [&](std::int64_t begin, std::int64_t end, double* bias, float* sums, bool add) {
            const Scratch<float> scratch(fast.scratch_size(v, out, end - begin)), buffer = buffer_of(end - begin);
            const float* dy = upstream(begin, end, buffer, bias);
            if (!fast.backward(v, out, end - begin, x ? x + begin * v.image_size() : nullptr, dy,
                               dx ? filters.mine() : nullptr, dx ? dx + begin * v.image_size() : nullptr, sums, add,
                               scratch.data))
              finite = false;
          },
          [&](std::int64_t parts, const float* sums) { fast.filter_gradient(v.c, out, parts, sums, dk); });
      if (finite && (!dk || all_finite(dk, kernel_size))) return;  // else in the plain way, as in convolve
    }
    if (dx ? Direct::suits_back(v, out) : Direct::suits(v, out)) {
      const Direct direct(v, out);
      const Strips strips(v, out, up.pool,
                          dx != nullptr);  // a row of the image needs the gradients of all rows that it went into
      const Scratch<float> turned(dx ? kernel_size : 0);  // (kh, kw, out, c)
      if (dx) transpose_each(turned.data, k, v.kh * v.kw, v.c, out);
      return in_groups(
          direct.block_images(), kernel_size,
          [&](std::int64_t begin, std::int64_t end, double* bias, float* sums, bool add) {
            const Scratch<float> scratch = direct.margin(), buffer(copies ? strips.outputs() : 0);
            for (std::int64_t i = begin; i < end; ++i) {
              const float* image = sums ? direct.padded(v, x + i * v.image_size(), scratch.data) : nullptr;
              strips.each([&](const Window& strip, std::int64_t first, std::int64_t last, std::int64_t at) {
                const float* dy = tail_gradient(strip, 1, up.from(i * pooled_size + at), buffer.data, bias);
                if (sums) direct.kernel_gradient(image, dy, first, last, sums, add || i != begin || first != 0);
                if (dx) direct.image_gradient(v, dy, turned.data, dx + i * v.image_size());
              });
            }
          },
          add_up);
    }
  }
  in_groups(
      block_images(v, v.positions() * v.patch() * static_cast<std::int64_t>(sizeof(T))), kernel_size,
      [&](std::int64_t begin, std::int64_t end, double* bias, T* sums, bool add) {
        const std::int64_t rows = (end - begin) * v.positions();
        const Scratch<T> cols(rows * v.patch()), buffer = buffer_of(end - begin);
        const T* dy = upstream(begin, end, buffer, bias);
        if (sums) {
          patches_of(v, x, begin, end, cols.data);
          gemm(true, false, v.patch(), out, rows, cols.data, v.patch(), dy, out, add ? T(1) : T(0), sums, out);
        }
        if (!dx) return;
        gemm(false, true, rows, v.patch(), out, dy, out, k, out, T(0), cols.data, v.patch());
        std::fill(dx + begin * v.image_size(), dx + end * v.image_size(), T(0));
        add_patches(v, cols.data, begin, end, dx);
      },
      add_up);
}

template void patches_of(const Window&, const float*, std::int64_t, std::int64_t, float*);
template void add_patches(const Window&, const float*, std::int64_t, std::int64_t, float*);
template void convolve(const Window&, std::int64_t, const float*, const float*, const Tail<float>&, float*);
template void convolve_back(const Window&, std::int64_t, const float*, const float*, const Upstream<float>&, float*,
                            float*, float*);
template void patches_of(const Window&, const double*, std::int64_t, std::int64_t, double*);
template void add_patches(const Window&, const double*, std::int64_t, std::int64_t, double*);
template void convolve(const Window&, std::int64_t, const double*, const double*, const Tail<double>&, double*);
template void convolve_back(const Window&, std::int64_t, const double*, const double*, const Upstream<double>&, double*,
                            double*, double*);

}  // namespace ebb::detail
