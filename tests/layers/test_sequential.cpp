#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/ops/ops.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace ebb;

Tensor twice(const Tensor& x) { return x * 2.0; }

std::vector<std::string> names(const Sequential& net) {
  std::vector<std::string> out;
  for (const Layer& layer : net.layers()) out.push_back(layer->name());
  return out;
}

bool same_state(Module& a, Module& b) {
  const auto x = named_tensors(a), y = named_tensors(b);
  bool same = x.size() == y.size() && !x.empty();
  for (std::size_t i = 0; same && i < x.size(); ++i)
    same = x[i].path == y[i].path && same_bits(*x[i].tensor, *y[i].tensor);
  return same;
}

std::vector<Layer> cnn() {
  return {Conv2D({.filters = 4}), relu, MaxPool2D(2), Flatten(), Dropout(0.5), Dense(5, tanh), Dense(3)};
}

}  // namespace

TEST_CASE("sequential: layers, functions, lambdas and shared layers run in order") {
  const auto shared = std::make_shared<Dense>(2);
  shared->weight = variable(tensor({1, -1, 2, 0}, {2, 2}));
  shared->bias = variable(tensor({0, 1}));
  int calls = 0;
  const double shift = 10;
  Sequential net({shared, relu, twice, [&calls, shift](const Tensor& x) {
                    ++calls;
                    return x + shift;
                  }});
  // (1, -3) W + b = (-5, 0) -> (0, 0) -> (0, 0) -> (10, 10); (2, 1): (4, -1) -> (4, 0) -> (8, 0) -> (18, 10)
  CHECK(net(tensor({1, -3, 2, 1}, {2, 2})).to_vector() == std::vector<double>{10, 10, 18, 10});
  CHECK(calls == 1);
  CHECK(net.type() == "Sequential");
  CHECK(net.layers().size() == 4);
  CHECK(net.layers()[0].share() == shared);

  const std::vector<Layer> list = net.layers();
  Sequential again(list);
  CHECK(same_bits(again(tensor({1, -3}, {1, 2})), tensor({10, 10}, {1, 2})));

  Sequential empty;
  const Tensor x = tensor({1, 2});
  CHECK(same_bits(empty(x), x));
}

TEST_CASE("sequential: names by kind, as Keras gives them") {
  Sequential net({Conv2D({.filters = 2}), MaxPool2D(2), Conv2D({.filters = 2}), AvgPool2D(2), Conv2D({.filters = 2}),
                  relu, Flatten(), Dense(3), Dropout(0.1), twice, Dense(2), Sequential({Dense(4)}).layers()[0]});
  CHECK(names(net) == std::vector<std::string>{"conv2d", "max_pooling2d", "conv2d_1", "average_pooling2d", "conv2d_2",
                                               "function", "flatten", "dense", "dropout", "function_1", "dense_1",
                                               "dense"});

  Dense own(3);
  own.set_name("head");
  CHECK(names(Sequential({Dense(2), std::move(own), Dense(2)})) ==
        std::vector<std::string>{"dense", "head", "dense_2"});
}

TEST_CASE("sequential: add appends") {
  Sequential net;
  net.add(Dense(4, relu));
  net.add(sigmoid);
  net.add(Dense(2));
  CHECK(names(net) == std::vector<std::string>{"dense", "function", "dense_1"});
  CHECK_FALSE(net.input_shape());
  CHECK(named_tensors(net).empty());
  CHECK(build(net, {3}) == Shape{2});
  CHECK(parameter_count(net) == 16 + 10);

  // With a known input each layer is built as it comes.
  Sequential known(Shape{6, 6, 1}, std::vector<Layer>{});
  REQUIRE(known.input_shape());
  CHECK(*known.input_shape() == Shape{6, 6, 1});
  known.add(Conv2D({.filters = 2}));
  CHECK(parameter_count(known) == 20);
  known.add(Flatten());
  known.add(Dense(3));
  CHECK(parameter_count(known) == 20 + 32 * 3 + 3);
  CHECK(known(zeros({5, 6, 6, 1})).shape() == Shape{5, 3});

  // What does not fit is not added.
  CHECK_THROWS_AS(known.add(Conv2D({.filters = 2})), ShapeError);
  CHECK(known.layers().size() == 3);
  CHECK(known(zeros({5, 6, 6, 1})).shape() == Shape{5, 3});
}

TEST_CASE("sequential: built at construction or by the first data, the same bits") {
  manual_seed(11);
  Sequential now({8, 8, 2}, cnn());
  CHECK(parameter_count(now) == 76 + 36 * 5 + 5 + 18);

  manual_seed(11);
  Sequential later(cnn());
  {
    const NoGrad quiet;  // in training Dropout would draw from the generator in between
    later(zeros({3, 8, 8, 2}));
  }
  CHECK(same_state(now, later));

  manual_seed(11);
  Sequential by_build(cnn());
  CHECK(build(by_build, {8, 8, 2}) == Shape{3});
  CHECK(same_state(now, by_build));

  manual_seed(12);
  Sequential other({8, 8, 2}, cnn());
  CHECK_FALSE(same_state(now, other));
}

TEST_CASE("sequential: a shape that does not fit is refused at construction, naming the layer") {
  CHECK_THROWS_WITH_AS(Sequential({28, 28, 1}, {Conv2D({.filters = 8}), MaxPool2D(2), MaxPool2D(14)}),
                       "layers.2: max_pool2d: a window of 14x14 does not fit into (1, 13, 13, 8) padded to 13x13",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Sequential({784}, {Dense(16), Conv2D({.filters = 8})}),
                       "layers.1: Conv2D: needs an image batch (n, h, w, c), got (1, 16)", ShapeError);
  CHECK_THROWS_WITH_AS(Sequential({4, 4, 1}, {Sequential({Conv2D({.filters = 2, .kernel = 5}), Flatten()}), Dense(2)}),
                       "layers.0.layers.0: conv2d: a window of 5x5 does not fit into (1, 4, 4, 1) padded to 4x4",
                       ShapeError);
  // later, by the data
  Sequential net({Flatten(), Dense(3)});
  net(zeros({2, 4}));
  CHECK_THROWS_WITH_AS(net(zeros({2, 5})), "layers.1: matmul: inner sizes differ: (2, 5) x (4, 3)", ShapeError);
}

TEST_CASE("sequential: errors, drawings and parameters have the paths that files have") {
  const auto tied = std::make_shared<Dense>(4);
  struct Net : Module {
    Sequential body{{Dense(4, relu), Residual({Dense(4), Concat({Dense(1), Dense(3)})})}};
    MultiHeadAttention look{{.heads = 2}};
    Tensor forward(const Tensor& x) override { return look(body(x)); }
    void visit(Visitor& v) override { v("body", body), v("look", look); }
  };
  Sequential net({Net(), tied, tanh, tied});
  for (const bool first : {true, false}) {
    const Tensor loss = sum(net(ones({2, 5, 4})));
    std::map<std::string, std::string> where;  // the name of a parameter, and the scope that uses it
    const Graph graph(loss);
    for (const Node* node : graph.nodes())
      for (const Input& in : node->inputs())
        if (in.node && in.node->is_variable() && node->scope())
          where[std::string(in.node->name())] = node->scope()->path;
    std::size_t used = 0;
    for (const NamedTensor& t : named_parameters(net)) {
      CAPTURE(t.path);
      CHECK(t.tensor->node()->name() == t.path);
      REQUIRE(where.contains(t.path));
      CHECK(t.path.starts_with(where[t.path] + "."));
      ++used;
    }
    CHECK(used == 2 * (1 + 3 + 4 + 1));
    if (first) freeze(net), unfreeze(net);
  }
  // what is wrong in a layer is told with the path of its weight
  Tensor& weight = *named_tensors(net)[2].tensor;
  REQUIRE(named_tensors(net)[2].path == "layers.0.body.layers.1.body.layers.0.weight");
  weight = variable(zeros({9, 4}));
  CHECK_THROWS_WITH_AS(net(ones({2, 5, 4})),
                       "layers.0.body.layers.1.body.layers.0: matmul: inner sizes differ: (2, 5, 4) x (9, 4)",
                       ShapeError);
}

TEST_CASE("sequential: layers shared by two models share their parameters") {
  manual_seed(13);
  const auto trunk = std::make_shared<Dense>(4, tanh);
  Sequential a({3}, {trunk, Dense(2)}), b({3}, {trunk, Dense(5)});
  CHECK(named_tensors(a)[0].tensor == named_tensors(b)[0].tensor);
  const Tensor x = tensor({1, 2, 3}, {1, 3});
  const Tensor before = b(x).detach().clone(), weight = trunk->weight.clone();
  SGD({.lr = 0.1}).step(a, backward(sum(a(x))));
  CHECK_FALSE(same_bits(trunk->weight.detach(), weight));
  CHECK_FALSE(same_bits(b(x), before));

  // A second model of the same layers goes on from the first one's weights (clf2 = Sequential(net1)).
  Sequential c(a.layers());
  CHECK(same_bits(c(x), a(x)));
  CHECK(same_state(a, c));
  SGD({.lr = 0.1}).step(c, backward(sum(c(x))));
  CHECK(same_bits(c(x), a(x)));

  // A layer by value shares as copies do, and is refused while there is nothing to share.
  Dense fresh(2);
  CHECK_THROWS_AS(Sequential({fresh}), ValueError);
  fresh(x);
  Sequential d({3}, {fresh}), e({3}, {fresh}), f({3}, {clone(fresh)});
  CHECK(named_tensors(d)[0].tensor->storage() == named_tensors(e)[0].tensor->storage());
  CHECK(named_tensors(d)[0].tensor->storage() != named_tensors(f)[0].tensor->storage());
}

TEST_CASE("sequential: a null layer and an empty function are refused where they are given") {
  using F = Tensor (*)(const Tensor&);
  CHECK_THROWS_WITH_AS(Layer(std::shared_ptr<Dense>()), "Layer: the pointer is null", ValueError);
  CHECK_THROWS_WITH_AS(Layer(std::shared_ptr<Module>()), "Layer: the pointer is null", ValueError);
  CHECK_THROWS_WITH_AS(Layer(static_cast<F>(nullptr)), "Function: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Layer(std::function<Tensor(const Tensor&)>()), "Function: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Layer(std::function<Tensor(Tensor)>()), "Function: the function is empty", ValueError);
  CHECK_THROWS_WITH_AS(Function(nullptr), "Function: the function is empty", ValueError);
  CHECK_THROWS_AS(Sequential({2}, {Dense(2), std::shared_ptr<Dense>()}), ValueError);
  CHECK_THROWS_AS(Residual({std::shared_ptr<Dense>()}), ValueError);
  CHECK_THROWS_AS(Concat({Dense(2), nullptr}), ValueError);

  Layer taken = Dense(2);
  const Layer other = std::move(taken);
  CHECK_THROWS_WITH_AS(Sequential({taken}), "Layer: the pointer is null", ValueError);
  CHECK_THROWS_AS(Residual({taken}), ValueError);
  CHECK_THROWS_AS(Concat(ConcatOptions{.branches = {{taken}}}), ValueError);
  CHECK_THROWS_AS(Concat(ConcatOptions{.branches = {{relu, taken}}}), ValueError);

  Dense layer(2);
  CHECK_THROWS_WITH_AS(layer.on_forward(nullptr), "on_forward: the hook is empty", ValueError);
  CHECK_THROWS_WITH_AS(layer.on_backward({}), "on_backward: the hook is empty", ValueError);
  CHECK(layer(ones({1, 2})).shape() == Shape{1, 2});
}

TEST_CASE("layers: a null initializer is refused where it is given") {
  CHECK_THROWS_WITH_AS(Dense({.units = 2, .weight_init = nullptr}), "Dense: weight_init is null", ValueError);
  CHECK_THROWS_WITH_AS(Dense({.units = 2, .bias_init = nullptr}), "Dense: bias_init is null", ValueError);
  CHECK_THROWS_WITH_AS(Conv2D({.filters = 2, .weight_init = nullptr}), "Conv2D: weight_init is null", ValueError);
  CHECK_THROWS_WITH_AS(DepthwiseConv2D({.bias_init = nullptr}), "DepthwiseConv2D: bias_init is null", ValueError);
  CHECK_THROWS_WITH_AS(Conv2DTranspose({.filters = 2, .weight_init = nullptr}), "Conv2DTranspose: weight_init is null",
                       ValueError);
  CHECK_THROWS_WITH_AS(GRU({.units = 2, .weight_init = nullptr}), "GRU: weight_init is null", ValueError);
  CHECK_THROWS_WITH_AS(LSTM({.units = 2, .recurrent_init = nullptr}), "LSTM: recurrent_init is null", ValueError);
  CHECK_THROWS_WITH_AS(make_parameter(nullptr, {2}, ones({1}), "w"), "make_parameter: the initializer is null",
                       ValueError);
}
