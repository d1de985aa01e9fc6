#include <ebb/ops/kernels/direct.h>

#include <algorithm>

#include <ebb/ops/kernels/copy.h>
#include <ebb/ops/kernels/tile.h>

namespace ebb::detail {

bool Direct::suits(const Convolution<float>& c) {
  const Window& v = c.v;
  if (v.dw != 1 || c.out <= 0 || c.out % Product::lanes != 0 || v.c <= 0) return false;
  return c.pass != Pass::image_gradient || (v.c % Product::lanes == 0 && v.dh == 1);
}

Direct::Direct(const Convolution<float>& convolution) : c(convolution), v(c.v) {
  v.h = std::max(v.h + v.top, (v.oh - 1) * v.sh + v.dh * (v.kh - 1) + 1);  // what no window reaches is left out
  v.w = std::max(v.w + v.left, (v.ow - 1) * v.sw + v.kw);
  pads = v.h != c.v.h || v.w != c.v.w;
  if (c.pass != Pass::image_gradient) return;
  turned = Tensor::workspace({c.kernel_size()}, f32);
  transpose_each(turned.mutable_values<float>().data(), c.k, v.kh * v.kw, v.c, c.out);
}

/// One padded image of zeros: padded() leaves those around the image as they are.
Scratch<float> Direct::scratch(std::int64_t) const {
  Scratch<float> zeros(pads ? v.image_size() : 0);
  std::fill_n(zeros.data, zeros.memory.numel(), 0.f);
  return zeros;
}

/// The image of a piece with its padding; copied when its first rows are asked for.
const float* Direct::padded(const Piece& p, float* scratch) const {
  const Window& w = c.v;
  const float* image = c.x + p.begin * w.image_size();
  if (!pads) return image;
  if (p.first == 0)
    for (std::int64_t y = 0; y < w.h; ++y)
      std::copy_n(image + y * w.w * w.c, w.w * w.c, scratch + ((y + v.top) * v.w + v.left) * v.c);
  return scratch;
}

void Direct::forward(const Piece& p, const float* bias, bool relu, float* y, float* scratch) {
  const float* image = padded(p, scratch);
  for (std::int64_t oy = p.first; oy < p.last; ++oy, y += v.ow * c.out)
    multiply({.m = v.ow,
              .n = c.out,
              .outer = v.kh,
              .inner = v.kw * v.c,
              .a = image + oy * v.sh * v.w * v.c,
              .a_row = v.sw * v.c,
              .a_outer = v.dh * v.w * v.c,
              .a_inner = 1,
              .b = c.k,
              .b_outer = v.kw * v.c * c.out,
              .b_inner = c.out,
              .c = y,
              .c_row = c.out,
              .bias = bias,
              .relu = relu});
}

bool Direct::backward(const Piece& p, const float* dy, float* dx, float* sums, bool add, float* scratch) {
  if (sums) {
    const float* image = padded(p, scratch);
    for (std::int64_t ky = 0; ky < v.kh; ++ky)
      multiply({.m = v.kw * v.c,
                .n = c.out,
                .outer = p.last - p.first,
                .inner = v.ow,
                .a = image + (p.first * v.sh + ky * v.dh) * v.w * v.c,
                .a_row = 1,
                .a_outer = v.sh * v.w * v.c,
                .a_inner = v.sw * v.c,
                .b = dy,
                .b_outer = v.ow * c.out,
                .b_inner = c.out,
                .c = sums + ky * v.kw * v.c * c.out,
                .c_row = c.out,
                .add = add});
  }
  if (dx) image_gradient(dy, dx + p.begin * c.v.image_size());
  return true;
}

/// Each row of the image adds up, for each column of the window, the rows of dy that it went into.
void Direct::image_gradient(const float* dy, float* dx) const {
  const Window& w = c.v;  // without padding
  const std::int64_t out = c.out;
  const float* k = turned.values<float>().data();
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

bool Direct::kernel_gradient(std::int64_t parts, const float* sums, float* dk) const {
  add_parts(c.kernel_size(), parts, sums, dk);
  return true;
}

}  // namespace ebb::detail
