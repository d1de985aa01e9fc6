#include <ebb/models/fit.h>

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/models/progress.h>

namespace ebb {
namespace {

/// True when each row holds shares of classes, one-hot or not; the targets of a regression do not.
bool rows_are_shares(const Tensor& labels) {
  return labels.rank() == 2 && labels.size(1) > 1 && visit_dtype(labels.dtype(), [&](auto zero) {
    const auto v = labels.values<decltype(zero)>();
    const auto classes = static_cast<std::size_t>(labels.size(1));
    for (std::size_t i = 0; i < v.size(); i += classes) {
      double sum = 0;
      for (std::size_t j = 0; j < classes; ++j) {
        if (!(v[i + j] >= 0)) return false;
        sum += static_cast<double>(v[i + j]);
      }
      if (!(std::abs(sum - 1) < 1e-3)) return false;
    }
    return true;
  });
}

/// Means over the samples seen so far, a batch at a time.
struct Running {
  double loss = 0;
  std::int64_t correct = 0, seen = 0;
  bool classes = true;

  void add(double batch_loss, const Tensor& outputs, const Tensor& labels) {
    const std::int64_t n = outputs.rank() ? outputs.size(0) : 1;
    loss += batch_loss * static_cast<double>(n);
    seen += n;
    const bool sparse = labels.rank() == 1 && !is_float(labels.dtype());
    classes = classes && outputs.rank() == 2 && (sparse || (labels.shape() == outputs.shape() && rows_are_shares(labels)));
    if (classes) correct += count_correct(outputs, labels);
  }
  Metrics metrics() const {
    const auto n = static_cast<double>(seen);
    return {loss / n, classes ? static_cast<double>(correct) / n : NAN};
  }
};

void log(std::vector<std::pair<std::string, double>>& out, const std::string& prefix, const Metrics& m) {
  out.emplace_back(prefix + "loss", m.loss);
  if (!std::isnan(m.accuracy)) out.emplace_back(prefix + "accuracy", m.accuracy);
}

class AtEpochEnd final : public CallbackBase {
 public:
  explicit AtEpochEnd(std::function<void(TrainingState&)> f) : f_(std::move(f)) {}
  void epoch_end(TrainingState& state) override { f_(state); }

 private:
  std::function<void(TrainingState&)> f_;
};

// Streams of the one seed. Weights are drawn from stream 0 (manual_seed), so the others begin far above it: one for
// dropout, and one an epoch for the order of samples.
constexpr std::uint64_t dropout_stream = std::uint64_t{1} << 32, order_stream = std::uint64_t{2} << 32;

/// Names the parameters that the loss does not depend on: they will never learn.
void warn_of_unreached(Module& module, const Gradients& gradients, const TrainingState& state) {
  std::string names;
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained && t.tensor->tracked() && !gradients.contains(*t.tensor)) names += (names.empty() ? "" : ", ") + t.path;
  if (!names.empty()) state.say(fmt::format("warning: the loss does not depend on {}", names));
}

}  // namespace

const std::vector<double>& History::operator[](const std::string& key) const {
  const auto it = values.find(key);
  if (it != values.end()) return it->second;
  std::string keys;
  for (const auto& [name, _] : values) keys += (keys.empty() ? "" : ", ") + name;
  throw ValueError(fmt::format("history: no \"{}\"; there are: {}", key, keys));
}

Callback::Callback(std::function<void(TrainingState&)> f) : callback_(std::make_shared<AtEpochEnd>(std::move(f))) {}

bool EarlyStopping::rises() const { return options_.monitor.find("acc") != std::string::npos; }

void EarlyStopping::train_begin(TrainingState&) {
  const double infinity = std::numeric_limits<double>::infinity();
  best_ = rises() ? -infinity : infinity;
  wait_ = 0;
  best_epoch_ = -1;
  kept_.clear();
}

void EarlyStopping::epoch_end(TrainingState& state) {
  const auto it = state.logs.find(options_.monitor);
  if (it == state.logs.end()) {
    std::string keys;
    for (const auto& [name, _] : state.logs) keys += (keys.empty() ? "" : ", ") + name;
    state.say(fmt::format("warning: early stopping watches \"{}\", which is not there; there are: {}", options_.monitor, keys));
    return;
  }
  const double now = it->second;
  ++wait_;
  if (rises() ? now > best_ + options_.min_delta : now < best_ - options_.min_delta) {  // NaN never is
    best_ = now;
    best_epoch_ = state.epoch;
    wait_ = 0;
    if (!options_.restore_best) return;
    kept_.clear();
    for (const NamedTensor& t : named_tensors(state.module)) kept_.push_back(t.tensor->clone());
  } else if (wait_ >= options_.patience && state.epoch > 0) {
    state.stop = true;
    state.say(fmt::format("Epoch {}: early stopping", state.epoch + 1));
  }
}

void EarlyStopping::train_end(TrainingState& state) {
  if (kept_.empty() || best_epoch_ == state.epoch) return;
  state.say(fmt::format("Restoring model weights from the end of the best epoch: {}.", best_epoch_ + 1));
  const auto all = named_tensors(state.module);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].tensor->assign(kept_[i]);
}

std::int64_t count_correct(const Tensor& outputs, const Tensor& labels) {
  const Tensor chosen = argmax(outputs.detach(), -1);
  const Tensor truth = labels.rank() == 2 ? argmax(labels, -1) : cast(labels, i64);
  const auto a = chosen.values<std::int64_t>(), b = truth.values<std::int64_t>();
  std::int64_t n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += a[i] == b[i];
  return n;
}

History fit(Module& module, Optimizer& optimizer, const Dataset& all, const FitOptions& o) {
  if (o.epochs < 0) throw ValueError(fmt::format("fit: epochs must not be negative, got {}", o.epochs));
  if (o.validation && o.validation_split > 0) throw ValueError("fit: give either validation data or a validation_split");
  Dataset train = all;
  std::optional<Dataset> validation = o.validation;
  if (o.validation_split != 0) {
    auto [first, last] = split_last(all, o.validation_split);
    train = first;
    validation = last;
  }
  if (train.size() == 0) throw ValueError("fit: no samples");
  build(module, train.sample());
  std::vector<Tensor> trained = parameters(module);
  if (trained.empty()) throw ValueError("fit: the module has no trainable parameters");

  const bool bar = o.verbose == Verbose::bar || (o.verbose == Verbose::automatic && Progress::can_redraw(stderr));
  const bool quiet = o.verbose == Verbose::silent;
  History history;
  TrainingState state{module, optimizer, 0, o.epochs, {}, false, [&](const std::string& text) {
                        if (!quiet) fmt::print(stderr, "{}\n", text);
                      }};
  const Generator before = default_generator();
  default_generator() = Generator(o.seed, dropout_stream);
  struct Restore {
    const Generator& to;
    ~Restore() { default_generator() = to; }
  } const restore{before};

  for (const Callback& c : o.callbacks) c->train_begin(state);
  for (int epoch = 0; epoch < o.epochs && !state.stop && !history.interrupted; ++epoch) {
    const auto start = std::chrono::steady_clock::now();
    state.epoch = epoch;
    trained = parameters(module);  // a callback may have frozen or thawed some
    const Batches batches(train, {.size = o.batch, .shuffle = o.shuffle, .seed = o.seed, .stream = order_stream + static_cast<std::uint64_t>(epoch)});
    if (bar && !quiet) fmt::print(stderr, "Epoch {}/{}\n", epoch + 1, o.epochs);
    Progress progress(stderr, bar, batches.count());
    Running running;
    for (std::int64_t i = 0; i < batches.count() && !history.interrupted; ++i) {
      Batch b = batches[i];
      if (o.augment) b.inputs = o.augment(b.inputs);
      const Tensor output = module(b.inputs);
      const Tensor loss = o.loss(output, b.labels);
      const Gradients gradients = backward(loss);
      if (epoch == 0 && i == 0) warn_of_unreached(module, gradients, state);
      optimizer.step(trained, gradients);
      running.add(loss.item(), output, b.labels);
      if (!quiet && bar) {
        std::vector<std::pair<std::string, double>> shown;
        log(shown, "", running.metrics());
        progress.update(i + 1, shown);
      }
      history.interrupted = o.interrupted && o.interrupted();
    }
    std::vector<std::pair<std::string, double>> shown;
    log(shown, "", running.metrics());
    if (validation && !history.interrupted) log(shown, "val_", evaluate(module, *validation, {.loss = o.loss}));
    if (!quiet) progress.finish(epoch + 1, o.epochs, shown);
    if (history.interrupted) break;
    state.logs = std::map<std::string, double>(shown.begin(), shown.end());
    for (const Callback& c : o.callbacks) c->epoch_end(state);
    for (const auto& [name, value] : state.logs) history.values[name].push_back(value);
    history.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  for (const Callback& c : o.callbacks) c->train_end(state);
  return history;
}

History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options) {
  return fit(module, optimizer, data, options);
}

Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& o) {
  if (data.size() == 0) throw ValueError("evaluate: no samples");
  const NoGrad quiet;
  Running running;
  for (auto [x, y] : Batches(data, {.size = o.batch, .shuffle = false})) {
    const Tensor output = module(x);
    running.add(o.loss(output, y).item(), output, y);
  }
  return running.metrics();
}

Tensor predict(Module& module, const Tensor& inputs, double scale, std::int64_t batch) {
  const NoGrad quiet;
  std::vector<Tensor> parts;
  for (auto [x, _] : Batches({inputs, {}, scale}, {.size = batch, .shuffle = false})) parts.push_back(module(x));
  if (parts.empty()) throw ValueError("predict: no samples");
  Tensor out = Tensor::empty(parts[0].shape().with(0, inputs.size(0)), parts[0].dtype());
  std::int64_t row = 0;
  for (const Tensor& p : parts) {
    out.rows(row, row + p.size(0)).assign(p);
    row += p.size(0);
  }
  return out;
}

}  // namespace ebb
