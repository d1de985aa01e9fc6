#include <ebb/models/data/split.h>

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <span>

#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using Indices = std::vector<std::int64_t>;

/// RandomState's shuffle. std::mt19937 seeds and draws as NumPy's legacy generator does.
void shuffle(Indices& values, std::mt19937& random) {
  for (std::size_t i = values.size(); i-- > 1;) {
    const auto mask = static_cast<std::uint32_t>(std::bit_ceil(i + 1) - 1);
    std::uint32_t j = 0;
    do j = static_cast<std::uint32_t>(random()) & mask;
    while (j > i);
    std::swap(values[i], values[j]);
  }
}

Indices permutation(std::int64_t n, std::mt19937& random) {
  Indices out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), std::int64_t{0});
  shuffle(out, random);
  return out;
}

std::int64_t test_count(std::int64_t n, double size) {
  const auto total = static_cast<double>(n);
  const double count = size < 1 ? std::ceil(size * total) : size;
  if (!(size > 0 && count < total && count == std::floor(count)))
    throw ValueError(
        fmt::format("train_test_split: test_size {} of {} samples: expected a share in (0, 1) or a whole number "
                    "that leaves samples to train on",
                    size, n));
  return static_cast<std::int64_t>(count);
}

/// How many of `draws` samples come from each class: shares rounded down, then what is missing goes to the largest
/// remainders, equal ones drawn by lot (scikit-learn's _approximate_mode, in the same double arithmetic).
Indices shares(const Indices& counts, std::int64_t draws, std::mt19937& random) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  Indices out;
  std::map<double, Indices, std::greater<>> remainders;  // remainder: the classes that have it
  std::int64_t missing = draws;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double share = static_cast<double>(counts[i]) / total * static_cast<double>(draws);
    out.push_back(static_cast<std::int64_t>(std::floor(share)));
    missing -= out.back();
    remainders[share - std::floor(share)].push_back(static_cast<std::int64_t>(i));
  }
  for (const auto& [_, classes] : remainders) {
    if (missing <= 0) break;
    const Indices lot = permutation(static_cast<std::int64_t>(classes.size()), random);
    const std::int64_t some = std::min(missing, static_cast<std::int64_t>(classes.size()));
    for (std::int64_t i = 0; i < some; ++i)
      ++out[static_cast<std::size_t>(classes[static_cast<std::size_t>(lot[static_cast<std::size_t>(i)])])];
    missing -= some;
  }
  return out;
}

/// The samples of each class, in order of the classes.
std::vector<Indices> by_class(const Tensor& labels) {
  if (labels.rank() != 1 || is_float(labels.dtype()))
    throw ValueError(
        fmt::format("train_test_split: stratify needs class numbers, int64 or uint8 (n,), got {}", describe(labels)));
  const Tensor wide = cast(labels, i64);
  std::map<std::int64_t, Indices> found;
  std::int64_t i = 0;
  for (const std::int64_t label : wide.values<std::int64_t>()) found[label].push_back(i++);
  std::vector<Indices> out;
  for (auto& [label, members] : found) {
    if (members.size() < 2)
      throw ValueError(
          fmt::format("train_test_split: stratify needs two samples of each class, class {} has one", label));
    out.push_back(std::move(members));
  }
  return out;
}

SplitIndices stratified(const Tensor& labels, const SplitOptions& o) {
  const std::int64_t n = labels.rank() ? labels.size(0) : 0, tests = test_count(n, o.test_size), trains = n - tests;
  const std::vector<Indices> classes = by_class(labels);
  const auto least = static_cast<std::int64_t>(classes.size());
  if (tests < least || trains < least)
    throw ValueError(fmt::format(
        "train_test_split: stratify needs room for {} classes in both parts, got {} training and {} test samples",
        least, trains, tests));
  std::mt19937 random(o.seed);
  Indices left;
  for (const Indices& members : classes) left.push_back(static_cast<std::int64_t>(members.size()));
  const Indices of_train = shares(left, trains, random);
  for (std::size_t c = 0; c < classes.size(); ++c) left[c] -= of_train[c];
  const Indices of_test = shares(left, tests, random);

  SplitIndices out;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const Indices order = permutation(static_cast<std::int64_t>(classes[c].size()), random);
    for (std::int64_t i = 0; i < of_train[c] + of_test[c]; ++i)
      (i < of_train[c] ? out.train : out.test)
          .push_back(classes[c][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
  }
  shuffle(out.train, random);
  shuffle(out.test, random);
  return out;
}

}  // namespace

std::vector<std::int64_t> numpy_permutation(std::int64_t n, std::uint32_t seed) {
  if (n < 0 || n > std::int64_t{1} << 32)
    throw ValueError(fmt::format("numpy_permutation: n must be 0 to 2^32, got {}", n));
  std::mt19937 random(seed);
  return permutation(n, random);
}

SplitIndices train_test_split(std::int64_t n, const SplitOptions& o) {
  if (o.stratify) throw ValueError("train_test_split: stratify needs the labels, not only their number");
  const std::int64_t tests = test_count(n, o.test_size);
  const Indices order = numpy_permutation(n, o.seed);
  return {{order.begin() + tests, order.end()}, {order.begin(), order.begin() + tests}};
}

SplitIndices split_indices(const Tensor& labels, const SplitOptions& o) {
  if (o.stratify) return stratified(labels, o);
  return train_test_split(labels.rank() ? labels.size(0) : 0, o);
}

std::pair<Dataset, Dataset> train_test_split(const Dataset& data, const SplitOptions& o) {
  if (o.stratify && (!data.labels.defined() || data.labels.rank() == 0 || data.labels.size(0) != data.size()))
    throw ValueError("train_test_split: stratify needs one label for each sample");
  const SplitIndices rows = o.stratify ? stratified(data.labels, o) : train_test_split(data.size(), o);
  return {data.take(rows.train), data.take(rows.test)};
}

}  // namespace ebb
