// bench train: a workload's training loop through the public API, timed.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include <ebb/autograd/backward.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/files/version.h>
#include <ebb/models/report/summary.h>
#include <ebb/models/train/fit.h>
#include <ebb/ops/kernels/threads.h>
#include <ebb/ops/ops.h>

#include "commands.h"
#include "measure.h"

namespace bench {
namespace {

namespace po = app::po;

struct Epoch {
  double seconds = 0, loss = 0;
  std::int64_t samples = 0;
};

class Trainer {
 public:
  Trainer(const Workload& w, ebb::Dataset data, std::uint64_t seed)
      : net(network(w, seed)), optimizer_(optimizer(w)), data_(std::move(data)), batch_(w.batch), seed_(seed) {}

  /// The loop that a user writes; at most `most` batches of the epoch, all when 0.
  Epoch epoch(std::int64_t most) {
    Epoch e;
    double sum = 0;
    std::int64_t batches = 0;
    const double start = now();
    for (auto [x, y] : ebb::Batches(data_, {.size = batch_, .seed = seed_, .stream = epochs_++})) {
      const ebb::Tensor loss = ebb::cross_entropy(net(x), y);
      optimizer_->step(net, ebb::backward(loss));
      sum += loss.item() * static_cast<double>(x.size(0));
      e.samples += x.size(0);
      if (first_step == 0) first_step = seconds_since_start();
      if (++batches == most) break;
    }
    e.seconds = now() - start;
    e.loss = sum / static_cast<double>(e.samples);
    return e;
  }
  /// What the whole set would take at the speed of `e`.
  double seconds_per_epoch(const Epoch& e) const {
    return e.seconds / static_cast<double>(e.samples) * static_cast<double>(data_.size());
  }

  ebb::Sequential net;
  double first_step = 0;  ///< seconds from the start of the process to the end of the first step

 private:
  std::unique_ptr<ebb::Optimizer> optimizer_;
  ebb::Dataset data_;
  std::int64_t batch_;
  std::uint64_t seed_, epochs_ = 0;
};

po::options_description train_options() {
  return app::joined(
      {workload_options(), app::data_options(),
       app::option_group("Run", {
                                    {"batches", app::number<std::int64_t>(0, 0, 1'000'000),
                                     "only so many batches per epoch (times are scaled to whole epochs); 0: all"},
                                    {"epochs", app::number(3, 1, 1'000'000),
                                     "number of epochs; the first warms up and is left out of the times"},
                                    {"json", "print one JSON object instead of text"},
                                    {"paced",
                                     "for bench compare: before each epoch wait for a line with its batches, and "
                                     "print a JSON line after it"},
                                })});
}

int run_train(app::Values& v) {
  const Workload w = workload_from(v);
  const auto seed = v["seed"].as<std::uint64_t>();
  const auto batches = v["batches"].as<std::int64_t>();
  const auto epochs = v["epochs"].as<int>();
  const bool paced = v.count("paced") > 0, json = paced || v.count("json") > 0;
  app::use_threads(v);

  const ebb::Mnist data = app::load_data(v);
  Trainer trainer(w, data.train, seed);
  if (!json)
    app::print("{}: {}\n{}, batch {}, {} parameters, {} thread{}, {}\n", w.name, w.architecture, w.optimizer, w.batch,
               ebb::with_commas(ebb::parameter_count(trainer.net)), ebb::threads(), ebb::threads() == 1 ? "" : "s",
               data.source);
  std::vector<double> seconds, losses;
  for (int e = 0; paced || e < epochs; ++e) {
    std::int64_t most = batches;
    if (paced) {
      const auto turn = next_turn();
      if (!turn) break;
      most = *turn;
    }
    const Epoch epoch = trainer.epoch(most);
    seconds.push_back(trainer.seconds_per_epoch(epoch));
    losses.push_back(epoch.loss);
    if (paced)
      app::print(
          "{}\n",
          nlohmann::ordered_json{{"seconds", epoch.seconds}, {"samples", epoch.samples}, {"loss", epoch.loss}}.dump());
    if (!json)
      app::print("epoch {:<4}{:>9.3f} s   loss {:.4f}{}\n", e + 1, seconds.back(), epoch.loss,
                 e == 0 && epochs > 1 ? "   (warming up)" : "");
    app::flush_results();
  }
  if (seconds.empty()) return app::ok;   // not one turn was asked for
  const double peak = peak_memory_mb();  // of training: read before the test set passes through
  const ebb::Metrics test = ebb::evaluate(trainer.net, data.test);
  const std::vector<double> counted(seconds.begin() + (seconds.size() > 1), seconds.end());
  const auto [low, high] = std::ranges::minmax(counted);
  if (json) {
    app::print("{}\n", nlohmann::ordered_json{{"model", w.name},
                                              {"architecture", w.architecture},
                                              {"optimizer", w.optimizer},
                                              {"batch", w.batch},
                                              {"threads", ebb::threads()},
                                              {"parameters", ebb::parameter_count(trainer.net)},
                                              {"dataset", data.name},
                                              {"seed", seed},
                                              {"seconds_per_epoch", median(counted)},
                                              {"epoch_seconds", seconds},
                                              {"losses", losses},
                                              {"test_accuracy", test.accuracy},
                                              {"test_loss", test.loss},
                                              {"peak_memory_mb", peak},
                                              {"first_step_seconds", trainer.first_step},
                                              {"library", "ebb " + ebb::version()}}
                           .dump());
  } else {
    app::print(
        "{:.3f} s an epoch (median of {}, {:.3f} to {:.3f})\ntest accuracy {:.4f}, peak memory {:.0f} MB, first step "
        "{:.2f} s after the start\n",
        median(counted), counted.size(), low, high, test.accuracy, peak, trainer.first_step);
  }
  return app::ok;
}

}  // namespace

const app::Command train_command{
    .name = "train",
    .about = "train a workload and time it",
    .arguments = "[OPTIONS]",
    .description =
        "Trains with the loop of the README, without validation, and prints seconds per\n"
        "epoch, loss, test accuracy, the peak of resident memory, and the time from the\n"
        "start of the process to the end of the first step.\n",
    .examples =
        "  bench train --model cnn_64 --threads 2 --batches 100\n"
        "  bench train --arch \"flatten, dense 100 tanh, dense 10\" --optimizer adam --json\n",
    .options = train_options,
    .run = run_train,
};

double epoch_seconds(const Workload& w, const ebb::Dataset& data, double seconds) {
  Trainer trainer(w, data, 1);
  trainer.epoch(10);
  const double guess =
      trainer.seconds_per_epoch(trainer.epoch(10)) / static_cast<double>(data.size()) * static_cast<double>(w.batch);
  std::vector<double> times;
  for (int i = 0; i < 3; ++i)
    times.push_back(trainer.seconds_per_epoch(trainer.epoch(static_cast<std::int64_t>(seconds / 3 / guess) + 1)));
  return median(times);
}

}  // namespace bench
