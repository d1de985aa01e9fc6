// Ops against independent loops and literals: layout, products, images, indices.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "op_table.h"
#include "restore.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

using Index = std::int64_t;

/// Element (i, j, k, l) of a tensor of rank 4, or 0 outside of it.
double at4(const Tensor& x, Index i, Index j, Index k, Index l) {
  if (j < 0 || j >= x.size(1) || k < 0 || k >= x.size(2)) return 0;
  return x.values<double>()[static_cast<std::size_t>(((i * x.size(1) + j) * x.size(2) + k) * x.size(3) + l)];
}

double dot(const Tensor& a, const Tensor& b) { return sum(a * b).item(); }

/// Top and left padding of "same", written down again.
Index same_before(Index size, Index kernel, Index stride, Index dilation) {
  const Index out = (size + stride - 1) / stride, span = (kernel - 1) * dilation + 1;
  return std::max<Index>(0, (out - 1) * stride + span - size) / 2;
}

struct ConvSetting {
  Shape image, kernel;
  Conv2dOptions options;
};
std::vector<ConvSetting> conv_settings() {
  return {{{2, 5, 6, 3}, {3, 2, 3, 2}, {}},
          {{1, 7, 8, 2}, {3, 3, 2, 3}, {.stride = {2, 3}, .pad = 1}},
          {{1, 7, 6, 1}, {2, 3, 1, 2}, {.stride = 2, .pad = Padding::same()}},
          {{1, 9, 8, 2}, {3, 2, 2, 1}, {.pad = Pair{2, 1}, .dilation = {2, 3}}},
          {{2, 5, 5, 1}, {3, 3, 1, 1}, {.stride = 3, .pad = Padding::same(), .dilation = 2}},
          {{1, 1, 1, 1}, {1, 1, 1, 1}, {}}};
}

}  // namespace

TEST_CASE("values: transpose against the index formula") {
  const Tensor x = randn({2, 3, 4, 5}, f64);
  const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 3, 1, 2}, {1, 0, 3, 2}, {2, 3, 0, 1}};
  for (const auto& p : orders) {
    const Tensor y = transpose(x, {p[0], p[1], p[2], p[3]});
    for (int i = 0; i < 4; ++i) REQUIRE(y.size(i) == x.size(p[i]));
    Index out[4], in[4];
    for (out[0] = 0; out[0] < y.size(0); ++out[0])
      for (out[1] = 0; out[1] < y.size(1); ++out[1])
        for (out[2] = 0; out[2] < y.size(2); ++out[2])
          for (out[3] = 0; out[3] < y.size(3); ++out[3]) {
            for (int i = 0; i < 4; ++i) in[p[i]] = out[i];
            CHECK(at4(y, out[0], out[1], out[2], out[3]) == at4(x, in[0], in[1], in[2], in[3]));
          }
  }
  CHECK(transpose(tensor({1, 2, 3, 4, 5, 6}, {2, 3}, i64)).to_vector() == std::vector<double>{1, 4, 2, 5, 3, 6});
}

TEST_CASE("values: slice, pad, concat, stack, reshape, broadcast_to") {
  const Tensor x = reshape(arange(12, f64), {3, 4});
  using V = std::vector<double>;
  CHECK(slice(x, {.begin = 1, .end = 2}).to_vector() == V{4, 5, 6, 7});
  CHECK(slice(x, {.axis = 1, .begin = -2}).to_vector() == V{2, 3, 6, 7, 10, 11});
  CHECK(slice(x, {.axis = 1, .begin = 1, .step = 2}).to_vector() == V{1, 3, 5, 7, 9, 11});
  CHECK(slice(x, {.axis = -1, .begin = 0, .end = 100, .step = 3}).to_vector() == V{0, 3, 4, 7, 8, 11});
  CHECK(slice(x, {.begin = 2, .end = 1}).shape() == Shape{0, 4});
  CHECK(pad(tensor({1, 2}), {.before = 1, .after = 2}).to_vector() == V{0, 1, 2, 0, 0});
  CHECK(pad(tensor({1, 2}, {2, 1}), {.axis = 1, .before = 1}).to_vector() == V{0, 1, 0, 2});
  CHECK(concat({x, x}).shape() == Shape{6, 4});
  CHECK(concat({tensor({1, 2}, {2, 1}), tensor({3, 4, 5, 6}, {2, 2})}, 1).to_vector() == V{1, 3, 4, 2, 5, 6});
  CHECK(concat({tensor({1}, u8), tensor({2}, u8)}).dtype() == u8);
  CHECK(stack(std::vector{tensor({1, 2}), tensor({3, 4})}).to_vector() == V{1, 2, 3, 4});
  CHECK(stack(std::vector{tensor({1, 2}), tensor({3, 4})}, -1).to_vector() == V{1, 3, 2, 4});
  CHECK(reshape(x, {-1, 6}).shape() == Shape{2, 6});
  CHECK(reshape(zeros({0, 3}), {-1, 3}).shape() == Shape{0, 3});
  CHECK(flatten(zeros({2, 3, 4})).shape() == Shape{2, 12});
  CHECK(broadcast_to(tensor({1, 2}, {2, 1}), {2, 2, 3}).to_vector() == V{1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2});
}

TEST_CASE("values: matmul with all transpose flags and batches against three loops") {
  const std::pair<Shape, Shape> batches[] = {{{}, {}},  {{2}, {2}},          {{3, 1}, {2}}, {{}, {4}},
                                             {{4}, {}}, {{2, 1, 2}, {3, 1}}, {{0}, {}}};
  const Index m = 3, k = 4, n = 2;
  for (const auto& [ba, bb] : batches)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        const Tensor a = randn(ba.inserted(ba.rank(), ta ? k : m).inserted(ba.rank() + 1, ta ? m : k), f64);
        const Tensor b = randn(bb.inserted(bb.rank(), tb ? n : k).inserted(bb.rank() + 1, tb ? k : n), f64);
        const Tensor y = matmul(a, b, {ta, tb});
        const Shape batch = broadcast(ba, bb, "test");
        REQUIRE(y.shape() == batch.inserted(batch.rank(), m).inserted(batch.rank() + 1, n));
        // batches of indices through broadcast_to, which has its own test
        const Shape flat{batch.numel()};
        const std::vector<double> ia =
            reshape(broadcast_to(reshape(arange(ba.numel(), f64), ba), batch), flat).to_vector();
        const std::vector<double> ib =
            reshape(broadcast_to(reshape(arange(bb.numel(), f64), bb), batch), flat).to_vector();
        const auto va = a.values<double>(), vb = b.values<double>(), vy = y.values<double>();
        for (Index p = 0; p < batch.numel(); ++p)
          for (Index r = 0; r < m; ++r)
            for (Index c = 0; c < n; ++c) {
              double total = 0;
              const auto oa = static_cast<Index>(ia[static_cast<std::size_t>(p)]) * m * k,
                         ob = static_cast<Index>(ib[static_cast<std::size_t>(p)]) * k * n;
              for (Index i = 0; i < k; ++i)
                total += va[static_cast<std::size_t>(oa + (ta ? i * m + r : r * k + i))] *
                         vb[static_cast<std::size_t>(ob + (tb ? c * k + i : i * n + c))];
              CHECK(vy[static_cast<std::size_t>((p * m + r) * n + c)] == doctest::Approx(total).epsilon(1e-13));
            }
      }
  CHECK(matmul(zeros({2, 0}), zeros({0, 3})).to_vector() == std::vector<double>(6, 0));
  CHECK(linear(tensor({1, 2}, {1, 2}), tensor({1, 2, 3, 4}, {2, 2}), tensor({10, 20})).to_vector() ==
        std::vector<double>{17, 30});
}

TEST_CASE("values: products in all the ways that they are cut, exact in whole numbers") {
  const Index sizes[][3] = {{7, 5, 3},     {24, 60, 811},   {120, 530, 700}, {300, 60, 90},
                            {60, 300, 90}, {600, 200, 150}, {200, 600, 150}};
  const testing::Threads restore;
  Generator numbers(5);
  for (const auto& [m, n, k] : sizes) {
    CAPTURE(Shape({m, n, k}).str());
    const auto whole = [&](const Shape& shape) { return cast(cast(uniform(shape, -9, 9, f64, numbers), i64), f64); };
    const Tensor a = whole({m, k}), b = whole({k, n}), bias = whole({n});
    std::vector<double> product(static_cast<std::size_t>(m * n), 0);
    const auto va = a.values<double>(), vb = b.values<double>();
    for (Index r = 0; r < m; ++r)
      for (Index i = 0; i < k; ++i)
        for (Index c = 0; c < n; ++c)
          product[static_cast<std::size_t>(r * n + c)] +=
              va[static_cast<std::size_t>(r * k + i)] * vb[static_cast<std::size_t>(i * n + c)];
    std::vector<double> activated = product;
    for (std::size_t i = 0; i < activated.size(); ++i)
      activated[i] = std::max(0.0, activated[i] + bias.values<double>()[i % static_cast<std::size_t>(n)]);
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      for (const DType dtype : {f32, f64}) {
        const Tensor x = cast(a, dtype), y = cast(b, dtype);
        CHECK(matmul(x, y).to_vector() == product);
        CHECK(matmul(transpose(x), y, {.transpose_a = true}).to_vector() == product);
        CHECK(matmul(x, transpose(y), {.transpose_b = true}).to_vector() == product);
        CHECK(matmul(transpose(x), transpose(y), {true, true}).to_vector() == product);
        CHECK(linear(x, y, cast(bias, dtype), relu).to_vector() == activated);
      }
    }
  }
}

TEST_CASE("values: conv2d against seven loops") {
  for (const ConvSetting& s : conv_settings()) {
    CAPTURE(s.image.str());
    const Tensor x = randn(s.image, f64), k = randn(s.kernel, f64), y = conv2d(x, k, s.options);
    const Conv2dOptions& o = s.options;
    const Index top = o.pad.is_same ? same_before(s.image[1], s.kernel[0], o.stride.h, o.dilation.h) : o.pad.top;
    const Index left = o.pad.is_same ? same_before(s.image[2], s.kernel[1], o.stride.w, o.dilation.w) : o.pad.left;
    if (o.pad.is_same)
      CHECK(y.shape() == Shape{s.image[0], (s.image[1] + o.stride.h - 1) / o.stride.h,
                               (s.image[2] + o.stride.w - 1) / o.stride.w, s.kernel[3]});
    for (Index n = 0; n < y.size(0); ++n)
      for (Index i = 0; i < y.size(1); ++i)
        for (Index j = 0; j < y.size(2); ++j)
          for (Index f = 0; f < y.size(3); ++f) {
            double total = 0;
            for (Index a = 0; a < k.size(0); ++a)
              for (Index b = 0; b < k.size(1); ++b)
                for (Index c = 0; c < k.size(2); ++c)
                  total +=
                      at4(x, n, i * o.stride.h - top + a * o.dilation.h, j * o.stride.w - left + b * o.dilation.w, c) *
                      at4(k, a, b, c, f);
            CHECK(at4(y, n, i, j, f) == doctest::Approx(total).epsilon(1e-12));
          }
  }
  CHECK(conv2d(zeros({1, 28, 28, 1}), zeros({3, 3, 1, 8})).shape() == Shape{1, 26, 26, 8});
  CHECK(conv2d(zeros({1, 28, 28, 1}), zeros({3, 3, 1, 8}), {.stride = 2, .pad = Padding::same()}).shape() ==
        Shape{1, 14, 14, 8});
}

TEST_CASE("values: transposed convolution and col2im are adjoints") {
  for (const ConvSetting& s : conv_settings()) {
    CAPTURE(s.image.str());
    const Tensor x = randn(s.image, f64), k = randn(s.kernel, f64), y = conv2d(x, k, s.options),
                 g = randn(y.shape(), f64);
    const Pair image{s.image[1], s.image[2]}, kernel{s.kernel[0], s.kernel[1]};
    CHECK(dot(y, g) == doctest::Approx(dot(x, conv2d_transpose(g, k, image, s.options))).epsilon(1e-11));
    const Tensor rows = im2col(x, kernel, s.options), r = randn(rows.shape(), f64);
    CHECK(dot(rows, r) == doctest::Approx(dot(x, col2im(r, image, kernel, s.options))).epsilon(1e-11));
  }
  const Tensor x = reshape(arange(9, f64), {1, 3, 3, 1});
  CHECK(im2col(x, 2).to_vector() == std::vector<double>{0, 1, 3, 4, 1, 2, 4, 5, 3, 4, 6, 7, 4, 5, 7, 8});
  CHECK(col2im(ones({1, 2, 2, 4}), 3, 2).to_vector() == std::vector<double>{1, 2, 1, 2, 4, 2, 1, 2, 1});
}

TEST_CASE("values: pools against loops over the window") {
  struct Setting {
    Shape image;
    PoolOptions options;
  };
  const Setting settings[] = {{{2, 4, 6, 3}, {}},
                              {{1, 11, 11, 2}, {}},  // floor: 11 -> 5
                              {{1, 7, 5, 1}, {.size = 3, .stride = 2, .pad = 1}},
                              {{1, 5, 5, 2}, {.size = 2, .pad = Padding::same()}},
                              {{1, 6, 7, 1}, {.size = {3, 2}, .stride = {2, 3}, .pad = Padding::same()}}};
  for (const Setting& s : settings) {
    CAPTURE(s.image.str());
    const PoolOptions& o = s.options;
    const Index sh = o.stride.h ? o.stride.h : o.size.h, sw = o.stride.w ? o.stride.w : o.size.w;
    const Index top = o.pad.is_same ? same_before(s.image[1], o.size.h, sh, 1) : o.pad.top;
    const Index left = o.pad.is_same ? same_before(s.image[2], o.size.w, sw, 1) : o.pad.left;
    const Tensor x = randn(s.image, f64), most = max_pool2d(x, o), average = avg_pool2d(x, o),
                 recorded = max_pool2d(variable(x), o);
    CHECK(same_bits(most, recorded.detach()));
    for (Index n = 0; n < most.size(0); ++n)
      for (Index i = 0; i < most.size(1); ++i)
        for (Index j = 0; j < most.size(2); ++j)
          for (Index c = 0; c < most.size(3); ++c) {
            double top_value = -1e9, total = 0;
            int count = 0;
            for (Index a = 0; a < o.size.h; ++a)
              for (Index b = 0; b < o.size.w; ++b) {
                const Index y = i * sh - top + a, z = j * sw - left + b;
                if (y < 0 || y >= x.size(1) || z < 0 || z >= x.size(2)) continue;
                top_value = std::max(top_value, at4(x, n, y, z, c));
                total += at4(x, n, y, z, c);
                ++count;
              }
            CHECK(at4(most, n, i, j, c) == top_value);
            CHECK(at4(average, n, i, j, c) == doctest::Approx(total / count).epsilon(1e-14));
          }
  }
  CHECK(max_pool2d(zeros({1, 11, 11, 1})).shape() == Shape{1, 5, 5, 1});
  CHECK(max_pool2d(zeros({1, 11, 11, 1}), {.pad = Padding::same()}).shape() == Shape{1, 6, 6, 1});
}

TEST_CASE("values: gradients of pools against loops over the window") {
  struct Setting {
    Shape image;
    PoolOptions options;
  };
  Padding uneven = 0;
  uneven.bottom = uneven.left = 1;
  const Setting settings[] = {
      {{2, 5, 7, 17}, {}},  // a row and a column are left over
      {{3, 7, 5, 33}, {.size = 3, .stride = 2, .pad = 1}},
      {{1, 5, 6, 16}, {.size = {3, 2}, .pad = uneven}},
      {{1, 7, 8, 3}, {.size = 2, .stride = 3}},                    // gaps between windows
      {{1, 4, 141, 16}, {.size = {3, 2}, .stride = {1, 2}}},       // more windows side by side than are pooled at once
      {{1, 4, 5, 1100}, {.size = 2, .stride = 1, .pad = uneven}},  // more channels than that
      {{2, 4, 4, 0}, {}}};
  for (const Setting& s : settings)
    for (const DType t : {f32, f64}) {
      CAPTURE(s.image.str());
      const PoolOptions& o = s.options;
      const Index sh = o.stride.h ? o.stride.h : o.size.h, sw = o.stride.w ? o.stride.w : o.size.w;
      const Tensor x = variable(cast(cast(uniform(s.image, 0, 5), u8), t)), most = max_pool2d(x, o),
                   average = avg_pool2d(x, o);  // many are equal
      const Tensor g = cast(randn(most.shape(), f64), t), slope = cast(g, f64);
      const Tensor plain = cast(x.detach(), f64), plain_most = cast(most.detach(), f64),
                   plain_average = cast(average.detach(), f64);
      Tensor to_most = zeros(s.image, f64), to_average = zeros(s.image, f64);
      for (Index n = 0; n < most.size(0); ++n)
        for (Index i = 0; i < most.size(1); ++i)
          for (Index j = 0; j < most.size(2); ++j)
            for (Index c = 0; c < most.size(3); ++c) {
              std::vector<std::size_t> window;  // what lies inside the image
              for (Index y = std::max<Index>(0, i * sh - o.pad.top);
                   y < std::min(s.image[1], i * sh - o.pad.top + o.size.h); ++y)
                for (Index z = std::max<Index>(0, j * sw - o.pad.left);
                     z < std::min(s.image[2], j * sw - o.pad.left + o.size.w); ++z)
                  window.push_back(static_cast<std::size_t>(((n * s.image[1] + y) * s.image[2] + z) * s.image[3] + c));
              const auto values = plain.values<double>();
              std::size_t first = window.front();
              double total = 0;
              for (const std::size_t at : window) {
                if (values[at] > values[first]) first = at;
                total += values[at];
                to_average.mutable_values<double>()[at] += at4(slope, n, i, j, c) / static_cast<double>(window.size());
              }
              to_most.mutable_values<double>()[first] += at4(slope, n, i, j, c);
              REQUIRE(at4(plain_most, n, i, j, c) == values[first]);
              REQUIRE(at4(plain_average, n, i, j, c) ==
                      doctest::Approx(total / static_cast<double>(window.size())).epsilon(t == f32 ? 1e-6 : 1e-14));
            }
      CHECK(same_bits(max_pool2d(x.detach(), o), most.detach()));  // where they were is not asked for
      CHECK(distance(grad(most, x, {.cotangent = g}), to_most) <= (t == f32 ? 1e-6 : 1e-14));
      CHECK(distance(grad(average, x, {.cotangent = g}), to_average) <= (t == f32 ? 1e-6 : 1e-14));
    }
}

TEST_CASE("values: a pool's largest element is NaN if there is one, and the first one of equals") {
  for (const DType t : {f32, f64})
    for (const std::int64_t c : {1, 16, 35})
      for (const PoolOptions& o : {PoolOptions{}, PoolOptions{.size = 3, .stride = 2, .pad = 1}}) {
        const double lowest = -std::numeric_limits<double>::infinity();
        Tensor image = full({1, 4, 4, c}, lowest, f64);
        const auto at = static_cast<std::size_t>(5 * c);  // pixel (1, 1), which one window of 2x2 sees and each of 3x3
        image.mutable_values<double>()[at] = std::nan("");
        const Tensor x = variable(cast(image, t)), y = max_pool2d(x, o);
        const std::vector<double> values = y.to_vector(),
                                  slopes = grad(y, x, {.cotangent = ones(y.shape(), t)}).to_vector();
        for (std::size_t i = 0; i < values.size(); ++i) {
          const bool sees = i % static_cast<std::size_t>(c) == 0 && (i == 0 || o.size.h == 3);
          CHECK((sees ? std::isnan(values[i]) : values[i] == lowest));
        }
        CHECK(slopes[at] == (o.size.h == 3 ? 4 : 1));
        double total = 0;  // padding gets nothing
        for (const double s : slopes) total += s;
        CHECK(total == static_cast<double>(y.numel()));
      }
}

TEST_CASE("values: a window of more than 255 elements") {
  const Tensor x = variable(randn({1, 20, 20, 2}, f64)), y = max_pool2d(x, {.size = 17, .stride = 3});
  double total = 0;
  for (const double g : grad(y, x, {.cotangent = ones(y.shape(), f64)}).to_vector()) total += g;
  CHECK(total == static_cast<double>(y.numel()));
}

TEST_CASE("values: gather, pick, place, scatter_rows") {
  const Tensor x = reshape(arange(6, f64), {3, 2}), index = tensor({2, 0, 2}, i64);
  using V = std::vector<double>;
  CHECK(gather(x, index).to_vector() == V{4, 5, 0, 1, 4, 5});
  CHECK(gather(x, tensor({1}, u8)).to_vector() == V{2, 3});
  CHECK(gather(x, tensor({0, 1, 2, 0}, {2, 2}, i64)).shape() == Shape{2, 2, 2});
  CHECK(gather(tensor({7, 8}, u8), zeros({3}, i64)).to_vector() == V{7, 7, 7});
  CHECK(scatter_rows(x, index, 4).to_vector() == V{2, 3, 0, 0, 4, 6, 0, 0});
  CHECK(pick(x, tensor({1, 0, 1}, i64)).to_vector() == V{1, 2, 5});
  CHECK(place(tensor({7, 8}, f64), tensor({1, 0}, i64), 3).to_vector() == V{0, 7, 0, 8, 0, 0});
  // adjoints of one another
  const Tensor g = randn({3, 2}, f64), p = randn({3}, f64);
  CHECK(dot(gather(x, index), g) == doctest::Approx(dot(x, scatter_rows(g, index, 3))));
  CHECK(dot(pick(x, tensor({1, 0, 1}, i64)), p) == doctest::Approx(dot(x, place(p, tensor({1, 0, 1}, i64), 2))));
}
