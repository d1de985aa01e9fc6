#include <ebb/ops/kernels/convolve_tail.h>

#include <algorithm>
#include <bit>
#include <limits>

#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/rows.h>

namespace ebb::detail {
namespace {

/// Elements of windows side by side that are pooled at once: where each came from is a byte in memory and as wide as an
/// element in registers, and the 32 channels of one window do not fill a register of bytes.
constexpr std::int64_t line = 1024;
std::int64_t windows_in_line(std::int64_t channels) {
  return std::max<std::int64_t>(1, line / std::max<std::int64_t>(1, channels));
}

/// x or 0 without a branch, which a choice of stores would become.
template <class T>
EBB_INLINE inline T only_if(bool yes, T x) {
  return std::bit_cast<T>(std::bit_cast<IntegerOf<T>>(x) & -static_cast<IntegerOf<T>>(yes));
}

/// One window of any size, whose first element is at `first`, for n channels.
template <bool choose, class T>
EBB_INLINE inline void largest(const Window& pool, const Window::Place& in, const T* first, std::int64_t n,
                               T* __restrict best, IntegerOf<T>* __restrict which) {
  const auto k0 = static_cast<IntegerOf<T>>(in.top * pool.kw + in.left);
  for (std::int64_t c = 0; c < n; ++c) best[c] = first[c];
  for (std::int64_t c = 0; choose && c < n; ++c) which[c] = k0;
  for (std::int64_t a = in.top; a < in.bottom; ++a)
    for (std::int64_t b = in.left; b < in.right; ++b) {
      const T* __restrict from = first + ((a - in.top) * pool.w + b - in.left) * pool.c;
      const auto k = static_cast<IntegerOf<T>>(a * pool.kw + b);
      for (std::int64_t c = 0; c < n; ++c) {
        const bool wins = (from[c] > best[c]) | (from[c] != from[c]);  // not ||: a branch is not vectorized
        best[c] = wins ? from[c] : best[c];
        if constexpr (choose) which[c] = wins ? k : which[c];
      }
    }
}

/// simd_for where the choice is a byte. Windows of more than 255 elements are rare: one version does for them.
template <class T, class I, class F>
void simd_for_choice(const F& f) {
  if constexpr (sizeof(I) == 1) simd_for<T>(f);
  else f();
}

}  // namespace

template <class T>
void add_bias(std::int64_t rows, std::int64_t channels, const T* bias, bool relu, T* y) {
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

template <class T, class I>
void max_windows(const Window& of, std::int64_t images, const T* x, bool relu, T* y, I* choice) {
  const Window pool = of;  // no store of a byte can change it
  const std::int64_t rows = pool.oh, cols = pool.ow, channels = pool.c;
  const T floor = relu ? T(0) : -std::numeric_limits<T>::infinity();
  const std::int64_t at_once = windows_in_line(channels);
  simd_for_choice<T, I>([&]() EBB_INLINE {
    IntegerOf<T> where[line];
    for (std::int64_t i = 0; i < images * rows; ++i)
      for (std::int64_t q0 = 0; q0 < cols; q0 += at_once) {
        const std::int64_t windows = std::min(at_once, cols - q0), image = i / rows, row = i % rows;
        for (std::int64_t c0 = 0; c0 < channels; c0 += line) {
          const std::int64_t n = std::min(line, channels - c0);
          for (std::int64_t q = 0; q < windows; ++q) {
            const Window::Place in = pool.place(row, q0 + q);
            const T* corner = x + ((image * pool.h + in.y + in.top) * pool.w + in.x + in.left) * channels + c0;
            T* __restrict best = y + q * channels + c0;
            IntegerOf<T>* __restrict which = where + q * n;
            if (pool.kh == 2 && pool.kw == 2 && in.bottom - in.top == 2 &&
                in.right - in.left == 2) {  // the usual one, in one pass
              const T* __restrict x0 = corner, * __restrict x1 = x0 + channels, * __restrict x2 = x0 + pool.w * channels, * __restrict x3 = x2 + channels;
              for (std::int64_t c = 0; c < n; ++c) {
                T b = x0[c];
                IntegerOf<T> k = 0;
                bool wins = (x1[c] > b) | (x1[c] != x1[c]);
                b = wins ? x1[c] : b, k = wins ? 1 : k;
                wins = (x2[c] > b) | (x2[c] != x2[c]);
                b = wins ? x2[c] : b, k = wins ? 2 : k;
                wins = (x3[c] > b) | (x3[c] != x3[c]);
                b = wins ? x3[c] : b, k = wins ? 3 : k;
                best[c] = b <= floor ? floor : b, which[c] = k;  // a NaN passes
              }
            } else {
              choice ? largest<true>(pool, in, corner, n, best, which)
                     : largest<false>(pool, in, corner, n, best, which);
              for (std::int64_t c = 0; relu && c < n; ++c) best[c] = best[c] <= 0 ? T(0) : best[c];
            }
          }
          if (!choice) continue;
          I* __restrict to = choice + c0;  // as bytes, which may be part of anything, its stores would hold up the loop
          for (std::int64_t j = 0; j < windows * n; ++j) to[j] = static_cast<I>(where[j]);
        }
        y += windows * channels;
        choice += choice ? windows * channels : 0;
      }
  });
}

template <class T, class I>
void unmax_windows(const Window& pool, std::int64_t images, const T* g, const T* y, const I* choice, T* dx,
                   double* db) {
  const std::int64_t channels = pool.c, at_once = windows_in_line(channels);
  const bool apart = pool.apart;  // then each element is written once
  const std::int64_t covered_h = pool.oh * pool.kh, covered_w = pool.ow * pool.kw;
  simd_for_choice<T, I>([&]() EBB_INLINE {
    T on[line];
    IntegerOf<T> where[line];
    T* image = dx;
    for (std::int64_t i = 0; i < images; ++i, image += pool.image_size()) {
      if (!apart) std::fill(image, image + pool.image_size(), T(0));
      for (std::int64_t r = 0; r < pool.oh; ++r) {
        for (std::int64_t q0 = 0; q0 < pool.ow; q0 += at_once) {
          const std::int64_t windows = std::min(at_once, pool.ow - q0);
          for (std::int64_t c0 = 0; c0 < channels; c0 += line) {
            const std::int64_t n = std::min(line, channels - c0);
            for (std::int64_t j = 0; j < windows * n; ++j) where[j] = static_cast<IntegerOf<T>>(choice[c0 + j]);
            for (std::int64_t j = 0; j < windows * n; ++j) on[j] = y ? only_if(y[c0 + j] > 0, g[c0 + j]) : g[c0 + j];
            for (std::int64_t a = 0; a < pool.kh; ++a)
              for (std::int64_t q = 0; q < windows; ++q) {
                const Window::Place in = pool.place(r, q0 + q);
                if (a < in.top || a >= in.bottom) break;
                T* to = image + ((in.y + a) * pool.w + in.x + in.left) * channels + c0;
                for (std::int64_t b = in.left; b < in.right; ++b, to += channels) {
                  const auto k = static_cast<IntegerOf<T>>(a * pool.kw + b);
                  const T* __restrict from = on + q * n;
                  if (apart)
                    for (std::int64_t c = 0; c < n; ++c) to[c] = only_if(where[q * n + c] == k, from[c]);
                  else
                    for (std::int64_t c = 0; c < n; ++c) to[c] += only_if(where[q * n + c] == k, from[c]);
                }
              }
            const T* const gradients = on;
            if (db)
              add_rows<T>(
                  windows, n, [=](std::int64_t q, std::int64_t c) EBB_INLINE { return gradients[q * n + c]; }, db + c0);
          }
          g += windows * channels;
          y += y ? windows * channels : 0;
          choice += windows * channels;
        }
        for (std::int64_t a = 0; apart && a < pool.kh; ++a) {  // columns that no window covers
          T* row = image + (r * pool.kh + a) * pool.w * channels;
          std::fill(row + covered_w * channels, row + pool.w * channels, T(0));
        }
      }
      if (apart) std::fill(image + covered_h * pool.w * channels, image + pool.image_size(), T(0));
    }
  });
}

template <class T>
const T* tail_gradient(const Window& pool, std::int64_t images, const Upstream<T>& up, T* buffer, double* db) {
  if (up.choice) {
    unmax_windows(pool, images, up.g, up.y, up.choice, buffer, db);
    return buffer;
  }
  if (!up.y) return up.g;
  const std::int64_t channels = pool.c;
  simd_for<T>([&]() EBB_INLINE {
    const std::int64_t all = images * pool.positions();
    for (std::int64_t p = 0; p < all; p += 8) {  // the sum's trees, while they are in the L1 cache
      const std::int64_t rows = std::min<std::int64_t>(8, all - p);
      const T* __restrict from = up.g + p * channels, * __restrict out = up.y + p * channels;
      T* __restrict to = buffer + p * channels;
      for (std::int64_t c = 0; c < rows * channels; ++c) to[c] = only_if(out[c] > 0, from[c]);
      if (db)
        add_rows<T>(
            rows, channels, [=](std::int64_t i, std::int64_t c) EBB_INLINE { return to[i * channels + c]; }, db);
    }
  });
  return buffer;
}

template void add_bias(std::int64_t, std::int64_t, const float*, bool, float*);
template void add_bias(std::int64_t, std::int64_t, const double*, bool, double*);
template void max_windows(const Window&, std::int64_t, const float*, bool, float*, std::uint8_t*);
template void unmax_windows(const Window&, std::int64_t, const float*, const float*, const std::uint8_t*, float*,
                            double*);
template void max_windows(const Window&, std::int64_t, const float*, bool, float*, std::int64_t*);
template void unmax_windows(const Window&, std::int64_t, const float*, const float*, const std::int64_t*, float*,
                            double*);
template void max_windows(const Window&, std::int64_t, const double*, bool, double*, std::uint8_t*);
template void unmax_windows(const Window&, std::int64_t, const double*, const double*, const std::uint8_t*, double*,
                            double*);
template void max_windows(const Window&, std::int64_t, const double*, bool, double*, std::int64_t*);
template void unmax_windows(const Window&, std::int64_t, const double*, const double*, const std::int64_t*, double*,
                            double*);
template const float* tail_gradient(const Window&, std::int64_t, const Upstream<float>&, float*, double*);
template const double* tail_gradient(const Window&, std::int64_t, const Upstream<double>&, double*, double*);

}  // namespace ebb::detail
