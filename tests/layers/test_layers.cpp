#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/ops/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "layers/layer_check.h"

namespace {

using namespace ebb;
using namespace ebb::testing;

/// What a convolution is, written out: seven loops and a bias.
Tensor convolved(const Tensor& x, const Tensor& k, const Tensor& bias, std::int64_t stride, std::int64_t dilation,
                 std::int64_t top, std::int64_t left, std::int64_t oh, std::int64_t ow) {
  const auto vx = x.values<double>(), vk = k.values<double>();
  const std::int64_t h = x.size(1), w = x.size(2), c = x.size(3), kw = k.size(1), out = k.size(3);
  Tensor y = Tensor::empty({x.size(0), oh, ow, out}, f64);
  auto to = y.mutable_values<double>().begin();
  for (std::int64_t n = 0; n < x.size(0); ++n)
    for (std::int64_t i = 0; i < oh; ++i)
      for (std::int64_t j = 0; j < ow; ++j)
        for (std::int64_t o = 0; o < out; ++o) {
          double s = bias.defined() ? bias.values<double>()[static_cast<std::size_t>(o)] : 0;
          for (std::int64_t a = 0; a < k.size(0); ++a)
            for (std::int64_t b = 0; b < kw; ++b) {
              const std::int64_t r = i * stride + a * dilation - top, q = j * stride + b * dilation - left;
              if (r < 0 || r >= h || q < 0 || q >= w) continue;
              for (std::int64_t m = 0; m < c; ++m)
                s += vx[static_cast<std::size_t>(((n * h + r) * w + q) * c + m)] *
                     vk[static_cast<std::size_t>(((a * kw + b) * c + m) * out + o)];
            }
          *to++ = s;
        }
  return y;
}

}  // namespace

TEST_CASE("layers: gradients of every layer in input and parameters") {
  const Tensor flat = distinct({5, 7}, 1), image = distinct({2, 7, 6, 3}, 2);
  const GradcheckOptions smooth{.order = 2};
  CHECK(check_layer(Dense(4), flat, smooth));
  CHECK(check_layer(Dense(4), distinct({2, 3, 5}, 3), smooth));
  CHECK(check_layer(Dense(4, tanh), flat, smooth));
  CHECK(check_layer(Dense(4, relu), flat));
  CHECK(check_layer(Dense({.units = 3, .activation = sigmoid, .use_bias = false}), flat, smooth));
  CHECK(check_layer(Dense(2), distinct({3, 4}, 5), {.order = 2, .probe = Probe::jacobian}));
  CHECK(check_layer(Conv2D({.filters = 4}), image, smooth));
  CHECK(check_layer(Conv2D({.filters = 4, .kernel = {2, 3}, .stride = {2, 1}}), image, smooth));
  CHECK(check_layer(Conv2D({.filters = 4, .pad = Padding::same(), .activation = tanh}), image, smooth));
  CHECK(check_layer(Conv2D({.filters = 4, .stride = 2, .pad = Padding::same(), .activation = relu}), image));
  CHECK(check_layer(Conv2D({.filters = 4, .dilation = 2}), image, smooth));
  CHECK(check_layer(Conv2D({.filters = 4, .pad = 1, .use_bias = false}), image, smooth));
  CHECK(check_layer(MaxPool2D(), image));
  CHECK(check_layer(MaxPool2D({.size = 3, .stride = 2, .pad = 1}), image));
  CHECK(check_layer(AvgPool2D(), image, smooth));
  CHECK(check_layer(AvgPool2D({.size = 3, .stride = 1, .pad = 1}), image, smooth));
  CHECK(check_layer(GlobalAvgPool2D(), image, smooth));
  CHECK(check_layer(GlobalMaxPool2D(), image));
  CHECK(check_layer(Reshape({3, 42}), image, smooth));
  CHECK(check_layer(Conv2D({.filters = 6, .groups = 3}), image, smooth));
  const Tensor even = distinct({2, 5, 6, 4}, 9);
  CHECK(check_layer(Conv2D({.filters = 4, .stride = 2, .pad = Padding::same(), .groups = 2, .activation = tanh}), even,
                    smooth));
  CHECK(check_layer(DepthwiseConv2D(), image, smooth));
  CHECK(check_layer(DepthwiseConv2D({.kernel = {2, 3}, .multiplier = 2, .stride = 2, .pad = Padding::same()}), image,
                    smooth));
  CHECK(check_layer(DepthwiseConv2D({.dilation = 2, .activation = tanh, .use_bias = false}), image, smooth));
  CHECK(check_layer(Conv2DTranspose({.filters = 4}), image, smooth));
  CHECK(check_layer(Conv2DTranspose({.filters = 2, .kernel = {4, 3}, .stride = 2, .pad = Padding::same()}), image,
                    smooth));
  CHECK(check_layer(Conv2DTranspose({.filters = 2, .kernel = 2, .stride = 3, .activation = tanh, .use_bias = false}),
                    image, smooth));
  CHECK(check_layer(Flatten(), image, smooth));
  const Training on(true);
  CHECK(check_layer(Dropout(0.4), flat, smooth));
  CHECK(check_layer(SpatialDropout2D(0.4), image, smooth));
  CHECK(check_layer(
      Sequential({Conv2D({.filters = 3, .activation = tanh}), MaxPool2D(), Flatten(), Dropout(0.3), Dense(4)}), image));
}

TEST_CASE("layers: a wrong gradient of a parameter is found") {
  // The check above must be able to fail: a layer that hides its weight from the gradient.
  struct Bad : Dense {
    using Dense::Dense;
    Tensor forward(const Tensor& x) override {
      const Tensor y = Dense::forward(x);
      return y + stop_gradient(sum(weight));
    }
  };
  CHECK_FALSE(check_layer(Bad(3), distinct({2, 4}, 1)));
}

TEST_CASE("layers: Dense is x W + b, then the activation") {
  Dense layer(2, relu);
  layer.weight = variable(tensor({1, 2, 3, 4, 5, 6}, {3, 2}));
  layer.bias = variable(tensor({0.5, -100}));
  CHECK(layer(tensor({1, 0, -1, 2, 2, 2}, {2, 3})).to_vector() == std::vector<double>{0, 0, 18.5, 0});
  CHECK(layer(zeros({4, 2, 3})).shape() == Shape{4, 2, 2});
  CHECK(layer.type() == "Dense");

  Dense bare({.units = 3, .use_bias = false});
  CHECK(bare(ones({2, 5})).shape() == Shape{2, 3});
  CHECK_FALSE(bare.bias.defined());
  CHECK(named_tensors(bare).size() == 1);
  CHECK(bare.weight.shape() == Shape{5, 3});
}

TEST_CASE("layers: initial values are those of the options") {
  Dense layer({.units = 3, .weight_init = ones_init, .bias_init = ones_init});
  CHECK(layer(ones({1, 4})).to_vector() == std::vector<double>{5, 5, 5});
  Dense plain(50);
  plain(ones({1, 100}));
  CHECK(plain.bias.to_vector() == std::vector<double>(50, 0.0));
  double most = 0;
  for (const double w : plain.weight.to_vector()) most = std::max(most, std::abs(w));
  CHECK(most <= std::sqrt(6.0 / 150));  // Glorot's limit
  CHECK(most > 0.95 * std::sqrt(6.0 / 150));
}

TEST_CASE("layers: Conv2D against its definition") {
  manual_seed(6);
  const Tensor x = distinct({2, 7, 6, 3}, 8);
  struct Row {
    Conv2DOptions options;
    std::int64_t stride, dilation, top, left, oh, ow;
  };
  const Row rows[] = {
      {{.filters = 4}, 1, 1, 0, 0, 5, 4},
      {{.filters = 4, .kernel = {2, 3}}, 1, 1, 0, 0, 6, 4},
      {{.filters = 4, .stride = 2}, 2, 1, 0, 0, 3, 2},
      {{.filters = 4, .pad = Padding::same()}, 1, 1, 1, 1, 7, 6},
      // Keras: pads are max((out - 1) stride + kernel - size, 0), the odd one at the end: 3x3 on 7x6 by 2
      // takes 2, 1
      {{.filters = 4, .stride = 2, .pad = Padding::same()}, 2, 1, 1, 0, 4, 3},
      {{.filters = 4, .kernel = 2, .pad = Padding::same()}, 1, 1, 0, 0, 7, 6},
      {{.filters = 4, .dilation = 2}, 1, 2, 0, 0, 3, 2},
      {{.filters = 4, .pad = 1, .use_bias = false}, 1, 1, 1, 1, 7, 6},
  };
  for (const Row& row : rows) {
    CAPTURE(&row - rows);
    Conv2DOptions options = row.options;
    options.bias_init = ones_init;
    Conv2D layer(options);
    const Tensor y = layer(x);
    CHECK(layer.weight.shape() == Shape{options.kernel.h, options.kernel.w, 3, 4});
    CHECK(layer.bias.defined() == options.use_bias);
    if (options.use_bias) CHECK(layer.bias.to_vector() == std::vector<double>(4, 1.0));
    CHECK(difference(y, convolved(x, layer.weight, layer.bias, row.stride, row.dilation, row.top, row.left, row.oh,
                                  row.ow)) < 1e-12);
  }

  Conv2D positive({.filters = 4, .activation = relu});
  const Tensor y = positive(x);
  const Tensor plain = convolved(x, positive.weight, positive.bias, 1, 1, 0, 0, 5, 4);
  CHECK(difference(y, relu(plain)) < 1e-12);
  CHECK(min(plain).item() < 0);
}

TEST_CASE("layers: parameters take the dtype of the first input") {
  for (const DType dtype : {f32, f64}) {
    Dense dense(2);
    Conv2D conv({.filters = 2});
    CHECK(dense(ones({1, 3}, dtype)).dtype() == dtype);
    CHECK(conv(ones({1, 4, 4, 1}, dtype)).dtype() == dtype);
    for (const Tensor& t : {dense.weight, dense.bias, conv.weight, conv.bias}) CHECK(t.dtype() == dtype);
  }
}

TEST_CASE("layers: pooling takes whole windows") {
  const Tensor x = arange(25).viewed_as({1, 5, 5, 1});
  MaxPool2D most(2);
  AvgPool2D mean(2);
  CHECK(most(x).to_vector() == std::vector<double>{6, 8, 16, 18});  // 11 -> 5 in the notebooks: the rest is cut
  CHECK(mean(x).to_vector() == std::vector<double>{3, 5, 13, 15});
  MaxPool2D overlapping({.size = 3, .stride = 1});
  CHECK(overlapping(x).to_vector() == std::vector<double>{12, 13, 14, 17, 18, 19, 22, 23, 24});
  CHECK(most(zeros({1, 11, 11, 2})).shape() == Shape{1, 5, 5, 2});
  CHECK(named_tensors(most).empty());
}

TEST_CASE("layers: GlobalAvgPool2D is the mean of each channel") {
  GlobalAvgPool2D mean;
  CHECK(mean(arange(12).viewed_as({1, 2, 3, 2})).to_vector() == std::vector<double>{5, 6});
  CHECK_THROWS_WITH_AS(mean(zeros({2, 3})), "GlobalAvgPool2D: needs an image batch (n, h, w, c), got (2, 3)",
                       ShapeError);
}

TEST_CASE("layers: a grouped convolution is convolutions of the parts") {
  const Tensor x = distinct({2, 7, 6, 6}, 8);
  Conv2D layer({.filters = 9, .stride = 2, .pad = Padding::same(), .groups = 3, .bias_init = ones_init});
  const Tensor y = layer(x);
  CHECK(layer.weight.shape() == Shape{3, 3, 2, 9});
  for (std::int64_t g = 0; g < 3; ++g) {
    const Tensor part = slice(x, {.axis = 3, .begin = 2 * g, .end = 2 * g + 2}),
                 kernel = slice(layer.weight, {.axis = 3, .begin = 3 * g, .end = 3 * g + 3});
    CHECK(difference(slice(y, {.axis = 3, .begin = 3 * g, .end = 3 * g + 3}),
                     conv2d(part, kernel, {.stride = 2, .pad = Padding::same()}) + 1.0) < 1e-12);
  }
  // Depthwise: as many groups as channels, with one filter each and with two.
  for (const std::int64_t m : {1, 2}) {
    DepthwiseConv2D deep({.multiplier = m});
    const Tensor z = deep(x);
    CHECK(deep.weight.shape() == Shape{3, 3, 6, m});
    CHECK(z.shape() == Shape{2, 5, 4, 6 * m});
    for (std::int64_t c = 0; c < 6; ++c)
      CHECK(difference(slice(z, {.axis = 3, .begin = c * m, .end = (c + 1) * m}),
                       conv2d(slice(x, {.axis = 3, .begin = c, .end = c + 1}),
                              slice(deep.weight, {.axis = 2, .begin = c, .end = c + 1}))) < 1e-12);
  }
}

TEST_CASE("layers: Conv2DTranspose is the adjoint of a convolution, in Keras' sizes") {
  struct Row {
    Conv2DTransposeOptions options;
    std::int64_t h, w;
  };
  for (const Row& row : {Row{{.filters = 2}, 7, 6}, Row{{.filters = 2, .stride = 2}, 11, 9},
                         Row{{.filters = 2, .kernel = 2, .stride = 3}, 15, 12},
                         Row{{.filters = 2, .stride = 2, .pad = Padding::same()}, 10, 8},
                         Row{{.filters = 2, .kernel = 4, .stride = 2, .pad = 1}, 10, 8}}) {
    Conv2DTranspose layer(row.options);
    const Tensor x = distinct({3, 5, 4, 3}, 4), y = layer(x);
    REQUIRE(y.shape() == Shape{3, row.h, row.w, 2});
    CHECK(layer.weight.shape() == Shape{row.options.kernel.h, row.options.kernel.w, 2, 3});
    const Tensor z = distinct({3, row.h, row.w, 2}, 5);  // <A x, z> = <x, A* z>
    CHECK(
        sum(y * z).item() ==
        doctest::Approx(sum(x * conv2d(z, layer.weight, {row.options.stride, row.options.pad})).item()).epsilon(1e-12));
  }
}

TEST_CASE("layers: Reshape, GlobalMaxPool2D, SpatialDropout2D, Embedding") {
  CHECK(Reshape({2, 3, 1})(arange(12).viewed_as({2, 6})).shape() == Shape{2, 2, 3, 1});
  CHECK(GlobalMaxPool2D()(arange(12).viewed_as({1, 2, 3, 2})).to_vector() == std::vector<double>{10, 11});

  const Training on(true);
  manual_seed(2);
  SpatialDropout2D drop(0.5);
  const Tensor y = drop(ones({4, 5, 5, 30}, f64));
  const Tensor channels = mean(y, {1, 2});
  std::int64_t kept = 0;
  for (const double v : channels.to_vector()) {
    const bool whole = v == 0 || v == 2;
    REQUIRE(whole);
    kept += v == 2;
  }
  CHECK(kept > 35);
  CHECK(kept < 85);
  {
    const Training off(false);
    CHECK(same_bits(drop(ones({1, 2, 2, 3})), ones({1, 2, 2, 3})));
  }

  Embedding table({.size = 4, .units = 2, .dtype = f64});
  const Tensor index = tensor({3, 0, 3}, i64), rows = table(index);
  CHECK(rows.shape() == Shape{3, 2});
  for (const double w : table.weight.to_vector()) CHECK(std::abs(w) <= 0.05);
  CHECK(same_bits(table(tensor({3, 0, 3})), rows));  // whole numbers as floats: what build() passes
  const Tensor g = backward(sum(rows * tensor({1, 2, 3, 4, 5, 6}, {3, 2}, f64)))[table.weight];
  CHECK(g.to_vector() == std::vector<double>{3, 4, 0, 0, 0, 0, 6, 8});
  Sequential text({5}, {Embedding({.size = 10, .units = 3}), GRU(4), Dense(2)});
  CHECK(text(zeros({2, 5}, u8)).shape() == Shape{2, 2});
}

TEST_CASE("layers: Flatten keeps the order of the elements") {
  const Tensor x = arange(24).viewed_as({2, 2, 3, 2});
  Flatten flat;
  CHECK(flat(x).shape() == Shape{2, 12});
  CHECK(flat(x).to_vector() == x.to_vector());
  CHECK(flat(zeros({3})).shape() == Shape{3, 1});
}

TEST_CASE("layers: Dropout is active in training only") {
  const Tensor x = ones({100, 100});
  Dropout drop(0.25);
  manual_seed(1);
  const auto dropped = drop(x).to_vector();  // recording is training
  std::int64_t zeros_seen = 0;
  for (const double v : dropped) {
    zeros_seen += v == 0;
    const bool zero_or_scaled = v == 0 || v == static_cast<double>(static_cast<float>(1 / 0.75));
    REQUIRE(zero_or_scaled);
  }
  CHECK(std::abs(static_cast<double>(zeros_seen) - 2500) < 5 * std::sqrt(10000 * 0.25 * 0.75));
  CHECK(drop(x).to_vector() != dropped);  // another mask each time
  manual_seed(1);
  CHECK(drop(x).to_vector() == dropped);
  {
    const NoGrad quiet;
    CHECK(same_bits(drop(x), x));
    const Training on(true);
    CHECK_FALSE(same_bits(drop(x), x));
  }
  {
    const Training off(false);
    CHECK(same_bits(drop(x), x));
  }
  Dropout none(0);
  CHECK(same_bits(none(x), x));
}

TEST_CASE("layers: messages") {
  CHECK_THROWS_WITH_AS(Dense(0), "Dense: units must be at least 1, got 0", ValueError);
  CHECK_THROWS_WITH_AS(Conv2D({.filters = -3}), "Conv2D: filters must be at least 1, got -3", ValueError);
  CHECK_THROWS_WITH_AS(Dropout(1), "Dropout: the rate must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(Dropout(-0.5), "Dropout: the rate must be in [0, 1), got -0.5", ValueError);
  CHECK_THROWS_WITH_AS(Dropout(NAN), "Dropout: the rate must be in [0, 1), got nan", ValueError);

  CHECK_THROWS_WITH_AS(Conv2D({.filters = 5, .groups = 2}), "Conv2D: 5 filters cannot be shared among 2 groups",
                       ValueError);
  CHECK_THROWS_WITH_AS(Conv2D({.filters = 4, .groups = 2})(zeros({1, 4, 4, 3})),
                       "Conv2D: 3 channels cannot be shared among 2 groups: (1, 4, 4, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(DepthwiseConv2D({.multiplier = 0}), "DepthwiseConv2D: multiplier must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(DepthwiseConv2D()(zeros({4, 3})),
                       "DepthwiseConv2D: needs an image batch (n, h, w, c), got (4, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(Conv2DTranspose({.filters = 0}), "Conv2DTranspose: filters must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(Reshape({2, 0}), "Reshape: sizes must be at least 1, got 0", ValueError);
  CHECK_THROWS_WITH_AS(SpatialDropout2D(1.5), "SpatialDropout2D: the rate must be in [0, 1), got 1.5", ValueError);
  CHECK_THROWS_WITH_AS(Embedding({.size = 3}), "Embedding: size and units must be at least 1, got 3 and 0", ValueError);
  CHECK_THROWS_WITH_AS(Embedding({.size = 3, .units = 2})(tensor({3}, i64)), "gather: index 3 is outside of [0, 3)",
                       ValueError);

  Dense dense(3);
  CHECK_THROWS_WITH_AS(dense(zeros({4})), "Dense: needs an input (n, features), got (4,)", ShapeError);
  dense(zeros({2, 4}));
  CHECK_THROWS_WITH_AS(dense(zeros({2, 5})), "matmul: inner sizes differ: (2, 5) x (4, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(dense(zeros({4})), "matmul: needs at least 2 axes on both sides: (4,) x (4, 3)", ShapeError);
  dense.set_name("fc1");
  CHECK_THROWS_WITH_AS(dense(zeros({2, 5})), "fc1: matmul: inner sizes differ: (2, 5) x (4, 3)", ShapeError);

  Conv2D conv({.filters = 2});
  CHECK_THROWS_WITH_AS(conv(zeros({28, 28})), "Conv2D: needs an image batch (n, h, w, c), got (28, 28)", ShapeError);
  CHECK_THROWS_WITH_AS(conv(zeros({1, 2, 5, 1})),
                       "conv2d: a window of 3x3 does not fit into (1, 2, 5, 1) padded to 2x5", ShapeError);
  Conv2D wide({.filters = 2, .dilation = 3});
  CHECK_THROWS_WITH_AS(wide(zeros({1, 6, 6, 1})),
                       "conv2d: a window of 7x7 does not fit into (1, 6, 6, 1) padded to 6x6", ShapeError);
  Conv2D still({.filters = 2, .stride = 0});
  CHECK_THROWS_WITH_AS(still(zeros({1, 6, 6, 1})),
                       "conv2d: kernel 3x3, stride 0x0 and dilation 1x1 must be positive and pads not negative",
                       ValueError);

  MaxPool2D pool(3);
  CHECK_THROWS_WITH_AS(pool(zeros({1, 2, 2, 1})),
                       "max_pool2d: a window of 3x3 does not fit into (1, 2, 2, 1) padded to 2x2", ShapeError);
  AvgPool2D average(3);
  CHECK_THROWS_WITH_AS(average(zeros({1, 2, 2, 1})),
                       "avg_pool2d: a window of 3x3 does not fit into (1, 2, 2, 1) padded to 2x2", ShapeError);
}

TEST_CASE("layers: Embedding refuses what is no index, and float32 indices that it cannot tell apart") {
  Embedding layer({.size = 20'000'000, .units = 1});
  CHECK(layer(tensor({16777217}, i64)).shape() == Shape{1, 1});
  CHECK(layer(tensor({3, 16777215})).shape() == Shape{2, 1});
  for (const double bad : {1.7, -0.5, 16777216.0, std::nan(""), 1e30})
    CHECK_THROWS_AS(layer(tensor({bad})), ValueError);
  CHECK_THROWS_WITH_AS(layer(tensor({1.5})),
                       "Embedding: 1.5 as float32 is no index: needs whole numbers below 2^24; int64 has no such limit",
                       ValueError);
  CHECK(layer(tensor({16777217}, f64)).shape() == Shape{1, 1});
}
