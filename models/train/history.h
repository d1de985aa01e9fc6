// The record of a training.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// An epoch that was interrupted: the sums over its batches so far.
struct PartialEpoch {
  std::int64_t batches = 0;            ///< number of batches
  double loss = 0;                     ///< sum of the samples' losses
  std::int64_t correct = 0, seen = 0;  ///< numbers of samples
  bool classes = true;                 ///< the labels are classes; else `correct` is not counted
  double seconds = 0;                  ///< duration
};

using TensorMap = std::map<std::string, Tensor>;  ///< tensors by name, such as a module's by their paths

/// The state of a callback, for continuing after an interruption.
struct CallbackState {
  TensorMap tensors = {};                      ///< by names of its own
  std::map<std::string, double> numbers = {};  ///< likewise
};

/// The record of fit(): one number per epoch for each of loss, accuracy, val_loss, val_accuracy, and what callbacks add
/// (lr).
struct History {
  std::map<std::string, std::vector<double>> values;    ///< by name
  std::vector<double> seconds;                          ///< duration of each epoch
  bool interrupted = false;                             ///< stopped by FitOptions::interrupted
  PartialEpoch partial = {};                            ///< the epoch that was interrupted
  std::map<std::string, CallbackState> callbacks = {};  ///< by CallbackBase::name(), a second of that name as NAME_2
  /// The weights (parameters and buffers by path) that training continues from, where the module was left with others,
  /// such as averages or those of the best epoch.
  TensorMap weights = {};
  int epochs() const { return static_cast<int>(seconds.size()); }  ///< number of whole epochs
  /// The numbers of one key; throws ValueError listing the keys.
  const std::vector<double>& operator[](const std::string& key) const;
};

/// Reads a file of CSVLogger, of ebb or Keras, with commas: a line of names that begins with "epoch", then one line per
/// epoch; NA is NaN. The seconds, which the file lacks, are 0. Throws DataError with the line, IoError.
History load_history_csv(const std::filesystem::path& path);

}  // namespace ebb
