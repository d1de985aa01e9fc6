// What happens between the steps of fit(): callbacks, and those that most trainings want.
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

/// What a callback sees and may change.
struct TrainingState {
  Module& module;                           ///< that is trained
  Optimizer& optimizer;                     ///< that trains it
  const History& history;                   ///< the epochs before this one
  int epoch = 0;                            ///< from 0
  int epochs = 0;                           ///< asked for
  std::int64_t step = 0;                    ///< of this epoch, from 0; optimizer.steps() counts all there ever were
  std::int64_t steps = 0;                   ///< an epoch
  double loss = 0;                          ///< of the last batch
  double seconds = 0;                       ///< that the epoch took, at its end
  PartialEpoch partial = {};                ///< of this epoch so far; empty at its end, when `logs` has its numbers
  std::map<std::string, double> logs = {};  ///< at the end of an epoch: its numbers; what is added is recorded too
  bool stop = false;  ///< set it to end training: after this epoch, or, when set in a batch, with this batch
  std::function<void(const std::string&)> say = {};  ///< prints a line beside the progress
  const std::vector<Callback>* callbacks = nullptr;  ///< of this training
  std::function<double()> loss_now =
      {};                ///< computes the loss of the last batch again, with the weights as they are, at inference
  TensorMap aside = {};  ///< the weights that are trained, by path, while the module has others in their place

  /// Everything up to now, after a batch or at the end of an epoch, as FitOptions::resume takes it. The weights are in
  /// the module, but for those in `aside`.
  History record() const;
  /// What `callbacks` would give the module if training ended now, by path: nothing for what is trained as it is.
  TensorMap chosen() const;
  /// Gives the module these weights and sets aside what is trained; show_trained() undoes it.
  void show(const TensorMap& weights);
  void show_trained();  ///< the module has what is trained again
};

/// Derive from this, or pass a lambda void(TrainingState&), which is called at the end of every epoch.
class CallbackBase {
 public:
  virtual ~CallbackBase() = default;
  virtual void train_begin(TrainingState&) {}  ///< before the first epoch
  virtual void epoch_begin(TrainingState&) {}  ///< before an epoch's first batch; not when its rest is trained later
  virtual void batch_begin(TrainingState&) {}  ///< before a step
  virtual void batch_end(TrainingState&) {}    ///< after a step
  virtual void validation_begin(TrainingState&) {}  ///< before the validation at the end of an epoch, if there is one
  virtual void epoch_end(TrainingState&) {}         ///< with the epoch's numbers in logs
  virtual void train_end(TrainingState&) {}         ///< after the last epoch

  // A callback that remembers something over epochs, and whose training is to go on after an interruption with the same
  // bits, says what, under a name. What it draws from the default generator within an epoch comes again by itself.
  virtual std::string_view name() const { return ""; }  ///< without spaces and dots; empty: it has no state
  virtual CallbackState state() const { return {}; }    ///< must not share storage with what changes later
  virtual void set_state(const CallbackState&) {}       ///< what state() gave; called after train_begin
  /// Puts in the weights, by path, that it would give the module if training ended now.
  virtual void choose(TensorMap&) const {}
};

/// A callback by value, shared, or a lambda. Throws ValueError on a null pointer and an empty function.
class Callback {
 public:
  template <std::derived_from<CallbackBase> C>
  Callback(C callback) : callback_(std::make_shared<C>(std::move(callback))) {}  ///< a callback by value
  template <std::derived_from<CallbackBase> C>
  /// A callback that others hold too.
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
/// Puts into the history what is needed to go on beside its numbers: weights that are set aside, and what callbacks
/// remember.
void add_states(History& history, const TrainingState& state);
}  // namespace detail

/// Which way a number improves; automatic: it rises when its name ends in "acc", "accuracy" or "auc", else it falls.
enum class Mode { automatic, min, max };

/// The best of a monitored number. Used by the callbacks below.
class Monitor {
 public:
  Monitor(std::string key, Mode mode, double min_delta);  ///< an improvement is larger than min_delta
  /// Forgets everything, then takes in the epochs of `history`, handing each number to `seen` (epoch, whether it was
  /// better).
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
  double min_delta = 0;              ///< an improvement must be larger than this
  int patience = 0;                  ///< epochs without improvement before training stops
  bool restore_best = false;         ///< give the parameters the values of the best epoch
  Mode mode = Mode::automatic;       ///< which way it improves
};
/// Stops when the monitored number no longer improves. At the end of an epoch: wait grows by one; an improvement sets
/// it to zero; else, when it has reached patience in any epoch but the first, training stops (Keras). Starts afresh
/// with every fit; in one that goes on from a history, with the best of that history.
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
  /// Epoch (from 0) of the best number of the last fit; -1 before any.
  int best_epoch() const { return best_epoch_; }

 private:
  EarlyStoppingOptions options_;
  Monitor monitor_;
  int wait_ = 0, best_epoch_ = -1;
  TensorMap kept_;
};

/// How often: after so many epochs, so many steps, or so much time.
struct Interval {
  /// What can be counted.
  enum Unit { epochs, steps, seconds };
  double count;                                            ///< of these
  Unit unit;                                               ///< what is counted
  Interval(int n, Unit u = epochs) : count(n), unit(u) {}  ///< `.every = 2`, `.every = {100, Interval::steps}`
  template <class Rep, class Period>
  Interval(std::chrono::duration<Rep, Period> time)
      : count(std::chrono::duration<double>(time).count()), unit(seconds) {}  ///< `.every = 5min`
  /// "2" epochs, "100steps", "200s", "5m", "1h". Throws ValueError on any other text, and on 0.
  static Interval parse(std::string_view text);
};

/// As Keras' ModelCheckpoint, and for a training that is to survive its process.
struct ModelCheckpointOptions {
  std::filesystem::path path;        ///< of the file
  bool best_only = false;            ///< only when the monitored number improves; else the last state is kept
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  Mode mode = Mode::automatic;       ///< which way it improves
  Interval every = 1;                ///< epochs, steps or time; with best_only it is not asked
  /// So many files are kept: `path` is always the newest, model.1.safetensors beside model.safetensors the one before,
  /// and so on.
  int keep = 1;
  /// Given, as save_model() takes it, the whole training is written, to go on from anywhere within an epoch; else the
  /// module as save() writes it. The module must be a Sequential then.
  std::string architecture = {};
  std::map<std::string, std::string> metadata = {};  ///< texts for the file
  /// Called in the thread that trains when a file could not be written, with the reason; training goes on. Without it
  /// fit() throws.
  std::function<void(const std::string& reason)> failed = {};
};
/// Writes the model while it trains. Training goes on meanwhile: another thread writes a copy. A file is replaced as a
/// whole or not at all, one that cannot be written costs none of the older ones, and fit() returns only when the last
/// one is written.
class ModelCheckpoint : public CallbackBase {
 public:
  /// Throws ValueError without a path, or when `every` or `keep` is below 1.
  explicit ModelCheckpoint(ModelCheckpointOptions options);
  void train_begin(TrainingState& state) override;
  void batch_end(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;
  void train_end(TrainingState& state) override;
  /// What the n-th file before `path` is called; n = 0 is `path`.
  static std::filesystem::path older(const std::filesystem::path& path, int n);

 private:
  void write(TrainingState& state);
  void wait();
  ModelCheckpointOptions options_;
  Monitor monitor_;
  std::chrono::steady_clock::time_point last_ = {};
  std::shared_future<void> writing_;
};

/// Sets the learning rate at the start of every epoch to f(epoch from 0, rate so far); records it as "lr". For a rate
/// that changes with every step see FitOptions::schedule.
class LearningRateScheduler : public CallbackBase {
 public:
  /// From epoch and rate to the new rate.
  explicit LearningRateScheduler(std::function<double(int epoch, double lr)> f);  ///< ValueError on an empty one
  void epoch_begin(TrainingState& state) override;
  void epoch_end(TrainingState& state) override;

 private:
  std::function<double(int, double)> f_;
};

/// As Keras' ReduceLROnPlateau.
struct ReduceLROnPlateauOptions {
  std::string monitor = "val_loss";  ///< a key of TrainingState::logs
  double factor = 0.1;               ///< the new rate is the old one times this
  int patience = 10;                 ///< epochs without improvement before that
  double min_delta = 1e-4;           ///< an improvement must be larger than this
  int cooldown = 0;                  ///< epochs after a reduction that are not counted
  double min_lr = 0;                 ///< never lower than this
  Mode mode = Mode::automatic;       ///< which way it improves
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

/// Writes a line an epoch to a file: the epoch from 0 and its numbers, under a line of names. A number that an epoch
/// does not have is NA; one that the names of an older file do not have is left out, which is said. Throws IoError.
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
  bool compared_ = false;  ///< keys_ with the numbers there are
  std::shared_ptr<std::ofstream> file_;
};

/// Averages the parameters over the steps: from the validation of an epoch to its end, and after training, the module
/// has the averages. Give it before callbacks that look at the module then. Starts afresh with every fit but one that
/// goes on.
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

/// Stops at once when the loss of a batch is no finite number.
class TerminateOnNaN : public CallbackBase {
 public:
  void batch_end(TrainingState& state) override;
};

}  // namespace ebb
