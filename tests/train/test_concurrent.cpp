// What several threads of a program do at once with models: one used by all, trainings side by side; and memory over a
// long one.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/storage.h>
#include <ebb/models/ebb.h>
#include <ebb/ops/ops.h>

#include "in_child.h"
#include "restore.h"

using namespace ebb;

namespace {

/// f(i) for i of [0, n), each in a thread of its own, all at once.
template <class F>
void at_once(int n, const F& f) {
  std::vector<std::thread> threads;
  std::atomic<int> ready = 0;
  for (int i = 0; i < n; ++i)
    threads.emplace_back([&, i] {
      for (++ready; ready < n;) std::this_thread::yield();
      f(i);
    });
  for (std::thread& t : threads) t.join();
}

/// Every kind of layer that makes parameters, on images (12, 12, 1).
Sequential mixed() {
  const auto rows = [](const Tensor& x) { return reshape(x, {x.size(0), 6, -1}); };
  return Sequential(
      {Conv2D({.filters = 8, .pad = Padding::same(), .activation = relu}), MaxPool2D(2), BatchNormalization(),
       Residual({Conv2D({.filters = 8, .pad = Padding::same()}), GroupNormalization({.groups = 2})}),
       Concat({Conv2D({.filters = 4, .kernel = 1}), Conv2D({.filters = 4, .pad = Padding::same()})}), Layer(rows),
       Dense(16), PositionEmbedding(), MultiHeadAttention({.heads = 2}), LayerNormalization(),
       LSTM({.units = 8, .return_sequences = true}), GRU({.units = 8}), Dropout(0.5), Dense(5)});
}

FitOptions quiet(int epochs, std::uint64_t seed) {
  FitOptions o;
  o.epochs = epochs;
  o.batch = 16;
  o.seed = seed;
  o.verbose = Verbose::silent;
  return o;
}

/// The weights after a training of all that draws numbers: a CNN with batch normalization, dropout and augmentation, or
/// a GRU.
std::vector<Tensor> trained(int which) {
  const auto seed = static_cast<std::uint64_t>(which + 1);
  manual_seed(seed);
  Generator random(seed);
  Dataset data{uniform({96, 12, 12, 1}, 0, 1, f32, random), Tensor::empty({96}, u8)};
  for (std::size_t i = 0; i < 96; ++i)
    data.labels.mutable_values<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * seed % 5);
  const auto rows = [](const Tensor& x) { return reshape(x, {x.size(0), 12, 12}); };
  Sequential net = which % 2 ? Sequential({Layer(rows), GRU({.units = 16}), Dropout(0.2), Dense(5)})
                             : Sequential({Conv2D({.filters = 16, .activation = relu}), MaxPool2D(2),
                                           BatchNormalization(), Flatten(), Dropout(0.3), Dense(5)});
  FitOptions o = quiet(3, seed);
  if (which % 2 == 0) o.augment = [augment = Augment()](const Tensor& x) { return augment(x); };
  fit(net, Adam(), data, o);
  std::vector<Tensor> out;
  for (const NamedTensor& t : named_tensors(net)) out.push_back(t.tensor->clone());
  return out;
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  bool all = a.size() == b.size() && !a.empty();
  for (std::size_t i = 0; all && i < a.size(); ++i) all = same_bits(a[i], b[i]);
  return all;
}

}  // namespace

TEST_CASE("concurrent: a model that no thread has used yet is built once, and all get its outputs") {
  const testing::Threads restore(2);
  const Tensor x = uniform({6, 12, 12, 1}, -1, 1);
  for (int round = 0; round < 20; ++round) {
    Sequential net = mixed();
    std::vector<Tensor> outputs(4);
    at_once(4, [&](int i) { outputs[static_cast<std::size_t>(i)] = predict(net, x, {.batch = 4}); });
    const Tensor expected = predict(net, x, {.batch = 4});
    for (const Tensor& y : outputs) CHECK(same_bits(y, expected));
    CHECK(net.layers()[0]->name() == "conv2d");
    CHECK(named_parameters(net).front().path == "layers.0.weight");
  }
}

namespace {
std::atomic<int> made = 0;
Tensor slow_init(const Shape& shape, DType dtype) {
  ++made;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return uniform(shape, -1, 1, dtype);
}
}  // namespace

TEST_CASE("concurrent: parameters are made once, by the first of several threads") {
  for (const bool joins : {false, true}) {
    made = 0;
    Sequential net({Conv2D({.filters = 4, .activation = relu, .weight_init = slow_init})});
    if (joins) net.add(MaxPool2D(2));
    net.add(Flatten());
    net.add(Dense({.units = 3, .weight_init = slow_init}));
    const Tensor x = uniform({2, 8, 8, 1}, -1, 1);
    std::vector<Tensor> outputs(4);
    at_once(4, [&](int i) { outputs[static_cast<std::size_t>(i)] = predict(net, x); });
    CHECK(made == 2);
    for (const Tensor& y : outputs) CHECK(same_bits(y, predict(net, x)));
  }
}

TEST_CASE("concurrent: a branch that the first pass did not take is built once too") {
  struct Branching : Module {
    Dense always{4, relu}, sometimes{4}, head{3};
    MultiHeadAttention look{{.heads = 2}};
    Tensor raw;
    Tensor forward(const Tensor& x) override {
      if (!raw.defined()) raw = make_parameter(glorot_uniform, {4, 4}, x, "raw");
      const Tensor h = always(x);
      return head(look(matmul(x.size(0) % 2 ? h + sometimes(h) : h, raw)));
    }
    void visit(Visitor& v) override {
      v("always", always), v("sometimes", sometimes), v("head", head), v("look", look), v("raw", raw);
    }
  };
  const Tensor x = uniform({7, 3, 4}, -1, 1);
  for (int round = 0; round < 25; ++round) {
    Branching net;
    std::vector<Tensor> outputs(4);
    const auto batch = [](int i) { return PredictOptions{.batch = 3 + i % 2}; };
    at_once(4, [&](int i) { outputs[static_cast<std::size_t>(i)] = predict(net, x, batch(i)); });
    for (int i = 0; i < 4; ++i) CHECK(same_bits(outputs[static_cast<std::size_t>(i)], predict(net, x, batch(i))));
  }
}

TEST_CASE("concurrent: a first pass that fails is tried again by who comes next") {
  Sequential net({Conv2D({.filters = 4}), Flatten(), Dense(3)});
  std::atomic<int> failed = 0, good = 0;
  at_once(4, [&](int i) {
    try {
      predict(net, i % 2 ? ones({2, 8}) : ones({2, 8, 8, 1}));
      ++good;
    } catch (const ShapeError&) {
      ++failed;
    }
  });
  CHECK(failed == 2);
  CHECK(good == 2);
}

TEST_CASE("concurrent: predict, evaluate and gradients of one model by several threads") {
  const testing::Threads restore(2);
  Sequential net = mixed();
  const Dataset data{uniform({24, 12, 12, 1}, -1, 1), cast(uniform({24}, 0, 5), u8), 1};
  const Tensor expected = predict(net, data.inputs);
  const double loss = evaluate(net, data).loss;
  const auto gradients = [&] {
    const Training fixed(false);  // its averages stay as they are
    const Gradients all = backward(sum(square(net(data.inputs))));
    std::vector<Tensor> out;
    for (const Tensor& p : parameters(net)) out.push_back(all[p]);
    return out;
  };
  const std::vector<Tensor> right = gradients();
  std::atomic<int> wrong = 0;
  at_once(4, [&](int i) {
    for (int k = 0; k < 5; ++k) {
      if (i % 2 ? !same_bits(predict(net, data.inputs), expected) : !same(gradients(), right)) ++wrong;
      if (evaluate(net, data).loss != loss) ++wrong;
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("concurrent: trainings side by side give the bits of each alone, for any number of threads") {
  const testing::Threads restore(1);
  std::vector<std::vector<Tensor>> alone;
  for (int i = 0; i < 4; ++i) alone.push_back(trained(i));
  CHECK(!same(alone[0], alone[2]));
  for (const int n : {1, 2, 3}) {
    set_threads(n);
    std::vector<std::vector<Tensor>> together(4);
    at_once(4, [&](int i) { together[static_cast<std::size_t>(i)] = trained(i); });
    for (std::size_t i = 0; i < 4; ++i) CHECK(same(together[i], alone[i]));
  }
}

TEST_CASE("concurrent: a child of a fork trains to the same bits while its parent trains") {
  const testing::Threads restore(2);
  const std::vector<Tensor> alone = trained(0);
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) trained(1);
  });
  for (int k = 0; k < 3; ++k) CHECK(testing::in_child([&] { return same(trained(0), alone); }));
  stop = true;
  other.join();
}

TEST_CASE("concurrent: memory is as large after 50 epochs as after 10") {
  const testing::Threads restore(2);
  struct Use {
    std::size_t resident = 0;  // KiB
    MemoryStats stats;
  };
  const auto use = [] {
    Use now{.stats = memory_stats()};
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> now.resident;
    now.resident *= static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
    return now;
  };
  Use early, late;
  Dataset data{uniform({64, 12, 12, 1}, 0, 1), cast(uniform({64}, 0, 5), u8)};
  Sequential net({Conv2D({.filters = 8, .activation = relu}), MaxPool2D(2), BatchNormalization(), Flatten(),
                  Dropout(0.3), Dense(5)});
  FitOptions o = quiet(50, 1);
  o.validation = data;
  o.augment = [augment = Augment()](const Tensor& x) { return augment(x); };
  o.callbacks = {[&](TrainingState& s) {
    if (s.epoch == 9) early = use();
    if (s.epoch == 49) late = use();
  }};
  CHECK(fit(net, Adam(), data, o).epochs() == 50);
  CHECK(late.stats.in_use == early.stats.in_use);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // these keep what was freed
  CHECK(late.stats.system_requests <= early.stats.system_requests + 4);
  CHECK(late.resident <= early.resident + 1024);
#endif
}
