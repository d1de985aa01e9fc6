#include <ebb/ops/convolve.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include <ebb/ops/blas.h>
#include <ebb/ops/convolve_tail.h>
#include <ebb/ops/copy.h>
#include <ebb/ops/loops.h>
#include <ebb/ops/tile.h>
#include <ebb/ops/winograd.h>

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
  explicit Scratch(std::int64_t n) : memory(Tensor::workspace({n}, dtype_of<T>())), data(memory.mutable_values<T>().data()) {}
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

/// Transformed filters for a single image, whose products take little longer than the transform: a thread keeps its last ones
/// beside a copy of the kernel. Every number of it is compared, since a kernel may be changed in ways that nobody is told of.
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

  static bool suits(const Window& v, std::int64_t out) { return v.dw == 1 && out > 0 && out % Product::lanes == 0 && v.c > 0; }
  Direct(const Window& w, std::int64_t out_channels) : v(w), out(out_channels) {
    v.h = std::max(v.h + v.top, (v.oh - 1) * v.sh + v.dh * (v.kh - 1) + 1);  // what no window reaches is left out
    v.w = std::max(v.w + v.left, (v.ow - 1) * v.sw + v.kw);
    pads = v.h != w.h || v.w != w.w;
  }
  /// Images to a block: few, for threads to have even shares.
  std::int64_t block_images() const {
    return std::min({std::int64_t{8}, (v.n + 3) / 4, detail::block_images(v, 2 * v.positions() * out * static_cast<std::int64_t>(sizeof(float)))});
  }
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
  void forward(const float* x, const float* k, const float* bias, bool relu, float* y) const {
    for (std::int64_t oy = 0; oy < v.oh; ++oy)
      multiply({.m = v.ow, .n = out, .outer = v.kh, .inner = v.kw * v.c,
                .a = x + oy * v.sh * v.w * v.c, .a_row = v.sw * v.c, .a_outer = v.dh * v.w * v.c, .a_inner = 1,
                .b = k, .b_outer = v.kw * v.c * out, .b_inner = out, .c = y + oy * v.ow * out, .c_row = out, .bias = bias, .relu = relu});
  }
  void kernel_gradient(const float* x, const float* dy, float* dk, bool add) const {
    for (std::int64_t ky = 0; ky < v.kh; ++ky)
      multiply({.m = v.kw * v.c, .n = out, .outer = v.oh, .inner = v.ow,
                .a = x + ky * v.dh * v.w * v.c, .a_row = 1, .a_outer = v.sh * v.w * v.c, .a_inner = v.sw * v.c,
                .b = dy, .b_outer = v.ow * out, .b_inner = out, .c = dk + ky * v.kw * v.c * out, .c_row = out, .add = add});
  }

  /// Whether there is a gradient of the image too.
  static bool suits_back(const Window& v, std::int64_t out) { return suits(v, out) && v.c % Product::lanes == 0 && v.dh == 1; }
  /// Each row of the image (w is without padding; k is (kh, kw, out, c)) adds up, for each column of the window, the rows of dy that it went into.
  void image_gradient(const Window& w, const float* dy, const float* k, float* dx) const {
    std::fill(dx, dx + w.image_size(), 0.f);
    for (std::int64_t y = 0; y < w.h; ++y) {
      const std::int64_t at = y + w.top, oy = std::min(w.oh - 1, at / w.sh), ky = at - oy * w.sh;  // oy falls while ky grows
      const std::int64_t taps = std::min(oy + 1, (w.kh - ky + w.sh - 1) / w.sh);
      for (std::int64_t kx = 0; taps > 0 && kx < w.kw; ++kx) {
        const std::int64_t first = (std::max<std::int64_t>(0, w.left - kx) + w.sw - 1) / w.sw;
        const std::int64_t last = std::min(w.ow, (w.w + w.left - kx + w.sw - 1) / w.sw);
        if (first < last)
          multiply({.m = last - first, .n = w.c, .outer = taps, .inner = out,
                    .a = dy + (oy * w.ow + first) * out, .a_row = out, .a_outer = -w.ow * out, .a_inner = 1,
                    .b = k + (ky * w.kw + kx) * out * w.c, .b_outer = w.sh * w.kw * out * w.c, .b_inner = w.c,
                    .c = dx + (y * w.w + first * w.sw + kx - w.left) * w.c, .c_row = w.sw * w.c, .add = true});
      }
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
      max_windows(pool_of(v, out, tail.pool), end - begin, whole.data, tail.relu, y + begin * y_size, tail.choice ? tail.choice + begin * y_size : nullptr);
    });
  };
  const bool relu = tail.relu && !pools;
  if constexpr (std::is_same_v<T, float>) {
    if (const Winograd fast(v, out); fast) {
      const std::int64_t block = fast.block_images(v, out, 8);
      const auto images = [&](std::int64_t begin, std::int64_t end, const float* filters, float* to) {
        const Scratch<float> scratch(fast.scratch_size(v, out, end - begin));
        fast.forward(v, out, end - begin, x + begin * v.image_size(), filters, tail.bias, relu, to, scratch.data);
      };
      if (v.n == 1 && v.patch() * out <= 1 << 16)  // 256 KiB, and up to four times that when transformed
        return in_blocks(block, [&](std::int64_t begin, std::int64_t end, float* to) { images(begin, end, kept_filters(fast, k, v.c, out), to); });
      Filters filters(fast, k, v.c, out, false);
      return in_blocks(block, [&](std::int64_t begin, std::int64_t end, float* to) { images(begin, end, filters.mine(), to); });
    }
    if (Direct::suits(v, out)) {
      const Direct direct(v, out);
      return in_blocks(direct.block_images(), [&](std::int64_t begin, std::int64_t end, float* to) {
        const Scratch<float> scratch = direct.margin();
        for (std::int64_t i = begin; i < end; ++i, to += conv_size)
          direct.forward(direct.padded(v, x + i * v.image_size(), scratch.data), k, tail.bias, relu, to);
      });
    }
  }
  in_blocks(block_images(v, v.positions() * v.patch() * static_cast<std::int64_t>(sizeof(T))), [&](std::int64_t begin, std::int64_t end, T* to) {
    const std::int64_t rows = (end - begin) * v.positions();
    const Scratch<T> cols(rows * v.patch());
    patches_of(v, x, begin, end, cols.data);
    gemm(false, false, rows, out, v.patch(), cols.data, v.patch(), k, out, T(0), to, out);
    add_bias(rows, out, tail.bias, relu, to);
  });
}

template <class T>
void convolve_back(const Window& v, std::int64_t out, const T* x, const T* k, const Upstream<T>& up, T* dx, T* dk, T* db) {
  const std::int64_t conv_size = v.positions() * out;
  const bool copies = up.y || up.choice;

  constexpr std::int64_t most_groups = 4;
  // Sums over images are made in a few groups, whatever the number of threads, and the groups are added in order.
  // back(first, last, dy, sums, add) does a block; `size` sums a group.
  const auto in_groups = [&](std::int64_t block, std::int64_t size, const auto& back, const auto& reduce) {
    const std::int64_t share = dk || db ? std::max(block, (v.n + most_groups - 1) / most_groups) : block, used = (v.n + share - 1) / share;
    const Scratch<T> sums(dk ? used * size : 0), biases(db ? used * out : 0);
    parallel_for(used, 1, [&](std::int64_t group, std::int64_t) {
      const std::int64_t first = group * share, last = std::min(v.n, first + share);
      const Scratch<T> buffer(copies ? std::min(block, last - first) * conv_size : 0);
      T* bias = db ? biases.data + group * out : nullptr;
      if (db) std::fill(bias, bias + out, T(0));
      for (std::int64_t begin = first; begin < last; begin += block) {
        const std::int64_t end = std::min(last, begin + block);
        const T* dy = tail_gradient(v, out, up, begin, end, buffer.data, bias);
        back(begin, end, dy, dk ? sums.data + group * size : nullptr, begin != first);
      }
    });
    if (db) std::fill(db, db + out, T(0));
    for (std::int64_t group = 0; db && group < used; ++group)
      for (std::int64_t c = 0; c < out; ++c) db[c] += biases.data[group * out + c];
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
      return in_groups(fast.block_images(v, out, v.n / most_groups), fast.points() * Winograd::plane(v.c, out),
                       [&](std::int64_t begin, std::int64_t end, const float* dy, float* sums, bool add) {
                         const Scratch<float> scratch(fast.scratch_size(v, out, end - begin));
                         fast.backward(v, out, end - begin, x ? x + begin * v.image_size() : nullptr, dy, dx ? filters.mine() : nullptr,
                                       dx ? dx + begin * v.image_size() : nullptr, sums, add, scratch.data);
                       },
                       [&](std::int64_t parts, const float* sums) { fast.filter_gradient(v.c, out, parts, sums, dk); });
    }
    if (dx ? Direct::suits_back(v, out) : Direct::suits(v, out)) {
      const Direct direct(v, out);
      const Scratch<float> turned(dx ? kernel_size : 0);  // (kh, kw, out, c)
      if (dx) transpose_each(turned.data, k, v.kh * v.kw, v.c, out);
      return in_groups(direct.block_images(), kernel_size,
                       [&](std::int64_t begin, std::int64_t end, const float* dy, float* sums, bool add) {
                         const Scratch<float> scratch = direct.margin();
                         for (std::int64_t i = begin; i < end; ++i, dy += conv_size) {
                           if (sums) direct.kernel_gradient(direct.padded(v, x + i * v.image_size(), scratch.data), dy, sums, add || i != begin);
                           if (dx) direct.image_gradient(v, dy, turned.data, dx + i * v.image_size());
                         }
                       },
                       add_up);
    }
  }
  in_groups(block_images(v, v.positions() * v.patch() * static_cast<std::int64_t>(sizeof(T))), kernel_size,
            [&](std::int64_t begin, std::int64_t end, const T* dy, T* sums, bool add) {
              const std::int64_t rows = (end - begin) * v.positions();
              const Scratch<T> cols(rows * v.patch());
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
template void convolve_back(const Window&, std::int64_t, const float*, const float*, const Upstream<float>&, float*, float*, float*);
template void patches_of(const Window&, const double*, std::int64_t, std::int64_t, double*);
template void add_patches(const Window&, const double*, std::int64_t, std::int64_t, double*);
template void convolve(const Window&, std::int64_t, const double*, const double*, const Tail<double>&, double*);
template void convolve_back(const Window&, std::int64_t, const double*, const double*, const Upstream<double>&, double*, double*, double*);

}  // namespace ebb::detail
