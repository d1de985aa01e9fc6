// Random splits against scikit-learn 1.2.1 and NumPy 1.24.2: the numbers below are theirs.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/data/split.h>
#include <ebb/ops/ops.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

using namespace ebb;
using Indices = std::vector<std::int64_t>;

/// The sum of (i + 1) times element i: the order counts.
std::int64_t mark(const Indices& values) {
  std::int64_t sum = 0, i = 0;
  for (const std::int64_t v : values) sum += ++i * v;
  return sum;
}

Indices head(const Indices& values, std::size_t n) {
  return {values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n)};
}

Tensor labels_of(const Indices& values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); }

}  // namespace

TEST_CASE("split: permutations of NumPy's legacy generator") {
  CHECK(numpy_permutation(10, 0) == Indices{2, 8, 4, 9, 1, 6, 7, 3, 0, 5});
  CHECK(numpy_permutation(12, 4294967295) == Indices{11, 8, 5, 9, 1, 10, 6, 0, 4, 7, 2, 3});
  const Indices big = numpy_permutation(70000, 0);
  CHECK(head(big, 5) == Indices{10840, 56267, 14849, 62726, 47180});
  CHECK(Indices(big.end() - 3, big.end()) == Indices{42613, 43567, 68268});
  Indices sorted = big;
  std::ranges::sort(sorted);
  Indices all(70000);
  std::iota(all.begin(), all.end(), std::int64_t{0});
  CHECK(sorted == all);
  CHECK(numpy_permutation(0, 5).empty());
  CHECK(numpy_permutation(1, 5) == Indices{0});
  CHECK_THROWS_WITH_AS(numpy_permutation(-1, 0), "numpy_permutation: n must be 0 to 2^32, got -1", ValueError);
  CHECK_THROWS_AS(numpy_permutation((std::int64_t{1} << 32) + 1, 0), ValueError);
}

TEST_CASE("split: train_test_split of scikit-learn") {
  const auto [train, test] = train_test_split(70000, {.test_size = 1.0 / 7, .seed = 0});  // N4
  CHECK(train.size() == 60000);
  CHECK(test.size() == 10000);
  CHECK(head(test, 5) == Indices{10840, 56267, 14849, 62726, 47180});
  CHECK(head(train, 5) == Indices{28926, 9080, 52804, 28094, 46585});
  CHECK(mark(train) == 62837174958171);
  CHECK(mark(test) == 1764255579821);

  const SplitIndices a = train_test_split(10, {.test_size = 0.25, .seed = 3});  // ceil(2.5) = 3
  CHECK(a.train == Indices{2, 9, 6, 7, 0, 3, 8});
  CHECK(a.test == Indices{5, 4, 1});
  const SplitIndices b = train_test_split(7, {.test_size = 1.0 / 7, .seed = 1});
  CHECK(b.train == Indices{2, 1, 0, 4, 3, 5});
  CHECK(b.test == Indices{6});
  const SplitIndices c = train_test_split(13, {.test_size = 4, .seed = 42});
  CHECK(c.train == Indices{5, 2, 1, 12, 4, 7, 10, 3, 6});
  CHECK(c.test == Indices{11, 9, 0, 8});
}

TEST_CASE("split: stratified as scikit-learn's") {
  const Tensor labels = labels_of({0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 2, 1, 7, 7, 7, 7, 0, 1, 2, 7});
  const SplitIndices a = split_indices(labels, {.test_size = 0.25, .seed = 0, .stratify = true});
  CHECK(a.train == Indices{17, 14, 18, 3, 1, 15, 19, 9, 8, 4, 12, 5, 10, 11, 6});
  CHECK(a.test == Indices{0, 13, 7, 16, 2});
  const SplitIndices b = split_indices(labels, {.test_size = 7, .seed = 5, .stratify = true});
  CHECK(b.train == Indices{16, 3, 2, 5, 10, 14, 9, 17, 7, 4, 6, 15, 12});
  CHECK(b.test == Indices{19, 18, 0, 11, 1, 8, 13});
  const SplitIndices c = split_indices(labels, {.test_size = 0.5, .seed = 123, .stratify = true});
  CHECK(c.train == Indices{17, 19, 2, 9, 1, 8, 15, 18, 3, 14});
  CHECK(c.test == Indices{10, 4, 5, 13, 16, 7, 6, 11, 12, 0});

  Indices many(70000);
  for (std::int64_t i = 0; i < 70000; ++i)
    many[static_cast<std::size_t>(i)] = i % 17 == 0 ? 3 : i * 7919 % 1000003 % 10;
  const SplitIndices d = split_indices(labels_of(many), {.test_size = 1.0 / 7, .seed = 0, .stratify = true});
  CHECK(mark(d.train) == 62923364796570);
  CHECK(mark(d.test) == 1756988693330);
  const SplitIndices e = split_indices(labels_of(many), {.test_size = 0.8, .seed = 4, .stratify = true});
  CHECK(head(e.train, 4) == Indices{67375, 7165, 57274, 2733});
  CHECK(head(e.test, 4) == Indices{39871, 8181, 42866, 37913});
  CHECK(mark(e.train) == 3406774624156);
  CHECK(mark(e.test) == 54936613980855);
  // What it is for: each class has the same share of the test part, to within one sample.
  std::array<std::int64_t, 10> all{}, part{};
  for (const std::int64_t l : many) ++all[static_cast<std::size_t>(l)];
  for (const std::int64_t i : d.test) ++part[static_cast<std::size_t>(many[static_cast<std::size_t>(i)])];
  for (std::size_t k = 0; k < 10; ++k)
    CHECK(std::abs(static_cast<double>(part[k]) - static_cast<double>(all[k]) / 7) < 1);
}

TEST_CASE("split: rows of a data set") {
  Tensor x = arange(20).viewed_as({10, 2}), y = arange(10, u8);
  const auto [train, test] = train_test_split(Dataset{x, y, 0.5}, {.test_size = 0.25, .seed = 3});
  CHECK(train.labels.to_vector() == std::vector<double>{2, 9, 6, 7, 0, 3, 8});
  CHECK(test.labels.to_vector() == std::vector<double>{5, 4, 1});
  CHECK(test.inputs.to_vector() == std::vector<double>{10, 11, 8, 9, 2, 3});
  CHECK(test.labels.dtype() == u8);
  CHECK(test.scale == 0.5);
  const auto bare = train_test_split(Dataset{x, {}}, {.test_size = 3, .seed = 3});
  CHECK_FALSE(bare.first.labels.defined());
  CHECK(same_bits(bare.second.inputs, test.inputs));

  const Tensor classes = cast(tensor({0, 1, 0, 1, 0, 1, 0, 1, 0, 1}), i64);
  const auto strata = train_test_split(Dataset{x, classes}, {.test_size = 4, .seed = 1, .stratify = true});
  CHECK(sum(cast(strata.second.labels, f32)).item() == 2);
}

TEST_CASE("split: messages") {
  const auto says = [](std::int64_t n, double size) {
    try {
      train_test_split(n, {.test_size = size});
    } catch (const ValueError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  const std::string expected = ": expected a share in (0, 1) or a whole number that leaves samples to train on";
  CHECK(says(10, 0) == "train_test_split: test_size 0 of 10 samples" + expected);
  CHECK(says(10, 10) == "train_test_split: test_size 10 of 10 samples" + expected);
  CHECK(says(10, 2.5) == "train_test_split: test_size 2.5 of 10 samples" + expected);
  CHECK(says(10, 0.95) == "train_test_split: test_size 0.95 of 10 samples" + expected);  // ceil: nothing to train on
  CHECK(says(10, -1) == "train_test_split: test_size -1 of 10 samples" + expected);
  CHECK(says(10, NAN) == "train_test_split: test_size nan of 10 samples" + expected);
  CHECK(says(0, 0.5) == "train_test_split: test_size 0.5 of 0 samples" + expected);
  CHECK(says(10, 9) == "none");

  CHECK_THROWS_WITH_AS(train_test_split(9, {.stratify = true}),
                       "train_test_split: stratify needs the labels, not only their number", ValueError);
  CHECK_THROWS_WITH_AS(train_test_split(Dataset{zeros({4, 1}), {}}, {.stratify = true}),
                       "train_test_split: stratify needs one label for each sample", ValueError);
  const SplitOptions half{.test_size = 0.5, .stratify = true};
  CHECK_THROWS_WITH_AS(split_indices(labels_of({0, 0, 1, 0}), half),
                       "train_test_split: stratify needs two samples of each class, class 1 has one", ValueError);
  CHECK_THROWS_WITH_AS(
      split_indices(labels_of({0, 0, 1, 1}), {.test_size = 1, .stratify = true}),
      "train_test_split: stratify needs room for 2 classes in both parts, got 3 training and 1 test samples",
      ValueError);
  CHECK_THROWS_WITH_AS(split_indices(zeros({4, 10}), half),
                       "train_test_split: stratify needs class numbers, int64 or uint8 (n,), got float32 (4, 10)",
                       ValueError);
}
