#include <ebb/models/data/augment.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/loops.h>

namespace ebb {
namespace {

/// Weights of the uniform cubic B-spline: row i holds what each of the knots, `spacing` apart, gives to pixel
/// i.
struct Spline {
  std::int64_t pixels, knots;
  std::vector<double> weight;  // (pixels, knots)

  Spline(std::int64_t n, double spacing)
      : pixels(n),
        knots(static_cast<std::int64_t>(std::floor(static_cast<double>(n - 1) / spacing)) + 4),
        weight(static_cast<std::size_t>(pixels * knots)) {
    for (std::int64_t i = 0; i < pixels; ++i) {
      const double at = static_cast<double>(i) / spacing, t = at - std::floor(at), u = 1 - t;
      double* w = weight.data() + i * knots + static_cast<std::int64_t>(std::floor(at));
      w[0] = u * u * u / 6;
      w[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
      w[2] = (3 * u * u * u - 6 * u * u + 4) / 6;
      w[3] = t * t * t / 6;
    }
  }
};

/// The spline through a grid of (rows.knots, columns.knots) displacements, at every pixel.
void displace(const Spline& rows, const Spline& columns, const double* grid, std::vector<double>& half,
              std::vector<double>& out) {
  std::fill(half.begin(), half.end(), 0.0);
  std::fill(out.begin(), out.end(), 0.0);
  const std::int64_t w = columns.pixels;
  for (std::int64_t a = 0; a < rows.knots; ++a)
    for (std::int64_t x = 0; x < w; ++x)
      for (std::int64_t b = 0; b < columns.knots; ++b)
        half[static_cast<std::size_t>(a * w + x)] +=
            grid[a * columns.knots + b] * columns.weight[static_cast<std::size_t>(x * columns.knots + b)];
  for (std::int64_t y = 0; y < rows.pixels; ++y)
    for (std::int64_t a = 0; a < rows.knots; ++a) {
      const double k = rows.weight[static_cast<std::size_t>(y * rows.knots + a)];
      if (k == 0) continue;
      for (std::int64_t x = 0; x < w; ++x)
        out[static_cast<std::size_t>(y * w + x)] += k * half[static_cast<std::size_t>(a * w + x)];
    }
}

/// to = the pixel of `from` at (y, x), between its four neighbors; zero outside.
template <class T>
void sample(const T* from, std::int64_t h, std::int64_t w, std::int64_t c, double y, double x, T* to) {
  const double fy = std::floor(y), fx = std::floor(x);
  if (!(fy >= -1 && fx >= -1 && fy < static_cast<double>(h) && fx < static_cast<double>(w))) {
    std::fill(to, to + c, T(0));
    return;
  }
  const auto y0 = static_cast<std::int64_t>(fy), x0 = static_cast<std::int64_t>(fx);
  const T dy = static_cast<T>(y - fy), dx = static_cast<T>(x - fx);
  for (std::int64_t k = 0; k < c; ++k) {
    const auto at = [&](std::int64_t j, std::int64_t i) {
      return j < 0 || i < 0 || j >= h || i >= w ? T(0) : from[(j * w + i) * c + k];
    };
    const T top = at(y0, x0) * (1 - dx) + at(y0, x0 + 1) * dx,
            bottom = at(y0 + 1, x0) * (1 - dx) + at(y0 + 1, x0 + 1) * dx;
    to[k] = top * (1 - dy) + bottom * dy;
  }
}

}  // namespace

Augment::Augment(AugmentOptions o) : options_(o) {
  const auto expect = [](bool ok, const char* rule, double value) {
    if (!ok) throw ValueError(fmt::format("augment: {}, got {}", rule, value));
  };
  for (const double v : {o.shift, o.rotate, o.scale, o.shear, o.elastic})
    expect(v >= 0 && std::isfinite(v), "amounts must be finite and not negative", v);
  expect(o.scale < 1, "scale must be below 1", o.scale);
  expect(o.knots >= 1 && std::isfinite(o.knots), "knots must be at least 1 pixel apart", o.knots);
}

Tensor Augment::operator()(const Tensor& images, Generator& generator) const {
  const Shape& s = images.shape();
  if (s.rank() != 4) fail<ShapeError>("augment", fmt::format("needs an image batch (n, h, w, c), got {}", s.str()));
  if (!is_float(images.dtype()))
    fail<DTypeError>("augment", fmt::format("needs float32 or float64, got {}", name_of(images.dtype())));
  const std::int64_t n = s[0], h = s[1], w = s[2], c = s[3];
  Tensor out = Tensor::empty(s, images.dtype());
  if (out.numel() == 0) return out;
  const Spline rows(h, options_.knots), columns(w, options_.knots);
  const std::int64_t grid = rows.knots * columns.knots;
  // All that is random is drawn before the loop, so that the result does not depend on how images go to
  // threads.
  const Tensor amounts = uniform({n, 6}, -1, 1, f64, generator);
  const Tensor grids = options_.elastic > 0 ? normal({n, 2, grid}, 0, options_.elastic, f64, generator) : Tensor();
  const double* u = amounts.values<double>().data();
  const double* knots = grids.defined() ? grids.values<double>().data() : nullptr;
  const double middle_y = static_cast<double>(h - 1) / 2, middle_x = static_cast<double>(w - 1) / 2;
  visit_float(images.dtype(), [&]<class T>(T) {
    const T* from = images.values<T>().data();
    T* to = out.mutable_values<T>().data();
    detail::parallel_for(n, 8, [&](std::int64_t begin, std::int64_t end) {
      std::vector<double> half(static_cast<std::size_t>(rows.knots * w)), move_y(static_cast<std::size_t>(h * w)),
          move_x(move_y);
      for (std::int64_t i = begin; i < end; ++i) {
        const double* a = u + 6 * i;
        const double angle = a[2] * options_.rotate * std::numbers::pi / 180, shear = a[5] * options_.shear;
        const double sy = 1 + a[3] * options_.scale, sx = 1 + a[4] * options_.scale;
        // where a pixel of the result comes from: turned back, unsheared, resized, moved
        const double yy = std::cos(angle) / sy, yx = std::sin(angle) / sy;
        const double xy = (shear * std::cos(angle) - std::sin(angle)) / sx,
                     xx = (std::cos(angle) + shear * std::sin(angle)) / sx;
        if (knots) {
          displace(rows, columns, knots + 2 * i * grid, half, move_y);
          displace(rows, columns, knots + (2 * i + 1) * grid, half, move_x);
        }
        T* pixel = to + i * h * w * c;
        for (std::int64_t y = 0; y < h; ++y)
          for (std::int64_t x = 0; x < w; ++x, pixel += c) {
            const double v = static_cast<double>(y) - middle_y, z = static_cast<double>(x) - middle_x;
            const auto k = static_cast<std::size_t>(y * w + x);
            sample(from + i * h * w * c, h, w, c, middle_y + yy * v + yx * z + a[0] * options_.shift + move_y[k],
                   middle_x + xy * v + xx * z + a[1] * options_.shift + move_x[k], pixel);
          }
      }
    });
  });
  return out;
}

}  // namespace ebb
