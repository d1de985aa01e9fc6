// (over 400 lines because training and its measurements share the way a batch is run)
#include <ebb/models/train/fit.h>

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <map>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>
#include <ebb/models/train/progress.h>
#include <ebb/models/train/tell.h>

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
struct Running : PartialEpoch {
  void add(double batch_loss, const Tensor& outputs, const Tensor& labels) {
    const std::int64_t n = outputs.rank() ? outputs.size(0) : 1;
    ++batches;
    loss += batch_loss * static_cast<double>(n);
    seen += n;
    const bool sparse = labels.rank() == 1 && !is_float(labels.dtype());
    classes =
        classes && outputs.rank() == 2 && (sparse || (labels.shape() == outputs.shape() && rows_are_shares(labels)));
    if (classes) correct += count_correct(outputs, labels);
  }
  Metrics metrics() const {
    const auto n = static_cast<double>(seen);
    return {loss / n, classes ? static_cast<double>(correct) / n : NAN};
  }
};

using Shown = std::vector<std::pair<std::string, double>>;
Shown shown_metrics(const std::string& prefix, const Metrics& m) {
  Shown out{{prefix + "loss", m.loss}};
  if (!std::isnan(m.accuracy)) out.emplace_back(prefix + "accuracy", m.accuracy);
  return out;
}

ProgressOptions progress_of(Verbose verbose, KerasStyle style) {
  ProgressOptions out{.kind = ProgressOptions::nothing, .style = style, .color = Progress::can_color(stderr)};
  if (verbose == Verbose::bar || (verbose == Verbose::automatic && Progress::can_redraw(stderr)))
    out.kind = ProgressOptions::bar;
  else if (verbose != Verbose::silent)
    out.kind = verbose == Verbose::lines ? ProgressOptions::keras_lines : ProgressOptions::lines;
  return out;
}

// Streams of the one seed. Weights are drawn from stream 0 (manual_seed), so the others begin far above it: one a step
// for dropout, and one an epoch for the order of samples, both counted in the optimizer's steps.
constexpr std::uint64_t dropout_stream = std::uint64_t{1} << 32, order_stream = std::uint64_t{2} << 32;

/// Names the parameters that the loss does not depend on: they will never learn.
void warn_of_unreached(Module& module, const Gradients& gradients, const TrainingState& state) {
  std::string names;
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained && t.tensor->tracked() && !gradients.contains(*t.tensor))
      names += (names.empty() ? "" : ", ") + t.path;
  if (!names.empty()) state.say(fmt::format("warning: the loss does not depend on {}", names));
}

/// Gives the module these weights, from which its training goes on.
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

/// How much each sample counts: the weight of its class, or the mean of the weights by its shares of the classes.
std::vector<double> weights_of(const Tensor& labels, const std::vector<double>& of_class) {
  const std::size_t classes = of_class.size();
  const auto refuse = [&](const char* why) {
    fail<ShapeError>("fit", fmt::format("{} class weights for labels {}{}", classes,
                                        labels.defined() ? describe(labels) : "that are undefined", why));
  };
  const bool shares = labels.defined() && labels.rank() == 2;
  if (!labels.defined() || labels.rank() == 0 || (shares && labels.size(1) != static_cast<std::int64_t>(classes)))
    refuse("");
  if (!shares && (labels.rank() != 1 || is_float(labels.dtype())))
    refuse(": needs classes (n) or shares of the classes (n, c)");
  std::vector<double> out;
  visit_dtype(labels.dtype(), [&](auto zero) {
    const auto v = labels.values<decltype(zero)>();
    if (shares) {
      for (std::size_t i = 0; i < v.size(); i += classes) {
        out.push_back(0);
        for (std::size_t c = 0; c < classes; ++c) out.back() += static_cast<double>(v[i + c]) * of_class[c];
      }
      return;
    }
    for (const auto c : v) {
      if (!(c >= 0 && static_cast<std::uint64_t>(c) < classes))
        throw ValueError(fmt::format("fit: label {} has no class weight: there are {}", c, classes));
      out.push_back(of_class[static_cast<std::size_t>(c)]);
    }
  });
  return out;
}

/// The mean over the batch of weight times loss, by the losses of those samples that weigh the same: a loss has no
/// other way to tell what a sample costs.
Tensor weighted_loss(const Loss& loss, const Tensor& output, const Tensor& labels,
                     const std::vector<double>& of_class) {
  std::map<double, std::vector<std::int64_t>> alike;
  const std::vector<double> weights = weights_of(labels, of_class);
  if (loss.plain() == static_cast<Tensor (*)(const Tensor&, const Tensor&)>(cross_entropy))
    return cross_entropy(
        output, labels,
        {.class_weights = cast(Tensor::from(of_class, {static_cast<std::int64_t>(of_class.size())}), output.dtype())});
  const auto n = static_cast<std::int64_t>(weights.size());
  if (output.rank() == 0 || output.size(0) != n)
    fail<ShapeError>(
        "fit", fmt::format("class weights need an output for each of {} samples, got {}", n, output.shape().str()));
  for (std::int64_t i = 0; i < n; ++i) alike[weights[static_cast<std::size_t>(i)]].push_back(i);
  if (alike.size() > 1) alike.erase(0);
  Tensor sum;
  for (const auto& [weight, rows] : alike) {
    const Tensor which = Tensor::from(rows, {static_cast<std::int64_t>(rows.size())});
    const bool all = static_cast<std::int64_t>(rows.size()) == n;
    const Tensor part = (all ? loss(output, labels) : loss(gather(output, which), gather(labels, which))) *
                        (weight * static_cast<double>(rows.size()) / static_cast<double>(n));
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

}  // namespace

Loss::Loss(std::function<Tensor(const Tensor&, const Tensor&)> f) : f_(std::move(f)) {
  detail::expect_given(f_, "Loss");
}

std::int64_t count_correct(const Tensor& outputs, const Tensor& labels) {
  const Tensor truth = labels.rank() == 2 ? argmax(labels, -1) : labels;
  const std::int64_t classes = outputs.rank() ? outputs.size(-1) : 0;
  if (classes == 0) fail<ShapeError>("count_correct", fmt::format("no classes in outputs {}", outputs.shape().str()));
  if (truth.numel() != outputs.numel() / classes)
    fail<ShapeError>("count_correct", fmt::format("outputs {} and labels {} differ in number", outputs.shape().str(),
                                                  labels.shape().str()));
  return visit_dtype(outputs.dtype(), [&](auto value) {
    return visit_dtype(truth.dtype(), [&](auto label) {
      const auto* row = outputs.values<decltype(value)>().data();
      std::int64_t n = 0;
      for (const auto right : truth.values<decltype(label)>()) {
        std::int64_t best = 0;
        for (std::int64_t j = 1; j < classes; ++j) best = row[j] > row[best] ? j : best;
        n += best == static_cast<std::int64_t>(right);
        row += classes;
      }
      return n;
    });
  });
}

History fit(Module& module, Optimizer& optimizer, const Dataset& all, const FitOptions& o) {
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
  const FlushDenormals flush;
  Dataset train = all;
  std::optional<Dataset> validation = o.validation;
  if (o.validation_split != 0) {
    auto [first, last] = split_last(all, o.validation_split);
    train = first;
    validation = last;
  }
  if (train.size() == 0) throw ValueError("fit: no samples");
  if (validation && validation->size() == 0) throw ValueError("fit: no validation samples");
  build(module, train.sample());
  if (validation) {  // what is wrong with it is told now, and not after an epoch
    const Batches all_of_it(*validation, {.size = o.batch, .shuffle = false});
    evaluate(module, validation->slice(0, 1), {.loss = o.loss});
  }
  std::vector<NamedTensor> trained = named_parameters(module);
  if (trained.empty()) throw ValueError("fit: the module has no trainable parameters");

  const ProgressOptions how = progress_of(o.verbose, o.style);
  const bool samples = o.style == KerasStyle::keras2_2;  // which are what Keras 2.2 counts
  History history = o.resume.value_or(History{});
  PartialEpoch begun = std::exchange(history.partial, {});
  history.interrupted = false;
  give(module, std::exchange(history.weights, {}));
  const auto remembered = std::exchange(history.callbacks, {});
  const Batches probe(train, {.size = o.batch, .shuffle = false});
  TrainingState state{.module = module,
                      .optimizer = optimizer,
                      .history = history,
                      .epoch = std::max(0, history.epochs() - 1),
                      .epochs = o.epochs,
                      .steps = probe.count(),
                      .say =
                          [&](const std::string& text) {
                            if (how.kind != ProgressOptions::nothing) tell(stderr, text + "\n");
                          },
                      .callbacks = &o.callbacks};
  if (begun.batches < 0 || begun.batches > state.steps)
    throw ValueError(fmt::format("fit: cannot go on after batch {} of {}", begun.batches, state.steps));
  struct Restore {
    Generator to;
    ~Restore() { default_generator() = to; }
  } const restore{default_generator()};
  // What is drawn depends on the seed and the steps alone, so that a training that goes on draws the same.
  const auto draw_for_step = [&] {
    default_generator() = Generator(o.seed, dropout_stream + static_cast<std::uint64_t>(optimizer.steps()));
  };
  draw_for_step();
  state.partial = begun;
  Batch b;
  // A checkpoint is written after a step that nothing was computed with yet.
  state.loss_now = [&] {
    const NoGrad quiet;
    return b.inputs.defined() ? o.loss(module(b.inputs), b.labels).item() : state.loss;
  };
  std::int64_t steps = optimizer.steps();  // of the batches that ended
  bool measured = false;                   // the epoch is, and not yet in the history
  // Running statistics and the like, and what they were then: a forward pass changes them, also one of a batch that
  // does not end.
  std::vector<std::pair<Tensor*, Tensor>> buffers;
  for (const NamedTensor& t : named_tensors(module))
    if (!t.trained) buffers.emplace_back(t.tensor, t.tensor->clone());
  struct PutBack {  // after an exception the module has what was trained, which the optimizer's state belongs to
    TrainingState& state;
    History& history;
    const std::int64_t& steps;
    const bool& measured;
    const std::vector<std::pair<Tensor*, Tensor>>& buffers;
    History* so_far;
    int before = std::uncaught_exceptions();
    ~PutBack() {
      if (std::uncaught_exceptions() == before) return;
      state.show_trained();
      for (const auto& [now, then] : buffers) now->assign(then);
      state.optimizer.set_steps(steps);
      if (!so_far) return;
      try {
        for (auto& [_, values] : history.values)  // it may have ended between two of them
          if (static_cast<int>(values.size()) > history.epochs()) values.pop_back();
        std::erase_if(history.values, [](const auto& entry) { return entry.second.empty(); });
        History left = measured ? state.record() : history;
        left.partial = state.partial;
        left.interrupted = true;
        detail::add_states(left, state);
        *so_far = std::move(left);
      } catch (const std::exception&) {  // no memory for that: then it stays as it was
      }
    }
  } const put_back{state, history, steps, measured, buffers, o.so_far};

  if (samples && how.kind != ProgressOptions::nothing)
    tell(stderr, fmt::format("Train on {} samples{}\n", train.size(),
                             validation ? fmt::format(", validate on {} samples", validation->size()) : ""));
  for (const Callback& c : o.callbacks) c->train_begin(state);
  detail::each_named(o.callbacks, [&](const std::string& name, CallbackBase& c) {
    if (const auto it = remembered.find(name); it != remembered.end()) c.set_state(it->second);
  });
  bool warned = false;
  for (int epoch = history.epochs(); epoch < o.epochs && !state.stop && !history.interrupted; ++epoch) {
    const auto start = std::chrono::steady_clock::now();
    state.epoch = epoch;
    if (begun.batches == 0)
      for (const Callback& c : o.callbacks) c->epoch_begin(state);
    trained = named_parameters(module);  // a callback may have frozen or thawed some
    Running running{begun};
    const double seconds_before = std::exchange(begun, {}).seconds;
    const auto seconds = [&] {
      return seconds_before + std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    const auto first_step = static_cast<std::uint64_t>(optimizer.steps() - running.batches);
    const Batches batches(train,
                          {.size = o.batch, .shuffle = o.shuffle, .seed = o.seed, .stream = order_stream + first_step});
    const std::string heading = fmt::format("Epoch {}/{}", epoch + 1, o.epochs);
    if (how.kind == ProgressOptions::bar || how.kind == ProgressOptions::keras_lines) tell(stderr, heading + "\n");
    Progress progress(stderr, samples ? train.size() : batches.count(), how);
    for (std::int64_t i = running.batches; i < batches.count() && !state.stop && !history.interrupted; ++i) {
      state.step = i;
      draw_for_step();
      if (o.schedule)
        optimizer.set_lr(o.schedule(epoch + static_cast<double>(i) / static_cast<double>(batches.count()), o.epochs));
      for (const Callback& c : o.callbacks) c->batch_begin(state);
      b = {};  // room for the next
      b = batches[i];
      if (o.augment) b.inputs = o.augment(b.inputs);
      const Tensor output = module(b.inputs);
      const Tensor loss =
          o.class_weight.empty() ? o.loss(output, b.labels) : weighted_loss(o.loss, output, b.labels, o.class_weight);
      Gradients gradients = backward(loss);
      if (!std::exchange(warned, true)) {
        warn_of_unreached(module, gradients, state);
        if (const std::string line = optimizer.overlooked(module, gradients); !line.empty()) state.say(line);
      }
      if (o.clip_value > 0) clip_by_value(gradients, o.clip_value);
      if (o.clip_norm > 0) clip_by_global_norm(gradients, o.clip_norm);
      optimizer.step(trained, gradients);
      state.loss = loss.item();
      running.add(state.loss, output, b.labels);
      running.seconds = seconds();
      state.partial = running;
      steps = optimizer.steps();
      for (auto& [now, then] : buffers) then.assign(*now);
      progress.update(samples ? std::min((i + 1) * o.batch, train.size()) : i + 1,
                      [&] { return shown_metrics("", running.metrics()); });
      for (const Callback& c : o.callbacks) c->batch_end(state);
      history.interrupted = o.interrupted && o.interrupted();
    }
    draw_for_step();
    Shown all_shown = shown_metrics("", running.metrics());
    if (validation && !history.interrupted) {
      for (const Callback& c : o.callbacks) c->validation_begin(state);
      const auto noticed = [&] { return history.interrupted = o.interrupted && o.interrupted(); };
      const Metrics all_of_it = evaluate(module, *validation, {.loss = o.loss, .interrupted = noticed});
      if (!history.interrupted)
        for (auto& entry : shown_metrics("val_", all_of_it)) all_shown.push_back(std::move(entry));
    }
    progress.finish(all_shown, heading);
    if (history.interrupted) {
      history.partial = running;
      break;
    }
    state.logs = std::map<std::string, double>(all_shown.begin(), all_shown.end());
    if (o.schedule) state.logs["lr"] = optimizer.lr();
    state.seconds = seconds();
    state.partial = {};
    measured = true;
    for (const Callback& c : o.callbacks) c->epoch_end(state);
    for (const auto& [name, value] : state.logs) history.values[name].push_back(value);
    history.seconds.push_back(state.seconds);
    measured = false;
  }
  if (begun.batches > 0) {  // fewer epochs were asked for than were begun: it is as it was
    history.partial = begun;
    history.interrupted = true;
  }
  for (const Callback& c : o.callbacks) c->train_end(state);
  detail::add_states(history, state);
  return history;
}

History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options) {
  return fit(module, optimizer, data, options);
}

Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& o) {
  if (data.size() == 0) throw ValueError("evaluate: no samples");
  const NoGrad quiet;
  const FlushDenormals flush;
  Running running;
  const Batches batches(data, {.size = o.batch, .shuffle = false});
  const bool samples = o.style == KerasStyle::keras2_2;
  Progress progress(stderr, samples ? data.size() : batches.count(), progress_of(o.verbose, o.style));
  for (auto [x, y] : batches) {
    if (running.batches > 0 && o.interrupted && o.interrupted()) break;
    const Tensor output = module(x);
    running.add(o.loss(output, y).item(), output, y);
    progress.update(samples ? running.seen : running.batches, [&] { return shown_metrics("", running.metrics()); });
  }
  progress.finish(shown_metrics("", running.metrics()), "Evaluation");
  return running.metrics();
}

Tensor predict(Module& module, const Dataset& data, const PredictOptions& o) {
  if (data.size() == 0) throw ValueError("predict: no samples");
  const NoGrad quiet;
  const FlushDenormals flush;
  std::vector<Tensor> parts;
  const Batches batches({data.inputs, {}, data.scale}, {.size = o.batch, .shuffle = false});
  const bool samples = o.style == KerasStyle::keras2_2;
  Progress progress(stderr, samples ? data.size() : batches.count(), progress_of(o.verbose, o.style));
  std::int64_t row = 0;
  for (auto [x, _] : batches) {
    parts.push_back(module(x));
    row += x.size(0);
    progress.update(samples ? row : static_cast<std::int64_t>(parts.size()), {});
  }
  progress.finish({}, "Prediction");
  Tensor out = Tensor::empty(parts[0].shape().with(0, data.size()), parts[0].dtype());
  row = 0;
  for (const Tensor& p : parts) {
    out.rows(row, row + p.size(0)).assign(p);
    row += p.size(0);
  }
  return out;
}

Tensor predict(Module& module, const Tensor& inputs, const PredictOptions& options) {
  return predict(module, Dataset{inputs, {}, 1}, options);
}

}  // namespace ebb
