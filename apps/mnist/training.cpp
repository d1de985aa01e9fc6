#include "training.h"

#include <fmt/format.h>

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

double rate_of(const po::variables_map& v) {
  return v.count("lr") ? number(v, "lr", 0.0, 1e6) : v["optimizer"].as<std::string>() == "sgd" ? 0.01 : 0.001;
}

std::unique_ptr<ebb::Optimizer> make_optimizer(const po::variables_map& v) {
  const auto name = v["optimizer"].as<std::string>();
  const double lr = rate_of(v), momentum = number(v, "momentum", 0.0, 0.999999);
  if (name == "sgd") return std::make_unique<ebb::SGD>(ebb::SGDOptions{.lr = lr, .momentum = momentum});
  if (name == "rmsprop")
    return std::make_unique<ebb::RMSprop>(ebb::RMSpropOptions{.lr = lr, .momentum = momentum});
  if (name == "adam") {
    if (momentum != 0) throw UsageError("--momentum belongs to sgd and rmsprop; adam has its own");
    return std::make_unique<ebb::Adam>(ebb::AdamOptions{.lr = lr});
  }
  throw UsageError(fmt::format("--optimizer must be sgd, rmsprop or adam, got \"{}\"", name));
}

ebb::Schedule make_schedule(const po::variables_map& v) {
  const auto name = v["schedule"].as<std::string>();
  const double lr = rate_of(v);
  if (name == "constant") return {};
  if (name == "cosine") return ebb::cosine_lr({.lr = lr});
  if (name == "one-cycle") return ebb::one_cycle_lr({.lr = lr, .peak = 0.2});
  throw UsageError(fmt::format("--schedule must be constant, cosine or one-cycle, got \"{}\"", name));
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
      throw UsageError(fmt::format("--augment takes amounts such as \"shift 2, rotate 10, scale 0.1, shear 0.1, "
                                   "elastic 1\", got \"{}\"", part));
    *known->second = amount;
  }
  try {
    return ebb::Augment(o);
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--augment: {}", e.what()));
  }
}

}  // namespace

po::options_description training_options() {
  po::options_description o("Training", 80, 40);
  o.add_options()
      ("optimizer", po::value<std::string>()->default_value("adam"), "sgd, rmsprop or adam")
      ("lr", po::value<double>(), "learning rate; default: 0.01 for sgd, else 0.001")
      ("schedule", po::value<std::string>()->default_value("constant"), "of the rate: constant, cosine (down from --lr), or one-cycle (up to it and down)")
      ("momentum", po::value<double>()->default_value(0), "of sgd and rmsprop")
      ("batch", po::value<std::int64_t>()->default_value(128), "samples a step")
      ("epochs", po::value<int>()->default_value(5), "passes through the training data")
      ("seed", po::value<std::string>()->default_value("1"), "of weights, sample order and dropout; same seed, same bits")
      ("validation", po::value<std::string>()->default_value("none"), "what val_loss is measured on each epoch: none, or test")
      ("validation-split", po::value<double>()->default_value(0), "hold out this last share of the training data instead")
      ("augment", po::value<std::string>()->implicit_value(""), "distort the training digits, a little or as in \"shift 2, rotate 10, scale 0.1, shear 0.1, elastic 1\"")
      ("label-smoothing", po::value<double>()->default_value(0), "share of each label that is spread over all classes")
      ("raw", "pixels as 0 to 255 instead of 0 to 1")
      ("limit", po::value<std::int64_t>(), "use only the first N training samples");
  return o;
}

void use_preset(const po::options_description& options, po::variables_map& v) {
  if (v["model"].as<std::string>() != "best") return;
  const std::vector<std::string> values{"--epochs", "14", "--batch", "64", "--lr", "0.004", "--schedule", "one-cycle", "--augment"};
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
           .schedule = make_schedule(v),
           .interrupted = [] { return caught_signal() != 0; }};
  if (v.count("augment"))
    t.fit.augment = [augment = make_augment(v["augment"].as<std::string>())](const ebb::Tensor& x) { return augment(x); };
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
  return t;
}

ebb::Dataset training_samples(const po::variables_map& v, const ebb::Mnist& data, double scale) {
  const ebb::Dataset all = data.train.scaled(scale);
  return v.count("limit") ? all.slice(0, number<std::int64_t>(v, "limit", 1, all.size())) : all;
}

}  // namespace mnist
