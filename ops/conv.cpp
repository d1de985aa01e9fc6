// Convolution: patches to rows (im2col), one matmul, and the same block by block so that the rows stay in cache.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include <ebb/graph/apply.h>
#include <ebb/ops/blas.h>
#include <ebb/ops/elementwise.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/window.h>

namespace ebb {
namespace detail {

Window::Window(std::string_view op, const Shape& image, Pair kernel, Pair stride, Padding pad, Pair dilation)
    : kh(kernel.h), kw(kernel.w), sh(stride.h), sw(stride.w), dh(dilation.h), dw(dilation.w), top(pad.top), left(pad.left) {
  if (image.rank() != 4) fail<ShapeError>(op, fmt::format("needs an image batch (n, h, w, c), got {}", image.str()));
  if (kh < 1 || kw < 1 || sh < 1 || sw < 1 || dh < 1 || dw < 1 || pad.top < 0 || pad.left < 0 || pad.bottom < 0 || pad.right < 0)
    fail<ValueError>(op, fmt::format("kernel {}x{}, stride {}x{} and dilation {}x{} must be positive and pads not negative",
                                     kh, kw, sh, sw, dh, dw));
  n = image[0];
  h = image[1];
  w = image[2];
  c = image[3];
  const std::int64_t span_h = dh * (kh - 1) + 1, span_w = dw * (kw - 1) + 1;
  std::int64_t bottom = pad.bottom, right = pad.right;
  if (pad.is_same) {
    const std::int64_t all_h = std::max<std::int64_t>(0, ((h + sh - 1) / sh - 1) * sh + span_h - h);
    const std::int64_t all_w = std::max<std::int64_t>(0, ((w + sw - 1) / sw - 1) * sw + span_w - w);
    top = all_h / 2;
    left = all_w / 2;
    bottom = all_h - top;
    right = all_w - left;
  }
  if (h + top + bottom < span_h || w + left + right < span_w)
    fail<ShapeError>(op, fmt::format("a window of {}x{} does not fit into {} padded to {}x{}", span_h, span_w, image.str(),
                                     h + top + bottom, w + left + right));
  oh = (h + top + bottom - span_h) / sh + 1;
  ow = (w + left + right - span_w) / sw + 1;
}

}  // namespace detail

namespace {

using detail::Window;

/// Copies the patches of images [begin, end) to rows.
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

/// Adds rows back to where they came from: the adjoint of patches_of. The images must hold zeros before.
template <class T>
void add_patches(const Window& v, const T* rows, std::int64_t begin, std::int64_t end, T* x) {
  detail::simd([&]() EBB_INLINE {
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

/// Images to a block, so that its rows fill about half of an L2 cache.
std::int64_t block_images(const Window& v, std::size_t element) {
  const std::int64_t bytes = v.positions() * v.patch() * static_cast<std::int64_t>(element);
  return std::clamp<std::int64_t>((512 << 10) / std::max<std::int64_t>(1, bytes), 1, std::max<std::int64_t>(1, v.n));
}

struct Im2col {
  static constexpr std::string_view name = "im2col";
  Pair kernel;
  Conv2dOptions options;
  Attributes attributes() const { return detail::window_attributes(kernel, options); }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    const Window v(name, x.shape(), kernel, options.stride, options.pad, options.dilation);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.patch()}, x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* from = x.values<T>().data();
      T* to = out.mutable_values<T>().data();
      detail::parallel_for(v.n, block_images(v, sizeof(T)), [&](std::int64_t begin, std::int64_t end) {
        patches_of(v, from, begin, end, to + begin * v.positions() * v.patch());
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Shape& image = s.input_shape(0);
    return col2im(g, {image[1], image[2]}, kernel, options);
  }
};

struct Col2im {
  static constexpr std::string_view name = "col2im";
  Pair image, kernel;
  Conv2dOptions options;
  Tensor forward(const Tensor& rows) const {
    detail::expect_float(name, rows);
    const std::int64_t c = rows.rank() == 4 && kernel.h > 0 && kernel.w > 0 ? rows.shape()[3] / (kernel.h * kernel.w) : 0;
    const Shape to{rows.rank() ? rows.shape()[0] : 0, image.h, image.w, c};
    const Window v(name, to, kernel, options.stride, options.pad, options.dilation);
    if (rows.shape() != Shape{v.n, v.oh, v.ow, v.patch()})
      fail<ShapeError>(name, fmt::format("patches {} do not come from an image of {}x{} by a {}x{} window",
                                         rows.shape().str(), image.h, image.w, kernel.h, kernel.w));
    Tensor out = zeros(to, rows.dtype());
    visit_float(rows.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* from = rows.values<T>().data();
      T* into = out.mutable_values<T>().data();
      detail::parallel_for(v.n, block_images(v, sizeof(T)), [&](std::int64_t begin, std::int64_t end) {
        add_patches(v, from + begin * v.positions() * v.patch(), begin, end, into);
      });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return im2col(g, kernel, options); }
};

// The three convolutions are one trilinear form seen from three sides, so each one's gradients are the other two:
//   conv2d(x, k) -> y,   conv2d_transpose(y, k) -> x,   conv2d_kernel(x, y) -> k.

Window window_of(std::string_view op, const Shape& x, const Shape& k, const Conv2dOptions& o) {
  if (k.rank() != 4) fail<ShapeError>(op, fmt::format("needs a kernel (kh, kw, in, out), got {}", k.str()));
  const Window v(op, x, {k[0], k[1]}, o.stride, o.pad, o.dilation);
  if (v.c != k[2])
    fail<ShapeError>(op, fmt::format("the image has {} channels, the kernel expects {}: {} and {}", v.c, k[2], x.str(), k.str()));
  return v;
}

struct Conv2d {
  static constexpr std::string_view name = "conv2d";
  static constexpr Keeps keeps = Keeps::other_inputs;
  Conv2dOptions options;

  Attributes attributes() const { return detail::window_attributes(0, options); }  // the kernel is an input
  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(out.numel()) * static_cast<double>(in[1]->numel() / std::max<std::int64_t>(1, out[3]));
  }
  Tensor forward(const Tensor& x, const Tensor& k) const {
    detail::expect_float(name, x);
    detail::expect_alike(name, x, k);
    const Window v = window_of(name, x.shape(), k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, out_c}, x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T *px = x.values<T>().data(), *pk = k.values<T>().data();
      T* py = out.mutable_values<T>().data();
      const std::int64_t block = block_images(v, sizeof(T));
      detail::parallel_for(v.n, block, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t rows = (end - begin) * v.positions();
        Tensor scratch = Tensor::empty({rows, v.patch()}, dtype_of<T>());
        T* cols = scratch.mutable_values<T>().data();
        patches_of(v, px, begin, end, cols);
        detail::gemm(false, false, rows, out_c, v.patch(), cols, v.patch(), pk, out_c, T(0),
                     py + begin * v.positions() * out_c, out_c);
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const;
};

struct Conv2dTranspose {
  static constexpr std::string_view name = "conv2d_transpose";
  static constexpr Keeps keeps = Keeps::other_inputs;
  Pair image;
  Conv2dOptions options;

  Attributes attributes() const { return detail::window_attributes(0, options); }
  double flops(std::span<const Shape* const> in, const Shape&) const {
    return 2.0 * static_cast<double>(in[0]->numel()) * static_cast<double>(in[1]->numel() / std::max<std::int64_t>(1, in[1]->at(-1)));
  }
  Tensor forward(const Tensor& g, const Tensor& k) const {
    detail::expect_float(name, g);
    detail::expect_alike(name, g, k);
    const std::int64_t n = g.rank() ? g.shape()[0] : 0, in_c = k.rank() == 4 ? k.shape()[2] : 0;
    const Shape to{n, image.h, image.w, in_c};
    const Window v = window_of(name, to, k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    if (g.shape() != Shape{v.n, v.oh, v.ow, out_c})
      fail<ShapeError>(name, fmt::format("{} is not what a kernel {} makes of an image of {}x{}, which is {}", g.shape().str(),
                                         k.shape().str(), image.h, image.w, Shape{v.n, v.oh, v.ow, out_c}.str()));
    Tensor out = Tensor::empty(to, g.dtype());
    visit_float(g.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T *pg = g.values<T>().data(), *pk = k.values<T>().data();
      T* px = out.mutable_values<T>().data();
      detail::parallel_for(v.n, block_images(v, sizeof(T)), [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t rows = (end - begin) * v.positions();
        Tensor scratch = Tensor::empty({rows, v.patch()}, dtype_of<T>());
        T* cols = scratch.mutable_values<T>().data();
        detail::gemm(false, true, rows, v.patch(), out_c, pg + begin * v.positions() * out_c, out_c, pk, out_c, T(0), cols,
                     v.patch());
        std::fill(px + begin * v.image_size(), px + end * v.image_size(), T(0));
        add_patches(v, cols, begin, end, px);
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const;
};

struct Conv2dKernel {
  static constexpr std::string_view name = "conv2d_kernel";
  static constexpr Keeps keeps = Keeps::other_inputs;
  Pair kernel;
  Conv2dOptions options;

  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(in[1]->numel()) * static_cast<double>(out.numel() / std::max<std::int64_t>(1, out[3]));
  }
  Tensor forward(const Tensor& x, const Tensor& g) const {
    const Window v(name, x.shape(), kernel, options.stride, options.pad, options.dilation);
    const std::int64_t out_c = g.shape()[3];
    Tensor out = zeros({kernel.h, kernel.w, v.c, out_c}, x.dtype());
    visit_float(x.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T *px = x.values<T>().data(), *pg = g.values<T>().data();
      T* pk = out.mutable_values<T>().data();
      // A few groups of images, whatever the number of threads: each adds its blocks up, then the groups are added in order.
      constexpr std::int64_t groups = 4;
      const std::int64_t block = block_images(v, sizeof(T)), blocks = (v.n + block - 1) / block;
      const std::int64_t share = (blocks + groups - 1) / groups * block, size = out.numel();
      const std::int64_t used = share ? (v.n + share - 1) / share : 0;
      Tensor partial = Tensor::empty({used, size}, x.dtype());
      T* parts = partial.mutable_values<T>().data();
      detail::parallel_for(used, 1, [&](std::int64_t group, std::int64_t) {
        const std::int64_t last = std::min(v.n, (group + 1) * share);
        Tensor scratch = Tensor::empty({std::min(block, last) * v.positions(), v.patch()}, dtype_of<T>());
        T* cols = scratch.mutable_values<T>().data();
        for (std::int64_t begin = group * share; begin < last; begin += block) {
          const std::int64_t end = std::min(last, begin + block), rows = (end - begin) * v.positions();
          patches_of(v, px, begin, end, cols);
          detail::gemm(true, false, v.patch(), out_c, rows, cols, v.patch(), pg + begin * v.positions() * out_c, out_c,
                       begin == group * share ? T(0) : T(1), parts + group * size, out_c);
        }
      });
      for (std::int64_t group = 0; group < used; ++group)
        for (std::int64_t j = 0; j < size; ++j) pk[j] += parts[group * size + j];
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    if (i == 1) return conv2d(s.input(0), g, options);
    const Shape& x = s.input_shape(0);
    return conv2d_transpose(s.input(1), g, {x[1], x[2]}, options);
  }
};

Tensor Conv2d::backward(const Saved& s, const Tensor& g, int i) const {
  const Shape &x = s.input_shape(0), &k = s.input_shape(1);
  if (i == 0) return conv2d_transpose(g, s.input(1), {x[1], x[2]}, options);
  return apply(Conv2dKernel{{k[0], k[1]}, options}, s.input(0), g);
}

Tensor Conv2dTranspose::backward(const Saved& s, const Tensor& g, int i) const {
  const Shape& k = s.input_shape(1);
  if (i == 0) return conv2d(g, s.input(1), options);
  return apply(Conv2dKernel{{k[0], k[1]}, options}, g, s.input(0));
}

}  // namespace

Tensor im2col(const Tensor& x, Pair kernel, Conv2dOptions o) { return apply(Im2col{kernel, o}, x); }
Tensor col2im(const Tensor& patches, Pair image, Pair kernel, Conv2dOptions o) {
  return apply(Col2im{image, kernel, o}, patches);
}
Tensor conv2d(const Tensor& x, const Tensor& kernel, Conv2dOptions o) { return apply(Conv2d{o}, x, kernel); }
Tensor conv2d_transpose(const Tensor& g, const Tensor& kernel, Pair image, Conv2dOptions o) {
  return apply(Conv2dTranspose{image, o}, g, kernel);
}

Tensor conv2d_plain(const Tensor& x, const Tensor& kernel, Conv2dOptions o) {
  window_of("conv2d_plain", x.shape(), kernel.shape(), o);
  const Shape& k = kernel.shape();
  return matmul(im2col(x, {k[0], k[1]}, o), reshape(kernel, {k[0] * k[1] * k[2], k[3]}));  // (n, oh, ow, out)
}

}  // namespace ebb
