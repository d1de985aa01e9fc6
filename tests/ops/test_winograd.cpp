// Winograd's convolutions of pixels that are infinite, no numbers or huge.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/backward.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {
/// Where a and b are finite in one only, or differ by more than `near`.
std::int64_t differences(const Tensor& a, const Tensor& b, double near) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  std::int64_t count = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    count += std::isfinite(x[i]) != std::isfinite(y[i]) || std::isnan(x[i]) != std::isnan(y[i]) ||
             (std::isfinite(x[i]) && std::abs(x[i] - y[i]) > near);
  return count;
}
}  // namespace

TEST_CASE("winograd: a pixel that is no finite number spoils what sees it and nothing else") {
  const bool before = winograd();
  manual_seed(5);
  for (const float odd : {NAN, INFINITY, -INFINITY})
    for (const std::int64_t pad : {0, 1})
      for (const bool relu_pool : {false, true}) {
        CAPTURE(odd);
        CAPTURE(pad);
        Tensor value = randn({3, 14, 15, 16});
        value.mutable_values<float>()[static_cast<std::size_t>(((1 * 14 + 6) * 15 + 7) * 16 + 3)] = odd;
        const Tensor x = variable(value), k = variable(randn({3, 3, 16, 16})), b = variable(randn({16}));
        const auto f = [&] { return relu_pool ? conv2d_relu(x, k, b, {.pad = pad}, 2) : conv2d(x, k, {.pad = pad}); };
        set_winograd(true);
        const Tensor fast = f();
        Tensor g = randn(fast.shape());
        g.mutable_values<float>()[static_cast<std::size_t>(g.numel() / 2)] = odd;
        const Tensor clean = randn(fast.shape()), dx = grad(f(), x, {.cotangent = g}),
                     dk = grad(f(), k, {.cotangent = clean});
        set_winograd(false);
        const Tensor plain = f();
        CHECK(differences(fast, plain, 1e-3) == 0);
        CHECK(differences(dx, grad(f(), x, {.cotangent = g}), 1e-3) == 0);
        if (!relu_pool) CHECK(differences(dk, grad(f(), k, {.cotangent = clean}), 1e-3) == 0);
      }
  set_winograd(before);
}

TEST_CASE("winograd: an image is the same beside one that is spoiled") {
  manual_seed(6);
  const Tensor clean = randn({4, 14, 14, 16}), k = randn({3, 3, 16, 32});
  Tensor spoiled = clean.clone();
  spoiled.mutable_values<float>()[14 * 14 * 16 + 77] = NAN;
  const Tensor a = conv2d(clean, k), b = conv2d(spoiled, k);
  CHECK(same_bits(a.rows(0, 1), b.rows(0, 1)));
  CHECK(same_bits(a.rows(2, 4), b.rows(2, 4)));
}

TEST_CASE("winograd: the rounding error is bounded by the largest result") {
  const bool before = winograd();
  manual_seed(7);
  Tensor x = randn({1, 28, 28, 32});
  x.mutable_values<float>()[(14 * 28 + 14) * 32] = 1e6f;
  const Tensor k = randn({3, 3, 32, 32}), truth = conv2d(cast(x, f64), cast(k, f64));
  set_winograd(true);
  const Tensor y = cast(conv2d(x, k), f64);
  set_winograd(before);
  CHECK(max(abs(y - truth)).item() <= 1e-5 * max(abs(truth)).item());
}
