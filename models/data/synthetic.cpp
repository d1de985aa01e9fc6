#include <ebb/models/data/synthetic.h>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include <ebb/graph/error.h>

namespace ebb {
namespace {

constexpr int side = Digits::side;

struct Point {
  float x, y;
};

/// A pen stroke in a box from (0, 0), top left, to (1, 1): a smooth curve through the points, or straight
/// lines.
struct Stroke {
  bool smooth;
  std::vector<Point> points;
};
using Glyph = std::vector<Stroke>;

/// The ways of writing each digit.
const std::array<std::vector<Glyph>, 10>& glyphs() {
  constexpr bool curve = true, lines = false;
  static const std::array<std::vector<Glyph>, 10> all{{
      // 0: round, narrow, not quite closed
      {{{curve, {{.5f, 0}, {.13f, .2f}, {.05f, .55f}, {.25f, .93f}, {.55f, 1}, {.88f, .75f}, {.93f, .35f}, {.5f, 0}}}},
       {{curve, {{.5f, 0}, {.27f, .25f}, {.22f, .7f}, {.45f, 1}, {.7f, .8f}, {.76f, .3f}, {.5f, 0}}}},
       {{curve,
         {{.62f, .06f}, {.3f, .08f}, {.06f, .45f}, {.2f, .92f}, {.6f, .97f}, {.92f, .6f}, {.8f, .15f}, {.48f, .02f}}}}},
      // 1: a bar, with a flag, with flag and base
      {{{lines, {{.5f, 0}, {.5f, 1}}}},
       {{lines, {{.25f, .24f}, {.55f, 0}, {.55f, 1}}}},
       {{lines, {{.28f, .2f}, {.52f, 0}, {.52f, 1}}}, {lines, {{.22f, 1}, {.82f, 1}}}}},
      // 2: plain, with a loop, angular
      {{{curve, {{.1f, .27f}, {.3f, .03f}, {.68f, .03f}, {.85f, .27f}, {.65f, .58f}, {.1f, .98f}}},
        {lines, {{.1f, .98f}, {.93f, .96f}}}},
       {{curve,
         {{.1f, .22f},
          {.4f, 0},
          {.75f, .12f},
          {.72f, .45f},
          {.4f, .85f},
          {.15f, .97f},
          {.1f, .82f},
          {.3f, .78f},
          {.6f, .95f},
          {.95f, .93f}}}},
       {{lines, {{.12f, .12f}, {.55f, 0}, {.8f, .2f}, {.12f, 1}, {.9f, 1}}}}},
      // 3: two bowls, flat top, small upper bowl
      {{{curve, {{.12f, .12f}, {.45f, 0}, {.8f, .2f}, {.62f, .43f}, {.4f, .48f}}},
        {curve, {{.4f, .48f}, {.75f, .55f}, {.88f, .77f}, {.6f, 1}, {.08f, .9f}}}},
       {{lines, {{.12f, .02f}, {.84f, .02f}, {.45f, .4f}}},
        {curve, {{.45f, .4f}, {.82f, .52f}, {.84f, .82f}, {.5f, 1}, {.1f, .9f}}}},
       {{curve, {{.2f, .08f}, {.55f, 0}, {.7f, .18f}, {.55f, .36f}, {.38f, .4f}}},
        {curve, {{.38f, .4f}, {.85f, .48f}, {.9f, .82f}, {.5f, 1}, {.1f, .85f}}}}},
      // 4: open, closed, rounded
      {{{lines, {{.22f, 0}, {.1f, .56f}, {.93f, .54f}}}, {lines, {{.74f, .05f}, {.68f, 1}}}},
       {{lines, {{.7f, 1}, {.7f, 0}, {.06f, .66f}, {.96f, .66f}}}},
       {{curve, {{.18f, .02f}, {.1f, .35f}, {.3f, .54f}, {.65f, .5f}, {.82f, .4f}}}, {lines, {{.84f, 0}, {.76f, 1}}}}},
      // 5: in two strokes, slanted, in one sweep
      {{{lines, {{.9f, 0}, {.25f, .02f}, {.18f, .44f}}},
        {curve, {{.18f, .44f}, {.52f, .36f}, {.88f, .6f}, {.72f, .94f}, {.35f, 1}, {.08f, .88f}}}},
       {{lines, {{.95f, .04f}, {.45f, 0}, {.25f, .42f}}},
        {curve, {{.25f, .42f}, {.65f, .45f}, {.75f, .75f}, {.45f, .98f}, {.05f, .95f}}}},
       {{curve,
         {{.88f, .02f}, {.4f, .02f}, {.2f, .25f}, {.42f, .44f}, {.78f, .58f}, {.78f, .88f}, {.45f, 1}, {.1f, .9f}}}}},
      // 6: with a curved back, a straight back, a wide loop
      {{{curve,
         {{.75f, .03f},
          {.35f, .25f},
          {.13f, .65f},
          {.3f, .97f},
          {.68f, .96f},
          {.85f, .7f},
          {.58f, .5f},
          {.25f, .6f},
          {.14f, .78f}}}},
       {{curve, {{.5f, 0}, {.28f, .35f}, {.17f, .75f}, {.4f, 1}, {.72f, .85f}, {.66f, .6f}, {.38f, .6f}, {.2f, .78f}}}},
       {{curve,
         {{.82f, .1f},
          {.45f, .06f},
          {.1f, .45f},
          {.15f, .88f},
          {.55f, 1},
          {.9f, .8f},
          {.75f, .48f},
          {.35f, .47f},
          {.1f, .68f}}}}},
      // 7: plain, crossed, curved with a serif
      {{{lines, {{.08f, .04f}, {.9f, .02f}, {.42f, 1}}}},
       {{lines, {{.08f, .04f}, {.9f, .02f}, {.42f, 1}}}, {lines, {{.35f, .52f}, {.86f, .48f}}}},
       {{lines, {{.1f, .2f}, {.12f, .04f}, {.88f, .04f}}},
        {curve, {{.88f, .04f}, {.62f, .35f}, {.5f, .7f}, {.48f, 1}}}}},
      // 8: in one stroke, of two rings, open at the top
      {{{curve,
         {{.5f, .47f},
          {.15f, .24f},
          {.48f, 0},
          {.82f, .22f},
          {.5f, .47f},
          {.1f, .77f},
          {.48f, 1},
          {.88f, .76f},
          {.5f, .47f}}}},
       {{curve, {{.5f, 0}, {.24f, .22f}, {.5f, .44f}, {.77f, .22f}, {.5f, 0}}},
        {curve, {{.5f, .44f}, {.1f, .72f}, {.5f, 1}, {.9f, .72f}, {.5f, .44f}}}},
       {{curve,
         {{.85f, .1f},
          {.48f, 0},
          {.2f, .2f},
          {.45f, .46f},
          {.78f, .72f},
          {.5f, 1},
          {.18f, .78f},
          {.5f, .46f},
          {.85f, .1f}}}}},
      // 9: with a straight stem, a curved tail, an open loop
      {{{curve, {{.82f, .22f}, {.5f, 0}, {.15f, .2f}, {.25f, .48f}, {.6f, .48f}, {.82f, .22f}}},
        {lines, {{.82f, .22f}, {.7f, 1}}}},
       {{curve,
         {{.8f, .25f},
          {.5f, 0},
          {.14f, .22f},
          {.28f, .5f},
          {.65f, .46f},
          {.82f, .18f},
          {.85f, .6f},
          {.6f, .97f},
          {.18f, .92f}}}},
       {{curve, {{.8f, .08f}, {.4f, .02f}, {.14f, .28f}, {.35f, .5f}, {.7f, .38f}, {.84f, .1f}}},
        {lines, {{.84f, .1f}, {.8f, .5f}, {.6f, 1}}}}},
  }};
  return all;
}

constexpr std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// splitmix64. The standard library's distributions give other numbers on other systems. Never draw twice
/// within one call's arguments: compilers differ in which they evaluate first.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t part, std::uint64_t index)
      : state_(mix(mix(mix(seed + gap) + (part + 1) * gap) + index * gap)) {}
  std::uint64_t bits() { return mix(state_ += gap); }
  /// 0 <= n < count.
  std::size_t below(std::size_t count) { return static_cast<std::size_t>((bits() >> 32) * count >> 32); }
  /// Even in [low, high).
  float between(float low, float high) { return low + (high - low) * static_cast<float>(bits() >> 40) * 0x1p-24f; }
  /// About normal with mean 0: four 16-bit numbers added up.
  float normal(float deviation) {
    const std::uint64_t b = bits();
    const std::uint64_t sum = (b & 0xffff) + (b >> 16 & 0xffff) + (b >> 32 & 0xffff) + (b >> 48);
    return (static_cast<float>(sum) * 0x1p-16f - 2) * 1.7320508f * deviation;
  }
  bool chance(float probability) { return between(0, 1) < probability; }

 private:
  static constexpr std::uint64_t gap = 0x9e3779b97f4a7c15;
  std::uint64_t state_;
};

/// From the glyph's box to pixels: scale, shear, turn and shift, then an elastic bend.
class Warp {
 public:
  explicit Warp(Random& random) {
    const float width = random.between(10, 16.5f), height = random.between(15, 21);
    const float shear = random.normal(.16f);
    // A turn by twice atan(t), without asking the C library for a sine.
    const float t = random.normal(.075f), c = (1 - t * t) / (1 + t * t), s = 2 * t / (1 + t * t);
    xx_ = c * width;
    xy_ = -c * shear * height - s * height;
    yx_ = s * width;
    yy_ = -s * shear * height + c * height;
    x0_ = 13.5f + random.normal(1.2f);
    y0_ = 13.5f + random.normal(1.f);
    const float bend = random.between(.4f, 1.5f);
    for (Point& p : grid_) p = {random.normal(bend), random.normal(bend)};
  }
  Point operator()(Point p) const {
    const float u = p.x - .5f, v = p.y - .5f;
    const Point q{x0_ + xx_ * u + xy_ * v, y0_ + yx_ * u + yy_ * v};
    const float gx = std::clamp(q.x / cell, 0.f, 2.999f), gy = std::clamp(q.y / cell, 0.f, 2.999f);
    const int i = static_cast<int>(gx), j = static_cast<int>(gy);
    const float a = gx - static_cast<float>(i), b = gy - static_cast<float>(j);
    const Point &p00 = at(i, j), &p10 = at(i + 1, j), &p01 = at(i, j + 1), &p11 = at(i + 1, j + 1);
    return {q.x + (1 - b) * ((1 - a) * p00.x + a * p10.x) + b * ((1 - a) * p01.x + a * p11.x),
            q.y + (1 - b) * ((1 - a) * p00.y + a * p10.y) + b * ((1 - a) * p01.y + a * p11.y)};
  }

 private:
  static constexpr float cell = 9;  // 4 x 4 random shifts, 9 pixels apart, with straight lines between
  const Point& at(int i, int j) const { return grid_[static_cast<std::size_t>(j * 4 + i)]; }
  float xx_, xy_, yx_, yy_, x0_, y0_;
  std::array<Point, 16> grid_;
};

/// Ink from 0 to 1 on each pixel.
class Canvas {
 public:
  /// A line with round ends; where it meets what is there, the darker wins.
  void line(Point a, Point b, float radius, float ink) {
    const float reach = radius + .5f;
    const float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    const float scale = length2 > 0 ? 1 / length2 : 0;
    const int left = first(std::min(a.x, b.x) - reach), right = last(std::max(a.x, b.x) + reach);
    const int top = first(std::min(a.y, b.y) - reach), bottom = last(std::max(a.y, b.y) + reach);
    for (int y = top; y <= bottom; ++y)
      for (int x = left; x <= right; ++x) {
        const float px = static_cast<float>(x) - a.x, py = static_cast<float>(y) - a.y;
        const float along = std::clamp((px * dx + py * dy) * scale, 0.f, 1.f);
        const float ex = px - along * dx, ey = py - along * dy;
        const float cover = std::clamp(reach - std::sqrt(ex * ex + ey * ey), 0.f, 1.f);
        float& pixel = ink_[static_cast<std::size_t>(y * side + x)];
        pixel = std::max(pixel, cover * ink);
      }
  }
  /// Rubs out most of the ink in a disc.
  void rub(Point center, float radius, float left_over) {
    for (int y = first(center.y - radius); y <= last(center.y + radius); ++y)
      for (int x = first(center.x - radius); x <= last(center.x + radius); ++x) {
        const float dx = static_cast<float>(x) - center.x, dy = static_cast<float>(y) - center.y;
        if (dx * dx + dy * dy < radius * radius) ink_[static_cast<std::size_t>(y * side + x)] *= left_over;
      }
  }
  void write(std::span<std::uint8_t> out, float noise, Random& random) const {
    for (std::size_t i = 0; i < Digits::pixels; ++i)
      out[i] = static_cast<std::uint8_t>(std::clamp(ink_[i] + random.normal(noise), 0.f, 1.f) * 255 + .5f);
  }

 private:
  static int first(float v) { return std::max(0, static_cast<int>(std::ceil(v))); }
  static int last(float v) { return std::min(side - 1, static_cast<int>(std::floor(v))); }
  std::array<float, Digits::pixels> ink_{};
};

/// The point at t of the Catmull-Rom curve from b to c; a and d are their neighbors.
Point curve_at(Point a, Point b, Point c, Point d, float t) {
  const auto at = [t](float p, float q, float r, float s) {
    return q + .5f * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
  };
  return {at(a.x, b.x, c.x, d.x), at(a.y, b.y, c.y, d.y)};
}

/// A stroke as a line of points, each drawn a little off its place.
std::vector<Point> trace(const Stroke& stroke, Random& random) {
  std::vector<Point> p = stroke.points;
  for (Point& q : p) q = {q.x + random.normal(.04f), q.y + random.normal(.03f)};
  const std::size_t steps = stroke.smooth ? 5 : 3;  // straight lines are cut too, for the bend
  std::vector<Point> out;
  out.reserve(p.size() * steps);
  for (std::size_t i = 0; i + 1 < p.size(); ++i)
    for (std::size_t k = 0; k < steps; ++k) {
      const float t = static_cast<float>(k) / static_cast<float>(steps);
      if (stroke.smooth) out.push_back(curve_at(p[i ? i - 1 : 0], p[i], p[i + 1], p[std::min(i + 2, p.size() - 1)], t));
      else out.push_back({p[i].x + t * (p[i + 1].x - p[i].x), p[i].y + t * (p[i + 1].y - p[i].y)});
    }
  out.push_back(p.back());
  return out;
}

/// Scratches that belong to no digit, short enough not to make another one of it.
void scratch(Canvas& canvas, Random& random) {
  for (std::size_t n = random.below(3); n > 0; --n) {
    const Point a{random.between(0, side), random.between(0, side)};
    const Point b{a.x + random.normal(2.5f), a.y + random.normal(2.5f)};
    const float radius = random.between(.3f, .9f), ink = random.between(.3f, .9f);
    canvas.line(a, b, radius, ink);
  }
}

std::uint8_t draw(Random random, std::span<std::uint8_t> out) {
  const std::size_t digit = random.below(10);
  const std::vector<Glyph>& styles = glyphs()[digit];
  const Glyph& glyph = styles[random.below(styles.size())];
  const Warp warp(random);
  const float radius = random.between(.6f, 1.6f), ink = random.between(.6f, 1);
  Canvas canvas;
  for (const Stroke& stroke : glyph) {
    const std::vector<Point> points = trace(stroke, random);
    for (std::size_t i = 0; i + 1 < points.size(); ++i) canvas.line(warp(points[i]), warp(points[i + 1]), radius, ink);
  }
  if (random.chance(.3f)) {
    const Point center{random.between(6, 22), random.between(6, 22)};
    const float size = random.between(1.5f, 3), left_over = random.between(0, .4f);
    canvas.rub(center, size, left_over);
  }
  scratch(canvas, random);
  const float noise = random.between(0, .12f);
  canvas.write(out, noise, random);
  return static_cast<std::uint8_t>(digit);
}

Digits generate(std::int64_t count, std::uint64_t seed, std::uint64_t part) {
  Digits digits{Tensor::empty({count, side, side}, DType::u8), Tensor::empty({count}, DType::u8)};
  const auto images = digits.images.mutable_values<std::uint8_t>(),
             labels = digits.labels.mutable_values<std::uint8_t>();
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = draw(Random(seed, part, i), images.subspan(i * Digits::pixels, Digits::pixels));
  return digits;
}

}  // namespace

Mnist synthetic_digits(std::int64_t train, std::int64_t test, std::uint64_t seed) {
  if (train < 0 || test < 0)
    fail<ValueError>("synthetic_digits", fmt::format("counts must not be negative, got {} and {}", train, test));
  return {generate(train, seed, 0), generate(test, seed, 1), "synthetic", fmt::format("generated, seed {}", seed)};
}

}  // namespace ebb
