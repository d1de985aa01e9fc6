#include <ebb/ops/convolve_tail.h>

#include <algorithm>
#include <bit>
#include <limits>

#include <ebb/ops/loops.h>

namespace ebb::detail {
namespace {

/// Elements of windows side by side that are pooled at once: where each came from is a byte in memory and as wide as an
/// element in registers, and the 32 channels of one window do not fill a register of bytes.
constexpr std::int64_t line = 1024;
std::int64_t windows_in_line(std::int64_t channels) { return std::max<std::int64_t>(1, line / std::max<std::int64_t>(1, channels)); }

/// x or 0 without a branch, which a choice of stores would become.
template <class T>
EBB_INLINE inline T only_if(bool yes, T x) {
  return std::bit_cast<T>(std::bit_cast<IntegerOf<T>>(x) & -static_cast<IntegerOf<T>>(yes));
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

template <class T>
void pool_block(const Window& v, std::int64_t channels, std::int64_t images, const Tail<T>& tail, const T* conv, T* y, std::uint8_t* choice) {
  const std::int64_t rows = v.oh / tail.pool.h, cols = v.ow / tail.pool.w;
  const bool square = tail.pool == Pair(2);  // the usual one, in one pass
  const T floor = tail.relu ? T(0) : -std::numeric_limits<T>::infinity();
  const std::int64_t at_once = windows_in_line(channels);
  simd_for<T>([&]() EBB_INLINE {
    IntegerOf<T> where[line];
    for (std::int64_t i = 0; i < images * rows; ++i)
      for (std::int64_t q0 = 0; q0 < cols; q0 += at_once) {
        const std::int64_t windows = std::min(at_once, cols - q0);
        for (std::int64_t c0 = 0; c0 < channels; c0 += line) {
          const std::int64_t n = std::min(line, channels - c0);
          for (std::int64_t q = 0; q < windows; ++q) {
            const T* corner = conv + ((i / rows * v.oh + i % rows * tail.pool.h) * v.ow + (q0 + q) * tail.pool.w) * channels + c0;
            T* __restrict best = y + q * channels + c0;
            IntegerOf<T>* __restrict which = where + q * n;
            if (square) {
              const T *__restrict x0 = corner, *__restrict x1 = x0 + channels, *__restrict x2 = x0 + v.ow * channels, *__restrict x3 = x2 + channels;
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
              for (std::int64_t c = 0; c < n; ++c) best[c] = corner[c], which[c] = 0;
              for (std::int64_t a = 0, k = 0; a < tail.pool.h; ++a)
                for (std::int64_t b = 0; b < tail.pool.w; ++b, ++k) {
                  const T* __restrict from = corner + (a * v.ow + b) * channels;
                  for (std::int64_t c = 0; c < n; ++c) {
                    const bool wins = (from[c] > best[c]) | (from[c] != from[c]);
                    best[c] = wins ? from[c] : best[c];
                    which[c] = wins ? static_cast<IntegerOf<T>>(k) : which[c];
                  }
                }
              for (std::int64_t c = 0; c < n; ++c) best[c] = best[c] <= floor ? floor : best[c];
            }
          }
          if (!choice) continue;
          std::uint8_t* __restrict to = choice + c0;  // as bytes, which may be part of anything, its stores would hold up the loop
          for (std::int64_t j = 0; j < windows * n; ++j) to[j] = static_cast<std::uint8_t>(where[j]);
        }
        y += windows * channels;
        choice += choice ? windows * channels : 0;
      }
  });
}

template <class T>
const T* tail_gradient(const Window& v, std::int64_t channels, const Upstream<T>& up, std::int64_t begin, std::int64_t end, T* buffer, T* db) {
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
          for (std::int64_t c = 0; c < channels; ++c) to[c] = only_if(out[c] > 0, from[c]);
        }
        if (db) {
          const T* __restrict add = y ? to : from;
          for (std::int64_t c = 0; c < channels; ++c) db[c] += add[c];
        }
      }
      return;
    }
    const std::int64_t at_once = windows_in_line(channels);
    T on[line];
    IntegerOf<T> where[line];
    T* image = buffer;
    for (std::int64_t i = begin; i < end; ++i, image += v.positions() * channels) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t q0 = 0; q0 < cols; q0 += at_once) {
          const std::int64_t windows = std::min(at_once, cols - q0);
          for (std::int64_t c0 = 0; c0 < channels; c0 += line) {
            const std::int64_t n = std::min(line, channels - c0);
            for (std::int64_t j = 0; j < windows * n; ++j) where[j] = choice[c0 + j];
            for (std::int64_t j = 0; j < windows * n; ++j) on[j] = only_if(y[c0 + j] > 0, g[c0 + j]);
            for (std::int64_t a = 0; a < up.pool.h; ++a) {
              T* to = image + ((r * up.pool.h + a) * v.ow + q0 * up.pool.w) * channels + c0;
              for (std::int64_t q = 0; q < windows; ++q)
                for (std::int64_t b = 0; b < up.pool.w; ++b, to += channels)
                  for (std::int64_t c = 0; c < n; ++c) to[c] = only_if(where[q * n + c] == static_cast<IntegerOf<T>>(a * up.pool.w + b), on[q * n + c]);
            }
            for (std::int64_t q = 0; db && q < windows; ++q)
              for (std::int64_t c = 0; c < n; ++c) db[c0 + c] += on[q * n + c];
          }
          g += windows * channels;
          y += windows * channels;
          choice += windows * channels;
        }
        for (std::int64_t a = 0; a < up.pool.h; ++a) {  // columns that no window covers
          T* row = image + (r * up.pool.h + a) * v.ow * channels;
          std::fill(row + cols * up.pool.w * channels, row + v.ow * channels, T(0));
        }
      }
      std::fill(image + rows * up.pool.h * v.ow * channels, image + v.positions() * channels, T(0));
    }
  });
  return whole && !y ? g : buffer;
}

template void add_bias(std::int64_t, std::int64_t, const float*, bool, float*);
template void add_bias(std::int64_t, std::int64_t, const double*, bool, double*);
template void pool_block(const Window&, std::int64_t, std::int64_t, const Tail<float>&, const float*, float*, std::uint8_t*);
template void pool_block(const Window&, std::int64_t, std::int64_t, const Tail<double>&, const double*, double*, std::uint8_t*);
template const float* tail_gradient(const Window&, std::int64_t, const Upstream<float>&, std::int64_t, std::int64_t, float*, float*);
template const double* tail_gradient(const Window&, std::int64_t, const Upstream<double>&, std::int64_t, std::int64_t, double*, double*);

}  // namespace ebb::detail
