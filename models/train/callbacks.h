// Callbacks of fit(), and the ones that most trainings use.
#pragma once
#include <chrono>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ebb/models/layers/module.h>
#include <ebb/models/train/history.h>
#include <ebb/models/train/optimizer.h>

namespace ebb {

class Callback;

/// The training as a callback sees it; some of it may be changed.
struct TrainingState {
  Module& module;                           ///< the model that is trained
  Optimizer& optimizer;                     ///< the optimizer that trains it
  const History& history;                   ///< the epochs before this one
  int epoch = 0;                            ///< number of this epoch, from 0
  int epochs = 0;                           ///< number of epochs asked for
  std::int64_t step = 0;                    ///< number of the step in this epoch, from 0; optimizer.steps() counts all
  std::int64_t steps = 0;                   ///< steps in each epoch
  double loss = 0;                          ///< loss of the last batch
  double seconds = 0;                       ///< duration of the epoch, set at its end
  PartialEpoch partial = {};                ///< sums over this epoch so far; empty at its end, when `logs` is set
  std::map<std::string, double> logs = {};  ///< numbers of the epoch, at its end; what a callback adds is recorded too
  bool stop = false;  ///< set it to end training: after this epoch or, when set in a batch, after this batch
  std::function<void(const std::string&)> say = {};  ///< prints a line beside the progress
  const std::vector<Callback>* callbacks = nullptr;  ///< the callbacks of this training
  /// Computes the loss of the last batch again, with the weights as they are, at inference.
  std::function<double()> loss_now = {};
  TensorMap aside = {};  ///< the trained weights, by path, while the module has others in their place

  /// The record up to now, after a batch or at the end of an epoch, for FitOptions::resume. The module has the weights,
  /// except those in `aside`.
  History record() const;
  /// The weights, by path, that `callbacks` would put into the module if training ended now.
  TensorMap chosen() const;
  /// Puts these weights into the module and sets the trained ones aside; show_trained() undoes it.
  void show(const TensorMap& weights);
  void show_trained();  ///< puts the trained weights back into the module
};

/// Base of callbacks. A lambda void(TrainingState&) is one too: it is called at the end of every epoch.
class CallbackBase {
 public:
  virtual ~CallbackBase() = default;
  virtual void train_begin(TrainingState&) {}       ///< before the first epoch
  virtual void epoch_begin(TrainingState&) {}       ///< before an epoch's first batch; not when an epoch is continued
  virtual void batch_begin(TrainingState&) {}       ///< before a step
  virtual void batch_end(TrainingState&) {}         ///< after a step
  virtual void validation_begin(TrainingState&) {}  ///< before the validation at the end of an epoch, if there is one
  virtual void epoch_end(TrainingState&) {}         ///< with the epoch's numbers in logs
  virtual void train_end(TrainingState&) {}         ///< after the last epoch

  // A callback with a state, whose training is to continue with the same bits after an interruption, overrides these.
  // What it draws from the default generator within an epoch is drawn again without them.
  virtual std::string_view name() const { return ""; }  ///< key of the state, without spaces and dots; empty: no state
  virtual CallbackState state() const { return {}; }    ///< the state; must not share storage with what changes later
  virtual void set_state(const CallbackState&) {}       ///< restores what state() gave; called after train_begin
  /// Adds the weights, by path, that it would put into the module if training ended now.
  virtual void choose(TensorMap&) const {}
};

/// A callback by value, shared, or a lambda. Throws ValueError on a null pointer and an empty function.
class Callback {
 public:
  template <std::derived_from<CallbackBase> C>
  Callback(C callback) : callback_(std::make_shared<C>(std::move(callback))) {}  ///< a callback by value
  template <std::derived_from<CallbackBase> C>
  /// A shared callback.
  Callback(std::shared_ptr<C> callback) : callback_(std::move(callback)) {
    expect_callback();
  }
  template <std::invocable<TrainingState&> F>
  /// A lambda, called at the end of every epoch.
  Callback(F f) : Callback(std::function<void(TrainingState&)>(std::move(f))) {}
  Callback(std::function<void(TrainingState&)> at_epoch_end);   ///< any function
  CallbackBase* operator->() const { return callback_.get(); }  ///< the callback

 private:
  void expect_callback() const;  ///< throws ValueError
  std::shared_ptr<CallbackBase> callback_;
};

namespace detail {
/// f(key in History::callbacks, callback) for each that has a name.
void each_named(const std::vector<Callback>& callbacks,
                const std::function<void(const std::string&, CallbackBase&)>& f);
/// Adds to the history what continuing needs beside its numbers: weights that are set aside, and states of callbacks.
void add_states(History& history, const TrainingState& state);
}  // namespace detail

/// Whether a number improves upwards or downwards; automatic: up if its name ends in "acc", "accuracy" or "auc".
enum class Mode { automatic, min, max };

/// Keeps the best value of a monitored number, for the callbacks below.
class Monitor {
 public:
  Monitor(std::string key, Mode mode, double min_delta);  ///< an improvement is larger than min_delta
  /// Starts anew with the epochs of `history`; calls seen(epoch, whether its number was better) for each.
  void begin(const History& history, const std::function<void(int epoch, bool better)>& seen);
  /// Whether this epoch's number is the best so far; nothing, with one warning, if it is not measured.
  std::optional<bool> better(TrainingState& state, const char* who);
  double best() const { return best_; }  ///< the best number so far

 private:
  bool take(double now);
  std::string key_;
  bool rises_;
  double min_delta_, best_ = 0;
  bool warned_ = false;
};

/// Options for EarlyStopping, as in Keras.
struct EarlyStoppingOptions {
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  double min_delta = 0;              ///< an improvement must be larger than this
  int patience = 0;                  ///< epochs without improvement before training stops
  bool restore_best = false;         ///< at the end, give the module the weights of the best epoch
  Mode mode = Mode::automatic;       ///< whether it improves upwards or downwards
};
/// Stops when the monitored number no longer improves. At the end of an epoch: wait grows by one; an improvement sets
/// it to zero; else, when it has reached patience in any epoch but the first, training stops (Keras). Each fit() starts
/// anew; one that continues from a history starts with the best of that history.
class EarlyStopping : public CallbackBase {
 public:
  /// Throws ValueError on a negative patience or min_delta.
  explicit EarlyStopping(EarlyStoppingOptions options = {});
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;
  std::string_view name() const override { return "early_stopping"; }
  CallbackState state() const override;  ///< the weights to restore
  void set_state(const CallbackState& state) override;
  void choose(TensorMap& weights) const override;
  /// Epoch, from 0, of the best number in the last fit(); -1 before any.
  int best_epoch() const { return best_epoch_; }

 private:
  EarlyStoppingOptions options_;
  Monitor monitor_;
  int wait_ = 0, best_epoch_ = -1;
  TensorMap kept_;
};

/// An interval in epochs, steps or time.
struct Interval {
  /// What is counted.
  enum Unit { epochs, steps, seconds };
  double count;                                            ///< how many
  Unit unit;                                               ///< of what
  Interval(int n, Unit u = epochs) : count(n), unit(u) {}  ///< `.every = 2`, `.every = {100, Interval::steps}`
  template <class Rep, class Period>
  Interval(std::chrono::duration<Rep, Period> time)
      : count(std::chrono::duration<double>(time).count()), unit(seconds) {}  ///< `.every = 5min`
  /// "2" epochs, "100steps", "200s", "5m", "1h". Throws ValueError on any other text, and on 0.
  static Interval parse(std::string_view text);
};

/// Options for ModelCheckpoint: those of Keras, and some for a training that must survive its process.
struct ModelCheckpointOptions {
  std::filesystem::path path;        ///< the file
  bool best_only = false;            ///< write only when the monitored number improves
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  Mode mode = Mode::automatic;       ///< whether it improves upwards or downwards
  Interval every = 1;                ///< epochs, steps or time; ignored with best_only
  /// Number of files to keep: `path` is the newest, model.1.safetensors beside model.safetensors the one before, and so
  /// on.
  int keep = 1;
  /// The architecture, as for save_model(): the file then holds the whole training, which can continue from within an
  /// epoch, and the module must be a Sequential. Empty: the file holds the module, as save() writes it.
  std::string architecture = {};
  std::map<std::string, std::string> metadata = {};  ///< texts to store in the file
  /// Called in the training thread with the reason when a file could not be written; training continues. Without it,
  /// fit() throws.
  std::function<void(const std::string& reason)> failed = {};
};
/// Saves the model during training. Another thread writes a copy while training continues; fit() returns when the last
/// file is written. A file is replaced as a whole or not at all; one that cannot be written costs no older file.
class ModelCheckpoint : public CallbackBase {
 public:
  /// Throws ValueError without a path, or when `every` or `keep` is below 1.
  explicit ModelCheckpoint(ModelCheckpointOptions options);
  void train_begin(TrainingState& state) override;
  void batch_end(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;
  /// Name of the n-th file before `path`; n = 0 is `path`.
  static std::filesystem::path older(const std::filesystem::path& path, int n);

 private:
  void write(TrainingState& state);
  void wait();
  ModelCheckpointOptions options_;
  Monitor monitor_;
  std::chrono::steady_clock::time_point last_ = {};
  std::shared_future<void> writing_;
};

/// Sets the learning rate at the start of every epoch to f(epoch from 0, rate so far); records it as "lr".
/// FitOptions::schedule sets it before every step.
class LearningRateScheduler : public CallbackBase {
 public:
  /// From epoch and rate to the new rate.
  explicit LearningRateScheduler(std::function<double(int epoch, double lr)> f);  ///< ValueError on an empty one
  void epoch_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;

 private:
  std::function<double(int, double)> f_;
};

/// Options for ReduceLROnPlateau, as in Keras.
struct ReduceLROnPlateauOptions {
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  double factor = 0.1;               ///< the rate is multiplied by this
  int patience = 10;                 ///< epochs without improvement before a reduction
  double min_delta = 1e-4;           ///< an improvement must be larger than this
  int cooldown = 0;                  ///< epochs after a reduction that do not count
  double min_lr = 0;                 ///< the lowest rate
  Mode mode = Mode::automatic;       ///< whether it improves upwards or downwards
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

/// Writes one line per epoch to a CSV file, below a line of names: the epoch, from 0, and its numbers. A number that an
/// epoch lacks is NA. When appending, a number that the file has no column for is left out with a warning. Throws
/// IoError.
class CSVLogger : public CallbackBase {
 public:
  /// Writes a new file, or appends to an existing one.
  explicit CSVLogger(std::filesystem::path path, bool append = false, char separator = ',');
  void train_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;

 private:
  std::filesystem::path path_;
  bool append_;
  char separator_;
  std::vector<std::string> keys_;
  bool compared_ = false;  // keys_ with the first numbers
  std::shared_ptr<std::ofstream> file_;
};

/// Averages the parameters over the steps. From the validation of an epoch to its end, and after training, the module
/// has the averages: callbacks that use the module then come after this one. Each fit() starts anew, except one that
/// continues from a history.
class AverageWeights : public CallbackBase {
 public:
  explicit AverageWeights(double decay = 0.999) : average_(decay) {}  ///< ValueError unless 0 <= decay < 1
  void train_begin(TrainingState&) override { average_.set_averages({}); }
  void epoch_begin(TrainingState& state) override { state.show_trained(); }
  void batch_end(TrainingState& state) override { average_.update(state.module); }
  void validation_begin(TrainingState& state) override { state.show(average_.averages()); }
  void epoch_end(TrainingState& state) override { state.show(average_.averages()); }
  void train_end(TrainingState& state) override { state.show(average_.averages()); }
  std::string_view name() const override { return "average_weights"; }
  CallbackState state() const override;  ///< the averages
  void set_state(const CallbackState& state) override { average_.set_averages(state.tensors); }
  void choose(TensorMap& weights) const override;

 private:
  WeightAverage average_;
};

/// Stops training at once when the loss of a batch is not finite.
class TerminateOnNaN : public CallbackBase {
 public:
  void batch_end(TrainingState& state) override;
};

}  // namespace ebb
