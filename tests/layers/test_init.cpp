#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/layers/init.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/random.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace {

using namespace ebb;

struct Spread {
  double mean = 0, variance = 0, least = 1e9, most = -1e9;
};

Spread moments(const Tensor& t) {
  Spread m;
  const auto v = t.to_vector();
  for (const double x : v) {
    m.mean += x / static_cast<double>(v.size());
    m.least = std::min(m.least, x);
    m.most = std::max(m.most, x);
  }
  for (const double x : v) m.variance += (x - m.mean) * (x - m.mean) / static_cast<double>(v.size());
  return m;
}

/// Deviation of a standard normal cut off at +-2: 1 - 4 phi(2) / (2 Phi(2) - 1), rooted.
double cut_deviation() {
  const double density = std::exp(-2.0) / std::sqrt(2 * std::numbers::pi);
  return std::sqrt(1 - 4 * density / std::erf(2 / std::numbers::sqrt2));
}

/// 120,000 numbers: one deviation of their variance is 0.26 % (uniform) or 0.34 % (cut normal).
void check_uniform(const Tensor& t, double limit) {
  const Spread m = moments(t);
  CHECK(m.most <= limit * (1 + 1e-6));
  CHECK(m.least >= -limit * (1 + 1e-6));
  CHECK(m.most > 0.999 * limit);
  CHECK(m.least < -0.999 * limit);
  CHECK(m.variance == doctest::Approx(limit * limit / 3).epsilon(0.013));
  CHECK(std::abs(m.mean) < 5 * std::sqrt(limit * limit / 3 / static_cast<double>(t.numel())));
}

void check_normal(const Tensor& t, double variance) {
  const double limit = 2 * std::sqrt(variance) / cut_deviation();
  const Spread m = moments(t);
  CHECK(m.most <= limit * (1 + 1e-6));
  CHECK(m.least >= -limit * (1 + 1e-6));
  CHECK(m.most > 0.99 * limit);
  CHECK(m.least < -0.99 * limit);
  CHECK(m.variance == doctest::Approx(variance).epsilon(0.017));
  CHECK(std::abs(m.mean) < 5 * std::sqrt(variance / static_cast<double>(t.numel())));
}

}  // namespace

TEST_CASE("init: bounds and variance for dense kernels") {
  CHECK(cut_deviation() == doctest::Approx(0.87962566103423978).epsilon(1e-14));
  const Shape shape{400, 300};  // (in, out)
  for (const DType dtype : {f32, f64}) {
    manual_seed(21);
    check_uniform(glorot_uniform(shape, dtype), std::sqrt(6.0 / 700));
    check_uniform(he_uniform(shape, dtype), std::sqrt(6.0 / 400));
    check_normal(glorot_normal(shape, dtype), 2.0 / 700);
    check_normal(he_normal(shape, dtype), 2.0 / 400);
    CHECK(he_normal(shape, dtype).dtype() == dtype);
    check_uniform(lecun_uniform(shape, dtype), std::sqrt(3.0 / 400));
    check_normal(lecun_normal(shape, dtype), 1.0 / 400);
  }
}

TEST_CASE("init: fans of convolution kernels count the window") {
  const Shape shape{3, 5, 40, 200};  // (kh, kw, in, out): fan_in 600, fan_out 3000
  manual_seed(22);
  check_uniform(glorot_uniform(shape), std::sqrt(6.0 / 3600));
  check_uniform(he_uniform(shape), std::sqrt(6.0 / 600));
  check_normal(glorot_normal(shape), 2.0 / 3600);
  check_normal(he_normal(shape), 2.0 / 600);
}

TEST_CASE("init: vectors count their elements both ways") {
  manual_seed(23);
  check_uniform(glorot_uniform({120000}), std::sqrt(6.0 / 240000));
  check_uniform(he_uniform({120000}), std::sqrt(6.0 / 120000));
  CHECK(glorot_uniform({}).shape() == Shape{});
  CHECK(std::abs(glorot_uniform({}).item()) <= std::sqrt(3.0));
  CHECK(glorot_uniform({0, 5}).numel() == 0);
  CHECK(he_normal({0, 5}).numel() == 0);
}

TEST_CASE("init: orthogonal gives orthonormal columns, or rows where those are fewer") {
  for (const Shape& shape : {Shape{40, 30}, Shape{30, 40}, Shape{25, 25}, Shape{3, 3, 2, 7}, Shape{1, 1, 2, 9}}) {
    CAPTURE(shape.str());
    manual_seed(3);
    const std::int64_t columns = shape.at(-1), rows = shape.numel() / columns, n = std::min(rows, columns);
    const Tensor drawn = orthogonal(shape, f64), q = reshape(drawn, {rows, columns});
    CHECK(drawn.shape() == shape);
    const Tensor product = rows < columns ? matmul(q, q, {.transpose_b = true}) : matmul(q, q, {.transpose_a = true});
    const Tensor error = abs(product - one_hot(arange(n, i64), n, f64));
    CHECK(max(error).item() < 1e-14);
  }
  // Not one of the signs alone: uniform over all orthogonal matrices, so that entries have mean 0 and variance 1 / n.
  manual_seed(4);
  const Spread m = moments(orthogonal({300, 300}));
  CHECK(std::abs(m.mean) < 0.001);
  CHECK(m.variance == doctest::Approx(1.0 / 300).epsilon(1e-5));
  CHECK_THROWS_WITH_AS(orthogonal({3}), "orthogonal: needs at least 2 axes, got (3,)", ShapeError);
}

TEST_CASE("init: constants") {
  CHECK(zeros_init({2, 2}).to_vector() == std::vector<double>{0, 0, 0, 0});
  CHECK(ones_init({3}, f64).to_vector() == std::vector<double>{1, 1, 1});
  CHECK(ones_init({3}, f64).dtype() == f64);
}

TEST_CASE("init: the same seed gives the same bits") {
  for (const Initializer init :
       {glorot_uniform, glorot_normal, he_uniform, he_normal, lecun_uniform, lecun_normal, orthogonal})
    for (const DType dtype : {f32, f64}) {
      manual_seed(7);
      const Tensor a = init({7, 5}, dtype), next = init({7, 5}, dtype);
      manual_seed(7);
      CHECK(same_bits(init({7, 5}, dtype), a));
      CHECK(same_bits(init({7, 5}, dtype), next));
      CHECK_FALSE(same_bits(a, next));
      manual_seed(8);
      CHECK_FALSE(same_bits(init({7, 5}, dtype), a));
    }
}

TEST_CASE("init: only floats are drawn") {
  CHECK_THROWS_WITH_AS(glorot_uniform({2, 2}, i64), "uniform: needs float32 or float64, got int64", DTypeError);
  CHECK_THROWS_WITH_AS(he_normal({2, 2}, u8), "normal: needs float32 or float64, got uint8", DTypeError);
  CHECK_THROWS_WITH_AS(orthogonal({2, 2}, i64), "orthogonal: needs float32 or float64, got int64", DTypeError);
}
