// Progress, byte for byte. The finished bars of Keras 2 are lines of real runs; the clock is made up.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/train/progress.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace ebb;
using Values = std::vector<std::pair<std::string, double>>;

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

/// Progress whose time is set by hand.
struct Run {
  Run(std::int64_t total, ProgressOptions o) : progress(out.file(), total, with_clock(std::move(o))) {}
  ProgressOptions with_clock(ProgressOptions o) {
    o.clock = [this] { return now; };
    return o;
  }
  void step(std::int64_t done, double time, const Values& values = {}) {
    now = time;
    progress.update(done, [&] { return values; });
  }
  std::string finish(double time, const Values& values = {}, std::string_view heading = {}) {
    now = time;
    progress.finish(values, heading);
    return out.text();
  }
  Output out;
  double now = 0;
  Progress progress;
};

const Values few{{"loss", 0.25}, {"accuracy", 8.0959e-4}};
const Values epoch1{{"loss", 4.05221}, {"accuracy", 0.67834}, {"val_loss", 1.08264}, {"val_accuracy", 0.78192}};

std::string last_line(const std::string& text) {
  const std::size_t begin = text.rfind('\r');
  return begin == std::string::npos ? text : text.substr(begin + 1);
}

/// A variable of the environment while one lives.
struct Environment {
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = ::getenv(name)) before_ = std::make_unique<std::string>(old);
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Environment() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }
  const char* name_;
  std::unique_ptr<std::string> before_;
};

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

TEST_CASE("progress: time of a step and time to go") {
  CHECK(format_step_time(0.004) == "4ms");
  CHECK(format_step_time(67e-6) == "67us");
  CHECK(format_step_time(0.3454) == "345ms");
  CHECK(format_step_time(12.3) == "12s");
  CHECK(format_step_time(1) == "1s");
  CHECK(format_step_time(0.001) == "1ms");
  CHECK(format_step_time(0.9994) == "999ms");
  CHECK(format_step_time(0.00099) == "990us");
  CHECK(format_step_time(0) == "0s");
  CHECK(format_eta(0) == "0s");
  CHECK(format_eta(12.9) == "12s");
  CHECK(format_eta(60) == "60s");
  CHECK(format_eta(61) == "1:01");
  CHECK(format_eta(3600) == "60:00");
  CHECK(format_eta(3725) == "1:02:05");
}

TEST_CASE("progress: the bar of Keras 2, finished") {
  Run run(438, {});
  run.step(1, 0.5);  // slow: it is left out of the mean
  CHECK(last_line(run.finish(0.5 + 437 * 0.004, epoch1)) ==
        "438/438 [==============================] - 2s 4ms/step - loss: 4.0522 - accuracy: 0.6783 - val_loss: 1.0826 - "
        "val_accuracy: 0.7819\n");

  Run micro(1641, {});
  micro.step(1, 0.1);
  CHECK(last_line(micro.finish(0.1 + 1640 * 943e-6, {{"loss", 0.1080}})) ==
        "1641/1641 [==============================] - 2s 943us/step - loss: 0.1080\n");
  Run one(1, {});  // predict on one row
  CHECK(last_line(one.finish(0.074)) == "1/1 [==============================] - 0s 74ms/step\n");
  Run test(313, {});
  test.step(1, 0.01);
  CHECK(last_line(test.finish(1.9, {{"loss", 8.0959e-4}})) ==
        "313/313 [==============================] - 2s 6ms/step - loss: 8.0959e-04\n");
  Run slow(2, {});
  slow.step(1, 10);
  CHECK(last_line(slow.finish(13)) == "2/2 [==============================] - 13s 3s/step\n");
}

TEST_CASE("progress: the bar of Keras 2, running") {
  const auto drawn = [](std::int64_t step, std::int64_t steps, double time) {
    Run run(steps, {});
    run.step(step, time, few);
    return run.out.text();
  };
  const std::string tail = " - loss: 0.2500 - accuracy: 8.0959e-04";
  CHECK(drawn(5, 10, 1) == "\r 5/10 [==============>...............] - ETA: 1s" + tail);
  CHECK(drawn(1, 10, 0.5) == "\r 1/10 [==>...........................] - ETA: 4s" + tail);
  CHECK(drawn(1, 438, 1) == "\r  1/438 [..............................] - ETA: 7:17" + tail);
  CHECK(drawn(10, 10, 1) == "\r10/10 [==============================] - ETA: 0s" + tail);
  CHECK(drawn(100, 100000, 10) == "\r   100/100000 [..............................] - ETA: 2:46:30" + tail);

  // The first step is left out as soon as there is another; a shorter text is padded over the longer one.
  Run run(100, {});
  run.step(1, 10, few);
  run.step(2, 10.5, few);
  run.step(3, 10.52, few);  // too soon to draw
  run.step(11, 15, {{"loss", 1}});
  CHECK(run.out.text() == "\r  1/100 [..............................] - ETA: 16:30" + tail +
                              "\r  2/100 [..............................] - ETA: 49s" + tail +
                              "  "
                              "\r 11/100 [==>...........................] - ETA: 44s - loss: 1.0000" +
                              std::string(23, ' '));
}

TEST_CASE("progress: drawn at most every 0.05 s, and always at the end") {
  Run run(10000, {});
  for (int i = 1; i <= 10000; ++i) run.step(i, i / 1024.0, few);  // 0.05 s are 52 of these steps
  const std::string text = run.finish(10, few);
  // the first, one each 0.05 s, and the last
  CHECK(std::count(text.begin(), text.end(), '\r') == 1 + 9999 / 52 + 1);
  CHECK(text.ends_with("8.0959e-04\n"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
}

TEST_CASE("progress: Keras 2.2 counts samples, calls accuracy acc, and has no step to leave out") {
  Run run(60000, {.style = KerasStyle::keras2_2});
  run.step(128, 0.5, few);
  CHECK(run.out.text() ==
        "\r  128/60000 [..............................] - ETA: 3:53 - loss: 0.2500 - acc: 8.0959e-04");
  CHECK(
      last_line(run.finish(
                    8.82, {{"loss", 0.43068}, {"accuracy", 0.87849}, {"val_loss", 0.22527}, {"val_accuracy", 0.93551}}))
          .starts_with("60000/60000 [==============================] - 9s 147us/step - loss: 0.4307 - acc: 0.8785 - "
                       "val_loss: 0.2253 - val_acc: 0.9355"));
}

TEST_CASE("progress: the bar of Keras 3, with color and without") {
  const std::string bar20 = "━━━━━━━━━━━━━━━━━━━━", bar5 = "━━━━━", bar15 = "━━━━━━━━━━━━━━━";
  Run plain(100, {.style = KerasStyle::keras3});
  plain.step(1, 1);
  plain.step(25, 25, few);
  CHECK(last_line(plain.out.text()) == " 25/100 " + bar20 + " 1:15 1s/step - accuracy: 8.0959e-04 - loss: 0.2500");
  CHECK(last_line(plain.finish(100, epoch1)) ==
        "100/100 " + bar20 +
            " 100s 1s/step - accuracy: 0.6783 - loss: 4.0522 - val_accuracy: 0.7819 - val_loss: 1.0826\n");

  Run color(100, {.style = KerasStyle::keras3, .color = true});
  color.step(25, 25, few);
  CHECK(color.out.text() == "\r\x1b[1m 25/100\x1b[0m \x1b[32m" + bar5 + "\x1b[0m\x1b[37m" + bar15 +
                                "\x1b[0m \x1b[1m1:15\x1b[0m 1s/step - accuracy: 8.0959e-04 - loss: 0.2500");
  Run done(438, {.style = KerasStyle::keras3, .color = true});
  done.step(1, 0.5);
  CHECK(last_line(done.finish(2.25, {{"loss", 4.05221}})) ==
        "\x1b[1m438/438\x1b[0m \x1b[32m" + bar20 + "\x1b[0m\x1b[37m\x1b[0m \x1b[1m2s\x1b[0m 4ms/step - loss: 4.0522\n");
}

TEST_CASE("progress: one line an epoch") {
  const auto line = [](ProgressOptions::Kind kind, KerasStyle style) {
    Run run(438, {.kind = kind, .style = style});
    for (int i = 1; i <= 438; ++i) run.step(i, i * 0.004, few);
    CHECK(run.out.text() == "");
    return run.finish(1.752, epoch1, "Epoch 3/30");
  };
  const std::string numbers = " - loss: 4.0522 - accuracy: 0.6783 - val_loss: 1.0826 - val_accuracy: 0.7819";
  CHECK(line(ProgressOptions::lines, KerasStyle::keras2) == "Epoch 3/30 - 1.8s" + numbers + "\n");
  CHECK(line(ProgressOptions::keras_lines, KerasStyle::keras2) ==
        "438/438 - 2s" + numbers + " - 2s/epoch - 4ms/step\n");
  CHECK(line(ProgressOptions::keras_lines, KerasStyle::keras2_2) ==
        " - 2s - loss: 4.0522 - acc: 0.6783 - val_loss: 1.0826 - val_acc: 0.7819\n");
  CHECK(line(ProgressOptions::keras_lines, KerasStyle::keras3) ==
        "438/438 - 2s - 4ms/step - accuracy: 0.6783 - loss: 4.0522 - val_accuracy: 0.7819 - val_loss: 1.0826\n");
  CHECK(line(ProgressOptions::nothing, KerasStyle::keras2) == "");
}

TEST_CASE("progress: styles by name") {
  CHECK(style_of("keras2.2") == KerasStyle::keras2_2);
  CHECK(style_of("keras2") == KerasStyle::keras2);
  CHECK(style_of("keras3") == KerasStyle::keras3);
  CHECK_THROWS_WITH_AS(style_of("keras4"),
                       "unknown style \"keras4\"; expected one of keras2.2, keras2, keras3; did you mean keras2?",
                       ValueError);
}

TEST_CASE("progress: a file is redrawn and colored by nobody, a terminal as TERM and NO_COLOR say") {
  const Output out;
  CHECK_FALSE(Progress::can_redraw(out.file()));
  CHECK_FALSE(Progress::can_color(out.file()));
  const int master = ::posix_openpt(2 /* O_RDWR */);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) {
    MESSAGE("skipped: no pseudo-terminal to be had");
    return;
  }
  std::FILE* terminal = std::fopen(::ptsname(master), "w");
  REQUIRE(terminal);
  const auto can = [&](const char* term, const char* no_color) {
    const Environment a("TERM", term), b("NO_COLOR", no_color);
    return std::pair(Progress::can_redraw(terminal), Progress::can_color(terminal));
  };
  CHECK(can("xterm", nullptr) == std::pair(true, true));
  CHECK(can("xterm", "1") == std::pair(true, false));
  CHECK(can("xterm", "") == std::pair(true, true));  // empty does not count
  CHECK(can("dumb", nullptr) == std::pair(false, false));
  CHECK(can(nullptr, nullptr) == std::pair(false, false));
  std::fclose(terminal);
}
