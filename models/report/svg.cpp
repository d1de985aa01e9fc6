#include <ebb/models/report/svg.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/report/metrics.h>

namespace ebb {
namespace {

/// Length of the UTF-8 character at i, 0 where there is none.
std::size_t character(const std::string& s, std::size_t i) {
  const auto byte = [&](std::size_t k) { return i + k < s.size() ? static_cast<unsigned char>(s[i + k]) : 0u; };
  const unsigned b = byte(0), second = byte(1);
  const std::size_t n = b < 0x80                ? 1
                        : b >= 0xc2 && b < 0xe0 ? 2
                        : b >= 0xe0 && b < 0xf0 ? 3
                        : b >= 0xf0 && b < 0xf5 ? 4
                                                : 0;
  for (std::size_t k = 1; k < n; ++k)
    if ((byte(k) & 0xc0) != 0x80) return 0;
  const bool invalid = (b == 0xe0 && second < 0xa0) || (b == 0xed && second >= 0xa0) || (b == 0xf0 && second < 0x90) ||
                       (b == 0xf4 && second >= 0x90) || (b == 0xef && second == 0xbf && byte(2) >= 0xbe);
  return invalid ? 0 : n;
}

/// Text as XML takes it; what it cannot hold becomes a question mark.
std::string escaped(const std::string& s) {
  std::string out;
  for (std::size_t i = 0; i < s.size();) {
    const std::size_t n = character(s, i);
    if (s[i] == '<') out += "&lt;";
    else if (s[i] == '>') out += "&gt;";
    else if (s[i] == '&') out += "&amp;";
    else if (n == 0 || (n == 1 && (static_cast<unsigned char>(s[i]) < 0x20 || s[i] == 0x7f))) out += '?';
    else out += s.substr(i, n);
    i += std::max<std::size_t>(n, 1);
  }
  return out;
}

/// At most 24 characters of a name, so that a legend leaves room for what it explains.
std::string shortened(const std::string& name) {
  std::size_t end = 0, last = 0;
  for (int count = 0; end < name.size(); ++count) {
    if (count == 24) return name.substr(0, last) + "\u2026";
    last = end;
    end += std::max<std::size_t>(character(name, end), 1);
  }
  return name;
}

struct Box {
  double x, y, width, height;
};

// Okabe and Ito's colors, which most eyes tell apart, and two more for the tenth digit.
constexpr std::array<const char*, 10> colors{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                             "#56b4e9", "#5b3a99", "#7f7f7f", "#000000", "#8b5a2b"};

std::string text_at(double x, double y, double size, std::string_view anchor, const std::string& text,
                    std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     size, anchor, more, escaped(text));
}
std::string line_at(double x1, double y1, double x2, double y2, std::string_view style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2, style);
}

std::string frame(const Box& b) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" stroke=\"#444\"/>\n", b.x, b.y,
      b.width, b.height);
}

/// Title above, labels below and to the left of the box in which values are drawn.
std::string labels_around(const Box& b, const std::string& title, const std::string& x_label,
                          const std::string& y_label, double left) {
  std::string out;
  if (!title.empty()) out += text_at(b.x + b.width / 2, b.y - 14, 17, "middle", title);
  if (!x_label.empty()) out += text_at(b.x + b.width / 2, b.y + b.height + 44, 15, "middle", x_label);
  if (!y_label.empty()) {
    const double x = left + 18, y = b.y + b.height / 2;
    out += text_at(x, y, 15, "middle", y_label, fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", x, y));
  }
  return out;
}

/// Where an axis begins and ends, and its ticks: multiples of 1, 2 or 5 times a power of ten.
struct Axis {
  double low, high, step;
  Axis(double least, double most, double margin, bool whole, int ticks = 6) : low(least), high(most) {
    if (!(least <= most)) low = 0, high = 1;  // nothing to show
    double spread = high - low;
    if (spread <= 1e-9 * std::max(std::abs(low), std::abs(high)) || spread == 0)
      spread = std::max(std::abs(low) * 0.1, whole ? 1.0 : 1e-3);
    if (high - low < spread / 2) low -= spread / 2, high += spread / 2;
    low -= margin * spread;
    high += margin * spread;
    const double raw = (high - low) / ticks, power = std::pow(10, std::floor(std::log10(raw)));
    step = (raw <= power ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10) * power;
    if (whole) step = std::max(step, 1.0);
  }
  double place(double v) const { return (v - low) / (high - low); }
  std::vector<double> ticks() const {
    std::vector<double> out;
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) out.push_back(i * step + 0.0);
    return out;
  }
  std::string label(double v) const {
    const double most = std::max(std::abs(low), std::abs(high));
    if (most >= 1e6 || most < 1e-3) return fmt::format("{:g}", v);
    return fmt::format("{:.{}f}", v, std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9))));
  }
};

std::string draw(const LineChart& chart, const Box& panel) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double x_low = infinity, x_high = -infinity, y_low = infinity, y_high = -infinity;
  bool whole = true;
  for (const Line& line : chart.lines) {
    if (line.x.size() != line.y.size())
      throw ShapeError(fmt::format("svg: line \"{}\" has {} x and {} y", line.name, line.x.size(), line.y.size()));
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!std::isfinite(line.x[i]) || !std::isfinite(line.y[i])) continue;
      x_low = std::min(x_low, line.x[i]), x_high = std::max(x_high, line.x[i]);
      y_low = std::min(y_low, line.y[i]), y_high = std::max(y_high, line.y[i]);
      whole = whole && line.x[i] == std::floor(line.x[i]);
    }
  }
  const Axis across(x_low, x_high, 0.03, whole && x_high - x_low != 1), up(y_low, y_high, 0.05, false);
  const Box b{panel.x + 82, panel.y + 44, panel.width - 106, panel.height - 104};
  const auto px = [&](double v) { return b.x + across.place(v) * b.width; };
  const auto py = [&](double v) { return b.y + (1 - up.place(v)) * b.height; };

  std::string out;
  for (const double t : across.ticks()) {
    out += line_at(px(t), b.y, px(t), b.y + b.height, "stroke=\"#e4e4e4\"");
    out += text_at(px(t), b.y + b.height + 20, 13, "middle", across.label(t));
  }
  for (const double t : up.ticks()) {
    out += line_at(b.x, py(t), b.x + b.width, py(t), "stroke=\"#e4e4e4\"");
    out += text_at(b.x - 8, py(t) + 4.5, 13, "end", up.label(t));
  }
  out += frame(b);
  out += labels_around(b, chart.title, chart.x_label, chart.y_label, panel.x);

  // Lines, and where they pass: places across and up from 0 to 1, for the legend to keep away from
  std::vector<std::pair<double, double>> passed;
  std::string key;
  double widest = 0;
  int next = 0, named = 0;
  for (const Line& line : chart.lines) {
    const std::string color = colors[static_cast<std::size_t>(line.color >= 0 ? line.color : next++) % colors.size()];
    const std::string stroke =
        fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", color, line.dashed ? " stroke-dasharray=\"7 4\"" : "");
    std::vector<std::pair<double, double>> run;  // points up to a gap
    const auto finish = [&] {
      if (run.size() == 1)
        out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n", px(run[0].first),
                           py(run[0].second), color);
      if (run.size() > 1) {
        out += fmt::format("<polyline fill=\"none\" stroke-linejoin=\"round\" {} points=\"", stroke);
        double drawn_x = -infinity, drawn_y = -infinity;
        for (std::size_t i = 0; i < run.size(); ++i) {
          const double x = px(run[i].first), y = py(run[i].second);
          if (std::hypot(x - drawn_x, y - drawn_y) < 0.5 && i + 1 < run.size())
            continue;  // a curve may have thousands of points
          out += fmt::format("{:.1f},{:.1f} ", drawn_x = x, drawn_y = y);
        }
        out.back() = '"';
        out += "/>\n";
      }
      for (std::size_t i = 0; i < run.size(); ++i)
        for (double part = 0; part < (i + 1 < run.size() ? 1 : 0.01); part += 0.1) {
          const auto& [x, y] = run[i];
          const auto& [x2, y2] = run[std::min(i + 1, run.size() - 1)];
          passed.emplace_back(across.place(x + part * (x2 - x)), up.place(y + part * (y2 - y)));
        }
      run.clear();
    };
    for (std::size_t i = 0; i < line.x.size(); ++i)
      if (std::isfinite(line.x[i]) && std::isfinite(line.y[i])) run.emplace_back(line.x[i], line.y[i]);
      else finish();
    finish();
    if (line.name.empty()) continue;
    const double y = 20.0 * named++;
    key += line_at(10, y + 15, 36, y + 15, stroke) + text_at(43, y + 19.5, 13, "start", shortened(line.name));
    widest = std::max(widest, 60 + 7.6 * static_cast<double>(shortened(line.name).size()));
  }
  if (named == 0) return out;
  const double tall = 20.0 * named + 10, wide = std::min(widest, b.width - 16);
  double best_x = 0, best_y = 0;
  std::ptrdiff_t fewest = std::numeric_limits<std::ptrdiff_t>::max();
  for (const bool top : {true, false})
    for (const bool right : {true, false}) {
      const double x = right ? 1 - (wide + 16) / b.width : 0, y = top ? 1 - (tall + 16) / b.height : 0;
      const auto hidden = std::ranges::count_if(passed, [&](const auto& p) {
        return (right ? p.first >= x : p.first <= (wide + 16) / b.width) &&
               (top ? p.second >= y : p.second <= (tall + 16) / b.height);
      });
      if (hidden >= fewest) continue;
      fewest = hidden;
      best_x = right ? b.x + b.width - wide - 8 : b.x + 8;
      best_y = top ? b.y + 8 : b.y + b.height - tall - 8;
    }
  return out + fmt::format(
                   "<g transform=\"translate({:.1f} {:.1f})\">\n<rect width=\"{:.1f}\" height=\"{:.1f}\" rx=\"4\" "
                   "fill=\"#fff\" fill-opacity=\"0.7\" "
                   "stroke=\"#bbb\"/>\n{}</g>\n",
                   best_x, best_y, wide, tall, key);
}

struct Color {
  double r, g, b;
};
/// From the first of three colors over the second to the third.
Color shade(double t, bool diverging) {
  static constexpr std::array<Color, 3> two{{{59, 76, 192}, {221, 221, 221}, {180, 4, 38}}};  // Moreland 2009
  static constexpr std::array<Color, 3> one{{{255, 255, 255}, {107, 174, 214}, {8, 48, 107}}};
  const auto& c = diverging ? two : one;
  const Color &a = c[t < 0.5 ? 0 : 1], &z = c[t < 0.5 ? 1 : 2];
  const double s = t < 0.5 ? 2 * t : 2 * t - 1;
  return {a.r + s * (z.r - a.r), a.g + s * (z.g - a.g), a.b + s * (z.b - a.b)};
}
std::string hex(const Color& c) {
  return fmt::format("#{:02x}{:02x}{:02x}", std::lround(c.r), std::lround(c.g), std::lround(c.b));
}

std::string draw(const HeatMap& map, const Box& panel) {
  if (!map.values.defined() || map.values.rank() != 2 || map.values.numel() == 0)
    throw ShapeError(
        fmt::format("svg: a heat map needs a matrix, got {}", map.values.defined() ? describe(map.values) : "none"));
  const auto values = map.values.to_vector();
  const auto rows = static_cast<std::size_t>(map.values.size(0)),
             columns = static_cast<std::size_t>(map.values.size(1));
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double v : values)
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  const Axis scale(low, high, 0, false);
  if (low < high) low = scale.low, high = scale.high;

  const Box b{panel.x + 70, panel.y + 44, panel.width - 160, panel.height - 104};
  const double w = b.width / static_cast<double>(columns), h = b.height / static_cast<double>(rows);
  std::vector<std::string> texts;
  std::size_t longest = 1;
  for (const double v : values) {
    texts.push_back(is_float(map.values.dtype()) ? fmt::format("{:.3g}", v) : fmt::format("{:.0f}", v));
    longest = std::max(longest, texts.back().size());
  }
  const double size = std::min({h * 0.5, w * 0.9 / (0.6 * static_cast<double>(longest)), 18.0});
  std::string out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = b.x + static_cast<double>(i % columns) * w, y = b.y + static_cast<double>(i / columns) * h;
    const bool known = std::isfinite(values[i]);
    const Color c =
        known ? shade(low < high ? (values[i] - low) / (high - low) : 0.5, map.diverging) : Color{255, 255, 255};
    const bool dark = 0.299 * c.r + 0.587 * c.g + 0.114 * c.b < 140;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\" stroke=\"#fff\" "
        "stroke-width=\"0.5\"/>\n",
        x, y, w, h, hex(c));
    out += text_at(x + w / 2, y + h / 2 + size * 0.36, size, "middle", texts[i], dark ? " fill=\"#fff\"" : "");
  }
  out += frame(b);
  for (std::size_t j = 0; j < columns; ++j)
    out += text_at(b.x + (static_cast<double>(j) + 0.5) * w, b.y + b.height + 20, 13, "middle", fmt::format("{}", j));
  for (std::size_t i = 0; i < rows; ++i)
    out += text_at(b.x - 8, b.y + (static_cast<double>(i) + 0.5) * h + 4.5, 13, "end", fmt::format("{}", i));
  out += labels_around(b, map.title, map.x_label, map.y_label, panel.x);
  if (!(low < high)) return out;  // one value only: nothing to scale
  constexpr int steps = 64;
  const double x = b.x + b.width + 18;
  for (int i = 0; i < steps; ++i)
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.2f}\" width=\"16\" height=\"{:.2f}\" fill=\"{}\"/>\n", x,
                       b.y + b.height * (1 - (i + 1.0) / steps), b.height / steps + (i > 0 ? 0.5 : 0),
                       hex(shade((i + 0.5) / steps, map.diverging)));
  for (const double t : scale.ticks()) {
    const double y = b.y + b.height * (1 - scale.place(t));
    out += line_at(x + 16, y, x + 20, y, "stroke=\"#444\"") + text_at(x + 24, y + 4.5, 13, "start", scale.label(t));
  }
  return out;
}

std::vector<double> epochs(std::size_t n) {
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<double>(i + 1);
  return out;
}

void write_figure(const std::filesystem::path& path, const std::vector<Panel>& panels, double width, double height) {
  write_atomically(path, svg(panels, width, height));
}

}  // namespace

std::string svg(std::span<const Panel> panels, double width, double height) {
  if (panels.empty()) throw ValueError("svg: there is nothing to draw");
  if (!(width >= 100 && height >= 100 && width <= 1e5 && height <= 1e5))
    throw ValueError(fmt::format("svg: width and height must be 100 to 100000, got {} and {}", width, height));
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" fill=\"#000\">\n<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#fff\"/>\n",
      width, height);
  const double each = width / static_cast<double>(panels.size());
  for (std::size_t i = 0; i < panels.size(); ++i)
    out += std::visit(
        [&](const auto& panel) {
          return draw(panel, Box{static_cast<double>(i) * each, 0, each, height});
        },
        panels[i]);
  return out + "</svg>\n";
}

std::vector<Panel> history_panels(const NamedHistories& histories) {
  if (histories.empty()) throw ValueError("plot_history: there is no history");
  std::vector<Panel> out;
  for (const auto& [key, title] : {std::pair<std::string, std::string>{"accuracy", "Accuracy"}, {"loss", "Loss"}}) {
    const auto has = [](const std::string& k) { return [k](const auto& h) { return h.second.values.contains(k); }; };
    const bool validated = std::ranges::all_of(histories, has("val_" + key)), several = histories.size() > 1;
    if (key == "accuracy" && !validated && !std::ranges::all_of(histories, has(key)))
      continue;  // labels were no classes
    LineChart chart{several ? (validated ? "Validation " : "Training ") + key : title, "Epoch", title, {}};
    for (const auto& [name, history] : histories) {
      const auto add = [&](const std::string& k, const std::string& called) {
        const std::vector<double>& y = history[k];
        chart.lines.push_back({called, epochs(y.size()), y});
      };
      if (several) {
        add((validated ? "val_" : "") + key, name);
        continue;
      }
      add(key, "training");
      if (validated) add("val_" + key, "validation");
    }
    out.emplace_back(std::move(chart));
  }
  return out;
}

void plot_history(const NamedHistories& histories, const std::filesystem::path& path) {
  write_figure(path, history_panels(histories), 1080, 504);
}

void plot_confusion(const Tensor& matrix, const std::filesystem::path& path, const std::string& title, bool diverging) {
  write_figure(path, {HeatMap{title, "Prediction", "Actuals", matrix, diverging}}, 760, 720);
}

void plot_curves(const Tensor& labels, const Tensor& scores, const std::filesystem::path& path) {
  LineChart roc{"ROC", "False positive rate", "True positive rate", {}},
      pr{"Precision and recall", "Recall", "Precision", {}};
  const Tensor support = confusion_matrix(labels, labels, scores.rank() == 2 ? scores.size(1) : 0);
  for (std::int64_t c = 0; c < support.size(0); ++c) {
    const std::int64_t n = support.values<std::int64_t>()[static_cast<std::size_t>(c * support.size(0) + c)];
    if (n == 0 || n == labels.size(0)) continue;
    RocCurve r = roc_curve(labels, scores, c);
    PrecisionRecallCurve p = precision_recall_curve(labels, scores, c);
    const std::string area = fmt::format("{}: AUC {:.4f}", c, auc(r)),
                      average = fmt::format("{}: AP {:.4f}", c, average_precision(p));
    roc.lines.push_back({area, std::move(r.fpr), std::move(r.tpr)});
    pr.lines.push_back({average, std::move(p.recall), std::move(p.precision)});
  }
  if (roc.lines.empty()) throw ValueError("plot_curves: every sample is of one class");
  roc.lines.push_back({"chance", {0, 1}, {0, 1}, true, 7});
  write_figure(path, {roc, pr}, 1080, 540);
}

}  // namespace ebb
