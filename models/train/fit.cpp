#include <ebb/models/train/fit.h>

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/models/train/measure.h>
#include <ebb/models/train/progress.h>
#include <ebb/models/train/tell.h>

namespace ebb {
namespace {

// Streams of the one seed. Weights are drawn from stream 0 (manual_seed), so the others begin far above it: one per
// step for dropout, and one per epoch for the order of samples, both counted in the optimizer's steps.
constexpr std::uint64_t dropout_stream = std::uint64_t{1} << 32, order_stream = std::uint64_t{2} << 32;

void expect_sound(const FitOptions& o) {
  detail::expect(o.epochs >= 0, "fit", "epochs must not be negative", o.epochs);
  if (o.validation && o.validation_split > 0)
    throw ValueError("fit: give either validation data or a validation_split");
  detail::expect(o.clip_norm >= 0, "fit", "clip_norm must not be negative", o.clip_norm);
  detail::expect(o.clip_value >= 0, "fit", "clip_value must not be negative", o.clip_value);
  for (const Callback& c : o.callbacks)
    if (!c.operator->()) throw ValueError("fit: a callback was moved from");
  for (const double w : o.class_weight)
    if (!(w >= 0 && std::isfinite(w)))
      throw ValueError(fmt::format("fit: a class weight must be a finite number from 0, got {}", w));
}

/// The samples to train on and those to validate on, if any.
struct Parts {
  Dataset train;
  std::optional<Dataset> validation;
};
Parts parts_of(const Dataset& all, const FitOptions& o) {
  if (o.validation_split == 0) return {all, o.validation};
  const auto [first, last] = split_last(all, o.validation_split);
  return {first, last};
}

/// Builds the module and runs it once on each part, so that data which do not fit are reported before any training.
void prepare(Module& module, const Parts& data, const FitOptions& o) {
  if (data.train.size() == 0) throw ValueError("fit: no samples");
  if (data.validation && data.validation->size() == 0) throw ValueError("fit: no validation samples");
  build(module, data.train.sample());
  if (data.validation) {
    const Batches whole(*data.validation, {.size = o.batch, .shuffle = false});
    evaluate(module, data.validation->slice(0, 1), {.loss = o.loss});
  }
  if (named_parameters(module).empty()) throw ValueError("fit: the module has no trainable parameters");
}

/// Gives the module the weights that its training continues from.
void give(Module& module, const TensorMap& weights) {
  std::size_t known = 0;
  const auto own = named_tensors(module);
  for (const NamedTensor& t : own)
    if (const auto it = weights.find(t.path); it != weights.end()) {
      if (describe(it->second) != describe(*t.tensor))
        throw ShapeError(fmt::format("fit: cannot go on with {} {}, the module has {}", t.path, describe(it->second),
                                     describe(*t.tensor)));
      ++known;
    }
  if (known != weights.size())
    throw ShapeError(fmt::format("fit: cannot go on with {} weights, {} of them in the module", weights.size(), known));
  for (const NamedTensor& t : own)
    if (const auto it = weights.find(t.path); it != weights.end()) t.tensor->assign(it->second);
}

Tensor loss_of(const FitOptions& o, const Tensor& output, const Tensor& labels) {
  return o.class_weight.empty() ? o.loss(output, labels)
                                : detail::weighted_loss(o.loss, output, labels, o.class_weight);
}

/// Names the parameters that the loss does not depend on: they will never learn.
void warn_of_unreached(const Gradients& gradients, const TrainingState& state) {
  std::string names;
  for (const NamedTensor& t : named_tensors(state.module))
    if (t.trained && t.tensor->tracked() && !gradients.contains(*t.tensor))
      names += (names.empty() ? "" : ", ") + t.path;
  if (!names.empty()) state.say(fmt::format("warning: the loss does not depend on {}", names));
}

/// A model that ends in softmax and is trained with cross_entropy, which takes logits, learns badly, and nothing fails.
/// log_softmax before cross_entropy changes nothing.
void warn_of_probabilities(const Tensor& loss, const TrainingState& state) {
  constexpr std::pair<std::string_view, std::string_view> mistakes[] = {
      {"cross_entropy", "softmax"},   {"cross_entropy", "sigmoid"},   {"log_softmax", "softmax"},
      {"bce_with_logits", "sigmoid"}, {"bce_with_logits", "softmax"}, {"bce_with_logits", "log_softmax"}};
  constexpr std::string_view moves[] = {"reshape", "gather", "cast"};  // the elements stay what they are
  const Graph graph(loss);
  for (const Node* node : graph.nodes()) {
    if (node->is_variable()) continue;
    const Node* from = node->inputs()[0].node.get();
    while (from && std::ranges::count(moves, from->op())) from = from->inputs()[0].node.get();
    if (!from) continue;
    const std::string_view op = from->op() == "linear_sigmoid" ? "sigmoid" : from->op();  // Dense does both in one pass
    if (!std::ranges::count(mistakes, std::pair(node->op(), op))) continue;
    return state.say(fmt::format("warning: {} expects logits, but gets the output of {}{}: remove this {}", node->op(),
                                 op, from->scope() ? fmt::format(" ({})", from->scope()->path) : "", op));
  }
}

/// Gives the default generator back its state at the end.
class RestoreGenerator {
 public:
  RestoreGenerator() = default;
  RestoreGenerator(const RestoreGenerator&) = delete;
  RestoreGenerator& operator=(const RestoreGenerator&) = delete;
  ~RestoreGenerator() { default_generator() = before_; }

 private:
  Generator before_ = default_generator();
};

/// One call of fit(): everything around the forward pass, the backward pass and the step.
class Run {
 public:
  Run(Module& module, Optimizer& optimizer, const Parts& data, const FitOptions& o);

  void begin();
  bool begin_epoch();                            ///< false when training is over
  bool begin_batch();                            ///< makes the next batch; false when the epoch is over
  const Batch& batch() const { return batch_; }  ///< with the inputs augmented
  std::span<const NamedTensor> parameters() { return trained_; }  ///< those that are trained in this epoch
  void check_and_clip(const Tensor& loss, Gradients& gradients);  ///< the checks: in the first step only
  void end_batch(double loss, const Tensor& output);
  void end_epoch();
  History end();
  /// After an exception: the module has what was trained, to which the optimizer's state belongs, and
  /// FitOptions::failed is told.
  void fail();

 private:
  void each(void (CallbackBase::*hook)(TrainingState&)) {
    for (const Callback& c : o_.callbacks) (c.operator->()->*hook)(state_);
  }
  /// What is drawn depends on the seed and the number of steps alone, so that a training that continues draws the same.
  void draw_for_step() {
    default_generator() = Generator(o_.seed, dropout_stream + static_cast<std::uint64_t>(optimizer_.steps()));
  }
  bool over() const { return state_.stop || history_.interrupted; }
  bool noticed() { return history_.interrupted = o_.interrupted && o_.interrupted(); }
  double seconds() const {
    return seconds_before_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  std::int64_t done() const {
    return counts_samples_ ? std::min(running_.batches * o_.batch, data_.train.size()) : running_.batches;
  }

  const FitOptions& o_;
  const Parts& data_;
  Optimizer& optimizer_;
  const ProgressOptions how_;
  const bool counts_samples_;  // as Keras 2.2 does in its progress
  History history_;
  PartialEpoch begun_;  // the epoch that `resume` left unfinished, until it is taken up
  const std::map<std::string, CallbackState> remembered_;
  TrainingState state_;
  const RestoreGenerator restore_;
  Batch batch_;
  std::vector<NamedTensor> trained_;
  bool checked_ = false;
  // For fail(): the steps that were completed, and the running statistics after the last of them, which a forward pass
  // changes before its step is complete.
  std::int64_t steps_;
  std::vector<std::pair<Tensor*, Tensor>> buffers_;
  bool measured_ = false;  // the epoch is complete, and not yet in the history

  // of this epoch
  std::chrono::steady_clock::time_point start_;
  double seconds_before_ = 0;  // what the epoch had taken when it was interrupted
  detail::Running running_;
  std::optional<Batches> batches_;
  std::string heading_;
  std::optional<Progress> progress_;
};

Run::Run(Module& module, Optimizer& optimizer, const Parts& data, const FitOptions& o)
    : o_(o),
      data_(data),
      optimizer_(optimizer),
      how_(detail::progress_of(o.verbose, o.style)),
      counts_samples_(o.style == KerasStyle::keras2_2),
      history_(o.resume.value_or(History{})),
      begun_(std::exchange(history_.partial, {})),
      remembered_(std::exchange(history_.callbacks, {})),
      state_{.module = module,
             .optimizer = optimizer,
             .history = history_,
             .epoch = std::max(0, history_.epochs() - 1),
             .epochs = o.epochs,
             .steps = Batches(data.train, {.size = o.batch, .shuffle = false}).count(),
             .partial = begun_,
             .say =
                 [this](const std::string& text) {
                   if (how_.kind != ProgressOptions::nothing) tell(stderr, text + "\n");
                 },
             .callbacks = &o.callbacks,
             // A checkpoint is written after a step that nothing was computed with yet.
             .loss_now =
                 [this] {
                   const NoGrad quiet;
                   return batch_.inputs.defined() ? o_.loss(state_.module(batch_.inputs), batch_.labels).item()
                                                  : state_.loss;
                 }},
      steps_(optimizer.steps()) {
  history_.interrupted = false;
  give(module, std::exchange(history_.weights, {}));
  if (begun_.batches < 0 || begun_.batches > state_.steps)
    throw ValueError(fmt::format("fit: cannot go on after batch {} of {}", begun_.batches, state_.steps));
  draw_for_step();
  for (const NamedTensor& t : named_tensors(module))
    if (!t.trained) buffers_.emplace_back(t.tensor, t.tensor->clone());
}

void Run::begin() {
  if (counts_samples_ && how_.kind != ProgressOptions::nothing)
    tell(stderr,
         fmt::format("Train on {} samples{}\n", data_.train.size(),
                     data_.validation ? fmt::format(", validate on {} samples", data_.validation->size()) : ""));
  each(&CallbackBase::train_begin);
  detail::each_named(o_.callbacks, [&](const std::string& name, CallbackBase& c) {
    if (const auto it = remembered_.find(name); it != remembered_.end()) c.set_state(it->second);
  });
}

bool Run::begin_epoch() {
  if (history_.epochs() >= o_.epochs || over()) return false;
  start_ = std::chrono::steady_clock::now();
  state_.epoch = history_.epochs();
  if (begun_.batches == 0) each(&CallbackBase::epoch_begin);
  trained_ = named_parameters(state_.module);  // a callback may have frozen or thawed some
  running_ = {begun_};
  seconds_before_ = std::exchange(begun_, {}).seconds;
  const auto first_step = static_cast<std::uint64_t>(optimizer_.steps() - running_.batches);
  batches_.emplace(
      data_.train,
      BatchOptions{.size = o_.batch, .shuffle = o_.shuffle, .seed = o_.seed, .stream = order_stream + first_step});
  heading_ = fmt::format("Epoch {}/{}", state_.epoch + 1, o_.epochs);
  if (how_.kind == ProgressOptions::bar || how_.kind == ProgressOptions::keras_lines) tell(stderr, heading_ + "\n");
  progress_.emplace(stderr, counts_samples_ ? data_.train.size() : batches_->count(), how_);
  return true;
}

bool Run::begin_batch() {
  const std::int64_t i = running_.batches, count = batches_->count();
  if (i >= count || over()) return false;
  state_.step = i;
  draw_for_step();
  if (o_.schedule)
    optimizer_.set_lr(o_.schedule(state_.epoch + static_cast<double>(i) / static_cast<double>(count), o_.epochs));
  each(&CallbackBase::batch_begin);
  batch_ = {};  // room for the next
  batch_ = (*batches_)[i];
  if (o_.augment) batch_.inputs = o_.augment(batch_.inputs);
  return true;
}

void Run::check_and_clip(const Tensor& loss, Gradients& gradients) {
  if (!std::exchange(checked_, true)) {
    warn_of_unreached(gradients, state_);
    warn_of_probabilities(loss, state_);
    if (const std::string line = optimizer_.overlooked(state_.module, gradients); !line.empty()) state_.say(line);
  }
  if (o_.clip_value > 0) clip_by_value(gradients, o_.clip_value);
  if (o_.clip_norm > 0) clip_by_global_norm(gradients, o_.clip_norm);
}

void Run::end_batch(double loss, const Tensor& output) {
  state_.loss = loss;
  running_.add(loss, output, batch_.labels);
  running_.seconds = seconds();
  state_.partial = running_;
  steps_ = optimizer_.steps();
  for (auto& [now, then] : buffers_) then.assign(*now);
  progress_->update(done(), [&] { return detail::shown_metrics("", running_.metrics()); });
  each(&CallbackBase::batch_end);
  noticed();
}

void Run::end_epoch() {
  draw_for_step();
  detail::Shown shown = detail::shown_metrics("", running_.metrics());
  if (data_.validation && !history_.interrupted) {
    each(&CallbackBase::validation_begin);
    const Metrics validated =
        evaluate(state_.module, *data_.validation, {.loss = o_.loss, .interrupted = [&] { return noticed(); }});
    if (!history_.interrupted)
      for (auto& entry : detail::shown_metrics("val_", validated)) shown.push_back(std::move(entry));
  }
  progress_->finish(shown, heading_);
  if (history_.interrupted) {
    history_.partial = running_;
    return;
  }
  state_.logs = std::map<std::string, double>(shown.begin(), shown.end());
  if (o_.schedule) state_.logs["lr"] = optimizer_.lr();
  state_.seconds = seconds();
  state_.partial = {};
  measured_ = true;
  each(&CallbackBase::epoch_end);
  for (const auto& [name, value] : state_.logs) history_.values[name].push_back(value);
  history_.seconds.push_back(state_.seconds);
  measured_ = false;
}

History Run::end() {
  if (begun_.batches > 0) {  // fewer epochs were asked for than were begun: it is as it was
    history_.partial = begun_;
    history_.interrupted = true;
  }
  each(&CallbackBase::train_end);
  detail::add_states(history_, state_);
  return std::move(history_);
}

void Run::fail() {
  state_.show_trained();
  for (const auto& [now, then] : buffers_) now->assign(then);
  optimizer_.set_steps(steps_);
  if (!o_.failed) return;
  try {
    for (auto& [_, values] : history_.values)  // it may have ended between two of them
      if (static_cast<int>(values.size()) > history_.epochs()) values.pop_back();
    std::erase_if(history_.values, [](const auto& entry) { return entry.second.empty(); });
    History left = measured_ ? state_.record() : history_;
    left.partial = state_.partial;
    left.interrupted = true;
    detail::add_states(left, state_);
    o_.failed(left);
  } catch (const std::exception&) {  // no memory for the record; what ended the training is what to report
  }
}

}  // namespace

History fit(Module& module, Optimizer& optimizer, const Dataset& all, const FitOptions& o) {
  expect_sound(o);
  const FlushDenormals flush;
  const Parts data = parts_of(all, o);
  prepare(module, data, o);
  Run run(module, optimizer, data, o);
  try {
    run.begin();
    while (run.begin_epoch()) {
      while (run.begin_batch()) {
        const auto& [inputs, labels] = run.batch();
        const Tensor output = module(inputs);
        const Tensor loss = loss_of(o, output, labels);
        Gradients gradients = backward(loss);
        run.check_and_clip(loss, gradients);
        optimizer.step(run.parameters(), gradients);
        run.end_batch(loss.item(), output);
      }
      run.end_epoch();
    }
    return run.end();
  } catch (...) {
    run.fail();
    throw;
  }
}

History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options) {
  return fit(module, optimizer, data, options);
}

}  // namespace ebb
