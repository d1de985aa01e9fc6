// mnist verify: trains again what a training file holds, and compares the bits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <ebb/models/data/mnist.h>
#include <ebb/models/train.h>

#include "signals.h"
#include "training_options.h"
#include "training_record.h"

namespace mnist {
namespace {

/// The bits of the training in the file and of the one made here, and where they part.
std::vector<std::string> compare(const ebb::SafeTensors& then, const ebb::SafeTensors& here, const ebb::History& before,
                                 const ebb::History& now) {
  std::vector<std::string> out;
  std::size_t other = 0;
  std::string first;
  for (const auto& [name, t] : then.tensors) {
    const auto it = here.tensors.find(name);
    if (it != here.tensors.end() && ebb::same_bits(t, it->second)) continue;
    if (++other > 1) continue;
    first = name;
    if (it == here.tensors.end() || ebb::describe(t) != ebb::describe(it->second)) {
      first += it == here.tensors.end()
                   ? " (missing here)"
                   : fmt::format(" ({} then, {} here)", ebb::describe(t), ebb::describe(it->second));
    } else {
      const auto a = t.to_vector(), b = it->second.to_vector();
      double largest = 0;
      for (std::size_t i = 0; i < a.size(); ++i) largest = std::fmax(largest, std::abs(a[i] - b[i]));
      first += fmt::format(" (by up to {:.3g})", largest);
    }
  }
  if (other > 0) out.push_back(fmt::format("tensors: {} of {} differ, first {}", other, then.tensors.size(), first));
  for (const auto& [name, t] : here.tensors)
    if (then.metadata.contains("ebb.build") && !then.tensors.contains(name))
      out.push_back(fmt::format("tensors: {} is not in the file", name));  // files of before hold less
  if (before.epochs() != now.epochs())
    out.push_back(fmt::format("history: {} epochs then, {} here", before.epochs(), now.epochs()));
  for (const auto& [key, numbers] : before.values) {
    const auto it = now.values.find(key);
    if (it == now.values.end()) {
      out.push_back(fmt::format("history: no {} here", key));
      continue;
    }
    for (std::size_t i = 0; i < std::min(numbers.size(), it->second.size()); ++i)
      if (numbers[i] != it->second[i] && !(std::isnan(numbers[i]) && std::isnan(it->second[i]))) {
        out.push_back(
            fmt::format("history: {} from epoch {} on: {} then, {} here", key, i + 1, numbers[i], it->second[i]));
        break;
      }
  }
  return out;
}

/// What the training was made of, where this version makes something else of its options.
std::vector<std::string> other_options(const ebb::SavedModel& saved, const Training& t) {
  std::vector<std::string> out;
  if (saved.architecture != t.architecture)
    out.push_back(fmt::format("options: architecture \"{}\" then, \"{}\" here", saved.architecture, t.architecture));
  if (saved.optimizer->name() != t.optimizer->name())
    out.push_back(fmt::format("options: optimizer {} then, {} here", saved.optimizer->name(), t.optimizer->name()));
  const auto here = t.optimizer->options();
  for (const auto& [name, value] : saved.optimizer->options())
    if (name != "lr" && (!here.contains(name) || here.at(name) != value))  // the rate is that of the last step
      out.push_back(fmt::format("options: {} {} then, {} here", name, value,
                                here.contains(name) ? fmt::format("{}", here.at(name)) : "none"));
  return out;
}

/// Trains as far as the file, with the numbers of epochs that each of its runs was given.
ebb::History train_again(Training& t, const ebb::Dataset& samples, const std::vector<Run>& runs,
                         const ebb::SavedModel& saved) {
  const ebb::History& want = *saved.history;
  ebb::History history;
  for (std::size_t i = 0; i < runs.size() && caught_signal() == 0; ++i) {
    const bool last = i + 1 == runs.size();
    const std::int64_t end = last ? saved.optimizer->steps() : runs[i + 1].steps;
    if (!last && t.optimizer->steps() >= end) continue;
    ebb::FitOptions o = t.fit;
    o.epochs = runs[i].epochs;
    o.resume = history;
    // In the middle of an epoch it is left as after an interruption, at its end as before the next
    const bool within = !last || want.partial.batches > 0;
    o.interrupted = [&, within, end] { return caught_signal() != 0 || (within && t.optimizer->steps() >= end); };
    if (last) {
      if (history.epochs() >= want.epochs() && (!within || t.optimizer->steps() >= end)) o.epochs = history.epochs();
      o.callbacks.emplace_back(
          [&](ebb::TrainingState& state) { state.stop = state.stop || (!within && state.epoch + 1 >= want.epochs()); });
    }
    history = ebb::fit(t.net, *t.optimizer, samples, o);
  }
  return history;
}

po::options_description verify_options() {
  return joined({app::option_group("Data", {app::data_option(), app::threads_option()}),
                 app::option_group("Output", {{"quiet", "no progress on standard error"}})});
}

int run_verify(Values& v) {
  const std::string file = model_file(v);
  const ebb::SavedModel saved = ebb::load_model(file);
  po::variables_map w;
  std::vector<std::string> words;
  if (v.count("data")) words.push_back("--data=" + v["data"].as<std::string>());
  po::store(po::command_line_parser(words).options(train_options()).run(), w);
  restore_options(saved, file, w);
  use_preset(w);
  Training t = make_training(w);
  use_threads(v);
  const bool quiet = v.count("quiet") > 0;
  if (quiet) t.fit.verbose = ebb::Verbose::silent;
  const std::vector<Run> runs = runs_in(saved, file);
  const ebb::Mnist data = split_data(load_data(w), w);
  const ebb::Dataset samples = training_samples(w, data, t), test = data.test.scaled(t.scale);
  if (t.validates_on_test) t.fit.validation = test;

  const auto here = facts_here(samples, test);
  std::vector<std::string> causes;
  for (const Run& run : runs)
    for (const std::string& line : differences(run.facts, here))
      if (std::ranges::find(causes, line) == causes.end()) causes.push_back(line);
  for (std::string& line : other_options(saved, t)) causes.push_back(std::move(line));
  const bool other_data =
      std::ranges::any_of(causes, [](const std::string& line) { return line.starts_with("training data"); });
  if (!quiet)
    for (const std::string& line : causes) app::note("note: {}\n", line);
  std::vector<std::string> found;
  if (!other_data) {  // else there is nothing to be confirmed
    catch_signals();
    t.fit.callbacks.emplace_back(ebb::TerminateOnNaN());
    const ebb::History history = train_again(t, samples, runs, saved);
    if (caught_signal()) return 128 + caught_signal();
    const ebb::SafeTensors then = ebb::read_safetensors(file);
    found = compare(
        then, ebb::model_contents(t.net, t.architecture, {}, {.optimizer = t.optimizer.get(), .history = &history}),
        *saved.history, history);
    if (found.empty()) {
      app::print("same bits: {} tensors, {} epochs, {} steps\n", then.tensors.size(), history.epochs(),
                 t.optimizer->steps());
      return ok;
    }
  }
  app::print("different\n");
  for (const std::string& line : found) app::print("  {}\n", line);
  for (const std::string& line : causes) app::print("  {}\n", line);
  if (causes.empty())
    app::print("  {}\n", runs[0].facts.empty() ? "processor, version and data of then are not in the file"
                                               : "nothing that the file records differs here");
  return failed;
}

}  // namespace

const app::Command verify_command{
    .name = "verify",
    .about = "train a saved training again and compare the bits",
    .arguments = "FILE [OPTIONS]",
    .description =
        "Trains again from the beginning, with the options in the file that mnist train\n"
        "--save wrote, and compares every bit: weights, state of the optimizer, history.\n"
        "Exit code 0: the same bits. 1: others, and what differs in processor, libraries,\n"
        "version, data or options. Takes as long as the training took.\n",
    .examples = "  mnist verify digits.safetensors\n",
    .options = verify_options,
    .run = run_verify,
    .files = 1,
};

}  // namespace mnist
