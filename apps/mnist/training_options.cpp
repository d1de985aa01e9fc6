#include "training_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include <ebb/models/data.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/train.h>
#include <ebb/ops/ops.h>

#include "signals.h"

namespace mnist {
namespace {

std::unique_ptr<ebb::Optimizer> make_optimizer(const po::variables_map& v) {
  const auto name = v["optimizer"].as<std::string>();
  ebb::OptimizerOptions options;
  if (v.count("lr")) options["lr"] = v["lr"].as<double>();
  if (const double momentum = v["momentum"].as<double>(); momentum > 0) {
    if (name != "sgd" && name != "rmsprop")
      throw UsageError(fmt::format("--momentum belongs to sgd and rmsprop; {} has its own", name));
    options["momentum"] = momentum;
  }
  if (v.count("weight-decay")) options["weight_decay"] = v["weight-decay"].as<double>();
  if (v.count("rmsprop-eps")) {
    if (name != "rmsprop") throw UsageError("--rmsprop-eps belongs to --optimizer rmsprop");
    options["epsilon_inside_sqrt"] = v["rmsprop-eps"].as<std::string>() == "inside";
  }
  return ebb::make_optimizer(name, options);
}

ebb::Schedule make_schedule(const po::variables_map& v, double lr) {
  const auto name = v["schedule"].as<std::string>();
  const double warmup = v["warmup"].as<double>();
  if (warmup > 0 && name != "cosine") throw UsageError("--warmup belongs to --schedule cosine");
  if (name == "step") return ebb::step_lr({.lr = lr});
  if (name == "exponential") return ebb::exponential_lr({.lr = lr});
  if (name == "cosine") return ebb::cosine_lr({.lr = lr, .warmup = warmup});
  if (name == "one-cycle") return ebb::one_cycle_lr({.lr = lr, .peak = 0.2});
  return {};
}

/// Early stopping, falling rates and averages. What they watch must be there.
std::vector<ebb::Callback> make_callbacks(const po::variables_map& v, bool validates) {
  std::vector<ebb::Callback> out;
  const auto monitor = v["monitor"].as<std::string>();
  if ((v.count("early-stopping") || v.count("reduce-lr")) && monitor.starts_with("val_") && !validates)
    throw UsageError(
        fmt::format("nothing measures {}: give --validation-split, --validation test, or --monitor loss", monitor));
  if (v.count("restore-best") && !v.count("early-stopping"))
    throw UsageError("--restore-best belongs to --early-stopping");
  if (v.count("ema")) out.emplace_back(ebb::AverageWeights(v["ema"].as<double>()));
  if (v.count("reduce-lr")) {
    if (v["schedule"].as<std::string>() != "constant") throw UsageError("give either --reduce-lr or --schedule");
    out.emplace_back(ebb::ReduceLROnPlateau({.monitor = monitor, .patience = v["reduce-lr"].as<int>()}));
  }
  if (v.count("early-stopping"))
    out.emplace_back(ebb::EarlyStopping({.monitor = monitor,
                                         .min_delta = v["min-delta"].as<double>(),
                                         .patience = v["early-stopping"].as<int>(),
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
                                         {"save", text(), saved},
                                         {"force", "overwrite files that exist"},
                                         {"json", "print one JSON object instead of text"},
                                         {"quiet", "no progress on standard error"},
                                     });
}

po::options_description training_options() {
  return app::option_group(
      "Training",
      {
          {"optimizer", one_of("adam", ebb::optimizer_names()), "{}"},
          {"lr", number(0.0, 1e6), "learning rate; default: 0.01 for sgd, else 0.001"},
          {"momentum", number(0.0, 0.0, 0.999999), "momentum of sgd and rmsprop"},
          {"weight-decay", number(0.0, 1e6),
           "share, times lr, by which weights shrink each step; default: 0.004 for adamw, else 0"},
          {"rmsprop-eps", one_of({"inside", "outside"}),
           "inside the square root, as in Keras 3 (default), or outside, as in Keras 2 and PyTorch"},
          {"schedule", one_of("constant", {"constant", "step", "exponential", "cosine", "one-cycle"}),
           "learning rate: constant, step (a tenth every 10 epochs), exponential (times 0.96 each epoch), cosine (down "
           "from --lr), or one-cycle (up to --lr and down)"},
          {"warmup", number(0.0, 0.0, 1e6), "epochs in which the rate of cosine rises first"},
          {"clip-norm", number(0.0, 0.0, 1e9), "largest norm of all gradients together; 0: no limit"},
          {"clip-value", number(0.0, 0.0, 1e9), "largest element of a gradient; 0: no limit"},
          {"ema", number(0.0, 0.9999999),
           "validate and keep running averages of the weights with this decay, such as 0.999"},
          {"batch", number<std::int64_t>(default_batch, 1, 1'000'000), "samples in each step"},
          {"epochs", number(5, 0, 1'000'000), "passes through the training data"},
          {"seed", number<std::uint64_t>(1, 0, UINT64_MAX),
           "seed of weights, sample order and dropout; same seed, same bits"},
          {"validation", one_of("none", {"none", "test"}), "samples to measure val_loss on after each epoch: {}"},
          {"validation-split", number(0.0, 0.0, 0.999), "hold out this last share of the training data instead"},
          {"early-stopping", number(0, 1'000'000), "stop after so many epochs without improvement"},
          {"reduce-lr", number(1, 1'000'000), "divide the rate by ten after so many epochs without improvement"},
          {"monitor", one_of("val_loss", {"val_loss", "val_accuracy", "loss", "accuracy"}),
           "the number that must improve: {}"},
          {"min-delta", number(0.0, 0.0, 1e6), "early stopping: a smaller change is no improvement"},
          {"restore-best", "early stopping: end with the weights of the best epoch"},
          {"class-weight", one_of("none", {"none", "balanced"}), "balanced: rarer digits count more"},
          {"augment", po::value<std::string>()->implicit_value(""),
           "distort the training digits, a little or as in \"shift 2, rotate 10, scale 0.1, shear 0.1, elastic 1\""},
          {"label-smoothing", number(0.0, 0.0, 0.999), "share of each label that is spread over all classes"},
          {"raw", "pixels as 0 to 255 instead of 0 to 1"},
          {"limit", number<std::int64_t>(1, 1'000'000'000), "use only the first N training samples"},
      });
}

void use_preset(po::variables_map& v) {
  if (v["model"].as<std::string>() != "best") return;
  const std::vector<std::string> values{"--epochs", "14",         "--batch",   "64",       "--lr",
                                        "0.004",    "--schedule", "one-cycle", "--augment"};
  // what is stored first stays, but for defaults
  po::store(po::command_line_parser(values).options(training_options()).run(), v);
}

Training make_training(const po::variables_map& v) {
  const std::string text = architecture(v);
  const auto seed = v["seed"].as<std::uint64_t>();
  ebb::manual_seed(seed);
  Training t{text, seed, build_network(text), make_optimizer(v), {}, v.count("raw") ? 1.0 : 1.0 / 255, false};
  t.fit = {.epochs = v["epochs"].as<int>(),
           .batch = v["batch"].as<std::int64_t>(),
           .validation_split = v["validation-split"].as<double>(),
           .seed = seed,
           .schedule = make_schedule(v, t.optimizer->lr()),
           .clip_norm = v["clip-norm"].as<double>(),
           .clip_value = v["clip-value"].as<double>(),
           .interrupted = [] { return caught_signal() != 0; }};
  if (v.count("augment"))
    t.fit.augment = [augment = make_augment(v["augment"].as<std::string>())](const ebb::Tensor& x) {
      return augment(x);
    };
  if (const double smoothing = v["label-smoothing"].as<double>(); smoothing > 0)
    t.fit.loss = [smoothing](const ebb::Tensor& y, const ebb::Tensor& labels) {
      return ebb::cross_entropy(y, labels, {.label_smoothing = smoothing});
    };
  t.validates_on_test = v["validation"].as<std::string>() == "test";
  if (t.validates_on_test && t.fit.validation_split > 0)
    throw UsageError("give either --validation test or --validation-split");
  t.fit.callbacks = make_callbacks(v, t.validates_on_test || t.fit.validation_split > 0);
  return t;
}

ebb::Dataset first_of(const po::variables_map& v, const ebb::Dataset& all) {
  if (!v.count("limit")) return all;
  const auto limit = v["limit"].as<std::int64_t>();
  if (limit > all.size()) throw UsageError(fmt::format("--limit must be 1 to {}, got {}", all.size(), limit));
  return all.slice(0, limit);
}

ebb::Dataset limited(const po::variables_map& v, const ebb::Dataset& all) {
  const ebb::Dataset samples = first_of(v, all);
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
