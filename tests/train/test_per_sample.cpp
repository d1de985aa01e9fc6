// Gradients of each sample against one backward pass for each.
#include <doctest/doctest.h>

#include <ebb/autograd/tools.h>
#include <ebb/autograd/vmap.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/per_sample.h>
#include <ebb/ops/ops.h>

#include "op_table.h"

using namespace ebb;
using ebb::testing::distance;

namespace {

/// Counts the ops that run: a loop over n samples runs n times as many.
struct Count : Observer {
  int ops = 0;
  void ran(const OpEvent&) override { ++ops; }
};

/// How many ops ran.
int check(Module& net, const Tensor& x, const Tensor& labels, const Loss& loss = cross_entropy) {
  int ops = 0;
  const Gradients all = [&] {
    const Count seen;
    const Gradients g = per_sample_gradients(net, x, labels, loss);
    ops = seen.ops;
    return g;
  }();
  const HoldState held;
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const Gradients one = backward(loss(net(x.rows(i, i + 1)), labels.rows(i, i + 1)));
    CHECK(one.size() == all.size());
    for (const NamedTensor& p : named_parameters(net)) {
      CAPTURE(p.path);
      CHECK(distance(all[*p.tensor].rows(i, i + 1).viewed_as(p.tensor->shape()), one[*p.tensor]) < 1e-11);
    }
  }
  return ops;
}

}  // namespace

TEST_CASE(
    "per-sample gradients: dense, convolutional and normalized networks, recurrent ones, attention, in one pass") {
  manual_seed(2);
  const Tensor rows = randn({5, 6}, f64), images = randn({5, 8, 8, 2}, f64), series = randn({5, 4, 6}, f64),
               words = tensor({1, 2, 0, 4, 3, 2, 2, 1, 0, 4}, {5, 2}, i64);
  const Tensor labels = tensor({0, 2, 1, 1, 0}, i64);
  const Training training(true);
  const auto passes = [&](Module& net, const Tensor& x, const Tensor& y, const Loss& loss = cross_entropy) {
    const int five = check(net, x, y, loss), two = check(net, x.rows(0, 2), y.rows(0, 2), loss);
    CHECK(five == two);
  };
  Sequential dense{Dense(7, relu), LayerNormalization(), Dense({.units = 5, .activation = tanh}), Dense(3)};
  passes(dense, rows, labels);
  passes(dense, rows, randn({5, 3}, f64), mse);
  Sequential conv{Conv2D({.filters = 4, .kernel = 3, .activation = relu}),
                  MaxPool2D(2),
                  GroupNormalization({.groups = 2}),
                  Conv2D({.filters = 3, .kernel = 2}),
                  AvgPool2D(2),
                  Flatten(),
                  Dense(3)};
  passes(conv, images, labels);
  Sequential norm{Conv2D({.filters = 4, .kernel = 3}), BatchNormalization(), relu, Flatten(), Dense(3)};
  passes(norm, images, labels);
  Sequential lstm{LSTM({.units = 4}), Dense(3)};
  passes(lstm, series, labels);
  Sequential gru{GRU({.units = 4}), Dense(3)};
  passes(gru, series, labels);
  Sequential attention{MultiHeadAttention({.heads = 2}), Flatten(), Dense(3)};
  passes(attention, series, labels);
  Sequential embedding{Embedding({.size = 5, .units = 3, .dtype = f64}), Flatten(), Dense(3)};
  passes(embedding, words, labels);
}

TEST_CASE(
    "per-sample gradients: a module that reads values runs in a loop, state stays, their mean is the gradient of the "
    "mean") {
  struct Reads : Module {
    Dense layer{3};
    Tensor forward(const Tensor& x) override { return sum(square(x)).item() > 5 ? layer(x) : layer(2 * x); }
    void visit(Visitor& v) override { v("layer", layer); }
  } reads;
  manual_seed(3);
  const Tensor x = randn({5, 6}, f64), labels = tensor({0, 2, 1, 1, 0}, i64);
  check(reads, x, labels);
  Sequential net{Dense(4), BatchNormalization(), Dense(3)};
  const Training off(false);
  const Gradients each = per_sample_gradients(net, x, labels), mean_of = backward(cross_entropy(net(x), labels));
  for (const Tensor& p : parameters(net)) CHECK(distance(mean(each[p], 0), mean_of[p]) < 1e-14);
  Sequential unbuilt{Dense(4), BatchNormalization(), Dense(3)};
  const Training on(true);
  (void)per_sample_gradients(unbuilt, x, labels);
  for (const NamedTensor& t : named_tensors(unbuilt))
    if (!t.trained) CHECK((mean(*t.tensor).item() == 0 || mean(*t.tensor).item() == 1));
  CHECK_THROWS_WITH_AS(per_sample_gradients(net, zeros({0, 6}, f64), labels),
                       "per_sample_gradients: no samples in float64 (0, 6)", ShapeError);
  CHECK_THROWS_WITH_AS(per_sample_gradients(net, x, labels.rows(0, 4)),
                       "per_sample_gradients: 5 samples and 4 labels: float64 (5, 6) and int64 (4,)", ShapeError);
  CHECK_THROWS_WITH_AS(per_sample_gradients(net, x, labels.rows(0, 1).viewed_as({})),
                       "per_sample_gradients: 5 samples and 0 labels: float64 (5, 6) and int64 ()", ShapeError);
  CHECK_THROWS_WITH_AS(per_sample_gradients(net, x, Tensor()),
                       "per_sample_gradients: no labels: their tensor is undefined", ValueError);
}
