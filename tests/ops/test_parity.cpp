// Values, gradients and optimizer trajectories against PyTorch's, from vectors that parity.py wrote. EBB_PARITY names
// another file of vectors.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include <ebb/autograd/backward.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/ops/ops.h>

#include "op_table.h"

using namespace ebb;
using ebb::testing::distance;
using nlohmann::json;

namespace {

json vectors() {
  const char* other = std::getenv("EBB_PARITY");
  std::ifstream in(other ? other : EBB_SOURCE_DIR "/tests/parity.json");
  REQUIRE(in.good());
  return json::parse(in);
}

Tensor tensor_of(const json& j) {
  return Tensor::from(j["values"].get<std::vector<double>>(), Shape(j["shape"].get<std::vector<std::int64_t>>()));
}

using ebb::testing::In;

/// A layer on x[0] with the other inputs as its parameters, in the order of visit.
template <class L>
std::function<Tensor(In)> layer(const L& like) {
  return [options = like.options()](In x) {
    L made(options);
    made(x[0].detach());  // makes the parameters
    std::size_t i = 0;
    for (const NamedTensor& t : named_tensors(made))
      if (t.trained) *t.tensor = x[++i];
    return made(x[0]);
  };
}

const std::map<std::string, std::function<Tensor(In)>> layers{
    {"batch_norm", layer(BatchNormalization())},
    {"layer_norm", layer(LayerNormalization())},
    {"group_norm", layer(GroupNormalization({.groups = 2}))},
    {"conv2d_grouped", layer(Conv2D({.filters = 6, .kernel = {3, 2}, .stride = 2, .groups = 2, .use_bias = false}))},
    {"conv2d_transposed",
     layer(Conv2DTranspose({.filters = 2, .kernel = 4, .stride = 2, .pad = 1, .use_bias = false}))},
    {"rnn", layer(SimpleRNN({.units = 2, .return_sequences = true}))},
    {"gru", layer(GRU({.units = 2, .return_sequences = true}))},
    {"lstm", layer(LSTM({.units = 2, .return_sequences = true}))},
    {"attention", layer(MultiHeadAttention({.heads = 2, .causal = true}))},
};

std::unique_ptr<Optimizer> optimizer_of(const std::string& name) {
  if (name == "sgd") return std::make_unique<SGD>(SGDOptions{.lr = 0.01});
  if (name == "sgd_momentum") return std::make_unique<SGD>(SGDOptions{.lr = 0.01, .momentum = 0.9});
  if (name == "sgd_nesterov") return std::make_unique<SGD>(SGDOptions{.lr = 0.01, .momentum = 0.9, .nesterov = true});
  if (name == "rmsprop") return std::make_unique<RMSprop>(RMSpropOptions{.epsilon_inside_sqrt = false});
  if (name == "rmsprop_centered")
    return std::make_unique<RMSprop>(RMSpropOptions{.centered = true, .epsilon_inside_sqrt = false});
  if (name == "rmsprop_momentum")
    return std::make_unique<RMSprop>(RMSpropOptions{.momentum = 0.9, .epsilon_inside_sqrt = false});
  if (name == "adam") return std::make_unique<Adam>(AdamOptions{.epsilon = 1e-14});
  if (name == "adamw") return std::make_unique<AdamW>(AdamWOptions{.epsilon = 1e-14, .weight_decay = 0.1});
  if (name == "adagrad") return std::make_unique<Adagrad>(AdagradOptions{.lr = 0.01, .epsilon = 0});
  return nullptr;
}

}  // namespace

namespace {

/// Largest differences from one vector in value and gradients, in float64 and float32.
struct Worst {
  double f64 = 0, f32 = 0;
  void compare(const std::function<Tensor(In)>& f, const json& v) {
    for (const DType t : {ebb::f64, ebb::f32}) {
      std::vector<Tensor> x;
      for (const json& in : v["inputs"]) x.push_back(variable(cast(tensor_of(in), t)));
      const Tensor y = f(x);
      const std::vector<Tensor> g = grad(y, x, {.cotangent = cast(tensor_of(v["cotangent"]), y.dtype())});
      double worst = distance(cast(y.detach(), ebb::f64), tensor_of(v["output"]));
      for (std::size_t i = 0; i < g.size(); ++i)
        worst = std::max(worst, distance(cast(g[i], ebb::f64), tensor_of(v["gradients"][i])));
      CHECK(worst <= (t == ebb::f64 ? 1e-12 : 1e-5));
      (t == ebb::f64 ? f64 : f32) = std::max(t == ebb::f64 ? f64 : f32, worst);
    }
  }
};

const std::string write_again =
    "tests/parity.py --ops build/release/gradcheck tests/parity.json writes the vectors again (it needs python3-torch)";

}  // namespace

TEST_CASE("parity: values and gradients of ops and losses, float64 to 1e-12 and float32 to 1e-5") {
  const json all = vectors();
  Worst worst;
  const std::vector<ebb::testing::Parity> cases = ebb::testing::parity_cases();
  for (const auto& [name, row, c, torch] : cases) {
    CAPTURE(name);
    if (const auto v = all["ops"].find(name); v == all["ops"].end() || (*v)["torch"] != torch)
      FAIL_CHECK("tests/parity.json has no vector of " << name << " as " << torch << ": " << write_again);
    else worst.compare(row.function(c), *v);
  }
  CHECK_MESSAGE(all["ops"].size() == cases.size(), "tests/parity.json has vectors of no case: " << write_again);
  MESSAGE("parity with " << all["source"].get<std::string>() << ": " << cases.size()
                         << " cases of ops, largest difference " << worst.f64 << " in float64, " << worst.f32
                         << " in float32");
}

TEST_CASE("parity: values and gradients of layers") {
  const json all = vectors();
  CHECK(all["layers"].size() == layers.size());
  Worst worst;
  for (const auto& [name, v] : all["layers"].items()) {
    CAPTURE(name);
    REQUIRE(layers.contains(name));
    worst.compare(layers.at(name), v);
  }
  MESSAGE("parity: " << layers.size() << " layers, largest difference " << worst.f64 << " in float64, " << worst.f32
                     << " in float32");
}

TEST_CASE("parity: 100 steps of each optimizer, to 1e-12") {
  const json all = vectors();
  const Tensor a = tensor_of(all["valley"]["a"]);
  CHECK(all["optimizers"].size() == 9);
  double worst = 0;
  for (const auto& [name, path] : all["optimizers"].items()) {
    CAPTURE(name);
    double difference = 0;
    const auto optimizer = optimizer_of(name);
    REQUIRE(optimizer);
    std::vector<Tensor> w{variable(tensor_of(all["valley"]["start"]).clone())};
    for (std::size_t step = 0; step < 100; ++step) {
      const Tensor column = reshape(w[0], {4, 1});
      optimizer->step(w, backward(sum(pow(matmul(a, column), 4.0)) + 0.5 * sum(square(column)) + 9.0 * sum(column)));
      if (step % 10 != 9) continue;
      difference =
          std::max(difference, distance(w[0].detach(), Tensor::from(path[step / 10].get<std::vector<double>>(), {4})));
    }
    CHECK(difference <= 1e-12);
    worst = std::max(worst, difference);
  }
  MESSAGE("parity: " << all["optimizers"].size() << " configurations of optimizers over 100 steps, largest difference "
                     << worst);
}
