#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <cmath>
#include <vector>

#include "layers/layer_check.h"

using namespace ebb;
using namespace ebb::testing;

TEST_CASE("recurrent: gradients in input and parameters") {
  const Tensor x = distinct({2, 4, 3}, 1) * 3.0;
  const GradcheckOptions smooth{.order = 2};
  CHECK(check_layer(SimpleRNN(5), x, smooth));
  CHECK(check_layer(SimpleRNN({.units = 2, .return_sequences = true}), x, smooth));
  CHECK(check_layer(GRU(3), x, smooth));
  CHECK(check_layer(GRU({.units = 2, .return_sequences = true}), x, smooth));
  CHECK(check_layer(LSTM(3), x, smooth));
  CHECK(check_layer(LSTM({.units = 2, .return_sequences = true}), x, smooth));
  CHECK(check_layer(Sequential({GRU({.units = 3, .return_sequences = true}), LSTM(2)}), x, smooth));
}

TEST_CASE("recurrent: one number, step by step") {
  const auto s = [](double v) { return 1 / (1 + std::exp(-v)); };
  const std::vector<double> x{0.5, -1.2, 0.8};
  const Tensor input = Tensor::from(x, {1, 3, 1});

  SimpleRNN rnn({.units = 1, .return_sequences = true});
  rnn(input);
  rnn.weight.assign(tensor({0.7}, {1, 1}, f64));
  rnn.recurrent_weight.assign(tensor({-0.4}, {1, 1}, f64));
  rnn.bias.assign(tensor({0.1}, f64));
  double h = 0;
  std::vector<double> states;
  for (const double v : x) states.push_back(h = std::tanh(0.7 * v - 0.4 * h + 0.1));
  CHECK(difference(rnn(input), Tensor::from(states, {1, 3, 1})) < 1e-15);

  GRU gru(1);
  gru(input);
  gru.weight.assign(tensor({0.7, -0.3, 1.1}, {1, 3}, f64));
  gru.recurrent_weight.assign(tensor({0.2, 0.5, -0.6}, {1, 3}, f64));
  gru.bias.assign(tensor({0.1, 0.2, 0.3}, f64));
  gru.recurrent_bias.assign(tensor({-0.1, 0.4, 0.25}, f64));
  h = 0;
  for (const double v : x) {  // Keras, reset_after: the reset gate acts on the product, bias included
    const double z = s(0.7 * v + 0.1 + 0.2 * h - 0.1), r = s(-0.3 * v + 0.2 + 0.5 * h + 0.4);
    h = z * h + (1 - z) * std::tanh(1.1 * v + 0.3 + r * (-0.6 * h + 0.25));
  }
  CHECK(gru(input).item() == doctest::Approx(h).epsilon(1e-14));

  LSTM lstm(1);
  lstm(input);
  lstm.weight.assign(tensor({0.7, -0.3, 1.1, 0.9}, {1, 4}, f64));
  lstm.recurrent_weight.assign(tensor({0.2, 0.5, -0.6, -0.8}, {1, 4}, f64));
  lstm.bias.assign(tensor({0.1, 1, 0.3, -0.2}, f64));
  h = 0;
  double c = 0;
  for (const double v : x) {
    const double i = s(0.7 * v + 0.2 * h + 0.1), f = s(-0.3 * v + 0.5 * h + 1), o = s(0.9 * v - 0.8 * h - 0.2);
    c = f * c + i * std::tanh(1.1 * v - 0.6 * h + 0.3);
    h = o * std::tanh(c);
  }
  CHECK(lstm(input).item() == doctest::Approx(h).epsilon(1e-14));
}

TEST_CASE("recurrent: shapes, names and initial values") {
  LSTM lstm({.units = 4, .return_sequences = true});
  CHECK(lstm(zeros({2, 3, 5})).shape() == Shape{2, 3, 4});
  CHECK(LSTM(4)(zeros({2, 3, 5})).shape() == Shape{2, 4});
  CHECK(lstm.bias.to_vector() == std::vector<double>{0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0});
  const Tensor u = lstm.recurrent_weight;  // (4, 16): orthonormal rows
  CHECK(difference(matmul(u, u, {.transpose_b = true}), one_hot(arange(4, i64), 4)) < 1e-5);
  GRU gru(3);
  gru(zeros({1, 2, 5}));
  std::vector<std::string> names;
  for (const NamedTensor& t : named_tensors(gru)) names.push_back(t.path + " " + t.tensor->shape().str());
  CHECK(names ==
        std::vector<std::string>{"weight (5, 9)", "recurrent_weight (3, 9)", "bias (9,)", "recurrent_bias (9,)"});
  CHECK(parameter_count(gru) == 3 * (5 * 3 + 3 * 3 + 6));
}

TEST_CASE("recurrent: more steps than a word has bits, their states and gradients") {
  const Tensor x = variable(distinct({2, 70, 3}, 1));
  const auto same_at_the_end = [&](auto all, auto last) {
    all(x), last(x);  // makes the parameters
    const auto from = named_tensors(all), to = named_tensors(last);
    for (std::size_t i = 0; i < from.size(); ++i) to[i].tensor->assign(*from[i].tensor);
    const Tensor states = all(x), end = slice(states, {.axis = 1, .begin = 69});
    CHECK(states.shape() == Shape{2, 70, 2});
    CHECK(same_bits(end.detach().viewed_as({2, 2}), last(x).detach()));
    const Gradients a = backward(sum(square(end))), b = backward(sum(square(last(x))));
    CHECK(same_bits(a[x], b[x]));
    for (std::size_t i = 0; i < from.size(); ++i) CHECK(same_bits(a[*from[i].tensor], b[*to[i].tensor]));
  };
  const RecurrentOptions all{.units = 2, .return_sequences = true};
  same_at_the_end(SimpleRNN(all), SimpleRNN(2));
  same_at_the_end(GRU(all), GRU(2));
  same_at_the_end(LSTM(all), LSTM(2));
  CHECK(check_layer(LSTM({.units = 1, .return_sequences = true}), distinct({1, 66, 1}, 2), {.order = 2}));
}

TEST_CASE("recurrent: messages") {
  CHECK_THROWS_WITH_AS(GRU(0), "GRU: units must be at least 1, got 0", ValueError);
  CHECK_THROWS_WITH_AS(LSTM(3)(zeros({2, 3})), "LSTM: needs sequences (n, steps, features), got (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(SimpleRNN(3)(zeros({2, 0, 3})), "SimpleRNN: needs sequences (n, steps, features), got (2, 0, 3)",
                       ShapeError);
}
