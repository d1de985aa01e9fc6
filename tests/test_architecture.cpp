#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/architecture.h>
#include <ebb/ops/ops.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ebb;

const std::string all_names = "relu, sigmoid, tanh, softplus, gelu, silu, selu, elu, leaky_relu, linear";

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
  CHECK(message.substr(first + 1, second - first - 1) == "  " + text);
  const std::string mark = message.substr(second + 1), head = message.substr(0, first);
  CHECK(head.rfind("architecture: column " + std::to_string(mark.size() - 2) + ": ", 0) == 0);
  CHECK(mark == std::string(mark.size() - 1, ' ') + "^");
  return head;
}

}  // namespace

TEST_CASE("architecture: every kind of layer") {
  CHECK(
      layers_of(
          "conv 32 3 relu, pool 2, conv 64 3 relu, pool 2, conv 64 3 relu, flatten, dense 512 relu, dense 10",
          {28, 28, 1}) == std::vector<std::string>{"Conv2D (26, 26, 32)", "MaxPool2D (13, 13, 32)",
                                                   "Conv2D (11, 11, 64)", "MaxPool2D (5, 5, 64)",
                                                   "Conv2D (3, 3, 64)", "Flatten (576,)", "Dense (512,)",
                                                   "Dense (10,)"});
  CHECK(layers_of("avgpool 2, flatten, dropout 0.25, relu, dense 3 linear", {4, 4, 1}) ==
        std::vector<std::string>{"AvgPool2D (2, 2, 1)", "Flatten (4,)", "Dropout (4,)", "Function (4,)",
                                 "Dense (3,)"});
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
  CHECK(activation_names() == std::vector<std::string>{"relu", "sigmoid", "tanh", "softplus", "gelu", "silu",
                                                       "selu", "elu", "leaky_relu", "linear"});
  const bool is_relu = activation_of("relu") == static_cast<Activation>(relu);
  const bool is_none = activation_of("linear") == nullptr;
  CHECK(is_relu);
  CHECK(is_none);
  CHECK(activation_of("elu")(tensor({-1}, f64)).item() == doctest::Approx(std::exp(-1.0) - 1).epsilon(1e-14));
  CHECK_THROWS_WITH_AS(activation_of("rleu"), ("no activation \"rleu\"; there are " + all_names).c_str(),
                       ValueError);
}

TEST_CASE("architecture: the whole message") {
  CHECK_THROWS_WITH_AS(
      parse_architecture("conv 32 3 relu, poool 2, dense 10"),
      ("architecture: column 17: no layer \"poool\"; there are conv, dense, pool, avgpool, globalavgpool, batchnorm, flatten, "
       "dropout, " +
       all_names +
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
  CHECK(refused("relu, softmax") ==
        "architecture: column 7: no layer \"softmax\"; there are conv, dense, pool, avgpool, globalavgpool, batchnorm, flatten, "
        "dropout, " +
            all_names);
  CHECK(
      refused("Conv 3 3") ==
      "architecture: column 1: no layer \"Conv\"; there are conv, dense, pool, avgpool, globalavgpool, batchnorm, flatten, dropout, " +
          all_names);

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
  CHECK(refused("conv 32 same") ==
        "architecture: column 9: the kernel's size must be a number, not \"same\"");
  CHECK(refused("conv 32 3 stride two") ==
        "architecture: column 18: the stride must be a number, not \"two\"");
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
        "architecture: column 10: \"rleu\" is no activation; there are " + all_names);
  CHECK(refused("conv 8 3 pad 2") ==
        "architecture: column 10: \"pad\" is no activation; there are " + all_names);
  CHECK(refused("dense 10 relu relu") == "architecture: column 15: \"relu\" is not understood here");
  CHECK(refused("conv 8 3 relu same") == "architecture: column 15: \"same\" is not understood here");
  CHECK(refused("flatten 3") == "architecture: column 9: \"3\" is not understood here");
  CHECK(refused("pool 2 2") == "architecture: column 8: \"2\" is not understood here");
  CHECK(refused("relu relu") == "architecture: column 6: \"relu\" is not understood here");
}
