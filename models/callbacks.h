// What happens between the steps of fit(): callbacks, and those that most trainings want.
#pragma once
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ebb/models/history.h>
#include <ebb/models/module.h>
#include <ebb/models/optimizer.h>

namespace ebb {

/// What a callback sees and may change.
struct TrainingState {
  Module& module;  ///< that is trained
  Optimizer& optimizer;  ///< that trains it
  const History& history;  ///< the epochs before this one
  int epoch = 0;           ///< from 0
  int epochs = 0;          ///< asked for
  std::int64_t step = 0;   ///< of this epoch, from 0; optimizer.steps() counts all there ever were
  std::int64_t steps = 0;  ///< an epoch
  double loss = 0;         ///< of the last batch
  double seconds = 0;      ///< that the epoch took, at its end
  std::map<std::string, double> logs = {};  ///< at the end of an epoch: its numbers; what is added is recorded too
  bool stop = false;  ///< set it to end training: after this epoch, or, when set in a batch, with this batch
  std::function<void(const std::string&)> say = {};  ///< prints a line beside the progress
  /// At the end of an epoch: the history with this epoch in it.
  History record() const;
};

/// Derive from this, or pass a lambda void(TrainingState&), which is called at the end of every epoch.
class CallbackBase {
 public:
  virtual ~CallbackBase() = default;
  virtual void train_begin(TrainingState&) {}  ///< before the first epoch
  virtual void epoch_begin(TrainingState&) {}  ///< before an epoch's first batch
  virtual void batch_begin(TrainingState&) {}  ///< before a step
  virtual void batch_end(TrainingState&) {}  ///< after a step
  virtual void validation_begin(TrainingState&) {}  ///< before the validation at the end of an epoch, if there is one
  virtual void epoch_end(TrainingState&) {}  ///< with the epoch's numbers in logs
  virtual void train_end(TrainingState&) {}  ///< after the last epoch
};

/// A callback by value, shared, or a lambda.
class Callback {
 public:
  template <std::derived_from<CallbackBase> C>
  Callback(C callback) : callback_(std::make_shared<C>(std::move(callback))) {}  ///< a callback by value
  template <std::derived_from<CallbackBase> C>
  Callback(std::shared_ptr<C> callback) : callback_(std::move(callback)) {}  ///< a callback that others hold too
  template <std::invocable<TrainingState&> F>
  /// A lambda, called at the end of every epoch.
  Callback(F f) : Callback(std::function<void(TrainingState&)>(std::move(f))) {}
  Callback(std::function<void(TrainingState&)> at_epoch_end);  ///< any function
  CallbackBase* operator->() const { return callback_.get(); }  ///< the callback

 private:
  std::shared_ptr<CallbackBase> callback_;
};

/// Which way a number improves; automatic: it rises when its name ends in "acc", "accuracy" or "auc", else it falls.
enum class Mode { automatic, min, max };

/// The best of a monitored number. Used by the callbacks below.
class Monitor {
 public:
  Monitor(std::string key, Mode mode, double min_delta);  ///< an improvement is larger than min_delta
  /// Forgets everything, then takes in the epochs of `history`, handing each number to `seen` (epoch, whether it was better).
  void begin(const History& history, const std::function<void(int epoch, bool better)>& seen);
  /// Takes in this epoch's number; nothing when it is not there, which is said once: the keys that are there with it.
  std::optional<bool> better(TrainingState& state, const char* who);
  double best() const { return best_; }  ///< the best number so far

 private:
  bool take(double now);
  std::string key_;
  bool rises_;
  double min_delta_, best_ = 0;
  bool warned_ = false;
};

/// As Keras' EarlyStopping.
struct EarlyStoppingOptions {
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  double min_delta = 0;       ///< an improvement must be larger than this
  int patience = 0;           ///< epochs without improvement before training stops
  bool restore_best = false;  ///< give the parameters the values of the best epoch
  Mode mode = Mode::automatic;  ///< which way it improves
};
/// Stops when the monitored number no longer improves. At the end of an epoch: wait grows by one; an improvement sets it to
/// zero; else, when it has reached patience in any epoch but the first, training stops (Keras). Starts afresh with every fit;
/// in one that goes on from a history, with the best of that history.
class EarlyStopping : public CallbackBase {
 public:
  /// Throws ValueError on a negative patience or min_delta.
  explicit EarlyStopping(EarlyStoppingOptions options = {});
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;
  /// Epoch (from 0) of the best number of the last fit; -1 before any.
  int best_epoch() const { return best_epoch_; }

 private:
  EarlyStoppingOptions options_;
  Monitor monitor_;
  int wait_ = 0, best_epoch_ = -1;
  std::vector<Tensor> kept_;
};

/// As Keras' ModelCheckpoint.
struct ModelCheckpointOptions {
  std::filesystem::path path;  ///< of the file
  bool best_only = false;  ///< only when the monitored number improves; else the last state is kept
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  Mode mode = Mode::automatic;  ///< which way it improves
  int every = 1;  ///< epochs
  /// What to write; default: save(state.module, path). The epoch that has just ended is in state.epoch and state.logs.
  std::function<void(TrainingState& state, const std::filesystem::path& path)> write = {};
};
/// Writes the model at the end of epochs, over the file of the epoch before.
class ModelCheckpoint : public CallbackBase {
 public:
  /// Throws ValueError without a path or when `every` is below 1.
  explicit ModelCheckpoint(ModelCheckpointOptions options);
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;

 private:
  ModelCheckpointOptions options_;
  Monitor monitor_;
};

/// Sets the learning rate at the start of every epoch to f(epoch from 0, rate so far); records it as "lr". For a rate that
/// changes with every step see FitOptions::schedule.
class LearningRateScheduler : public CallbackBase {
 public:
  /// From epoch and rate to the new rate.
  explicit LearningRateScheduler(std::function<double(int epoch, double lr)> f) : f_(std::move(f)) {}
  void epoch_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;

 private:
  std::function<double(int, double)> f_;
};

/// As Keras' ReduceLROnPlateau.
struct ReduceLROnPlateauOptions {
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  double factor = 0.1;  ///< the new rate is the old one times this
  int patience = 10;    ///< epochs without improvement before that
  double min_delta = 1e-4;  ///< an improvement must be larger than this
  int cooldown = 0;  ///< epochs after a reduction that are not counted
  double min_lr = 0;  ///< never lower than this
  Mode mode = Mode::automatic;  ///< which way it improves
};
/// Lowers the learning rate when the monitored number no longer improves (Keras); records the rate as "lr".
class ReduceLROnPlateau : public CallbackBase {
 public:
  /// Throws ValueError unless 0 < factor < 1 and nothing is negative.
  explicit ReduceLROnPlateau(ReduceLROnPlateauOptions options = {});
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;

 private:
  bool due(bool better);
  ReduceLROnPlateauOptions options_;
  Monitor monitor_;
  int wait_ = 0, cooldown_ = 0;
};

/// Writes a line an epoch to a file: the epoch from 0 and its numbers, under a line of names. A number that an epoch does
/// not have is NA. Throws IoError.
class CSVLogger : public CallbackBase {
 public:
  /// a new file unless `append`
  explicit CSVLogger(std::filesystem::path path, bool append = false, char separator = ',');
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;

 private:
  std::filesystem::path path_;
  bool append_;
  char separator_;
  std::vector<std::string> keys_;
  std::shared_ptr<std::ofstream> file_;
};

/// Averages the parameters over the steps: from the validation of an epoch to its end, and after training, the module has the
/// averages. Give it before callbacks that look at the module then.
class AverageWeights : public CallbackBase {
 public:
  explicit AverageWeights(double decay = 0.999) : average_(decay) {}  ///< ValueError unless 0 <= decay < 1
  void epoch_begin(TrainingState& state) override { show(false, state); }
  void batch_end(TrainingState& state) override { average_.update(state.module); }
  void validation_begin(TrainingState& state) override { show(true, state); }
  void epoch_end(TrainingState& state) override { show(true, state); }
  void train_end(TrainingState& state) override { show(true, state); }

 private:
  void show(bool averages, TrainingState& state) {
    if (averages != shown_) average_.swap(state.module);
    shown_ = averages;
  }
  WeightAverage average_;
  bool shown_ = false;
};

/// Stops at once when the loss of a batch is no finite number.
class TerminateOnNaN : public CallbackBase {
 public:
  void batch_end(TrainingState& state) override;
};

}  // namespace ebb
