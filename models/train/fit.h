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

/// A function of (output, labels) that returns a tensor with one element. Throws ValueError if the function is empty.
class Loss {
 public:
  Loss(std::function<Tensor(const Tensor&, const Tensor&)> f);  ///< any function
  /// A function, such as cross_entropy.
  Loss(Tensor (*f)(const Tensor&, const Tensor&)) : Loss(std::function<Tensor(const Tensor&, const Tensor&)>(f)) {}
  template <std::invocable<const Tensor&, const Tensor&> F>
  Loss(F f) : Loss(std::function<Tensor(const Tensor&, const Tensor&)>(std::move(f))) {}              ///< a lambda
  Tensor operator()(const Tensor& output, const Tensor& labels) const { return f_(output, labels); }  ///< the loss
  /// The function when it is a plain one, such as cross_entropy; null for a lambda.
  auto plain() const -> Tensor (*)(const Tensor&, const Tensor&) {
    const auto f = f_.target<Tensor (*)(const Tensor&, const Tensor&)>();
    return f ? *f : nullptr;
  }

 private:
  std::function<Tensor(const Tensor&, const Tensor&)> f_;
};

/// Loss and accuracy on a data set.
struct Metrics {
  double loss = 0;      ///< mean over the samples
  double accuracy = 0;  ///< share of rows whose largest output is the label's class; NaN if labels are not classes
};

/// Progress on stderr. automatic: a bar on a terminal, else one numbered line per epoch; silent: nothing; bar: always a
/// bar; lines: Keras' line per epoch. In Keras these are verbose = "auto", 0, 1 and 2.
enum class Verbose { automatic, silent, bar, lines };

/// Options for fit().
struct FitOptions {
  int epochs = 1;           ///< passes through the data
  std::int64_t batch = 32;  ///< samples per step
  /// The loss to minimize. cross_entropy takes logits: the network must not end in softmax; fit() warns if it does.
  Loss loss = cross_entropy;
  std::optional<Dataset> validation = {};  ///< evaluated at the end of every epoch
  double validation_split = 0;             ///< this last share of the data is held out, before shuffling
  /// Seed of dropout and of the order of samples. Both also depend on the optimizer's number of steps, so that a second
  /// fit() draws new numbers: dropout in stream 2^32 + steps, the order in stream 2^33 + steps at the start of the
  /// epoch.
  std::uint64_t seed = 0;
  bool shuffle = true;                                ///< a new order in every epoch
  std::function<Tensor(const Tensor&)> augment = {};  ///< applied to the inputs of each training batch, such as Augment
  std::vector<Callback> callbacks = {};               ///< called in this order
  Schedule schedule = {};  ///< learning rate; called before every step with the time in epochs; recorded as "lr"
  double clip_norm = 0;    ///< above 0: largest 2-norm of all gradients together (global_clipnorm in Keras)
  double clip_value = 0;   ///< above 0: largest magnitude of an element of a gradient
  /// Weight of each class in the training loss, which must be a mean over samples: the sum of weight times loss over
  /// the batch is divided by its number of samples, as in Keras. A sample whose label is a row of shares of the classes
  /// has the mean of the weights by these shares. Validation and metrics use no weights.
  std::vector<double> class_weight = {};
  /// A record to continue from: its epochs count, an interrupted one is completed, the module receives its `weights`,
  /// and callbacks their states. With the same module and optimizer the result has the bits of an uninterrupted
  /// training.
  std::optional<History> resume = {};
  Verbose verbose = Verbose::automatic;    ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;   ///< style of the progress
  std::function<bool()> interrupted = {};  ///< called after every batch, in validations too; true ends training
  /// Called when an exception ends training, before fit() passes it on: with the record up to the last batch, for use
  /// as `resume`, and `interrupted` set. An epoch whose numbers are already measured counts as done.
  std::function<void(const History& so_far)> failed = {};
};

/// Trains a module until `epochs` are recorded. Same seed, same bits, for any number of threads. Throws ValueError on
/// options out of range, and whatever the module, the loss or a callback throws. After an exception the module
/// holds the trained weights (not their averages) and the running statistics of the last completed batch; the optimizer
/// counts completed batches only. If the optimizer itself threw, some weights may have changed already. train_end() is
/// not called.
History fit(Module& module, Optimizer& optimizer, const Dataset& data, const FitOptions& options = {});
/// The same with a temporary optimizer.
History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options = {});

/// Options for evaluate().
struct EvaluateOptions {
  std::int64_t batch = 256;                ///< samples per batch
  Loss loss = cross_entropy;               ///< averaged over the samples
  Verbose verbose = Verbose::silent;       ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;   ///< style of the progress
  std::function<bool()> interrupted = {};  ///< called between batches; true ends evaluate() with the means so far
};
/// Mean loss and accuracy over a data set, at inference.
Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& options = {});

/// Options for predict().
struct PredictOptions {
  std::int64_t batch = 256;               ///< samples per batch
  Verbose verbose = Verbose::silent;      ///< progress on stderr
  KerasStyle style = KerasStyle::keras2;  ///< style of the progress
};
/// Outputs for all inputs of a data set, times its scale, at inference, batch by batch. Labels are ignored.
Tensor predict(Module& module, const Dataset& data, const PredictOptions& options = {});
/// The same for inputs without a scale: bytes become the floats 0 to 255.
Tensor predict(Module& module, const Tensor& inputs, const PredictOptions& options = {});

/// Number of rows whose largest element is at the label: labels are classes (n), or one-hot rows (n, c).
std::int64_t count_correct(const Tensor& outputs, const Tensor& labels);

}  // namespace ebb
