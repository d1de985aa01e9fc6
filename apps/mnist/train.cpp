// mnist train
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <ebb/models/finite.h>

#include "command.h"
#include "signals.h"
#include "training.h"

namespace mnist {
namespace {

po::options_description train_output_options() {
  po::options_description o = output_options("write model and training so far to this file (safetensors), also when interrupted; if it is standard output, results go to standard error");
  o.add_options()
      ("checkpoint-every", po::value<int>(), "write it after every N epochs too")
      ("resume", po::value<std::string>(), "go on with the training in this file, under its options, and save to it; --epochs may ask for more")
      ("log-csv", po::value<std::string>(), "write every epoch's numbers to this file")
      ("verbose", po::value<int>(), "progress: 0 none, 1 a bar, 2 Keras' line an epoch; default: a bar on a terminal, else a line an epoch")
      ("style", po::value<std::string>()->default_value("keras2"), "of the progress: keras2.2, keras2 or keras3")
      ("color", po::value<std::string>()->default_value("auto"), "auto (a terminal, and NO_COLOR is not set), always or never");
  return o;
}

/// Options that say where results go and not what is trained: not kept in the file, and allowed beside --resume.
constexpr auto outward = std::to_array<std::string_view>({"save", "force", "checkpoint-every", "resume", "log-csv", "json", "verbose", "style", "color", "quiet", "data", "threads", "file"});

/// The options that a training file keeps: those given, as a JSON list of command-line words.
std::string kept_options(const po::options_description& options, const std::vector<std::string>& args, const std::string& before) {
  const auto parsed = po::command_line_parser(args).options(options).run();
  std::vector<std::string> out;
  if (!before.empty()) out = nlohmann::ordered_json::parse(before).get<std::vector<std::string>>();
  for (const auto& option : parsed.options) {
    if (std::ranges::find(outward, option.string_key) != outward.end()) continue;
    const std::string word = "--" + option.string_key;
    std::erase_if(out, [&](const std::string& w) { return w == word || w.starts_with(word + "="); });
    out.push_back(option.value.empty() ? word : word + "=" + option.value[0]);
  }
  return nlohmann::ordered_json(out).dump();
}

/// Stores the options of the file that is resumed below those of the command line. Returns what the file keeps.
std::string resume_options(const po::options_description& options, const ebb::SavedModel& saved, const std::string& file, po::variables_map& v) {
  const auto kept = saved.metadata.find(options_key);
  if (!saved.optimizer || !saved.history || kept == saved.metadata.end())
    throw ebb::DataError(fmt::format("{}: holds no training of mnist train to go on with", file));
  for (const auto& [name, value] : v)
    if (!value.defaulted() && name != "epochs" && std::ranges::find(outward, name) == outward.end())
      throw UsageError(fmt::format("--resume goes on with the options in the file; --{} cannot change", name));
  try {
    po::store(po::command_line_parser(options_in(saved, file)).options(options).run(), v);  // what is stored first stays, but for defaults
  } catch (const po::error& e) {
    throw ebb::DataError(fmt::format("{}: its options: {}", file, e.what()));
  }
  return kept->second;
}

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
    if (level < 0 || level > 2) throw UsageError(fmt::format("--verbose must be 0 to 2, got {}", level));
    o.verbose = level == 0 ? ebb::Verbose::silent : level == 1 ? ebb::Verbose::bar : ebb::Verbose::lines;
  }
  if (v.count("quiet")) o.verbose = ebb::Verbose::silent;
  try {
    o.style = ebb::style_of(v["style"].as<std::string>());
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--style: {}", e.what()));
  }
  const auto color = v["color"].as<std::string>();
  if (color == "always") ::unsetenv("NO_COLOR");
  else if (color == "never") ::setenv("NO_COLOR", "1", 1);
  else if (color != "auto") throw UsageError(fmt::format("--color must be auto, always or never, got \"{}\"", color));
}

}  // namespace

int train(const std::vector<std::string>& args) {
  po::options_description options(80, 40);
  options.add(model_options()).add(training_options()).add(data_options()).add(split_options()).add(train_output_options());
  po::variables_map v;
  if (!parse(args, options, "mnist train [OPTIONS]",
             "Examples:\n"
             "  mnist train --model mlp --layers 512,512 --dropout 0.2 --validation test\n"
             "  mnist train --model cnn --optimizer rmsprop --save digits.safetensors\n"
             "  mnist train --arch \"conv 8 5 relu, pool 2, flatten, dense 10\" --json\n"
             "  mnist train --validation-split 0.1 --epochs 100 --early-stopping 3 \\\n"
             "              --restore-best\n"
             "  mnist train --optimizer adamw --schedule cosine --warmup 1 --clip-norm 1\n"
             "  mnist train --epochs 50 --save run.safetensors --checkpoint-every 5\n"
             "  mnist train --resume run.safetensors --epochs 80\n",
             v))
    return ok;
  std::optional<ebb::SavedModel> saved;
  std::string kept, file = v.count("save") ? v["save"].as<std::string>() : "";
  if (v.count("save") && file.empty()) throw UsageError("--save needs the name of a file");
  if (v.count("resume")) {
    const auto from = v["resume"].as<std::string>();
    saved = ebb::load_model(from);
    kept = resume_options(options, *saved, from, v);
    if (file.empty()) file = from;
  }
  use_preset(options, v);
  Training t = make_training(v);
  set_progress(v, t.fit);
  if (v.count("checkpoint-every") && file.empty()) throw UsageError("--checkpoint-every needs --save");
  if (v.count("checkpoint-every") && v["checkpoint-every"].as<int>() < 1) throw UsageError("--checkpoint-every must be at least 1");
  split_of(v);  // refused before anything is read or written
  if (saved && v.count("ema")) throw UsageError("a training with --ema cannot be resumed: its file holds the averages");
  use_threads(v);
  const std::string csv = output_file(v, "log-csv"), resumed = saved ? v["resume"].as<std::string>() : "";
  refuse_same_files({{"--save", file}, {"--log-csv", csv}, {"--arch", v.count("arch") ? v["arch"].as<std::string>() : ""}});
  refuse_same_files({{"--resume", resumed}, {"--log-csv", csv}});
  if (saved) refuse_not_finite(*saved, resumed);
  std::uintmax_t bytes = 0;  // of the weights alone: the least that it takes
  for (const ebb::NamedTensor& w : ebb::named_tensors(t.net)) bytes += w.tensor->bytes();
  if (!file.empty()) check_output(file, v.count("force") > 0 || (saved && file == resumed), bytes);
  if (std::error_code none; v.count("checkpoint-every") && std::filesystem::exists(file, none) && !std::filesystem::is_regular_file(file, none))
    throw UsageError(fmt::format("--checkpoint-every replaces what it wrote before; {} is not a file that can be replaced", file));
  if (saved) {
    t.net = saved->net;
    t.optimizer = std::move(saved->optimizer);
    t.fit.resume = saved->history;
  }
  kept = kept_options(options, args, kept);

  const ebb::Mnist data = split_data(load_data(v), v);
  const ebb::Dataset all = training_samples(v, data, t, saved.has_value()), test = data.test.scaled(t.scale);

  const bool json = v.count("json") > 0;
  if (t.fit.verbose != ebb::Verbose::silent) {
    app::note("data: {} ({})\nmodel: {} ({} parameters)\n", data.name, data.source, t.architecture, ebb::with_commas(ebb::parameter_count(t.net)));
    app::note("training on {} samples, seed {}, {} thread{}\n", all.size(), t.seed, ebb::threads(), ebb::threads() == 1 ? "" : "s");
    if (saved) app::note("going on after {} epochs\n", t.fit.resume->epochs());
    if (t.validates_on_test)
      app::note("note: --validation test shows the test set every epoch; to choose by it would overstate the result\n");
  }

  catch_signals();
  if (t.validates_on_test) t.fit.validation = test;
  const ebb::Metadata about{{"dataset", data.name}, {"scale", fmt::format("{}", t.scale)}, {"seed", fmt::format("{}", t.seed)}, {options_key, kept}};
  std::error_code unresolved;  // /dev/stdout leads nowhere any more when the file behind it has been replaced once
  const auto resolved = std::filesystem::canonical(file, unresolved), target = unresolved ? std::filesystem::path(file) : resolved;
  const auto write = [&](const std::filesystem::path& to, const ebb::History& history, ebb::Metadata metadata) {
    ebb::save_model(t.net, t.architecture, to, std::move(metadata), {.optimizer = t.optimizer.get(), .history = &history});
  };
  t.fit.callbacks.emplace_back(ebb::TerminateOnNaN());
  const auto log = std::make_shared<Log>(csv, saved.has_value());
  if (!csv.empty()) t.fit.callbacks.emplace_back(log);
  std::string holds = file.empty() ? "" : saved && file == resumed ? fmt::format("; {} is as it was", file) : fmt::format("; {} is not written", file);
  if (v.count("checkpoint-every"))
    t.fit.callbacks.emplace_back(ebb::ModelCheckpoint({.path = file, .every = v["checkpoint-every"].as<int>(),
                                                       .write = [&](ebb::TrainingState& state, const auto&) {
                                                         try {
                                                           write(target, state.record(), about);
                                                           holds = fmt::format("; {} holds the training up to epoch {}", file, state.epoch + 1);
                                                         } catch (const ebb::IoError& e) {  // there may be room again later
                                                           state.say(fmt::format("warning: {}; training goes on", e.what()));
                                                         }
                                                       }}));
  const ebb::History history = ebb::fit(t.net, *t.optimizer, all, t.fit);
  // What went wrong never replaces what was good; the weights of the best epoch, restored, are good.
  std::string bad = ebb::not_finite(t.net);
  const bool restored = bad.empty() && v.count("restore-best");
  if (history.epochs() > 0 && !std::isfinite(history["loss"].back())) bad = fmt::format("the loss became {} in epoch {}", history["loss"].back(), history.epochs());
  // When the file cannot be written after all the work, another one is.
  const auto keep = [&](const ebb::Metadata& metadata) {
    try {
      write(target, history, metadata);
    } catch (const ebb::IoError& e) {
      std::string folder = (std::filesystem::temp_directory_path() / "ebb-XXXXXX").string();
      if (!::mkdtemp(folder.data())) throw;
      write(folder + "/model.safetensors", history, metadata);
      throw ebb::IoError(fmt::format("{}; the training is in {}/model.safetensors instead", e.what(), folder));
    }
  };
  if (!bad.empty() && restored && !file.empty()) {
    keep(about);
    holds = fmt::format("; {} holds the weights of the best epoch", file);
  }
  if (!bad.empty()) throw std::runtime_error(fmt::format("{}; try a smaller --lr{}", bad, holds));

  if (!file.empty()) keep(about);  // before anything else can fail
  const ebb::Metrics result = ebb::evaluate(t.net, test);
  if (std::error_code none; !file.empty() && std::filesystem::is_regular_file(file, none)) {  // a pipe would get it twice
    ebb::Metadata metadata = about;
    metadata["test_accuracy"] = fmt::format("{}", result.accuracy);
    write(target, history, std::move(metadata));
  }
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
    app::print("{}\n", out.dump());
  } else {
    app::print("test accuracy {:.4f}, test loss {:.4f}{}\n", result.accuracy, result.loss,
               history.seconds.empty() ? "" : fmt::format(", {:.2f} s an epoch", seconds));
    if (!file.empty()) app::print("saved {}\n", file);
  }
  if (!log->error().empty()) throw ebb::IoError(log->error());
  return caught_signal() ? 128 + caught_signal() : ok;
}

}  // namespace mnist
