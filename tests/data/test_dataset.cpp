#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/dataset.h>
#include <ebb/ops/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace {

using namespace ebb;

/// n rows of two numbers, (i, 2 i), labeled i.
Dataset numbered(std::int64_t n) {
  Tensor x = Tensor::empty({n, 2}), y = Tensor::empty({n}, i64);
  auto to = x.mutable_values<float>();
  auto label = y.mutable_values<std::int64_t>();
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    to[2 * i] = static_cast<float>(i);
    to[2 * i + 1] = static_cast<float>(2 * i);
    label[i] = static_cast<std::int64_t>(i);
  }
  return {x, y};
}

/// Small data of any number of samples, to count batches of.
Dataset empty_rows(std::int64_t n) { return {Tensor::empty({n, 1}, u8), Tensor::empty({n}, u8)}; }

/// The order in which the batches bring the samples.
std::vector<double> order_of(const Dataset& data, const BatchOptions& options) {
  std::vector<double> out;
  for (auto [x, y] : Batches(data, options)) {
    const auto labels = y.to_vector();
    out.insert(out.end(), labels.begin(), labels.end());
  }
  return out;
}

std::vector<double> counted(std::int64_t n) {
  std::vector<double> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0.0);
  return out;
}

/// Steps from one float to another, counting the floats between.
std::int32_t floats_apart(float a, float b) {
  std::int32_t i, j;
  std::memcpy(&i, &a, 4);
  std::memcpy(&j, &b, 4);
  return std::abs(i - j);
}

}  // namespace

TEST_CASE("dataset: split_last cuts where Keras cuts") {
  struct Row {
    std::int64_t n;
    double fraction;
    std::int64_t first, last;
  };
  for (const Row& row : {Row{70000, 0.8, 13999, 56001}, Row{70000, 0.25, 52500, 17500}, Row{60000, 0.1, 54000, 6000},
                         Row{10, 0.5, 5, 5}, Row{2, 0.5, 1, 1}, Row{3, 0.1, 2, 1}}) {
    CAPTURE(row.n);
    const auto [first, last] = split_last(empty_rows(row.n), row.fraction);
    CHECK(first.size() == row.first);
    CHECK(last.size() == row.last);
  }
}

TEST_CASE("dataset: the parts of a split follow each other and share the storage") {
  Dataset data = numbered(10);
  data.scale = 0.5;
  const auto [first, last] = split_last(data, 0.3);
  CHECK(first.labels.to_vector() == counted(7));
  CHECK(last.labels.to_vector() == std::vector<double>{7, 8, 9});
  CHECK(last.inputs.to_vector() == std::vector<double>{7, 14, 8, 16, 9, 18});
  CHECK(last.inputs.storage() == data.inputs.storage());
  CHECK(first.scale == 0.5);
  CHECK(last.scale == 0.5);

  const Dataset part = data.slice(2, 4);
  CHECK(part.size() == 2);
  CHECK(part.labels.to_vector() == std::vector<double>{2, 3});
  CHECK(part.sample() == Shape{2});
  CHECK(Dataset{data.inputs, {}}.slice(1, 3).size() == 2);
  CHECK(Dataset{}.size() == 0);
  CHECK_THROWS_WITH_AS(data.slice(5, 11), "rows: [5, 11) is not a range of the first axis of (10, 2)", ShapeError);
}

TEST_CASE("dataset: a split must leave samples on both sides") {
  const Dataset data = numbered(4);
  CHECK_THROWS_WITH_AS(split_last(data, 0), "validation_split: 0 of 4 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(split_last(data, 1), "validation_split: 1 of 4 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(split_last(data, 0.9), "validation_split: 0.9 of 4 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(split_last(data, -0.2), "validation_split: -0.2 of 4 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(split_last(data, NAN), "validation_split: nan of 4 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(split_last(data, -1e300), "validation_split: -1e+300 of 4 samples leaves an empty part",
                       ValueError);
  CHECK_THROWS_WITH_AS(split_last(numbered(1), 0.5), "validation_split: 0.5 of 1 samples leaves an empty part",
                       ValueError);
  CHECK_THROWS_AS(split_last(Dataset{}, 0.5), ValueError);
}

TEST_CASE("dataset: rows by number, and two sets as one") {
  Dataset data = numbered(5);
  data.scale = 0.5;
  const std::vector<std::int64_t> rows{4, 0, 4};
  const Dataset taken = data.take(rows);
  CHECK(taken.labels.to_vector() == std::vector<double>{4, 0, 4});
  CHECK(taken.inputs.to_vector() == std::vector<double>{4, 8, 0, 0, 4, 8});
  CHECK(taken.scale == 0.5);
  CHECK(data.take(std::vector<std::int64_t>{}).size() == 0);
  CHECK_FALSE(Dataset{data.inputs, {}}.take(rows).labels.defined());
  CHECK_THROWS_WITH_AS(data.take(std::vector<std::int64_t>{5}), "gather: index 5 is outside of [0, 5)", ValueError);

  const Dataset joined = concat(data, taken);
  CHECK(joined.labels.to_vector() == std::vector<double>{0, 1, 2, 3, 4, 4, 0, 4});
  CHECK(joined.labels.dtype() == i64);
  CHECK(joined.inputs.shape() == Shape{8, 2});
  CHECK(joined.scale == 0.5);
  CHECK_THROWS_WITH_AS(concat(data, numbered(2)), "concat: the data sets have scales 0.5 and 1", ValueError);
  CHECK_THROWS_WITH_AS(concat(data, {data.inputs, {}, 0.5}), "concat: only one of the data sets has labels",
                       ValueError);
  CHECK_THROWS_AS(concat(data, {zeros({2, 3}), zeros({2}, i64), 0.5}), ShapeError);
  CHECK_THROWS_AS(concat(data, {zeros({2, 2}, u8), zeros({2}, i64), 0.5}), DTypeError);
}

TEST_CASE("dataset: numbers of batches") {
  struct Row {
    std::int64_t n, size, count;
  };
  for (const Row& row : {Row{13999, 32, 438}, Row{52500, 32, 1641}, Row{54000, 128, 422}, Row{54000, 16, 3375},
                         Row{60000, 128, 469}, Row{60000, 32, 1875}, Row{10000, 32, 313}, Row{1, 32, 1}, Row{32, 32, 1},
                         Row{33, 32, 2}, Row{0, 32, 0}, Row{5, std::numeric_limits<std::int64_t>::max(), 1}}) {
    CAPTURE(row.n);
    CAPTURE(row.size);
    CHECK(Batches(empty_rows(row.n), {.size = row.size, .shuffle = false}).count() == row.count);
    CHECK(Batches(empty_rows(row.n), {.size = row.size, .shuffle = false, .drop_last = true}).count() ==
          row.n / row.size);
  }
}

TEST_CASE("dataset: batches in order, the last one short") {
  const Dataset data = numbered(7);
  const Batches batches(data, {.size = 3, .shuffle = false});
  REQUIRE(batches.count() == 3);
  CHECK(batches[0].inputs.shape() == Shape{3, 2});
  CHECK(batches[1].inputs.to_vector() == std::vector<double>{3, 6, 4, 8, 5, 10});
  CHECK(batches[2].inputs.to_vector() == std::vector<double>{6, 12});
  CHECK(batches[2].labels.to_vector() == std::vector<double>{6});
  CHECK(batches[2].labels.dtype() == i64);
  CHECK(order_of(data, {.size = 3, .shuffle = false}) == counted(7));
  CHECK(order_of(data, {.size = 3, .shuffle = false, .drop_last = true}) == counted(6));
  CHECK(order_of(data, {.size = 100, .shuffle = false}) == counted(7));

  const Batches bare({data.inputs, {}}, {.size = 4, .shuffle = false});
  CHECK_FALSE(bare[0].labels.defined());
  CHECK(bare[1].inputs.shape() == Shape{3, 2});
}

TEST_CASE("dataset: bytes become floats, scaled") {
  Tensor x = Tensor::empty({256, 1}, u8);
  for (std::size_t i = 0; i < 256; ++i) x.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
  const Dataset data{x, {}, 1.0 / 255};
  const Batch b = Batches(data, {.size = 256, .shuffle = false})[0];
  const auto v = b.inputs.values<float>();
  for (int i = 0; i < 256; ++i) {
    CAPTURE(i);
    const float pixel = static_cast<float>(i), got = v[static_cast<std::size_t>(i)];
    CHECK(got == pixel * static_cast<float>(1.0 / 255));
    CHECK(floats_apart(got, pixel / 255.0f) <= 1);
  }
  CHECK(v[255] == 1.0f);

  const Batch raw = Batches({x, {}}, {.size = 256, .shuffle = false})[0];
  CHECK(raw.inputs.dtype() == f32);
  CHECK(raw.inputs.to_vector() == counted(256));

  const Batch wide = Batches(data, {.size = 256, .shuffle = false, .dtype = f64})[0];
  CHECK(wide.inputs.values<double>()[51] == 51 * (1.0 / 255));
  const Batch whole = Batches({tensor({1, -2}, {2, 1}, i64), {}, 0.5}, {.shuffle = false})[0];
  CHECK(whole.inputs.to_vector() == std::vector<double>{0.5, -1});
}

TEST_CASE("dataset: a shuffle is a permutation of seed and stream alone") {
  const Dataset data = numbered(101);
  const auto order = order_of(data, {.size = 10, .seed = 5, .stream = 2});
  auto sorted = order;
  std::ranges::sort(sorted);
  CHECK(sorted == counted(101));
  CHECK(order != counted(101));

  manual_seed(99);  // the default generator has no part in it
  CHECK(order_of(data, {.size = 10, .seed = 5, .stream = 2}) == order);
  CHECK(order_of(data, {.size = 7, .seed = 5, .stream = 2}) == order);
  CHECK(order_of(data, {.size = 10, .seed = 5, .stream = 3}) != order);
  CHECK(order_of(data, {.size = 10, .seed = 6, .stream = 2}) != order);
  auto dropped = order_of(data, {.size = 10, .seed = 5, .stream = 2, .drop_last = true});
  CHECK(dropped.size() == 100);
  CHECK(std::equal(dropped.begin(), dropped.end(), order.begin()));

  // Batches may be asked for in any order, and again.
  const Batches batches(data, {.size = 10, .seed = 5, .stream = 2});
  CHECK(batches[10].labels.to_vector() == std::vector<double>{order[100]});
  CHECK(batches[3].labels.to_vector() == std::vector<double>(order.begin() + 30, order.begin() + 40));
}

TEST_CASE("dataset: labels follow their samples") {
  const Dataset data = numbered(50);
  for (auto [x, y] : Batches(data, {.size = 8, .seed = 3})) {
    const auto v = x.to_vector(), label = y.to_vector();
    for (std::size_t i = 0; i < label.size(); ++i) {
      CHECK(v[2 * i] == label[i]);
      CHECK(v[2 * i + 1] == 2 * label[i]);
    }
  }

  Tensor classes = Tensor::empty({50}, u8);
  for (std::size_t i = 0; i < 50; ++i) classes.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i % 10);
  const Dataset hot{data.inputs, one_hot(classes, 10)};
  std::int64_t rows = 0;
  for (auto [x, y] : Batches(hot, {.size = 8, .seed = 3})) {
    CHECK(y.shape() == Shape{x.size(0), 10});
    CHECK(y.dtype() == f32);
    const auto v = x.to_vector(), row = y.to_vector();
    for (std::size_t i = 0; i < static_cast<std::size_t>(x.size(0)); ++i, ++rows)
      for (std::size_t c = 0; c < 10; ++c)
        CHECK(row[10 * i + c] == (c == static_cast<std::size_t>(v[2 * i]) % 10 ? 1.0 : 0.0));
  }
  CHECK(rows == 50);
}

TEST_CASE("dataset: images keep their shape") {
  const Dataset data{zeros({5, 4, 3, 2}, u8), zeros({5}, u8)};
  CHECK(data.sample() == Shape{4, 3, 2});
  const Batches batches(data, {.size = 2});
  CHECK(batches[2].inputs.shape() == Shape{1, 4, 3, 2});
}

TEST_CASE("dataset: messages") {
  const Dataset data = numbered(4);
  CHECK_THROWS_WITH_AS(Batches(data, {.size = 0}), "batches: the size must be at least 1, got 0", ValueError);
  CHECK_THROWS_WITH_AS(Batches({data.inputs, zeros({3}, i64)}),
                       "batches: inputs (4, 2) and labels (3,) differ in number", ShapeError);
  CHECK_THROWS_WITH_AS(Batches({data.inputs, scalar(1)}), "batches: inputs (4, 2) and labels () differ in number",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Batches(data, {.dtype = u8}), "batches: inputs become floats, asked for uint8", DTypeError);
  const Batches batches(data, {.size = 3});
  CHECK_THROWS_WITH_AS(batches[2], "batches: there is no batch 2 of 2", ValueError);
  CHECK_THROWS_WITH_AS(batches[-1], "batches: there is no batch -1 of 2", ValueError);
}
