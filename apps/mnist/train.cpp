// mnist train
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <memory>
#include <numeric>

#include "command.h"
#include "signals.h"

namespace mnist {
namespace {

po::options_description training_options() {
  po::options_description o("Training", 80, 40);
  o.add_options()
      ("optimizer", po::value<std::string>()->default_value("adam"), "sgd, rmsprop or adam")
      ("lr", po::value<double>(), "learning rate; default: 0.01 for sgd, else 0.001")
      ("momentum", po::value<double>()->default_value(0), "of sgd and rmsprop")
      ("batch", po::value<std::int64_t>()->default_value(128), "samples a step")
      ("epochs", po::value<int>()->default_value(5), "passes through the training data")
      ("seed", po::value<std::string>()->default_value("1"), "of weights, sample order and dropout; same seed, same bits")
      ("validation", po::value<std::string>()->default_value("none"), "what val_loss is measured on each epoch: none, or test")
      ("validation-split", po::value<double>()->default_value(0), "hold out this last share of the training data instead")
      ("raw", "pixels as 0 to 255 instead of 0 to 1")
      ("limit", po::value<std::int64_t>(), "use only the first N training samples");
  return o;
}

po::options_description output_options() {
  po::options_description o("Output", 80, 40);
  o.add_options()
      ("save", po::value<std::string>(), "write the model to this file (safetensors)")
      ("force", "overwrite that file if it exists")
      ("json", "print one JSON object instead of text")
      ("quiet", "no progress on standard error");
  return o;
}

template <class T>
T number(const po::variables_map& v, const char* name, T low, T high) {
  const T n = v[name].as<T>();
  if (!(n >= low && n <= high)) throw UsageError(fmt::format("--{} must be {} to {}, got {}", name, low, high, n));
  return n;
}

std::uint64_t seed_of(const std::string& text) {
  std::uint64_t seed = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || stop != text.data() + text.size())
    throw UsageError(fmt::format("--seed must be 0 to 18446744073709551615, got {}", text));
  return seed;
}

std::unique_ptr<ebb::Optimizer> make_optimizer(const po::variables_map& v) {
  const auto name = v["optimizer"].as<std::string>();
  const double lr = v.count("lr") ? number(v, "lr", 0.0, 1e6) : name == "sgd" ? 0.01 : 0.001;
  const double momentum = number(v, "momentum", 0.0, 0.999999);
  if (name == "sgd") return std::make_unique<ebb::SGD>(ebb::SGDOptions{.lr = lr, .momentum = momentum});
  if (name == "rmsprop") return std::make_unique<ebb::RMSprop>(ebb::RMSpropOptions{.lr = lr, .momentum = momentum});
  if (name == "adam") {
    if (momentum != 0) throw UsageError("--momentum belongs to sgd and rmsprop; adam has its own");
    return std::make_unique<ebb::Adam>(ebb::AdamOptions{.lr = lr});
  }
  throw UsageError(fmt::format("--optimizer must be sgd, rmsprop or adam, got \"{}\"", name));
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
  const std::string text = architecture(v);
  const auto seed = seed_of(v["seed"].as<std::string>());
  ebb::manual_seed(seed);
  ebb::Sequential net = build_network(text);
  const auto optimizer = make_optimizer(v);
  const auto batch = number<std::int64_t>(v, "batch", 1, 1'000'000);
  const auto epochs = number(v, "epochs", 0, 1'000'000);
  const auto split = number(v, "validation-split", 0.0, 0.999);
  const auto validation = v["validation"].as<std::string>();
  if (validation != "none" && validation != "test") throw UsageError(fmt::format("--validation must be none or test, got \"{}\"", validation));
  if (validation == "test" && split > 0) throw UsageError("give either --validation test or --validation-split");
  use_threads(v);
  const std::string file = v.count("save") ? v["save"].as<std::string>() : "";
  if (v.count("save") && file.empty()) throw UsageError("--save needs the name of a file");
  if (!file.empty()) ebb::check_writable(file, v.count("force") > 0);

  const ebb::Mnist data = load_data(v);
  const double scale = v.count("raw") ? 1.0 : 1.0 / 255;
  ebb::Dataset all = data.train.scaled(scale);
  const ebb::Dataset test = data.test.scaled(scale);
  if (v.count("limit")) all = all.slice(0, number<std::int64_t>(v, "limit", 1, all.size()));

  const bool json = v.count("json") > 0, quiet = v.count("quiet") > 0;
  if (!quiet) {
    fmt::print(stderr, "data: {} ({})\nmodel: {} ({} parameters)\n", data.name, data.source, text, ebb::with_commas(ebb::parameter_count(net)));
    fmt::print(stderr, "training on {} samples, seed {}, {} thread{}\n", all.size(), seed, ebb::threads(), ebb::threads() == 1 ? "" : "s");
    if (validation == "test")
      fmt::print(stderr, "note: --validation test shows the test set every epoch; to choose by it would overstate the result\n");
  }

  catch_signals();
  ebb::FitOptions fit_options{.epochs = epochs, .batch = batch, .validation_split = split, .seed = seed};
  if (validation == "test") fit_options.validation = test;
  if (quiet) fit_options.verbose = ebb::Verbose::silent;
  fit_options.interrupted = [] { return caught_signal() != 0; };
  bool diverged = false;
  fit_options.callbacks = {[&](ebb::TrainingState& state) {
    if (std::isfinite(state.logs["loss"])) return;
    diverged = state.stop = true;
  }};
  const ebb::History history = ebb::fit(net, *optimizer, all, fit_options);
  if (diverged) throw std::runtime_error(fmt::format("the loss became {} in epoch {}; try a smaller --lr", history["loss"].back(), history.epochs()));

  const ebb::Metrics result = ebb::evaluate(net, test);
  if (!file.empty())
    ebb::save_model(net, text, file, {{"dataset", data.name}, {"scale", fmt::format("{}", scale)},
                                      {"seed", fmt::format("{}", seed)}, {"test_accuracy", fmt::format("{}", result.accuracy)}});
  const double seconds = history.seconds.empty() ? 0 : std::accumulate(history.seconds.begin(), history.seconds.end(), 0.0) / history.epochs();
  if (json) {
    nlohmann::ordered_json out{{"test_accuracy", result.accuracy}, {"test_loss", result.loss},
                               {"parameters", ebb::parameter_count(net)}, {"seconds_per_epoch", seconds},
                               {"epochs", history.epochs()}, {"seed", seed}, {"threads", ebb::threads()},
                               {"architecture", text}, {"optimizer", optimizer->name()}, {"lr", optimizer->lr()},
                               {"batch", batch}, {"dataset", data.name}, {"interrupted", history.interrupted}};
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
