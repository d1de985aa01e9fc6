// Sums of many numbers: error bounds against float64, and samples that do not depend on their batch.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <ebb/autograd/backward.h>
#include <ebb/ops/ops.h>

#include "restore.h"

using namespace ebb;

namespace {

/// The worst error of sum(x, axis) in units of 2^-24 times the sum of |x|. Float64 has 2^29 times its digits.
double worst(const Tensor& x, Axes axes) {
  const Tensor wide = cast(x, f64);
  const std::vector<double> got = sum(x, axes).to_vector(), truth = sum(wide, axes).to_vector(),
                            size = sum(abs(wide), axes).to_vector();
  double out = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    out = std::max(out, size[i] == 0 ? std::abs(got[i]) : std::abs(got[i] - truth[i]) / size[i]);
  return out * 0x1p24;
}

constexpr double bound = 24;

}  // namespace

TEST_CASE(
    "reduce: a float32 sum errs by at most 24 half-units of the sum of magnitudes, whatever its length and axis") {
  testing::on_every_instruction_set([] {
    manual_seed(3);
    for (const std::int64_t n :
         {1, 2, 7, 15, 16, 17, 31, 64, 127, 128, 129, 1000, 1023, 1024, 4097, 33000, 100'000, 1'000'000}) {
      CAPTURE(n);
      for (const bool alike : {false, true}) {
        const auto numbers = [&](const Shape& s) { return alike ? full(s, 0.1) : uniform(s, 0, 1); };
        CHECK(worst(numbers({n}), {}) <= bound);
        CHECK(worst(numbers({2, n}), 1) <= bound);
        CHECK(worst(numbers({n, 1}), 0) <= bound);
        CHECK(worst(numbers({n, 3}), 0) <= bound);
        if (n > 40'000) continue;
        CHECK(worst(numbers({n, 70}), 0) <= bound);
        CHECK(worst(numbers({2, n, 5}), 1) <= bound);
        CHECK(worst(numbers({2, n, 2}), {0, 2}) <= 2 * bound);
        if (n > 5000) continue;
        CHECK(worst(numbers({n, 1500}), 0) <= bound);
        CHECK(worst(numbers({20, n}), 1) <= bound);
      }
    }
  });
}

TEST_CASE("reduce: sums of tens of millions") {
  CHECK(sum(ones({1, 20'000'000, 2}), 1).to_vector() == std::vector<double>(2, 2e7));  // a running sum stops at 2^24
  CHECK(sum(ones({40'000'000})).item() == 4e7);
  CHECK(mean(full({20'000'000, 1}, 0.1), 0).item() == doctest::Approx(static_cast<double>(0.1f)).epsilon(1e-7));
}

TEST_CASE("reduce: means and variances of images and rows") {
  const double tenth = static_cast<double>(0.1f);
  for (const std::int64_t batch : {1, 2, 5})
    for (const double v : mean(full({batch, 224, 224, 3}, 0.1), {1, 2}).to_vector())
      CHECK(v == doctest::Approx(tenth).epsilon(1e-7));
  for (const double v : mean(full({2048, 2048}, 0.1), 0).to_vector()) CHECK(v == doctest::Approx(tenth).epsilon(1e-7));
  for (const std::int64_t rows : {256, 8192}) {
    std::vector<float> x(static_cast<std::size_t>(4 * rows));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = i / 4 % 2 ? 1e6f + 2 : 1e6f;
    const Tensor t = Tensor::from(x, {rows, 4});
    for (const double v : variance(t, 0).to_vector()) CHECK(v == 1);
    for (const double v : variance(transpose(t), 1).to_vector()) CHECK(v == 1);
    Moments moments;
    const Tensor y = batch_norm(t, ones({4}), zeros({4}), {.epsilon = 1e-9, .moments = &moments});
    for (const double v : moments.variance.to_vector()) CHECK(v == 1);
    for (const double v : y.to_vector()) CHECK(std::abs(v) == doctest::Approx(1));
  }
  const Tensor far = randn({1000, 3}) + 1e6;
  const std::vector<double> got = variance(far, 0).to_vector(), truth = variance(cast(far, f64), 0).to_vector();
  for (std::size_t i = 0; i < 3; ++i) CHECK(got[i] == doctest::Approx(truth[i]).epsilon(1e-5));
  CHECK(variance(full({77, 5}, 1e6 + 0.3), 0).to_vector() == std::vector<double>(5, 0));
}

TEST_CASE("reduce: what a sample gives does not depend on its batch") {
  manual_seed(4);
  for (const Shape& shape : {Shape{9, 300}, Shape{9, 70'000}, Shape{9, 33, 41, 3}, Shape{9, 224, 224, 2},
                             Shape{9, 130, 700}, Shape{9, 20'000, 5}}) {
    CAPTURE(shape.str());
    const Tensor x = randn(shape);
    const std::vector<std::function<Tensor(const Tensor&)>> functions{
        [](const Tensor& t) { return sum(t, 1); },
        [](const Tensor& t) { return sum(t, -1); },
        [](const Tensor& t) { return mean(t, 1); },
        [](const Tensor& t) {
          return t.rank() > 2 ? mean(t, {1, 2}) : mean(t, 1);
        },
        [](const Tensor& t) { return variance(t, 1); },
        [](const Tensor& t) { return max(t, 1); },
        [](const Tensor& t) { return logsumexp(t, 1); },
        [](const Tensor& t) { return softmax(t); },
        [](const Tensor& t) { return log_softmax(t); }};
    std::size_t number = 0;
    for (const auto& f : functions) {
      CAPTURE(number);
      ++number;
      const Tensor all = f(x);
      for (const std::int64_t first : {0, 5})
        for (const std::int64_t count : {1, 2, 4})
          CHECK(same_bits(f(x.rows(first, first + count)), all.rows(first, first + count)));
    }
  }
}

TEST_CASE("reduce: gradients that are sums: of a bias, a scale, a row that is taken often, and a convolution's bias") {
  const std::int64_t n = 300'000;
  const Tensor row = variable(zeros({1, 3})), one = full({n, 3}, 0.1);
  CHECK(grad(gather(row, zeros({n}, i64)), row, {.cotangent = one}).to_vector()[1] ==
        doctest::Approx(n * 0.1).epsilon(1e-6));
  const Tensor scale = variable(ones({3})), shift = variable(zeros({3}));
  const std::vector<Tensor> in{scale, shift};
  const std::vector<Tensor> g = grad(batch_norm(full({n, 3}, 5), scale, shift), in, {.cotangent = one});
  CHECK(g[1].to_vector()[2] == doctest::Approx(n * 0.1).epsilon(1e-6));
  CHECK(grad(full({n, 3}, 1) * scale, scale, {.cotangent = one}).to_vector()[0] ==
        doctest::Approx(n * 0.1).epsilon(1e-6));
  for (const std::int64_t pool : {1, 2}) {
    const Tensor bias = variable(ones({4}));
    const Tensor y = conv2d_relu(zeros({1, 500, 500, 1}), zeros({1, 1, 1, 4}), bias, {}, pool);
    const double count = 500.0 * 500 / static_cast<double>(pool * pool);
    CHECK(grad(y, bias, {.cotangent = full(y.shape(), 0.1)}).to_vector()[3] ==
          doctest::Approx(count * 0.1).epsilon(1e-6));
  }
  CHECK(avg_pool2d(full({1, 300, 300, 3}, 0.1), {.size = 300}).to_vector()[1] == doctest::Approx(0.1).epsilon(1e-7));
}
