// Exact figures of the real MNIST files that training runs rest on: sizes, counts, splits. $EBB_DATA names the data.
#include <doctest/doctest.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/data/preprocess.h>
#include <ebb/models/data/split.h>
#include <ebb/ops/ops.h>
#include <stdlib.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <vector>

namespace {

namespace fs = std::filesystem;
using namespace ebb;

/// The data, read once; nothing when there are none.
const Mnist* real_data() {
  static const std::optional<Mnist> data = []() -> std::optional<Mnist> {
    const char* given = ::getenv("EBB_DATA");
    const fs::path root = given ? given : "";
    for (const fs::path& folder : {root, root / "mnist"})
      for (const char* name : {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte",
                               "train-images.idx3-ubyte.gz"})
        if (given && fs::exists(folder / name)) return load_mnist(folder);
    return std::nullopt;
  }();
  if (!data) MESSAGE("skipped: EBB_DATA names no folder with MNIST");
  return data ? &*data : nullptr;
}

int label(const Digits& digits, std::int64_t i) {
  return digits.labels.values<std::uint8_t>()[static_cast<std::size_t>(i)];
}

std::array<int, 10> class_counts(const Tensor& labels) {
  std::array<int, 10> counts{};
  for (const std::uint8_t v : labels.values<std::uint8_t>()) ++counts[v];
  return counts;
}

}  // namespace

TEST_CASE("fingerprints: the table of 70,000 rows is training, then test images") {
  const Mnist* data = real_data();
  if (!data) return;
  const Digits all = data->all();
  CHECK(all.images.shape() == Shape{70000, 28, 28});
  CHECK(all.labels.shape() == Shape{70000});
  CHECK(all.labels.dtype() == u8);
  CHECK(same_bits(all.images.rows(0, 60000), data->train.images));
  CHECK(same_bits(all.images.rows(60000, 70000), data->test.images));
  CHECK(same_bits(all.labels.rows(60000, 70000), data->test.labels));
  CHECK(label(all, 0) == 5);
  CHECK(class_counts(all.labels) == std::array<int, 10>{6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958});
}

TEST_CASE("fingerprints: the random split of 1/7 with seed 0") {
  const Mnist* data = real_data();
  if (!data) return;
  const Mnist anew = data->split_anew({.test_size = 1.0 / 7, .seed = 0});
  CHECK(anew.train.size() == 60000);
  CHECK(anew.test.size() == 10000);
  CHECK(anew.name == "mnist");
  const std::array<std::int64_t, 5> rows{10840, 56267, 14849, 62726, 47180};
  const std::array<int, 5> labels{0, 4, 1, 2, 7};
  const Digits all = data->all();
  for (std::int64_t i = 0; i < 5; ++i) {
    const auto row = rows[static_cast<std::size_t>(i)];
    CHECK(label(anew.test, i) == labels[static_cast<std::size_t>(i)]);
    CHECK(same_bits(anew.test.images.rows(i, i + 1), all.images.rows(row, row + 1)));
  }
  // Every row is in one of the parts: the classes add up.
  auto counts = class_counts(anew.train.labels);
  for (std::size_t k = 0; k < 10; ++k) counts[k] += class_counts(anew.test.labels)[k];
  CHECK(counts == class_counts(all.labels));
  CHECK(same_bits(data->split_anew({.test_size = 1.0 / 7, .seed = 0}).test.labels, anew.test.labels));

  const Mnist strata = data->split_anew({.test_size = 1.0 / 7, .seed = 0, .stratify = true});
  for (std::size_t k = 0; k < 10; ++k)
    CHECK(std::abs(class_counts(strata.test.labels)[k] * 7 - class_counts(all.labels)[k]) < 7);
}

TEST_CASE("fingerprints: Keras' validation_split of the 70,000 rows, and the steps of an epoch") {
  const Mnist* data = real_data();
  if (!data) return;
  const Dataset all = data->all().scaled(1);  // raw pixels
  const auto steps = [](const Dataset& part, std::int64_t batch) { return Batches(part, {.size = batch}).count(); };
  const auto [small, most] = split_last(all, 0.8);
  CHECK(small.size() == 13999);
  CHECK(most.size() == 56001);
  CHECK(steps(small, 32) == 438);
  const auto [large, rest] = split_last(all, 0.25);
  CHECK(large.size() == 52500);
  CHECK(rest.size() == 17500);
  CHECK(steps(large, 32) == 1641);
  const auto [n3, held] = split_last(data->train.scaled(1), 0.1);
  CHECK(held.size() == 6000);
  CHECK(steps(n3, 128) == 422);
  CHECK(steps(n3, 16) == 3375);
  CHECK(steps(data->train, 128) == 469);
  CHECK(steps(data->train, 32) == 1875);
  CHECK(steps(data->test, 32) == 313);
}

TEST_CASE("fingerprints: the first image, its label as a one-hot row, and how often each digit occurs") {
  const Mnist* data = real_data();
  if (!data) return;
  const Tensor first = data->train.images.rows(0, 1);
  CHECK(mean(cast(first, f64)).item() == doctest::Approx(35.108418367).epsilon(1e-10));
  CHECK(std::round(mean(cast(cast(first, f32) / scalar(255), f64)).item() * 1e8) == 13768007);
  CHECK(to_categorical(data->train.labels.rows(0, 1), 10).to_vector() ==
        std::vector<double>{0, 0, 0, 0, 0, 1, 0, 0, 0, 0});
  CHECK(to_categorical(data->train.labels).shape() == Shape{60000, 10});

  std::vector<std::pair<std::int64_t, std::int64_t>> counts, millionths;
  for (const ValueCount& c : value_counts(data->train.labels)) counts.emplace_back(c.value, c.count);
  CHECK(counts == decltype(counts){{1, 6742},
                                   {7, 6265},
                                   {3, 6131},
                                   {2, 5958},
                                   {9, 5949},
                                   {0, 5923},
                                   {6, 5918},
                                   {8, 5851},
                                   {4, 5842},
                                   {5, 5421}});
  for (const ValueCount& c : value_counts(data->all().labels))
    millionths.emplace_back(c.value, std::lround(c.share * 1e6));
  CHECK(millionths == decltype(counts){{1, 112529},
                                       {7, 104186},
                                       {3, 102014},
                                       {2, 99857},
                                       {9, 99400},
                                       {0, 98614},
                                       {6, 98229},
                                       {8, 97500},
                                       {4, 97486},
                                       {5, 90186}});
}
