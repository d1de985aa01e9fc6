// Augmentation of images: what each distortion does, and that it is the same for any number of threads.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/ebb.h>
#include <ebb/models/data/augment.h>

#include "restore.h"

using namespace ebb;

namespace {

constexpr AugmentOptions nothing{.shift = 0, .rotate = 0, .scale = 0, .shear = 0, .elastic = 0};

/// A square of ones in the middle of a black image.
Tensor square_image(std::int64_t n, DType dtype = f32) {
  Tensor x = zeros({n, 28, 28, 1}, dtype);
  visit_float(dtype, [&]<class T>(T) {
    const auto v = x.mutable_values<T>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
      for (std::size_t y = 8; y < 20; ++y)
        for (std::size_t k = 8; k < 20; ++k) v[i * 784 + y * 28 + k] = 1;
  });
  return x;
}

double mean_along(const Tensor& image, int axis) {
  double mass = 0, moment = 0;
  const auto v = image.to_vector();
  for (std::size_t i = 0; i < v.size(); ++i) {
    mass += v[i];
    moment += v[i] * static_cast<double>(axis == 0 ? i / 28 : i % 28);
  }
  return moment / mass;
}

}  // namespace

TEST_CASE("augment: with every amount zero it is the identity") {
  Generator g(1);
  const Tensor x = rand({3, 9, 7, 2}, f64, g);
  const Tensor y = Augment(nothing)(x, g);
  const auto a = x.to_vector(), b = y.to_vector();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(b[i] == doctest::Approx(a[i]).epsilon(1e-12));
}

TEST_CASE("augment: a shift moves the center of mass by at most so much, and differs between images") {
  AugmentOptions o = nothing;
  o.shift = 3;
  Generator g(2);
  const Tensor y = Augment(o)(square_image(40), g);
  double least = 100, most = -100;
  for (std::int64_t i = 0; i < 40; ++i) {
    for (const int axis : {0, 1}) {
      const double moved = mean_along(y.rows(i, i + 1), axis) - 13.5;
      CHECK(std::abs(moved) <= 3.0001);
      least = std::min(least, moved);
      most = std::max(most, moved);
    }
    CHECK(sum(y.rows(i, i + 1)).item() == doctest::Approx(144).epsilon(1e-4));  // nothing fell off the edge
  }
  CHECK(least < -2);
  CHECK(most > 2);
}

TEST_CASE("augment: turning keeps the center and the area, resizing changes the area within its bounds") {
  AugmentOptions turn = nothing, size = nothing, shear = nothing;
  turn.rotate = 45;
  size.scale = 0.2;
  shear.shear = 0.3;
  Generator g(3);
  const Tensor turned = Augment(turn)(square_image(20, f64), g), sized = Augment(size)(square_image(20, f64), g),
               sheared = Augment(shear)(square_image(20, f64), g);
  bool changed = false;
  for (std::int64_t i = 0; i < 20; ++i) {
    for (const Tensor& t : {turned, sheared}) {
      const Tensor image = t.rows(i, i + 1);
      CHECK(mean_along(image, 0) == doctest::Approx(13.5).epsilon(1e-3));
      CHECK(mean_along(image, 1) == doctest::Approx(13.5).epsilon(1e-3));
      CHECK(sum(image).item() == doctest::Approx(144).epsilon(0.02));
      changed = changed || !same_bits(image, square_image(1, f64));
    }
    const double area = sum(sized.rows(i, i + 1)).item() / 144;
    CHECK(area > 0.8 * 0.8 - 0.02);
    CHECK(area < 1.2 * 1.2 + 0.02);
  }
  CHECK(changed);
}

TEST_CASE(
    "augment: an elastic field of one displacement everywhere is a shift, since spline weights add up to "
    "one") {
  AugmentOptions o = nothing;
  o.elastic = 1e-9;  // the weights are reached, the move is none
  Generator g(4);
  const Tensor x = rand({2, 28, 28, 1}, f64, g), y = Augment(o)(x, g);
  const auto a = x.to_vector(), b = y.to_vector();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(b[i] == doctest::Approx(a[i]).epsilon(1e-6));
  o.elastic = 2;
  const Tensor z = Augment(o)(square_image(8, f64), g);
  for (std::int64_t i = 0; i < 8; ++i) {
    CHECK_FALSE(same_bits(z.rows(i, i + 1), square_image(1, f64)));
    CHECK(sum(z.rows(i, i + 1)).item() == doctest::Approx(144).epsilon(0.5));
  }
}

TEST_CASE("augment: the same bits for any number of threads, others for the next batch") {
  const testing::Threads restore;
  const Tensor x = square_image(33);
  set_threads(1);
  Generator g(5);
  const Tensor one = Augment()(x, g), next = Augment()(x, g);
  set_threads(3);
  Generator again(5);
  CHECK(same_bits(one, Augment()(x, again)));
  CHECK_FALSE(same_bits(one, next));
}

TEST_CASE("augment: what it refuses") {
  CHECK_THROWS_WITH_AS(Augment({.shift = -1}), "augment: amounts must be finite and not negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(Augment({.scale = 1}), "augment: scale must be below 1, got 1", ValueError);
  CHECK_THROWS_WITH_AS(Augment({.knots = 0.5}), "augment: knots must be at least 1 pixel apart, got 0.5", ValueError);
  CHECK_THROWS_WITH_AS(Augment()(zeros({3, 28, 28})), "augment: needs an image batch (n, h, w, c), got (3, 28, 28)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Augment()(zeros({1, 28, 28, 1}, u8)), "augment: needs float32 or float64, got uint8",
                       DTypeError);
  CHECK(Augment()(zeros({0, 28, 28, 1})).shape() == Shape{0, 28, 28, 1});
}

TEST_CASE("augment: fit gives it the training batches and nothing else") {
  Sequential net({2, 2, 1}, {Flatten(), Dense(2)});
  const Dataset data{ones({6, 2, 2, 1}), zeros({6}, i64)};
  std::vector<std::int64_t> sizes;
  FitOptions o{.epochs = 2, .batch = 4, .validation = data, .verbose = Verbose::silent};
  o.augment = [&](const Tensor& x) {
    sizes.push_back(x.size(0));
    return x * 0.0;  // only the biases can learn from black images
  };
  const Tensor weight = named_tensors(net)[0].tensor->clone();
  fit(net, SGD(), data, o);
  CHECK(sizes == std::vector<std::int64_t>{4, 2, 4, 2});
  CHECK(same_bits(*named_tensors(net)[0].tensor, weight));
}
