#include <ebb/models/train/progress.h>

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/names.h>
#include <ebb/models/train/tell.h>

namespace ebb {
namespace {

std::string metrics(KerasStyle style, Progress::Values values) {
  std::vector<std::pair<std::string, double>> shown(values.begin(), values.end());
  if (style == KerasStyle::keras3) std::ranges::stable_sort(shown, {}, &std::pair<std::string, double>::first);
  std::string out;
  for (auto& [name, value] : shown) {
    // Keras 2.2 named the metric as its user did in these years
    if (style == KerasStyle::keras2_2 && name.ends_with("accuracy")) name.resize(name.size() - 5);
    out += fmt::format(" - {}: {}", name, format_metric(value));
  }
  return out;
}

std::string repeat(std::string_view text, std::int64_t times) {
  std::string out;
  for (std::int64_t i = 0; i < times; ++i) out += text;
  return out;
}

struct Look {
  const char *bold = "\x1b[1m", *green = "\x1b[32m", *white = "\x1b[37m", *off = "\x1b[0m";
};

constexpr std::pair<std::string_view, KerasStyle> styles[] = {
    {"keras2.2", KerasStyle::keras2_2}, {"keras2", KerasStyle::keras2}, {"keras3", KerasStyle::keras3}};

}  // namespace

std::vector<std::string> style_names() {
  std::vector<std::string> out;
  for (const auto& [name, style] : styles) out.emplace_back(name);
  return out;
}

KerasStyle style_of(std::string_view name) {
  for (const auto& [known, style] : styles)
    if (known == name) return style;
  throw ValueError(detail::unknown_name("style", name, style_names()));
}

std::string format_metric(double value) {
  return std::abs(value) > 1e-3 ? fmt::format("{:.4f}", value) : fmt::format("{:.4e}", value);
}

std::string format_step_time(double s) {
  if (s >= 1 || s == 0) return fmt::format("{:.0f}s", s);
  if (s >= 1e-3) return fmt::format("{:.0f}ms", s * 1e3);
  return fmt::format("{:.0f}us", s * 1e6);
}

std::string format_eta(double seconds) {
  const auto s = static_cast<std::int64_t>(seconds);
  if (seconds > 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s % 3600 / 60, s % 60);
  if (seconds > 60) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}s", s);
}

bool Progress::can_redraw(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(out)) && term && std::strcmp(term, "dumb") != 0;
}

bool Progress::can_color(std::FILE* out) {
  const char* no = std::getenv("NO_COLOR");
  return can_redraw(out) && !(no && *no);
}

Progress::Progress(std::FILE* out, std::int64_t total, ProgressOptions options)
    : out_(out), total_(total), options_(std::move(options)) {
  if (!options_.clock)
    options_.clock = [] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    };
  start_ = options_.clock();
  drawn_ = start_ - 1;
}

/// Mean time of a step; the first one, which warms up, does not count when there are others.
double Progress::each(std::int64_t done, double now) const {
  if (done == 0) return 0;
  if (options_.style != KerasStyle::keras2_2 && after_first_ >= 0 && done > 1)
    return (now - after_first_) / static_cast<double>(done - 1);
  return (now - start_) / static_cast<double>(done);
}

void Progress::draw(std::int64_t done, double now, Values values, bool last) {
  const auto total = fmt::format("{}", total_);
  const std::string count = fmt::format("{:>{}}/{}", done, total.size(), total),
                    step = format_step_time(each(done, now)) + "/step";
  const std::string eta = format_eta(each(done, now) * static_cast<double>(total_ - done)),
                    elapsed = fmt::format("{:.0f}s", now - start_);
  std::string text;
  std::size_t width = 0;
  if (options_.style == KerasStyle::keras3) {
    const Look look = options_.color ? Look{} : Look{"", "", "", ""};
    const std::int64_t wide = 20, filled = total_ ? wide * done / total_ : wide;
    const std::string tail = " " + step + metrics(options_.style, values);
    text = fmt::format("{}{}{} ", look.bold, count, look.off);
    if (filled > 0) text += look.green + repeat("━", filled) + look.off;
    text += look.white + repeat("━", wide - filled) + look.off;
    text += fmt::format(" {}{}{}{}", look.bold, last ? elapsed : eta, look.off, tail);
    width = count.size() + 1 + static_cast<std::size_t>(wide) + 1 + (last ? elapsed : eta).size() + tail.size();
  } else {
    const std::int64_t wide = 30, filled = total_ ? wide * done / total_ : wide;
    text = count + " [" + repeat("=", filled - 1);
    if (filled > 0) text += done < total_ ? '>' : '=';
    text += repeat(".", wide - filled) + "]";
    text += last ? fmt::format(" - {} {}", elapsed, step) : fmt::format(" - ETA: {}", eta);
    text += metrics(options_.style, values);
    width = text.size();
  }
  if (width_ > width) text += std::string(width_ - width, ' ');  // over what is left of the last drawing
  width_ = width;
  tell(out_, fmt::format("\r{}{}", text, last ? "\n" : ""));
}

void Progress::update(std::int64_t done, const std::function<std::vector<std::pair<std::string, double>>()>& values) {
  if (options_.kind == ProgressOptions::nothing) return;
  const double now = options_.clock();
  if (options_.kind == ProgressOptions::bar && now - drawn_ >= 0.05) {
    draw(done, now, values ? values() : std::vector<std::pair<std::string, double>>(), false);
    drawn_ = now;
  }
  if (after_first_ < 0) after_first_ = done == 1 ? now : -1;
}

void Progress::finish(Values values, std::string_view heading) {
  const double now = options_.clock(), elapsed = now - start_;
  const std::string numbers = metrics(options_.style, values),
                    step = format_step_time(elapsed / static_cast<double>(std::max<std::int64_t>(1, total_)));
  switch (options_.kind) {
    case ProgressOptions::nothing: return;
    case ProgressOptions::bar: return draw(total_, now, values, true);
    case ProgressOptions::lines: return tell(out_, fmt::format("{} - {:.1f}s{}\n", heading, elapsed, numbers));
    case ProgressOptions::keras_lines: break;
  }
  switch (options_.style) {
    case KerasStyle::keras2_2: return tell(out_, fmt::format(" - {:.0f}s{}\n", elapsed, numbers));
    case KerasStyle::keras2:
      return tell(out_, fmt::format("{0}/{0} - {1:.0f}s{2} - {3}/epoch - {4}/step\n", total_, elapsed, numbers,
                                    format_step_time(elapsed), step));
    case KerasStyle::keras3:
      return tell(out_, fmt::format("{0}/{0} - {1:.0f}s - {2}/step{3}\n", total_, elapsed,
                                    format_step_time(each(total_, now)), numbers));
  }
}

}  // namespace ebb
