// Callbacks, driven by hand with made-up numbers.
// (over 400 lines because all callbacks share the trainings that are driven by hand)
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/callbacks.h>
#include <ebb/models/train/finite.h>
#include <ebb/models/train/fit.h>
#include <ebb/models/train/serialize.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace {

using namespace ebb;

using Strings = std::vector<std::string>;
using Doubles = std::vector<double>;

/// Early stopping driven by hand: epochs whose weight is their number.
struct Trace {
  int stopped = -1;  // epoch from 0; -1: never
  int best = -1;
  double weight = 0;  // after train_end
  Strings said;
};
Trace drive(EarlyStopping& stopping, const Doubles& numbers, const std::string& key = "val_loss") {
  Dense module(1);
  module.weight = variable(tensor({-1}, {1, 1}));
  module.bias = variable(tensor({0}));
  SGD optimizer;
  Trace out;
  const History history;
  TrainingState state{.module = module,
                      .optimizer = optimizer,
                      .history = history,
                      .epochs = static_cast<int>(numbers.size()),
                      .say = [&](const std::string& line) { out.said.push_back(line); }};
  stopping.train_begin(state);
  for (int epoch = 0; epoch < static_cast<int>(numbers.size()) && !state.stop; ++epoch) {
    state.epoch = epoch;
    module.weight.assign(full({1, 1}, epoch));
    state.logs = {{"loss", 0.5}, {key, numbers[static_cast<std::size_t>(epoch)]}};
    stopping.epoch_end(state);
    if (state.stop) out.stopped = epoch;
  }
  stopping.train_end(state);
  out.best = stopping.best_epoch();
  out.weight = module.weight.item();
  return out;
}
Trace drive(const EarlyStoppingOptions& options, const Doubles& numbers, const std::string& key = "val_loss") {
  EarlyStopping stopping(options);
  return drive(stopping, numbers, key);
}

/// Any callback through epochs whose val_loss is given.
struct Drive {
  Dense module{1};
  SGD optimizer{{.lr = 0.1}};
  History history;
  Strings said;
  TrainingState state{
      .module = module, .optimizer = optimizer, .history = history, .steps = 3, .say = [this](const std::string& line) {
        said.push_back(line);
      }};
  Drive() {
    module.weight = variable(tensor({-1}, {1, 1}));
    module.bias = variable(tensor({0}));
  }
  void epochs(CallbackBase& callback, const Doubles& val_loss) {
    state.epochs = history.epochs() + static_cast<int>(val_loss.size());
    callback.train_begin(state);
    for (const double v : val_loss) {
      state.epoch = history.epochs();
      callback.epoch_begin(state);
      module.weight.assign(full({1, 1}, state.epoch));
      state.logs = {{"loss", 0.5}, {"val_loss", v}};
      state.seconds = 1;
      callback.epoch_end(state);
      history = state.record();
      if (state.stop) break;
    }
    callback.train_end(state);
  }
};

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

double saved_weight(const std::filesystem::path& file) {
  Drive d;
  load(d.module, file);
  return d.module.weight.item();
}

constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("callbacks: EarlyStopping follows Keras' rule") {
  struct Row {
    double min_delta;
    int patience;
    Doubles numbers;
    int stopped, best;
  };
  const Row rows[] = {
      {0, 0, {3, 2, 2.5, 1}, 2, 1},
      {0, 1, {3, 2, 2.5, 1}, 2, 1},
      {0, 2, {3, 2, 2.5, 1}, -1, 3},
      {0, 3, {5, 4, 4.1, 4.2, 3.9, 4, 4.1, 4.2, 1}, 7, 4},
      {0, 1, {1, 1, 1}, 1, 0},  // as good is no better
      {0, 0, {1}, -1, 0},
      // epochs 13, 14 and 15 no better than 12
      {0, 3, {9, 8, 7, 6, 5, 4, 3, 2.9, 2.8, 2.7, 2.6, .4484, .45, .46, .47, 0}, 14, 11},
      {0.1, 2, {1, 0.95, 0.91, 0.89}, 2, 0},
      {0.1, 3, {1, 0.95, 0.91, 0.89, 0.85}, -1, 3},
      {0.5, 1, {1, 0.5}, 1, 0},  // better by exactly that is not enough
      {0, 2, {1, no_number, no_number, 0.5}, 2, 0},
      {0, 3, {1, no_number, no_number, 0.5}, -1, 3},
      {0, 2, {no_number, 2, 3, 3, 1}, 3, 1},  // a NaN is no best
      {0, 2, {no_number, no_number, no_number}, 1, -1},
      {0, 0, {no_number, no_number}, 1, -1},
  };
  for (const Row& row : rows) {
    CAPTURE(row.numbers.size());
    CAPTURE(row.patience);
    const Trace t = drive({.min_delta = row.min_delta, .patience = row.patience}, row.numbers);
    CHECK(t.stopped == row.stopped);
    CHECK(t.best == row.best);
    const auto last = row.stopped < 0 ? static_cast<int>(row.numbers.size()) - 1 : row.stopped;
    CHECK(t.weight == last);  // nothing restored
    CHECK(t.said.size() == (row.stopped < 0 ? 0 : 1));
  }
}

TEST_CASE("callbacks: EarlyStopping on a number that rises") {
  const Trace t =
      drive({.monitor = "val_accuracy", .patience = 2}, {0.5, 0.6, 0.55, 0.7, 0.7, 0.6, 0.9}, "val_accuracy");
  CHECK(t.stopped == 5);
  CHECK(t.best == 3);
  CHECK(drive({.monitor = "acc", .min_delta = 0.1, .patience = 2}, {0.5, 0.55, 0.61, 0.62}, "acc").best == 2);
  CHECK(drive({.monitor = "val_accuracy", .patience = 2}, {0, 0.1, 0.2}, "val_accuracy").best == 2);
  CHECK(drive({.monitor = "val_accuracy", .patience = 1}, {no_number, 0.1, 0.2}, "val_accuracy").stopped == -1);
}

TEST_CASE("callbacks: EarlyStopping restores the best weights") {
  const Trace t = drive({.patience = 3, .restore_best = true}, {5, 4, 4.1, 4.2, 4.3});
  CHECK(t.stopped == 4);
  CHECK(t.weight == 1);
  CHECK(t.said == Strings{"Epoch 5: early stopping", "Restoring model weights from the end of the best epoch: 2."});

  // Also when the epochs run out; not when the last epoch is the best.
  CHECK(drive({.patience = 9, .restore_best = true}, {5, 4, 4.1}).weight == 1);
  const Trace last = drive({.patience = 9, .restore_best = true}, {5, 4, 3});
  CHECK(last.weight == 2);
  CHECK(last.said.empty());
  CHECK(drive({.patience = 1, .restore_best = true}, {no_number, no_number}).weight == 1);  // there is no best
}

TEST_CASE("callbacks: EarlyStopping starts afresh with every fit") {
  EarlyStopping stopping({.patience = 2, .restore_best = true});
  CHECK(stopping.best_epoch() == -1);
  CHECK(drive(stopping, {2, 1, 3, 3}).stopped == 3);
  // Nothing of the first fit may count: neither its best (1) nor its waiting.
  const Trace second = drive(stopping, {9, 8, 8.5, 7, 7.5, 7.6});
  CHECK(second.stopped == 5);
  CHECK(second.best == 3);
  CHECK(second.weight == 3);

  EarlyStopping patient({.patience = 3});
  CHECK(drive(patient, {1, 2, 2, 2}).stopped == 3);
  CHECK(drive(patient, {no_number, no_number, 1}).stopped == -1);  // three were waited for before, none now
}

TEST_CASE("callbacks: EarlyStopping warns when its number is missing") {
  const Trace t = drive({.monitor = "val_loss", .patience = 0}, {3, 2}, "accuracy");
  CHECK(t.stopped == -1);
  CHECK(t.said == Strings{"warning: early stopping: nothing measures \"val_loss\"; measured are accuracy, loss"});
  EarlyStopping twice({.monitor = "val_loss"});
  CHECK(drive(twice, {3, 2}, "accuracy").said.size() == 1);
  CHECK(drive(twice, {3, 2}, "accuracy").said.size() == 1);  // said again in another fit
}

TEST_CASE("callbacks: the mode says which way a number improves") {
  const Doubles up{1, 2, 3}, down{3, 2, 1};
  CHECK(drive({.monitor = "val_loss", .patience = 9, .mode = Mode::max}, up).best == 2);
  CHECK(drive({.monitor = "val_loss", .patience = 9, .mode = Mode::min}, up).best == 0);
  for (const std::string rising : {"acc", "val_acc", "accuracy", "val_accuracy", "auc", "val_auc"}) {
    CHECK(drive({.monitor = rising, .patience = 9}, up, rising).best == 2);
    CHECK(drive({.monitor = rising, .patience = 9, .mode = Mode::min}, down, rising).best == 2);
  }
  for (const std::string falling : {"val_loss", "mse", "accuracy_loss"})
    CHECK(drive({.monitor = falling, .patience = 9}, down, falling).best == 2);
}

TEST_CASE("callbacks: EarlyStopping that goes on from a history knows its best and how long it has waited") {
  const Doubles all{5, 4, 4.5, 4.2, 4.1, 3};
  for (std::size_t first = 0; first < 5; ++first) {
    CAPTURE(first);
    Drive d;
    EarlyStopping stopping({.patience = 3});
    d.epochs(stopping, Doubles(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(first)));
    EarlyStopping another({.patience = 3});
    d.epochs(another, Doubles(all.begin() + static_cast<std::ptrdiff_t>(first), all.end()));
    CHECK(d.history.epochs() == 5);  // waited for the third time in the fifth epoch
    CHECK(another.best_epoch() == 1);
  }

  // The weights of a best epoch before that are not to be had, and it says so.
  Drive d;
  EarlyStopping first({.patience = 9, .restore_best = true}), second({.patience = 9, .restore_best = true});
  d.epochs(first, {5, 4, 3});
  CHECK(d.said.empty());
  d.epochs(second, {4, 4});
  CHECK(d.said == Strings{"warning: the best epoch, 3, was before this training began: its weights are not known"});
}

TEST_CASE("callbacks: ModelCheckpoint keeps the best or the last") {
  const TempDir dir;
  Drive best, last, third, own;
  ModelCheckpoint of_best({.path = dir / "best", .best_only = true}), of_last({.path = dir / "last"}),
      of_third({.path = dir / "third", .every = 3});
  best.epochs(of_best, {3, 1, 2, 1});
  CHECK(saved_weight(dir / "best") == 1);  // as good is no better
  last.epochs(of_last, {3, 1, 2, 5});
  CHECK(saved_weight(dir / "last") == 3);
  third.epochs(of_third, {3, 1, 2, 5});
  CHECK(saved_weight(dir / "third") == 2);
  best.epochs(of_best, {1.5, 1.5});  // worse than what the history has
  CHECK(saved_weight(dir / "best") == 1);

  Drive missing;
  ModelCheckpoint accuracy({.path = dir / "none", .best_only = true, .monitor = "val_accuracy"});
  missing.epochs(accuracy, {1, 2});
  CHECK_FALSE(std::filesystem::exists(dir / "none"));
  CHECK(missing.said ==
        Strings{"warning: model checkpoint: nothing measures \"val_accuracy\"; measured are loss, val_loss"});
  CHECK_THROWS_WITH_AS(ModelCheckpoint({}), "model checkpoint: needs the path of a file", ValueError);
  CHECK_THROWS_WITH_AS(ModelCheckpoint({.path = "x", .every = 0}), "model checkpoint: every must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(ModelCheckpoint({.path = "x", .keep = 0}), "model checkpoint: keep must be at least 1, got 0",
                       ValueError);
}

TEST_CASE("callbacks: ModelCheckpoint by steps and by time, of the whole training, and the files before") {
  const TempDir dir;
  manual_seed(70);
  const Dataset data{randn({40, 4}), Tensor::from(std::vector<std::int64_t>(40, 1), {40})};
  const auto train = [&](ModelCheckpointOptions o, std::vector<Callback> callbacks = {}) {
    manual_seed(71);
    Sequential net({4}, {Dense(3)});
    o.architecture = "dense 3";
    o.metadata = {{"note", "mine"}};
    callbacks.emplace_back(ModelCheckpoint(o));
    Adam adam({.lr = 0.1});
    fit(net, adam, data,
        {.epochs = 3,
         .batch = 10,
         .validation = data,
         .callbacks = callbacks,
         .verbose = Verbose::silent});  // four steps an epoch
    return predict(net, data.inputs);
  };
  const auto steps = [](const std::filesystem::path& file) { return load_model(file).optimizer->steps(); };
  const auto names = [&] {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
      out.push_back(entry.path().filename().string());
    std::ranges::sort(out);
    return out;
  };
  const Tensor want = train({.path = dir / "a.st", .every = {5, Interval::steps}, .keep = 2});
  CHECK(steps(dir / "a.st") == 10);
  CHECK(steps(dir / "a.1.st") == 5);
  CHECK(names() == Strings{"a.1.st", "a.st"});
  train({.path = dir / "a.st", .every = {5, Interval::steps}, .keep = 2});  // again: those of before move out
  CHECK(names() == Strings{"a.1.st", "a.st"});
  CHECK(load_model(dir / "a.st").metadata.at("note") == "mine");
  for (const char* file : {"a.st", "a.1.st"}) {  // from the middle of an epoch to the same bits
    SavedModel saved = load_model(dir / file);
    fit(saved.net, *saved.optimizer, data,
        {.epochs = 3, .batch = 10, .validation = data, .resume = saved.history, .verbose = Verbose::silent});
    CHECK(same_bits(predict(saved.net, data.inputs), want));
  }

  train({.path = dir / "b.st", .every = 1, .keep = 9});
  CHECK(steps(dir / "b.st") == 12);
  CHECK(steps(dir / "b.2.st") == 4);
  CHECK_FALSE(std::filesystem::exists(dir / "b.3.st"));
  train({.path = dir / "c.st", .every = std::chrono::nanoseconds(1)});
  CHECK(steps(dir / "c.st") > 0);
  train({.path = dir / "d.st", .every = std::chrono::hours(1)});
  CHECK_FALSE(std::filesystem::exists(dir / "d.st"));

  // What a file holds beside the training is the model that its end would give.
  train({.path = dir / "e.st", .every = {7, Interval::steps}}, {AverageWeights(0.9)});
  const SavedModel averaged = load_model(dir / "e.st");
  CHECK(same_bits(averaged.net.layers().size()
                      ? averaged.history->callbacks.at("average_weights").tensors.at("layers.0.bias")
                      : Tensor(),
                  named_tensors(const_cast<Sequential&>(averaged.net))[1].tensor->detach()));
  CHECK(averaged.history->weights.size() == 2);

  Dense other(2);
  CHECK_THROWS_WITH_AS(
      fit(other, Adam(), data,
          {.callbacks = {ModelCheckpoint({.path = dir / "f", .architecture = "dense 2"})}, .verbose = Verbose::silent}),
      "model checkpoint: an architecture belongs to a Sequential", ValueError);
}

TEST_CASE("callbacks: a checkpoint that cannot be written is an error, or told where training is to go on") {
  const TempDir dir;
  int runs = 0;
  const Dataset data{ones({8, 4}), Tensor::from(std::vector<std::int64_t>(8, 1), {8})};
  const auto train = [&](std::function<void(const std::string&)> failed, int epochs) {
    Sequential net({4}, {Dense(3)});
    std::filesystem::create_directory(dir / "sub");
    const auto lose_folder = [&](TrainingState& s) {
      if (s.epoch == 1) std::filesystem::rename(dir / "sub", dir / ("was" + std::to_string(++runs)));
    };
    return fit(net, SGD(), data,
               {.epochs = epochs,
                .callbacks = {lose_folder, ModelCheckpoint({.path = dir / "sub" / "m", .failed = std::move(failed)})},
                .verbose = Verbose::silent});
  };
  CHECK_THROWS_AS(train({}, 2), IoError);  // the last one too
  CHECK_THROWS_AS(train({}, 5), IoError);
  Strings said;
  CHECK(train([&](const std::string& why) { said.push_back(why); }, 5).epochs() == 5);
  CHECK(said.size() >= 4);  // the first file may have been on its way when its folder went
  CHECK(said.back().starts_with((dir / "sub" / "m").string() + ": cannot write: "));
}

TEST_CASE("callbacks: a checkpoint that fails costs none of the older ones") {
  const TempDir dir;
  const Dataset data{ones({8, 4}), Tensor::from(std::vector<std::int64_t>(8, 1), {8})};
  Sequential net({4}, {Dense(3)});
  Strings said;
  const auto train = [&](const char* file) {
    const ModelCheckpointOptions o{
        .path = dir / file, .keep = 3, .failed = [&](const std::string& why) { said.push_back(why); }};
    fit(net, SGD({.lr = 0.1}), data, {.epochs = 3, .callbacks = {ModelCheckpoint(o)}, .verbose = Verbose::silent});
  };
  const auto older = [&] {
    std::vector<Tensor> out;
    for (const char* file : {"m.1.st", "m.2.st"})
      out.push_back(read_safetensors(dir / file).tensors.at("layers.0.weight"));
    return out;
  };
  train("m.st");
  const std::vector<Tensor> before = older();
  CHECK_FALSE(same_bits(before[0], before[1]));
  rlimit limit{}, small{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  small = {40, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  train("m.st");
  ::setrlimit(RLIMIT_FSIZE, &limit);
  CHECK(said.size() == 3);
  std::filesystem::remove(dir / "m.st");
  check_writable(dir / "m.st", false);
  std::ofstream(dir / "m.st") << "a file that comes up during the work";
  train("m.st");
  CHECK(said.size() == 6);
  const std::vector<Tensor> now = older();
  CHECK(same_bits(before[0], now[0]));
  CHECK(same_bits(before[1], now[1]));
}

TEST_CASE("callbacks: an empty function or a null pointer is refused where it is given") {
  CHECK_THROWS_WITH_AS(Callback(std::function<void(TrainingState&)>()), "Callback: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Callback(static_cast<void (*)(TrainingState&)>(nullptr)), "Callback: the function is empty",
                       ValueError);
  CHECK_THROWS_WITH_AS(Callback(nullptr), "Callback: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Callback(std::shared_ptr<EarlyStopping>()), "Callback: the pointer is null", ValueError);
  CHECK_THROWS_WITH_AS(Callback(std::shared_ptr<CallbackBase>()), "Callback: the pointer is null", ValueError);
  CHECK_THROWS_WITH_AS(LearningRateScheduler(nullptr), "learning rate scheduler: the function is empty", ValueError);

  Callback taken = TerminateOnNaN();
  const Callback other = std::move(taken);
  Sequential net({4}, {Dense(3)});
  const Dataset data{ones({8, 4}), Tensor::from(std::vector<std::int64_t>(8, 1), {8})};
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, {.callbacks = {taken}, .verbose = Verbose::silent}),
                       "fit: a callback was moved from", ValueError);
}

TEST_CASE("callbacks: after an exception the module has the weights that were trained, not their averages") {
  const Dataset data{ones({8, 2}), Tensor::from(std::vector<std::int64_t>(8, 1), {8})};
  Sequential net({2}, {Dense(2)});
  Tensor trained;
  FitOptions o{.epochs = 2, .batch = 4, .verbose = Verbose::silent};
  o.validation = data;
  o.loss = [&](const Tensor& y, const Tensor& labels) {
    if (!y.tracked() && trained.defined()) throw std::runtime_error("while averages are validated");
    return cross_entropy(y, labels);
  };
  struct Look : CallbackBase {
    explicit Look(Tensor& t) : seen(t) {}
    void batch_end(TrainingState& s) override { seen = named_tensors(s.module)[0].tensor->clone(); }
    Tensor& seen;
  };
  o.callbacks = {AverageWeights(0.9), Look(trained)};
  CHECK_THROWS_WITH_AS(fit(net, SGD({.lr = 0.5}), data, o), "while averages are validated", std::runtime_error);
  CHECK(same_bits(named_tensors(net)[0].tensor->detach(), trained));
}

TEST_CASE("callbacks: intervals as texts") {
  const auto is = [](const char* text, double count, Interval::Unit unit) {
    const Interval i = Interval::parse(text);
    return i.count == count && i.unit == unit;
  };
  CHECK(is("3", 3, Interval::epochs));
  CHECK(is("1step", 1, Interval::steps));
  CHECK(is("100steps", 100, Interval::steps));
  CHECK(is("200s", 200, Interval::seconds));
  CHECK(is("5m", 300, Interval::seconds));
  CHECK(is("2h", 7200, Interval::seconds));
  for (const char* bad : {"", "0", "-1", "5 m", "5min", "m", "1.5h", "0s", "99999999999", "5mm", "steps"})
    CHECK_THROWS_WITH_AS(
        Interval::parse(bad),
        (std::string(
             "interval: must be a number of epochs from 1, or one with its unit: 100steps, 200s, 5m, 1h; got \"") +
         bad + "\"")
            .c_str(),
        ValueError);
}

TEST_CASE("callbacks: EarlyStopping knows that a training was over, and has the best weights of another process") {
  const auto options = [](int epochs) {
    FitOptions o{.epochs = epochs, .batch = 4, .verbose = Verbose::silent};
    o.validation = Dataset{ones({4, 2}), Tensor::from(std::vector<std::int64_t>(4, 0), {4})};
    o.callbacks = {EarlyStopping({.patience = 1, .restore_best = true})};
    return o;
  };
  const Dataset data{ones({8, 2}),
                     Tensor::from(std::vector<std::int64_t>(8, 1), {8})};  // what it learns is wrong there
  Sequential net({2}, {Dense(2)});
  SGD sgd({.lr = 0.5});
  const History h = fit(net, sgd, data, options(9));
  CHECK(h.epochs() == 2);
  const Tensor best = predict(net, data.inputs);
  FitOptions o = options(9);
  o.resume = h;
  const History again = fit(net, sgd, data, o);
  CHECK(again.epochs() == 2);
  CHECK(same_bits(predict(net, data.inputs), best));
  for (const auto& [path, t] : h.weights) CHECK(same_bits(again.weights.at(path), t));
}

TEST_CASE("callbacks: LearningRateScheduler sets and records the rate") {
  Drive d;
  Doubles asked;
  LearningRateScheduler halve([&](int epoch, double lr) {
    asked.push_back(epoch);
    return lr / 2;
  });
  d.epochs(halve, {1, 1, 1});
  CHECK(asked == Doubles{0, 1, 2});
  CHECK(d.history["lr"] == Doubles{0.05, 0.025, 0.0125});
  CHECK(d.optimizer.lr() == 0.0125);
}

// The expected rates were written down by following Keras' rule by hand.
TEST_CASE("callbacks: ReduceLROnPlateau follows Keras' rule") {
  const auto rates = [](const ReduceLROnPlateauOptions& o, const Doubles& numbers) {
    Drive d;
    ReduceLROnPlateau reduce(o);
    d.epochs(reduce, numbers);
    Doubles out = d.history["lr"];  // during each epoch
    out.push_back(d.optimizer.lr());
    return out;
  };
  const auto close = [](const Doubles& a, const Doubles& b) {
    bool all = a.size() == b.size();
    for (std::size_t i = 0; all && i < a.size(); ++i) all = std::abs(a[i] - b[i]) <= 1e-15;
    return all;
  };
  // two epochs no better: reduced after each second one
  CHECK(close(rates({.factor = 0.5, .patience = 2}, {3, 3, 3, 3, 3, 3}), {.1, .1, .1, .05, .05, .025, .025}));
  CHECK(close(rates({.factor = 0.5, .patience = 2}, {3, 3, 2, 2, 2}), {.1, .1, .1, .1, .1, .05}));
  // better by less than min_delta is no better
  CHECK(close(rates({.factor = 0.5, .patience = 1, .min_delta = 0.1}, {3, 2.95, 2.85}), {.1, .1, .05, .05}));
  // two epochs of rest after a reduction are not counted
  CHECK(close(rates({.factor = 0.5, .patience = 1, .cooldown = 2}, {3, 3, 3, 3, 3, 3, 3}),
              {.1, .1, .05, .05, .025, .025, .0125, .0125}));
  CHECK(close(rates({.factor = 0.1, .patience = 1, .min_lr = 0.004}, {3, 3, 3, 3}), {.1, .1, .01, .004, .004}));
  CHECK(close(rates({.factor = 0.5, .patience = 1}, {no_number, no_number}), {.1, .05, .025}));

  Drive d;
  ReduceLROnPlateau reduce({.factor = 0.5, .patience = 1});
  d.epochs(reduce, {1, 2});
  CHECK(d.said == Strings{"Epoch 2: ReduceLROnPlateau reducing learning rate to 0.05."});

  // Going on from a history it has waited as long.
  Drive two;
  ReduceLROnPlateau first({.factor = 0.5, .patience = 3}), second({.factor = 0.5, .patience = 3});
  two.epochs(first, {1, 2, 2});
  CHECK(two.optimizer.lr() == 0.1);
  two.epochs(second, {2});
  CHECK(two.optimizer.lr() == 0.05);

  CHECK_THROWS_WITH_AS(ReduceLROnPlateau({.factor = 1}), "reduce lr on plateau: factor must be in (0, 1), got 1",
                       ValueError);
  CHECK_THROWS_WITH_AS(ReduceLROnPlateau({.patience = -1}),
                       "reduce lr on plateau: patience must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(EarlyStopping({.patience = -1}), "early stopping: patience must not be negative, got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(EarlyStopping({.min_delta = -0.5}), "early stopping: min_delta must not be negative, got -0.5",
                       ValueError);
}

TEST_CASE("callbacks: CSVLogger writes a line an epoch") {
  const TempDir dir;
  const auto file = dir / "log.csv";
  Drive d;
  CSVLogger logger(file);
  d.epochs(logger, {0.1, 2.5, 8.0959e-4});
  CHECK(contents(file) == "epoch,loss,val_loss\n0,0.5,0.1\n1,0.5,2.5\n2,0.5,0.00080959\n");
  CSVLogger more(file, true);
  d.epochs(more, {no_number});
  CHECK(contents(file) == "epoch,loss,val_loss\n0,0.5,0.1\n1,0.5,2.5\n2,0.5,0.00080959\n3,0.5,nan\n");

  // A key that is gone is NA, a new one has no column.
  d.state.logs = {{"loss", 1}, {"lr", 2}};
  more.train_begin(d.state);
  more.epoch_end(d.state);
  more.train_end(d.state);
  CHECK(contents(file).ends_with("3,0.5,nan\n3,1,NA\n"));

  CSVLogger semicolons(file, false, ';');
  d.history = {};
  d.epochs(semicolons, {0.25});
  CHECK(contents(file) == "epoch;loss;val_loss\n0;0.5;0.25\n");
  CSVLogger fresh(dir / "new.csv", true);  // appending to nothing
  d.history = {};
  d.epochs(fresh, {0.25});
  CHECK(contents(dir / "new.csv") == "epoch,loss,val_loss\n0,0.5,0.25\n");
  CSVLogger lost(dir / "none" / "log.csv");
  CHECK_THROWS_WITH_AS(lost.train_begin(d.state),
                       ((dir / "none" / "log.csv").string() + ": cannot write: No such file or directory").c_str(),
                       IoError);
}

TEST_CASE("callbacks: ModelCheckpoint never replaces a good file by what a bad epoch left") {
  const TempDir dir;
  for (const double bad : {no_number, std::numeric_limits<double>::infinity()}) {
    const auto file = dir / "good";
    Drive d;
    ModelCheckpoint last({.path = file});
    d.epochs(last, {3, 2});
    CHECK(saved_weight(file) == 1);
    const auto epoch = [&](double loss, double weight, double bias) {
      d.state.epoch = d.history.epochs();
      d.module.weight.assign(full({1, 1}, weight));
      d.module.bias.assign(full({1}, bias));
      d.state.logs = {{"loss", loss}, {"val_loss", 1}};
      last.epoch_end(d.state);
      d.history = d.state.record();
    };
    epoch(0.5, bad, 0);  // weights
    epoch(0.5, 7, bad);
    epoch(bad, 8, 0);  // a loss
    last.train_end(d.state);
    CHECK(saved_weight(file) == 1);
    const std::string warning = "warning: epoch 3 is not written to " + file.string() + ": ";
    REQUIRE(d.said.size() == 3);
    CHECK(d.said[0] == warning + (std::isnan(bad) ? "weight holds nan" : "weight holds inf"));
    epoch(0.5, 9, 0);  // it recovered
    last.train_end(d.state);
    CHECK(saved_weight(file) == 9);
    std::filesystem::remove(file);
  }
}

TEST_CASE("callbacks: ModelCheckpoint looks at what the weights give where no validation does") {
  const TempDir dir;
  Sequential net({2}, {Dense(4), Dense(4), Dense(2)});
  const Dataset data{ones({8, 2}), Tensor::from(std::vector<std::int64_t>(8, 1), {8})};
  const auto file = dir / "good";
  for (const Interval every : {Interval(1), Interval(1, Interval::steps)}) {
    FitOptions o{.epochs = 1, .batch = 8, .verbose = Verbose::silent};
    o.callbacks = {ModelCheckpoint({.path = file, .every = every})};
    fit(net, SGD({.lr = 0.1}), data, o);
    const std::string good = contents(file);
    // One step from a finite loss to finite weights whose products are none
    fit(net, SGD({.lr = 1e30}), data, o);
    CHECK(not_finite(net) == "");
    CHECK(contents(file) == good);
    net = Sequential({2}, {Dense(4), Dense(4), Dense(2)});
    std::filesystem::remove(file);
  }
}

TEST_CASE("callbacks: ModelCheckpoint into a missing folder is told before training") {
  const TempDir dir;
  Drive d;
  ModelCheckpoint lost({.path = dir / "none" / "model"});
  CHECK_THROWS_WITH_AS(lost.train_begin(d.state),
                       ((dir / "none" / "model").string() + ": cannot write: No such directory").c_str(), IoError);
  CHECK_THROWS_AS(ModelCheckpoint({.path = dir.path()}).train_begin(d.state), IoError);
}

TEST_CASE("callbacks: CSVLogger goes on with a log as it finds it") {
  const TempDir dir;
  const auto file = dir / "log.csv";
  const auto append = [&](const std::string& before, int epochs) {
    std::ofstream(file, std::ios::binary) << before;
    Drive d;
    for (int i = 0; i < epochs; ++i) d.history.seconds.push_back(1);
    CSVLogger logger(file, true);
    d.epochs(logger, {0.25});
    return contents(file) + (d.said.empty() ? "" : d.said[0]);
  };
  const std::string names = "epoch,loss,val_loss\n",
                    cut = "warning: " + file.string() + ": removed its last line, which was cut";
  CHECK(append(names + "0,0.5,0.1\n1,0.5,0.", 1) == names + "0,0.5,0.1\n1,0.5,0.25\n" + cut);
  CHECK(append(names + "0,0.5,0.1", 0) == names + "0,0.5,0.25\n" + cut);
  CHECK(append("epoch,lo", 0) == names + "0,0.5,0.25\n" + cut);  // names that were cut name nothing
  CHECK(append("epoch,loss,val_loss\r\n0,0.5,0.1\r\n", 1) == names + "0,0.5,0.1\n1,0.5,0.25\n");
  CHECK(append("\"epoch\",\"val_loss\",\"loss\"\n0,0.1,0.5\n", 1) ==
        "\"epoch\",\"val_loss\",\"loss\"\n0,0.1,0.5\n1,0.25,0.5\n");
  // A killed training logged epochs after its last checkpoint: they come again. Another training's before it stay.
  CHECK(append(names + "0,9,9\n1,9,9\n2,9,9\n0,0.5,0.1\n1,0.5,0.2\n2,0.5,0.3\n", 1) ==
        names + "0,9,9\n1,9,9\n2,9,9\n0,0.5,0.1\n1,0.5,0.25\n");
  CHECK(append(names + "0,9,9\n1,9,9\n", 0) == names + "0,9,9\n1,9,9\n0,0.5,0.25\n");

  // Columns that are not those of this training
  CHECK(append("epoch,val_loss\n0,0.1\n", 1) ==
        "epoch,val_loss\n0,0.1\n1,0.25\nwarning: " + file.string() + ": no column for loss: not logged");
  CHECK(append("epoch,loss,lr,val_loss\n0,0.1,1,2\n", 1) ==
        "epoch,loss,lr,val_loss\n0,0.1,1,2\n1,0.5,NA,0.25\nwarning: " + file.string() +
            ": nothing measures lr: logged as NA");

  std::ofstream(file) << "epoch;loss\n0;1\n";
  Drive d;
  CHECK_THROWS_WITH_AS(CSVLogger(file, true).train_begin(d.state),
                       (file.string() + ": line 1: expected \"epoch\" and the names of numbers").c_str(), DataError);
  CHECK(contents(file) == "epoch;loss\n0;1\n");
}

TEST_CASE("callbacks: TerminateOnNaN stops at the batch") {
  Drive d;
  TerminateOnNaN guard;
  d.state.step = 7;
  d.state.loss = 0.5;
  guard.batch_end(d.state);
  CHECK_FALSE(d.state.stop);
  for (const double bad : {no_number, std::numeric_limits<double>::infinity()}) {
    d.state.stop = false;
    d.state.loss = bad;
    guard.batch_end(d.state);
    CHECK(d.state.stop);
  }
  CHECK(d.said == Strings(2, "Batch 7: Invalid loss, terminating training"));
}
