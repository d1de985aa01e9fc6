// Training progress as Keras shows it.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ebb {

/// The version of Keras that progress and summary() look like: standalone Keras 2.2; Keras 2.4 to 2.15; Keras 3.
enum class KerasStyle { keras2_2, keras2, keras3 };
/// The style named "keras2.2", "keras2" or "keras3"; throws ValueError on any other name.
KerasStyle style_of(std::string_view name);
std::vector<std::string> style_names();  ///< those that it knows

/// "0.1234", or "8.0959e-04" when the magnitude is at most 1e-3 (Keras' Progbar).
std::string format_metric(double value);
/// "12s", "345ms" or "67us" per step, as Keras rounds; no time at all is "0s".
std::string format_step_time(double seconds);
/// "12s", "2:05" from a minute, "1:02:05" from an hour.
std::string format_eta(double seconds);

/// Options for Progress.
struct ProgressOptions {
  /// What is printed: nothing; a bar that is redrawn; the lines of Keras' verbose = 2; one numbered line per epoch.
  enum Kind { nothing, bar, keras_lines, lines };
  Kind kind = bar;                        ///< what is printed
  KerasStyle style = KerasStyle::keras2;  ///< version of Keras to look like
  bool color = false;                     ///< color the bar of Keras 3
  std::function<double()> clock = {};     ///< seconds; default: a steady clock
};

/// Progress through a number of steps (for Keras 2.2: samples), such as an epoch.
class Progress {
 public:
  using Values = std::span<const std::pair<std::string, double>>;  ///< names and numbers, in the order they are shown
  Progress(std::FILE* out, std::int64_t total, ProgressOptions options = {});  ///< begins now
  /// Draws the bar if the last drawing is 0.05 s old; calls `values` only then.
  void update(std::int64_t done, const std::function<std::vector<std::pair<std::string, double>>()>& values);
  /// The last state of the bar, or the line; `heading` begins the line of Kind lines: "Epoch 1/5".
  void finish(Values values, std::string_view heading = {});

  /// True when the stream is a terminal that can redraw a line: TERM is set and not dumb.
  static bool can_redraw(std::FILE* out);
  /// True when it can redraw and the environment has no NO_COLOR.
  static bool can_color(std::FILE* out);

 private:
  double each(std::int64_t done, double now) const;
  void draw(std::int64_t done, double now, Values values, bool last);
  std::FILE* out_;
  std::int64_t total_;
  ProgressOptions options_;
  double start_, drawn_, after_first_ = -1;
  std::size_t width_ = 0;  // of the last drawing
};

}  // namespace ebb
