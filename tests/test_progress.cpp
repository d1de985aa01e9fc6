#include <doctest/doctest.h>
#include <ebb/models/progress.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace ebb;

/// A stream that is no terminal.
class Output {
 public:
  std::FILE* file() const { return file_.get(); }
  std::string text() const {
    std::fflush(file_.get());
    std::rewind(file_.get());
    std::string out;
    for (int c = std::fgetc(file_.get()); c != EOF; c = std::fgetc(file_.get())) out += static_cast<char>(c);
    return out;
  }

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Close> file_{std::tmpfile()};
};

const std::vector<std::pair<std::string, double>> values{{"loss", 0.25}, {"accuracy", 8.0959e-4}};

}  // namespace

TEST_CASE("progress: numbers as Keras prints them") {
  CHECK(format_metric(0.6783) == "0.6783");
  CHECK(format_metric(4.05216) == "4.0522");
  CHECK(format_metric(1) == "1.0000");
  CHECK(format_metric(8.0959e-4) == "8.0959e-04");
  CHECK(format_metric(4.2816e-9) == "4.2816e-09");
  CHECK(format_metric(1e-3) == "1.0000e-03");  // at most 1e-3
  CHECK(format_metric(0.0010001) == "0.0010");
  CHECK(format_metric(-0.5) == "-0.5000");
  CHECK(format_metric(-5e-4) == "-5.0000e-04");
  CHECK(format_metric(0) == "0.0000e+00");
  CHECK(format_metric(123456.7) == "123456.7000");
  CHECK(format_metric(NAN) == "nan");
  CHECK(format_metric(INFINITY) == "inf");
}

TEST_CASE("progress: time of a step") {
  CHECK(format_step_time(0.004) == "4ms");
  CHECK(format_step_time(67e-6) == "67us");
  CHECK(format_step_time(0.3454) == "345ms");
  CHECK(format_step_time(12.3) == "12s");
  CHECK(format_step_time(1) == "1s");
  CHECK(format_step_time(0.001) == "1ms");
  CHECK(format_step_time(0.9994) == "999ms");
  CHECK(format_step_time(0.00099) == "990us");
  CHECK(format_step_time(0) == "0us");
}

TEST_CASE("progress: one line an epoch where nothing can be redrawn") {
  const Output out;
  CHECK_FALSE(Progress::can_redraw(out.file()));
  Progress progress(out.file(), false, 438);
  for (int i = 1; i <= 438; ++i) progress.update(i, values);
  CHECK(out.text() == "");
  progress.finish(3, 30, values);
  CHECK(std::regex_match(out.text(),
                         std::regex(R"(Epoch 3/30 - \d+\.\ds - loss: 0\.2500 - accuracy: 8\.0959e-04\n)")));
}

TEST_CASE("progress: the bar") {
  const auto drawn = [](std::int64_t step, std::int64_t steps) {
    const Output out;
    Progress progress(out.file(), true, steps);
    progress.update(step, values);  // the first one is always drawn
    return out.text();
  };
  const std::string tail = " - ETA: 0s - loss: 0.2500 - accuracy: 8.0959e-04\x1b[K";
  CHECK(drawn(5, 10) == "\r 5/10 [==============>...............]" + tail);
  CHECK(drawn(1, 10) == "\r 1/10 [==>...........................]" + tail);
  CHECK(drawn(1, 438) == "\r  1/438 [..............................]" + tail);
  CHECK(drawn(10, 10) == "\r10/10 [=============================>]" + tail);

  const Output out;
  Progress progress(out.file(), true, 438);
  progress.finish(1, 2, values);
  CHECK(std::regex_match(out.text(), std::regex("\\r438/438 \\[={30}\\] - \\d+s \\d+(us|ms|s)/step - loss: "
                                                "0\\.2500 - accuracy: 8\\.0959e-04\\x1b\\[K\\n")));
}

TEST_CASE("progress: the bar is redrawn at most every 50 ms") {
  const Output out;
  const auto start = std::chrono::steady_clock::now();
  Progress progress(out.file(), true, 10000);
  for (int i = 1; i <= 10000; ++i) progress.update(i, values);
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::string text = out.text();
  const auto drawings = static_cast<double>(std::count(text.begin(), text.end(), '\r'));
  CHECK(drawings >= 1);
  CHECK(drawings <= 1 + elapsed / 0.05);
}
