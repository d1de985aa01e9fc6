// Convolutions as ops; convolve.cpp does the work. conv2d_plain is the definition: patches to rows (im2col), one
// matmul.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include <ebb/graph/batch.h>
#include <ebb/graph/composition.h>
#include <ebb/ops/kernels/convolve.h>
#include <ebb/ops/kernels/elementwise.h>
#include <ebb/ops/kernels/patches.h>
#include <ebb/ops/kernels/window.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/pool.h>
#include <ebb/ops/tangent.h>

namespace ebb {
namespace {

using detail::Window;

struct Im2col {
  static constexpr std::string_view name = "im2col";
  static constexpr Tangent tangents = Tangent::linear;
  Pair kernel;
  Conv2dOptions options;
  Attributes attributes() const { return detail::window_attributes(kernel, options); }
  Tensor forward(const Tensor& x) const {
    detail::expect_float(name, x);
    const Window v(name, x.shape(), kernel, options.stride, options.pad, options.dilation);
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, v.patch()}, x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      const T* from = x.values<T>().data();
      T* to = out.mutable_values<T>().data();
      detail::parallel_for(v.n, detail::block_of_patches<T>(v), [&](std::int64_t begin, std::int64_t end) {
        detail::patches_of(v, from, begin, end, to + begin * v.positions() * v.patch());
      });
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Shape& image = s.input_shape(0);
    return col2im(g, {image[1], image[2]}, kernel, options);
  }
  Tensor batched(const Tensor& x) const { return detail::run_merged(*this, x); }
};

struct Col2im {
  static constexpr std::string_view name = "col2im";
  static constexpr Tangent tangents = Tangent::linear;
  Pair image, kernel;
  Conv2dOptions options;
  Tensor forward(const Tensor& rows) const {
    detail::expect_float(name, rows);
    const std::int64_t c =
        rows.rank() == 4 && kernel.h > 0 && kernel.w > 0 ? rows.shape()[3] / (kernel.h * kernel.w) : 0;
    const Shape to{rows.rank() ? rows.shape()[0] : 0, image.h, image.w, c};
    const Window v(name, to, kernel, options.stride, options.pad, options.dilation);
    if (rows.shape() != Shape{v.n, v.oh, v.ow, v.patch()})
      fail<ShapeError>(name, fmt::format("patches {} do not come from an image of {}x{} by a {}x{} window",
                                         rows.shape().str(), image.h, image.w, kernel.h, kernel.w));
    Tensor out = zeros(to, rows.dtype());
    visit_float(rows.dtype(), [&]<class T>(T) {
      const T* from = rows.values<T>().data();
      T* into = out.mutable_values<T>().data();
      detail::parallel_for(v.n, detail::block_of_patches<T>(v), [&](std::int64_t begin, std::int64_t end) {
        detail::add_patches(v, from + begin * v.positions() * v.patch(), begin, end, into);
      });
    });
    return out;
  }
  Tensor backward(const Saved&, const Tensor& g) const { return im2col(g, kernel, options); }
  Tensor batched(const Tensor& rows) const { return detail::run_merged(*this, rows); }
};

// The three convolutions are one trilinear form seen from three sides, so each one's gradients are the other two:
//   conv2d(x, k) -> y,   conv2d_transpose(y, k) -> x,   conv2d_kernel(x, y) -> k.

Window window_of(std::string_view op, const Shape& x, const Shape& k, const Conv2dOptions& o) {
  if (k.rank() != 4) fail<ShapeError>(op, fmt::format("needs a kernel (kh, kw, in, out), got {}", k.str()));
  const Window v(op, x, {k[0], k[1]}, o.stride, o.pad, o.dilation);
  if (v.c != k[2])
    fail<ShapeError>(
        op, fmt::format("the image has {} channels, the kernel expects {}: {} and {}", v.c, k[2], x.str(), k.str()));
  return v;
}

struct Conv2d {
  static constexpr std::string_view name = "conv2d";
  static constexpr Tangent tangents = Tangent::multilinear;
  static constexpr Keeps keeps = Keeps::other_inputs;
  Conv2dOptions options;

  Attributes attributes() const { return detail::window_attributes(0, options); }  // the kernel is an input
  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(out.numel()) *
           static_cast<double>(in[1]->numel() / std::max<std::int64_t>(1, out[3]));
  }
  Tensor forward(const Tensor& x, const Tensor& k) const {
    detail::expect_float(name, x);
    detail::expect_alike(name, x, k);
    const Window v = window_of(name, x.shape(), k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    Tensor out = Tensor::empty({v.n, v.oh, v.ow, out_c}, x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      detail::convolve<T>(v, out_c, x.values<T>().data(), k.values<T>().data(), {}, out.mutable_values<T>().data());
    });
    return out;
  }
  Tensor batched(const Tensor& x, const Tensor& k) const {
    return detail::batched(k) ? conv2d_plain(x, k, options) : detail::run_merged(*this, x, k);
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const;
};

struct Conv2dTranspose {
  static constexpr std::string_view name = "conv2d_transpose";
  static constexpr Tangent tangents = Tangent::multilinear;
  static constexpr Keeps keeps = Keeps::other_inputs;
  Pair image;
  Conv2dOptions options;

  Attributes attributes() const { return detail::window_attributes(0, options); }
  double flops(std::span<const Shape* const> in, const Shape&) const {
    return 2.0 * static_cast<double>(in[0]->numel()) *
           static_cast<double>(in[1]->numel() / std::max<std::int64_t>(1, in[1]->at(-1)));
  }
  Tensor forward(const Tensor& g, const Tensor& k) const {
    detail::expect_float(name, g);
    detail::expect_alike(name, g, k);
    const std::int64_t n = g.rank() ? g.shape()[0] : 0, in_c = k.rank() == 4 ? k.shape()[2] : 0;
    const Shape to{n, image.h, image.w, in_c};
    const Window v = window_of(name, to, k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    if (g.shape() != Shape{v.n, v.oh, v.ow, out_c})
      fail<ShapeError>(
          name, fmt::format("{} is not what a kernel {} makes of an image of {}x{}, which is {}", g.shape().str(),
                            k.shape().str(), image.h, image.w, Shape{v.n, v.oh, v.ow, out_c}.str()));
    Tensor out = Tensor::empty(to, g.dtype());
    visit_float(g.dtype(), [&]<class T>(T) {
      detail::convolve_back<T>(v, out_c, nullptr, k.values<T>().data(), {.g = g.values<T>().data()},
                               out.mutable_values<T>().data(), nullptr, nullptr);
    });
    return out;
  }
  Tensor batched(const Tensor& g, const Tensor& k) const {
    if (!detail::batched(k)) return detail::run_merged(*this, g, k);
    const Shape& s = k.shape();
    return col2im(matmul(g, reshape(k, {s[0] * s[1] * s[2], s[3]}), {.transpose_b = true}), image, {s[0], s[1]},
                  options);
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const;
};

struct Conv2dKernel {
  static constexpr std::string_view name = "conv2d_kernel";
  static constexpr Keeps keeps = Keeps::other_inputs;
  Pair kernel;
  Conv2dOptions options;

  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(in[1]->numel()) *
           static_cast<double>(out.numel() / std::max<std::int64_t>(1, out[3]));
  }
  Tensor forward(const Tensor& x, const Tensor& g) const {
    const Window v(name, x.shape(), kernel, options.stride, options.pad, options.dilation);
    const std::int64_t out_c = g.shape()[3];
    Tensor out = Tensor::empty({kernel.h, kernel.w, v.c, out_c}, x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      detail::convolve_back<T>(v, out_c, x.values<T>().data(), nullptr, {.g = g.values<T>().data()}, nullptr,
                               out.mutable_values<T>().data(), nullptr);
    });
    return out;
  }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    if (i == 1) return conv2d(s.input(0), g, options);
    const Shape& x = s.input_shape(0);
    return conv2d_transpose(s.input(1), g, {x[1], x[2]}, options);
  }
  Tensor batched(const Tensor& x, const Tensor& g) const {
    const Tensor patches = im2col(x, kernel, options);
    return reshape(matmul(rows(patches), rows(g), {.transpose_a = true}), {kernel.h, kernel.w, x.size(3), g.size(3)});
  }
  static Tensor rows(const Tensor& t) { return reshape(t, {t.shape().without(3).numel(), t.size(3)}); }
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

/// conv2d, bias, relu and a max-pool of windows side by side. The largest element commutes with relu, so relu comes
/// last.
struct Conv2dRelu {
  static constexpr std::string_view name = "conv2d_relu";
  static constexpr Keeps keeps = Keeps::inputs_and_output;
  Conv2dOptions options;
  Pair pool;
  bool recorded = false;
  Tensor choice = {};  // of the pool's elements, if recorded
  const Tensor& state() const { return choice; }
  Attributes attributes() const {
    Attributes a = detail::window_attributes(0, options);  // the kernel is an input
    a.push_back({"pool", std::vector<std::int64_t>{pool.h, pool.w}});
    return a;
  }

  bool pools() const { return pool.h != 1 || pool.w != 1; }
  double flops(std::span<const Shape* const> in, const Shape& out) const {
    return 2.0 * static_cast<double>(out.numel() * pool.h * pool.w) *
           static_cast<double>(in[1]->numel() / std::max<std::int64_t>(1, out[3]));
  }
  Tensor forward(const Tensor& x, const Tensor& k, const Tensor& bias) {
    detail::expect_float(name, x);
    detail::expect_alike(name, x, k);
    detail::expect_alike(name, x, bias);
    const Window v = window_of(Conv2d::name, x.shape(), k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    if (bias.shape() != Shape{out_c})
      fail<ShapeError>(name, fmt::format("the bias {} is not one number for each of the {} channels out",
                                         bias.shape().str(), out_c));
    if (pool.h < 1 || pool.w < 1 || pool.h * pool.w > 255)
      fail<ValueError>(name, fmt::format("a pool of 1 to 255 elements, got {}x{}", pool.h, pool.w));
    if (v.oh < pool.h || v.ow < pool.w)
      fail<ShapeError>(name, fmt::format("a pool of {}x{} does not fit into {}x{}", pool.h, pool.w, v.oh, v.ow));
    Tensor out = Tensor::empty({v.n, v.oh / pool.h, v.ow / pool.w, out_c}, x.dtype());
    if (recorded && pools()) choice = Tensor::empty(out.shape(), u8);
    visit_float(x.dtype(), [&]<class T>(T) {
      detail::convolve<T>(v, out_c, x.values<T>().data(), k.values<T>().data(),
                          {bias.values<T>().data(), true, pool,
                           choice.defined() ? choice.mutable_values<std::uint8_t>().data() : nullptr},
                          out.mutable_values<T>().data());
    });
    return out;
  }
  std::array<Tensor, 3> backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), k = s.input(1), y = s.output().detach();
    const Window v = window_of(Conv2d::name, x.shape(), k.shape(), options);
    const std::int64_t out_c = k.shape()[3];
    Tensor dy = where(greater(y, 0.0), g, zeros(g.shape(), g.dtype()));
    if (pools()) dy = detail::max_unpool2d(dy, choice, {.size = pool}, {v.n, v.oh, v.ow, out_c});
    return {s.wants(0) ? conv2d_transpose(dy, k, {v.h, v.w}, options) : Tensor(),
            s.wants(1) ? apply(Conv2dKernel{{v.kh, v.kw}, options}, x, dy) : Tensor(),
            s.wants(2) ? sum(dy, {0, 1, 2}) : Tensor()};
  }
  std::array<Tensor, 3> fast_backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), k = s.input(1), y = s.output();
    const Window v = window_of(Conv2d::name, x.shape(), k.shape(), options);
    std::array<Tensor, 3> out;
    for (int i = 0; i < 3; ++i)
      if (s.wants(i)) out[static_cast<std::size_t>(i)] = Tensor::empty(s.input_shape(i), x.dtype());
    visit_float(x.dtype(), [&]<class T>(T) {
      const auto to = [&](std::size_t i) { return out[i].defined() ? out[i].mutable_values<T>().data() : nullptr; };
      detail::convolve_back<T>(v, k.shape()[3], x.values<T>().data(), k.values<T>().data(),
                               {g.values<T>().data(), y.values<T>().data(), pool,
                                choice.defined() ? choice.values<std::uint8_t>().data() : nullptr},
                               to(0), to(1), to(2));
    });
    return out;
  }
  /// One convolution for each of image and kernel that moves, where the transpose of backward takes two.
  Tensor tangent(const Saved& s, std::span<const Tensor> t) const {
    const auto product = [](const void* op, const Tensor& a, const Tensor& b) {
      return conv2d(a, b, static_cast<const Conv2dRelu*>(op)->options);
    };
    const auto chosen = [](const void* op, const Tensor& d) {  // the bias is the same for all of a pool
      const auto& self = *static_cast<const Conv2dRelu*>(op);
      return self.pools() ? detail::max_repool2d(d, self.choice, {.size = self.pool}) : d;
    };
    return detail::relu_grad(detail::tangent_of_layer(s, t, this, product, chosen), s.output());
  }
  Tensor batched(const Tensor& x, const Tensor& k, const Tensor& bias) {
    if (detail::batched(k) || detail::batched(bias)) {
      const Tensor y = relu(conv2d(x, k, options) + bias);
      return pools() ? detail::max_pool2d_batched(y, {.size = pool}, recorded ? &choice : nullptr) : y;
    }
    const Tensor y = detail::run_merged(*this, x, k, bias);
    if (choice.defined()) choice = detail::apart(detail::unmerged(choice, detail::mode.batch), detail::mode.batch);
    return y;
  }
};

}  // namespace

Tensor im2col(const Tensor& x, Pair kernel, Conv2dOptions o) { return apply(Im2col{kernel, o}, x); }
Tensor col2im(const Tensor& patches, Pair image, Pair kernel, Conv2dOptions o) {
  return apply(Col2im{image, kernel, o}, patches);
}
Tensor conv2d(const Tensor& x, const Tensor& kernel, Conv2dOptions o) { return apply(Conv2d{o}, x, kernel); }
Tensor conv2d_relu(const Tensor& x, const Tensor& kernel, const Tensor& bias, Conv2dOptions o, Pair pool) {
  return apply(Conv2dRelu{o, pool}, x, kernel, bias);
}
Tensor conv2d_transpose(const Tensor& g, const Tensor& kernel, Pair image, Conv2dOptions o) {
  return apply(Conv2dTranspose{image, o}, g, kernel);
}

Tensor conv2d_plain(const Tensor& x, const Tensor& kernel, Conv2dOptions o) {
  window_of("conv2d_plain", x.shape(), kernel.shape(), o);
  const Shape& k = kernel.shape();
  Composition whole("conv2d_plain");
  return whole.gives(matmul(im2col(x, {k[0], k[1]}, o), reshape(kernel, {k[0] * k[1] * k[2], k[3]})), {&x, &kernel},
                     [&] { return detail::window_attributes(0, o); });
}

}  // namespace ebb
