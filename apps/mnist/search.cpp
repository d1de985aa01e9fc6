// mnist search: tries values of any of train's options, and gives up early on what does badly.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include <ebb/graph/names.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/report.h>
#include <ebb/models/train.h>

#include "json_text.h"
#include "saving.h"
#include "signals.h"
#include "training_options.h"

namespace mnist {
namespace {

/// The options that can be varied.
po::options_description varied_options() { return joined({model_options(), training_options()}); }

po::options_description search_options() {
  return joined(
      {app::option_group(
           "Search",
           {
               {"vary", po::value<std::vector<std::string>>(),
                "NAME=VALUE|VALUE|... or NAME=LOW..HIGH for an option of the model or the training; repeat it for more "
                "options"},
               {"trials", number(1, 100'000), "try so many random draws; default: every combination of the values"},
               {"no-stop",
                "train every trial to its end; default: a trial ends early when its best val_accuracy so far is below "
                "the median of the others at the same epoch"},
           }),
       varied_options(), data_options(), output_options("write the best model to this file (safetensors)")});
}

/// One option that is varied: a list of values, or a range of numbers.
struct Varied {
  std::string name;
  std::vector<std::string> values;
  std::optional<std::pair<double, double>> range;

  /// A value drawn at random; of a range over more than a factor of ten, with evenly spread logarithms.
  std::string draw(ebb::Generator& random) const {
    if (!range) return values[static_cast<std::size_t>(random.below(values.size()))];
    const auto [low, high] = *range;
    const double u = random.uniform();
    const bool logarithmic = low > 0 && high > 10 * low;
    return fmt::format("{:.4g}", logarithmic ? low * std::pow(high / low, u) : low + (high - low) * u);
  }
};

std::optional<double> number_in(const std::string& text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<Varied> varied(const po::variables_map& v) {
  const std::vector<std::string> known = app::names_of(varied_options());
  if (!v.count("vary"))
    throw UsageError(
        "nothing to search: give --vary, such as --vary \"lr=0.0001..0.01\" --vary "
        "\"layers=64|512|512,512\"");
  std::vector<Varied> out;
  for (const std::string& text : v["vary"].as<std::vector<std::string>>()) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      throw UsageError(fmt::format("--vary takes NAME=VALUE|VALUE|... or NAME=LOW..HIGH, got \"{}\"", text));
    Varied one{text.substr(0, equals), {}, {}};
    if (one.name.starts_with("--")) one.name.erase(0, 2);
    if (std::ranges::find(known, one.name) == known.end())
      throw UsageError("--vary: " + ebb::detail::unknown_name("option", one.name, known));
    if (std::ranges::find(out, one.name, &Varied::name) != out.end())
      throw UsageError(fmt::format("--vary names {} twice", one.name));
    if (v.count(one.name) && !v[one.name].defaulted())
      throw UsageError(fmt::format("--{} is both given and varied", one.name));
    const std::string list = text.substr(equals + 1);
    if (const auto dots = list.find(".."); dots != std::string::npos) {
      const auto low = number_in(list.substr(0, dots)), high = number_in(list.substr(dots + 2));
      if (!low || !high || !(*low < *high))
        throw UsageError(fmt::format("--vary: \"{}\" is no range LOW..HIGH of numbers", list));
      if (!v.count("trials")) throw UsageError("--vary with a range LOW..HIGH needs --trials, the number of draws");
      one.range.emplace(*low, *high);
    } else {
      one.values = words(list, '|');
      if (one.values.empty()) throw UsageError(fmt::format("--vary: no value for {}", one.name));
    }
    out.push_back(std::move(one));
  }
  return out;
}

using Setting = std::vector<std::pair<std::string, std::string>>;

/// What to try: all combinations, or draws that differ from one another as long as that is possible.
std::vector<Setting> settings_of(const std::vector<Varied>& all, const po::variables_map& v, std::uint64_t seed) {
  std::vector<Setting> out;
  if (v.count("trials")) {
    const int trials = v["trials"].as<int>();
    ebb::Generator random(seed, std::uint64_t{5} << 32);
    for (int tries = 0; static_cast<int>(out.size()) < trials && tries < 20 * trials; ++tries) {
      Setting s;
      for (const Varied& o : all) s.emplace_back(o.name, o.draw(random));
      if (std::ranges::find(out, s) == out.end()) out.push_back(std::move(s));
    }
    return out;
  }
  out.emplace_back();
  for (const Varied& o : all) {
    std::vector<Setting> longer;
    for (const Setting& s : out)
      for (const std::string& value : o.values) {
        longer.push_back(s);
        longer.back().emplace_back(o.name, value);
      }
    out = std::move(longer);
  }
  return out;
}

std::string text_of(const Setting& s) {
  std::string out;
  for (const auto& [name, value] : s) out += fmt::format("{}{}={}", out.empty() ? "" : ", ", name, value);
  return out;
}

/// The options as given with one trial's values in their place.
po::variables_map with(const std::vector<std::string>& args, const Setting& setting) {
  static const po::options_description all = search_options();  // for every trial, of which there may be many
  po::variables_map v;
  std::vector<std::string> mine;
  for (const auto& [name, value] : setting) mine.push_back(fmt::format("--{}={}", name, value));
  try {  // what is stored first stays
    po::store(po::command_line_parser(mine).options(all).run(), v);
    po::store(po::command_line_parser(args).options(all).run(), v);
  } catch (const po::error& e) {
    throw UsageError(fmt::format("{}: {}", text_of(setting), e.what()));
  }
  use_preset(v);
  return v;
}

struct Trial {
  Setting setting;
  std::int64_t parameters = 0;
  std::vector<double> accuracy;  // on the validation part, an epoch each
  double loss = 0, seconds = 0;
  bool stopped = false;
  ebb::Sequential net = {};
  std::string architecture = {};
  std::string bad = {};  // a weight or loss that is no number, or what ended it
  double best() const { return accuracy.empty() ? 0 : std::ranges::max(accuracy); }
  double best_until(std::size_t epoch) const {
    return *std::max_element(accuracy.begin(),
                             accuracy.begin() + static_cast<std::ptrdiff_t>(std::min(epoch + 1, accuracy.size())));
  }
};

/// The median of what the trials so far had reached by an epoch: Vizier's median stopping rule (Golovin et
/// al. 2017, section 3.2.2), which needs some to compare with.
std::optional<double> median_at(const std::vector<Trial>& done, std::size_t epoch) {
  std::vector<double> reached;
  for (const Trial& t : done)
    if (t.accuracy.size() > epoch) reached.push_back(t.best_until(epoch));
  if (reached.size() < 3) return std::nullopt;
  std::ranges::nth_element(reached, reached.begin() + static_cast<std::ptrdiff_t>(reached.size() / 2));
  return reached[reached.size() / 2];
}

int run_search(Values& v) {
  const std::vector<Varied> what = varied(v);
  if (v["validation"].as<std::string>() != "none")
    throw UsageError("--validation test would choose by the test set; search holds out --validation-split");
  if (!(v["validation-split"].as<double>() > 0) && !v["validation-split"].defaulted())
    throw UsageError("--validation-split 0 holds nothing out to compare trials by");
  std::vector<std::string> fixed = v.words;
  if (v["validation-split"].defaulted()) fixed.emplace_back("--validation-split=0.1");
  const std::vector<Setting> settings = settings_of(what, v, make_training(with(fixed, {})).seed);
  std::uintmax_t bytes = 0;
  for (const Setting& s : settings) {  // refused before anything is trained
    Training t = make_training(with(fixed, s));
    bytes = std::max(bytes, bytes_of(t.net));
  }
  use_threads(v);
  const std::string file = output_file(v, "save", false, bytes);
  for (const Setting& s : settings) refuse_input(with(fixed, s), "save", file);  // --vary names architecture files too
  const bool quiet = v.count("quiet") > 0, stops = v.count("no-stop") == 0;
  const ebb::Mnist data = load_data(v);
  for (const Setting& s : settings) limited(with(fixed, s), data.train);

  catch_signals();
  put_by();
  const std::filesystem::path target = place_of(file);
  const bool once = takes_one_model(target);
  const auto scale_in = [&](const Trial& t) { return make_training(with(fixed, t.setting)).scale; };
  std::string holds;
  const auto save = [&](Trial& t) {
    keep(
        target,
        [&](const std::filesystem::path& to) {
          ebb::save_model(
              t.net, t.architecture, to,
              {{"dataset", data.name}, {"scale", fmt::format("{}", scale_in(t))}, {"setting", text_of(t.setting)}});
        },
        [&] { return holds; });
    holds = fmt::format("; {} holds the best so far: {}", file, text_of(t.setting));
  };
  // One that went wrong may have done well in an epoch before that, but what it did so with is lost.
  const auto rank = [](const Trial& t) { return t.bad.empty() ? t.best() : -1; };
  double saved = -1;
  std::exception_ptr failure;
  std::vector<Trial> trials;
  for (const Setting& s : settings) {
    if (caught_signal()) break;
    Trial trial{.setting = s, .accuracy = {}};
    bool interrupted = false;
    try {  // a trial that fails costs itself alone
      const po::variables_map one = with(fixed, s);
      Training t = make_training(one);
      trial.parameters = ebb::parameter_count(t.net);
      trial.architecture = t.architecture;
      t.fit.verbose = ebb::Verbose::silent;
      t.fit.callbacks.emplace_back([&](ebb::TrainingState& state) {
        trial.accuracy.push_back(state.logs["val_accuracy"]);
        trial.loss = state.logs["val_loss"];
        const auto median = median_at(trials, trial.accuracy.size() - 1);
        trial.stopped = !std::isfinite(state.logs["loss"]) ||
                        (stops && median && trial.best() < *median && state.epoch + 1 < state.epochs);
        state.stop = state.stop || trial.stopped;
      });
      const ebb::Dataset samples = training_samples(one, data, t);
      const ebb::History h = ebb::fit(t.net, *t.optimizer, samples, t.fit);
      for (const double seconds : h.seconds) trial.seconds += seconds;
      trial.net = t.net;
      interrupted = h.interrupted;
      if (!interrupted) trial.bad = went_wrong(trial.net, {&samples});
    } catch (const std::exception& e) {
      failure = std::current_exception();
      trial.bad = words_of(e);
    }
    if (interrupted) break;
    if (!quiet)
      app::note("{}/{}: {}: val_accuracy {:.4f}, {} epochs, {:.1f} s{}{}\n", trials.size() + 1, settings.size(),
                text_of(s), trial.best(), trial.accuracy.size(), trial.seconds, trial.stopped ? ", stopped early" : "",
                trial.bad.empty() ? "" : "; failed: " + trial.bad);
    trials.push_back(std::move(trial));
    if (!file.empty() && !once && rank(trials.back()) > saved) {
      save(trials.back());
      saved = rank(trials.back());
    }
  }
  if (caught_signal())
    app::note("interrupted after {} of {} trials{}\n", trials.size(), settings.size(),
              file.empty()    ? ""
              : holds.empty() ? "; nothing is saved"
                              : holds);
  if (trials.empty()) return caught_signal() ? 128 + caught_signal() : ok;

  std::ranges::stable_sort(trials, [&](const Trial& a, const Trial& b) { return rank(a) > rank(b); });
  Trial& best = trials[0];
  if (!best.bad.empty()) {
    if (failure && trials.size() == 1) std::rethrow_exception(failure);
    throw std::runtime_error(fmt::format("no trial went well; {}: {}", text_of(best.setting), best.bad));
  }
  if (!file.empty() && once) save(best);
  std::optional<ebb::Metrics> test;
  try {
    test = ebb::evaluate(best.net, data.test.scaled(scale_in(best)));
  } catch (const std::exception&) {  // the trials are told without
    failure = std::current_exception();
  }
  end_on_signals();
  if (v.count("json")) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Trial& t : trials) {
      nlohmann::ordered_json setting;
      for (const auto& [name, value] : t.setting) setting[name] = value;
      list.push_back({{"setting", setting},
                      {"val_accuracy", t.accuracy},
                      {"best_val_accuracy", t.best()},
                      {"val_loss", t.loss},
                      {"parameters", t.parameters},
                      {"seconds", t.seconds},
                      {"stopped", t.stopped}});
      if (!t.bad.empty()) list.back()["failed"] = t.bad;
    }
    nlohmann::ordered_json out{{"trials", list}};
    if (test) out.update({{"test_accuracy", test->accuracy}, {"test_loss", test->loss}});
    out["asked"] = settings.size();
    app::print("{}\n", app::json_text(out));
  } else {
    std::size_t wide = 7;
    for (const Trial& t : trials) wide = std::max(wide, text_of(t.setting).size());
    app::print("{:>4}  {:<{}}  {:>12}  {:>8}  {:>6}  {:>10}  {:>7}\n", "rank", "setting", wide, "val_accuracy",
               "val_loss", "epochs", "parameters", "seconds");
    for (std::size_t i = 0; i < trials.size(); ++i) {
      const Trial& t = trials[i];
      app::print("{:>4}  {:<{}}  {:>12.4f}  {:>8.4f}  {:>6}  {:>10}  {:>7.1f}{}\n", i + 1, text_of(t.setting), wide,
                 t.best(), t.loss, t.accuracy.size(), ebb::with_commas(t.parameters), t.seconds,
                 !t.bad.empty() ? "  failed: " + t.bad
                 : t.stopped    ? "  stopped early"
                                : "");
    }
    if (test) app::print("the best on the test set: accuracy {:.4f}, loss {:.4f}\n", test->accuracy, test->loss);
    if (!file.empty()) app::print("saved {}\n", file);
  }
  if (!test) std::rethrow_exception(failure);
  return caught_signal() ? 128 + caught_signal() : ok;
}

}  // namespace

const app::Command search_command{
    .name = "search",
    .about = "try many settings of a training and compare",
    .arguments = "--vary NAME=VALUE|VALUE... [OPTIONS]",
    .description =
        "Trials are compared by accuracy on held-out training samples\n"
        "(--validation-split, here 0.1 unless given); only the best one is tested on the\n"
        "test samples, once, at the end.\n",
    .examples =
        "  mnist search --vary \"layers=64|512|512,512\" --vary \"dropout=0|0.2\" --epochs 3\n"
        "  mnist search --vary lr=0.0001..0.01 --vary \"batch=64|128\" --trials 12\n",
    .options = search_options,
    .run = run_search,
};

}  // namespace mnist
