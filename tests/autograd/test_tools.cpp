// Checkpointing, hooks and clipping.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/gradcheck.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/models/layers/norm.h>
#include <ebb/ops/ops.h>

#include "op_table.h"

using namespace ebb;
using ebb::testing::distance;

namespace {

/// A few layers that need room inside.
Tensor deep(const Tensor& x, const Tensor& w) {
  Tensor h = x;
  for (int i = 0; i < 6; ++i) h = tanh(matmul(h, w));
  return h;
}

}  // namespace

TEST_CASE("checkpoint: the same value and gradients, to the bit") {
  const Tensor x = variable(randn({5, 8}), "x"), w = variable(randn({8, 8}) * 0.3, "w");
  const Tensor plain = mean(square(deep(x, w)));
  const Gradients a = backward(plain);
  const Tensor again = mean(square(checkpoint([&](const Tensor& t) { return deep(t, w); }, x)));  // w is captured
  CHECK(same_bits(plain, again));
  const Gradients b = backward(again);
  CHECK(same_bits(a[x], b[x]));
  CHECK(same_bits(a[w], b[w]));
}

TEST_CASE("checkpoint: over 40 dense layers, whose 80 parameters it captures") {
  std::vector<Tensor> weights, biases;
  for (int i = 0; i < 40; ++i) {
    weights.push_back(variable(randn({6, 6}, f64) * 0.4));
    biases.push_back(variable(randn({6}, f64) * 0.1));
  }
  const auto layers = [&](const Tensor& x) {
    Tensor h = x;
    for (std::size_t i = 0; i < weights.size(); ++i) h = tanh(linear(h, weights[i], biases[i]));
    return h;
  };
  const Tensor x = variable(randn({3, 6}, f64));
  const auto loss = [&](bool again) { return mean(square(again ? checkpoint(layers, x) : layers(x))); };
  const Gradients plain = backward(loss(false)), g = backward(loss(true));
  CHECK(g.size() == 81);
  std::vector<Tensor> all{x};
  all.insert(all.end(), weights.begin(), weights.end());
  all.insert(all.end(), biases.begin(), biases.end());
  for (const Tensor& t : all) CHECK(same_bits(g[t], plain[t]));
  // second order: along the gradient
  const auto twice = [&](bool again) {
    const Tensor slope = grad(loss(again), weights[0], {.create_graph = true});
    return grad(sum(square(slope)), {weights[0], biases[39]});
  };
  const auto expected = twice(false), second = twice(true);
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(sum(abs(second[i] - expected[i])).item() <= 1e-12 * sum(abs(expected[i])).item());
}

TEST_CASE("checkpoint: a captured intermediate value passes its gradient on") {
  const Tensor w = variable(randn({4}), "w"), x = variable(randn({4}), "x");
  const Tensor scale = exp(w);
  const Gradients g = backward(sum(checkpoint([&](const Tensor& t) { return t * scale; }, x)));
  const Gradients expected = backward(sum(x * exp(w)));
  CHECK(same_bits(g[w], expected[w]));
  CHECK(same_bits(g[x], expected[x]));
}

TEST_CASE("checkpoint: holds less memory than the plain graph until backward") {
  const Tensor x = variable(randn({64, 64})), w = variable(randn({64, 64}) * 0.1);
  const auto held = [](const auto& make) {
    const std::size_t before = memory_stats().in_use;
    const Tensor y = make();
    return memory_stats().in_use - before;
  };
  const std::size_t plain = held([&] { return deep(x, w); });
  const std::size_t small = held([&] { return checkpoint([&](const Tensor& t) { return deep(t, w); }, x); });
  CHECK(3 * small < plain);
}

TEST_CASE("checkpoint: draws the same random numbers the second time") {
  manual_seed(3);
  const Tensor x = variable(ones({1000}));
  const Tensor y = checkpoint([](const Tensor& t) { return dropout(t, 0.5); }, x);
  manual_seed(99);
  CHECK(same_bits(backward(sum(y))[x], y));  // d(x mask)/dx = mask, and x is one
}

TEST_CASE("checkpoint: differentiable twice, and a no-op without recording") {
  const Tensor w = randn({3, 3}, f64);
  CHECK(gradcheck([](auto& x, auto& k) { return checkpoint([&](const Tensor& t) { return tanh(matmul(t, k)); }, x); },
                  {randn({2, 3}, f64), w}, {.order = 2}));
  const NoGrad quiet;
  CHECK_FALSE(checkpoint([&](const Tensor& t) { return matmul(t, w); }, variable(randn({2, 3}, f64))).tracked());
}

TEST_CASE("checkpoint: inputs and captured tensors that depend on one another, to the second derivative") {
  const auto pair = [](std::span<const Tensor> in) { return in[0] * in[1]; };
  const auto check = [](const UnaryFunction& plain, const UnaryFunction& again) {
    const Tensor x = tensor({1.5, -0.7, 2.0}, f64), v = tensor({1.0, 2.0, -0.5}, f64);
    const auto total = [](const UnaryFunction& f) { return UnaryFunction([f](const Tensor& t) { return sum(f(t)); }); };
    const Tensor a = variable(x), b = variable(x);
    for (const bool create : {false, true})
      CHECK(distance(grad(sum(plain(a)), a, {.create_graph = create}),
                     grad(sum(again(b)), b, {.create_graph = create})) < 1e-14);
    CHECK(distance(hvp(total(plain), x, v), hvp(total(again), x, v)) < 1e-13);
    CHECK(gradcheck(again, {x}, {.order = 2}));
  };
  check([](const Tensor& x) { return x * square(x); },
        [&](const Tensor& x) {
          return checkpoint(pair, std::vector{x, square(x)});
        });
  check([](const Tensor& x) { return x * square(x); },
        [&](const Tensor& x) {
          return checkpoint(pair, std::vector{square(x), x});
        });
  check([](const Tensor& x) { return x * x; }, [&](const Tensor& x) { return checkpoint(pair, std::vector{x, x}); });
  check([](const Tensor& x) { return x * x; },
        [&](const Tensor& x) { return checkpoint([x](const Tensor& t) { return t * x; }, x); });
  // captured: a value, and what it was made from
  check([](const Tensor& x) { return exp(x) * x * sin(x); },
        [&](const Tensor& x) {
          const Tensor e = exp(x);
          return checkpoint([x, e](const Tensor& t) { return t * x * e; }, sin(x));
        });
  check([](const Tensor& x) { return exp(x); },
        [&](const Tensor& x) {
          const Tensor e = exp(x);
          return checkpoint([e](const Tensor&) { return e; },
                            sin(x));  // f ignores its input, and returns what it captured
        });
  // one after another, one within another, hooks and a weight that all of them capture
  check([](const Tensor& x) { return x * x * x; },
        [&](const Tensor& x) {
          Tensor y = ones({3}, f64);
          for (int i = 0; i < 3; ++i) y = checkpoint([x](const Tensor& t) { return t * x; }, y);
          return y;
        });
  check([](const Tensor& x) { return tanh(x * sin(x)) * x; },
        [&](const Tensor& x) {
          return checkpoint(
              [x](const Tensor& t) {
                return checkpoint([t](const Tensor& u) { return tanh(u * sin(t)); }, on_gradient(t, nullptr)) * x;
              },
              x);
        });
}

TEST_CASE("checkpoint: a long chain over one weight is differentiated twice in linear time") {
  int runs = 0;
  const auto power = [&](const Tensor& w) {
    Tensor y = w;
    for (int i = 0; i < 20; ++i)
      y = checkpoint(
          [w, &runs](const Tensor& t) {
            ++runs;
            return sin(t) * w;
          },
          y);
    return sum(y);
  };
  (void)hvp(power, tensor({0.9}, f64), tensor({1}, f64));
  CHECK(runs <= 20 * 4);
}

TEST_CASE("grad: partial derivatives leave out what passes through another of the xs") {
  const Tensor x = variable(tensor({1.5}, f64)), s = square(x), y = x * s;
  const std::vector<Tensor> whole = grad(y, {x, s}, {.retain_graph = true}),
                            partial = grad(y, {x, s}, {.partial = true});
  CHECK(whole[0].item() == 6.75);
  CHECK(partial[0].item() == 2.25);
  CHECK(whole[1].item() == 1.5);
  CHECK(partial[1].item() == 1.5);
}

TEST_CASE("checkpoint: batch normalization moves its averages once") {
  BatchNormalization plain, inside;
  const Tensor x = randn({8, 3});
  const Tensor a = variable(x), b = variable(x);
  const Gradients expected = backward(sum(square(plain(a)) * a));
  const Gradients g = backward(sum(square(checkpoint([&](const Tensor& t) { return inside(t); }, b)) * b));
  CHECK(same_bits(g[b], expected[a]));
  CHECK(same_bits(inside.running_mean, plain.running_mean));
  CHECK(same_bits(inside.running_var, plain.running_var));
  {
    const HoldState held;
    CHECK(state_held());
    (void)inside(a);
  }
  CHECK_FALSE(state_held());
  CHECK(same_bits(inside.running_var, plain.running_var));
}

TEST_CASE("checkpoint: layers may make their parameters inside") {
  Tensor w;
  const Tensor x = variable(ones({2, 3}));
  const Tensor y = sum(checkpoint(
      [&](const Tensor& t) {
        if (!w.defined()) w = variable(full({3, 2}, 0.5), "w");
        return matmul(t, w);
      },
      x));
  CHECK(backward(y)[w].to_vector() == std::vector<double>(6, 2.0));
}

TEST_CASE("on_gradient: sees the gradient, and may change it") {
  const Tensor x = variable(tensor({1, 2, 3}));
  Tensor seen;
  const auto look = [&](const Tensor& g) {
    seen = g;
    return Tensor();
  };
  CHECK(backward(sum(square(on_gradient(x, look))))[x].to_vector() == std::vector<double>{2, 4, 6});
  CHECK(seen.to_vector() == std::vector<double>{2, 4, 6});
  const auto halve = [](const Tensor& g) { return g * 0.5; };
  CHECK(backward(sum(square(on_gradient(x, halve))))[x].to_vector() == std::vector<double>{1, 2, 3});
  const auto wrong = [](const Tensor&) { return ones({2}); };
  CHECK_THROWS_WITH_AS(backward(sum(on_gradient(x, wrong))),
                       "hook: backward gave float32 (2,) for input 0, which is float32 (3,)", GradientError);
}

TEST_CASE("clipping: by the norm of all gradients together, and by value") {
  const Tensor a = variable(zeros({2})), b = variable(zeros({1}));
  const auto gradients = [&] { return backward(sum(a * tensor({3, 4})) + sum(b * 12)); };
  Gradients g = gradients();
  CHECK(global_norm(g) == 13);
  CHECK(clip_by_global_norm(g, 26) == 13);
  CHECK(g[a].to_vector() == std::vector<double>{3, 4});
  CHECK(clip_by_global_norm(g, 6.5) == 13);
  CHECK(g[a].to_vector() == std::vector<double>{1.5, 2});
  CHECK(g[b].to_vector() == std::vector<double>{6});
  g = gradients();
  clip_by_value(g, 3.5);
  CHECK(g[a].to_vector() == std::vector<double>{3, 3.5});
  CHECK(g[b].to_vector() == std::vector<double>{3.5});
  CHECK_THROWS_WITH_AS(clip_by_global_norm(g, 0), "clip_by_global_norm: the norm must be positive, got 0", ValueError);
  CHECK_THROWS_WITH_AS(clip_by_value(g, -1), "clip_by_value: the limit must be positive, got -1", ValueError);
}
