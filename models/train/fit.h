// fit, evaluate, predict.
#pragma once
#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <ebb/models/data/dataset.h>
#include <ebb/models/train/callbacks.h>
#include <ebb/models/train/progress.h>
#include <ebb/models/train/schedule.h>
#include <ebb/ops/ops.h>

namespace ebb {

/// A loss of (output, labels) with one element: a function or a lambda. Throws ValueError on an empty one.
class Loss {
 public:
  Loss(std::function<Tensor(const Tensor&, const Tensor&)> f);  ///< any function
  /// A function, such as cross_entropy.
  Loss(Tensor (*f)(const Tensor&, const Tensor&)) : Loss(std::function<Tensor(const Tensor&, const Tensor&)>(f)) {}
  template <std::invocable<const Tensor&, const Tensor&> F>
  Loss(F f) : Loss(std::function<Tensor(const Tensor&, const Tensor&)>(std::move(f))) {}  ///< a lambda
  Tensor operator()(const Tensor& output, const Tensor& labels) const { return f_(output, labels); }  ///< the loss
  /// The function when it is a plain one, such as cross_entropy; null for a lambda.
  auto plain() const -> Tensor (*)(const Tensor&, const Tensor&) {
    const auto f = f_.target<Tensor (*)(const Tensor&, const Tensor&)>();
    return f ? *f : nullptr;
  }

 private:
  std::function<Tensor(const Tensor&, const Tensor&)> f_;
};

/// How good a module is on some data.
struct Metrics {
  double loss = 0;  ///< its mean over the samples
  double accuracy = 0;  ///< share of rows whose largest output is the label's class; NaN where labels are no classes
};

/// How progress is shown, on stderr: a bar on a terminal and elsewhere a line an epoch that says which; nothing; a bar; Keras'
/// line an epoch (its verbose = "auto", 0, 1, 2).
enum class Verbose { automatic, silent, bar, lines };

/// How fit() trains.
struct FitOptions {
  int epochs = 1;  ///< passes through the data
  std::int64_t batch = 32;  ///< samples a step
  Loss loss = cross_entropy;  ///< of logits: a network needs no softmax at its end
  std::optional<Dataset> validation = {};  ///< evaluated at the end of every epoch
  double validation_split = 0;  ///< this last share of the data is held out, before shuffling
  /// Of dropout and of the order of samples. Both depend on the optimizer's steps too, so fitting again goes on with other
  /// numbers: dropout in stream 2^32 + steps, the order in stream 2^33 + steps at the start of the epoch.
  std::uint64_t seed = 0;
  bool shuffle = true;  ///< a new order every epoch
  std::function<Tensor(const Tensor&)> augment = {};  ///< changes the inputs of each training batch, such as Augment
  std::vector<Callback> callbacks = {};  ///< called in this order
  Schedule schedule = {};  ///< of the learning rate, asked before every step with the time in epochs; recorded as "lr"
  double clip_norm = 0;    ///< above 0: the largest 2-norm of all gradients together (Keras' global_clipnorm)
  double clip_value = 0;   ///< above 0: the largest magnitude of a gradient's element
  /// How much a sample of each class counts in the training loss, which must be a mean over samples: the sum of weight times
  /// loss over the batch is divided by its number of samples, as in Keras. Where labels are shares of the classes (n, c), a
  /// sample's weight is the mean of the weights by its shares. Validation and metrics count all samples alike.
  std::vector<double> class_weight = {};
  /// Goes on from this record: epochs are numbered on, one that was cut short is finished, the new record begins with the old
  /// one, the module gets the record's `weights`, and callbacks what they remember. With the module's and the optimizer's state
  /// it gives the bits of a training that was never interrupted.
  std::optional<History> resume = {};
  Verbose verbose = Verbose::automatic;  ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;  ///< of the progress
  std::function<bool()> interrupted = {};  ///< asked after every batch, and between those of a validation; true ends training
  /// Given, and training ends by an exception: what there is up to the last batch, for `resume`, with `interrupted` set. An epoch
  /// whose numbers are measured counts.
  History* so_far = nullptr;
};

/// Trains a module until `epochs` are recorded. Same seed, same bits, for any number of threads. Throws ValueError on
/// options out of range, and whatever the module, the loss or a callback throws: the module then has the weights that are trained,
/// not their averages, the running statistics after the last batch that ended, and the optimizer the steps of those that did; of the
/// one that did not, some of the weights may have been changed, if it was the optimizer that threw. train_end() is not called.
History fit(Module& module, Optimizer& optimizer, const Dataset& data, const FitOptions& options = {});
/// The same with an optimizer that is not needed afterwards.
History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options = {});

/// How evaluate() goes through the data.
struct EvaluateOptions {
  std::int64_t batch = 256;  ///< samples at a time
  Loss loss = cross_entropy;  ///< what is averaged
  Verbose verbose = Verbose::silent;  ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;  ///< of the progress
  std::function<bool()> interrupted = {};  ///< asked between batches; true ends it with the means of the samples so far
};
/// Mean loss and accuracy over a data set, at inference.
Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& options = {});

/// How predict() goes through the data.
struct PredictOptions {
  std::int64_t batch = 256;  ///< samples at a time
  Verbose verbose = Verbose::silent;  ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;  ///< of the progress
};
/// Outputs for all inputs of a data set, times its scale, at inference, batch by batch. Labels are not looked at.
Tensor predict(Module& module, const Dataset& data, const PredictOptions& options = {});
/// The same for inputs without a scale: bytes become the floats 0 to 255.
Tensor predict(Module& module, const Tensor& inputs, const PredictOptions& options = {});

/// Rows whose largest element is at the label: labels are classes (n), or one-hot rows (n, c).
std::int64_t count_correct(const Tensor& outputs, const Tensor& labels);

}  // namespace ebb
