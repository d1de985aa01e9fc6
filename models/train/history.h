// What training recorded.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// An epoch that was cut short: how far it came, and the sums of its running means.
struct PartialEpoch {
  std::int64_t batches = 0;            ///< that were done
  double loss = 0;                     ///< the sum of the samples' losses
  std::int64_t correct = 0, seen = 0;  ///< samples
  bool classes = true;                 ///< whether the labels are classes, so that `correct` means something
  double seconds = 0;                  ///< that it took
};

using TensorMap = std::map<std::string, Tensor>;  ///< tensors by name, such as a module's by their paths

/// What a callback needs to go on after an interruption.
struct CallbackState {
  TensorMap tensors = {};                      ///< by any names
  std::map<std::string, double> numbers = {};  ///< likewise
};

/// What fit recorded: one number an epoch for each of loss, accuracy, val_loss, val_accuracy, and what callbacks add
/// (lr).
struct History {
  std::map<std::string, std::vector<double>> values;    ///< by name
  std::vector<double> seconds;                          ///< of each epoch
  bool interrupted = false;                             ///< stopped by FitOptions::interrupted
  PartialEpoch partial = {};                            ///< of the epoch that was interrupted
  std::map<std::string, CallbackState> callbacks = {};  ///< by CallbackBase::name(), a second of that name as NAME_2
  /// The weights (parameters and buffers by path) that training goes on from, where it left the module with others: the
  /// best ones, or averages.
  TensorMap weights = {};
  int epochs() const { return static_cast<int>(seconds.size()); }  ///< number of whole epochs
  /// The numbers of one key; throws ValueError listing the keys there are.
  const std::vector<double>& operator[](const std::string& key) const;
};

/// Reads what CSVLogger wrote with commas, or Keras' callback of that name: a line of names that begins with "epoch",
/// then one for each epoch; NA is NaN. The epochs' numbers are not kept, and the seconds, which are not there, are 0.
/// Throws DataError with the line, IoError.
History load_history_csv(const std::filesystem::path& path);

}  // namespace ebb
