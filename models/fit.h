// fit, evaluate, predict.
#pragma once
#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ebb/models/dataset.h>
#include <ebb/models/module.h>
#include <ebb/models/optimizer.h>
#include <ebb/ops/ops.h>

namespace ebb {

/// A loss of (output, labels) with one element: a function or a lambda.
class Loss {
 public:
  Loss(Tensor (*f)(const Tensor&, const Tensor&)) : f_(f) {}
  template <std::invocable<const Tensor&, const Tensor&> F>
  Loss(F f) : f_(std::move(f)) {}
  Tensor operator()(const Tensor& output, const Tensor& labels) const { return f_(output, labels); }

 private:
  std::function<Tensor(const Tensor&, const Tensor&)> f_;
};

struct Metrics {
  double loss = 0;
  double accuracy = 0;  ///< share of rows whose largest output is the label's class; NaN where labels are no classes
};

/// What fit recorded: one number an epoch for each of loss, accuracy, val_loss, val_accuracy.
struct History {
  std::map<std::string, std::vector<double>> values;
  std::vector<double> seconds;  ///< of each epoch
  bool interrupted = false;     ///< stopped by FitOptions::interrupted
  int epochs() const { return static_cast<int>(seconds.size()); }
  /// The numbers of one key; throws ValueError listing the keys there are.
  const std::vector<double>& operator[](const std::string& key) const;
};

/// What a callback sees and may change.
struct TrainingState {
  Module& module;
  Optimizer& optimizer;
  int epoch = 0;   ///< from 0
  int epochs = 0;  ///< asked for
  std::map<std::string, double> logs;  ///< this epoch's numbers so far
  bool stop = false;                   ///< set it to end training after this epoch
  std::function<void(const std::string&)> say;  ///< prints a line beside the progress
};

/// Derive from this, or pass a lambda void(TrainingState&), which is called at the end of every epoch.
class CallbackBase {
 public:
  virtual ~CallbackBase() = default;
  virtual void train_begin(TrainingState&) {}
  virtual void epoch_end(TrainingState&) {}
  virtual void train_end(TrainingState&) {}
};

/// A callback by value, shared, or a lambda.
class Callback {
 public:
  template <std::derived_from<CallbackBase> C>
  Callback(C callback) : callback_(std::make_shared<C>(std::move(callback))) {}
  template <std::derived_from<CallbackBase> C>
  Callback(std::shared_ptr<C> callback) : callback_(std::move(callback)) {}
  template <std::invocable<TrainingState&> F>
  Callback(F f) : Callback(std::function<void(TrainingState&)>(std::move(f))) {}
  Callback(std::function<void(TrainingState&)> at_epoch_end);
  CallbackBase* operator->() const { return callback_.get(); }

 private:
  std::shared_ptr<CallbackBase> callback_;
};

struct EarlyStoppingOptions {
  std::string monitor = "val_loss";
  double min_delta = 0;       ///< an improvement must be larger than this
  int patience = 0;           ///< epochs without improvement before training stops
  bool restore_best = false;  ///< give the parameters the values of the best epoch
};
/// Stops when the monitored number no longer improves (falls; rises when its name contains "acc"). Starts afresh with
/// every fit.
class EarlyStopping : public CallbackBase {
 public:
  explicit EarlyStopping(EarlyStoppingOptions options = {}) : options_(std::move(options)) {}
  void train_begin(TrainingState&) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;
  /// Epoch (from 0) of the best number of the last fit; -1 before any.
  int best_epoch() const { return best_epoch_; }

 private:
  bool rises() const;
  EarlyStoppingOptions options_;
  double best_ = 0;
  int wait_ = 0, best_epoch_ = -1;
  std::vector<Tensor> kept_;
};

/// How fit shows progress, on stderr: a bar on a terminal and a line an epoch elsewhere; nothing; a bar; a line an epoch.
enum class Verbose { automatic, silent, bar, lines };

struct FitOptions {
  int epochs = 1;
  std::int64_t batch = 32;
  Loss loss = cross_entropy;
  std::optional<Dataset> validation = {};
  double validation_split = 0;  ///< this last share of the data is held out, before shuffling
  std::uint64_t seed = 0;       ///< of dropout (stream 2^32) and of the order of samples (stream 2^33 + epoch)
  bool shuffle = true;
  std::function<Tensor(const Tensor&)> augment = {};  ///< changes the inputs of each training batch, such as Augment
  std::vector<Callback> callbacks = {};
  Verbose verbose = Verbose::automatic;
  std::function<bool()> interrupted = {};  ///< asked after every batch; true ends training
};

/// Trains a module. Same seed, same bits, for any number of threads. Throws ValueError on options out of range, and
/// whatever the module throws.
History fit(Module& module, Optimizer& optimizer, const Dataset& data, const FitOptions& options = {});
History fit(Module& module, Optimizer&& optimizer, const Dataset& data, const FitOptions& options = {});

struct EvaluateOptions {
  std::int64_t batch = 256;
  Loss loss = cross_entropy;
};
/// Mean loss and accuracy over a data set, at inference.
Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& options = {});

/// Outputs for all inputs, at inference, batch by batch. uint8 inputs are multiplied by `scale`.
Tensor predict(Module& module, const Tensor& inputs, double scale = 1, std::int64_t batch = 256);

/// Rows whose largest element is at the label: labels are classes (n), or one-hot rows (n, c).
std::int64_t count_correct(const Tensor& outputs, const Tensor& labels);

}  // namespace ebb
