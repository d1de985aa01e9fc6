#include <ebb/ops/kernels/patches.h>

#include <algorithm>
#include <cstring>

#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/kernels/loops.h>

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

template <class T>
void Patches<T>::forward(const Piece& p, const T* bias, bool relu, T* y, T* cols) {
  const Window& v = c.v;
  const std::int64_t rows = (p.end - p.begin) * v.positions();
  patches_of(v, c.x, p.begin, p.end, cols);
  gemm(false, false, rows, c.out, v.patch(), cols, v.patch(), c.k, c.out, T(0), y, c.out);
  add_bias(rows, c.out, bias, relu, y);
}

template <class T>
bool Patches<T>::backward(const Piece& p, const T* dy, T* dx, T* sums, bool add, T* cols) {
  const Window& v = c.v;
  const std::int64_t rows = (p.end - p.begin) * v.positions();
  if (sums) {
    patches_of(v, c.x, p.begin, p.end, cols);
    gemm(true, false, v.patch(), c.out, rows, cols, v.patch(), dy, c.out, add ? T(1) : T(0), sums, c.out);
  }
  if (!dx) return true;
  gemm(false, true, rows, v.patch(), c.out, dy, c.out, c.k, c.out, T(0), cols, v.patch());
  std::fill(dx + p.begin * v.image_size(), dx + p.end * v.image_size(), T(0));
  add_patches(v, cols, p.begin, p.end, dx);
  return true;
}

template <class T>
bool Patches<T>::kernel_gradient(std::int64_t parts, const T* sums, T* dk) const {
  add_parts(c.kernel_size(), parts, sums, dk);
  return true;
}

template void patches_of(const Window&, const float*, std::int64_t, std::int64_t, float*);
template void patches_of(const Window&, const double*, std::int64_t, std::int64_t, double*);
template void add_patches(const Window&, const float*, std::int64_t, std::int64_t, float*);
template void add_patches(const Window&, const double*, std::int64_t, std::int64_t, double*);
template struct Patches<float>;
template struct Patches<double>;

}  // namespace ebb::detail
