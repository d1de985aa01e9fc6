// An empty batch: every layer and the ops that work on each sample give an empty result of the right shape, and
// gradients of 0.
#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/fit.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

using namespace ebb;

namespace {

struct Row {
  std::string name;
  Shape sample;
  std::function<Tensor(const Tensor&)> f;
};

Row layer(const std::string& name, Layer l, const Shape& sample) {
  return {name, sample, [l](const Tensor& x) { return (*l)(x); }};
}

std::vector<Row> rows() {
  return {
      layer("Dense", Dense(3, relu), {4}),
      layer("Dense of sequences", Dense(3), {2, 4}),
      layer("Conv2D", Conv2D({.filters = 2, .activation = relu}), {4, 4, 1}),
      layer("Conv2D in groups", Conv2D({.filters = 2, .groups = 2}), {4, 4, 2}),
      layer("DepthwiseConv2D", DepthwiseConv2D(), {4, 4, 2}),
      layer("Conv2DTranspose", Conv2DTranspose({.filters = 2}), {4, 4, 2}),
      layer("MaxPool2D", MaxPool2D(2), {4, 4, 2}),
      layer("AvgPool2D", AvgPool2D(2), {4, 4, 2}),
      layer("GlobalAvgPool2D", GlobalAvgPool2D(), {4, 4, 2}),
      layer("GlobalMaxPool2D", GlobalMaxPool2D(), {4, 4, 2}),
      layer("Flatten", Flatten(), {4, 4}),
      layer("Reshape", Reshape({2, 8}), {4, 4}),
      layer("Dropout", Dropout(0.5), {4}),
      layer("SpatialDropout2D", SpatialDropout2D(0.5), {4, 4, 2}),
      layer("Embedding", Embedding({.size = 5, .units = 2}), {3}),
      layer("LayerNormalization", LayerNormalization(), {4}),
      layer("GroupNormalization", GroupNormalization({.groups = 2}), {4}),
      layer("GroupNormalization of images", GroupNormalization({.groups = 2}), {3, 3, 4}),
      layer("MultiHeadAttention", MultiHeadAttention({.heads = 2}), {3, 4}),
      layer("MultiHeadAttention, causal", MultiHeadAttention({.heads = 2, .causal = true}), {3, 4}),
      layer("PositionEmbedding", PositionEmbedding(), {3, 4}),
      layer("SimpleRNN", SimpleRNN(2), {3, 4}),
      layer("GRU", GRU(2), {3, 4}),
      layer("LSTM", LSTM({.units = 2, .return_sequences = true}), {3, 4}),
      layer("Standardize", Standardize(), {4}),
      layer("Residual", Residual({Dense(4)}), {4}),
      layer("Concat", Concat({Dense(4), Dense(2)}), {4}),
      layer("Function", silu, {4}),
      layer("joined layers",
            Sequential({Conv2D({.filters = 2, .activation = relu}), MaxPool2D(2), Flatten(), Dense(2)}), {6, 6, 1}),
      {"softmax", {4}, softmax},
      {"log_softmax", {4}, log_softmax},
      {"sum", {4, 2}, [](const Tensor& x) { return sum(x, 1); }},
      {"mean",
       {4, 2},
       [](const Tensor& x) {
         return mean(x, {1, 2});
       }},
      {"variance", {4, 2}, [](const Tensor& x) { return variance(x, -1); }},
      {"logsumexp", {4}, [](const Tensor& x) { return logsumexp(x, -1); }},
      {"max", {4}, [](const Tensor& x) { return max(x, -1); }},
      {"min", {4}, [](const Tensor& x) { return min(x, -1); }},
      {"argmax", {4}, [](const Tensor& x) { return argmax(x); }},
      {"transpose",
       {4, 2},
       [](const Tensor& x) {
         return transpose(x, {0, 2, 1});
       }},
      {"slice", {4}, [](const Tensor& x) { return slice(x, {.axis = 1, .begin = 1, .end = 3}); }},
      {"pad", {4}, [](const Tensor& x) { return pad(x, {.axis = 1, .before = 1, .after = 2}); }},
      {"concat",
       {4},
       [](const Tensor& x) {
         return concat({x, x}, 1);
       }},
      {"stack",
       {4},
       [](const Tensor& x) {
         return stack(std::vector{x, x}, 1);
       }},
      {"matmul",
       {4},
       [](const Tensor& x) {
         return matmul(x, ones({4, 3}));
       }},
      {"matmul of stacks", {4, 2}, [](const Tensor& x) { return matmul(x, x, {.transpose_b = true}); }},
      {"where", {4}, [](const Tensor& x) { return where(greater(x, 0.0), x, 2.0 * x); }},
      {"one_hot", {}, [](const Tensor& x) { return one_hot(cast(x.detach(), i64), 3); }},
  };
}

}  // namespace

TEST_CASE("an empty batch through every layer and op") {
  for (const Row& row : rows())
    for (const bool train : {true, false})
      for (const bool first : {true, false}) {  // layers make their parameters from an empty batch too
        CAPTURE(row.name);
        CAPTURE(train);
        const Training mode(train);
        const Tensor x = variable(zeros(row.sample.inserted(0, 0)));
        const Tensor early = first ? row.f(x) : Tensor();
        const Tensor one = row.f(ones(row.sample.inserted(0, 1))), y = row.f(x);
        CHECK(y.shape() == one.shape().with(0, 0));
        CHECK(y.dtype() == one.dtype());
        if (first) CHECK(early.shape() == y.shape());
        if (!y.tracked()) continue;
        const Gradients g = backward(sum(y));
        if (g.contains(x)) CHECK(g[x].shape() == x.shape());
        for (const auto& entry : g.entries())
          for (const double v : entry.gradient.to_vector()) CHECK(v == 0);
      }
}

TEST_CASE("an empty batch has no mean: batch normalization refuses it in training, and takes it at inference") {
  for (const Shape& sample : {Shape{4}, Shape{3, 3, 4}}) {
    BatchNormalization norm;
    const Tensor x = zeros(sample.inserted(0, 0));
    CHECK_THROWS_AS(norm(x), ShapeError);
    const NoGrad quiet;
    CHECK(norm(x).shape() == x.shape());
  }
}
