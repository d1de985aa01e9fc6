// What training recorded.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ebb {

/// An epoch that was cut short: how far it came, and the sums of its running means.
struct PartialEpoch {
  std::int64_t batches = 0;
  double loss = 0;
  std::int64_t correct = 0, seen = 0;
};

/// What fit recorded: one number an epoch for each of loss, accuracy, val_loss, val_accuracy, and what callbacks add (lr).
struct History {
  std::map<std::string, std::vector<double>> values;
  std::vector<double> seconds;  ///< of each epoch
  bool interrupted = false;     ///< stopped by FitOptions::interrupted
  PartialEpoch partial = {};    ///< of the epoch that was interrupted
  int epochs() const { return static_cast<int>(seconds.size()); }
  /// The numbers of one key; throws ValueError listing the keys there are.
  const std::vector<double>& operator[](const std::string& key) const;
};

}  // namespace ebb
