#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/combine.h>
#include <ebb/ops/ops.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ebb;

const std::string all_names = "relu, sigmoid, tanh, softplus, softmax, gelu, silu, selu, elu, leaky_relu, linear";
const std::string all_kinds =
    "conv, depthwise, deconv, dense, pool, avgpool, globalavgpool, globalmaxpool, flatten, reshape, dropout, "
    "spatialdropout, batchnorm, "
    "layernorm, groupnorm, standardize, embedding, position, rnn, gru, lstm, attention, residual, concat";

/// Names and output shapes of what a text describes.
std::vector<std::string> layers_of(std::string_view text, const Shape& sample) {
  std::vector<std::string> out;
  Sequential net(sample, std::vector<Layer>{});
  Tensor x = zeros(sample.inserted(0, 1));
  for (const Layer& layer : parse_architecture(text)) {
    net.add(layer);
    x = (*layer)(x);
    out.push_back(std::string(layer->type()) + " " + x.shape().without(0).str());
  }
  return out;
}

/// The message for a text, checked to end with the text and a mark under the column that it names.
std::string refused(const std::string& text) {
  std::string message;
  try {
    parse_architecture(text);
  } catch (const ValueError& e) {
    message = e.what();
  }
  const auto first = message.find('\n'), second = message.find('\n', first + 1);
  REQUIRE(second != std::string::npos);
  const std::string mark = message.substr(second + 1), head = message.substr(0, first),
                    shown = message.substr(first + 1, second - first - 1);
  if (text.size() <= 200) {
    CHECK(shown == "  " + text);
    CHECK(head.rfind("architecture: column " + std::to_string(mark.size() - 2) + ": ", 0) == 0);
  } else {  // what is around the column
    CHECK(message.size() < 600);
    const std::size_t column = std::stoul(head.substr(head.find("column ") + 7));
    CHECK(shown.substr(mark.size() - 1, 20) == text.substr(column - 1, 20));
  }
  CHECK(mark == std::string(mark.size() - 1, ' ') + "^");
  return head;
}

}  // namespace

TEST_CASE("architecture: every kind of layer") {
  CHECK(layers_of("conv 32 3 relu, pool 2, conv 64 3 relu, pool 2, conv 64 3 relu, flatten, dense 512 relu, dense 10",
                  {28, 28, 1}) == std::vector<std::string>{"Conv2D (26, 26, 32)", "MaxPool2D (13, 13, 32)",
                                                           "Conv2D (11, 11, 64)", "MaxPool2D (5, 5, 64)",
                                                           "Conv2D (3, 3, 64)", "Flatten (576,)", "Dense (512,)",
                                                           "Dense (10,)"});
  CHECK(layers_of("avgpool 2, flatten, dropout 0.25, relu, dense 3 linear", {4, 4, 1}) ==
        std::vector<std::string>{"AvgPool2D (2, 2, 1)", "Flatten (4,)", "Dropout (4,)", "Function (4,)", "Dense (3,)"});
  CHECK(layers_of("conv 2 3, batchnorm, relu, globalavgpool", {4, 4, 1}) ==
        std::vector<std::string>{"Conv2D (2, 2, 2)", "BatchNormalization (2, 2, 2)", "Function (2, 2, 2)",
                                 "GlobalAvgPool2D (2,)"});
  CHECK(layers_of("conv 2 3 stride 2, conv 2 3 same", {9, 9, 1}) ==
        std::vector<std::string>{"Conv2D (4, 4, 2)", "Conv2D (4, 4, 2)"});
  CHECK(layers_of("conv 2 3 dilation 2 valid, conv 2 2 same stride 2 tanh", {9, 9, 1}) ==
        std::vector<std::string>{"Conv2D (5, 5, 2)", "Conv2D (3, 3, 2)"});
}

TEST_CASE("architecture: spaces and tabs do not matter") {
  CHECK(layers_of("  flatten,dense\t4   relu ,\tdense 2  ", {2, 2}) ==
        std::vector<std::string>{"Flatten (4,)", "Dense (4,)", "Dense (2,)"});
}

TEST_CASE("architecture: activations act") {
  const Tensor x = tensor({-2, 3}, {1, 2}, f64);
  const double a = -2, b = 3;
  const auto value = [&](std::string_view name) { return (*parse_architecture(name).at(0))(x).to_vector(); };
  const auto near = [](const std::vector<double>& v, double first, double second) {
    return v.size() == 2 && std::abs(v[0] - first) < 1e-12 && std::abs(v[1] - second) < 1e-12;
  };
  const auto s = [](double v) { return 1 / (1 + std::exp(-v)); };
  const auto phi = [](double v) { return (1 + std::erf(v / std::sqrt(2.0))) / 2; };
  const double l = 1.0507009873554805, alpha = 1.6732632423543772;
  CHECK(near(value("relu"), 0, 3));
  CHECK(near(value("sigmoid"), s(a), s(b)));
  CHECK(near(value("tanh"), std::tanh(a), std::tanh(b)));
  CHECK(near(value("softplus"), std::log(1 + std::exp(a)), std::log(1 + std::exp(b))));
  CHECK(near(value("gelu"), a * phi(a), b * phi(b)));
  CHECK(near(value("silu"), a * s(a), b * s(b)));
  CHECK(near(value("selu"), l * alpha * (std::exp(a) - 1), l * b));
  CHECK(near(value("elu"), std::exp(a) - 1, b));
  CHECK(near(value("leaky_relu"), 0.3 * a, b));
  CHECK(near(value("linear"), a, b));

  // The same functions behind a layer.
  for (const std::string& name : activation_names()) {
    CAPTURE(name);
    const Layer dense = parse_architecture("dense 2 " + name).at(0);
    auto& d = dynamic_cast<Dense&>(*dense);
    d.weight = variable(tensor({1, 0, 0, 1}, {2, 2}, f64));
    d.bias = variable(tensor({0, 0}, f64));
    CHECK(d(x).to_vector() == value(name));
  }
}

TEST_CASE("architecture: names of activations") {
  CHECK(activation_names() == std::vector<std::string>{"relu", "sigmoid", "tanh", "softplus", "softmax", "gelu", "silu",
                                                       "selu", "elu", "leaky_relu", "linear"});
  const bool is_relu = activation_of("relu") == static_cast<Activation>(relu);
  const bool is_none = activation_of("linear") == nullptr;
  CHECK(is_relu);
  CHECK(is_none);
  CHECK(activation_of("elu")(tensor({-1}, f64)).item() == doctest::Approx(std::exp(-1.0) - 1).epsilon(1e-14));
  CHECK_THROWS_WITH_AS(activation_of("rleu"), ("unknown activation \"rleu\"; expected one of " + all_names).c_str(),
                       ValueError);
}

TEST_CASE("architecture: the whole message") {
  CHECK_THROWS_WITH_AS(
      parse_architecture("conv 32 3 relu, poool 2, dense 10"),
      ("architecture: column 17: unknown layer \"poool\"; expected one of " + all_kinds + ", " + all_names +
       "\n"
       "  conv 32 3 relu, poool 2, dense 10\n"
       "                  ^")
          .c_str(),
      ValueError);
  CHECK_THROWS_WITH_AS(parse_architecture("dense"),
                       "architecture: column 6: the number of units is missing\n"
                       "  dense\n"
                       "       ^",
                       ValueError);
}

TEST_CASE("architecture: every error and its column") {
  CHECK(refused("") == "architecture: column 1: a layer is expected here");
  CHECK(refused("relu,") == "architecture: column 6: a layer is expected here");
  CHECK(refused(", relu") == "architecture: column 1: a layer is expected here");
  CHECK(refused("relu, , relu") == "architecture: column 6: a layer is expected here");
  CHECK(refused("relu, softmin") ==
        "architecture: column 7: unknown layer \"softmin\"; expected one of " + all_kinds + ", " + all_names);
  CHECK(refused("Conv 3 3") ==
        "architecture: column 1: unknown layer \"Conv\"; expected one of " + all_kinds + ", " + all_names);

  CHECK(refused("conv") == "architecture: column 5: the number of filters is missing");
  CHECK(refused("conv 32") == "architecture: column 8: the kernel's size is missing");
  CHECK(refused("conv 32, relu") == "architecture: column 8: the kernel's size is missing");
  CHECK(refused("conv 32 3 stride") == "architecture: column 17: the stride is missing");
  CHECK(refused("conv 32 3 dilation , relu") == "architecture: column 20: the dilation is missing");
  CHECK(refused("pool") == "architecture: column 5: the window's size is missing");
  CHECK(refused("avgpool") == "architecture: column 8: the window's size is missing");
  CHECK(refused("dropout") == "architecture: column 8: the rate is missing");

  CHECK(refused("dense ten") == "architecture: column 7: the number of units must be a number, not \"ten\"");
  CHECK(refused("dense 10x") == "architecture: column 7: the number of units must be a number, not \"10x\"");
  CHECK(refused("dense 1.5") == "architecture: column 7: the number of units must be a number, not \"1.5\"");
  CHECK(refused("dense 99999999999999999999") ==
        "architecture: column 7: the number of units must be a number, not \"99999999999999999999\"");
  CHECK(refused("conv 32 same") == "architecture: column 9: the kernel's size must be a number, not \"same\"");
  CHECK(refused("conv 32 3 stride two") == "architecture: column 18: the stride must be a number, not \"two\"");
  CHECK(refused("dropout half") == "architecture: column 9: the rate must be a number, not \"half\"");

  CHECK(refused("dense 0") == "architecture: column 7: the number of units must be 1 to 1,000,000");
  CHECK(refused("dense 1000001") == "architecture: column 7: the number of units must be 1 to 1,000,000");
  CHECK(refused("conv -1 3") == "architecture: column 6: the number of filters must be 1 to 1,000,000");
  CHECK(refused("conv 8 0") == "architecture: column 8: the kernel's size must be 1 to 1,000,000");
  CHECK(refused("conv 8 3 dilation 0") == "architecture: column 19: the dilation must be 1 to 1,000,000");
  CHECK(refused("flatten, pool 0") == "architecture: column 15: the window's size must be 1 to 1,000,000");
  CHECK(refused("dropout 1") == "architecture: column 9: the rate must be in [0, 1)");
  CHECK(refused("dropout -0.1") == "architecture: column 9: the rate must be in [0, 1)");
  CHECK(refused("dropout nan") == "architecture: column 9: the rate must be in [0, 1)");

  CHECK(refused("dense 10 rleu") ==
        "architecture: column 10: unknown activation \"rleu\"; expected one of " + all_names);
  CHECK(refused("conv 8 3 pad 2") ==
        "architecture: column 10: unknown activation \"pad\"; expected one of " + all_names);
  CHECK(refused("dense 10 relu relu") == "architecture: column 15: \"relu\" is not understood here");
  CHECK(refused("flatten 3") == "architecture: column 9: \"3\" is not understood here");
  CHECK(refused("pool 2 2") == "architecture: column 8: \"2\" is not understood here");
  CHECK(refused("relu relu") == "architecture: column 6: \"relu\" is not understood here");
}

TEST_CASE("architecture: layers inside layers, and every kind") {
  CHECK(layers_of("conv 4 3 same relu groups 1, residual (conv 4 3 same relu, batchnorm | conv 4 1), concat (conv 2 1 "
                  "| pool 3 stride 1 same, relu)",
                  {6, 6, 1}) == std::vector<std::string>{"Conv2D (6, 6, 4)", "Residual (6, 6, 4)", "Concat (6, 6, 6)"});
  CHECK(layers_of("reshape 7 4, gru 8 sequences, lstm 5", {28}) ==
        std::vector<std::string>{"Reshape (7, 4)", "GRU (7, 8)", "LSTM (5,)"});
  CHECK(layers_of("conv 8 4x7 stride 4x7 nobias, reshape 28 8, position, attention 2 causal, layernorm, rnn 3",
                  {28, 28, 1}) == std::vector<std::string>{"Conv2D (7, 4, 8)", "Reshape (28, 8)",
                                                           "PositionEmbedding (28, 8)", "MultiHeadAttention (28, 8)",
                                                           "LayerNormalization (28, 8)", "SimpleRNN (3,)"});
  CHECK(layers_of("depthwise 3 multiplier 2 tanh, groupnorm 2, spatialdropout 0.1, deconv 3 2 stride 2, globalmaxpool",
                  {6, 6, 2}) == std::vector<std::string>{"DepthwiseConv2D (4, 4, 4)", "GroupNormalization (4, 4, 4)",
                                                         "SpatialDropout2D (4, 4, 4)", "Conv2DTranspose (8, 8, 3)",
                                                         "GlobalMaxPool2D (3,)"});
  CHECK(layers_of("embedding 10 4, flatten", {3}) == std::vector<std::string>{"Embedding (3, 4)", "Flatten (12,)"});
}

TEST_CASE("architecture: errors inside layers") {
  CHECK(refused("residual") == "architecture: column 9: the layers of the block are missing: (LAYER, ...)");
  CHECK(refused("residual ()") == "architecture: column 11: a layer is expected here");
  CHECK(refused("residual (relu") == "architecture: column 15: \")\" is missing here");
  CHECK(refused("residual (relu | relu | relu)") == "architecture: column 10: this layer takes fewer lists of layers");
  CHECK(refused("dense 3 (relu)") == "architecture: column 9: this layer takes fewer lists of layers");
  CHECK(refused("relu)") == "architecture: column 5: \")\" is not understood here");
  CHECK(refused("relu (relu)") == "architecture: column 6: \"(\" is not understood here");
  CHECK(refused("concat") == "architecture: column 7: the branches are missing: (LAYER, ... | LAYER, ...)");
  CHECK(refused("concat (conv 3 | relu)") == "architecture: column 16: the kernel's size is missing");
  CHECK(refused("conv 8 3xy") == "architecture: column 10: the kernel's size must be a number, not \"y\"");
  CHECK(refused("conv 8 3 stride 2 stride 3") ==
        "architecture: column 19: unknown activation \"stride\"; expected one of " + all_names);
  CHECK(refused("flatten, conv 8 3 groups 3") ==
        "architecture: column 10: Conv2D: 8 filters cannot be shared among 3 groups");
  CHECK(refused("batchnorm momentum 2") ==
        "architecture: column 1: BatchNormalization: momentum must be in [0, 1], got 2");
  CHECK(refused("reshape") == "architecture: column 8: the sizes of the new shape is missing");
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "residual (";
  CHECK(refused(deep).find("more than 16 layers inside one another") != std::string::npos);
  // long texts take no quadratic time, and are shown in part
  std::string many, sizes = "relu, reshape";
  for (int i = 0; i < 100000; ++i) many += "relu, ", sizes += " 1";
  CHECK(refused(many + "relu").ends_with("more than 4096 layers in a row"));
  CHECK(refused(sizes).ends_with("more than 64 words in a layer"));
  CHECK(refused("dense " + std::string(100000, 'x'))
            .ends_with("must be a number, not \"" + std::string(40, 'x') + "...\""));
  CHECK_THROWS_WITH_AS(parse_architecture(std::string(2'000'000, ' ')),
                       "architecture: 2000000 characters, at most 1048576 are read", ValueError);
}

TEST_CASE("architecture: a description is read back to the same layers") {
  for (const char* text : {"conv 32 3",
                           "conv 32 3x5 stride 2 dilation 2x1 groups 4 same nobias relu",
                           "depthwise 3 multiplier 2 same elu",
                           "deconv 8 4 stride 2 same leaky_relu",
                           "dense 10",
                           "dense 10 nobias softmax",
                           "pool 2",
                           "pool 3x2 stride 1 same",
                           "avgpool 2",
                           "globalavgpool",
                           "globalmaxpool",
                           "flatten",
                           "reshape 4 7",
                           "dropout 0.25",
                           "spatialdropout 0.1",
                           "batchnorm",
                           "batchnorm momentum 0.9 epsilon 1e-05 noscale",
                           "layernorm",
                           "layernorm nocenter",
                           "groupnorm 4",
                           "standardize",
                           "embedding 100 8",
                           "position",
                           "rnn 4",
                           "gru 64 sequences",
                           "lstm 3",
                           "attention 4 key_dim 8 causal nobias",
                           "residual (conv 8 3 same relu, conv 8 3 same)",
                           "residual (conv 8 3 | conv 8 3 nobias), relu, linear",
                           "concat (conv 3 1 | pool 3 stride 1 same, conv 3 1 | linear)"}) {
    CAPTURE(text);
    CHECK(describe_architecture(parse_architecture(text)) == text);
  }
  CHECK(describe_architecture({Dense({.units = 3, .activation = relu}), relu, Residual({Dense(3)})}) ==
        "dense 3 relu, relu, residual (dense 3)");
  CHECK_THROWS_WITH_AS(describe_architecture({[](const Tensor& x) { return x + 1.0; }}),
                       "describe_architecture: : no text describes a function without a name", ValueError);
  CHECK_THROWS_WITH_AS(
      describe_architecture({Dense({.units = 3, .activation = [](const Tensor& x) { return x + 1.0; }})}),
      "describe_architecture: dense 3: its activation has no name", ValueError);
  CHECK_THROWS_WITH_AS(describe_architecture({Conv2D({.filters = 3, .pad = 1})}),
                       "describe_architecture: conv 3 3: no text gives zeros around an image by number", ValueError);
  struct Own : Module {
    Tensor forward(const Tensor& x) override { return x; }
  };
  CHECK_THROWS_WITH_AS(describe_architecture({Own()}), "describe_architecture: : no text describes a Module",
                       ValueError);
}

TEST_CASE("architecture: help shows every kind once") {
  const std::string help = architecture_help();
  CHECK(help.find(
            "conv FILTERS KERNEL [stride N] [dilation N] [groups N] [same] [nobias] [ACTIVATION]\n    convolution\n") ==
        0);
  CHECK(help.find("\nresidual (LAYER, ... [| LAYER, ...])\n") != std::string::npos);
  CHECK(help.find("\ngru UNITS [sequences]\n") != std::string::npos);
  CHECK(help.find("ACTIVATION: " + all_names + "\n") != std::string::npos);
}

namespace {
/// The text for what a JSON list describes, or the message.
std::string from_json(const std::string& json) {
  try {
    return describe_architecture(parse_architecture_json(json));
  } catch (const ValueError& e) {
    return e.what();
  }
}
}  // namespace

TEST_CASE("architecture: JSON") {
  CHECK(from_json(R"([
  {"layer": "conv", "filters": 32, "kernel": [3, 5], "stride": 2, "padding": "same", "activation": "relu", "bias": false},
  {"layer": "residual", "layers": [{"layer": "batchnorm", "momentum": 0.9}, {"layer": "relu"}], "shortcut": [{"layer": "linear"}]},
  {"layer": "concat", "branches": [[{"layer": "pool", "size": 2}], [{"layer": "avgpool", "size": 2}, {"layer": "tanh"}]]},
  {"layer": "reshape", "sizes": [4, 7]}, {"layer": "gru", "units": 8, "sequences": true}, {"layer": "dropout", "rate": 0.5}
])") == "conv 32 3x5 stride 2 same nobias relu, residual (batchnorm momentum 0.9, relu | linear), concat (pool 2 | "
        "avgpool 2, tanh), "
        "reshape 4 7, gru 8 sequences, dropout 0.5");

  CHECK(from_json("[\n {\"layer\": \"dense\",\n  \"units\": 0}]") ==
        "architecture: line 3, column 3: the number of units must be 1 to 1,000,000");
  CHECK(from_json("[{\"layer\": \"dense\", \"units\": 1.5}]") ==
        "architecture: line 1, column 21: the number of units must be a whole number");
  CHECK(from_json("[{\"layer\": \"dense\"}]") ==
        "architecture: line 1, column 2: the number of units is missing: \"units\"");
  CHECK(from_json("[{\"layer\": \"dense\", \"unit\": 3, \"units\": 3}]") ==
        "architecture: line 1, column 21: unknown option \"unit\"; expected one of units, bias, activation");
  CHECK(from_json("[{\"layer\": \"dense\", \"units\": 3, \"units\": 4}]") ==
        "architecture: line 1, column 33: \"units\" is given twice");
  CHECK(from_json("[{\"layer\": \"dens\"}]") ==
        "architecture: line 1, column 3: unknown layer \"dens\"; expected one of " + all_kinds + ", " + all_names);
  CHECK(from_json("[{\"layer\": \"dense\", \"units\": 3, \"activation\": \"rleu\"}]") ==
        "architecture: line 1, column 33: unknown activation \"rleu\"; expected one of " + all_names);
  CHECK(from_json("[{\"layer\": \"conv\", \"filters\": 3, \"kernel\": 3, \"padding\": 1}]") ==
        "architecture: line 1, column 47: \"padding\" must be \"same\" or \"valid\"");
  CHECK(from_json("[{\"layer\": \"dropout\", \"rate\": 1}]") ==
        "architecture: line 1, column 23: the rate must be in [0, 1)");
  CHECK(from_json("[{\"layer\": \"relu\", \"slope\": 1}]") ==
        "architecture: line 1, column 20: unknown option \"slope\"; expected none");
  CHECK(from_json("[{\"layer\": \"conv\", \"filters\": 8, \"kernel\": 3, \"groups\": 3}]") ==
        "architecture: line 1, column 2: Conv2D: 8 filters cannot be shared among 3 groups");
  CHECK(from_json("[3]") == "architecture: line 1, column 3: a layer is expected here: {\"layer\": ...}");
  CHECK(from_json("[{}]") == "architecture: line 1, column 2: the kind of layer is missing: \"layer\": \"dense\"");
  CHECK(from_json("[]") == "architecture: line 1, column 1: an architecture must be a list: [{\"layer\": ...}, ...]");
  CHECK(from_json("{}").find("architecture: line 1, column 1: an architecture must be a list") == 0);
  CHECK(from_json("[{\"layer\": \"relu\",}]").find("architecture: line 1, column 19: syntax error") == 0);
  CHECK(from_json("").find("architecture: line 1, column 1: syntax error") == 0);
  CHECK(from_json("[{\"layer\": \"relu\"}] x").find("architecture: line 1, column 21: syntax error") == 0);
  CHECK(from_json(std::string(100000, '[')).find("lists too deep inside one another") != std::string::npos);
}
