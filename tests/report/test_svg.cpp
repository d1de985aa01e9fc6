// Charts: that they are whole XML, and that values are where they should be.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/report/metrics.h>
#include <ebb/models/report/svg.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "temp_dir.h"

using namespace ebb;

namespace {

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> all(const std::string& text, const std::string& begin, const std::string& end) {
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = text.find(begin, at)) != std::string::npos;) {
    at += begin.size();
    out.push_back(text.substr(at, text.find(end, at) - at));
  }
  return out;
}

/// What is wrong with the nesting of its tags; empty when nothing is.
std::string nesting(const std::string& xml) {
  std::vector<std::string> open;
  for (const std::string& tag : all(xml, "<", ">")) {
    if (tag.find('<') != std::string::npos) return "< in " + tag;
    if (tag.ends_with("/")) continue;
    if (!tag.starts_with("/")) {
      open.push_back(tag.substr(0, tag.find(' ')));
    } else {
      if (open.empty() || open.back() != tag.substr(1)) return tag;
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back() + " is left open";
}

std::string drawn(const std::vector<Panel>& panels, double width = 600, double height = 400) {
  const std::string text = svg(panels, width, height);
  CHECK(nesting(text) == "");
  CHECK(text.find("nan") == std::string::npos);
  CHECK(text.find("inf") == std::string::npos);
  return text;
}

struct Point {
  double x, y;
};
std::vector<Point> points(const std::string& text) {
  std::vector<Point> out;
  std::istringstream in(text);
  char comma = 0;
  for (Point p{}; in >> p.x >> comma >> p.y;) out.push_back(p);
  return out;
}

std::vector<std::string> texts(const std::string& svg) {
  std::vector<std::string> out;
  for (const std::string& t : all(svg, "<text", "</text>")) out.push_back(t.substr(t.find('>') + 1));
  return out;
}
bool has(const std::vector<std::string>& list, const std::string& text) {
  return std::ranges::find(list, text) != list.end();
}

History history(std::map<std::string, std::vector<double>> values) {
  History out{std::move(values), {}};
  out.seconds.resize(out.values.begin()->second.size());
  return out;
}

}  // namespace

TEST_CASE("charts: lines, their places, ticks and texts") {
  const std::string text =
      drawn({LineChart{"A & B", "x <", "y >", {{"one", {0, 1, 2}, {0, 5, 10}}, {"two", {0, 2}, {10, 10}, true}}}});
  const auto lines = all(text, "points=\"", "\"");
  REQUIRE(lines.size() == 2);
  const auto one = points(lines[0]), two = points(lines[1]);
  REQUIRE(one.size() == 3);
  REQUIRE(two.size() == 2);
  CHECK(one[1].x == doctest::Approx((one[0].x + one[2].x) / 2).epsilon(1e-3));
  CHECK(one[1].y == doctest::Approx((one[0].y + one[2].y) / 2).epsilon(1e-3));
  CHECK(one[0].y > one[2].y + 200);  // up is less
  CHECK(one[2].x > one[0].x + 400);
  CHECK(two[0].y == one[2].y);
  CHECK(two[0].x == one[0].x);
  CHECK(all(text, "stroke-dasharray", "/>").size() == 2);  // the line and its key
  const auto words = texts(text);
  for (const char* part : {"A &amp; B", "x &lt;", "y &gt;", "one", "two", "0", "1", "2", "4", "10"})
    CHECK_MESSAGE(has(words, part), part);
  CHECK_FALSE(has(words, "0.5"));  // whole numbers have whole ticks
  // A tick stands at its value
  const auto ten = text.substr(0, text.find(">10</text>"));
  CHECK(std::stod(ten.substr(ten.rfind(" y=\"") + 4)) == doctest::Approx(one[2].y + 4.5).epsilon(1e-3));
}

TEST_CASE("charts: gaps, single points, nothing, one value, large and small ones") {
  const auto lines = [](const std::vector<double>& y) {
    std::vector<double> x;
    for (std::size_t i = 0; i < y.size(); ++i) x.push_back(static_cast<double>(i + 1));
    return drawn({LineChart{"", "", "", {{"", x, y}}}});
  };
  const std::string gap = lines({1, 2, missing, 3, 2, std::numeric_limits<double>::infinity(), 5});
  CHECK(all(gap, "<polyline", "/>").size() == 2);
  CHECK(all(gap, "<circle", "/>").size() == 1);
  CHECK(all(lines({}), "<polyline", "/>").empty());
  CHECK(all(lines({missing, missing}), "<circle", "/>").empty());
  CHECK(all(lines({4}), "<circle", "/>").size() == 1);
  for (const std::vector<double>& y : std::vector<std::vector<double>>{
           {.25, .25}, {0, 0}, {1e9, 2e9}, {4e-9, 1e-8}, {-1e300, 1e300}, {1e15, 1e15 + 1}}) {
    CAPTURE(y[1]);
    const auto ticks = texts(lines(y));
    CHECK(ticks.size() >= 4);
    CHECK(ticks.size() < 25);
  }
  CHECK(has(texts(lines({.25, .25})), "0.250"));
  std::vector<double> many(20000);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<double>(i);
  CHECK(lines(many).size() < 50'000);  // points nearer than half a pixel are one
}

TEST_CASE("charts: names that XML does not take") {
  CHECK(has(texts(drawn({LineChart{"\x01 \xff\xfe \xc3\xa4 \xed\xa0\x80 \xef\xbf\xbf \xc0\xaf", "", "", {}}})),
            "? ?? \xc3\xa4 ??? ??? ??"));
}

TEST_CASE("charts: a long name does not make the legend wide") {
  const auto key = [](const std::string& name) {
    return texts(drawn({LineChart{"", "", "", {{name, {0, 1}, {0, 1}}}}})).back();
  };
  CHECK(key("abcdefghijklmnopqrstuvwx") == "abcdefghijklmnopqrstuvwx");
  CHECK(key("abcdefghijklmnopqrstuvwxy") == "abcdefghijklmnopqrstuvw\u2026");
  CHECK(key("\u00e4bcdefghijklmnopqrstuv\u00e4x") == "\u00e4bcdefghijklmnopqrstuv\u00e4x");  // characters, not bytes
  CHECK(key("\u00e4bcdefghijklmnopqrstuv\u00e4xyz") == "\u00e4bcdefghijklmnopqrstuv\u00e4\u2026");
}

TEST_CASE("charts: heat maps") {
  const Tensor m = tensor({50, 0, 7, 3, 100, 1}, {2, 3}, i64);
  const std::string text = drawn({HeatMap{"T", "Prediction", "Actuals", m, true}});
  const auto words = texts(text);
  for (const char* part : {"T", "Prediction", "Actuals", "50", "7", "100"}) CHECK_MESSAGE(has(words, part), part);
  CHECK(text.find("fill=\"#3b4cc0\"") != std::string::npos);  // the least
  CHECK(text.find("fill=\"#b40426\"") != std::string::npos);  // the largest
  CHECK(text.find("fill=\"#dddddd\"") != std::string::npos);  // 50 is half way
  const std::string white = drawn({HeatMap{"", "", "", m}});
  CHECK(white.find("fill=\"#08306b\"") != std::string::npos);
  // The number of row 1, column 0 is below that of row 0, column 0
  const auto place = [&](const std::string& number) {
    const std::string before = text.substr(0, text.find(">" + number + "</text>"));
    const std::string tag = before.substr(before.rfind("<text"));
    return Point{std::stod(tag.substr(tag.find(" x=\"") + 4)), std::stod(tag.substr(tag.find(" y=\"") + 4))};
  };
  CHECK(place("7").y > 40);
  CHECK(place("7").x > place("50").x + 100);
  drawn({HeatMap{"", "", "", zeros({2, 2}, i64)}});
  CHECK(has(texts(drawn({HeatMap{"", "", "", tensor({.12345, 2}, {1, 2})}})), "0.123"));
  CHECK_THROWS_WITH_AS(drawn({HeatMap{"", "", "", zeros({3})}}), "svg: a heat map needs a matrix, got float32 (3,)",
                       ShapeError);
  CHECK_THROWS_AS(drawn({HeatMap{}}), ShapeError);
}

TEST_CASE("charts: what cannot be drawn") {
  CHECK_THROWS_WITH_AS(drawn({}), "svg: there is nothing to draw", ValueError);
  CHECK_THROWS_WITH_AS(drawn({LineChart{"", "", "", {{"l", {1}, {1, 2}}}}}), "svg: line \"l\" has 1 x and 2 y",
                       ShapeError);
  CHECK_THROWS_WITH_AS(drawn({LineChart{}}, 10, 400), "svg: width and height must be 100 to 100000, got 10 and 400",
                       ValueError);
}

TEST_CASE("charts: histories") {
  const TempDir dir;
  const auto file = dir / "h.svg";
  const History full =
      history({{"loss", {2, 1}}, {"accuracy", {.5, .7}}, {"val_loss", {2.5, 1.5}}, {"val_accuracy", {.4, .6}}});
  plot_history({{"a", full}}, file);
  const std::string one = contents(file);
  CHECK(nesting(one) == "");
  CHECK(all(one, "<polyline", "/>").size() == 4);
  for (const char* part : {"Accuracy", "Loss", "Epoch", "training", "validation"})
    CHECK_MESSAGE(has(texts(one), part), part);
  plot_history({{"fit1", full}, {"fit2", full}, {"fit3", full}}, file);
  const std::string three = contents(file);
  CHECK(all(three, "<polyline", "/>").size() == 6);
  for (const char* part : {"Validation accuracy", "Validation loss", "fit1", "fit3"})
    CHECK_MESSAGE(has(texts(three), part), part);
  CHECK(has(texts(drawn(history_panels({{"a", full}, {"b", history({{"loss", {1}}})}}))), "Training loss"));
  CHECK(history_panels({{"b", history({{"loss", {1}}})}}).size() == 1);  // labels were no classes
  CHECK_THROWS_WITH_AS(plot_history({}, file), "plot_history: there is no history", ValueError);
  CHECK_THROWS_WITH_AS(plot_history({{"a", history({{"mae", {1}}})}}, file),
                       "history: nothing recorded as \"loss\"; recorded are mae", ValueError);
  CHECK(contents(file) == three);
  CHECK_THROWS_AS(plot_history({{"a", full}}, dir / "missing" / "h.svg"), IoError);
}

TEST_CASE("charts: confusion matrix and curves") {
  const TempDir dir;
  plot_confusion(tensor({5, 1, 2, 7}, {2, 2}, i64), dir / "c.svg", "12 of 15 right");
  const std::string c = contents(dir / "c.svg");
  CHECK(nesting(c) == "");
  for (const char* part : {"Actuals", "Prediction", "12 of 15 right", "7"}) CHECK_MESSAGE(has(texts(c), part), part);
  const Tensor labels = tensor({0, 0, 1, 1}, i64),
               scores = tensor({.9, .1, 0, .6, .4, 0, .3, .7, 0, .7, .3, 0}, {4, 3});
  plot_curves(labels, scores, dir / "r.svg");
  const std::string r = contents(dir / "r.svg");
  CHECK(nesting(r) == "");
  // Class 1 scores .1 and .4 without, .7 and .3 with: three pairs of four are in order. Class 2 has no samples.
  for (const char* part : {"0: AUC 0.7500", "1: AUC 0.7500", "1: AP 0.8333", "chance"})
    CHECK_MESSAGE(has(texts(r), part), part);
  CHECK(all(r, "<polyline", "/>").size() == 5);
  CHECK_THROWS_WITH_AS(plot_curves(tensor({0, 0}, i64), zeros({2, 2}), dir / "n.svg"),
                       "plot_curves: every sample is of one class", ValueError);
  CHECK_FALSE(std::filesystem::exists(dir / "n.svg"));
}
