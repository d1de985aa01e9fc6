// All of fit.h in one file: training, evaluation and memory share their data and helpers.
// (over 400 lines because fit, evaluation and memory share their toy models)
#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/storage.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/fit.h>
#include <ebb/ops/ops.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "restore.h"

namespace {

using namespace ebb;

using Strings = std::vector<std::string>;
using Doubles = std::vector<double>;

/// Two clouds of points around (1, 1) and (-1, -1), three deviations of a cloud apart.
Dataset clouds(std::int64_t n, std::uint64_t seed = 1) {
  Generator random(seed);
  Tensor x = normal({n, 2}, 0, 0.45, f32, random), y = Tensor::empty({n}, u8);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto j = static_cast<std::size_t>(i);
    const float at = i % 2 ? 1.0f : -1.0f;
    x.mutable_values<float>()[2 * j] += at;
    x.mutable_values<float>()[2 * j + 1] += at;
    y.mutable_values<std::uint8_t>()[j] = static_cast<std::uint8_t>(i % 2);
  }
  return {x, y};
}

Sequential small_net(std::uint64_t seed = 3) {
  manual_seed(seed);
  return Sequential({2}, {Dense(8, tanh), Dropout(0.2), Dense(2)});
}

std::vector<Tensor> values_of(Module& m) {
  std::vector<Tensor> out;
  for (const NamedTensor& t : named_tensors(m)) out.push_back(t.tensor->clone());
  return out;
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  bool all = a.size() == b.size() && !a.empty();
  for (std::size_t i = 0; all && i < a.size(); ++i) all = same_bits(a[i], b[i]);
  return all;
}

/// Options of a silent fit.
FitOptions quiet(int epochs, std::int64_t batch = 16) {
  FitOptions o;
  o.epochs = epochs;
  o.batch = batch;
  o.verbose = Verbose::silent;
  return o;
}

/// What is written to stderr while one lives.
class Stderr {
 public:
  Stderr() {
    std::fflush(stderr);
    before_ = ::dup(2);
    ::dup2(::fileno(file_), 2);
  }
  Stderr(const Stderr&) = delete;
  Stderr& operator=(const Stderr&) = delete;
  ~Stderr() {
    restore();
    std::fclose(file_);
  }
  std::string text() {
    restore();
    std::rewind(file_);
    std::string out;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) out += static_cast<char>(c);
    return out;
  }

 private:
  void restore() {
    if (before_ < 0) return;
    std::fflush(stderr);
    ::dup2(before_, 2);
    ::close(before_);
    before_ = -1;
  }
  std::FILE* file_ = std::tmpfile();
  int before_;
};

struct Recorder : CallbackBase {
  Recorder(std::string name, Strings& log) : name_(std::move(name)), log_(log) {}
  void train_begin(TrainingState&) override { log_.push_back(name_ + " begin"); }
  void epoch_end(TrainingState& s) override { log_.push_back(name_ + " " + std::to_string(s.epoch)); }
  void train_end(TrainingState&) override { log_.push_back(name_ + " end"); }
  std::string name_;
  Strings& log_;
};

/// Resident memory of this process in KiB.
double resident() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6));
  return 0;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool address_sanitizer = true;  // freed memory is kept for a while, and not reused
#else
constexpr bool address_sanitizer = false;
#endif

}  // namespace

TEST_CASE("fit: learns two clouds") {
  Sequential net = small_net();
  const Dataset train = clouds(400), test = clouds(200, 2);
  FitOptions o = quiet(10);
  o.validation = test;
  const History h = fit(net, Adam({.lr = 0.01}), train, o);
  CHECK(h["accuracy"].back() > 0.95);
  CHECK(h["val_accuracy"].back() > 0.95);
  CHECK(h["loss"].back() < 0.5 * h["loss"].front());
  CHECK(evaluate(net, test).accuracy > 0.95);
}

TEST_CASE("fit: keys and lengths of the history") {
  Sequential net = small_net();
  const Dataset data = clouds(40);
  FitOptions o = quiet(3);
  History h = fit(net, SGD(), data, o);
  CHECK(h.epochs() == 3);
  CHECK(h.values.size() == 2);
  CHECK(h["loss"].size() == 3);
  CHECK(h["accuracy"].size() == 3);
  CHECK_FALSE(h.interrupted);
  for (const double s : h.seconds) CHECK(s > 0);
  CHECK_THROWS_WITH_AS(h["acc"], "history: nothing recorded as \"acc\"; recorded are accuracy, loss", ValueError);

  o.validation = data;
  h = fit(net, SGD(), data, o);
  CHECK(h["val_loss"].size() == 3);
  CHECK_THROWS_WITH_AS(
      h["lr"], "history: nothing recorded as \"lr\"; recorded are accuracy, loss, val_accuracy, val_loss", ValueError);

  h = fit(net, SGD(), data, quiet(0));
  CHECK(h.epochs() == 0);
  CHECK_THROWS_WITH_AS(h["loss"], "history: nothing recorded as \"loss\"; recorded are no numbers", ValueError);

  // What a callback adds to the logs is recorded too.
  o = quiet(2);
  o.callbacks = {[](TrainingState& s) { s.logs["lr"] = s.optimizer.lr() / (s.epoch + 1); }};
  CHECK(fit(net, SGD({.lr = 0.5}), data, o)["lr"] == Doubles{0.5, 0.25});
}

TEST_CASE("fit: the same seed gives the same bits, for any number of threads") {
  const Dataset data = clouds(200);
  const auto run = [&](int threads, std::uint64_t seed) {
    const testing::Threads use(threads);
    manual_seed(9);
    Sequential net({2}, {Dense(300, relu), Dropout(0.5), Dense(70, tanh), Dense(2)});
    manual_seed(static_cast<std::uint64_t>(threads));  // the default generator has no part in a fit
    FitOptions o = quiet(2, 64);
    o.seed = seed;
    o.validation_split = 0.2;
    const History h = fit(net, Adam(), data, o);
    return std::pair{values_of(net), h.values};
  };
  const auto first = run(1, 5);
  for (const int threads : {1, 2, 3}) {
    const auto again = run(threads, 5);
    CHECK(same(again.first, first.first));
    CHECK(again.second == first.second);
  }
  CHECK_FALSE(same(run(1, 6).first, first.first));
}

TEST_CASE("fit: order of samples and dropout follow the seed, shuffle can be off") {
  const Dataset data = clouds(64);
  const auto order = [&](bool shuffle, std::uint64_t seed) {
    Doubles seen;
    Dense net(2);
    FitOptions o = quiet(2, 10);
    o.shuffle = shuffle;
    o.seed = seed;
    o.loss = [&](const Tensor& y, const Tensor& labels) {
      const auto v = labels.to_vector();
      seen.insert(seen.end(), v.begin(), v.end());
      return cross_entropy(y, labels);
    };
    fit(net, SGD(), data, o);
    return seen;
  };
  Doubles plain = data.labels.to_vector();
  plain.insert(plain.end(), plain.begin(), plain.end());
  CHECK(order(false, 1) == plain);
  const Doubles shuffled = order(true, 1);
  CHECK(shuffled.size() == 128);
  CHECK(shuffled == order(true, 1));
  CHECK(shuffled != order(true, 2));
  CHECK(Doubles(shuffled.begin(), shuffled.begin() + 64) != Doubles(shuffled.begin() + 64, shuffled.end()));

  // The caller's generator is as it was.
  manual_seed(77);
  const double next = rand({}).item();
  manual_seed(77);
  Sequential net = small_net();
  manual_seed(77);
  fit(net, SGD(), data, quiet(1));
  CHECK(rand({}).item() == next);
}

TEST_CASE("fit: one epoch is what the loop by hand does") {
  const Dataset data = clouds(50);
  Sequential a = small_net(), b = small_net();
  REQUIRE(same(values_of(a), values_of(b)));
  freeze(*a.layers()[1]);  // no parameters: nothing happens
  FitOptions o = quiet(1, 20);
  o.seed = 4;
  o.shuffle = true;
  const Training off(false);  // without dropout both see the same numbers
  const History h = fit(a, SGD({.lr = 0.1}), data, o);
  SGD sgd({.lr = 0.1});
  double loss = 0, correct = 0;
  const std::uint64_t stream = std::uint64_t{2} << 32;  // of the first epoch
  for (auto [x, y] : Batches(data, {.size = 20, .seed = 4, .stream = stream})) {
    const Tensor out = b(x), l = cross_entropy(out, y);
    sgd.step(b, backward(l));
    loss += l.item() * static_cast<double>(x.size(0));
    const auto v = out.to_vector(), label = y.to_vector();
    for (std::size_t i = 0; i < label.size(); ++i) correct += (v[2 * i + 1] > v[2 * i]) == (label[i] == 1);
  }
  CHECK(same(values_of(a), values_of(b)));
  CHECK(h["loss"].at(0) == doctest::Approx(loss / 50).epsilon(1e-14));
  CHECK(h["accuracy"].at(0) == correct / 50);
}

TEST_CASE("fit: validation_split holds out the last part") {
  const Dataset data = clouds(100);
  Sequential a = small_net(), b = small_net();
  FitOptions o = quiet(2);
  o.validation_split = 0.25;
  const History by_split = fit(a, Adam(), data, o);
  o.validation_split = 0;
  o.validation = data.slice(75, 100);
  const History by_hand = fit(b, Adam(), data.slice(0, 75), o);
  CHECK(same(values_of(a), values_of(b)));
  CHECK(by_split.values == by_hand.values);
  CHECK(by_split["val_loss"].back() == evaluate(a, data.slice(75, 100)).loss);
}

TEST_CASE("fit: again goes on where the last one ended") {
  const Dataset data = clouds(100);
  Sequential a = small_net(), b = small_net();
  Adam adam;
  fit(a, adam, data, quiet(1));
  const auto first = values_of(a);
  CHECK(adam.steps() == 7);
  fit(a, adam, data, quiet(1));
  CHECK(adam.steps() == 14);
  CHECK_FALSE(same(values_of(a), first));
  fit(b, Adam(), data, quiet(1));
  CHECK(same(values_of(b), first));
}

TEST_CASE("fit: callbacks run in order and can stop") {
  Sequential net = small_net();
  const Dataset data = clouds(32);
  Strings log;
  FitOptions o = quiet(5);
  const auto shared = std::make_shared<Recorder>("b", log);
  o.callbacks = {Recorder("a", log), shared, [&](TrainingState& s) {
                   log.push_back("lambda " + std::to_string(s.epoch));
                   CHECK(&s.module == &net);
                   CHECK(s.epochs == 5);
                   CHECK(s.logs.count("loss") == 1);
                   s.stop = s.epoch == 1;
                 }};
  const History h = fit(net, SGD(), data, o);
  CHECK(h.epochs() == 2);
  CHECK_FALSE(h.interrupted);
  CHECK(log == Strings{"a begin", "b begin", "a 0", "b 0", "lambda 0", "a 1", "b 1", "lambda 1", "a end", "b end"});

  log.clear();
  CHECK(fit(net, SGD(), data, o).epochs() == 2);  // stop does not outlive a fit
}

TEST_CASE("fit: a callback may change the rate, freeze and thaw") {
  Sequential net = small_net();
  const Dataset data = clouds(32);
  std::vector<std::vector<Tensor>> after;
  FitOptions o = quiet(4);
  o.callbacks = {[&](TrainingState& s) {
    after.push_back(values_of(s.module));
    if (s.epoch == 0) freeze(*net.layers()[0]);
    if (s.epoch == 1) unfreeze(*net.layers()[0]);
    if (s.epoch == 2) s.optimizer.set_lr(0);
  }};
  fit(net, Adam({.lr = 0.01}), data, o);
  REQUIRE(after.size() == 4);
  CHECK(same_bits(after[1][0], after[0][0]));        // frozen
  CHECK_FALSE(same_bits(after[1][2], after[0][2]));  // the second layer goes on
  CHECK_FALSE(same_bits(after[2][0], after[1][0]));  // thawed
  CHECK(same(after[3], after[2]));                   // a rate of 0
}

TEST_CASE("fit: interrupted after a batch") {
  Sequential net = small_net();
  const Dataset data = clouds(64);
  int batches = 0, ended = 0, losses = 0;
  FitOptions o = quiet(10);  // four batches an epoch
  o.validation = data;
  o.interrupted = [&] { return ++batches == 6; };
  o.callbacks = {[&](TrainingState&) { ++ended; }};
  o.loss = [&](const Tensor& y, const Tensor& labels) {
    ++losses;
    return cross_entropy(y, labels);
  };
  SGD sgd;
  const History h = fit(net, sgd, data, o);
  CHECK(h.interrupted);
  CHECK(sgd.steps() == 6);
  CHECK(h.epochs() == 1);  // the epoch that was cut short is not recorded
  CHECK(h["val_loss"].size() == 1);
  CHECK(ended == 1);
  CHECK(losses == 1 + 6 + 1);  // a sample of the validation data first; validated at the end of the first epoch only
}

TEST_CASE("fit: the best weights come back also when it is interrupted") {
  Sequential net = small_net();
  const Dataset data = clouds(64);
  int batches = 0;
  std::vector<Tensor> first;
  FitOptions o = quiet(10);
  o.validation = data;
  o.interrupted = [&] { return ++batches == 6; };
  const auto stopping = std::make_shared<EarlyStopping>(EarlyStoppingOptions{.patience = 3, .restore_best = true});
  o.callbacks = {stopping, [&](TrainingState& s) { first = values_of(s.module); }};
  fit(net, SGD({.lr = 0.1}), data, o);
  CHECK(stopping->best_epoch() == 0);
  CHECK(same(values_of(net), first));
}

TEST_CASE("fit: early stopping stops a fit that gets worse") {
  Sequential net = small_net();
  const Dataset data = clouds(64);
  const auto stopping = std::make_shared<EarlyStopping>(EarlyStoppingOptions{.patience = 2, .restore_best = true});
  std::vector<std::vector<Tensor>> after;
  FitOptions o = quiet(50);
  o.validation = data;
  o.callbacks = {[&](TrainingState& s) {
                   after.push_back(values_of(s.module));
                   if (s.epoch == 3) s.logs["val_loss"] = 0;  // as good as it gets
                 },
                 stopping};
  const History h = fit(net, SGD(), data, o);
  CHECK(h.epochs() == 6);
  CHECK(stopping->best_epoch() == 3);
  CHECK(same(values_of(net), after[3]));
  CHECK_FALSE(same(after[5], after[3]));
}

TEST_CASE("fit: what is shown") {
  const Dataset data = clouds(32);
  const auto shown = [&](Verbose verbose) {
    Sequential net = small_net();
    FitOptions o = quiet(2);
    o.verbose = verbose;
    o.validation = data;
    o.callbacks = {[](TrainingState& s) { s.say("epoch " + std::to_string(s.epoch)); }};
    Stderr err;
    fit(net, SGD(), data, o);
    return err.text();
  };
  CHECK(shown(Verbose::silent) == "");
  const std::string number = R"(\d+\.\d{4})";
  const std::string numbers =
      " - loss: " + number + " - accuracy: " + number + " - val_loss: " + number + " - val_accuracy: " + number;
  const std::regex lines("Epoch 1/2 - \\d+\\.\\ds" + numbers + "\nepoch 0\nEpoch 2/2 - \\d+\\.\\ds" + numbers +
                         "\nepoch 1\n");
  const std::string text = shown(Verbose::lines), step = "\\d+(s|ms|us)/";  // Keras' verbose=2
  INFO(text);
  CHECK(std::regex_match(
      text, std::regex("Epoch 1/2\n2/2 - 0s" + numbers + " - " + step + "epoch - " + step + "step\nepoch 0\n" +
                       "Epoch 2/2\n2/2 - 0s" + numbers + " - " + step + "epoch - " + step + "step\nepoch 1\n")));
  CHECK(std::regex_match(shown(Verbose::automatic), lines));  // stderr is a file here
  const std::string bar = shown(Verbose::bar);
  CHECK(bar.rfind("Epoch 1/2\n\r1/2 [", 0) == 0);
  CHECK(bar.find("\r2/2 [==============================] - ") != std::string::npos);
  CHECK(bar.find("\nEpoch 2/2\n") != std::string::npos);
}

TEST_CASE("fit: evaluate is the mean over samples, at inference") {
  manual_seed(5);
  Sequential net({2}, {Dense(5, tanh), Dropout(0.5), Dense(3)});
  Tensor x = randn({23, 2});
  Tensor y = Tensor::empty({23}, i64);
  for (std::size_t i = 0; i < 23; ++i) y.mutable_values<std::int64_t>()[i] = static_cast<std::int64_t>(i * i % 3);

  // By hand, in double.
  const auto all = named_tensors(net);
  const auto w1 = all[0].tensor->to_vector(), b1 = all[1].tensor->to_vector(), w2 = all[2].tensor->to_vector(),
             b2 = all[3].tensor->to_vector(), in = x.to_vector();
  double loss = 0, correct = 0;
  for (std::size_t i = 0; i < 23; ++i) {
    double h[5], z[3], sum = 0;
    for (std::size_t j = 0; j < 5; ++j) h[j] = std::tanh(in[2 * i] * w1[j] + in[2 * i + 1] * w1[5 + j] + b1[j]);
    for (std::size_t c = 0; c < 3; ++c) {
      z[c] = b2[c];
      for (std::size_t j = 0; j < 5; ++j) z[c] += h[j] * w2[3 * j + c];
      sum += std::exp(z[c]);
    }
    const std::size_t label = i * i % 3;
    loss += (std::log(sum) - z[label]) / 23;
    const std::size_t best = z[0] >= z[1] && z[0] >= z[2] ? 0 : z[1] >= z[2] ? 1 : 2;
    correct += best == label;
  }
  for (const std::int64_t batch : {1, 5, 23, 256}) {
    const Metrics m = evaluate(net, {x, y}, {.batch = batch});
    CHECK(m.loss == doctest::Approx(loss).epsilon(1e-6));
    CHECK(m.accuracy == correct / 23);
  }
  const Metrics hot = evaluate(net, {x, one_hot(y, 3)});
  CHECK(hot.loss == doctest::Approx(loss).epsilon(1e-6));
  CHECK(hot.accuracy == correct / 23);
  CHECK(recording());
  CHECK_THROWS_WITH_AS(evaluate(net, {}), "evaluate: no samples", ValueError);
}

TEST_CASE("fit: accuracy is for classes only") {
  manual_seed(6);
  Dense one(1), three(3);
  const Tensor x = randn({10, 2});
  const EvaluateOptions squares{.loss = mse};
  CHECK(std::isnan(evaluate(one, {x, randn({10, 1})}, squares).accuracy));
  CHECK(std::isnan(evaluate(one, {x, ones({10, 1})}, squares).accuracy));
  CHECK(std::isnan(evaluate(three, {x, randn({10, 3})}, squares).accuracy));
  CHECK(std::isnan(evaluate(three, {x, rand({10, 3}) + 0.5}, squares).accuracy));
  // shares that are not 0 or 1 are classes still
  const Tensor soft = tensor({0.8, 0.1, 0.1}, {1, 3});
  CHECK_FALSE(std::isnan(evaluate(three, {x.rows(0, 1), soft}).accuracy));

  FitOptions o = quiet(2);
  o.loss = mse;
  const History h = fit(one, SGD(), {x, x.rows(0, 10).viewed_as({20}).rows(0, 10).viewed_as({10, 1})}, o);
  CHECK(h.values.size() == 1);
  CHECK(h["loss"].size() == 2);
}

TEST_CASE("fit: count_correct") {
  const Tensor out = tensor({1, 2, 3, 9, 0, 0, 5, 5, 1}, {3, 3});
  CHECK(count_correct(out, tensor({2, 0, 0}, i64)) == 3);  // the first of equals wins
  CHECK(count_correct(out, tensor({2, 1, 1}, u8)) == 1);
  CHECK(count_correct(out, tensor({0, 0, 1, 1, 0, 0, 0, 1, 0}, {3, 3})) == 2);
}

TEST_CASE("fit: predict is forward, batch by batch, at inference") {
  manual_seed(7);
  Sequential net({6}, {Dense(5, relu), Dropout(0.5), Dense(3)});
  Tensor x = Tensor::empty({11, 6}, u8);
  for (std::size_t i = 0; i < 66; ++i) x.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 37);
  const double scale = 1.0 / 255;
  const Tensor y = predict(net, Dataset{x, {}, scale}, {.batch = 4});
  CHECK(y.shape() == Shape{11, 3});
  CHECK_FALSE(y.tracked());
  const NoGrad off;
  const Tensor floats = cast(x, f32) * scale;
  for (std::int64_t i = 0; i < 11; i += 4) {
    const std::int64_t end = std::min<std::int64_t>(i + 4, 11);
    CHECK(same_bits(y.rows(i, end), net(floats.rows(i, end))));
  }
  const auto a = y.to_vector(), b = net(floats).to_vector();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-5));
  CHECK_THROWS_WITH_AS(predict(net, zeros({0, 6})), "predict: no samples", ValueError);
  CHECK_THROWS_WITH_AS(predict(net, x, {.batch = 0}), "batches: the size must be at least 1, got 0", ValueError);
}

TEST_CASE("fit: messages") {
  Sequential net = small_net();
  const Dataset data = clouds(8);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, quiet(-1)), "fit: epochs must not be negative, got -1", ValueError);
  FitOptions o = quiet(1);
  o.validation = data;
  o.validation_split = 0.5;
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, o), "fit: give either validation data or a validation_split", ValueError);
  o = quiet(1);
  o.validation_split = 1.5;
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, o), "validation_split: 1.5 of 8 samples leaves an empty part", ValueError);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), {}, quiet(1)), "fit: no samples", ValueError);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, quiet(1, 0)), "batches: the size must be at least 1, got 0", ValueError);
  Sequential bare({Flatten()});
  CHECK_THROWS_WITH_AS(fit(bare, SGD(), data, quiet(1)), "fit: the module has no trainable parameters", ValueError);
  freeze(net);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, quiet(1)), "fit: the module has no trainable parameters", ValueError);
  unfreeze(net);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), {zeros({4, 3}), zeros({4}, u8)}, quiet(1)),
                       "layers.0: matmul: inner sizes differ: (1, 3) x (2, 8)", ShapeError);
  CHECK_THROWS_WITH_AS(fit(net, SGD(), {data.inputs, full({8}, 2, u8)}, quiet(1)),
                       "cross_entropy: label 2 is outside of [0, 2)", ValueError);
  // An error leaves the caller's generator and mode alone.
  manual_seed(8);
  const double next = rand({}).item();
  manual_seed(8);
  CHECK_THROWS_AS(fit(net, SGD(), {data.inputs, full({8}, 2, u8)}, quiet(1)), ValueError);
  CHECK(rand({}).item() == next);
  CHECK(recording());
}

TEST_CASE("fit: validation data that cannot be used are told before anything is trained") {
  const Dataset data = clouds(64);
  const auto refused = [&](const Dataset& validation) -> std::string {
    Sequential net = small_net();
    const std::vector<Tensor> before = values_of(net);
    FitOptions o = quiet(1);
    o.validation = validation;
    int begun = 0;
    struct Begun : CallbackBase {
      explicit Begun(int& n) : n_(n) {}
      void train_begin(TrainingState&) override { ++n_; }
      int& n_;
    };
    o.callbacks = {Begun(begun)};
    std::string message = "nothing was thrown";
    try {
      fit(net, SGD(), data, o);
    } catch (const Error& e) {
      message = e.what();
    }
    CHECK(begun == 0);
    CHECK(same(values_of(net), before));
    return message;
  };
  CHECK(refused(data.slice(0, 0)) == "fit: no validation samples");
  CHECK(refused({data.inputs, data.labels.rows(0, 32), data.scale}) ==
        "batches: inputs (64, 2) and labels (32,) differ in number");
  CHECK(refused({zeros({8, 5}), data.labels.rows(0, 8), 1}).find("(1, 5)") !=
        std::string::npos);  // other columns than were trained on
}

TEST_CASE("fit: builds a module that is not built") {
  Sequential net({Flatten(), Dense(2)});
  const Dataset data{zeros({8, 3, 2}, u8), zeros({8}, u8)};
  fit(net, SGD(), data, quiet(1));
  CHECK(parameter_count(net) == 14);
}

TEST_CASE("fit: a step leaves no memory behind and asks the system for none") {
  const testing::Threads one(1);  // with more, how many blocks are out at once depends on their timing
  manual_seed(9);
  Sequential net({8, 8, 1}, {Conv2D({.filters = 4, .activation = relu}), MaxPool2D(2), Flatten(), Dropout(0.3),
                             Dense(20, tanh), Dense(3)});
  const Tensor x = randn({16, 8, 8, 1});
  const Tensor y = zeros({16}, u8);
  Adam adam;
  const auto step = [&] { adam.step(net, backward(cross_entropy(net(x), y))); };
  step();  // makes Adam's state
  const std::size_t baseline = memory_stats().in_use;
  step();
  CHECK(memory_stats().in_use == baseline);
  step();
  const std::uint64_t requests = memory_stats().system_requests;
  for (int i = 3; i < 50; ++i) step();
  if (!address_sanitizer) CHECK(memory_stats().system_requests == requests);
  CHECK(memory_stats().in_use == baseline);
  {
    const Tensor held = net(x);  // the measure must be able to fail
    CHECK(memory_stats().in_use > baseline);
  }
  CHECK(memory_stats().in_use == baseline);
}

TEST_CASE("fit: resident memory does not grow from epoch to epoch") {
  const testing::Threads one(1);
  manual_seed(10);
  Sequential net({784}, {Dense(512, relu), Dense(10)});
  Tensor x = Tensor::empty({2000, 784}, u8), y = Tensor::empty({2000}, u8);
  Generator random(4);
  std::vector<std::uint32_t> words(static_cast<std::size_t>(x.numel()));
  random.fill(words);
  for (std::size_t i = 0; i < words.size(); ++i)
    x.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(words[i]);
  for (std::size_t i = 0; i < 2000; ++i) y.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(words[i] % 10);
  Doubles kib;
  std::vector<std::uint64_t> requests;
  FitOptions o = quiet(10, 128);
  o.callbacks = {[&](TrainingState&) {
    kib.push_back(resident());
    requests.push_back(memory_stats().system_requests);
  }};
  fit(net, RMSprop(), {x, y, 1.0 / 255}, o);
  REQUIRE(kib.size() == 10);
  CHECK(kib[0] > 5000);  // parameters, their state and the data alone
  if (!address_sanitizer) CHECK(kib[9] < 1.01 * kib[1]);
  if (!address_sanitizer) CHECK(requests[9] == requests[1]);
}

TEST_CASE("fit: names the parameters that the loss never reaches, once") {
  struct Idle : Module {
    Dense used{2}, idle{2};
    Tensor forward(const Tensor& x) override {
      idle(x);
      return used(x);
    }
    void visit(Visitor& v) override { v("used", used), v("idle", idle); }
  } net;
  Adam optimizer;
  const Dataset data{randn({8, 3}), zeros({8}, i64)};
  std::FILE* before = stderr;
  std::FILE* caught = std::tmpfile();
  stderr = caught;
  fit(net, optimizer, data, {.epochs = 2, .batch = 4, .verbose = Verbose::lines});
  stderr = before;
  std::rewind(caught);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), caught));
  std::fclose(caught);
  const std::string warning = "warning: the loss does not depend on idle.weight, idle.bias\n";
  CHECK(text.find(warning) != std::string::npos);
  CHECK(text.find(warning) == text.rfind(warning));
}

TEST_CASE("fit: a softmax before a loss that takes logits is warned of, wherever the model ends in it") {
  const Tensor labels = tensor({0, 1, 0, 1}, i64), shares = one_hot(labels, 2);
  const auto said = [&](const std::vector<Layer>& layers, const Loss& loss, const Tensor& y,
                        const std::vector<double>& weights = {}) {
    Sequential net({2}, layers);
    Stderr err;
    fit(net, SGD(), {randn({4, 2}), y},
        {.epochs = 2, .batch = 2, .loss = loss, .class_weight = weights, .verbose = Verbose::lines});
    std::string text = err.text(), out;
    for (std::size_t at = 0; (at = text.find("warning", at)) != std::string::npos;) {
      const std::size_t end = text.find('\n', at);
      out += text.substr(at, end - at);
      at = end;
    }
    return out;
  };
  const auto warning = [](const std::string& loss, const std::string& op, const std::string& layer) {
    return "warning: " + loss + " expects logits, but gets the output of " + op + " (" + layer + "): remove this " + op;
  };
  const Loss entropy = cross_entropy, binary = bce_with_logits;
  const Loss smoothed = [](const Tensor& x, const Tensor& y) { return cross_entropy(x, y, {.label_smoothing = 0.1}); };
  const std::vector<Layer> probabilities{Dense(2, softmax)};
  CHECK(said(probabilities, entropy, labels) == warning("cross_entropy", "softmax", "layers.0"));
  CHECK(said(probabilities, smoothed, shares) == warning("cross_entropy", "softmax", "layers.0"));
  CHECK(said(probabilities, entropy, labels, {1, 2}) == warning("cross_entropy", "softmax", "layers.0"));
  CHECK(said(probabilities, smoothed, labels, {1, 2}) == warning("cross_entropy", "softmax", "layers.0"));
  CHECK(said(probabilities, kl_divergence, shares) == warning("log_softmax", "softmax", "layers.0"));
  CHECK(said({Dense(2), softmax}, entropy, labels) == warning("cross_entropy", "softmax", "layers.1"));
  CHECK(said({Dense(2), [](const Tensor& x) { return softmax(x); }}, entropy, labels) ==
        warning("cross_entropy", "softmax", "layers.1"));
  CHECK(said({Dense(2, tanh), Sequential({Dense(2), Sequential({softmax, Dropout(0.0)}), Flatten()})}, entropy,
             labels) == warning("cross_entropy", "softmax", "layers.1.layers.1.layers.0"));
  CHECK(said({Dense(2, sigmoid)}, entropy, labels) == warning("cross_entropy", "sigmoid", "layers.0"));
  CHECK(said({Dense(2, sigmoid)}, binary, shares) == warning("bce_with_logits", "sigmoid", "layers.0"));
  CHECK(said(probabilities, binary, shares) == warning("bce_with_logits", "softmax", "layers.0"));
  CHECK(said({Dense(2), log_softmax}, binary, shares) == warning("bce_with_logits", "log_softmax", "layers.1"));

  // No false alarm: the softmax is in the middle or scaled, its output only a part, or the loss takes probabilities.
  CHECK(said({Dense(2)}, entropy, labels) == "");
  CHECK(said({Dense(2), softmax, Dense(2)}, entropy, labels) == "");
  CHECK(said({Dense(2, softmax), [](const Tensor& x) { return x * 20; }}, entropy, labels) == "");
  CHECK(said({Residual({Dense(2), softmax})}, entropy, labels) == "");  // x + softmax(..) is not bounded
  CHECK(said(probabilities, mse, shares) == "");
  CHECK(said({Dense(2, sigmoid)}, mae, shares) == "");
  // log_softmax twice is log_softmax once: the loss is the right one.
  CHECK(said({Dense(2), log_softmax}, entropy, labels) == "");
  const Tensor x = randn({4, 2});
  CHECK(cross_entropy(log_softmax(x), labels).item() == doctest::Approx(cross_entropy(x, labels).item()).epsilon(1e-6));
}

namespace {
/// Uses a layer and a tensor that visit forgets.
struct Forgetful : Module {
  Dense used{2}, lost{2};
  Tensor raw = variable(ones({2}), "raw");
  Tensor forward(const Tensor& x) override { return (used(x) + lost(x)) * raw; }
  void visit(Visitor& v) override { v("used", used); }
};
}  // namespace

TEST_CASE("fit: a member that visit forgets is told, once, by fit and by the first step") {
  const Dataset data{randn({8, 3}), zeros({8}, i64)};
  const std::string names =
      "the loss depends on 3 tensors that no visit of the module names, and that are not trained: ";
  const auto count = [](const std::string& text, const std::string& what) {
    std::size_t n = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  {
    Forgetful net;
    Stderr err;
    fit(net, Adam(), data, {.epochs = 2, .batch = 4, .verbose = Verbose::lines});
    const std::string text = err.text();
    CHECK(count(text, "warning: adam: " + names) == 1);
    for (const char* name : {"raw (2,)", "weight (3, 2)", "bias (2,)"}) CHECK(count(text, name) == 1);
  }
  {
    Forgetful net;
    Stderr err;
    SGD sgd;
    for (int i = 0; i < 3; ++i) sgd.step(net, backward(sum(net(data.inputs))));
    CHECK(count(err.text(), "warning: sgd: " + names) == 1);
  }
  {  // a network that judges another has gradients too, and its own optimizer
    Sequential judge({Dense(4, tanh), Dense(1)}), maker({Dense(3)});
    Stderr err;
    SGD sgd, own;
    sgd.step(maker, backward(sum(judge(maker(data.inputs)))));
    own.step(judge, backward(sum(judge(maker(data.inputs)))));
    CHECK(err.text() == "");
  }
}

TEST_CASE("fit: hooks of batches and epochs come with the step, and can stop in the middle") {
  struct Steps : CallbackBase {
    explicit Steps(Strings& log) : log_(log) {}
    void epoch_begin(TrainingState& s) override { log_.push_back("epoch " + std::to_string(s.epoch)); }
    void batch_begin(TrainingState& s) override {
      log_.push_back("b" + std::to_string(s.step) + "/" + std::to_string(s.steps));
    }
    void batch_end(TrainingState& s) override {
      log_.push_back("e" + std::to_string(s.optimizer.steps()));
      CHECK(s.loss > 0);
      s.stop = s.optimizer.steps() == 4;
    }
    void epoch_end(TrainingState& s) override {
      log_.push_back("end " + std::to_string(s.history.epochs()) + " " + std::to_string(s.record().epochs()));
      CHECK(s.seconds > 0);
    }
    Strings& log_;
  };
  Sequential net = small_net();
  Strings log;
  FitOptions o = quiet(9, 20);
  o.callbacks = {Steps(log)};
  const History h = fit(net, SGD(), clouds(60), o);
  CHECK(log ==
        Strings{"epoch 0", "b0/3", "e1", "b1/3", "e2", "b2/3", "e3", "end 0 1", "epoch 1", "b0/3", "e4", "end 1 2"});
  CHECK(h.epochs() == 2);
  CHECK_FALSE(h.interrupted);
}

TEST_CASE("fit: a schedule is asked before every step, in epochs") {
  Sequential net = small_net();
  Doubles asked;
  FitOptions o = quiet(2, 25);  // four steps an epoch
  o.schedule = [&](double t, double total) {
    CHECK(total == 2);
    asked.push_back(t);
    return 0.5 - t / 8;
  };
  Adam adam;
  const History h = fit(net, adam, clouds(100), o);
  CHECK(asked == Doubles{0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75});
  CHECK(h["lr"] == Doubles{0.5 - 0.75 / 8, 0.5 - 1.75 / 8});
  CHECK(adam.lr() == 0.5 - 1.75 / 8);

  // The rate that the schedule gives is the one of the step.
  Sequential a = small_net(), b = small_net();
  FitOptions plain = quiet(2, 25), constant = quiet(2, 25);
  constant.schedule = constant_lr(0.05);
  fit(a, SGD({.lr = 0.05}), clouds(100), plain);
  fit(b, SGD({.lr = 7}), clouds(100), constant);
  CHECK(same(values_of(a), values_of(b)));
}

TEST_CASE("fit: gradients are clipped by norm and by value") {
  const auto moved = [](double norm, double value) {  // by one step with rate 1: minus the gradient
    manual_seed(3);
    Dense net(2);
    build(net, {2});
    const auto before = net.weight.to_vector(), bias = net.bias.to_vector();
    FitOptions o = quiet(1, 8);
    o.clip_norm = norm;
    o.clip_value = value;
    fit(net, SGD({.lr = 1}), {full({8, 2}, 3), full({8}, 1, u8)}, o);
    Doubles g = before;
    g.insert(g.end(), bias.begin(), bias.end());
    const auto w = net.weight.to_vector(), c = net.bias.to_vector();
    for (std::size_t i = 0; i < g.size(); ++i) g[i] -= i < w.size() ? w[i] : c[i - w.size()];
    return g;
  };
  const auto norm_of = [](const Doubles& g) {
    double s = 0;
    for (const double x : g) s += x * x;
    return std::sqrt(s);
  };
  const Doubles plain = moved(0, 0), by_norm = moved(0.5, 0), by_value = moved(0, 0.125);
  REQUIRE(norm_of(plain) > 1);
  CHECK(norm_of(by_norm) == doctest::Approx(0.5).epsilon(1e-6));
  for (std::size_t i = 0; i < plain.size(); ++i) {
    CHECK(by_norm[i] / norm_of(by_norm) == doctest::Approx(plain[i] / norm_of(plain)).epsilon(1e-5));
    CHECK(by_value[i] == doctest::Approx(std::clamp(plain[i], -0.125, 0.125)).epsilon(1e-5));
  }
  CHECK(moved(100, 100) == plain);
  Dense net(2);
  FitOptions o = quiet(1);
  o.clip_norm = -1;
  CHECK_THROWS_WITH_AS(fit(net, SGD(), clouds(8), o), "fit: clip_norm must not be negative, got -1", ValueError);
  o.clip_norm = 0;
  o.clip_value = NAN;
  CHECK_THROWS_WITH_AS(fit(net, SGD(), clouds(8), o), "fit: clip_value must not be negative, got nan", ValueError);
}

TEST_CASE("fit: class weights count in the training loss alone") {
  const Dataset data = clouds(40);
  const auto first_epoch = [&](const Doubles& weights, const Tensor& labels) {
    Dense net(2);
    manual_seed(4);
    build(net, {2});
    FitOptions o = quiet(1, 40);  // one batch: the losses are those of the weights drawn above
    o.class_weight = weights;
    o.validation = Dataset{data.inputs, labels};
    return std::pair{fit(net, SGD({.lr = 0}), {data.inputs, labels}, o), evaluate(net, data).loss};
  };
  // By hand: the loss of each class is what the other one's weight of 0 leaves.
  const auto [plain, unweighted] = first_epoch({}, data.labels);
  const auto zero = first_epoch({1, 0}, data.labels).first, one = first_epoch({0, 1}, data.labels).first;
  CHECK(plain["loss"][0] == doctest::Approx(unweighted).epsilon(1e-6));
  CHECK(zero["loss"][0] + one["loss"][0] == doctest::Approx(unweighted).epsilon(1e-6));
  const auto weighted = first_epoch({0.5, 3}, data.labels).first;
  CHECK(weighted["loss"][0] == doctest::Approx(0.5 * zero["loss"][0] + 3 * one["loss"][0]).epsilon(1e-6));
  CHECK(weighted["val_loss"][0] == doctest::Approx(unweighted).epsilon(1e-6));
  CHECK(weighted["accuracy"] == plain["accuracy"]);
  const auto hot = first_epoch({0.5, 3}, one_hot(data.labels, 2)).first;
  CHECK(hot["loss"][0] == doctest::Approx(weighted["loss"][0]).epsilon(1e-6));

  Dense net(2);
  FitOptions o = quiet(1);
  o.class_weight = {1, -1};
  CHECK_THROWS_WITH_AS(fit(net, SGD(), data, o), "fit: a class weight must be a finite number from 0, got -1",
                       ValueError);
  o.class_weight = {1, 1, 1};
  CHECK_THROWS_WITH_AS(fit(net, SGD(), {data.inputs, one_hot(data.labels, 2)}, o),
                       "fit: 3 class weights for labels float32 (16, 2)", ShapeError);
}

TEST_CASE("fit: class weights count with every loss, smoothed or not, and every kind of labels") {
  const Tensor logits = tensor({1, 2, -1, 0.5, 0, 3, -2, 1, 1, 0, 4, 2, 1, 1, -3}, {5, 3}),
               classes = tensor({0, 2, 1, 2, 2}, i64);
  const Doubles w{0.5, 3, 2};
  const Tensor weights = tensor({0.5, 3, 2}),
               soft = tensor({0.7, 0.2, 0.1, 0, 0, 1, 0.5, 0.5, 0, 0.1, 0.1, 0.8, 0, 1, 0}, {5, 3});
  struct Passing : Module {  // gives its input, with something to train
    Tensor scale = variable(scalar(1));
    Tensor forward(const Tensor& x) override { return x * scale; }
    void visit(Visitor& v) override { v("scale", scale); }
  };
  const auto in_fit = [&](const Loss& loss, const Tensor& labels, std::int64_t batch = 5) {
    Passing net;
    FitOptions o = quiet(1, batch);
    o.shuffle = false;
    o.loss = loss;
    o.class_weight = w;
    o.validation = Dataset{logits, labels};
    const History h = fit(net, SGD({.lr = 0}), {logits, labels}, o);
    CHECK(h["val_loss"][0] ==
          doctest::Approx(evaluate(net, {logits, labels}, {.loss = loss}).loss));  // where all count alike
    return h["loss"][0];
  };
  const auto approx = [](double v) { return doctest::Approx(v).epsilon(1e-6); };
  const Loss smoothed = [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t, {.label_smoothing = 0.3}); };
  const Tensor bytes = cast(classes, u8), hot = one_hot(classes, 3);
  for (const Tensor& labels : {classes, bytes, hot, soft}) {
    CAPTURE(describe(labels));
    const double both = cross_entropy(logits, labels, {.label_smoothing = 0.3, .class_weights = weights}).item();
    for (const std::int64_t batch : {5, 2, 1})  // the last one is short, and counts by its samples
      CHECK(in_fit(smoothed, labels, batch) == approx(both));
    CHECK(in_fit(cross_entropy, labels) == approx(cross_entropy(logits, labels, {.class_weights = weights}).item()));
    CHECK(in_fit([](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); }, labels) ==
          approx(cross_entropy(logits, labels, {.class_weights = weights}).item()));
  }
  // by hand, sample by sample
  const auto by_sample = [&](const Loss& loss, const Tensor& labels) {
    double total = 0;
    for (std::int64_t i = 0; i < 5; ++i) {
      double weight = 0;
      for (std::int64_t c = 0; c < 3; ++c)
        weight += w[static_cast<std::size_t>(c)] * labels.to_vector()[static_cast<std::size_t>(3 * i + c)];
      total += weight * loss(logits.rows(i, i + 1), labels.rows(i, i + 1)).item() / 5;
    }
    return total;
  };
  for (const Loss& loss : std::vector<Loss>{mse, mae, bce_with_logits, kl_divergence,
                                            [](const Tensor& y, const Tensor& t) { return huber(y, t); }, smoothed})
    for (const Tensor& labels : {hot, soft}) CHECK(in_fit(loss, labels) == approx(by_sample(loss, labels)));

  const auto refusal = [&](const Tensor& labels, const Loss& loss = cross_entropy) -> std::string {
    try {
      in_fit(loss, labels);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(refusal(tensor({0, 2, 1, 3, 2}, i64), smoothed) == "fit: label 3 has no class weight; class_weight has 3");
  CHECK(refusal(tensor({0, 2, 1, 1, 2}), mse) != "");
  const Loss anything = [](const Tensor& y, const Tensor&) { return sum(square(y)); };
  CHECK(refusal(tensor({0, 2, 1, 3, 2}, i64), anything) == "fit: label 3 has no class weight; class_weight has 3");
  CHECK(refusal(tensor({0, 2, 1, -1, 2}, i64), anything) == "fit: label -1 has no class weight; class_weight has 3");
  CHECK(refusal(tensor({0, 2, 1, 1, 2}), anything) ==
        "fit: 3 class weights for labels float32 (5,): needs classes (n) or shares of the classes (n, c)");
  CHECK(refusal(ones({5, 2}), anything) == "fit: 3 class weights for labels float32 (5, 2)");
  CHECK(refusal({}, anything) == "fit: 3 class weights for labels that are undefined");
}

TEST_CASE("fit: predict of a data set takes its scale, as evaluate does") {
  manual_seed(7);
  Tensor pixels = Tensor::empty({40, 28, 28}, u8), labels = Tensor::empty({40}, u8);
  for (std::size_t i = 0; i < pixels.bytes(); ++i)
    pixels.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * i * 31 % 251);
  for (std::size_t i = 0; i < 40; ++i) labels.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i % 10);
  const Digits digits{pixels, labels};
  Sequential net({28, 28, 1}, {Flatten(), Dense(30, tanh), Dense(10)});
  const Tensor y = predict(net, digits);
  CHECK(same_bits(y, predict(net, digits.scaled())));
  CHECK(static_cast<double>(count_correct(y, labels)) / 40 == evaluate(net, digits).accuracy);
  const Tensor floats = cast(digits.scaled().inputs, f32) * (1.0f / 255);
  CHECK(same_bits(y, predict(net, floats)));
  CHECK(same_bits(predict(net, digits.scaled().inputs), predict(net, digits.scaled(1))));
  Dataset odd = digits.scaled();
  odd.labels = ones({3});  // not looked at
  CHECK(same_bits(predict(net, odd), y));
  for (const KerasStyle style : {KerasStyle::keras2_2, KerasStyle::keras2}) {
    Stderr err;
    predict(net, digits, {.batch = 20, .verbose = Verbose::bar, .style = style});
    CHECK(err.text().find(style == KerasStyle::keras2_2 ? "40/40" : "2/2") != std::string::npos);
  }
}

TEST_CASE("fit: int64 inputs that floats do not have are refused and never rounded") {
  constexpr std::int64_t limit = std::int64_t{1} << 24;
  Sequential net({1}, {Dense(2)});
  const auto data = [](std::int64_t value) {
    return Dataset{Tensor::from(std::vector<std::int64_t>{1, value}, {2, 1}), zeros({2}, u8)};
  };
  for (const std::int64_t exact :
       {limit, -limit, limit + 2, std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::min()})
    CHECK(Batches(data(exact), {.shuffle = false})[0].inputs.to_vector()[1] == static_cast<double>(exact));
  for (const std::int64_t bad : {limit + 1, -limit - 1, std::numeric_limits<std::int64_t>::max()}) {
    const std::string message =
        "batches: the int64 input " + std::to_string(bad) +
        " is no float32: ask for batches of float64, scale the inputs, or give the network int64 itself";
    for (const bool shuffle : {false, true})
      CHECK_THROWS_WITH_AS(Batches(data(bad), {.shuffle = shuffle})[0], message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(predict(net, data(bad)), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(predict(net, data(bad).inputs), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(evaluate(net, data(bad)), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(fit(net, SGD(), data(bad), quiet(1)), message.c_str(), ValueError);
  }
  CHECK(Batches(data(limit + 1), {.shuffle = false, .dtype = f64})[0].inputs.to_vector()[1] ==
        static_cast<double>(limit + 1));
  CHECK_THROWS_AS(Batches(data((std::int64_t{1} << 53) + 1), {.shuffle = false, .dtype = f64})[0], ValueError);
}

TEST_CASE("fit: a training that was interrupted anywhere goes on to the same bits") {
  const Dataset data = clouds(90);
  const auto options = [&](int epochs) {
    FitOptions o = quiet(epochs, 20);  // five steps an epoch
    o.seed = 11;
    o.validation = data.slice(0, 30);
    o.schedule = cosine_lr({.lr = 0.05, .warmup = 1});
    return o;
  };
  Sequential whole = small_net();
  Adam adam;
  const History want = fit(whole, adam, data, options(4));
  REQUIRE(want.epochs() == 4);

  for (const int at : {1, 5, 7, 10, 13, 19}) {
    CAPTURE(at);
    Sequential net = small_net();
    Adam optimizer;
    FitOptions o = options(4);
    int batches = 0;
    o.interrupted = [&] { return ++batches == at; };
    const History cut = fit(net, optimizer, data, o);
    CHECK(cut.interrupted);
    CHECK(cut.epochs() == (at - 1) / 5);
    CHECK(cut.partial.batches == (at - 1) % 5 + 1);
    o = options(4);
    o.resume = cut;
    const History h = fit(net, optimizer, data, o);
    CHECK(same(values_of(net), values_of(whole)));
    CHECK(h.values == want.values);
    CHECK(h.epochs() == 4);
    CHECK_FALSE(h.interrupted);
    CHECK(h.partial.batches == 0);
  }

  // Between epochs too; and nothing happens when all epochs are there.
  Sequential net = small_net();
  Adam optimizer;
  FitOptions o = options(4);
  o.callbacks = {[](TrainingState& s) { s.stop = s.epoch == 1; }};
  const History two = fit(net, optimizer, data, o);
  CHECK(two.epochs() == 2);
  o = options(4);
  o.resume = two;
  CHECK(fit(net, optimizer, data, o).values == want.values);
  CHECK(same(values_of(net), values_of(whole)));
  o.resume = want;
  CHECK(fit(net, optimizer, data, o).values == want.values);
  CHECK(same(values_of(net), values_of(whole)));

  o.resume->partial.batches = 6;
  CHECK_THROWS_WITH_AS(fit(net, optimizer, data, o), "fit: cannot go on after batch 6 of 5", ValueError);
}

TEST_CASE("fit: a regression that is cut after the last batch of an epoch has no accuracy when it goes on") {
  manual_seed(91);
  const Dataset data{randn({20, 3}), randn({20, 1})};
  const auto train = [&](Module& net, Optimizer& optimizer, int at, std::optional<History> resume) {
    FitOptions o = quiet(2, 5);
    o.loss = [](const Tensor& y, const Tensor& labels) { return mse(y, labels); };
    int batches = 0;
    o.interrupted = [&batches, at] { return ++batches == at; };
    o.resume = std::move(resume);
    return fit(net, optimizer, data, o);
  };
  const auto fresh = [] {
    manual_seed(92);
    return Sequential({3}, {Dense(1)});
  };
  Sequential whole = fresh(), net = fresh();
  Adam a, b;
  const History want = train(whole, a, 0, {});
  const History cut = train(net, b, 4, {});
  CHECK(cut.partial.batches == 4);
  CHECK_FALSE(cut.partial.classes);
  CHECK(train(net, b, 0, cut).values == want.values);
  CHECK_FALSE(want.values.contains("accuracy"));
}

TEST_CASE("fit: a training that an exception ends goes on from its last batch to the same bits") {
  const Dataset data = clouds(64);  // four batches
  enum class Where { loss, validation, batch_begin, batch_end, epoch_begin, epoch_end, train_end };
  struct Thrower : CallbackBase {
    Where where;
    std::int64_t at;  ///< steps
    bool armed = true;
    Thrower(Where w, std::int64_t n) : where(w), at(n) {}
    void due(Where here, TrainingState& s) {
      if (here == where && s.optimizer.steps() == at && std::exchange(armed, false)) throw std::runtime_error("broken");
    }
    void batch_begin(TrainingState& s) override { due(Where::batch_begin, s); }
    void batch_end(TrainingState& s) override { due(Where::batch_end, s); }
    void epoch_begin(TrainingState& s) override { due(Where::epoch_begin, s); }
    void epoch_end(TrainingState& s) override { due(Where::epoch_end, s); }
    void train_end(TrainingState& s) override { due(Where::train_end, s); }
  };
  struct Row {
    Where where;
    std::int64_t at;
    int epochs;
    std::int64_t batches;
    bool normalized = false;
  };
  const auto net_of = [](bool normalized) {
    manual_seed(3);
    return normalized ? Sequential({2}, {Dense(8), BatchNormalization(), tanh, Dense(2)}) : small_net();
  };
  const auto options = [&] {
    FitOptions o = quiet(3, 16);
    o.validation = clouds(32, 2);
    return o;
  };
  for (const Row& row :
       {Row{Where::loss, 5, 1, 1}, Row{Where::validation, 4, 0, 4}, Row{Where::batch_begin, 6, 1, 2},
        Row{Where::batch_begin, 4, 1, 0}, Row{Where::batch_end, 6, 1, 2}, Row{Where::epoch_begin, 8, 2, 0},
        Row{Where::epoch_end, 8, 2, 0}, Row{Where::train_end, 12, 3, 0}, Row{Where::loss, 5, 1, 1, true},
        Row{Where::loss, 0, 0, 0, true}}) {
    CAPTURE(static_cast<int>(row.where));
    CAPTURE(row.normalized);
    Sequential whole = net_of(row.normalized), net = net_of(row.normalized);
    Adam a, b;
    FitOptions undisturbed = options();
    undisturbed.callbacks = {AverageWeights(0.9)};
    const History want = fit(whole, a, data, undisturbed);
    FitOptions o = options();
    History so_far;
    o.failed = [&](const History& h) { so_far = h; };
    bool armed = true;
    o.loss = [&](const Tensor& y, const Tensor& labels) {
      if (((row.where == Where::loss && y.tracked()) || (row.where == Where::validation && !y.tracked())) &&
          b.steps() == row.at && std::exchange(armed, false))
        throw std::runtime_error("broken");
      return cross_entropy(y, labels);
    };
    o.callbacks = {AverageWeights(0.9), std::make_shared<Thrower>(row.where, row.at)};
    CHECK_THROWS_WITH_AS(fit(net, b, data, o), "broken", std::runtime_error);
    CHECK(so_far.interrupted);
    CHECK(so_far.epochs() == row.epochs);
    CHECK(so_far.partial.batches == row.batches);
    CHECK(b.steps() == row.epochs * 4 + row.batches);
    CHECK(so_far.values["loss"].size() == static_cast<std::size_t>(row.epochs));
    o.resume = so_far;
    CHECK(fit(net, b, data, o).values == want.values);
    CHECK(same(values_of(net), values_of(whole)));
  }

  // An exception before training leaves it as it was.
  Sequential net = small_net();
  FitOptions o = options();
  int failed = 0;
  o.failed = [&](const History&) { ++failed; };
  o.epochs = -1;
  CHECK_THROWS_AS(fit(net, Adam(), data, o), ValueError);
  CHECK(failed == 0);

  // What `failed` throws does not hide what ended the training.
  o = options();
  o.failed = [](const History&) { throw std::runtime_error("no room for the record"); };
  o.callbacks = {[](TrainingState&) { throw std::runtime_error("broken"); }};
  CHECK_THROWS_WITH_AS(fit(net, Adam(), data, o), "broken", std::runtime_error);
}

TEST_CASE("fit: an interruption is noticed between the batches of a validation, and the epoch goes on there") {
  const Dataset data = clouds(64), held_out = clouds(1024, 2);  // four batches each
  const auto options = [&] {
    FitOptions o = quiet(2, 16);
    o.validation = held_out;
    return o;
  };
  Sequential whole = small_net(), net = small_net();
  Adam a, b;
  const History want = fit(whole, a, data, options());
  FitOptions o = options();
  int validated = 0;
  o.loss = [&](const Tensor& y, const Tensor& labels) {
    validated += !y.tracked() && y.size(0) > 1;
    return cross_entropy(y, labels);
  };
  o.interrupted = [&] { return validated == 2; };
  const History cut = fit(net, b, data, o);
  CHECK(cut.interrupted);
  CHECK(validated == 2);
  CHECK(cut.epochs() == 0);
  CHECK(cut.partial.batches == 4);
  o = options();
  o.resume = cut;
  CHECK(fit(net, b, data, o).values == want.values);
  CHECK(same(values_of(net), values_of(whole)));
}

TEST_CASE("fit: going on with fewer epochs than were begun leaves all as it is") {
  const Dataset data = clouds(64);
  Sequential whole = small_net(), net = small_net();
  Adam a, b;
  const History want = fit(whole, a, data, quiet(3, 16));
  FitOptions o = quiet(3, 16);
  int batches = 0;
  o.interrupted = [&] { return ++batches == 6; };
  const History cut = fit(net, b, data, o);
  o = quiet(1, 16);
  o.resume = cut;
  const History same_place = fit(net, b, data, o);
  CHECK(same_place.partial.batches == 2);
  CHECK(same_place.interrupted);
  o = quiet(3, 16);
  o.resume = same_place;
  CHECK(fit(net, b, data, o).values == want.values);
  CHECK(same(values_of(net), values_of(whole)));
}

TEST_CASE("fit: weights to go on from must be those of the module") {
  const Dataset data = clouds(64);
  Sequential net = small_net();
  FitOptions o = quiet(1, 16);
  o.resume = History{};
  o.resume->weights["layers.9.weight"] = zeros({2});
  CHECK_THROWS_WITH_AS(fit(net, Adam(), data, o), "fit: cannot go on with 1 weights, 0 of them in the module",
                       ShapeError);
  const NamedTensor first = named_tensors(net)[0];
  o.resume->weights = {{first.path, zeros({2})}};
  CHECK_THROWS_WITH_AS(
      fit(net, Adam(), data, o),
      ("fit: cannot go on with " + first.path + " float32 (2,), the module has " + describe(*first.tensor)).c_str(),
      ShapeError);
}

TEST_CASE("fit: again goes on with another order of samples") {
  Dense net(2);
  std::vector<Doubles> seen;
  FitOptions o = quiet(1, 64);
  o.loss = [&](const Tensor& y, const Tensor& labels) {
    seen.push_back(labels.to_vector());
    return cross_entropy(y, labels);
  };
  SGD sgd;
  for (int i = 0; i < 2; ++i) fit(net, sgd, clouds(64), o);
  REQUIRE(seen.size() == 2);
  CHECK(seen[0] != seen[1]);
}

// Pixels of 0 to 255: with a cross-entropy from probabilities the first loss of such a network can be infinite.
TEST_CASE("fit: raw pixels train without a NaN") {
  const Digits digits = find_dataset(DatasetName::synthetic).train;
  const Dataset raw = digits.scaled(1).slice(0, 2000);
  const auto check = [&](std::vector<Layer> layers, Optimizer&& optimizer, std::int64_t batch, int epochs,
                         double accuracy) {
    manual_seed(12);
    layers.insert(layers.begin(), Flatten());
    Sequential net(layers);
    FitOptions o = quiet(epochs, batch);
    o.validation_split = 0.1;
    const History h = fit(net, optimizer, raw, o);
    for (const auto& [name, numbers] : h.values)
      for (const double v : numbers) CHECK_MESSAGE(std::isfinite(v), name);
    CHECK(h["loss"].back() < h["loss"].front());
    CHECK(h["accuracy"].back() > accuracy);
  };
  check({Dense(50, relu), Dense(50, relu), Dense(10)}, Adam(), 32, 3, 0.2);  // chance is 0.1
  check({Dense(32, sigmoid), Dense(10)}, SGD(), 128, 5, 0.2);
  check({Dense(32, sigmoid), Dense(32, sigmoid), Dense(32, sigmoid), Dense(10)}, SGD(), 128, 3, 0);
  // Logits of thousands: the loss is large but a number, and so are the gradients.
  check({Dense(50, relu), Dense(10)}, SGD({.lr = 1}), 32, 2, 0);
}

TEST_CASE("fit: the averages of the weights are validated, kept by early stopping, and stay") {
  const Dataset data = clouds(64);
  for (const int epochs : {1, 3}) {
    Sequential net = small_net();
    std::vector<std::vector<Tensor>> shown;
    FitOptions o = quiet(epochs);
    o.validation = data;
    o.callbacks = {AverageWeights(0.9), [&](TrainingState& s) { shown.push_back(values_of(s.module)); }};
    const History h = fit(net, SGD({.lr = 0.5}), data, o);
    CHECK(same(values_of(net), shown.back()));
    CHECK(evaluate(net, data).loss == h["val_loss"].back());

    // By hand: the same steps, averaged beside them.
    Sequential plain = small_net();
    WeightAverage average(0.9);
    struct Beside : CallbackBase {
      explicit Beside(WeightAverage& a) : a_(a) {}
      void batch_end(TrainingState& s) override { a_.update(s.module); }
      WeightAverage& a_;
    };
    o.callbacks = {Beside(average)};
    fit(plain, SGD({.lr = 0.5}), data, o);
    CHECK_FALSE(same(values_of(net), values_of(plain)));
    average.swap(plain);
    CHECK(same(values_of(net), values_of(plain)));
  }
}

TEST_CASE("fit: an empty loss is refused where it is given") {
  CHECK_THROWS_WITH_AS(Loss(nullptr), "Loss: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Loss(std::function<Tensor(const Tensor&, const Tensor&)>()), "Loss: the function is empty",
                       ValueError);
  CHECK_THROWS_WITH_AS(Loss(std::function<Tensor(Tensor, Tensor)>()), "Loss: the function is empty", ValueError);
  const bool lambda = Loss([](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); }).plain() != nullptr;
  CHECK_FALSE(lambda);
  const bool plain = Loss(cross_entropy).plain() != nullptr;
  CHECK(plain);
}
