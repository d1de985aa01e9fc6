#include "training_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "signals.h"

namespace mnist {
namespace {

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
  ebb::OptimizerOptions options;
  if (v.count("lr")) options["lr"] = number(v, "lr", 0.0, 1e6);
  if (const double momentum = number(v, "momentum", 0.0, 0.999999); momentum > 0) {
    if (name != "sgd" && name != "rmsprop")
      throw UsageError(fmt::format("--momentum belongs to sgd and rmsprop; {} has its own", name));
    options["momentum"] = momentum;
  }
  if (v.count("weight-decay")) options["weight_decay"] = number(v, "weight-decay", 0.0, 1e6);
  if (v.count("rmsprop-eps")) {
    const auto where = v["rmsprop-eps"].as<std::string>();
    if (name != "rmsprop") throw UsageError("--rmsprop-eps belongs to --optimizer rmsprop");
    if (where != "inside" && where != "outside")
      throw UsageError(fmt::format("--rmsprop-eps must be inside or outside, got \"{}\"", where));
    options["epsilon_inside_sqrt"] = where == "inside";
  }
  const auto names = ebb::optimizer_names();
  if (std::ranges::find(names, name) == names.end())
    throw UsageError(fmt::format("--optimizer must be one of {}; got \"{}\"", fmt::join(names, ", "), name));
  return ebb::make_optimizer(name, options);
}

ebb::Schedule make_schedule(const po::variables_map& v, double lr) {
  const auto name = v["schedule"].as<std::string>();
  const double warmup = number(v, "warmup", 0.0, 1e6);
  if (warmup > 0 && name != "cosine") throw UsageError("--warmup belongs to --schedule cosine");
  if (name == "constant") return {};
  if (name == "step") return ebb::step_lr({.lr = lr});
  if (name == "exponential") return ebb::exponential_lr({.lr = lr});
  if (name == "cosine") return ebb::cosine_lr({.lr = lr, .warmup = warmup});
  if (name == "one-cycle") return ebb::one_cycle_lr({.lr = lr, .peak = 0.2});
  throw UsageError(
      fmt::format("--schedule must be constant, step, exponential, cosine or one-cycle, got \"{}\"", name));
}

/// Early stopping, falling rates and averages. What they watch must be there.
std::vector<ebb::Callback> make_callbacks(const po::variables_map& v, bool validates) {
  std::vector<ebb::Callback> out;
  const auto monitor = v["monitor"].as<std::string>();
  const std::vector<std::string> measured{"val_loss", "val_accuracy", "loss", "accuracy"};
  if (std::ranges::find(measured, monitor) == measured.end())
    throw UsageError(fmt::format("--monitor must be one of {}; got \"{}\"", fmt::join(measured, ", "), monitor));
  if ((v.count("early-stopping") || v.count("reduce-lr")) && monitor.starts_with("val_") && !validates)
    throw UsageError(
        fmt::format("nothing measures {}: give --validation-split, --validation test, or --monitor loss", monitor));
  if (v.count("restore-best") && !v.count("early-stopping"))
    throw UsageError("--restore-best belongs to --early-stopping");
  if (v.count("ema")) out.emplace_back(ebb::AverageWeights(number(v, "ema", 0.0, 0.9999999)));
  if (v.count("reduce-lr")) {
    if (v["schedule"].as<std::string>() != "constant") throw UsageError("give either --reduce-lr or --schedule");
    out.emplace_back(ebb::ReduceLROnPlateau({.monitor = monitor, .patience = number(v, "reduce-lr", 1, 1'000'000)}));
  }
  if (v.count("early-stopping"))
    out.emplace_back(ebb::EarlyStopping({.monitor = monitor,
                                         .min_delta = number(v, "min-delta", 0.0, 1e6),
                                         .patience = number(v, "early-stopping", 0, 1'000'000),
                                         .restore_best = v.count("restore-best") > 0}));
  return out;
}

/// "shift 2, rotate 15": what is not named is off; nothing named is all of it, as Augment has it.
ebb::Augment make_augment(const std::string& text) {
  if (text.empty()) return ebb::Augment();
  ebb::AugmentOptions o{.shift = 0, .rotate = 0, .scale = 0, .shear = 0, .elastic = 0};
  const std::vector<std::pair<std::string, double*>> amounts{
      {"shift", &o.shift}, {"rotate", &o.rotate}, {"scale", &o.scale}, {"shear", &o.shear}, {"elastic", &o.elastic}};
  for (const std::string& part : words(text)) {
    const std::vector<std::string> pair = words(part, ' ');
    const auto known = std::ranges::find(amounts, pair[0], &std::pair<std::string, double*>::first);
    double amount = 0;
    const auto read = [&](const std::string& s) {
      const auto [stop, error] = std::from_chars(s.data(), s.data() + s.size(), amount);
      return error == std::errc() && stop == s.data() + s.size();
    };
    if (pair.size() != 2 || known == amounts.end() || !read(pair[1]))
      throw UsageError(
          fmt::format("--augment takes amounts such as \"shift 2, rotate 10, scale 0.1, shear 0.1, "
                      "elastic 1\", got \"{}\"",
                      part));
    *known->second = amount;
  }
  try {
    return ebb::Augment(o);
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--augment: {}", e.what()));
  }
}

}  // namespace

po::options_description output_options(const char* saved) {
  return app::option_group("Output", {
                                         {"save", po::value<std::string>(), saved},
                                         {"force", "overwrite files that exist"},
                                         {"json", "print one JSON object instead of text"},
                                         {"quiet", "no progress on standard error"},
                                     });
}

po::options_description training_options() {
  const std::string optimizers = fmt::format("{}", fmt::join(ebb::optimizer_names(), ", "));
  return app::option_group(
      "Training",
      {
          {"optimizer", po::value<std::string>()->default_value("adam"), optimizers.c_str()},
          {"lr", po::value<double>(), "learning rate; default: 0.01 for sgd, else 0.001"},
          {"momentum", po::value<double>()->default_value(0), "of sgd and rmsprop"},
          {"weight-decay", po::value<double>(),
           "share, times lr, by which weights shrink each step; default: 0.004 for adamw, else 0"},
          {"rmsprop-eps", po::value<std::string>(),
           "inside the square root, as Keras 3 (default), or outside, as Keras 2 and PyTorch"},
          {"schedule", po::value<std::string>()->default_value("constant"),
           "of the rate: constant, step (a tenth every 10 epochs), exponential (0.96 an epoch), cosine (down from "
           "--lr), or one-cycle (up to it and down)"},
          {"warmup", po::value<double>()->default_value(0), "epochs in which the cosine's rate rises first"},
          {"clip-norm", po::value<double>()->default_value(0), "largest norm of all gradients together; 0: any"},
          {"clip-value", po::value<double>()->default_value(0), "largest element of a gradient; 0: any"},
          {"ema", po::value<double>(),
           "validate and keep running averages of the weights with this decay, such as 0.999"},
          {"batch", po::value<std::int64_t>()->default_value(128), "samples a step"},
          {"epochs", po::value<int>()->default_value(5), "passes through the training data"},
          {"seed", po::value<std::string>()->default_value("1"),
           "of weights, sample order and dropout; same seed, same bits"},
          {"validation", po::value<std::string>()->default_value("none"),
           "what val_loss is measured on each epoch: none, or test"},
          {"validation-split", po::value<double>()->default_value(0),
           "hold out this last share of the training data instead"},
          {"early-stopping", po::value<int>(), "stop after so many epochs without improvement"},
          {"reduce-lr", po::value<int>(), "a tenth of the rate after so many epochs without improvement"},
          {"monitor", po::value<std::string>()->default_value("val_loss"),
           "the number that is to improve: val_loss, val_accuracy, loss or accuracy"},
          {"min-delta", po::value<double>()->default_value(0), "early stopping: what is less is no improvement"},
          {"restore-best", "early stopping: end with the weights of the best epoch"},
          {"class-weight", po::value<std::string>()->default_value("none"),
           "none, or balanced: rarer digits count more"},
          {"augment", po::value<std::string>()->implicit_value(""),
           "distort the training digits, a little or as in \"shift 2, rotate 10, scale 0.1, shear 0.1, elastic 1\""},
          {"label-smoothing", po::value<double>()->default_value(0),
           "share of each label that is spread over all classes"},
          {"raw", "pixels as 0 to 255 instead of 0 to 1"},
          {"limit", po::value<std::int64_t>(), "use only the first N training samples"},
      });
}

void use_preset(const po::options_description& options, po::variables_map& v) {
  if (v["model"].as<std::string>() != "best") return;
  const std::vector<std::string> values{"--epochs", "14",         "--batch",   "64",       "--lr",
                                        "0.004",    "--schedule", "one-cycle", "--augment"};
  po::store(po::command_line_parser(values).options(options).run(), v);  // what is stored first stays, but for defaults
}

Training make_training(const po::variables_map& v) {
  const std::string text = architecture(v);
  const auto seed = seed_of(v["seed"].as<std::string>());
  ebb::manual_seed(seed);
  Training t{text, seed, build_network(text), make_optimizer(v), {}, v.count("raw") ? 1.0 : 1.0 / 255, false};
  t.fit = {.epochs = number(v, "epochs", 0, 1'000'000),
           .batch = number<std::int64_t>(v, "batch", 1, 1'000'000),
           .validation_split = number(v, "validation-split", 0.0, 0.999),
           .seed = seed,
           .schedule = make_schedule(v, t.optimizer->lr()),
           .clip_norm = number(v, "clip-norm", 0.0, 1e9),
           .clip_value = number(v, "clip-value", 0.0, 1e9),
           .interrupted = [] { return caught_signal() != 0; }};
  if (v.count("augment"))
    t.fit.augment = [augment = make_augment(v["augment"].as<std::string>())](const ebb::Tensor& x) {
      return augment(x);
    };
  if (const double smoothing = number(v, "label-smoothing", 0.0, 0.999); smoothing > 0)
    t.fit.loss = [smoothing](const ebb::Tensor& y, const ebb::Tensor& labels) {
      return ebb::cross_entropy(y, labels, {.label_smoothing = smoothing});
    };
  const auto validation = v["validation"].as<std::string>();
  if (validation != "none" && validation != "test")
    throw UsageError(fmt::format("--validation must be none or test, got \"{}\"", validation));
  t.validates_on_test = validation == "test";
  if (t.validates_on_test && t.fit.validation_split > 0)
    throw UsageError("give either --validation test or --validation-split");
  t.fit.callbacks = make_callbacks(v, t.validates_on_test || t.fit.validation_split > 0);
  const auto weights = v["class-weight"].as<std::string>();
  if (weights != "none" && weights != "balanced")
    throw UsageError(fmt::format("--class-weight must be none or balanced, got \"{}\"", weights));
  return t;
}

ebb::Dataset limited(const po::variables_map& v, const ebb::Dataset& all) {
  const ebb::Dataset samples = v.count("limit") ? all.slice(0, number<std::int64_t>(v, "limit", 1, all.size())) : all;
  if (const double share = v["validation-split"].as<double>(); share > 0) ebb::split_last(samples, share);  // throws
  return samples;
}

ebb::Dataset training_samples(const po::variables_map& v, const ebb::Mnist& data, Training& t, bool resumed) {
  const ebb::Dataset all = data.train.scaled(t.scale);
  const ebb::Dataset samples = limited(v, all);
  // What is held out must not be looked at
  const ebb::Dataset seen =
      t.fit.validation_split > 0 ? ebb::split_last(samples, t.fit.validation_split).first : samples;
  if (v["class-weight"].as<std::string>() == "balanced") t.fit.class_weight = ebb::balanced_weights(seen.labels, 10);
  if (!resumed && !t.net.layers().empty())
    if (auto* first = dynamic_cast<ebb::Standardize*>(&*t.net.layers()[0])) first->fit(seen.inputs, seen.scale);
  return samples;
}

}  // namespace mnist
