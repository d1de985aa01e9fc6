#include <ebb/models/progress.h>

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace ebb {
namespace {
constexpr int bar_width = 30;
using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }
}  // namespace

std::string format_metric(double value) {
  return std::abs(value) > 1e-3 ? fmt::format("{:.4f}", value) : fmt::format("{:.4e}", value);
}

std::string format_step_time(double s) {
  if (s >= 1) return fmt::format("{:.0f}s", s);
  if (s >= 1e-3) return fmt::format("{:.0f}ms", s * 1e3);
  return fmt::format("{:.0f}us", s * 1e6);
}

bool Progress::can_redraw(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(out)) && term && std::strcmp(term, "dumb") != 0;
}

Progress::Progress(std::FILE* out, bool bar, std::int64_t steps)
    : out_(out), bar_(bar), steps_(steps), start_(Clock::now()), drawn_(start_ - std::chrono::seconds(1)) {}

std::string Progress::line(std::int64_t step, Values values, bool last) const {
  const auto total = fmt::format("{}", steps_);
  std::string out = fmt::format("{:>{}}/{} [", step, total.size(), total);
  const auto filled = steps_ ? static_cast<int>(bar_width * step / steps_) : bar_width;
  out += std::string(static_cast<std::size_t>(std::max(0, filled - (last ? 0 : 1))), '=');
  if (!last && filled > 0) out += '>';
  out += std::string(static_cast<std::size_t>(bar_width - filled), '.') + "]";
  const double elapsed = since(start_), each = elapsed / static_cast<double>(std::max<std::int64_t>(1, step));
  if (last) out += fmt::format(" - {:.0f}s {}/step", elapsed, format_step_time(each));
  else out += fmt::format(" - ETA: {:.0f}s", each * static_cast<double>(steps_ - step));
  for (const auto& [name, value] : values) out += fmt::format(" - {}: {}", name, format_metric(value));
  return out;
}

void Progress::update(std::int64_t step, Values values) {
  if (!bar_ || since(drawn_) < 0.05) return;
  drawn_ = Clock::now();
  fmt::print(out_, "\r{}\x1b[K", line(step, values, false));
  std::fflush(out_);
}

void Progress::finish(int epoch, int epochs, Values values) {
  if (bar_) {
    fmt::print(out_, "\r{}\x1b[K\n", line(steps_, values, true));
  } else {
    std::string text = fmt::format("Epoch {}/{} - {:.1f}s", epoch, epochs, since(start_));
    for (const auto& [name, value] : values) text += fmt::format(" - {}: {}", name, format_metric(value));
    fmt::print(out_, "{}\n", text);
  }
  std::fflush(out_);
}

}  // namespace ebb
