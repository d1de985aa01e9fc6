// mnist train
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <system_error>

#include <ebb/models/data/mnist.h>
#include <ebb/models/report.h>
#include <ebb/models/train.h>
#include <ebb/ops/kernels/threads.h>

#include "command.h"
#include "json_text.h"
#include "saving.h"
#include "signals.h"
#include "training_options.h"
#include "training_record.h"

namespace mnist {
namespace {

/// The table of --log-csv. When it cannot be written any more, training goes on without it.
class Log : public ebb::CallbackBase {
 public:
  Log(const std::string& file, bool append) : table_(file, append) {}
  void train_begin(ebb::TrainingState& state) override { table_.train_begin(state); }
  void epoch_end(ebb::TrainingState& state) override {
    if (!error_.empty()) return;
    try {
      table_.epoch_end(state);
    } catch (const ebb::IoError& e) {
      error_ = e.what();
      state.say(fmt::format("warning: {}; training goes on without it", error_));
    }
  }
  void train_end(ebb::TrainingState& state) override { table_.train_end(state); }
  const std::string& error() const { return error_; }

 private:
  ebb::CSVLogger table_;
  std::string error_;
};

void set_progress(const po::variables_map& v, ebb::FitOptions& o) {
  if (v.count("verbose")) {
    const int level = v["verbose"].as<int>();
    o.verbose = level == 0 ? ebb::Verbose::silent : level == 1 ? ebb::Verbose::bar : ebb::Verbose::lines;
  }
  if (v.count("quiet")) o.verbose = ebb::Verbose::silent;
  o.style = ebb::style_of(v["style"].as<std::string>());
  const auto color = v["color"].as<std::string>();
  if (color == "always") ::unsetenv("NO_COLOR");
  if (color == "never") ::setenv("NO_COLOR", "1", 1);
}

std::optional<ebb::Interval> checkpoint_interval(const po::variables_map& v, const std::string& file) {
  if (!v.count("checkpoint-every")) {
    if (v["keep"].as<int>() > 1) throw UsageError("--keep belongs to --checkpoint-every");
    return std::nullopt;
  }
  if (file.empty()) throw UsageError("--checkpoint-every needs --save");
  try {
    return ebb::Interval::parse(v["checkpoint-every"].as<std::string>());
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--checkpoint-every: {}", e.what()));
  }
}

/// Bytes of the file: of the weights, twice where it holds both averages and what they are of, and of the optimizer's
/// state.
std::uintmax_t training_bytes(Training& t, bool averages) {
  std::uintmax_t bytes = bytes_of(t.net) * (averages ? 2 : 1);
  for (const ebb::Tensor& p : ebb::parameters(t.net))
    bytes += p.bytes() * static_cast<std::uintmax_t>(t.optimizer->slots());
  return bytes;
}

/// What can be done with a file that exists, beside overwriting it.
std::string other_way(const std::string& file) {
  try {
    const ebb::SavedModel model = ebb::load_model(file);
    return model.history ? fmt::format("; --resume {} goes on with the training in it, after {} epochs", file,
                                       model.history->epochs())
                         : "";
  } catch (const ebb::Error&) {  // no model
    return "";
  }
}

/// How far the training of these runs is in the file, where it wrote a checkpoint.
std::optional<std::string> checkpoint_in(const std::string& file, const std::string& runs) {
  try {
    const ebb::SavedModel model = ebb::load_model(file);
    if (const auto it = model.metadata.find(runs_key); it == model.metadata.end() || it->second != runs)
      return std::nullopt;
    return fmt::format("; {} holds the training up to epoch {}", file, model.history->epochs());
  } catch (const ebb::Error&) {  // there is none
    return std::nullopt;
  }
}

int run_train(Values& v) {
  std::optional<ebb::SavedModel> saved;
  std::string file = app::output_name(v, "save");
  if (v.count("resume")) {
    const auto from = v["resume"].as<std::string>();
    saved = ebb::load_model(from);
    restore_options(*saved, from, v);
    if (file.empty()) file = from;
  }
  use_preset(v);
  Training t = make_training(v);
  set_progress(v, t.fit);
  const std::optional<ebb::Interval> every = checkpoint_interval(v, file);
  split_of(v);  // refused before anything is read or written
  use_threads(v);
  const std::string csv = output_file(v, "log-csv", saved.has_value()),
                    resumed = saved ? v["resume"].as<std::string>() : "";
  if (!file.empty()) refuse_input(v, "save", file);
  refuse_same_files({{"--save", file}, {"--log-csv", csv}});
  refuse_same_files({{"--resume", resumed}, {"--log-csv", csv}});
  if (saved) {
    refuse_not_finite(*saved, resumed);
    if (const std::string bad = ebb::not_finite(saved->history ? saved->history->weights : ebb::TensorMap{});
        !bad.empty())
      throw ebb::DataError(fmt::format(
          "{}: {} in the weights to go on from: the training went wrong; what the file gives to use is good", resumed,
          bad));
  }
  const bool replaces = v.count("force") > 0 || (saved && same_file(file, resumed));
  try {
    if (!file.empty()) check_output(file, replaces, training_bytes(t, v.count("ema") > 0));
  } catch (const ebb::FileExists& e) {
    throw ebb::IoError(e.what() + other_way(file));
  }
  for (int i = 1; every && i < v["keep"].as<int>(); ++i) {  // the checkpoints before it are outputs too
    const std::string older = ebb::ModelCheckpoint::older(file, i).string();
    refuse_input(v, "keep", older);
    refuse_same_files({{"--resume", resumed}, {"--log-csv", csv}, {"--keep", older}});
    check_output(older, replaces);
  }
  if (v.count("checkpoint-every") && takes_one_model(file))
    throw UsageError(
        fmt::format("--checkpoint-every replaces what it wrote before; {} is not a file that can be replaced", file));
  if (saved) {
    t.net = saved->net;
    t.optimizer = std::move(saved->optimizer);
    t.fit.resume = saved->history;
  }
  const std::string kept = kept_options(v, t.architecture);

  const ebb::Mnist data = split_data(load_data(v), v);
  const ebb::Dataset all = training_samples(v, data, t, saved.has_value()), test = data.test.scaled(t.scale);

  const bool json = v.count("json") > 0;
  if (t.fit.verbose != ebb::Verbose::silent) {
    app::note("data: {} ({})\nmodel: {} ({} parameters)\n", data.name, data.source, t.architecture,
              ebb::with_commas(ebb::parameter_count(t.net)));
    app::note("training on {} samples, seed {}, {} thread{}\n", all.size(), t.seed, ebb::threads(),
              ebb::threads() == 1 ? "" : "s");
    if (saved) app::note("going on after {} epochs\n", t.fit.resume->epochs());
    if (t.validates_on_test)
      app::note("note: --validation test shows the test set every epoch; to choose by it would overstate the result\n");
  }

  catch_signals();
  if (t.validates_on_test) t.fit.validation = test;
  ebb::Metadata about{{"dataset", data.name},
                      {"scale", fmt::format("{}", t.scale)},
                      {"seed", fmt::format("{}", t.seed)},
                      {options_key, kept}};
  if (!file.empty()) {
    std::vector<Run> runs;
    const auto facts = facts_here(all, test);
    if (saved) {
      runs = runs_in(*saved, resumed);
      if (t.fit.verbose != ebb::Verbose::silent)
        for (const std::string& line : differences(runs.back().facts, facts))
          app::note("note: {}: the bits will not be those of a training that was not resumed\n", line);
    }
    runs.push_back({.steps = t.optimizer->steps(), .epochs = t.fit.epochs, .command = v.words, .facts = facts});
    runs.back().command.insert(runs.back().command.begin(), {"mnist", "train"});
    about[runs_key] = to_json(runs);
  }
  const std::filesystem::path target = place_of(file);
  const std::int64_t first_step = t.optimizer->steps();
  const auto write = [&](const std::filesystem::path& to, const ebb::History& history, ebb::Metadata metadata) {
    ebb::save_model(t.net, t.architecture, to, std::move(metadata),
                    {.optimizer = t.optimizer.get(), .history = &history});
  };
  t.fit.callbacks.emplace_back(ebb::TerminateOnNaN());
  const auto log = std::make_shared<Log>(csv, saved.has_value());
  if (!csv.empty()) t.fit.callbacks.emplace_back(log);
  std::string holds = file.empty()               ? ""
                      : saved && file == resumed ? fmt::format("; {} is as it was", file)
                                                 : fmt::format("; {} is not written", file);
  if (every)
    t.fit.callbacks.emplace_back(
        ebb::ModelCheckpoint({.path = target,
                              .every = *every,
                              .keep = v["keep"].as<int>(),
                              .architecture = t.architecture,
                              .metadata = about,
                              .failed = [](const std::string& why) {
                                app::note("mnist: warning: a checkpoint failed: {}; training goes on\n",
                                          why);  // there may be room again later
                              }}));
  const auto keep_training = [&](const ebb::History& history) {
    keep(
        target, [&](const std::filesystem::path& to) { write(to, history, about); },
        [&] { return every ? checkpoint_in(file, about[runs_key]).value_or("") : ""; });
  };
  ebb::History so_far, history;
  t.fit.failed = [&](const ebb::History& h) { so_far = h; };
  put_by();
  try {
    history = ebb::fit(t.net, *t.optimizer, all, t.fit);
  } catch (const std::exception& e) {  // a lack of memory in the validation, say
    const std::string there = file.empty() || t.optimizer->steps() == first_step ? "" : up_to_there(so_far, t.net);
    if (there.empty()) throw;
    t.fit.callbacks.clear();  // waits for a checkpoint that is being written
    keep_training(so_far);
    throw std::runtime_error(fmt::format("{}; {} holds the training up to there: {}", words_of(e), file, there));
  }
  // What went wrong never replaces what was good; the weights of the best epoch, restored, are good.
  std::string bad = went_wrong(t.net, {&all, &test});
  const bool restored = bad.empty() && v.count("restore-best");
  for (const char* name : {"val_loss", "loss"})
    if (const auto it = history.values.find(name);
        it != history.values.end() && !it->second.empty() && !std::isfinite(it->second.back()))
      bad = fmt::format("the {} became {} in epoch {}", name, it->second.back(), history.epochs());
  if (!bad.empty() && every) holds = checkpoint_in(file, about[runs_key]).value_or(holds);
  if (!bad.empty() && restored && !file.empty()) {
    keep_training(history);
    holds = fmt::format("; {} holds the weights of the best epoch", file);
  }
  if (!bad.empty()) throw std::runtime_error(fmt::format("{}; try a smaller --lr{}", bad, holds));

  if (!file.empty()) keep_training(history);  // before anything else can fail
  ebb::Metrics result;
  try {
    result = ebb::evaluate(t.net, test);
  } catch (const std::exception& e) {
    if (file.empty()) throw;
    throw std::runtime_error(fmt::format("{}; {} holds the training", words_of(e), file));
  }
  if (std::error_code none;
      !file.empty() && std::filesystem::is_regular_file(file, none)) {  // a pipe would get it twice
    ebb::Metadata metadata = about;
    metadata["test_accuracy"] = fmt::format("{}", result.accuracy);
    try {
      write(target, history, std::move(metadata));
    } catch (const std::exception& e) {  // the model is whole without
      app::note("mnist: warning: the test accuracy is not in the file: {}\n", words_of(e));
    }
  }
  end_on_signals();
  const double seconds = history.seconds.empty()
                             ? 0
                             : std::accumulate(history.seconds.begin(), history.seconds.end(), 0.0) / history.epochs();
  if (json) {
    nlohmann::ordered_json out{{"test_accuracy", result.accuracy},
                               {"test_loss", result.loss},
                               {"parameters", ebb::parameter_count(t.net)},
                               {"seconds_per_epoch", seconds},
                               {"epochs", history.epochs()},
                               {"seed", t.seed},
                               {"threads", ebb::threads()},
                               {"architecture", t.architecture},
                               {"optimizer", t.optimizer->name()},
                               {"lr", t.optimizer->lr()},
                               {"batch", t.fit.batch},
                               {"dataset", data.name},
                               {"interrupted", history.interrupted}};
    out["history"] = history.values;
    out["history"]["seconds"] = history.seconds;
    if (!file.empty()) out["saved"] = file;
    app::print("{}\n", app::json_text(out));
  } else {
    app::print("test accuracy {:.4f}, test loss {:.4f}{}\n", result.accuracy, result.loss,
               history.seconds.empty() ? "" : fmt::format(", {:.2f} s an epoch", seconds));
    if (!file.empty()) app::print("saved {}\n", file);
  }
  if (!log->error().empty()) throw ebb::IoError(log->error());
  return caught_signal() ? 128 + caught_signal() : ok;
}

}  // namespace

const app::Command train_command{
    .name = "train",
    .about = "train a network and test it",
    .arguments = "[OPTIONS]",
    .description = "",
    .examples =
        "  mnist train --model mlp --layers 512,512 --dropout 0.2 --validation test\n"
        "  mnist train --model cnn --optimizer rmsprop --save digits.safetensors\n"
        "  mnist train --arch \"conv 8 5 relu, pool 2, flatten, dense 10\" --json\n"
        "  mnist train --validation-split 0.1 --epochs 100 --early-stopping 3 \\\n"
        "              --restore-best\n"
        "  mnist train --optimizer adamw --schedule cosine --warmup 1 --clip-norm 1\n"
        "  mnist train --epochs 50 --save run.safetensors --checkpoint-every 5m\n"
        "  mnist train --resume run.safetensors --epochs 80\n",
    .options = train_options,
    .run = run_train,
};

}  // namespace mnist
