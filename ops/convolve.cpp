#include <ebb/ops/convolve.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include <ebb/ops/blas.h>
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

/// Channels that are pooled together: some registers full. Their number stays a variable where they are walked, for a loop
/// of known short length is unrolled before it can be vectorised.
constexpr std::int64_t run_length = 64;

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
  std::int64_t scratch_size() const { return pads ? v.image_size() : 0; }

  /// One image with its padding.
  const float* padded(const Window& w, const float* x, float* scratch) const {
    if (!pads) return x;
    std::fill(scratch, scratch + v.image_size(), 0.f);
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
};

/// y += bias, then relu.
template <class T>
void finish(std::int64_t rows, std::int64_t channels, const T* bias, bool relu, T* y) {
  if (!bias && !relu) return;
  simd_for<T>([&]() EBB_INLINE {
    for (std::int64_t r = 0; r < rows; ++r) {
      T* __restrict row = y + r * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        const T z = bias ? row[c] + bias[c] : row[c];
        row[c] = relu && z <= 0 ? T(0) : z;
      }
    }
  });
}

// ---- max-pool of a block -------------------------------------------------------------------------------------------

/// Largest element of each window of images (oh, ow, c), where in the window it was, and relu.
template <class T>
void pool_block(const Window& v, std::int64_t channels, std::int64_t images, const Tail<T>& tail, const T* conv, T* y, std::uint8_t* choice) {
  const std::int64_t rows = v.oh / tail.pool.h, cols = v.ow / tail.pool.w;
  const bool square = tail.pool == Pair(2);  // the usual one, in one pass
  simd_for<T>([&]() EBB_INLINE {
    for (std::int64_t i = 0; i < images; ++i)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t q = 0; q < cols; ++q, y += channels, choice += choice ? channels : 0) {
          const T* corner = conv + ((i * v.oh + r * tail.pool.h) * v.ow + q * tail.pool.w) * channels;
          for (std::int64_t c0 = 0; c0 < channels; c0 += run_length) {
            const std::int64_t n = std::min(run_length, channels - c0);
            T best[run_length];
            IntegerOf<T> where[run_length];
            if (square) {
              const T *__restrict x0 = corner + c0, *__restrict x1 = x0 + channels, *__restrict x2 = x0 + v.ow * channels, *__restrict x3 = x2 + channels;
              for (std::int64_t c = 0; c < n; ++c) {
                T b = x0[c];
                IntegerOf<T> k = 0;
                bool wins = (x1[c] > b) | (x1[c] != x1[c]);
                b = wins ? x1[c] : b, k = wins ? 1 : k;
                wins = (x2[c] > b) | (x2[c] != x2[c]);
                b = wins ? x2[c] : b, k = wins ? 2 : k;
                wins = (x3[c] > b) | (x3[c] != x3[c]);
                b = wins ? x3[c] : b, k = wins ? 3 : k;
                best[c] = b, where[c] = k;
              }
            } else {
              for (std::int64_t c = 0; c < n; ++c) best[c] = corner[c0 + c], where[c] = 0;
              for (std::int64_t a = 0, k = 0; a < tail.pool.h; ++a)
                for (std::int64_t b = 0; b < tail.pool.w; ++b, ++k) {
                  const T* __restrict from = corner + (a * v.ow + b) * channels + c0;
                  for (std::int64_t c = 0; c < n; ++c) {
                    const bool wins = (from[c] > best[c]) | (from[c] != from[c]);
                    best[c] = wins ? from[c] : best[c];
                    where[c] = wins ? static_cast<IntegerOf<T>>(k) : where[c];
                  }
                }
            }
            for (std::int64_t c = 0; c < n; ++c) y[c0 + c] = tail.relu && best[c] <= 0 ? T(0) : best[c];
            if (choice)
              for (std::int64_t c = 0; c < n; ++c) choice[c0 + c] = static_cast<std::uint8_t>(where[c]);
          }
        }
  });
}

/// The gradient of the convolution's output for images [begin, end): up.g itself, or sent back through pool and relu
/// into `buffer`; db, unless null, gets its sum over positions added.
template <class T>
const T* dense(const Window& v, std::int64_t channels, const Upstream<T>& up, std::int64_t begin, std::int64_t end, T* buffer, T* db) {
  const std::int64_t rows = v.oh / up.pool.h, cols = v.ow / up.pool.w, size = rows * cols * channels;
  const T* g = up.g + begin * size;
  const T* y = up.y ? up.y + begin * size : nullptr;
  const std::uint8_t* choice = up.choice ? up.choice + begin * size : nullptr;
  const bool whole = up.pool.h == 1 && up.pool.w == 1;
  simd_for<T>([&]() EBB_INLINE {
    if (whole) {
      if (!y && !db) return;
      for (std::int64_t p = 0; p < (end - begin) * v.positions(); ++p) {
        const T* __restrict from = g + p * channels;
        T* __restrict to = buffer + p * channels;
        if (y) {
          const T* __restrict out = y + p * channels;
          for (std::int64_t c = 0; c < channels; ++c) to[c] = out[c] > 0 ? from[c] : T(0);
        }
        if (db) {
          const T* __restrict add = y ? to : from;
          for (std::int64_t c = 0; c < channels; ++c) db[c] += add[c];
        }
      }
      return;
    }
    T* image = buffer;
    for (std::int64_t i = begin; i < end; ++i, image += v.positions() * channels) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t q = 0; q < cols; ++q, g += channels, y += y ? channels : 0, choice += channels) {
          T* corner = image + (r * up.pool.h * v.ow + q * up.pool.w) * channels;
          for (std::int64_t c0 = 0; c0 < channels; c0 += run_length) {
            const std::int64_t n = std::min(run_length, channels - c0);
            T on[run_length];
            IntegerOf<T> where[run_length];
            for (std::int64_t c = 0; c < n; ++c) on[c] = !y || y[c0 + c] > 0 ? g[c0 + c] : T(0), where[c] = choice[c0 + c];
            for (std::int64_t a = 0, k = 0; a < up.pool.h; ++a)
              for (std::int64_t b = 0; b < up.pool.w; ++b, ++k) {
                T* __restrict to = corner + (a * v.ow + b) * channels + c0;
                for (std::int64_t c = 0; c < n; ++c) to[c] = where[c] == static_cast<IntegerOf<T>>(k) ? on[c] : T(0);
              }
            if (db)
              for (std::int64_t c = 0; c < n; ++c) db[c0 + c] += on[c];
          }
        }
        for (std::int64_t a = 0; a < up.pool.h; ++a) {  // columns that no window covers
          T* line = image + (r * up.pool.h + a) * v.ow * channels;
          std::fill(line + cols * up.pool.w * channels, line + v.ow * channels, T(0));
        }
      }
      std::fill(image + rows * up.pool.h * v.ow * channels, image + v.positions() * channels, T(0));
    }
  });
  return whole && !y ? g : buffer;
}

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
      pool_block(v, out, end - begin, tail, whole.data, y + begin * y_size, tail.choice ? tail.choice + begin * y_size : nullptr);
    });
  };
  const bool relu = tail.relu && !pools;
  if constexpr (std::is_same_v<T, float>) {
    if (const Winograd fast(v, out); fast) {
      const std::int64_t block = fast.block_images(v, out);
      const Tensor filters = fast.filters(k, v.c, out, false, v.n > block);
      const float* u = filters.values<float>().data();
      return in_blocks(block, [&](std::int64_t begin, std::int64_t end, float* to) {
        const Scratch<float> scratch(fast.scratch_size(v, out, end - begin));
        fast.forward(v, out, end - begin, x + begin * v.image_size(), u, tail.bias, relu, to, scratch.data);
      });
    }
    if (Direct::suits(v, out)) {
      const Direct direct(v, out);
      return in_blocks(block_images(v, 2 * conv_size * 4), [&](std::int64_t begin, std::int64_t end, float* to) {
        const Scratch<float> scratch(direct.scratch_size());
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
    finish(rows, out, tail.bias, relu, to);
  });
}

template <class T>
void convolve_back(const Window& v, std::int64_t out, const T* x, const T* k, const Upstream<T>& up, T* dx, T* dk, T* db) {
  const std::int64_t conv_size = v.positions() * out;
  const bool copies = up.y || up.choice;

  // Sums over images are made in a few groups, whatever the number of threads, and the groups are added in order.
  // back(first, last, dy, sums, add) does a block; `size` sums a group.
  const auto in_groups = [&](std::int64_t block, std::int64_t size, const auto& back, const auto& reduce) {
    constexpr std::int64_t most = 4;
    const std::int64_t blocks = (v.n + block - 1) / block, groups = dk || db ? most : std::max<std::int64_t>(1, blocks);
    const std::int64_t share = (blocks + groups - 1) / groups * block, used = share ? (v.n + share - 1) / share : 0;
    const Scratch<T> sums(dk ? used * size : 0), biases(db ? used * out : 0);
    parallel_for(used, 1, [&](std::int64_t group, std::int64_t) {
      const std::int64_t first = group * share, last = std::min(v.n, first + share);
      const Scratch<T> buffer(copies ? std::min(block, last - first) * conv_size : 0);
      T* bias = db ? biases.data + group * out : nullptr;
      if (db) std::fill(bias, bias + out, T(0));
      for (std::int64_t begin = first; begin < last; begin += block) {
        const std::int64_t end = std::min(last, begin + block);
        const T* dy = dense(v, out, up, begin, end, buffer.data, bias);
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
      const std::int64_t block = fast.block_images(v, out);
      const Tensor flipped = dx ? fast.filters(k, v.c, out, true, v.n > block) : Tensor();
      const float* u = dx ? flipped.values<float>().data() : nullptr;
      return in_groups(block, fast.points() * Winograd::plane(v.c, out),
                       [&](std::int64_t begin, std::int64_t end, const float* dy, float* sums, bool add) {
                         const Scratch<float> scratch(fast.scratch_size(v, out, end - begin));
                         fast.backward(v, out, end - begin, x ? x + begin * v.image_size() : nullptr, dy, u,
                                       dx ? dx + begin * v.image_size() : nullptr, sums, add, scratch.data);
                       },
                       [&](std::int64_t parts, const float* sums) { fast.filter_gradient(v.c, out, parts, sums, dk); });
    }
    if (!dx && Direct::suits(v, out)) {
      const Direct direct(v, out);
      return in_groups(block_images(v, 2 * conv_size * 4), kernel_size,
                       [&](std::int64_t begin, std::int64_t end, const float* dy, float* sums, bool add) {
                         if (!sums) return;
                         const Scratch<float> scratch(direct.scratch_size());
                         for (std::int64_t i = begin; i < end; ++i)
                           direct.kernel_gradient(direct.padded(v, x + i * v.image_size(), scratch.data), dy + (i - begin) * conv_size, sums,
                                                  add || i != begin);
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
