#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <cmath>
#include <vector>

#include "layers/layer_check.h"

using namespace ebb;
using namespace ebb::testing;

TEST_CASE("attention: gradients in input and parameters") {
  const Tensor x = distinct({2, 4, 6}, 1);
  const GradcheckOptions smooth{.order = 2};
  CHECK(check_layer(MultiHeadAttention(2), x, smooth));
  CHECK(check_layer(MultiHeadAttention({.heads = 3, .causal = true}), x, smooth));
  CHECK(check_layer(MultiHeadAttention({.heads = 2, .key_dim = 5, .use_bias = false}), x, smooth));
  CHECK(check_layer(PositionEmbedding(), x, smooth));
}

TEST_CASE("attention: the formula, written out") {
  const Tensor q = distinct({3, 2}, 1) * 20.0, k = distinct({4, 2}, 2) * 20.0, v = distinct({4, 5}, 3);
  const auto a = q.to_vector(), b = k.to_vector(), c = v.to_vector();
  for (const bool causal : {false, true}) {
    std::vector<double> expected;
    for (std::size_t i = 0; i < 3; ++i) {
      std::vector<double> w(4);
      double total = 0;
      for (std::size_t j = 0; j < 4; ++j)
        total += w[j] =
            causal && j > i ? 0 : std::exp((a[2 * i] * b[2 * j] + a[2 * i + 1] * b[2 * j + 1]) / std::sqrt(2.0));
      for (std::size_t e = 0; e < 5; ++e) {
        double y = 0;
        for (std::size_t j = 0; j < 4; ++j) y += w[j] / total * c[5 * j + e];
        expected.push_back(y);
      }
    }
    CHECK(difference(attention(q, k, v, causal), Tensor::from(expected, {3, 5})) < 1e-14);
  }
}

TEST_CASE("attention: heads do not see one another, causal steps no later one") {
  manual_seed(5);
  MultiHeadAttention layer({.heads = 2, .causal = true});
  const Tensor x = randn({1, 5, 4}, f64), y = layer(x);
  Tensor changed = x.clone();
  for (double& v : changed.mutable_values<double>().subspan(12)) v += 1;  // steps 3 and 4
  const Tensor z = layer(changed);
  CHECK(difference(slice(y, {.axis = 1, .end = 3}), slice(z, {.axis = 1, .end = 3})) == 0);
  CHECK(difference(slice(y, {.axis = 1, .begin = 3}), slice(z, {.axis = 1, .begin = 3})) > 0.01);

  // One head by hand: its columns of the query, key and value, its rows of the output.
  const auto dense = [&](const char* name, const Tensor& t) {
    for (const NamedTensor& p : named_tensors(layer))
      if (p.path == std::string(name) + ".weight") return matmul(t, *p.tensor);
    throw ValueError("no such layer");
  };
  Tensor heads;
  for (std::int64_t i = 0; i < 2; ++i) {
    const auto part = [&](const Tensor& t) { return slice(t, {.axis = 2, .begin = 2 * i, .end = 2 * i + 2}); };
    const Tensor h = attention(part(dense("query", x)), part(dense("key", x)), part(dense("value", x)), true);
    heads = i ? concat({heads, h}, 2) : h;
  }
  CHECK(difference(dense("output", heads), y) < 1e-14);  // biases are zero at first
}

TEST_CASE("attention: cross-attention, names and messages") {
  MultiHeadAttention layer({.heads = 2, .key_dim = 3});
  CHECK(layer.attend(zeros({2, 4, 6}), zeros({2, 7, 5})).shape() == Shape{2, 4, 6});
  std::vector<std::string> names;
  for (const NamedTensor& t : named_tensors(layer)) names.push_back(t.path + " " + t.tensor->shape().str());
  CHECK(names == std::vector<std::string>{"query.weight (6, 6)", "query.bias (6,)", "key.weight (5, 6)",
                                          "key.bias (6,)", "value.weight (5, 6)", "value.bias (6,)",
                                          "output.weight (6, 6)", "output.bias (6,)"});
  CHECK_THROWS_WITH_AS(MultiHeadAttention(0), "MultiHeadAttention: heads must be at least 1, got 0", ValueError);
  CHECK_THROWS_WITH_AS(MultiHeadAttention(4)(zeros({1, 2, 6})),
                       "MultiHeadAttention: 6 features cannot be shared among 4 heads; give key_dim", ShapeError);
  CHECK_THROWS_WITH_AS(MultiHeadAttention(2)(zeros({2, 6})),
                       "MultiHeadAttention: needs sequences (n, steps, features), got (2, 6)", ShapeError);
  CHECK_THROWS_WITH_AS(PositionEmbedding()(zeros({2, 6})),
                       "PositionEmbedding: needs sequences (n, steps, features), got (2, 6)", ShapeError);
}
