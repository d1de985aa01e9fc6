// MNIST and its drop-in replacements: where they are and how to read them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>
#include <ebb/models/data/dataset.h>
#include <ebb/models/data/split.h>

namespace ebb {

/// Images (n, 28, 28) u8 and labels (n) u8 of one part.
struct Digits {
  static constexpr int side = 28;                     ///< rows of an image, and pixels in each
  static constexpr std::size_t pixels = side * side;  ///< of an image
  Tensor images, labels;                              ///< of the same number
  /// As a network takes them: (n, 28, 28, 1), pixels times `scale`.
  Dataset scaled(double scale = 1.0 / 255) const;
  operator Dataset() const { return scaled(); }                                ///< pixels from 0 to 1
  std::int64_t size() const { return images.defined() ? images.size(0) : 0; }  ///< number of digits
  /// Copies of the images with these numbers, in this order. Throws ValueError on a number out of range.
  Digits take(std::span<const std::int64_t> rows) const;
};

/// A data set with its two parts.
struct Mnist {
  Digits train, test;  ///< 60,000 and 10,000 of MNIST
  std::string name;    ///< "mnist", "fashion-mnist" or "synthetic"
  std::string source;  ///< where it was read from, for messages

  /// Both parts as one table, training images first: MNIST's 70,000 rows as OpenML has them.
  Digits all() const;
  /// Both parts joined and split anew at random, as scikit-learn's train_test_split does (split.h).
  Mnist split_anew(const SplitOptions& options) const;
};

/// The data sets that find_dataset() knows.
enum class DatasetName { mnist, fashion, synthetic };
/// "mnist", "fashion-mnist" or "synthetic".
std::string_view name_of(DatasetName name);

/// Reads the four IDX files of a folder, spelled train-images-idx3-ubyte or train-images.idx3-ubyte, each
/// plain or with .gz. Throws DataError on a missing file, other sizes than 28 x 28, unequal counts, or a
/// label above 9. The name is "fashion-mnist" when the labels are those of Fashion-MNIST, else "mnist".
/// A file instead of a folder is one table (csv.h), whose last seventh, rounded up, becomes the test part: 60,000 and
/// 10,000 of MNIST's 70,000 rows.
Mnist load_mnist(const std::filesystem::path& folder_or_table);

/// Every name under which load_mnist() looks for a file of a folder.
std::vector<std::filesystem::path> digit_files(const std::filesystem::path& folder);

/// Where a data set may be, in the order of the search. With data_dir: that folder and its mnist/
/// (fashion-mnist/), nothing else. Without: $EBB_DATA in the same way; ebb/mnist in XDG_DATA_HOME and each of
/// XDG_DATA_DIRS (for Fashion- MNIST also datasets/fashion-mnist, where Debian's package puts it); ebb/mnist
/// in XDG_CACHE_HOME, where apps/fetch-mnist puts its files. Relative XDG values are ignored. Empty for the
/// synthetic set.
std::vector<std::filesystem::path> dataset_folders(DatasetName name, const std::filesystem::path& data_dir = {});

/// A data set that is in none of the places where it was looked for.
struct DatasetMissing : DataError {
  using DataError::DataError;
};

/// The first of dataset_folders() that holds a train-images file, read with load_mnist(); a folder that turns
/// out to hold the other one of MNIST and Fashion-MNIST is passed over. A place that is a file is read as a table,
/// whatever set was asked for. The synthetic set is generated.
/// Throws DatasetMissing with every place looked at, one per line after the first, and what to do.
Mnist find_dataset(DatasetName name, const std::filesystem::path& data_dir = {});

}  // namespace ebb
