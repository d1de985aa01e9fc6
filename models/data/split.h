// Random splits into training and test samples, drawn exactly as scikit-learn draws them.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include <ebb/models/data/dataset.h>

namespace ebb {

/// As of scikit-learn's train_test_split.
struct SplitOptions {
  double test_size = 0.25;  ///< below 1: this share of the samples, rounded up; from 1 on: so many samples
  std::uint32_t seed = 0;   ///< scikit-learn's random_state
  bool stratify = false;    ///< both parts keep the shares of the classes, as stratify=labels does
};

/// Numbers of samples, in the order they were drawn.
struct SplitIndices {
  std::vector<std::int64_t> train, test;  ///< together all samples, or fewer
};

/// 0 to n - 1 shuffled as NumPy's RandomState(seed).permutation(n) does: MT19937, Fisher-Yates from the top, each draw
/// by masked rejection. Throws ValueError when n is negative or above 2^32.
std::vector<std::int64_t> numpy_permutation(std::int64_t n, std::uint32_t seed);

/// train_test_split of n samples: the test part is the beginning of the permutation, the training part what follows.
/// Throws ValueError on a test_size that leaves a part empty, and on `stratify`, which needs labels.
SplitIndices train_test_split(std::int64_t n, const SplitOptions& options = {});

/// The same for data, whose rows are copied. With `stratify` the draw is that of StratifiedShuffleSplit: labels must be
/// int64 or uint8 (n,), each class must have two samples, and each part room for one sample of each class (else
/// ValueError).
std::pair<Dataset, Dataset> train_test_split(const Dataset& data, const SplitOptions& options = {});
/// Only the indices of that split; without `stratify` labels of any kind will do.
SplitIndices split_indices(const Tensor& labels, const SplitOptions& options = {});

}  // namespace ebb
