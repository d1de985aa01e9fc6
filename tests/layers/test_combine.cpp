#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <vector>

#include "layers/layer_check.h"

using namespace ebb;
using namespace ebb::testing;

TEST_CASE("combine: gradients of Residual and Concat in input and parameters") {
  const Tensor x = distinct({2, 4, 5, 3}, 1);
  CHECK(check_layer(Residual({Conv2D({.filters = 3, .pad = Padding::same(), .activation = tanh}),
                              Conv2D({.filters = 3, .pad = Padding::same()})}),
                    x, {.order = 2}));
  CHECK(check_layer(Residual({Conv2D({.filters = 2, .stride = 2, .pad = Padding::same()})},
                             {Conv2D({.filters = 2, .kernel = 1, .stride = 2})}),
                    x, {.order = 2}));
  CHECK(check_layer(Concat({Conv2D({.filters = 2, .kernel = 1}), [](const Tensor& t) { return square(t); },
                            Sequential({Conv2D({.filters = 1, .kernel = 1}), tanh})}),
                    x, {.order = 2}));
}

TEST_CASE("combine: values") {
  const Tensor x = tensor({1, -2}, {1, 2});
  CHECK(Residual({relu})(x).to_vector() == std::vector<double>{2, -2});
  CHECK(
      Residual({relu, [](const Tensor& t) { return t * 10.0; }}, {[](const Tensor& t) { return -t; }})(x).to_vector() ==
      std::vector<double>{9, 2});
  CHECK(Concat({relu, [](const Tensor& t) { return t * 2.0; }})(x).to_vector() == std::vector<double>{1, 0, 2, -4});
}

TEST_CASE("combine: names, and copies that share") {
  Sequential net({2}, {Residual({Dense(2, relu), Dense(2)}), Concat({Dense(3), Sequential({Dense(1), relu})})});
  std::vector<std::string> names;
  for (const NamedTensor& t : named_tensors(net)) names.push_back(t.path);
  CHECK(names == std::vector<std::string>{"layers.0.body.layers.0.weight", "layers.0.body.layers.0.bias",
                                          "layers.0.body.layers.1.weight", "layers.0.body.layers.1.bias",
                                          "layers.1.layers.0.weight", "layers.1.layers.0.bias",
                                          "layers.1.layers.1.layers.0.weight", "layers.1.layers.1.layers.0.bias"});
  CHECK(net(zeros({5, 2})).shape() == Shape{5, 4});
}

TEST_CASE("combine: messages") {
  CHECK_THROWS_WITH_AS(Residual({Dense(3)})(zeros({2, 4})),
                       "Residual: the layers give (2, 3), the way around (2, 4); a shortcut such as a convolution of "
                       "1x1 makes them alike",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Concat(ConcatOptions{}), "Concat: needs at least one branch", ValueError);
}
