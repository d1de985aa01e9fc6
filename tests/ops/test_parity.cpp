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

using In = std::span<const Tensor>;
const Tensor labels = tensor({2, 0, 1, 2}, i64), row_indices = tensor({3, 0, 3, 1}, i64);
Tensor shares(DType t) { return cast(tensor({.2, .3, .5, 1, 0, 0, .1, .8, .1, .3, .3, .4}, {4, 3}, f64), t); }

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

const std::map<std::string, std::function<Tensor(In)>> ops{
    {"add", [](In x) { return x[0] + x[1]; }},
    {"sub", [](In x) { return x[0] - x[1]; }},
    {"mul", [](In x) { return x[0] * x[1]; }},
    {"div", [](In x) { return x[0] / x[1]; }},
    {"pow", [](In x) { return pow(x[0], x[1]); }},
    {"pow_scalar", [](In x) { return pow(x[0], 2.5); }},
    {"maximum", [](In x) { return maximum(x[0], x[1]); }},
    {"minimum", [](In x) { return minimum(x[0], x[1]); }},
    {"exp", [](In x) { return exp(x[0]); }},
    {"log", [](In x) { return log(x[0]); }},
    {"log1p", [](In x) { return log1p(x[0]); }},
    {"sqrt", [](In x) { return sqrt(x[0]); }},
    {"square", [](In x) { return square(x[0]); }},
    {"reciprocal", [](In x) { return reciprocal(x[0]); }},
    {"abs", [](In x) { return abs(x[0]); }},
    {"sin", [](In x) { return sin(x[0]); }},
    {"cos", [](In x) { return cos(x[0]); }},
    {"erf", [](In x) { return erf(x[0]); }},
    {"tanh", [](In x) { return tanh(x[0]); }},
    {"sigmoid", [](In x) { return sigmoid(x[0]); }},
    {"softplus", [](In x) { return softplus(x[0]); }},
    {"relu", [](In x) { return relu(x[0]); }},
    {"leaky_relu", [](In x) { return leaky_relu(x[0], 0.3); }},
    {"elu", [](In x) { return elu(x[0]); }},
    {"selu", [](In x) { return selu(x[0]); }},
    {"gelu", [](In x) { return gelu(x[0]); }},
    {"silu", [](In x) { return silu(x[0]); }},
    {"clip", [](In x) { return clip(x[0], -0.5, 0.5); }},
    {"sum", [](In x) { return sum(x[0], 1); }},
    {"mean",
     [](In x) {
       return mean(x[0], {0, 2});
     }},
    {"max", [](In x) { return max(x[0], 1); }},
    {"min", [](In x) { return min(x[0], 1); }},
    {"variance", [](In x) { return variance(x[0], 1); }},
    {"logsumexp", [](In x) { return logsumexp(x[0], 1); }},
    {"transpose",
     [](In x) {
       return transpose(x[0], {2, 0, 1});
     }},
    {"slice", [](In x) { return slice(x[0], {.axis = 1, .begin = 1, .end = 6, .step = 2}); }},
    {"pad", [](In x) { return pad(x[0], {.axis = 1, .before = 1, .after = 2}); }},
    {"concat", [](In x) { return concat(x, 1); }},
    {"stack", [](In x) { return stack(x, 1); }},
    {"gather", [](In x) { return gather(x[0], row_indices); }},
    {"pick", [](In x) { return pick(x[0], labels); }},
    {"matmul", [](In x) { return matmul(x[0], x[1]); }},
    {"matmul_tt", [](In x) { return matmul(x[0], x[1], {.transpose_a = true, .transpose_b = true}); }},
    {"matmul_batch", [](In x) { return matmul(x[0], x[1]); }},
    {"linear", [](In x) { return linear(x[0], x[1], x[2]); }},
    {"conv2d", [](In x) { return conv2d(x[0], x[1]); }},
    {"conv2d_stride_pad", [](In x) { return conv2d(x[0], x[1], {.stride = 2, .pad = 1}); }},
    {"conv2d_dilation", [](In x) { return conv2d(x[0], x[1], {.dilation = 2}); }},
    {"conv2d_same", [](In x) { return conv2d(x[0], x[1], {.stride = 2, .pad = Padding::same()}); }},
    {"max_pool2d", [](In x) { return max_pool2d(x[0]); }},
    {"max_pool2d_overlap", [](In x) { return max_pool2d(x[0], {.size = 3, .stride = 1}); }},
    {"avg_pool2d", [](In x) { return avg_pool2d(x[0]); }},
    {"avg_pool2d_pad", [](In x) { return avg_pool2d(x[0], {.size = 3, .stride = 2, .pad = 1}); }},
    {"softmax", [](In x) { return softmax(x[0]); }},
    {"log_softmax", [](In x) { return log_softmax(x[0]); }},
    {"cross_entropy", [](In x) { return cross_entropy(x[0], labels); }},
    {"cross_entropy_smooth", [](In x) { return cross_entropy(x[0], labels, {.label_smoothing = 0.1}); }},
    {"cross_entropy_shares", [](In x) { return cross_entropy(x[0], shares(x[0].dtype())); }},
    {"bce_with_logits", [](In x) { return bce_with_logits(x[0], x[1]); }},
    {"mse", [](In x) { return mse(x[0], x[1]); }},
    {"mae", [](In x) { return mae(x[0], x[1]); }},
    {"huber", [](In x) { return huber(x[0], x[1], 0.4); }},
    {"kl_divergence", [](In x) { return kl_divergence(x[0], x[1]); }},
    {"cross_entropy_weights",
     [](In x) {
       return cross_entropy(x[0], labels, {.class_weights = tensor({0.5, 2, 1.5}, x[0].dtype())});
     }},
    {"batch_norm", layer(BatchNormalization())},
    {"layer_norm", layer(LayerNormalization())},
    {"group_norm", layer(GroupNormalization({.groups = 2}))},
    {"conv2d_grouped", layer(Conv2D({.filters = 6, .kernel = {3, 2}, .stride = 2, .groups = 2, .use_bias = false}))},
    {"conv2d_depthwise", [](In x) { return conv2d_grouped(x[0], x[1], 3, {.pad = 1}); }},
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
  if (name == "rmsprop") return std::make_unique<RMSprop>(RMSpropOptions{.eps_inside_sqrt = false});
  if (name == "rmsprop_centered")
    return std::make_unique<RMSprop>(RMSpropOptions{.centered = true, .eps_inside_sqrt = false});
  if (name == "rmsprop_momentum")
    return std::make_unique<RMSprop>(RMSpropOptions{.momentum = 0.9, .eps_inside_sqrt = false});
  if (name == "adam") return std::make_unique<Adam>(AdamOptions{.eps = 1e-14});
  if (name == "adamw") return std::make_unique<AdamW>(AdamWOptions{.eps = 1e-14, .weight_decay = 0.1});
  if (name == "adagrad") return std::make_unique<Adagrad>(AdagradOptions{.lr = 0.01, .eps = 0});
  return nullptr;
}

}  // namespace

TEST_CASE("parity: values and gradients of ops and losses, float64 to 1e-12 and float32 to 1e-5") {
  const json all = vectors();
  CHECK(all["ops"].size() == ops.size());
  double worst64 = 0, worst32 = 0;
  for (const auto& [name, v] : all["ops"].items()) {
    CAPTURE(name);
    REQUIRE(ops.contains(name));
    for (const DType t : {f64, f32}) {
      std::vector<Tensor> x;
      for (const json& in : v["inputs"]) x.push_back(variable(cast(tensor_of(in), t)));
      const Tensor y = ops.at(name)(x);
      const std::vector<Tensor> g = grad(y, x, {.cotangent = cast(tensor_of(v["cotangent"]), t)});
      double worst = distance(cast(y.detach(), f64), tensor_of(v["output"]));
      for (std::size_t i = 0; i < g.size(); ++i)
        worst = std::max(worst, distance(cast(g[i], f64), tensor_of(v["gradients"][i])));
      CHECK(worst <= (t == f64 ? 1e-12 : 1e-5));
      (t == f64 ? worst64 : worst32) = std::max(t == f64 ? worst64 : worst32, worst);
    }
  }
  MESSAGE("parity with " << all["source"].get<std::string>() << ": " << ops.size() << " ops, largest difference "
                         << worst64 << " in float64, " << worst32 << " in float32");
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
