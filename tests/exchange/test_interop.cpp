// Weights in the names and layouts of PyTorch and Keras. What PyTorch makes of them is compared in tests/interop.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/exchange/foreign.h>
#include <ebb/models/exchange/interop.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/layer_kinds.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/ops/ops.h>
#ifdef EBB_HDF5
#include <ebb/models/exchange/hdf5.h>
#endif

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "temp_dir.h"

using namespace ebb;

namespace {

std::vector<std::string> names(Naming naming, Sequential& net) {
  std::vector<std::string> out;
  for (const auto& [name, _] : named_as(naming, net)) out.push_back(name);
  return out;
}
using Names = std::vector<std::string>;

/// Counts up from 0 in each parameter.
void count_up(Sequential& net) {
  for (const NamedTensor& t : named_tensors(net))
    t.tensor->assign(arange(t.tensor->numel()).viewed_as(t.tensor->shape()));
}

const std::vector<Layer> image_net{
    Conv2D({.filters = 4, .activation = relu}),
    MaxPool2D(2),
    DepthwiseConv2D({.kernel = 2, .multiplier = 2}),
    BatchNormalization(),
    relu,
    Residual({Conv2D({.filters = 8, .kernel = 1, .activation = relu}), Conv2D({.filters = 8, .kernel = 1})}),
    Flatten(),
    Dropout(0.5),
    Dense(5, tanh),
    Dense(2)};
const Shape image{10, 9, 3};

}  // namespace

TEST_CASE("interop: PyTorch's names count activations as modules") {
  Sequential net(image, image_net);
  CHECK(names(Naming::torch, net) == Names{"0.bias", "0.weight", "11.bias", "11.weight", "3.bias", "3.weight", "4.bias",
                                           "4.num_batches_tracked", "4.running_mean", "4.running_var", "4.weight",
                                           "6.body.0.bias", "6.body.0.weight", "6.body.2.bias", "6.body.2.weight",
                                           "9.bias", "9.weight"});  // dense 9, tanh 10, dense 11
  Sequential pooled({4, 4, 1}, {GlobalAvgPool2D(), Dense(2)});
  CHECK(names(Naming::torch, pooled) == Names{"2.bias", "2.weight"});
  Sequential branches(
      {4, 4, 1}, {Concat({Conv2D({.filters = 2, .activation = relu}),
                          Sequential({MaxPool2D({.size = 3, .stride = 1}), Conv2D({.filters = 2, .kernel = 1})})})});
  CHECK(names(Naming::torch, branches) ==
        Names{"0.branches.0.0.bias", "0.branches.0.0.weight", "0.branches.1.1.bias", "0.branches.1.1.weight"});
}

TEST_CASE("interop: Keras' names count each kind") {
  Sequential net(image, image_net);
  CHECK(names(Naming::keras, net) ==
        Names{"batch_normalization/beta", "batch_normalization/gamma", "batch_normalization/moving_mean",
              "batch_normalization/moving_variance", "conv2d/bias", "conv2d/kernel", "conv2d_1/bias", "conv2d_1/kernel",
              "conv2d_2/bias", "conv2d_2/kernel", "dense/bias", "dense/kernel", "dense_1/bias", "dense_1/kernel",
              "depthwise_conv2d/bias", "depthwise_conv2d/kernel"});
  Sequential words({4}, {Embedding({.size = 5, .units = 4}), LayerNormalization(), MultiHeadAttention(2), GRU(3)});
  CHECK(names(Naming::keras, words) ==
        Names{"embedding/embeddings", "gru/bias", "gru/kernel", "gru/recurrent_kernel", "layer_normalization/beta",
              "layer_normalization/gamma", "multi_head_attention/attention_output/bias",
              "multi_head_attention/attention_output/kernel", "multi_head_attention/key/bias",
              "multi_head_attention/key/kernel", "multi_head_attention/query/bias", "multi_head_attention/query/kernel",
              "multi_head_attention/value/bias", "multi_head_attention/value/kernel"});
  const auto w = named_as(Naming::keras, words);
  CHECK(w.at("gru/bias").shape() == Shape{2, 9});
  CHECK(w.at("multi_head_attention/query/kernel").shape() == Shape{4, 2, 2});
  CHECK(w.at("multi_head_attention/attention_output/kernel").shape() == Shape{2, 2, 4});
}

TEST_CASE("interop: PyTorch's layouts, element by element") {
  Sequential dense({2}, {Dense(3)});
  count_up(dense);
  CHECK(same_bits(named_as(Naming::torch, dense).at("0.weight"), tensor({0, 3, 1, 4, 2, 5}, {3, 2})));

  Sequential conv({3, 3, 2}, {Conv2D({.filters = 2, .kernel = {1, 2}})});
  count_up(conv);  // (1, 2, 2, 2): value 4 w + 2 in + out
  CHECK(same_bits(named_as(Naming::torch, conv).at("0.weight"), tensor({0, 4, 2, 6, 1, 5, 3, 7}, {2, 2, 1, 2})));

  Sequential flat({1, 2, 2}, {Flatten(), Dense(1)});
  count_up(flat);  // row 2 w + c; PyTorch flattens to (c, w)
  CHECK(same_bits(named_as(Naming::torch, flat).at("1.weight"), tensor({0, 2, 1, 3}, {1, 4})));

  Sequential gru({2, 1}, {GRU(1)});
  count_up(gru);  // z, r, h there r, z, n
  CHECK(same_bits(named_as(Naming::torch, gru).at("0.weight_ih_l0"), tensor({1, 0, 2}, {3, 1})));
  CHECK(same_bits(named_as(Naming::torch, gru).at("0.bias_hh_l0"), tensor({1, 0, 2})));
}

TEST_CASE("interop: both ways give the model back, of each kind of layer") {
  const TempDir dir;
  const Padding same = Padding::same();
  const std::vector<std::pair<Shape, std::vector<Layer>>> nets{
      {image, image_net},
      {{6, 5, 3}, {Flatten(), BatchNormalization(), relu, Dense(4)}},
      {{4, 4, 2},
       {Conv2DTranspose({.filters = 3, .stride = 2, .pad = same}), GroupNormalization({.groups = 3}),
        Conv2D({.filters = 4, .groups = 1, .use_bias = false})}},
      {{5, 4},
       {SimpleRNN({.units = 3, .return_sequences = true}), GRU({.units = 3, .return_sequences = true}), LSTM(3)}},
      {{5, 4}, {PositionEmbedding(), LayerNormalization(), MultiHeadAttention({.heads = 2, .use_bias = false})}},
  };
  for (const auto& [sample, layers] : nets)
    for (const bool torch : {true, false}) {
      Sequential from(sample, layers);
      const NoGrad quiet;
      for (const NamedTensor& t : named_tensors(from)) t.tensor->assign(uniform(t.tensor->shape(), 0.5, 1.5));
      const Tensor x = randn(sample.inserted(0, 2)), y = from(x);
      (torch ? save_torch : save_keras)(from, dir / "w", {{"epoch", "3"}});
      CHECK(read_safetensors(dir / "w").metadata.at("epoch") == "3");
      for (const NamedTensor& t : named_tensors(from))
        t.tensor->assign(zeros(t.tensor->shape()));  // the file is a copy
      (torch ? load_torch : load_keras)(from, dir / "w");
      CHECK(same_bits(from(x), y));
    }
}

TEST_CASE("interop: every kind of layer goes both ways, or is refused") {
  struct Example {
    Shape sample;
    const char* text;
  };
  const Shape image{6, 6, 4}, rows{5, 4};
  const std::map<std::string_view, Example> examples{{"conv", {image, "conv 3 2 relu, conv 2 1"}},
                                                     {"depthwise", {image, "depthwise 2 multiplier 2 relu"}},
                                                     {"deconv", {image, "deconv 3 2 stride 2 relu"}},
                                                     {"dense", {rows, "dense 3 tanh, dense 2 nobias"}},
                                                     {"pool", {image, "pool 2, conv 2 1"}},
                                                     {"avgpool", {image, "avgpool 2, conv 2 1"}},
                                                     {"globalavgpool", {image, "globalavgpool, dense 2"}},
                                                     {"globalmaxpool", {image, "globalmaxpool, dense 2"}},
                                                     {"flatten", {image, "flatten, dense 2"}},
                                                     {"reshape", {rows, "reshape 20, dense 2"}},
                                                     {"dropout", {rows, "dropout 0.5, dense 2"}},
                                                     {"spatialdropout", {image, "spatialdropout 0.5, conv 2 1"}},
                                                     {"batchnorm", {image, "batchnorm, flatten, batchnorm, dense 2"}},
                                                     {"layernorm", {rows, "layernorm"}},
                                                     {"groupnorm", {image, "groupnorm 2"}},
                                                     {"standardize", {rows, "standardize"}},
                                                     {"embedding", {{4}, "embedding 7 3"}},
                                                     {"position", {rows, "position"}},
                                                     {"rnn", {rows, "rnn 3"}},
                                                     {"gru", {rows, "gru 3"}},
                                                     {"lstm", {rows, "lstm 3 sequences"}},
                                                     {"attention", {rows, "attention 2"}},
                                                     {"residual", {image, "residual (conv 3 2 same | conv 3 1)"}},
                                                     {"concat", {image, "concat (conv 3 1 | conv 2 2 same, relu)"}}};
  for (const detail::LayerKind& kind : detail::layer_kinds()) {
    CAPTURE(kind.word);
    CHECK_MESSAGE(detail::has_exchange_row(kind.word), "add a row to the table in models/exchange/interop.cpp");
    REQUIRE_MESSAGE(examples.contains(kind.word), "add an example of this kind of layer to this test");
    const Example& example = examples.at(kind.word);
    Sequential net(example.sample, parse_architecture(example.text));
    for (const Naming naming : {Naming::torch, Naming::keras}) {
      if (kind.word == "standardize") {
        dynamic_cast<Standardize&>(*net.layers()[0]).fit(randn({9, 5, 4}));
        CHECK_THROWS_WITH_AS(named_as(naming, net),
                             naming == Naming::torch
                                 ? "PyTorch names: layer 0 (Standardize): has no counterpart"
                                 : "Keras names: layer standardize (Standardize): has no counterpart",
                             ValueError);
        continue;
      }
      for (const NamedTensor& t : named_tensors(net)) t.tensor->assign(uniform(t.tensor->shape(), 0.5, 1.5));
      const auto theirs = named_as(naming, net);
      CHECK_FALSE(theirs.empty());
      std::vector<Tensor> ours;
      for (const NamedTensor& t : named_tensors(net)) {
        ours.push_back(t.tensor->clone());
        t.tensor->assign(zeros(t.tensor->shape()));
      }
      assign_as(naming, net, theirs, "here");
      std::size_t i = 0;
      for (const NamedTensor& t : named_tensors(net)) CHECK(same_bits(t.tensor->detach(), ours[i++]));
    }
  }
}

TEST_CASE("interop: PyTorch's two biases of a recurrent layer are added") {
  Sequential net({2, 1}, {SimpleRNN(2)});
  auto tensors = named_as(Naming::torch, net);
  tensors["0.bias_ih_l0"] = tensor({1, 2});
  tensors["0.bias_hh_l0"] = tensor({10, 20});
  assign_as(Naming::torch, net, tensors, "here");
  CHECK(same_bits(dynamic_cast<SimpleRNN&>(*net.layers()[0]).bias.detach(), tensor({11, 22})));
}

TEST_CASE("interop: what does not fit is listed, and nothing is changed") {
  Sequential net({3}, {Dense(2), BatchNormalization()});
  auto tensors = named_as(Naming::torch, net);
  tensors.erase("1.num_batches_tracked");
  CHECK_NOTHROW(assign_as(Naming::torch, net, tensors, "here"));
  const Tensor before = named_as(Naming::torch, net).at("0.bias");
  tensors["0.bias"] = tensor({5, 5});
  tensors["0.weight"] = zeros({3, 2});
  tensors["1.running_mean"] = zeros({2}, f64);
  tensors["5.weight"] = zeros({1});
  tensors.erase("1.weight");
  CHECK_THROWS_WITH_AS(
      assign_as(Naming::torch, net, tensors, "here"),
      "here: 5.weight is extra; 0.weight is float32 (3, 2), the model has float32 (2, 3); 1.weight is missing; "
      "1.running_mean is float64 (2,), the model has float32 (2,)",
      ShapeError);
  CHECK(same_bits(named_as(Naming::torch, net).at("0.bias"), before));
  CHECK_THROWS_AS(load_keras(net, "/nonexistent/w"), IoError);
  CHECK(naming_of("keras") == Naming::keras);
  CHECK_THROWS_WITH_AS(naming_of("jax"), "unknown layout \"jax\"; expected torch or keras", ValueError);
}

TEST_CASE("interop: what has no counterpart is refused by layer") {
  struct Own : Module {
    Dense inner{2};
    Tensor forward(const Tensor& x) override { return inner(x); }
    void visit(Visitor& v) override { v("inner", inner); }
    std::string_view type() const override { return "Own"; }
  };
  const auto says = [](Naming naming, Sequential net) -> std::string {
    try {
      named_as(naming, net);
    } catch (const ValueError& e) {
      return e.what();
    }
    return "nothing";
  };
  CHECK(says(Naming::torch, Sequential({3}, {relu, Own()})) == "PyTorch names: layer 1 (Own): has no counterpart");
  CHECK(says(Naming::keras, Sequential({3}, {relu, Own()})) == "Keras names: layer own (Own): has no counterpart");
  const std::string after =
      "only Dense, BatchNormalization, Dropout and functions of single elements can follow the Flatten of an image";
  CHECK(says(Naming::torch, Sequential({2, 2, 3}, {Flatten(), LayerNormalization(), Dense(2)})) ==
        "PyTorch names: layer 1 (LayerNormalization): " + after);
  CHECK(says(Naming::torch, Sequential({2, 2, 3}, {Flatten(), softmax, Dense(2)})) ==
        "PyTorch names: layer 1 (Function): " + after);
  CHECK(says(Naming::torch, Sequential({2, 2, 3}, {Flatten(), Residual({Dense(12)})})) ==
        "PyTorch names: layer 1 (Residual): " + after);
  CHECK(says(Naming::torch, Sequential({2, 2, 1}, {Flatten(), LayerNormalization(), Dense(2)})) ==
        "nothing");  // one channel: the same order
  CHECK(says(Naming::keras, Sequential({2, 2, 3}, {Flatten(), LayerNormalization(), Dense(2)})) == "nothing");
  Sequential unknown{Flatten(), Dense(2)};
  build(unknown, {2, 2, 3});
  CHECK(says(Naming::torch, unknown) ==
        "PyTorch names: layer 0 (Flatten): the model must know its input's shape: Sequential(sample, {layers})");
  CHECK(says(Naming::torch, Sequential({5, 4}, {MultiHeadAttention({.heads = 2, .key_dim = 3})})) ==
        "PyTorch names: layer 0 (MultiHeadAttention): PyTorch's attention has heads of features / heads");
}

#ifdef EBB_HDF5
TEST_CASE("hdf5: what is no file of Keras is refused") {
  const TempDir dir;
  Sequential net({3}, {Dense(2)});
  CHECK_THROWS_WITH_AS(load_keras_h5(net, dir / "none.h5"),
                       (dir / "none.h5: cannot read: No such file or directory").c_str(), IoError);
  std::ofstream(dir / "text.h5") << "no HDF5";
  CHECK_THROWS_WITH_AS(load_keras_h5(net, dir / "text.h5"), (dir / "text.h5: no HDF5 file").c_str(), DataError);
}
#endif
