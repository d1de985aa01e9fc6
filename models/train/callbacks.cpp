#include <ebb/models/train/callbacks.h>

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/separated.h>

namespace ebb {
namespace {

class AtEpochEnd final : public CallbackBase {
 public:
  explicit AtEpochEnd(std::function<void(TrainingState&)> f) : f_(std::move(f)) {
    detail::expect_given(f_, "Callback");
  }
  void epoch_end(TrainingState& state) override { f_(state); }

 private:
  std::function<void(TrainingState&)> f_;
};

}  // namespace

History TrainingState::record() const {
  History out = history;
  out.partial = partial;
  if (partial.batches == 0) {  // the epoch is whole
    for (const auto& [name, value] : logs) out.values[name].push_back(value);
    out.seconds.push_back(seconds);
  }
  detail::add_states(out, *this);
  return out;
}

TensorMap TrainingState::chosen() const {
  TensorMap out;
  if (callbacks)
    for (const Callback& c : *callbacks) c->choose(out);
  return out;
}

void TrainingState::show(const TensorMap& weights) {
  const auto own = named_tensors(module);
  for (const NamedTensor& t : own)  // all before any is changed: two may share their storage
    if (weights.contains(t.path) && !aside.contains(t.path)) aside[t.path] = t.tensor->clone();
  for (const NamedTensor& t : own)
    if (const auto it = weights.find(t.path); it != weights.end()) t.tensor->assign(it->second);
}

void TrainingState::show_trained() {
  for (const NamedTensor& t : named_tensors(module))
    if (const auto it = aside.find(t.path); it != aside.end()) t.tensor->assign(it->second);
  aside.clear();
}

void detail::add_states(History& history, const TrainingState& state) {
  history.weights = state.aside;
  if (!state.callbacks) return;
  each_named(*state.callbacks, [&](const std::string& name, const CallbackBase& c) {
    if (CallbackState s = c.state(); !s.tensors.empty() || !s.numbers.empty()) history.callbacks[name] = std::move(s);
  });
}

void detail::each_named(const std::vector<Callback>& callbacks,
                        const std::function<void(const std::string&, CallbackBase&)>& f) {
  std::map<std::string, int> count;
  for (const Callback& c : callbacks) {
    const std::string name(c->name());
    if (name.empty()) continue;
    const int n = ++count[name];
    f(n == 1 ? name : fmt::format("{}_{}", name, n), *c.operator->());
  }
}

void Callback::expect_callback() const { detail::expect_given(callback_, "Callback", "the pointer is null"); }
Callback::Callback(std::function<void(TrainingState&)> f) : callback_(std::make_shared<AtEpochEnd>(std::move(f))) {}

Monitor::Monitor(std::string key, Mode mode, double min_delta)
    : key_(std::move(key)),
      rises_(mode == Mode::max || (mode == Mode::automatic &&
                                   (key_.ends_with("acc") || key_.ends_with("accuracy") || key_.ends_with("auc")))),
      min_delta_(min_delta) {}

void Monitor::begin(const History& history, const std::function<void(int, bool)>& seen) {
  best_ = rises_ ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  warned_ = false;
  const auto it = history.values.find(key_);
  if (it == history.values.end()) return;
  int epoch = 0;
  for (const double now : it->second) seen(epoch++, take(now));
}

bool Monitor::take(double now) {
  if (!(rises_ ? now > best_ + min_delta_ : now < best_ - min_delta_)) return false;  // NaN never is better
  best_ = now;
  return true;
}

std::optional<bool> Monitor::better(TrainingState& state, const char* who) {
  if (const auto it = state.logs.find(key_); it != state.logs.end()) return take(it->second);
  if (warned_) return {};
  warned_ = true;
  std::string keys;
  for (const auto& [name, _] : state.logs) keys += (keys.empty() ? "" : ", ") + name;
  state.say(fmt::format("warning: {}: nothing measures \"{}\"; measured are {}", who, key_, keys));
  return {};
}

EarlyStopping::EarlyStopping(EarlyStoppingOptions o) : options_(o), monitor_(o.monitor, o.mode, o.min_delta) {
  detail::expect(o.patience >= 0, "early stopping", "patience must not be negative", o.patience);
  detail::expect(o.min_delta >= 0, "early stopping", "min_delta must not be negative", o.min_delta);
}

void EarlyStopping::train_begin(TrainingState& state) {
  wait_ = 0;
  best_epoch_ = -1;
  kept_.clear();
  monitor_.begin(state.history, [&](int epoch, bool better) {
    wait_ = better ? 0 : wait_ + 1;
    if (better) best_epoch_ = epoch;
  });
  // A training that had stopped early already, resumed from the checkpoint of its last epoch, stops at once.
  if (wait_ > 0 && wait_ >= options_.patience && state.history.epochs() > 1) state.stop = true;
}

void EarlyStopping::epoch_end(TrainingState& state) {
  const std::optional<bool> better = monitor_.better(state, "early stopping");
  if (!better) return;
  ++wait_;
  if (*better) {
    best_epoch_ = state.epoch;
    wait_ = 0;
    if (!options_.restore_best) return;
    kept_.clear();
    for (const NamedTensor& t : named_tensors(state.module)) kept_[t.path] = t.tensor->clone();
  } else if (wait_ >= options_.patience && state.epoch > 0) {
    state.stop = true;
    state.say(fmt::format("Epoch {}: early stopping", state.epoch + 1));
  }
}

void EarlyStopping::train_end(TrainingState& state) {
  if (options_.restore_best && kept_.empty() && best_epoch_ >= 0)
    state.say(fmt::format("warning: the best epoch, {}, was before this training began: its weights are not known",
                          best_epoch_ + 1));
  if (kept_.empty() || (best_epoch_ == state.epoch && !state.history.interrupted)) return;
  state.say(fmt::format("Restoring model weights from the end of the best epoch: {}.", best_epoch_ + 1));
  state.show(kept_);
}

CallbackState EarlyStopping::state() const {
  if (kept_.empty()) return {};
  return {.tensors = kept_, .numbers = {{"best_epoch", best_epoch_}}};
}

void EarlyStopping::set_state(const CallbackState& state) {
  const auto it = state.numbers.find("best_epoch");  // differs from the history's when the options changed
  if (options_.restore_best && it != state.numbers.end() && it->second == best_epoch_) kept_ = state.tensors;
}

void EarlyStopping::choose(TensorMap& weights) const {
  for (const auto& [path, t] : kept_) weights.insert_or_assign(path, t);
}

CallbackState AverageWeights::state() const {
  CallbackState out;
  choose(out.tensors);
  return out;
}

void AverageWeights::choose(TensorMap& weights) const {
  for (const auto& [path, t] : average_.averages()) weights.insert_or_assign(path, t.clone());
}

LearningRateScheduler::LearningRateScheduler(std::function<double(int, double)> f) : f_(std::move(f)) {
  detail::expect_given(f_, "learning rate scheduler");
}
void LearningRateScheduler::epoch_begin(TrainingState& state) {
  state.optimizer.set_lr(f_(state.epoch, state.optimizer.lr()));
}
void LearningRateScheduler::epoch_end(TrainingState& state) { state.logs["lr"] = state.optimizer.lr(); }

ReduceLROnPlateau::ReduceLROnPlateau(ReduceLROnPlateauOptions o)
    : options_(o), monitor_(o.monitor, o.mode, o.min_delta) {
  constexpr const char* who = "reduce lr on plateau";
  detail::expect(o.factor > 0 && o.factor < 1, who, "factor must be in (0, 1)", o.factor);
  detail::expect(o.patience >= 0, who, "patience must not be negative", o.patience);
  detail::expect(o.min_delta >= 0, who, "min_delta must not be negative", o.min_delta);
  detail::expect(o.cooldown >= 0, who, "cooldown must not be negative", o.cooldown);
  detail::expect(o.min_lr >= 0, who, "min_lr must not be negative", o.min_lr);
}

void ReduceLROnPlateau::train_begin(TrainingState& state) {
  wait_ = cooldown_ = 0;
  monitor_.begin(state.history, [&](int, bool better) { due(better); });
}

/// Counts an epoch; true when the rate is to fall.
bool ReduceLROnPlateau::due(bool better) {
  if (cooldown_ > 0) {
    --cooldown_;
    wait_ = 0;
  }
  if (better) wait_ = 0;
  else if (cooldown_ == 0) ++wait_;
  if (better || cooldown_ > 0 || wait_ < options_.patience) return false;
  cooldown_ = options_.cooldown;
  wait_ = 0;
  return true;
}

void ReduceLROnPlateau::epoch_end(TrainingState& state) {
  const double lr = state.optimizer.lr();
  state.logs["lr"] = lr;
  const std::optional<bool> better = monitor_.better(state, "reduce lr on plateau");
  if (!better || !due(*better) || lr <= options_.min_lr) return;
  state.optimizer.set_lr(std::max(lr * options_.factor, options_.min_lr));
  state.say(
      fmt::format("Epoch {}: ReduceLROnPlateau reducing learning rate to {}.", state.epoch + 1, state.optimizer.lr()));
}

CSVLogger::CSVLogger(std::filesystem::path path, bool append, char separator)
    : path_(std::move(path)), append_(append), separator_(separator) {}

void CSVLogger::train_begin(TrainingState& state) {
  std::error_code error;
  const bool special = std::filesystem::exists(path_, error) && !std::filesystem::is_regular_file(path_, error);
  std::string before;
  if (append_ && !special && std::filesystem::exists(path_, error)) {
    std::ifstream in(path_, std::ios::binary);
    if (!in) throw IoError(fmt::format("{}: cannot read: {}", path_.string(), std::strerror(errno)));
    before.assign(std::istreambuf_iterator<char>(in), {});
    if (!before.empty() && before.back() != '\n')
      state.say(fmt::format("warning: {}: removed its last line, which was cut", path_.string()));
  }
  std::vector<std::string> lines;  // those that end: the last one was cut if its writer was killed
  std::string text;
  for (std::size_t begin = 0, end; (end = before.find('\n', begin)) != std::string::npos; begin = end + 1) {
    lines.push_back(before.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
  }
  keys_.clear();
  compared_ = false;
  if (!lines.empty()) {  // continue with the file's columns
    keys_ = detail::separated(lines[0], separator_, [&](std::size_t, const std::string& what) {
      throw DataError(fmt::format("{}: line 1: {}", path_.string(), what));
    });
    if (keys_[0] != "epoch")
      throw DataError(fmt::format("{}: line 1: expected \"epoch\" and the names of numbers", path_.string()));
    keys_.erase(keys_.begin());
    // Epochs that a killed training logged after its last checkpoint are trained again: their lines go.
    const auto comes_again = [&](const std::string& line) {
      int epoch = -1;
      const auto [stop, wrong] = std::from_chars(line.data(), line.data() + line.size(), epoch);
      return wrong == std::errc() && *stop == separator_ && epoch >= state.history.epochs();
    };
    while (state.history.epochs() > 0 && lines.size() > 1 && comes_again(lines.back())) lines.pop_back();
    for (const std::string& line : lines) text += line + '\n';
    if (text != before) write_atomically(path_, text);
  }
  file_ = std::make_shared<std::ofstream>(path_, lines.empty() ? std::ios::trunc : std::ios::app);
  if (!*file_) throw IoError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
}

void CSVLogger::epoch_end(TrainingState& state) {
  std::string text;
  if (keys_.empty()) {
    text = "epoch";
    for (const auto& [name, _] : state.logs) {
      keys_.push_back(name);
      (text += separator_) += name;
    }
    text += '\n';
  }
  if (!std::exchange(compared_, true)) {
    std::string out, missing;
    for (const auto& [name, _] : state.logs)
      if (std::ranges::find(keys_, name) == keys_.end()) out += (out.empty() ? "" : ", ") + name;
    for (const std::string& key : keys_)
      if (!state.logs.contains(key)) missing += (missing.empty() ? "" : ", ") + key;
    if (!out.empty()) state.say(fmt::format("warning: {}: no column for {}: not logged", path_.string(), out));
    if (!missing.empty())
      state.say(fmt::format("warning: {}: nothing measures {}: logged as NA", path_.string(), missing));
  }
  text += fmt::format("{}", state.epoch);
  for (const std::string& key : keys_) {
    const auto it = state.logs.find(key);
    (text += separator_) += it == state.logs.end() ? "NA" : fmt::format("{}", it->second);
  }
  *file_ << text << '\n' << std::flush;
  if (!*file_) throw IoError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
}

void CSVLogger::train_end(TrainingState&) { file_.reset(); }

void TerminateOnNaN::batch_end(TrainingState& state) {
  if (std::isfinite(state.loss)) return;
  state.stop = true;
  state.say(fmt::format("Batch {}: Invalid loss, terminating training", state.step));
}

}  // namespace ebb
