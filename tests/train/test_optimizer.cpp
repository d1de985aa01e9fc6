// (over 400 lines because each optimizer has its formula, its messages and its state tested by the same helpers)
#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/module.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/ops/ops.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace {

using namespace ebb;

constexpr int steps = 100;
constexpr std::int64_t size = 7;

/// The gradient of element i in step t, from 1: signs and magnitudes vary.
std::vector<std::vector<double>> given_gradients() {
  std::mt19937 random(5);
  std::vector<std::vector<double>> out(steps, std::vector<double>(size));
  for (auto& g : out)
    for (std::size_t i = 0; i < g.size(); ++i)
      g[i] = (static_cast<double>(random() % 2001) - 1000) / 1000 * std::pow(10.0, static_cast<double>(i) - 4);
  return out;
}

std::vector<double> start() { return {1, -2, 0.5, 3, -0.25, 0, 10}; }

/// Where the optimizer arrives; the loss sum(w * c) has the gradient c, exactly.
std::vector<double> arrived(Optimizer& optimizer, DType dtype) {
  const Tensor from = cast(Tensor::from(start(), {size}), dtype);
  std::vector<Tensor> w{variable(from.clone(), "w")};
  for (const auto& c : given_gradients()) optimizer.step(w, backward(sum(w[0] * cast(Tensor::from(c, {size}), dtype))));
  CHECK(optimizer.steps() == steps);
  return w[0].to_vector();
}

/// An update of one number: how much w falls in step t (from 1) with gradient g; it keeps its own state.
using Rule = std::function<double(int t, double g)>;

/// Float64 to 1e-12 over a hundred steps, float32 to its roundings. Before each step w is multiplied by 1 - `decay`.
void compare(const std::function<std::unique_ptr<Optimizer>()>& make, const std::function<Rule()>& rule,
             double decay = 0) {
  const auto all = given_gradients();
  std::vector<double> want = start();
  for (std::size_t i = 0; i < want.size(); ++i) {
    const Rule fall = rule();
    for (int t = 1; t <= steps; ++t) {
      want[i] -= decay * want[i];
      want[i] -= fall(t, all[static_cast<std::size_t>(t - 1)][i]);
    }
  }
  const auto in64 = arrived(*make(), f64), in32 = arrived(*make(), f32);
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(want[i] != start()[i]);
    CHECK(std::abs(in64[i] - want[i]) <= 1e-12 * std::max(1.0, std::abs(want[i])));
    // as far as a rounding a step may take it from start and sum
    CHECK(std::abs(in32[i] - want[i]) <=
          steps * 1.2e-7 * std::max(1.0, std::max(std::abs(want[i]), std::abs(start()[i]))));
  }
}

template <class O, class Options>
std::function<std::unique_ptr<Optimizer>()> maker(Options options) {
  return [options] { return std::make_unique<O>(options); };
}

std::vector<Tensor> one(const Tensor& value) { return {variable(value.clone(), "w")}; }

}  // namespace

// The rules are those of Keras 3 (sgd.py, rmsprop.py, adam.py), written for one number.
TEST_CASE("optimizer: SGD") {
  compare(maker<SGD>(SGDOptions{.lr = 0.03}), [] { return [](int, double g) { return 0.03 * g; }; });
}

TEST_CASE("optimizer: SGD with momentum") {
  compare(maker<SGD>(SGDOptions{.lr = 0.03, .momentum = 0.9}), [] {
    return [v = 0.0](int, double g) mutable {
      v = 0.9 * v - 0.03 * g;
      return -v;
    };
  });
}

TEST_CASE("optimizer: SGD with Nesterov's momentum") {
  compare(maker<SGD>(SGDOptions{.lr = 0.03, .momentum = 0.9, .nesterov = true}), [] {
    return [v = 0.0](int, double g) mutable {
      v = 0.9 * v - 0.03 * g;
      return -(0.9 * v - 0.03 * g);
    };
  });
}

TEST_CASE("optimizer: RMSprop in all forms") {
  for (const bool inside : {true, false})
    for (const bool centered : {false, true})
      for (const double momentum : {0.0, 0.8}) {
        CAPTURE(inside);
        CAPTURE(centered);
        CAPTURE(momentum);
        // eps is large enough to tell the two places of it apart
        const RMSpropOptions o{.lr = 0.01,
                               .rho = 0.85,
                               .momentum = momentum,
                               .epsilon = 1e-3,
                               .centered = centered,
                               .epsilon_inside_sqrt = inside};
        compare(maker<RMSprop>(o), [=] {
          return [=, v = 0.0, a = 0.0, s = 0.0](int, double g) mutable {
            v = 0.85 * v + 0.15 * g * g;
            a = 0.85 * a + 0.15 * g;
            const double spread = centered ? v - a * a : v;
            const double step = inside ? 0.01 * g / std::sqrt(spread + 1e-3) : 0.01 * g / (std::sqrt(spread) + 1e-3);
            s = momentum * s + step;
            return momentum > 0 ? s : step;
          };
        });
      }
}

/// The step of Adam and of AdamW without its decay.
auto adam_step(const auto& o) {
  return [o, m = 0.0, v = 0.0, p1 = 1.0, p2 = 1.0](int, double g) mutable {
    p1 *= o.beta1;
    p2 *= o.beta2;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    return o.lr * std::sqrt(1 - p2) / (1 - p1) * m / (std::sqrt(v) + o.epsilon);
  };
}

TEST_CASE("optimizer: Adam") {
  for (const AdamOptions o : {AdamOptions{}, AdamOptions{.lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3}})
    compare(maker<Adam>(o), [o] { return adam_step(o); });
}

TEST_CASE("optimizer: AdamW is Adam with decoupled weight decay") {
  const AdamWOptions o{.lr = 0.05, .weight_decay = 0.1};
  compare(
      maker<AdamW>(o), [o] { return adam_step(o); }, 0.05 * 0.1);
  CHECK(AdamW().options().at("weight_decay") == 0.004);
}

TEST_CASE("optimizer: every one of them decays weights") {
  compare(
      maker<SGD>(SGDOptions{.lr = 0.03, .momentum = 0.9, .weight_decay = 0.2}),
      [] { return [v = 0.0](int, double g) mutable { return -(v = 0.9 * v - 0.03 * g); }; }, 0.03 * 0.2);
  compare(
      maker<RMSprop>(RMSpropOptions{.lr = 0.01, .weight_decay = 0.2}),
      [] {
        return [v = 0.0](int, double g) mutable {
          v = 0.9 * v + 0.1 * g * g;
          return 0.01 * g / std::sqrt(v + 1e-7);
        };
      },
      0.01 * 0.2);
  for (const std::string& name : optimizer_names()) {  // a gradient of zero leaves the decay alone
    CAPTURE(name);
    std::vector<Tensor> w = one(tensor({2}, f64));
    make_optimizer(name, {{"lr", 0.5}, {"weight_decay", 0.25}})->step(w, backward(sum(w[0] * 0.0)));
    CHECK(w[0].item() == 2 * (1 - 0.5 * 0.25));
  }
}

TEST_CASE("optimizer: Nadam") {
  for (const NadamOptions o :
       {NadamOptions{},
        NadamOptions{.lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .momentum_decay = 0.004}})
    compare(maker<Nadam>(o), [o] {
      return [o, m = 0.0, v = 0.0, product = 1.0](int t, double g) mutable {
        const auto u = [&](int k) { return o.beta1 * (1 - 0.5 * std::pow(0.96, k * o.momentum_decay)); };
        product *= u(t);
        m = o.beta1 * m + (1 - o.beta1) * g;
        v = o.beta2 * v + (1 - o.beta2) * g * g;
        const double mean = u(t + 1) * m / (1 - product * u(t + 1)) + (1 - u(t)) * g / (1 - product);
        return o.lr * mean / (std::sqrt(v / (1 - std::pow(o.beta2, t))) + o.epsilon);
      };
    });
}

TEST_CASE("optimizer: Adagrad") {
  for (const AdagradOptions o :
       {AdagradOptions{}, AdagradOptions{.lr = 0.1, .initial_accumulator_value = 0.5, .epsilon = 1e-2}})
    compare(maker<Adagrad>(o), [o] {
      return [o, a = o.initial_accumulator_value](int, double g) mutable {
        a += g * g;
        return o.lr * g / std::sqrt(a + o.epsilon);
      };
    });
}

TEST_CASE("optimizer: Lion") {
  for (const LionOptions o : {LionOptions{}, LionOptions{.lr = 0.01, .beta1 = 0.8, .beta2 = 0.95}})
    compare(maker<Lion>(o), [o] {
      return [o, m = 0.0](int, double g) mutable {
        const double c = o.beta1 * m + (1 - o.beta1) * g;
        m = o.beta2 * m + (1 - o.beta2) * g;
        return c > 0 ? o.lr : c < 0 ? -o.lr : 0.0;
      };
    });
}

TEST_CASE("optimizer: by name, with options by name") {
  CHECK(optimizer_names() == std::vector<std::string>{"sgd", "rmsprop", "adam", "adamw", "nadam", "adagrad", "lion"});
  for (const std::string& name : optimizer_names()) {
    CAPTURE(name);
    const auto o = make_optimizer(name);
    CHECK(o->name() == name);
    CHECK(o->lr() == (name == "sgd" ? 0.01 : 1e-3));
    // Every option that it names can be given, and comes back.
    OptimizerOptions changed = o->options();
    CHECK(changed.size() >= 4);
    for (auto& [key, value] : changed)
      value = key == "nesterov" || key == "centered" || key == "epsilon_inside_sqrt" ? 1 - value : value / 2 + 0.01;
    CHECK(make_optimizer(name, changed)->options() == changed);
  }
  const auto o = make_optimizer("sgd", {{"lr", 0.5}, {"momentum", 0.25}, {"nesterov", 1}});
  o->set_lr(0.125);
  CHECK(o->options() == OptimizerOptions{{"lr", 0.125}, {"momentum", 0.25}, {"nesterov", 1}, {"weight_decay", 0}});
  CHECK_THROWS_WITH_AS(make_optimizer("adm"),
                       "unknown optimizer \"adm\"; expected one of sgd, rmsprop, adam, adamw, nadam, adagrad, lion",
                       ValueError);
  CHECK_THROWS_WITH_AS(make_optimizer("adam", {{"momentum", 0.9}}),
                       "adam: unknown option \"momentum\"; expected one of lr, beta1, beta2, epsilon, weight_decay",
                       ValueError);
  CHECK_THROWS_WITH_AS(make_optimizer("sgd", {{"nesterov", 0.5}}), "sgd: nesterov must be 0 or 1, got 0.5", ValueError);
  CHECK_THROWS_WITH_AS(make_optimizer("lion", {{"beta1", 1}}), "lion: beta1 must be in [0, 1), got 1", ValueError);
}

TEST_CASE("optimizer: options are known by their names of before") {
  const auto o = make_optimizer("adagrad", {{"start", 0.5}, {"eps", 0.25}});
  CHECK(o->options() ==
        OptimizerOptions{{"lr", 1e-3}, {"initial_accumulator_value", 0.5}, {"epsilon", 0.25}, {"weight_decay", 0}});
  CHECK(make_optimizer("rmsprop", {{"eps_inside_sqrt", 0}})->options().at("epsilon_inside_sqrt") == 0);
  CHECK_THROWS_WITH_AS(make_optimizer("adam", {{"eps", 0.25}, {"epsilon", 0.5}}),
                       "adam: unknown option \"eps\"; expected one of lr, beta1, beta2, epsilon, weight_decay",
                       ValueError);
}

TEST_CASE("optimizer: state goes from one to another, which goes on with the same bits") {
  const auto all = given_gradients();
  for (const std::string& name : optimizer_names()) {
    CAPTURE(name);
    const OptimizerOptions given = name == "sgd" ? OptimizerOptions{{"momentum", 0.9}} : OptimizerOptions{};
    const auto first = make_optimizer(name, given);
    std::vector<Tensor> w = one(cast(Tensor::from(start(), {size}), f32));
    const auto step = [&](Optimizer& o, std::vector<Tensor>& x, int t) {
      o.step(x, backward(sum(x[0] * cast(Tensor::from(all[static_cast<std::size_t>(t)], {size}), f32))));
    };
    for (int t = 0; t < 30; ++t) step(*first, w, t);
    const auto second = make_optimizer(name, first->options());
    std::vector<Tensor> copy = one(w[0].detach()), slots;
    for (const Tensor& s : first->state(w[0])) slots.push_back(s.clone());
    CHECK(first->states().size() == slots.size());
    CHECK(slots.size() > 0);
    second->set_state(copy[0], slots);
    second->set_steps(first->steps());
    for (int t = 30; t < 60; ++t) {
      step(*first, w, t);
      step(*second, copy, t);
    }
    CHECK(same_bits(w[0].detach(), copy[0].detach()));
    CHECK(second->steps() == 60);
    CHECK(second->state(one(tensor({1}))[0]).empty());

    CHECK_THROWS_AS(second->set_state(copy[0], {}), ShapeError);
    std::vector<Tensor> wrong(slots.size(), zeros({size + 1}));
    CHECK_THROWS_AS(second->set_state(copy[0], wrong), ShapeError);
  }
  SGD sgd;
  const Tensor w = one(tensor({1, 2}))[0];
  CHECK_THROWS_WITH_AS(sgd.set_state(w, {zeros({2})}), "sgd: keeps 0 tensors for a parameter, got 1", ShapeError);
  Lion lion;
  CHECK_THROWS_WITH_AS(lion.set_state(w, {zeros({3})}),
                       "lion: the state float32 (3,) does not fit the parameter float32 (2,)", ShapeError);
}

TEST_CASE("optimizer: groups of parameters have their own rate and decay") {
  struct Net : Module {
    Dense a{2}, b{2};
    Tensor forward(const Tensor& x) override { return b(a(x)); }
    void visit(Visitor& v) override { v("a", a), v("b", b); }
  } net;
  build(net, {2}, f64);
  SGD sgd({.lr = 0.5, .weight_decay = 0.25});
  sgd.set_groups({{.match = "a.", .lr_factor = 0.1}, {.match = "bias", .decay = false}});
  Gradients g;
  std::map<std::string, std::vector<double>> before;
  for (const NamedTensor& t : named_tensors(net)) {
    t.tensor->assign(full(t.tensor->shape(), 2, f64));
    g.add(t.tensor->node(), full(t.tensor->shape(), 1, f64));
  }
  sgd.step(net, g);
  CHECK(net.a.weight.to_vector()[0] == doctest::Approx(2 * (1 - 0.05 * 0.25) - 0.05).epsilon(1e-15));
  CHECK(net.a.bias.to_vector()[0] == net.a.weight.to_vector()[0]);  // the first group that matches
  CHECK(net.b.weight.to_vector()[0] == 2 * (1 - 0.5 * 0.25) - 0.5);
  CHECK(net.b.bias.to_vector()[0] == 2 - 0.5);
  CHECK(sgd.groups().size() == 2);
  CHECK_THROWS_WITH_AS(sgd.set_groups({{.match = "b", .lr_factor = -1}}),
                       "optimizer: lr_factor of \"b\" must be a finite number from 0, got -1", ValueError);
}

TEST_CASE("optimizer: weight averages") {
  Dense net(1);
  build(net, {1}, f64);
  WeightAverage average(0.75);
  average.swap(net);  // nothing yet
  double want = 0;
  const double values[] = {8, 4, 1, -2};
  for (int i = 0; i < 4; ++i) {
    net.weight.assign(full({1, 1}, values[i], f64));
    average.update(net);
    want = i == 0 ? values[i] : 0.75 * want + 0.25 * values[i];
  }
  average.swap(net);
  CHECK(net.weight.item() == want);
  average.swap(net);
  CHECK(net.weight.item() == -2);
  CHECK_THROWS_WITH_AS(WeightAverage(1), "weight average: decay must be in [0, 1), got 1", ValueError);
}

TEST_CASE("optimizer: the defaults are those of Keras") {
  std::vector<Tensor> w = one(tensor({0}, f64));
  const auto first = [&](Optimizer&& o, double g) {
    w[0].assign(tensor({0}, f64));
    o.step(w, backward(sum(w[0] * g)));
    return w[0].item();
  };
  CHECK(first(SGD(), 3) == doctest::Approx(-0.03).epsilon(1e-14));
  CHECK(first(RMSprop(), 3) == doctest::Approx(-1e-3 * 3 / std::sqrt(0.1 * 9 + 1e-7)).epsilon(1e-13));
  CHECK(first(Adam(), 3) ==
        doctest::Approx(-1e-3 * std::sqrt(1 - 0.999) / 0.1 * 0.3 / (std::sqrt(0.001 * 9) + 1e-7)).epsilon(1e-12));
  // With tiny gradients the two places of epsilon differ by far: g = 1e-6 gives v = 1e-13.
  CHECK(first(RMSprop(), 1e-6) == doctest::Approx(-1e-9 / std::sqrt(1e-13 + 1e-7)).epsilon(1e-12));
  CHECK(first(RMSprop({.epsilon_inside_sqrt = false}), 1e-6) ==
        doctest::Approx(-1e-9 / (std::sqrt(1e-13) + 1e-7)).epsilon(1e-12));
  CHECK(SGD().name() == "sgd");
  CHECK(RMSprop().name() == "rmsprop");
  CHECK(Adam().name() == "adam");
}

TEST_CASE("optimizer: the rate can change between steps") {
  std::vector<Tensor> w = one(tensor({1}, f64));
  SGD sgd({.lr = 0.5});
  sgd.step(w, backward(sum(w[0])));
  sgd.set_lr(0.25);
  CHECK(sgd.lr() == 0.25);
  sgd.step(w, backward(sum(w[0])));
  CHECK(w[0].item() == 0.25);
}

TEST_CASE("optimizer: all of them find the bottom of a bowl") {
  const auto bottom = [](Optimizer&& o, int count) {
    std::vector<Tensor> w{variable(tensor({4, -3, 2}, f64), "a"), variable(tensor({-5}, f64), "b")};
    const Tensor target = tensor({1, 2, -1}, f64), weight = tensor({1, 3, 0.3}, f64);
    double last = 0;
    for (int i = 0; i < count; ++i) {
      const Tensor loss = sum(weight * square(w[0] - target)) + sum(square(w[1] - 0.5));
      last = loss.item();
      o.step(w, backward(loss));
    }
    return last;
  };
  CHECK(bottom(SGD({.lr = 0.1}), 300) < 1e-8);
  CHECK(bottom(SGD({.lr = 0.02, .momentum = 0.9}), 300) < 1e-8);
  CHECK(bottom(SGD({.lr = 0.02, .momentum = 0.9, .nesterov = true}), 300) < 1e-8);
  CHECK(bottom(Adam({.lr = 0.05}), 1000) < 1e-8);
  // RMSprop's steps do not shrink by themselves: it stays within about lr of the bottom.
  CHECK(bottom(AdamW({.lr = 0.05, .weight_decay = 0}), 1000) < 1e-8);
  CHECK(bottom(Nadam({.lr = 0.05}), 1000) < 1e-8);
  CHECK(bottom(Adagrad({.lr = 1}), 1000) < 1e-8);
  CHECK(bottom(Lion({.lr = 0.01}), 1500) < 1e-2);
  CHECK(bottom(RMSprop({.lr = 0.01}), 1500) < 1e-3);
  CHECK(bottom(RMSprop({.lr = 0.01, .epsilon_inside_sqrt = false}), 1500) < 1e-3);
  CHECK(bottom(RMSprop({.lr = 0.005, .momentum = 0.5, .centered = true}), 3000) < 1e-2);
}

TEST_CASE("optimizer: a parameter without a gradient is left alone") {
  std::vector<Tensor> w{variable(tensor({1, 2}), "a"), variable(tensor({3, 4}), "b")};
  for (const auto& o : std::initializer_list<std::shared_ptr<Optimizer>>{
           std::make_shared<SGD>(SGDOptions{.momentum = 0.9}), std::make_shared<Adam>()}) {
    w[0].assign(tensor({1, 2}));
    const Tensor before = w[1].clone();
    o->step(w, backward(sum(w[0])));
    CHECK(same_bits(w[1].detach(), before));
    CHECK(w[0].to_vector()[0] < 1);
  }
}

TEST_CASE("optimizer: a step without any gradient is an error and no step") {
  std::vector<Tensor> w{variable(tensor({1}), "a"), variable(tensor({2}), "b")};
  const Tensor other = variable(tensor({3}), "other");
  SGD sgd;
  Adam adam;
  CHECK_THROWS_WITH_AS(sgd.step(w, backward(sum(other))), "sgd: none of the 2 parameters has a gradient",
                       GradientError);
  CHECK_THROWS_WITH_AS(adam.step(w, backward(sum(other))), "adam: none of the 2 parameters has a gradient",
                       GradientError);
  CHECK(adam.steps() == 0);
  Dense layer(2);
  CHECK_THROWS_WITH_AS(sgd.step(layer, backward(sum(other))), "sgd: none of the 0 parameters has a gradient",
                       GradientError);
  CHECK(w[0].item() == 1);
}

TEST_CASE("optimizer: state does not pass from a dead parameter to a new one") {
  SGD sgd({.lr = 1, .momentum = 0.5});
  std::vector<Tensor> w = one(tensor({0, 0}, f64));
  sgd.step(w, backward(sum(w[0] * 8.0)));
  const Node* const address = w[0].node().get();
  w[0] = Tensor();
  // The allocator hands out the same block again, as it does when layers are frozen and unfrozen.
  std::vector<Tensor> held;
  for (int i = 0; i < 8; ++i) {
    held.push_back(variable(tensor({0, 0}, f64), "new"));
    if (held.back().node().get() == address) break;
  }
  for (Tensor& t : held) {
    std::vector<Tensor> next{t};
    sgd.step(next, backward(sum(t)));
    CHECK(t.to_vector() == std::vector<double>{-1, -1});  // with the old velocity it were -5
  }
}

TEST_CASE("optimizer: freezing and unfreezing between steps") {
  Dense layer(3);
  const Tensor x = ones({2, 4});
  layer(x);
  Adam adam({.lr = 0.1});
  adam.step(layer, backward(sum(layer(x))));
  for (int i = 0; i < 3; ++i) {
    freeze(layer);
    unfreeze(layer);
    const Tensor weight = layer.weight.clone(), bias = layer.bias.clone();
    adam.step(layer, backward(sum(layer(x))));
    for (const auto& [now, then] : {std::pair{layer.weight, weight}, std::pair{layer.bias, bias}}) {
      const auto a = now.to_vector(), b = then.to_vector();
      for (std::size_t j = 0; j < a.size(); ++j) {
        CHECK(a[j] < b[j]);  // downhill
        CHECK(a[j] > b[j] - 0.5);
      }
    }
  }
}

TEST_CASE("optimizer: every optimizer goes on with its state when a parameter was frozen for a while") {
  const std::vector<std::pair<std::string, OptimizerOptions>> all{{"sgd", {{"momentum", 0.9}}},
                                                                  {"sgd", {{"momentum", 0.9}, {"nesterov", 1}}},
                                                                  {"rmsprop", {{"momentum", 0.5}, {"centered", 1}}},
                                                                  {"adam", {}},
                                                                  {"adamw", {}},
                                                                  {"nadam", {}},
                                                                  {"adagrad", {}},
                                                                  {"lion", {}}};
  const Tensor x = tensor({1, -2, 0.5, 3, 0, -1}, {2, 3}, f64);
  for (const auto& [name, options] : all) {
    CAPTURE(name);
    const auto train = [&](bool pause, bool values) {
      manual_seed(6);
      Dense layer(2);
      layer(x);
      const auto optimizer = make_optimizer(name, options);
      optimizer->set_lr(0.1);
      optimizer->set_groups({{.match = "bias", .lr_factor = 0.5}});
      for (int i = 0; i < 6; ++i) {
        if (pause) freeze(layer);
        if (pause) unfreeze(layer);
        if (values) layer.weight.assign(layer.weight.clone());  // as load() and copy_state() do
        optimizer->step(layer, backward(sum(square(layer(x)))));
      }
      CHECK(optimizer->state(layer.weight).size() == optimizer->states().size() / 2);
      return std::pair(layer.weight.to_vector(), layer.bias.to_vector());
    };
    CHECK(train(true, false) == train(false, false));
    CHECK(train(false, true) == train(false, false));
  }
}

TEST_CASE("optimizer: a frozen pause does not make Adam's next step longer") {
  std::vector<Tensor> w = one(tensor({1}, f64));
  Adam adam({.lr = 0.1});
  adam.step(w, backward(sum(w[0])));
  w[0] = variable(w[0].detach());  // as freeze() and unfreeze() do
  const double before = w[0].item();
  adam.step(w, backward(sum(w[0])));
  CHECK(before - w[0].item() == doctest::Approx(0.1).epsilon(1e-6));
}

TEST_CASE("optimizer: what is tied is one parameter again after freezing") {
  const auto shared = std::make_shared<Dense>(3);
  Sequential net({3}, {shared, tanh, shared});
  freeze(net);
  unfreeze(net);
  CHECK(parameters(net).size() == 2);

  struct Twice : Module {
    Tensor a = variable(ones({2})), b = a;
    Tensor forward(const Tensor& x) override { return a * b * x; }
    void visit(Visitor& v) override { v("a", a), v("b", b); }
  } twice;
  freeze(twice);
  unfreeze(twice);
  CHECK(twice.a.node() == twice.b.node());
  freeze(twice);
  twice.b = variable(twice.b);  // half of it is a variable already
  unfreeze(twice);
  CHECK(twice.a.node() == twice.b.node());
}

TEST_CASE("optimizer: two variables on one piece of memory") {
  const Tensor memory = tensor({1, 2}, f64);
  std::vector<Tensor> w{variable(memory), variable(memory)};
  const auto loss = [&] { return backward(sum(w[0]) + 2.0 * sum(w[1])); };
  SGD({.lr = 1}).step(w, loss());  // without state the steps add up
  CHECK(memory.to_vector() == std::vector<double>{-2, -1});
  Adam adam;
  CHECK_THROWS_WITH_AS(
      adam.step(w, loss()),
      "adam: two parameters are one piece of memory, float64 (2,) the second time: make them one variable", ValueError);
}

TEST_CASE("optimizer: a group that matches no parameter is refused") {
  Dense layer(3);
  const Tensor x = ones({2, 4});
  layer(x);
  const Tensor before = layer.weight.clone();
  SGD sgd({.lr = 0.1});
  sgd.set_groups({{.match = "bias", .decay = false}, {.match = "bais"}});
  for (int i = 0; i < 2; ++i)  // it does not pass the second time
    CHECK_THROWS_WITH_AS(sgd.step(layer, backward(sum(layer(x)))),
                         "sgd: the group \"bais\" matches none of the 2 parameters, such as weight", ValueError);
  CHECK(same_bits(layer.weight, before));
  CHECK(sgd.steps() == 0);
  const std::vector<NamedTensor> named = named_parameters(layer);
  CHECK_THROWS_AS(sgd.step(named, backward(sum(layer(x)))), ValueError);
  sgd.set_groups({{.match = "bias"}});
  sgd.step(named, backward(sum(layer(x))));
  sgd.set_groups({{.match = "scale"}});
  CHECK_THROWS_AS(sgd.step(layer, backward(sum(layer(x)))), ValueError);
  sgd.set_groups({{.match = "weight"}});
  layer.weight = layer.weight.detach();  // a frozen one may be meant
  sgd.step(layer, backward(sum(layer(x))));
}

TEST_CASE("optimizer: a gradient of another shape or type is refused") {
  std::vector<Tensor> w = one(tensor({1, 2, 3}));
  SGD sgd;
  Gradients g;
  g.add(w[0].node(), tensor({1}));
  CHECK_THROWS_WITH_AS(sgd.step(w, g), "sgd: the gradient float32 (1,) does not fit the parameter float32 (3,)",
                       ShapeError);
  Gradients h;
  h.add(w[0].node(), tensor({1, 1, 1}, f64));
  CHECK_THROWS_WITH_AS(sgd.step(w, h), "sgd: the gradient float64 (3,) does not fit the parameter float32 (3,)",
                       ShapeError);
}

TEST_CASE("optimizer: centered RMSprop stays finite when the gradient does not vary") {
  // v and a^2 become equal up to rounding: a difference below zero must not reach the root. With these
  // numbers it is.
  for (const auto& [rho, slope] : {std::pair{0.5, 77.0}, {0.5, 2500.0}, {0.95, 3.0}, {0.95, 55.5}})
    for (const bool inside : {true, false}) {
      std::vector<Tensor> w = one(tensor({0}));
      RMSprop o({.rho = rho, .centered = true, .epsilon_inside_sqrt = inside});
      for (int i = 0; i < 400; ++i) o.step(w, backward(sum(w[0] * slope)));
      CHECK(std::isfinite(w[0].item()));
    }
}

TEST_CASE("optimizer: options out of range") {
  CHECK_THROWS_WITH_AS(SGD({.lr = -0.5}), "optimizer: lr must be a finite number from 0, got -0.5", ValueError);
  CHECK_THROWS_WITH_AS(Adam({.lr = NAN}), "optimizer: lr must be a finite number from 0, got nan", ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({.lr = INFINITY}), "optimizer: lr must be a finite number from 0, got inf", ValueError);
  CHECK_THROWS_WITH_AS(SGD({.momentum = 1}), "sgd: momentum must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(SGD({.momentum = -0.1}), "sgd: momentum must be in [0, 1), got -0.1", ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({.rho = 1.5}), "rmsprop: rho must be in [0, 1), got 1.5", ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({.momentum = 1}), "rmsprop: momentum must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({.epsilon = -1}), "rmsprop: epsilon must be above 0, got -1", ValueError);
  CHECK_THROWS_WITH_AS(Adam({.beta1 = 1}), "adam: beta1 must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(Adam({.beta2 = NAN}), "adam: beta2 must be in [0, 1), got nan", ValueError);
  CHECK_THROWS_WITH_AS(Adam({.epsilon = -1e-9}), "adam: epsilon must be above 0, got -1e-09", ValueError);
  CHECK_THROWS_WITH_AS(AdamW({.weight_decay = -1}), "optimizer: weight_decay must be a finite number from 0, got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(Nadam({.momentum_decay = -1}), "nadam: momentum_decay must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(Adagrad({.initial_accumulator_value = -1}),
                       "adagrad: initial_accumulator_value must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(Lion({.beta2 = 1}), "lion: beta2 must be in [0, 1), got 1", ValueError);
  SGD sgd;
  CHECK_THROWS_WITH_AS(sgd.set_lr(NAN), "optimizer: lr must be a finite number from 0, got nan", ValueError);
  CHECK_NOTHROW(SGD({.lr = 0}));
}

TEST_CASE("optimizer: state that decays ends at zero, not among denormal numbers") {
  // 2,500 steps without a gradient, as the weights of a pixel that few pictures use go through
  for (const std::string name : {"sgd", "rmsprop", "adam", "adamw", "nadam", "lion"}) {
    CAPTURE(name);
    const auto optimizer =
        make_optimizer(name, name == "sgd" ? OptimizerOptions{{"momentum", 0.9}} : OptimizerOptions{});
    Tensor w = variable(ones({64}));
    for (int step = 0; step < 2500; ++step) {
      const Gradients g = backward(sum(w * (step == 0 ? 1e-3 : 0.0)));
      optimizer->step(std::span<Tensor>(&w, 1), g);
    }
    for (const Tensor& state : optimizer->state(w))
      for (const double v : state.to_vector()) CHECK((v == 0 || std::abs(v) >= 1.17549435e-38));
  }
}

TEST_CASE("optimizer: an epsilon of 0 is refused: a gradient of 0 would be divided by 0") {
  for (const double eps : {0.0, -1e-7, 1e-60, std::nan("")}) {
    CHECK_THROWS_AS(Adam({.epsilon = eps}), ValueError);
    CHECK_THROWS_AS(Nadam({.epsilon = eps}), ValueError);
    CHECK_THROWS_AS(RMSprop({.epsilon = eps}), ValueError);
    CHECK_THROWS_AS(Adagrad({.initial_accumulator_value = 0, .epsilon = eps}), ValueError);
  }
}
