#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layers/layer_check.h"
#include "temp_dir.h"

using namespace ebb;
using namespace ebb::testing;

TEST_CASE("norm: gradients of BatchNormalization in input and parameters") {
  const Tensor flat = distinct({5, 7}, 1), image = distinct({2, 4, 3, 3}, 2);
  for (const bool on : {true, false}) {
    CAPTURE(on);
    const Training mode(on);
    CHECK(check_layer(BatchNormalization(), flat, {.order = 2}));
    CHECK(check_layer(BatchNormalization(), image, {.order = 2}));
    CHECK(check_layer(BatchNormalization({.epsilon = 0.1}), image, {.order = 2}));
    CHECK(check_layer(BatchNormalization({.center = false}), image, {.order = 2}));
    CHECK(check_layer(BatchNormalization({.scale = false}), image, {.order = 2}));
    CHECK(check_layer(BatchNormalization({.scale = false, .center = false}), image, {.order = 2}));
  }
}

TEST_CASE("norm: BatchNormalization uses the batch in training and the running means at inference") {
  BatchNormalization norm({.momentum = 0.9, .epsilon = 1e-12});
  const Tensor x = tensor({1, 10, 3, 30}, {2, 2}, f64);  // means 2, 20; variances 1, 100
  CHECK(difference(norm(x), tensor({-1, -1, 1, 1}, {2, 2}, f64)) < 1e-11);
  CHECK(norm.running_mean.to_vector()[0] == doctest::Approx(0.2).epsilon(1e-12));
  CHECK(norm.running_mean.to_vector()[1] == doctest::Approx(2).epsilon(1e-12));
  CHECK(norm.running_var.to_vector()[0] == doctest::Approx(0.9 + 0.1).epsilon(1e-12));
  CHECK(norm.running_var.to_vector()[1] == doctest::Approx(0.9 + 10).epsilon(1e-12));
  norm.weight = variable(tensor({2, 3}, f64));
  norm.bias = variable(tensor({0.5, -1}, f64));
  const auto mean = norm.running_mean.to_vector(), var = norm.running_var.to_vector();
  const Tensor one = tensor({7, -5}, {1, 2}, f64);
  const auto expect_running = [&](const Tensor& y) {
    CHECK(y.to_vector()[0] == doctest::Approx(2 * (7 - mean[0]) / std::sqrt(var[0]) + 0.5).epsilon(1e-12));
    CHECK(y.to_vector()[1] == doctest::Approx(3 * (-5 - mean[1]) / std::sqrt(var[1]) - 1).epsilon(1e-12));
  };
  {
    const NoGrad quiet;
    expect_running(norm(one));
  }
  {
    const Training off(false);
    expect_running(norm(one));
  }
  CHECK(norm.running_mean.to_vector() == mean);
  freeze(norm);  // as Keras: a layer that is not trained does not look at the batch
  expect_running(norm(one));
  unfreeze(norm);
  CHECK(norm(one).to_vector() == std::vector<double>{0.5, -1});  // a batch of one has no deviation
  CHECK(norm.running_mean.to_vector() != mean);
}

TEST_CASE("norm: a frozen BatchNormalization leaves its averages alone, whatever it has to freeze") {
  const Tensor x = tensor({1, 2, 5, -3, 0, 7}, {3, 2}, f64);
  for (const bool scale : {false, true})
    for (const bool center : {false, true})
      for (const int how : {0, 1, 2}) {
        CAPTURE(scale);
        CAPTURE(center);
        CAPTURE(how);
        Sequential net({BatchNormalization({.scale = scale, .center = center}), Dense(2)});
        net(x);
        auto& norm = dynamic_cast<BatchNormalization&>(*net.layers()[0]);
        Residual around({net.layers()[0]});  // a member deep inside
        if (how == 0) freeze(norm);
        if (how == 1) freeze(net);
        if (how == 2) freeze(around);
        CHECK(norm.frozen());
        CHECK(net.layers()[1]->frozen() == (how == 1));
        const auto mean = norm.running_mean.to_vector(), var = norm.running_var.to_vector();
        const Tensor trained = norm(x);
        CHECK(norm.running_mean.to_vector() == mean);
        CHECK(norm.running_var.to_vector() == var);
        {
          const NoGrad quiet;
          CHECK(trained.to_vector() == norm(x).to_vector());  // and works with them
        }
        unfreeze(net);
        CHECK_FALSE(norm.frozen());
        norm(x);
        CHECK(norm.running_mean.to_vector() != mean);
      }
}

TEST_CASE("norm: BatchNormalization's values are Keras' defaults and names") {
  BatchNormalization norm;
  norm(ones({2, 3}));
  std::vector<std::string> names;
  for (const NamedTensor& t : named_tensors(norm)) names.push_back(t.path + (t.trained ? "" : "*"));
  CHECK(names == std::vector<std::string>{"weight", "bias", "running_mean*", "running_var*"});
  CHECK(norm.weight.to_vector() == std::vector<double>(3, 1.0));
  CHECK(norm.bias.to_vector() == std::vector<double>(3, 0.0));
  for (const double v : norm.running_mean.to_vector()) CHECK(v == doctest::Approx(0.01));
  for (const double v : norm.running_var.to_vector()) CHECK(v == doctest::Approx(0.99));
  CHECK(parameter_count(norm) == 6);
}

TEST_CASE("norm: building changes no running mean, and training a step moves them") {
  Sequential net({4, 4, 2}, {BatchNormalization(), GlobalAvgPool2D(), Dense(3)});
  const auto& norm = dynamic_cast<BatchNormalization&>(*net.layers()[0]);
  CHECK(norm.running_mean.to_vector() == std::vector<double>{0, 0});
  CHECK(norm.running_var.to_vector() == std::vector<double>{1, 1});
  SGD opt({.lr = 0.1});
  const Tensor x = randn({6, 4, 4, 2}) + 3.0;
  opt.step(net, backward(cross_entropy(net(x), tensor({0, 1, 2, 0, 1, 2}, i64))));
  CHECK(norm.running_mean.to_vector()[0] > 0.02);
}

TEST_CASE("norm: running values are saved, loaded, copied and shown as not trained") {
  const auto make = [] { return Sequential({3}, {BatchNormalization(), Dense(2)}); };
  Sequential a = make(), b = make(), c = make();
  a(randn({8, 3}) * 2.0 + 1.0);
  const TempDir dir;
  save(a, dir.path() / "net.safetensors");
  load(b, dir.path() / "net.safetensors");
  copy_state(a, c);
  for (Sequential* other : {&b, &c}) {
    const auto x = named_tensors(a), y = named_tensors(*other);
    REQUIRE(x.size() == 6);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(same_bits(*x[i].tensor, *y[i].tensor));
  }
  CHECK(summary(a).find("Trainable params: 14 (56.00 Byte)\nNon-trainable params: 6 (24.00 Byte)\n") !=
        std::string::npos);
}

TEST_CASE("norm: gradients of LayerNormalization and GroupNormalization in input and parameters") {
  const Tensor flat = distinct({3, 8}, 1), image = distinct({2, 3, 3, 4}, 2);
  CHECK(check_layer(LayerNormalization(), flat, {.order = 2}));
  CHECK(check_layer(LayerNormalization({.scale = false}), image, {.order = 2}));
  for (const std::int64_t groups : {1, 2, 4})
    CHECK(check_layer(GroupNormalization({.groups = groups}), image, {.order = 2}));
  CHECK(check_layer(GroupNormalization({.groups = 4, .center = false}), flat, {.order = 2}));
}

TEST_CASE("norm: LayerNormalization makes rows, GroupNormalization groups of channels alike") {
  LayerNormalization rows({.epsilon = 1e-12});
  CHECK(difference(rows(tensor({1, 3, 10, 30}, {2, 2}, f64)), tensor({-1, 1, -1, 1}, {2, 2}, f64)) < 1e-11);
  rows.weight = variable(tensor({2, 3}, f64));
  rows.bias = variable(tensor({1, 5}, f64));
  CHECK(difference(rows(tensor({1, 3}, {1, 2}, f64)), tensor({-1, 8}, {1, 2}, f64)) < 1e-11);

  const Tensor x = distinct({2, 3, 5, 6}, 3);
  GroupNormalization groups({.groups = 3, .epsilon = 1e-12});
  const Tensor y = groups(x);
  for (std::int64_t g = 0; g < 3; ++g) {
    const Tensor part = slice(y, {.axis = 3, .begin = 2 * g, .end = 2 * g + 2});
    CHECK(difference(mean(part, {1, 2, 3}), zeros({2}, f64)) < 1e-12);
    CHECK(difference(variance(part, {1, 2, 3}), ones({2}, f64)) < 1e-9);
  }
  // One group is layer normalization over a whole sample.
  LayerNormalization all({.epsilon = 1e-12});
  CHECK(difference(reshape(GroupNormalization({.groups = 1, .epsilon = 1e-12})(x), {2, 90}), all(reshape(x, {2, 90}))) <
        1e-12);
}

TEST_CASE("norm: messages") {
  CHECK_THROWS_WITH_AS(LayerNormalization({.epsilon = -1}), "LayerNormalization: epsilon must be above 0, got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(LayerNormalization()(zeros({3})),
                       "LayerNormalization: needs an input (n, ..., features), got (3,)", ShapeError);
  CHECK_THROWS_WITH_AS(GroupNormalization({.groups = 0}), "GroupNormalization: groups must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(GroupNormalization({.groups = 4})(zeros({2, 6})),
                       "GroupNormalization: 6 channels cannot be shared among 4 groups: (2, 6)", ShapeError);

  CHECK_THROWS_WITH_AS(BatchNormalization({.momentum = 1.5}), "BatchNormalization: momentum must be in [0, 1], got 1.5",
                       ValueError);
  CHECK_THROWS_WITH_AS(BatchNormalization({.epsilon = 0}), "BatchNormalization: epsilon must be above 0, got 0",
                       ValueError);
  BatchNormalization norm;
  CHECK_THROWS_WITH_AS(norm(zeros({4})), "BatchNormalization: needs an input (n, ..., channels), got (4,)", ShapeError);
  norm(zeros({2, 4}));
  CHECK_THROWS_WITH_AS(norm(zeros({2, 3})), "batch_norm: (2, 3) needs gamma and beta (3,), got (4,) and (4,)",
                       ShapeError);
}

TEST_CASE("norm: standardized features, fitted to training samples and applied to others") {
  const Tensor train =
      tensor({1, 5, .1, 200, 2, 5, .1, 10, 4, 5, .1, 0, 7, 5, .1, 255}, {4, 4}, f64);  // values from scikit-learn 1.2.1
  Standardize s(train);
  const auto check = [](const Tensor& got, const std::vector<double>& wanted) {
    const auto values = got.to_vector();
    REQUIRE(values.size() == wanted.size());
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(values[i] == doctest::Approx(wanted[i]).epsilon(1e-12));
  };
  check(s.mean, {3.5, 5, .1, 116.25});
  check(s.scale, {2.29128784747792, 1, 1, 112.99197980387811});
  check(s(train), {-1.091089451179962, 0, 0, 0.7412030495028598, -0.6546536707079772, 0, 0, -0.9403322269812401,
                   0.2182178902359924, 0, 0, -1.0288340836382979, 1.5275252316519468, 0, 0, 1.2279632611166782});
  check(s(tensor({0, 6, .3, 1}, {1, 4}, f64)), {-1.5275252316519468, 1, 0.2, -1.0199838979725921});

  // A data set's factor is as good as multiplying the samples
  Standardize halved;
  halved.fit(train, 0.5);
  check(halved(train * 0.5), s(train).to_vector());

  // Bytes; more rows than one block of them
  const Tensor bytes = cast(arange(3000), u8);
  Standardize b(reshape(bytes, {3000, 1}));
  CHECK(b.mean.dtype() == f32);
  const Tensor z = b(reshape(bytes, {3000, 1}));
  CHECK(mean(z).item() == doctest::Approx(0).epsilon(1e-5));
  CHECK(variance(z).item() == doctest::Approx(1).epsilon(1e-5));

  // A module: the first layer of a network, saved with it
  const TempDir dir;
  const Tensor x = cast(train, f32);
  Sequential net({4}, {Standardize(x), Dense(2)});
  save(net, dir / "net");
  Sequential other({4}, {Standardize(), Dense(2)});
  load(other, dir / "net");
  CHECK(same_bits(other(x), net(x)));
  CHECK(parameter_count(net) == 10);  // mean and scale are not trained
  Standardize untouched;
  CHECK(same_bits(untouched(train), train));

  CHECK_THROWS_WITH_AS(s(zeros({2, 3})), "Standardize: was fitted to samples (4,), got (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(Standardize(zeros({0, 3})), "Standardize: needs samples (n, ...), got float32 (0, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Standardize(tensor({1, std::numeric_limits<double>::infinity()}, {1, 2})),
                       "Standardize: feature 1 has the value inf", ValueError);
}
