// Modules: paths, names, what is frozen, copied and cloned.
// (over 400 lines because every promise is tried on the same few toy modules)
#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/module.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/ops/ops.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace ebb;

using Names = std::vector<std::string>;

struct Block : Module {
  Dense a{4}, b{3};
  Tensor forward(const Tensor& x) override { return x + b(relu(a(x))); }
  void visit(Visitor& v) override {
    v("a", a);
    v("b", b);
  }
};

/// Every kind of member: a layer, a module in a module, a tensor of its own, a buffer.
struct Tower : Module {
  Dense stem{3};
  Block block;
  Tensor scale = variable(tensor({1, 2, 3}), "scale");
  Tensor seen = tensor({7});
  Tensor forward(const Tensor& x) override { return block(stem(x)) * scale; }
  void visit(Visitor& v) override {
    v("stem", stem);
    v("block", block);
    v("scale", scale);
    v.buffer("seen", seen);
  }
};

struct ConvStem : Module {
  Conv2D stem{{.filters = 4}};
  Tensor forward(const Tensor& x) override { return stem(x); }
  void visit(Visitor& v) override { v("stem", stem); }
};

Names paths(Module& m) {
  Names out;
  for (const NamedTensor& t : named_tensors(m)) out.push_back(t.path);
  return out;
}

Tensor input() { return tensor({1, -2, 3, 0.5, 2, -1}, {2, 3}); }

std::vector<Tensor> values_of(Module& m) {
  std::vector<Tensor> out;
  for (const NamedTensor& t : named_tensors(m)) out.push_back(t.tensor->clone());
  return out;
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i) all = same_bits(a[i], b[i]);
  return all;
}

}  // namespace

TEST_CASE("module: visit gives each tensor its path, in order") {
  Tower net;
  CHECK(paths(net) == Names{"scale", "seen"});  // what is not built yet is left out
  net(input());
  CHECK(paths(net) == Names{"stem.weight", "stem.bias", "block.a.weight", "block.a.bias", "block.b.weight",
                            "block.b.bias", "scale", "seen"});
  std::vector<bool> trained;
  for (const NamedTensor& t : named_tensors(net)) trained.push_back(t.trained);
  CHECK(trained == std::vector<bool>{true, true, true, true, true, true, true, false});

  Sequential layers({Conv2D({.filters = 2}), relu, Flatten(), Sequential({Dense(3), Dense(2)})});
  build(layers, {4, 4, 1});
  CHECK(paths(layers) == Names{"layers.0.weight", "layers.0.bias", "layers.3.layers.0.weight", "layers.3.layers.0.bias",
                               "layers.3.layers.1.weight", "layers.3.layers.1.bias"});
}

TEST_CASE("module: named_tensors hands out the members themselves") {
  Tower net;
  net(input());
  const auto all = named_tensors(net);
  CHECK(all[0].tensor == &net.stem.weight);
  CHECK(all[4].tensor == &net.block.b.weight);
  CHECK(all[7].tensor == &net.seen);
}

TEST_CASE("module: parameters and their number") {
  Tower net;
  net(input());
  const std::vector<Tensor> p = parameters(net);
  REQUIRE(p.size() == 7);
  CHECK(p[0].node() == net.stem.weight.node());
  CHECK(p[6].node() == net.scale.node());
  // stem 3x3 + 3, a 3x4 + 4, b 4x3 + 3, scale 3; the buffer does not count
  CHECK(parameter_count(net) == 12 + 16 + 15 + 3);
  freeze(net.block);
  CHECK(parameters(net).size() == 3);
  CHECK(parameter_count(net) == 46);
}

TEST_CASE("module: a member that is visited twice is one parameter") {
  manual_seed(2);
  const auto tied = std::make_shared<Dense>(3);
  Sequential net({3}, {tied, relu, tied});
  CHECK(parameters(net).size() == 2);
  CHECK(parameter_count(net) == 12);

  // One step must move the shared weight once.
  const Tensor before = tied->weight.clone();
  const Gradients g = backward(sum(net(input())));
  SGD({.lr = 0.5}).step(net, g);
  const auto w0 = before.to_vector(), d = g[tied->weight].to_vector(), w1 = tied->weight.to_vector();
  bool moved = false;
  for (std::size_t i = 0; i < w0.size(); ++i) {
    CHECK(w1[i] == doctest::Approx(w0[i] - 0.5 * d[i]).epsilon(1e-6));
    moved = moved || d[i] != 0;
  }
  CHECK(moved);
}

TEST_CASE("module: members are named as visit names them") {
  Tower net;
  CHECK(net.stem.name() == "");
  net(input());
  CHECK(net.stem.name() == "stem");
  CHECK(net.block.name() == "block");
  CHECK(net.block.a.name() == "a");
  CHECK(net.name() == "");
  CHECK(net.block.a.weight.node()->name() == "block.a.weight");
  CHECK(net.stem.bias.node()->name() == "stem.bias");

  Tower other;
  other.stem.set_name("mine");  // a name of its own stays
  other(input());
  CHECK(other.stem.name() == "mine");
}

TEST_CASE("module: errors name the layer") {
  ConvStem net;
  CHECK_THROWS_WITH_AS(net(zeros({2, 2, 2, 1})),
                       "stem: conv2d: a window of 3x3 does not fit into (2, 2, 2, 1) padded to 2x2", ShapeError);
  CHECK(current_scope() == "");  // the path is left on the way out

  ConvStem built;
  build(built, {5, 5, 1});
  CHECK_THROWS_WITH_AS(built(zeros({1, 5, 5, 2})),
                       "stem: conv2d: the image has 2 channels, the kernel expects 1: (1, 5, 5, 2) and (3, 3, 1, 4)",
                       ShapeError);

  Tower tower;
  build(tower, {3});
  tower.stem.weight = variable(zeros({3, 7}));
  tower.stem.bias = variable(zeros({7}));
  CHECK_THROWS_WITH_AS(tower(input()), "block.a: matmul: inner sizes differ: (2, 7) x (3, 4)", ShapeError);
  tower.set_name("tower");
  CHECK_THROWS_WITH_AS(tower(input()), "tower.block.a: matmul: inner sizes differ: (2, 7) x (3, 4)", ShapeError);
}

TEST_CASE("module: nodes carry the path of the layer that made them") {
  Tower net;
  const Tensor y = net(input());
  bool found = false;
  const Graph graph(y);
  for (const Node* node : graph.nodes()) {
    if (node->op() != "relu") continue;
    found = true;
    REQUIRE(node->scope() != nullptr);
    CHECK(node->scope()->path == "block");
  }
  CHECK(found);
}

TEST_CASE("module: frozen parameters get no gradient and do not change") {
  manual_seed(1);
  Tower net;
  net(input());
  freeze(net.block);
  CHECK_FALSE(net.block.a.weight.tracked());
  CHECK(net.stem.weight.tracked());
  const std::vector<Tensor> before = values_of(net);
  const Gradients g = backward(sum(square(net(input()))));
  CHECK(g.size() == 3);
  CHECK_FALSE(g.contains(net.block.a.weight));
  CHECK(g.contains(net.stem.weight));
  SGD({.lr = 0.1}).step(net, g);
  const std::vector<Tensor> after = values_of(net);
  for (std::size_t i = 0; i < after.size(); ++i) {
    const bool trained = i == 0 || i == 1 || i == 6;  // stem and scale
    CHECK(same_bits(before[i], after[i]) != trained);
  }

  unfreeze(net);
  CHECK(parameters(net).size() == 7);
  CHECK_FALSE(net.seen.tracked());  // a buffer never is
  CHECK(same(values_of(net), after));
  CHECK(net.block.a.weight.node()->name() == "block.a.weight");
  const Ref<Node> stem = net.stem.weight.node();
  unfreeze(net);
  CHECK(net.stem.weight.node() == stem);  // what is tracked already stays what it is
  CHECK(backward(sum(square(net(input())))).size() == 7);
}

TEST_CASE("module: two members of one path are refused wherever paths are used") {
  struct Clash : Module {
    Dense a{2}, b{2};
    Tensor forward(const Tensor& x) override { return b(a(x)); }
    void visit(Visitor& v) override { v("a", a), v("a", b); }
  } clash;
  struct Dotted : Module {
    Dense a{2};
    Tensor own = variable(ones({2}));
    Tensor forward(const Tensor& x) override { return a(x) + own; }
    void visit(Visitor& v) override { v("a", a), v("a.weight", own); }
  } dotted;
  const std::string message = "visit: two tensors have the path a.weight: each member needs a name of its own";
  for (Module* m : std::vector<Module*>{&clash, &dotted}) {
    for (int i = 0; i < 2; ++i) CHECK_THROWS_WITH_AS((*m)(ones({1, 2})), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(named_tensors(*m), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(freeze(*m), message.c_str(), ValueError);
    CHECK_THROWS_WITH_AS(parameter_count(*m), message.c_str(), ValueError);
    SGD sgd;
    CHECK_THROWS_WITH_AS(sgd.step(*m, backward(sum(m->forward(ones({1, 2}))))), message.c_str(), ValueError);
  }
  struct Again : Module {  // the same one twice loses nothing
    Dense a{2};
    Tensor forward(const Tensor& x) override { return a(x); }
    void visit(Visitor& v) override { v("a", a), v("a", a); }
  } again;
  again(ones({1, 2}));
  CHECK(parameter_count(again) == 6);
}

TEST_CASE("module: what needs the parameters refuses a module that has none yet") {
  const auto refused = [](const char* who, const auto& f) {
    Tower tower;
    const std::string message =
        std::string(who) + ": stem.weight is not made yet: call build(module, sample shape), or the module, first";
    CHECK_THROWS_WITH_AS(f(tower), message.c_str(), ValueError);
  };
  refused("parameter_count", [](Tower& t) { parameter_count(t); });
  refused("freeze", [](Tower& t) { freeze(t); });
  refused("unfreeze", [](Tower& t) { unfreeze(t); });
  refused("copy_state", [](Tower& t) {
    Tower built;
    built(input());
    copy_state(built, t);
  });
  refused("copy_state", [](Tower& t) {
    Tower built;
    built(input());
    copy_state(t, built);
  });
  Sequential half({Flatten(), Dense(2), BatchNormalization({.scale = false, .center = false})});
  (*half.layers()[1])(ones({1, 2}));
  CHECK_THROWS_WITH_AS(
      freeze(half),
      "freeze: layers.2.running_mean is not made yet: call build(module, sample shape), or the module, first",
      ValueError);
}

TEST_CASE("module: a copy is the same network, a clone is another one") {
  manual_seed(5);
  Tower net;
  CHECK_THROWS_WITH_AS(Tower{net},
                       "Dense: a copy shares its parameters, but weight is not made yet: build the module first, or "
                       "copy it with clone()",
                       ValueError);
  Tower target;
  CHECK_THROWS_AS(target = net, ValueError);
  Tower early = clone(net);
  net(input()), early(input());
  CHECK(paths(early) == paths(net));
  CHECK_FALSE(same(values_of(early), values_of(net)));  // each has drawn its own

  Tower copy = net, other = clone(net);
  CHECK(copy.stem.weight.node() == net.stem.weight.node());
  CHECK(other.stem.weight.node() != net.stem.weight.node());
  CHECK(other.stem.weight.node()->name() == "stem.weight");
  CHECK(same(values_of(other), values_of(net)));
  net.seen.mutable_values<float>()[0] = 9;  // a buffer
  SGD({.lr = 0.5}).step(net, backward(sum(square(net(input())))));
  CHECK(same(values_of(copy), values_of(net)));
  CHECK_FALSE(same(values_of(other), values_of(net)));
  CHECK(other.seen.item() == 7);
  CHECK(same_bits(copy(input()), net(input())));

  static_assert(std::is_nothrow_move_constructible_v<Dense> && std::is_nothrow_move_constructible_v<Tower>);
  std::vector<Dense> moved;
  for (int i = 0; i < 9; ++i) moved.push_back(Dense(2));  // unbuilt ones may be moved
  Dense& base = moved[0];
  base(ones({1, 2}));
  freeze(base);
  CHECK(clone(base).frozen());
  CHECK_FALSE(clone(base).weight.tracked());
}

TEST_CASE(
    "module: one of two copies may be frozen: it follows the other without a gradient, and they are one again when "
    "both thaw") {
  manual_seed(6);
  struct Pair : Module {
    Dense a{3}, b{3};
    Tensor forward(const Tensor& x) override { return b(relu(a(x))); }
    void visit(Visitor& v) override { v("a", a), v("b", b); }
  } net;
  net.a(ones({2, 3}));
  net.b = net.a;
  CHECK(parameters(net).size() == 2);
  freeze(net.b);
  CHECK(net.a.weight.tracked());
  CHECK_FALSE(net.a.frozen());
  CHECK_FALSE(net.b.weight.tracked());
  const Tensor x = ones({2, 3}), before = net.a.weight.clone();
  const Gradients g = backward(sum(square(net(x))));
  CHECK(g.size() == 2);
  Adam adam({.lr = 0.1});
  adam.step(net, g);
  CHECK_FALSE(same_bits(net.a.weight, before));
  CHECK(same_bits(net.b.weight, net.a.weight));
  freeze(net.a);  // the one that was copied from is no other than the copy
  unfreeze(net.b);
  CHECK(backward(sum(square(net(x)))).size() == 2);
  unfreeze(net);
  CHECK(net.a.weight.node() == net.b.weight.node());
  CHECK(parameters(net).size() == 2);
  // each by itself: two variables
  freeze(net.b);
  unfreeze(net.b);
  CHECK(parameters(net).size() == 4);
  CHECK_THROWS_WITH_AS(
      adam.step(net, backward(sum(square(net(x))))),
      "adam: two parameters are one piece of memory, float32 (3, 3) the second time: make them one variable",
      ValueError);

  Sequential one({3}, {Dense(2)}), same_layers = one;
  freeze(same_layers);
  CHECK(parameters(one).empty());
}

TEST_CASE("module: a clone of layers in a row") {
  manual_seed(5);
  const auto tied = std::make_shared<Dense>(3);
  for (const bool built : {false, true}) {
    Sequential net({tied, relu, tied, Residual({Dense(3), Concat({Dense(1), Dense(2)})}),
                    [](const Tensor& x) { return x * 2.0; }});
    if (built) net(input());
    Sequential shared = net, other = clone(net);
    CHECK(&*shared.layers()[3] == &*net.layers()[3]);
    for (std::size_t i = 0; i < 5; ++i) CHECK(&*other.layers()[i] != &*net.layers()[i]);
    CHECK(&*other.layers()[0] == &*other.layers()[2]);
    if (built) CHECK(same_bits(other(input()), net(input())));
    other(input()), net(input());
    CHECK(paths(other) == paths(net));
    CHECK(parameters(other).size() == 8);
    const auto before = values_of(net);
    SGD({.lr = 1}).step(other, backward(sum(square(other(input())))));
    CHECK(same(values_of(net), before));
  }

  struct Pointing : Module {
    std::shared_ptr<Dense> inner = std::make_shared<Dense>(2);
    Tensor forward(const Tensor& x) override { return (*inner)(x); }
    void visit(Visitor& v) override { v("inner", *inner); }
  } pointing;
  pointing(input());
  CHECK_THROWS_WITH_AS(
      clone(pointing),
      "clone: inner.weight lies behind a pointer that the copy has too; give the module a copy constructor",
      ValueError);
  struct Unique : Module {
    std::unique_ptr<Dense> inner = std::make_unique<Dense>(2);
    Tensor forward(const Tensor& x) override { return (*inner)(x); }
    void visit(Visitor& v) override { v("inner", *inner); }
    std::string_view type() const override { return "Unique"; }
  };
  CHECK_THROWS_WITH_AS(clone(Sequential({Unique()})), "clone: a layer Unique cannot be copied", ValueError);
  struct Special : Dense {
    Special() : Dense(2) {}
    Tensor more;
  } special;
  CHECK_THROWS_WITH_AS(clone(static_cast<const Dense&>(special)),
                       "clone: needs the module's own type, got a base of it", ValueError);
}

TEST_CASE("module: copy_state copies values and keeps the tensors apart") {
  Tower from, to;
  manual_seed(1);
  from(input());
  to(input());
  from.seen = tensor({9});
  REQUIRE_FALSE(same(values_of(from), values_of(to)));
  const Ref<Node> node = to.stem.weight.node();
  copy_state(from, to);
  CHECK(same(values_of(from), values_of(to)));
  CHECK(to.seen.item() == 9);
  CHECK(to.stem.weight.node() == node);
  CHECK(to.stem.weight.storage() != from.stem.weight.storage());
  CHECK(same_bits(from(input()), to(input())));
}

TEST_CASE("module: copy_state refuses what does not fit and changes nothing") {
  Tower from, to;
  from(input());
  Sequential two({3}, {Dense(3), Dense(3)}), one({3}, {Dense(3)});
  CHECK_THROWS_WITH_AS(copy_state(two, one), "copy_state: 4 tensors against 2", ShapeError);

  to(input());
  to.block.b.bias = variable(zeros({5}));
  const std::vector<Tensor> before = values_of(to);
  CHECK_THROWS_WITH_AS(copy_state(from, to), "copy_state: block.b.bias float32 (3,) against block.b.bias float32 (5,)",
                       ShapeError);
  CHECK(same(values_of(to), before));

  Dense dense(3);
  dense(input());
  Sequential net({3}, {Dense(3)});
  CHECK_THROWS_WITH_AS(copy_state(dense, net),
                       "copy_state: weight float32 (3, 3) against layers.0.weight float32 (3, 3)", ShapeError);
}

TEST_CASE("module: copy_state checks the dtypes before it changes anything") {
  Tower from, to;
  from(input());
  to(input());
  to.seen = tensor({3}, f64);
  const std::vector<Tensor> before = values_of(to);
  CHECK_THROWS_WITH_AS(copy_state(from, to), "copy_state: seen float32 (1,) against seen float64 (1,)", ShapeError);
  CHECK(same(values_of(to), before));
}

TEST_CASE("module: a copy shares the parameters") {
  manual_seed(1);
  Tower net;
  net(input());
  Tower copy = net;
  CHECK(copy.block.a.weight.storage() == net.block.a.weight.storage());
  CHECK(copy.block.a.weight.node() == net.block.a.weight.node());
  const Gradients g = backward(sum(square(net(input()))));
  SGD({.lr = 0.1}).step(net, g);
  CHECK(same(values_of(copy), values_of(net)));
  CHECK(same_bits(copy(input()), net(input())));

  // A layer that is not built has nothing to share.
  Dense a(3);
  CHECK_THROWS_AS(Dense{a}, ValueError);
  Dense b = clone(a);
  a(input());
  b(input());
  CHECK(a.weight.storage() != b.weight.storage());
}

TEST_CASE("module: build makes the parameters and tells the output's shape") {
  Tower net;
  CHECK(build(net, {3}) == Shape{3});
  CHECK(parameters(net).size() == 7);
  CHECK(net.stem.weight.dtype() == f32);

  Sequential images({Conv2D({.filters = 4}), Flatten()});
  CHECK(build(images, {6, 5, 2}, f64) == Shape{48});
  CHECK(named_tensors(images)[0].tensor->dtype() == f64);

  // A second build changes nothing.
  const std::vector<Tensor> before = values_of(net);
  build(net, {3});
  CHECK(same(values_of(net), before));

  // Nothing is recorded, and the mode is as before.
  CHECK(recording());
  Dropout drop(0.9);
  CHECK(build(drop, {5}) == Shape{5});
}

TEST_CASE("module: hooks run forward as added, backward from the last, and each can be removed") {
  Dense layer({.units = 2, .use_bias = false, .weight_init = ones_init});
  const Tensor x = variable(tensor({1, 2}, {1, 2}));
  std::string seen;
  const auto forward = [&](const char* name) {
    return layer.on_forward([&seen, name](const Tensor&, Tensor&) { seen += name; });
  };
  const auto back = [&](const char* name) {
    return layer.on_backward([&seen, name](const Tensor&) {
      seen += name;
      return Tensor();
    });
  };
  const std::size_t a = forward("a"), b = back("b");
  forward("c");
  back("d");
  const auto run = [&] {
    seen.clear();
    backward(sum(layer(x)));
    return seen;
  };
  CHECK(run() == "acdb");
  CHECK(layer.remove_hook(b));
  CHECK(run() == "acd");
  CHECK(layer.remove_hook(a));
  CHECK_FALSE(layer.remove_hook(a));
  CHECK(run() == "cd");
}

TEST_CASE("module: hooks see the result and its gradient, and may change them") {
  Dense layer({.units = 2, .use_bias = false, .weight_init = ones_init});
  const Tensor x = variable(tensor({1, 2}, {1, 2}));
  std::vector<double> seen;
  layer.on_forward([&](const Tensor& in, Tensor& out) {
    seen = in.to_vector();
    out = out * 10.0;
  });
  Tensor gradient;
  layer.on_backward([&](const Tensor& g) {
    gradient = g;
    return g * 0.5;
  });
  const Tensor y = layer(x);
  CHECK(seen == std::vector<double>{1, 2});
  CHECK(y.to_vector() == std::vector<double>{30, 30});
  CHECK(backward(sum(y))[x].to_vector() == std::vector<double>{10, 10});  // 0.5 * 10 * (1 + 1)
  CHECK(gradient.to_vector() == std::vector<double>{1, 1});
  layer.clear_hooks();
  CHECK(layer(x).to_vector() == std::vector<double>{3, 3});
}
