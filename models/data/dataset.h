// Data for training, and batches of it.
#pragma once
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Inputs (n, ...) and labels (n, ...). uint8 and int64 inputs stay what they are in memory and become floats batch by
/// batch.
struct Dataset {
  Tensor inputs, labels;  ///< labels may be undefined
  double scale = 1;       ///< inputs are multiplied by this as batches are made: 1.0 / 255 for pixels

  std::int64_t size() const { return inputs.defined() ? inputs.size(0) : 0; }  ///< number of samples
  /// Shape of one sample.
  Shape sample() const { return inputs.shape().without(0); }
  /// Rows [begin, end), sharing the storage.
  Dataset slice(std::int64_t begin, std::int64_t end) const;
  /// Copies of the rows with these numbers, in this order. Throws ValueError on a number out of range.
  Dataset take(std::span<const std::int64_t> rows) const;
};

/// All samples of a, then all of b. Throws ShapeError or DTypeError when inputs or labels do not fit together,
/// ValueError when the scales differ or only one part has labels.
Dataset concat(const Dataset& a, const Dataset& b);

/// The first part and the last `fraction` of a data set, taken before any shuffle, cut as Keras' validation_split cuts:
/// at floor(n (1 - fraction)) in double arithmetic. Throws ValueError unless both parts have at least one sample.
std::pair<Dataset, Dataset> split_last(const Dataset& data, double fraction);

/// Some samples, ready for a network.
struct Batch {
  Tensor inputs;  ///< floats
  Tensor labels;  ///< as in the data set
};

/// How an epoch is cut into batches.
struct BatchOptions {
  std::int64_t size = 32;    ///< samples in each
  bool shuffle = true;       ///< false: in the data's order
  std::uint64_t seed = 0;    ///< of the order; the same seed gives the same order
  std::uint64_t stream = 0;  ///< another order of the same seed, such as the epoch's number
  bool drop_last = false;    ///< leave out a last batch that is short
  DType dtype = DType::f32;  ///< of the inputs of a batch
};

/// The batches of one epoch: for (auto [x, y] : Batches(data, {.size = 64, .seed = epoch})) ...
/// Throws ShapeError when inputs and labels differ in number, ValueError on a size below 1.
class Batches {
 public:
  Batches(const Dataset& data, BatchOptions options = {});  ///< the data are shared, not copied
  std::int64_t count() const { return count_; }             ///< number of batches
  /// Throws ValueError when there is no such batch, or on an int64 input that the floats of a batch do not have.
  Batch operator[](std::int64_t i) const;

  /// Makes a batch when it is asked for one.
  class Iterator {
   public:
    using value_type = Batch;                                                       ///< what it gives
    using difference_type = std::ptrdiff_t;                                         ///< as iterators have it
    Iterator(const Batches* batches, std::int64_t i) : batches_(batches), i_(i) {}  ///< from batch i on
    Batch operator*() const { return (*batches_)[i_]; }                             ///< the batch, made now
    /// To the next batch.
    Iterator& operator++() {
      ++i_;
      return *this;
    }
    bool operator==(const Iterator&) const = default;  ///< at the same batch

   private:
    const Batches* batches_;
    std::int64_t i_;
  };
  Iterator begin() const { return {this, 0}; }     ///< the first batch
  Iterator end() const { return {this, count_}; }  ///< past the last batch

 private:
  Dataset data_;
  BatchOptions options_;
  std::int64_t count_;
  std::vector<std::int64_t> order_;  // empty: as it is
};

}  // namespace ebb
