// mnist train
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <cmath>
#include <numeric>

#include "command.h"
#include "signals.h"
#include "training.h"

namespace mnist {
namespace {

po::options_description output_options() {
  po::options_description o("Output", 80, 40);
  o.add_options()
      ("save", po::value<std::string>(), "write the model to this file (safetensors)")
      ("force", "overwrite that file if it exists")
      ("json", "print one JSON object instead of text")
      ("quiet", "no progress on standard error");
  return o;
}

}  // namespace

int train(const std::vector<std::string>& args) {
  po::options_description options(80, 40);
  options.add(model_options()).add(training_options()).add(data_options()).add(output_options());
  po::variables_map v;
  if (!parse(args, options, "mnist train [OPTIONS]",
             "Examples:\n"
             "  mnist train --model mlp --layers 512,512 --dropout 0.2 --validation test\n"
             "  mnist train --model cnn --optimizer rmsprop --save digits.safetensors\n"
             "  mnist train --arch \"conv 8 5 relu, pool 2, flatten, dense 10\" --json\n",
             v))
    return ok;
  use_preset(options, v);
  Training t = make_training(v);
  use_threads(v);
  const std::string file = v.count("save") ? v["save"].as<std::string>() : "";
  if (v.count("save") && file.empty()) throw UsageError("--save needs the name of a file");
  if (!file.empty()) ebb::check_writable(file, v.count("force") > 0);

  const ebb::Mnist data = load_data(v);
  const ebb::Dataset all = training_samples(v, data, t.scale), test = data.test.scaled(t.scale);

  const bool json = v.count("json") > 0, quiet = v.count("quiet") > 0;
  if (!quiet) {
    fmt::print(stderr, "data: {} ({})\nmodel: {} ({} parameters)\n", data.name, data.source, t.architecture, ebb::with_commas(ebb::parameter_count(t.net)));
    fmt::print(stderr, "training on {} samples, seed {}, {} thread{}\n", all.size(), t.seed, ebb::threads(), ebb::threads() == 1 ? "" : "s");
    if (t.validates_on_test)
      fmt::print(stderr, "note: --validation test shows the test set every epoch; to choose by it would overstate the result\n");
  }

  catch_signals();
  if (t.validates_on_test) t.fit.validation = test;
  if (quiet) t.fit.verbose = ebb::Verbose::silent;
  bool diverged = false;
  t.fit.callbacks = {[&](ebb::TrainingState& state) {
    if (std::isfinite(state.logs["loss"])) return;
    diverged = state.stop = true;
  }};
  const ebb::History history = ebb::fit(t.net, *t.optimizer, all, t.fit);
  if (diverged) throw std::runtime_error(fmt::format("the loss became {} in epoch {}; try a smaller --lr", history["loss"].back(), history.epochs()));

  const ebb::Metrics result = ebb::evaluate(t.net, test);
  if (!file.empty())
    ebb::save_model(t.net, t.architecture, file, {{"dataset", data.name}, {"scale", fmt::format("{}", t.scale)},
                                                  {"seed", fmt::format("{}", t.seed)}, {"test_accuracy", fmt::format("{}", result.accuracy)}});
  const double seconds = history.seconds.empty() ? 0 : std::accumulate(history.seconds.begin(), history.seconds.end(), 0.0) / history.epochs();
  if (json) {
    nlohmann::ordered_json out{{"test_accuracy", result.accuracy}, {"test_loss", result.loss},
                               {"parameters", ebb::parameter_count(t.net)}, {"seconds_per_epoch", seconds},
                               {"epochs", history.epochs()}, {"seed", t.seed}, {"threads", ebb::threads()},
                               {"architecture", t.architecture}, {"optimizer", t.optimizer->name()}, {"lr", t.optimizer->lr()},
                               {"batch", t.fit.batch}, {"dataset", data.name}, {"interrupted", history.interrupted}};
    out["history"] = history.values;
    out["history"]["seconds"] = history.seconds;
    if (!file.empty()) out["saved"] = file;
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print("test accuracy {:.4f}, test loss {:.4f}{}\n", result.accuracy, result.loss,
               history.seconds.empty() ? "" : fmt::format(", {:.2f} s an epoch", seconds));
    if (!file.empty()) fmt::print("saved {}\n", file);
  }
  return caught_signal() ? 128 + caught_signal() : ok;
}

}  // namespace mnist
