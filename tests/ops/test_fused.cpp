// Fused ops against their plain definitions: value, gradient and second gradient.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/ops/kernels/loops.h>

#include "op_table.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

/// Value, gradients for a random cotangent, and gradients of a random mix of those, cotangent included.
std::vector<Tensor> three_orders(const Function& f, In inputs) {
  Generator random(3);
  std::vector<Tensor> x = variables(inputs);
  const Tensor y = f(x);
  const Tensor cotangent = variable(uniform(y.shape(), -1, 1, f64, random));
  std::vector<Tensor> out{y.detach()};
  const std::vector<Tensor> g = grad(y, x, {.create_graph = true, .cotangent = cotangent});
  Tensor mix = scalar(0, f64);
  for (const Tensor& t : g) {
    out.push_back(t.detach());
    mix = mix + sum(t * uniform(t.shape(), -1, 1, f64, random));
  }
  x.push_back(cotangent);
  for (Tensor& t : grad(mix, x, {.allow_unused = true}))
    if (t.defined()) out.push_back(std::move(t));
  return out;
}

void check_equal(const Function& fused, const Function& plain, In inputs) {
  const std::vector<Tensor> a = three_orders(fused, inputs), b = three_orders(plain, inputs);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(a[i], b[i]) <= 1e-12);
  }
}

}  // namespace

TEST_CASE("fused: conv2d is its plain definition") {
  struct Setting {
    Shape image, kernel;
    Conv2dOptions options;
  };
  const Setting settings[] = {
      {{2, 7, 7, 3}, {3, 3, 3, 4}, {}},
      {{2, 7, 7, 3}, {3, 3, 3, 4}, {.stride = 2, .pad = 1}},
      {{1, 8, 5, 2}, {2, 3, 2, 3}, {.stride = {3, 2}, .pad = Padding::same()}},
      {{1, 9, 9, 1}, {3, 3, 1, 2}, {.pad = Padding::same(), .dilation = 2}},
      {{3, 6, 11, 2}, {2, 2, 2, 1}, {.stride = 2, .dilation = {3, 4}}},
      {{2, 5, 5, 4}, {1, 1, 4, 3}, {.stride = 2}},
      {{1, 3, 4, 2}, {3, 4, 2, 2}, {}},
      {{2, 4, 4, 1}, {5, 5, 1, 2}, {.pad = 3}},
      {{41, 28, 28, 1}, {3, 3, 1, 2}, {}},    // several blocks of images
      {{13, 13, 13, 32}, {3, 3, 32, 3}, {}},  // an image larger than a block
  };
  for (const Setting& s : settings) {
    CAPTURE(s.image.str());
    CAPTURE(s.kernel.str());
    check_equal([&](In x) { return conv2d(x[0], x[1], s.options); },
                [&](In x) { return conv2d_plain(x[0], x[1], s.options); },
                std::vector{randn(s.image, f64), randn(s.kernel, f64)});
  }
}

TEST_CASE("fused: linear is its plain definition") {
  Tensor (*const functions[])(const Tensor&) = {nullptr, relu, sigmoid, tanh, softplus};
  for (const auto f : functions)
    for (const Shape& x : {Shape{5, 3}, Shape{1, 3}, Shape{2, 4, 3}}) {
      CAPTURE(x.str());
      check_equal([&](In in) { return linear(in[0], in[1], in[2], f); },
                  [&](In in) { return linear_plain(in[0], in[1], in[2], f); },
                  std::vector{randn(x, f64), randn({3, 7}, f64), randn({7}, f64)});
    }
  // a frozen input, weight or bias gets no gradient, and the others theirs
  for (int frozen = 0; frozen < 3; ++frozen) {
    std::vector<Tensor> in{randn({5, 3}, f64), randn({3, 7}, f64), randn({7}, f64)}, tracked;
    for (int i = 0; i < 3; ++i)
      if (i != frozen) tracked.push_back(in[static_cast<std::size_t>(i)] = variable(in[static_cast<std::size_t>(i)]));
    const auto fused = grad(sum(square(linear(in[0], in[1], in[2], tanh))), tracked);
    const auto plain = grad(sum(square(linear_plain(in[0], in[1], in[2], tanh))), tracked);
    for (std::size_t i = 0; i < fused.size(); ++i) CHECK(distance(fused[i], plain[i]) <= 1e-12);
  }
  const Tensor x = variable(randn({2, 3})), w = variable(randn({3, 4})), b = variable(randn({4}));
  CHECK(Graph(linear(x, w, b, relu)).size() == 4);
}

TEST_CASE("fused: conv2d_relu is its plain definition") {
  struct Setting {
    Shape image, kernel;
    Conv2dOptions options;
    Pair pool;
  };
  const Setting settings[] = {
      {{2, 7, 7, 3}, {3, 3, 3, 4}, {}, 1},
      {{2, 7, 7, 3}, {3, 3, 3, 17}, {.pad = 1}, 2},
      {{1, 8, 5, 2}, {2, 3, 2, 3}, {.stride = {3, 2}, .pad = Padding::same()}, {3, 2}},
      {{1, 9, 9, 1}, {3, 3, 1, 2}, {.pad = Padding::same(), .dilation = 2}, {2, 4}},
      {{41, 28, 28, 1}, {3, 3, 1, 2}, {}, 2},  // several blocks of images
      {{13, 13, 13, 16}, {3, 3, 16, 16}, {}, 2},
      {{5, 5, 5, 16}, {3, 3, 16, 32}, {}, 1},
      {{3, 9, 8, 3}, {5, 4, 3, 16}, {.stride = 2, .pad = 2}, 2},
      {{2, 4, 141, 1}, {1, 1, 1, 16}, {}, {3, 2}},  // more windows side by side than are pooled at once
      {{1, 4, 4, 1}, {1, 1, 1, 1100}, {}, 2},       // more channels than that
      // Convolved and pooled by strips of rows, some with rows that no window covers:
      {{2, 28, 28, 1}, {3, 3, 1, 32}, {}, 1},
      {{3, 29, 28, 1}, {3, 3, 1, 32}, {}, 2},
      {{2, 28, 28, 1}, {5, 3, 1, 32}, {.pad = 1}, {3, 2}},
      {{2, 40, 37, 3}, {3, 3, 3, 16}, {.stride = {2, 1}, .pad = 1}, {3, 5}},
      {{2, 13, 13, 16}, {5, 5, 16, 16}, {}, 2},
      {{40, 5, 5, 16}, {3, 3, 16, 16}, {}, 1},  // several blocks of Winograd's smallest images
      // Gradients of images whose channels fill registers:
      {{9, 9, 8, 16}, {5, 5, 16, 32}, {}, 1},
      {{7, 9, 8, 32}, {5, 4, 32, 16}, {.stride = 2, .pad = 2}, 2},
      {{2, 8, 5, 16}, {2, 3, 16, 16}, {.stride = {3, 2}, .pad = Padding::same()}, 1},
      {{3, 7, 6, 16}, {1, 1, 16, 48}, {}, 1},
      {{3, 7, 6, 16}, {1, 2, 16, 16}, {.stride = {2, 3}}, 1},       // pixels that no window sees
      {{2, 4, 4, 16}, {2, 2, 16, 16}, {.pad = 3}, 1},               // windows of padding alone
      {{1, 2, 3, 16}, {5, 5, 16, 16}, {.stride = 2, .pad = 4}, 1},  // a window larger than the image
      {{2, 9, 5, 16}, {3, 3, 16, 16}, {.stride = 2, .pad = 2, .dilation = {2, 1}}, 1},
  };
  for (const Setting& s : settings) {
    CAPTURE(s.image.str());
    CAPTURE(s.kernel.str());
    const Function fused = [&](In x) { return conv2d_relu(x[0], x[1], x[2], s.options, s.pool); };
    const Function plain = [&](In x) {
      return max_pool2d(relu(conv2d_plain(x[0], x[1], s.options) + x[2]), {.size = s.pool});
    };
    const std::vector inputs{randn(s.image, f64), randn(s.kernel, f64), randn({s.kernel[3]}, f64)};
    check_equal(fused, plain, inputs);
    // Gradients that are not differentiated again take the one-pass rule, in any choice of inputs.
    for (unsigned tracked = 1; tracked < 8; ++tracked)
      for (const DType t : {f64, f32}) {
        std::vector<Tensor> x;
        for (std::size_t i = 0; i < 3; ++i)
          x.push_back(tracked >> i & 1 ? variable(cast(inputs[i], t)) : cast(inputs[i], t));
        const Tensor y = fused(x), z = plain(x), cotangent = cast(randn(y.shape(), f64), t);
        CHECK(distance(y, z) <= (t == f64 ? 1e-12 : 1e-5));
        const auto a = grad(y, x, {.allow_unused = true, .cotangent = cotangent}),
                   b = grad(z, x, {.allow_unused = true, .cotangent = cotangent});
        for (std::size_t i = 0; i < 3; ++i) {
          CAPTURE(i);
          REQUIRE(a[i].defined() == ((tracked >> i & 1) != 0));
          if (a[i].defined()) CHECK(distance(a[i], b[i]) <= (t == f64 ? 1e-12 : 1e-4));
        }
      }
  }
}

TEST_CASE("fused: NaN goes through conv2d_relu as through its definition") {
  Tensor image = randn({1, 6, 6, 1}, f64);
  image.mutable_values<double>()[14] = std::nan("");
  const Tensor k = randn({3, 3, 1, 16}, f64), b = randn({16}, f64);
  for (const DType t : {f64, f32})
    for (const Pair pool : {Pair(1), Pair(2)}) {
      const std::vector<double> fused = conv2d_relu(cast(image, t), cast(k, t), cast(b, t), {}, pool).to_vector();
      const std::vector<double> plain =
          max_pool2d(relu(conv2d(cast(image, t), cast(k, t)) + cast(b, t)), {.size = pool}).to_vector();
      REQUIRE(fused.size() == plain.size());
      for (std::size_t i = 0; i < fused.size(); ++i) CHECK(std::isnan(fused[i]) == std::isnan(plain[i]));
    }
}

TEST_CASE("fused: conv2d_relu without channels has nothing to do") {
  for (const Pair pool : {Pair(1), Pair(2)}) {
    const Tensor x = variable(randn({2, 6, 6, 1})), k = variable(zeros({3, 3, 1, 0})), b = variable(zeros({0}));
    const Tensor y = conv2d_relu(x, k, b, {}, pool);
    CHECK(y.shape() == Shape{2, 4 / pool.h, 4 / pool.w, 0});
    const auto g = grad(sum(y), {x, k, b});
    CHECK(same_bits(g[0], zeros(x.shape())));
    CHECK(g[1].shape() == k.shape());
  }
}

TEST_CASE("fused: Winograd's convolutions are the plain ones but for rounding") {
  struct Switch {
    bool before = winograd();
    ~Switch() { set_winograd(before); }
  } const restore;
  struct Setting {
    Shape image, kernel;
    Padding pad;
  };
  // Outputs of 11x11, 3x3 and 2x2 are made of tiles of 4, 3 and 2; uneven ones are cut at the edges.
  const Setting settings[] = {{{5, 13, 13, 32}, {3, 3, 32, 64}, 0}, {{9, 5, 5, 64}, {3, 3, 64, 64}, 0},
                              {{3, 8, 6, 16}, {3, 3, 16, 32}, 1},   {{16, 4, 4, 64}, {3, 3, 64, 64}, 0},
                              {{3, 7, 5, 16}, {3, 3, 16, 16}, 2},   {{1, 31, 3, 16}, {3, 3, 16, 16}, Padding::same()}};
  for (const Setting& s : settings) {
    CAPTURE(s.image.str());
    const Conv2dOptions o{.pad = s.pad};
    Generator draws(1);  // the same whichever tests ran before
    const Tensor x = randn(s.image, f64, draws), k = randn(s.kernel, f64, draws);
    const auto results = [&](DType t, bool on) {
      set_winograd(on);
      const std::vector<Tensor> in{variable(cast(x, t)), variable(cast(k, t))};
      const Tensor y = conv2d(in[0], in[1], o);
      Generator random(7);
      const std::vector<Tensor> g = grad(y, in, {.cotangent = cast(randn(y.shape(), f64, random), t)});
      return std::vector<Tensor>{y.detach(), g[0], g[1]};
    };
    const std::vector<Tensor> exact = results(f64, true), direct = results(f32, false), fast = results(f32, true);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CAPTURE(i);
      CHECK(distance(direct[i], exact[i]) <= 2e-6);  // 1.4e-6 was the worst of 100 draws
      CHECK(distance(fast[i], exact[i]) <= 1e-5);    // 6.5e-6
      CHECK(same_bits(fast[i], results(f32, true)[i]));
    }
    CHECK(same_bits(fast[0], direct[0]) == (detail::isa() == detail::Isa::baseline));  // both ways were taken
  }
}

TEST_CASE("fused: an image's convolution does not depend on its neighbors in the batch") {
  const Tensor x = randn({19, 13, 13, 32}), k = randn({3, 3, 32, 64}), b = randn({64});
  const Tensor all = conv2d_relu(x, k, b, {}, 2);
  for (const std::int64_t i : {0, 7, 18})
    CHECK(same_bits(conv2d_relu(x.rows(i, i + 1), k, b, {}, 2), all.rows(i, i + 1)));
}

TEST_CASE("fused: transformed kernels that are kept between calls are those of the kernels as they are") {
  const Tensor images[] = {randn({1, 13, 13, 32}), randn({1, 11, 11, 32})};  // tiles of 4x4 and 3x3
  std::vector<Tensor> kernels;
  for (int i = 0; i < 12; ++i) kernels.push_back(randn({3, 3, 32, 64}));  // more than are kept
  const auto check = [&](const Tensor& k) {
    for (const Tensor& x : images) {
      const Tensor among_others = conv2d(concat({x, x, x}), k).rows(0, 1);  // for which none is kept
      for (int call = 0; call < 2; ++call) CHECK(same_bits(conv2d(x, k), among_others));
    }
  };
  for (int round = 0; round < 2; ++round)
    for (const Tensor& k : kernels) check(k);
  const std::span<float> numbers = kernels[11].mutable_values<float>();
  for (const std::size_t i : {std::size_t{0}, numbers.size() / 2, numbers.size() - 1}) {
    numbers[i] += 1;
    check(kernels[11]);
  }
}

TEST_CASE("fused: cross_entropy is its plain definition") {
  const Tensor x = randn({5, 4}, f64) * 3;
  const Tensor sparse = tensor({3, 0, 2, 2, 1}, i64);
  const Tensor labels[] = {sparse, cast(sparse, u8), one_hot(sparse, 4, f64), softmax(randn({5, 4}, f64)),
                           uniform({5, 4}, 0, 1, f64)};  // the last rows do not add up to one
  for (const Tensor& t : labels)
    for (const double smoothing : {0.0, 0.1, 0.9}) {
      CAPTURE(describe(t));
      CAPTURE(smoothing);
      check_equal([&](In in) { return cross_entropy(in[0], t, {.label_smoothing = smoothing}); },
                  [&](In in) { return cross_entropy_plain(in[0], t, {.label_smoothing = smoothing}); }, std::vector{x});
    }
  // one-hot rows mean the same as classes, and a smoothed target the same as the smoothed probabilities
  CHECK(distance(cross_entropy(x, sparse), cross_entropy(x, one_hot(sparse, 4, f64))) < 1e-15);
  CHECK(distance(cross_entropy(x, sparse, {.label_smoothing = 0.2}),
                 cross_entropy(x, one_hot(sparse, 4, f64) * 0.8 + 0.05)) < 1e-15);
}

TEST_CASE("fused: batch_norm is its plain definition") {
  for (const Shape& shape :
       {Shape{5, 3}, Shape{2, 3, 4, 2}, Shape{1, 7}, Shape{2000, 37}, Shape{9, 70}, Shape{40000, 1}}) {
    CAPTURE(shape.str());
    const std::int64_t c = shape.at(-1);
    Moments ours, theirs;
    // Means far from zero: what a one-pass variance loses.
    const std::vector<Tensor> in{randn(shape, f64) * 0.5 + 30.0, randn({c}, f64), randn({c}, f64)};
    const Function fused = [&](In x) { return batch_norm(x[0], x[1], x[2], {.epsilon = 1e-2, .moments = &ours}); };
    const Function plain = [&](In x) {
      return batch_norm_plain(x[0], x[1], x[2], {.epsilon = 1e-2, .moments = &theirs});
    };
    check_equal(fused, plain, in);
    CHECK(distance(ours.mean, theirs.mean) < 1e-12);
    CHECK(distance(ours.variance, theirs.variance) < 1e-12);
    // The two passes that a training step takes: gradients that are not differentiated again.
    const std::vector<Tensor> x = variables(in);
    const Tensor y = fused(x), z = plain(x), g = randn(shape, f64);
    const auto a = grad(y, x, {.cotangent = g}), b = grad(z, x, {.cotangent = g});
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(distance(a[i], b[i]) < 1e-12);
  }
}

TEST_CASE("fused: extreme logits") {
  for (const DType t : {f32, f64}) {
    const Tensor x = variable(tensor({1e4, -1e4, 0, -1e4, 1e4, 0}, {2, 3}, t)), labels = tensor({0, 0}, i64);
    const Tensor fused = cross_entropy(x, labels), plain = cross_entropy_plain(x, labels);
    CHECK(fused.item() == 1e4);
    CHECK(plain.item() == 1e4);
    CHECK(distance(grad(fused, x), tensor({0, 0, 0, -0.5, 0.5, 0}, {2, 3}, t)) == 0);
    CHECK(distance(grad(plain, x), tensor({0, 0, 0, -0.5, 0.5, 0}, {2, 3}, t)) == 0);
  }
}
