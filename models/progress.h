// Training progress in Keras' manner.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>

namespace ebb {

/// "0.1234", or "8.0959e-04" when the magnitude is at most 1e-3 (Keras' Progbar).
std::string format_metric(double value);
/// "12s", "345ms" or "67us" per step, as Keras rounds.
std::string format_step_time(double seconds);

/// One epoch's progress on a stream: a bar that is redrawn, or one line at the end.
class Progress {
 public:
  using Values = std::span<const std::pair<std::string, double>>;  ///< names and numbers, in the order they are shown
  /// `bar` draws and redraws; otherwise only finish() prints.
  Progress(std::FILE* out, bool bar, std::int64_t steps);
  void update(std::int64_t step, Values values);  ///< `step` steps are done
  void finish(int epoch, int epochs, Values values);  ///< prints the epoch's last line

  /// True when the stream is a terminal that can redraw a line.
  static bool can_redraw(std::FILE* out);

 private:
  std::string line(std::int64_t step, Values values, bool last) const;
  std::FILE* out_;
  bool bar_;
  std::int64_t steps_;
  std::chrono::steady_clock::time_point start_, drawn_;
};

}  // namespace ebb
