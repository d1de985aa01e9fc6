// bench infer: predict() on the test digits, in bulk or one at a time.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include <ebb/graph/tensor.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/files/version.h>
#include <ebb/models/report/summary.h>
#include <ebb/models/train/fit.h>
#include <ebb/ops/kernels/threads.h>

#include "commands.h"
#include "measure.h"

namespace bench {
namespace {

namespace po = app::po;

/// Calls predict() on batches of the images, round and round.
class Caller {
 public:
  Caller(const Workload& w, const ebb::Dataset& data, std::uint64_t seed)
      : net_(network(w, seed)), data_(data), batch_(std::min(w.batch, data.size())) {}

  /// Seconds of one call.
  double call() {
    if (at_ + batch_ > data_.size()) at_ = 0;
    const double start = now();
    const ebb::Tensor out = ebb::predict(net_, data_.slice(at_, at_ + batch_), {.batch = batch_});
    const double seconds = now() - start;
    at_ += batch_;
    return seconds;
  }
  std::int64_t calls_per_pass() const { return data_.size() / batch_; }
  std::int64_t batch() const { return batch_; }

 private:
  ebb::Sequential net_;
  ebb::Dataset data_;
  std::int64_t batch_, at_ = 0;
};

po::options_description infer_options() {
  return app::joined(
      {workload_options(), app::data_options(),
       app::option_group("Run", {
                                    {"calls", app::number<std::int64_t>(0, 0, 1'000'000'000),
                                     "calls of predict() that are timed; 0: one pass over the test digits"},
                                    {"json", "print one JSON object instead of text"},
                                    {"paced",
                                     "for bench compare: wait for lines with a number of calls, and print a JSON "
                                     "line after each"},
                                })});
}

int run_infer(app::Values& v) {
  const Workload w = workload_from(v);
  const auto calls = v["calls"].as<std::int64_t>();
  const bool paced = v.count("paced") > 0, json = paced || v.count("json") > 0;
  app::use_threads(v);
  const ebb::Mnist data = app::load_data(v);
  Caller caller(w, data.test, v["seed"].as<std::uint64_t>());
  const double first = caller.call();
  const std::uint64_t requests = ebb::memory_stats().system_requests;
  std::vector<double> times;
  const auto run_calls = [&](std::int64_t n) {
    const double start = now();
    for (std::int64_t i = 0; i < n; ++i) times.push_back(caller.call());
    return now() - start;
  };
  double seconds = 0;
  if (paced) {
    while (const auto turn = next_turn()) {
      const std::int64_t n = *turn ? *turn : caller.calls_per_pass();
      times.reserve(times.size() + static_cast<std::size_t>(n));
      const double took = run_calls(n);
      seconds += took;
      app::print("{}\n", nlohmann::ordered_json{{"seconds", took}, {"samples", n * caller.batch()}}.dump());
      app::flush_results();
    }
  } else {
    const std::int64_t n = calls ? calls : caller.calls_per_pass();
    times.reserve(static_cast<std::size_t>(n));
    seconds = run_calls(n);
  }
  if (times.empty()) return app::ok;  // not one turn was asked for
  const std::uint64_t later = ebb::memory_stats().system_requests - requests;
  std::ranges::sort(times);
  const double rate = static_cast<double>(times.size()) * static_cast<double>(caller.batch()) / seconds;
  const double p99 = times[times.size() * 99 / 100];
  if (json) {
    app::print("{}\n", nlohmann::ordered_json{{"model", w.name},
                                              {"architecture", w.architecture},
                                              {"batch", caller.batch()},
                                              {"threads", ebb::threads()},
                                              {"samples_per_second", rate},
                                              {"seconds_per_call", median(times)},
                                              {"p99_seconds_per_call", p99},
                                              {"first_call_seconds", first},
                                              {"calls", times.size()},
                                              {"system_requests_after_first_call", later},
                                              {"peak_memory_mb", peak_memory_mb()},
                                              {"library", "ebb " + ebb::version()}}
                           .dump());
  } else {
    app::print("{}: {}\nbatch {}, {} thread{}: {} samples a second\n", w.name, w.architecture, caller.batch(),
               ebb::threads(), ebb::threads() == 1 ? "" : "s", ebb::with_commas(static_cast<std::int64_t>(rate)));
    app::print("a call takes {:.1f} us (median of {}; 99 of 100 within {:.1f} us; the first {:.1f} us)\n",
               median(times) * 1e6, times.size(), p99 * 1e6, first * 1e6);
    app::print("memory asked of the system after the first call: {} times\n", later);
  }
  return app::ok;
}

}  // namespace

const app::Command infer_command{
    .name = "infer",
    .about = "predict with a workload's network and time it",
    .arguments = "[OPTIONS]",
    .description =
        "Calls predict() on test digits, --batch of them at a time, and prints samples\n"
        "per second, the time of a call, and how often memory was asked of the system\n"
        "after the first call. The network is untrained: its speed does not depend on it.\n",
    .examples =
        "  bench infer --model cnn_64 --batch 1 --threads 1\n"
        "  bench infer --model mlp_512 --batch 1000 --json\n",
    .options = infer_options,
    .run = run_infer,
};

}  // namespace bench
