// Observers: anomaly detection and profiles.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/backward.h>
#include <ebb/graph/apply.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>
#include <ebb/models/train/optimizer.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

class Names : public Observer {
 public:
  void ran(const OpEvent& event) override { ops.emplace_back(event.op); }
  void made_gradient(const Node& node, int input, const Tensor&) override {
    gradients.push_back(std::string(node.op()) + " " + std::to_string(input));
  }
  std::vector<std::string> ops, gradients;
};

/// Its rule gives what no gradient may be.
struct Bad {
  static constexpr std::string_view name = "bad";
  Tensor forward(const Tensor& x) const { return x.clone(); }
  Tensor backward(const Saved&, const Tensor& g) const { return full(g.shape(), NAN); }
};

}  // namespace

TEST_CASE("observer: sees every op and gradient while it lives, outer ones too") {
  const Tensor x = variable(tensor({1, 2}));
  Names outer;
  {
    Names inner;
    backward(sum(x * x));
    CHECK(inner.ops == std::vector<std::string>{"mul", "sum", "reshape", "broadcast_to", "mul", "mul"});
    CHECK(inner.gradients == std::vector<std::string>{"sum 0", "mul 0", "mul 1"});
    CHECK(outer.ops == inner.ops);
  }
  exp(x);
  CHECK(outer.ops.back() == "exp");
}

TEST_CASE("observer: sees the options of an op, numbers, lists and tensors") {
  struct Options : Observer {
    void ran(const OpEvent& event) override {
      seen.clear();
      for (const Attribute& a : event.attributes) {
        seen += std::string(a.name) + "=";
        if (const auto* i = std::get_if<std::int64_t>(&a.value)) seen += std::to_string(*i);
        if (const auto* d = std::get_if<double>(&a.value)) seen += std::to_string(*d);
        if (const auto* l = std::get_if<std::vector<std::int64_t>>(&a.value))
          for (const std::int64_t i : *l) seen += std::to_string(i) + ",";
        if (const auto* t = std::get_if<Tensor>(&a.value)) seen += describe(*t);
        seen += " ";
      }
    }
    std::string seen;
  } options;
  const Tensor x = variable(ones({2, 5, 5, 1}));
  affine(x, 2, 0.5);
  CHECK(options.seen == "scale=2.000000 shift=0.500000 ");
  max_pool2d(x, {.size = 2, .stride = 1, .pad = Padding::same()});
  CHECK(options.seen == "kernel=2,2, stride=1,1, dilation=1,1, same=1 pads=0,0,0,0, ");
  gather(x, tensor({1, 0, 1}, i64));
  CHECK(options.seen == "indices=int64 (3,) ");
  exp(x);
  CHECK(options.seen.empty());
  const std::string window = "kernel=3,2, stride=2,1, dilation=1,1, same=0 pads=1,0,1,0, ";
  const Conv2dOptions o{.stride = {2, 1}, .pad = Pair{1, 0}};
  im2col(x, {3, 2}, o);
  CHECK(options.seen == window);
  avg_pool2d(x, {.size = {3, 2}, .stride = {2, 1}, .pad = Pair{1, 0}});
  CHECK(options.seen == window);
  conv2d_transpose(ones({1, 3, 4, 2}), ones({3, 2, 1, 2}), 5, o);
  CHECK(options.seen == "kernel=0,0, stride=2,1, dilation=1,1, same=0 pads=1,0,1,0, ");  // the kernel is an input
  scatter_rows(ones({2, 3}), tensor({4, 1}, i64), 5);
  CHECK(options.seen == "indices=int64 (2,) ");
  pick(ones({2, 3}), tensor({2, 1}, i64));
  CHECK(options.seen == "indices=int64 (2,) ");
  place(ones({2}), tensor({2, 1}, i64), 3);
  CHECK(options.seen == "indices=int64 (2,) ");
  pow(x, 2.5);
  CHECK(options.seen == "exponent=2.500000 ");
  sum(x, {0, 2}, {.keepdims = true});
  CHECK(options.seen == "mask=5 keepdims=1 ");
  max(x, -1);
  CHECK(options.seen == "mask=8 keepdims=0 ");
  argmax(x, 1);
  CHECK(options.seen == "axis=1 ");
  transpose(x, {0, 2, 1, 3});
  CHECK(options.seen == "axes=0,2,1,3, ");
  slice(x, {.axis = 1, .begin = -3, .step = 2});
  CHECK(options.seen == "axis=1 begin=2 step=2 count=2 ");
  pad(x, {.axis = 2, .before = 1, .after = 2});
  CHECK(options.seen == "axis=2 begin=1 step=1 size=8 ");
  concat({x, x}, 3);
  CHECK(options.seen == "axis=3 ");
}

TEST_CASE("profiler: a convolution and its two gradients count the same multiplications, and so does a dense layer") {
  const auto flops = [](const Tensor& t) { return t.node()->flops(); };
  const Tensor x = variable(ones({2, 7, 6, 3})), k = variable(ones({3, 2, 3, 4}));
  const Tensor y = conv2d(x, k, {.stride = 2, .pad = 1});
  const double products = 2.0 * static_cast<double>(y.numel()) * 3 * 2 * 3;
  CHECK(flops(y) == products);
  const Tensor cotangent = variable(ones_like(y.detach()));
  const std::vector<Tensor> g = grad(y, {x, k}, {.create_graph = true, .cotangent = cotangent});
  CHECK(g[0].node()->op() == "conv2d_transpose");
  CHECK(flops(g[0]) == products);
  CHECK(g[1].node()->op() == "conv2d_kernel");
  CHECK(flops(g[1]) == products);
  const Tensor z = conv2d_relu(x, k, variable(ones({4})), {}, 2);  // of which a pool takes one in four
  CHECK(flops(z) == 2.0 * static_cast<double>(z.numel()) * 4 * 3 * 2 * 3);
  const Tensor a = variable(ones({5, 3})), b = variable(ones({3, 7}));
  CHECK(flops(matmul(a, b)) == 2 * 5 * 3 * 7);
  CHECK(flops(matmul(b, a, {.transpose_a = true, .transpose_b = true})) == 2 * 7 * 3 * 5);
  CHECK(flops(linear(a, b, variable(ones({7})), relu)) == 2 * 5 * 3 * 7);
  CHECK(flops(reshape(a, {15})) == 0);
  CHECK(flops(exp(a)) == 15);
}

TEST_CASE("observer: an exception inside an op leaves it in place") {
  Names names;
  CHECK_THROWS_AS(matmul(ones({2, 3}), ones({2, 3})), ShapeError);
  exp(ones({1}));
  CHECK(names.ops == std::vector<std::string>{"exp"});
}

TEST_CASE("anomaly: names op, layer, element and the range of the inputs, forward") {
  const Tensor x = variable(tensor({1, 0, 2}));
  const DetectAnomaly watch;
  const Scope layer("fc1");
  CHECK_THROWS_WITH_AS(log(x), "fc1: log: element 1 of (3,) is -inf; inputs: float32 (3,) in [0, 2]", NumericError);
  CHECK_NOTHROW(log(x + 1));
}

TEST_CASE("anomaly: names op and layer of the backward rule") {
  const Tensor x = variable(tensor({4, 0}));
  Tensor y;
  {
    const Scope layer("norm");
    y = sqrt(x);  // finite, but its slope at 0 is not
  }
  const DetectAnomaly watch;
  CHECK_THROWS_WITH_AS(backward(sum(y)),
                       "norm: sqrt: backward: in chain_div: element 1 of (2,) is inf; inputs: float32 (2,) in [0.5, "
                       "0.5], float32 (2,) in [0, 2]",
                       NumericError);
}

TEST_CASE("anomaly: a rule that spoils its gradient is found") {
  const Tensor y = apply(Bad{}, variable(ones({2})));
  const DetectAnomaly watch;
  CHECK_THROWS_WITH_AS(backward(sum(y)), "bad: backward: element 0 of the gradient of input 0 (2,) is nan",
                       NumericError);
}

TEST_CASE("profiler: counts calls, operations and bytes by op, layer and node") {
  Profiler profile;
  const Tensor w = variable(ones({4, 5}));
  Tensor y;
  {
    const Scope layer("fc");
    y = matmul(ones({3, 4}), w);
  }
  y = y + y;
  CHECK(profile.by_op().at("matmul").calls == 1);
  CHECK(profile.by_op().at("matmul").flops == 2 * 3 * 4 * 5);
  CHECK(profile.by_op().at("matmul").bytes == 4 * (12 + 20 + 15));
  CHECK(profile.by_op().at("add").flops == 15);
  CHECK(profile.by_layer().at("fc").calls == 1);
  CHECK(profile.of(*y.node()).calls == 1);
  CHECK(profile.of(*w.node()).calls == 0);
  CHECK(profile.seconds() > 0);
  CHECK(profile.table().find("matmul") != std::string::npos);
}

namespace {

/// Its rule divides by zero.
struct Careless {
  static constexpr std::string_view name = "careless";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const { return x.clone(); }
  Tensor backward(const Saved& s, const Tensor& g) const { return g / (s.input(0) - s.input(0)); }
};

}  // namespace

TEST_CASE("anomalies inside a backward rule name the op whose rule it is") {
  const DetectAnomaly watch;
  Tensor y;
  {
    const Scope layer("fc1");
    y = sum(ebb::apply(Careless{}, variable(tensor({1, 2}), "x")));
  }
  CHECK_THROWS_WITH_AS(backward(y),
                       doctest::Contains("fc1: careless: backward: in div: element 0 of (2,) is inf; inputs: "),
                       NumericError);
  const Tensor x = variable(tensor({1, 2}), "x");  // and the next op is not taken for a part of it
  CHECK_THROWS_WITH_AS(log(x - x), doctest::Contains("log: element 0 of (2,) is -inf; inputs: "), NumericError);
}

TEST_CASE("anomalies: an optimizer does not take a NaN, and the step is told from then on") {
  Tensor w = variable(tensor({1, 2}), "w");
  SGD sgd({.lr = 0.1});
  std::vector<Tensor> parameters{w};
  Gradients g = backward(sum(square(w)));
  const DetectAnomaly watch;
  sgd.step(parameters, g);
  sgd.step(parameters, g);
  const Tensor before = w.clone();
  g.entries()[0].gradient = tensor({0, NAN});
  CHECK_THROWS_WITH_AS(sgd.step(parameters, g), "optimizer: step 3: element 1 of the gradient of \"w\" (2,) is nan",
                       NumericError);
  CHECK(same_bits(w, before));
  CHECK_THROWS_WITH_AS(log(w - w), doctest::Contains("(step 3)"), NumericError);
}
