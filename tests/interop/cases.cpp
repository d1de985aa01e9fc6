// Writes models of every kind of layer as ONNX, each with an input and the output that ebb computes for it, for
// tests/interop/run to compare with other runtimes: NAME.onnx and NAME.safetensors in the folder that is given.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ebb/ebb.h>
#include <ebb/models/exchange/onnx.h>
#include <ebb/models/files/safetensors.h>

using namespace ebb;

namespace {

struct Case {
  std::string name;
  Shape sample;
  std::shared_ptr<Module> net;
  DType input = f32;
};

/// Parameters that are not at their start, so that what forgets a bias or a running mean is seen.
void shake(Module& net, const Shape& sample, DType input) {
  build(net, sample, input);
  for (const NamedTensor& t : named_tensors(net)) {
    const bool variance = t.path.ends_with("running_var");
    t.tensor->assign(variance ? uniform(t.tensor->shape(), 0.5, 2)
                              : t.tensor->detach() + normal(t.tensor->shape(), 0, 0.1));
  }
}

class FunctionOf : public Module {
 public:
  explicit FunctionOf(std::function<Tensor(const Tensor&)> f) : f_(std::move(f)) {}
  Tensor forward(const Tensor& x) override { return f_(x); }

 private:
  std::function<Tensor(const Tensor&)> f_;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto layers = [&](std::string name, Shape sample, std::initializer_list<Layer> list, DType input = f32) {
    all.push_back({std::move(name), sample, std::make_shared<Sequential>(list), input});
  };
  const auto function = [&](std::string name, Shape sample, std::function<Tensor(const Tensor&)> f) {
    all.push_back({std::move(name), sample, std::make_shared<FunctionOf>(std::move(f)), f32});
  };
  const Shape image{9, 8, 3}, row{6}, steps{5, 4};
  const Padding same = Padding::same();

  layers("net_mlp", {28, 28, 1}, {Flatten(), Dense(64, relu), Dropout(0.2), Dense(10)});
  layers("net_cnn", {28, 28, 1},
         {Conv2D({.filters = 8, .activation = relu}), MaxPool2D(2), Conv2D({.filters = 8, .activation = relu}),
          MaxPool2D(2), Flatten(), Dense(32, relu), Dense(10, softmax)});
  layers("net_best", {28, 28, 1},
         {Conv2D(Conv2DOptions{.filters = 8}), BatchNormalization(), relu, Conv2D(Conv2DOptions{.filters = 8}),
          BatchNormalization(), relu, MaxPool2D(2), Flatten(), Dropout(0.3), Dense(10)});
  layers(
      "net_residual", image,
      {Conv2D({.filters = 4, .pad = same, .activation = relu}),
       Residual({Conv2D({.filters = 4, .pad = same, .activation = relu}), Conv2D({.filters = 4, .pad = same})}), relu,
       Residual({Conv2D({.filters = 6, .stride = 2, .pad = same}), BatchNormalization()},
                {Conv2D({.filters = 6, .kernel = 1, .stride = 2})}),
       relu, GlobalAvgPool2D(), Dense(5)});
  layers("net_attention", steps,
         {PositionEmbedding(), Residual({LayerNormalization(), MultiHeadAttention(2)}),
          Residual({LayerNormalization(), Dense(8, gelu), Dense(4)}), LayerNormalization(), Flatten(), Dense(3)});

  layers("dense", row, {Dense(5)});
  layers("dense_no_bias", row, {Dense({.units = 5, .activation = relu, .use_bias = false})});
  layers("dense_sequence", steps, {Dense(5, tanh)});
  layers("conv", image, {Conv2D({.filters = 5})});
  layers("conv_same_stride", image,
         {Conv2D({.filters = 5, .kernel = {3, 2}, .stride = 2, .pad = same, .activation = relu})});
  layers("conv_pad_dilation", image, {Conv2D({.filters = 5, .pad = Pair{2, 1}, .dilation = 2, .use_bias = false})});
  layers("conv_groups", {9, 8, 4}, {Conv2D({.filters = 6, .pad = same, .groups = 2, .activation = relu})});
  layers("conv_relu_pool", image, {Conv2D({.filters = 5, .activation = relu}), MaxPool2D(2)});
  layers("depthwise", image, {DepthwiseConv2D({.stride = 2, .pad = same})});
  layers("depthwise_multiplier", image, {DepthwiseConv2D({.multiplier = 2, .activation = relu})});
  layers("conv_transpose", image, {Conv2DTranspose({.filters = 4, .stride = 2, .pad = same})});
  layers("conv_transpose_valid", image,
         {Conv2DTranspose({.filters = 4, .kernel = 2, .stride = 3, .activation = relu})});
  layers("max_pool", image, {MaxPool2D({.size = 3, .stride = 2, .pad = same})});
  layers("avg_pool", image, {AvgPool2D({.size = 3, .stride = 2, .pad = 1})});
  layers("global_avg_pool", image, {Conv2D(Conv2DOptions{.filters = 4}), GlobalAvgPool2D()});
  layers("global_max_pool", image, {Conv2D(Conv2DOptions{.filters = 4}), GlobalMaxPool2D()});
  layers("flatten", image, {Conv2D(Conv2DOptions{.filters = 4}), Flatten()});
  layers("reshape", {24}, {Reshape({4, 3, 2}), Conv2D({.filters = 3, .kernel = 2})});
  layers("dropout", row, {Dropout(0.5), Dense(3), Dropout(0.5)});
  layers("spatial_dropout", image, {SpatialDropout2D(0.5), Conv2D(Conv2DOptions{.filters = 2})});
  layers("batch_norm_rows", row, {BatchNormalization()});
  layers("batch_norm_image", image, {Conv2D(Conv2DOptions{.filters = 4}), BatchNormalization(), relu});
  layers("layer_norm", steps, {LayerNormalization()});
  layers("group_norm", {4, 5, 6}, {GroupNormalization({.groups = 3})});
  layers("embedding", {5}, {Embedding({.size = 11, .units = 4}), GRU(3)}, i64);
  layers("embedding_float", {5}, {Embedding({.size = 11, .units = 4})});
  layers("residual", row, {Residual({Dense(6, relu)})});
  layers("concat", image,
         {Concat({Conv2D({.filters = 3, .kernel = 1}),
                  Sequential({MaxPool2D({.size = 3, .stride = 1, .pad = 1}), relu})})});
  layers("simple_rnn", steps, {SimpleRNN({.units = 3, .return_sequences = true})});
  layers("gru", steps, {GRU({.units = 3, .return_sequences = true}), GRU(2)});
  layers("lstm", steps, {LSTM({.units = 3, .return_sequences = true}), LSTM(2)});
  layers("attention", steps, {MultiHeadAttention(2)});
  layers("attention_causal", steps, {MultiHeadAttention({.heads = 2, .key_dim = 3, .causal = true})});
  layers("position_embedding", steps, {PositionEmbedding()});
  for (const std::string& name : activation_names()) {
    const Activation f = activation_of(name);
    if (!f) continue;
    layers("act_" + name, row, {Dense(5), f});
    layers("act_image_" + name, image, {Conv2D(Conv2DOptions{.filters = 4}), f});
  }

  function("op_arithmetic", row,
           [](const Tensor& x) { return (x * x - 2.0 * x + 3.0) / (square(x) + 1.0) + reciprocal(x + 9.0) - x; });
  function("op_powers", row, [](const Tensor& x) {
    return pow(abs(x) + 0.1, 1.5) + pow(abs(x) + 0.5, x) + sqrt(abs(x)) + log(abs(x) + 1.0) + log1p(square(x)) +
           rsqrt(abs(x) + 0.5);
  });
  function("op_waves", row, [](const Tensor& x) { return sin(x) + cos(x) + exp(-x) + erf(x) + softplus(x); });
  function("op_choice", row, [](const Tensor& x) {
    return where(greater(x, 0.0), maximum(x, scalar(0.5)), minimum(x, scalar(-0.5))) + clip(x, -1, 1);
  });
  function("op_compare", row, [](const Tensor& x) { return cast(less(x, 0.3), f32) + cast(equal(x, x), f32); });
  function("op_reduce", steps, [](const Tensor& x) {
    return sum(x, 1) + mean(x, 1) + max(x, 1) + min(x, 1) + variance(x, {1}) + logsumexp(x, 1);
  });
  function("op_reduce_image", image, [](const Tensor& x) {
    const Tensor y = avg_pool2d(x);
    return sum(y * mean(y, 3, {.keepdims = true}), {1, 2}) + max(y, {1, 2});
  });
  function("op_layout", steps, [](const Tensor& x) {
    return concat({transpose(x, {0, 2, 1}), pad(slice(transpose(x, {0, 2, 1}), {.axis = 2, .begin = 1, .step = 2}),
                                                {.axis = 2, .before = 1, .after = 2})},
                  2);
  });
  function("op_slice_image", image, [](const Tensor& x) {
    const Tensor y = max_pool2d(x, {.size = 2, .stride = 1});
    return concat({pad(slice(y, {.axis = 1, .begin = 2}), {.axis = 2, .before = 1}),
                   pad(slice(y, {.axis = 1, .end = 6}), {.axis = 2, .after = 1})},
                  3);
  });
  function("op_class_token", steps, [](const Tensor& x) {
    return concat({broadcast_to(tensor({1, 2, 3, 4}, Shape{1, 1, 4}), {x.size(0), 1, 4}), x}, 1);
  });
  function("op_broadcast", row, [](const Tensor& x) {
    return broadcast_to(reshape(x, {-1, 1, 6}), {x.size(0), 3, 6});
  });
  function("op_matmul", steps, [](const Tensor& x) { return matmul(matmul(x, x, {.transpose_b = true}), x); });
  function("op_index", steps, [](const Tensor& x) {
    const Tensor best = argmax(x);
    return concat({stack(std::vector<Tensor>{pick(x, best)}, 2), one_hot(best, 4)}, 2);
  });
  function("op_im2col", image, [](const Tensor& x) {
    return im2col(x, {2, 3}, {.stride = 2, .pad = Padding::same()});
  });
  function("op_conv_plain", image,
           [k = randn({3, 3, 3, 4})](const Tensor& x) { return conv2d_plain(x, k, {.stride = 2}); });
  function("op_batch_norm", steps, [](const Tensor& x) {
    return batch_norm(x, tensor({1, 2, 3, 4}), tensor({4, 3, 2, 1}));
  });
  function("op_mean_over_batch", row, [](const Tensor& x) { return x - mean(x, 0); });
  function("op_log_softmax", row, [](const Tensor& x) { return log_softmax(x); });
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: interop_cases FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  manual_seed(5);
  int failed = 0;
  for (const Case& c : cases()) try {
      shake(*c.net, c.sample, c.input);
      const Tensor x = c.input == i64 || c.name.starts_with("embedding")
                           ? cast(cast(uniform(c.sample.inserted(0, 4), 0, 11), i64), c.input)
                           : randn(c.sample.inserted(0, 4));
      export_onnx(*c.net, folder / (c.name + ".onnx"), c.sample, {.input = c.input});
      const NoGrad quiet;
      write_safetensors(folder / (c.name + ".safetensors"), {{}, {{"input", x}, {"output", (*c.net)(x).detach()}}});
      std::puts(c.name.c_str());
    } catch (const Error& e) {
      std::fprintf(stderr, "%s: %s\n", c.name.c_str(), e.what());
      ++failed;
    }
  return failed ? 1 : 0;
}
