// ModelCheckpoint and its intervals (ebb/models/train/callbacks.h).
#include <ebb/models/train/callbacks.h>

#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/finite.h>
#include <ebb/models/train/serialize.h>

namespace ebb {

ModelCheckpoint::ModelCheckpoint(ModelCheckpointOptions o) : options_(o), monitor_(o.monitor, o.mode, 0) {
  if (o.path.empty()) throw ValueError("model checkpoint: needs the path of a file");
  detail::expect(o.every.unit == Interval::seconds ? o.every.count > 0 : o.every.count >= 1, "model checkpoint",
                 "every must be at least 1", o.every.count);
  detail::expect(o.keep >= 1, "model checkpoint", "keep must be at least 1", o.keep);
}

void ModelCheckpoint::train_begin(TrainingState& state) {
  if (!options_.architecture.empty() && !dynamic_cast<Sequential*>(&state.module))
    throw ValueError("model checkpoint: an architecture belongs to a Sequential");
  check_writable(options_.path, true);
  monitor_.begin(state.history, [](int, bool) {});
  last_ = std::chrono::steady_clock::now();
}

void ModelCheckpoint::batch_end(TrainingState& state) {
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) wait();
  if (options_.best_only || options_.every.unit == Interval::epochs) return;
  const bool due =
      options_.every.unit == Interval::steps
          ? state.optimizer.steps() % static_cast<std::int64_t>(options_.every.count) == 0
          : !writing_.valid() &&
                std::chrono::duration<double>(std::chrono::steady_clock::now() - last_).count() >= options_.every.count;
  if (due) write(state);
}

void ModelCheckpoint::epoch_end(TrainingState& state) {
  const bool due = options_.best_only ? monitor_.better(state, "model checkpoint").value_or(false)
                                      : options_.every.unit == Interval::epochs &&
                                            (state.epoch + 1) % static_cast<int>(options_.every.count) == 0;
  if (due) write(state);
}

void ModelCheckpoint::train_end(TrainingState&) { wait(); }

std::filesystem::path ModelCheckpoint::older(const std::filesystem::path& path, int n) {
  if (n == 0) return path;
  return path.parent_path() / fmt::format("{}.{}{}", path.stem().string(), n, path.extension().string());
}

void ModelCheckpoint::write(TrainingState& state) {
  // A training that diverged must not replace the file of a good epoch.
  const auto logged = state.logs.find("loss");
  const double loss = state.partial.batches > 0 ? state.partial.loss : logged != state.logs.end() ? logged->second : 0;
  const auto validated = state.partial.batches > 0 ? state.logs.end() : state.logs.find("val_loss");
  const bool has_validated = validated != state.logs.end();
  std::string bad;
  if (!std::isfinite(loss)) bad = fmt::format("the loss is {}", loss);
  else if (has_validated && !std::isfinite(validated->second))
    bad = fmt::format("the val_loss is {}", validated->second);
  else bad = not_finite(state.module);
  // Finite weights can give a loss that is not finite; after a validation the loss is known.
  if (bad.empty() && !has_validated && state.loss_now)
    if (const double now = state.loss_now(); !std::isfinite(now))
      bad = fmt::format("the loss of the last batch, computed again, is {}", now);
  if (!bad.empty()) {
    last_ = std::chrono::steady_clock::now();
    return state.say(
        fmt::format("warning: epoch {} is not written to {}: {}", state.epoch + 1, options_.path.string(), bad));
  }
  wait();
  auto file = std::make_shared<SafeTensors>();
  if (options_.architecture.empty()) {
    *file = model_contents(state.module, options_.metadata);
  } else {
    const History record = state.record();
    *file = model_contents(dynamic_cast<Sequential&>(state.module), options_.architecture, options_.metadata,
                           {.optimizer = &state.optimizer, .history = &record, .chosen = state.chosen()});
  }
  for (auto& [_, t] : file->tensors) t = t.clone();  // training goes on changing them
  std::vector<std::filesystem::path> older_files;
  for (int i = 1; i < options_.keep; ++i) older_files.push_back(older(options_.path, i));
  const auto job = [file, path = options_.path, older_files = std::move(older_files)] {
    write_safetensors(path, *file, older_files);
  };
  last_ = std::chrono::steady_clock::now();
  try {
    writing_ = std::async(std::launch::async, job).share();
  } catch (const std::system_error&) {  // no thread is available: write in this one
    writing_ = std::async(std::launch::deferred, job).share();
    wait();
  }
}

/// Waits until the last file is written.
void ModelCheckpoint::wait() {
  if (!writing_.valid()) return;
  try {
    std::exchange(writing_, {}).get();
  } catch (const std::exception& e) {
    if (!options_.failed) throw;
    options_.failed(e.what());
  }
}

Interval Interval::parse(std::string_view text) {
  std::int64_t n = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, n);
  const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  if (error == std::errc() && n >= 1 && n <= 1'000'000'000) {
    const int count = static_cast<int>(n);
    if (unit.empty()) return count;
    if (unit == "steps" || unit == "step") return {count, steps};
    if (unit == "s") return std::chrono::seconds(n);
    if (unit == "m") return std::chrono::minutes(n);
    if (unit == "h") return std::chrono::hours(n);
  }
  throw ValueError(fmt::format(
      "interval: must be a number of epochs from 1, or one with its unit: 100steps, 200s, 5m, 1h; got \"{}\"", text));
}

}  // namespace ebb
