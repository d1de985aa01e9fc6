#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/synthetic.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

/// FNV-1a.
std::uint64_t checksum(std::span<const std::uint8_t> bytes) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const std::uint8_t b : bytes) h = (h ^ b) * 0x100000001b3;
  return h;
}

bool same(const ebb::Digits& a, const ebb::Digits& b) {
  return ebb::same_bits(a.images, b.images) && ebb::same_bits(a.labels, b.labels);
}

ebb::Digits head(const ebb::Digits& d, std::int64_t n) { return {d.images.rows(0, n), d.labels.rows(0, n)}; }

/// Share of the test images whose class mean in the training images is the nearest: a linear classifier.
double nearest_mean_accuracy(const ebb::Mnist& data) {
  const auto images = data.train.images.values<std::uint8_t>(), labels = data.train.labels.values<std::uint8_t>();
  std::vector<std::array<double, 784>> mean(10);
  std::array<double, 10> count{};
  for (std::size_t i = 0; i < labels.size(); ++i) {
    ++count[labels[i]];
    for (std::size_t k = 0; k < 784; ++k) mean[labels[i]][k] += images[i * 784 + k];
  }
  for (std::size_t c = 0; c < 10; ++c)
    for (double& v : mean[c]) v /= count[c];

  const auto tests = data.test.images.values<std::uint8_t>(), truth = data.test.labels.values<std::uint8_t>();
  double right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    std::array<double, 10> distance{};
    for (std::size_t c = 0; c < 10; ++c)
      for (std::size_t k = 0; k < 784; ++k) {
        const double d = tests[i * 784 + k] - mean[c][k];
        distance[c] += d * d;
      }
    right += std::ranges::min_element(distance) - distance.begin() == truth[i];
  }
  return right / static_cast<double>(truth.size());
}

}  // namespace

TEST_CASE("synthetic: shapes and names") {
  const ebb::Mnist data = ebb::synthetic_digits(30, 20, 7);
  CHECK(data.name == "synthetic");
  CHECK(data.source == "generated, seed 7");
  CHECK(data.train.images.shape() == ebb::Shape{30, 28, 28});
  CHECK(data.train.labels.shape() == ebb::Shape{30});
  CHECK(data.test.images.shape() == ebb::Shape{20, 28, 28});
  CHECK(data.test.labels.shape() == ebb::Shape{20});
  CHECK(data.train.images.dtype() == ebb::u8);
  CHECK(data.train.labels.dtype() == ebb::u8);
  CHECK(ebb::synthetic_digits(0, 0).train.images.shape() == ebb::Shape{0, 28, 28});
  CHECK_THROWS_WITH_AS(ebb::synthetic_digits(-1, 5), "synthetic_digits: counts must not be negative, got -1 and 5",
                       ebb::ValueError);
}

TEST_CASE("synthetic: an image depends on seed, part and index alone") {
  const ebb::Mnist a = ebb::synthetic_digits(200, 100), b = ebb::synthetic_digits(200, 100);
  CHECK(same(a.train, b.train));
  CHECK(same(a.test, b.test));
  const ebb::Mnist shorter = ebb::synthetic_digits(50, 60);
  CHECK(same(head(a.train, 50), shorter.train));
  CHECK(same(head(a.test, 60), shorter.test));
  CHECK_FALSE(ebb::same_bits(a.train.images.rows(0, 100), a.test.images));
  CHECK_FALSE(ebb::same_bits(a.train.images, ebb::synthetic_digits(200, 0, 2).train.images));
}

TEST_CASE("synthetic: the same bits everywhere") {
  const ebb::Mnist data = ebb::synthetic_digits(100, 100);
  CHECK(checksum(data.train.images.values<std::uint8_t>()) == 739349102148201089u);
  CHECK(checksum(data.train.labels.values<std::uint8_t>()) == 3941505960679153843u);
  CHECK(checksum(data.test.images.values<std::uint8_t>()) == 2123608375427009837u);
}

TEST_CASE("synthetic: balanced, no two alike, and not too easy") {
  const ebb::Mnist data = ebb::synthetic_digits(6000, 2000);
  std::array<int, 10> counts{};
  for (const std::uint8_t v : data.train.labels.values<std::uint8_t>()) ++counts.at(v);
  CHECK(*std::ranges::min_element(counts) > 500);
  CHECK(*std::ranges::max_element(counts) < 700);

  std::vector<std::uint64_t> sums;
  for (const ebb::Tensor* images : {&data.train.images, &data.test.images})
    for (std::int64_t i = 0; i < images->size(0); ++i)
      sums.push_back(checksum(images->rows(i, i + 1).values<std::uint8_t>()));
  std::ranges::sort(sums);
  CHECK(std::ranges::adjacent_find(sums) == sums.end());

  const double accuracy = nearest_mean_accuracy(data);
  CHECK(accuracy > .5);
  CHECK(accuracy < .85);
}
