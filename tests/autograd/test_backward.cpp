// Gradients as values, grad, higher derivatives, messages, and custom ops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/graph/apply.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

using V = std::vector<double>;

/// The example of apply.h.
struct Swish {
  static constexpr std::string_view name = "swish";
  static constexpr Keeps keeps = Keeps::inputs;
  double beta = 1;
  Tensor forward(const Tensor& x) const { return x * sigmoid(x * beta); }
  Tensor backward(const Saved& s, const Tensor& g) const {
    const Tensor x = s.input(0), p = sigmoid(x * beta);
    return g * (p + beta * x * p * (1 - p));
  }
};
Tensor swish(const Tensor& x, double beta = 1) { return apply(Swish{beta}, x); }

/// a b + c with one rule called per input.
struct PerInput {
  static constexpr std::string_view name = "per_input";
  static constexpr Keeps keeps = Keeps::inputs;
  static inline std::vector<int> asked = {};
  Tensor forward(const Tensor& a, const Tensor& b, const Tensor& c) const { return a * b + c; }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    asked.push_back(i);
    return i == 2 ? g : g * s.input(1 - i);
  }
};

/// The same with all gradients at once; those that nobody wants may stay undefined.
struct AllAtOnce {
  static constexpr std::string_view name = "all_at_once";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(std::span<const Tensor> x) const { return x[0] * x[1] + x[2]; }
  std::vector<Tensor> backward(const Saved& s, const Tensor& g) const {
    std::vector<Tensor> out(3);
    if (s.wants(0)) out[0] = g * s.input(1);
    if (s.wants(1)) out[1] = g * s.input(0);
    out[2] = g;
    return out;
  }
};

struct NoRule {
  static constexpr std::string_view name = "no_rule";
  Tensor forward(const Tensor& x) const { return x * 2; }
};

/// Gives a gradient of a shape, a type, or not at all, as told.
struct Liar {
  static constexpr std::string_view name = "liar";
  Tensor lie;
  Tensor forward(const Tensor& x) const { return x * 2; }
  Tensor backward(const Saved&, const Tensor&) const { return lie; }
};

/// Reads in backward what it does not keep.
struct Forgetful {
  static constexpr std::string_view name = "forgetful";
  Tensor forward(const Tensor& x) const { return exp(x); }
  Tensor backward(const Saved& s, const Tensor& g) const { return g * s.output(); }
};

/// Whose backward calls an op that does not fit.
struct Broken {
  static constexpr std::string_view name = "broken";
  Tensor forward(const Tensor& x) const { return x * 2; }
  Tensor backward(const Saved&, const Tensor&) const { return matmul(zeros({64, 100}), zeros({784, 128})); }
};

}  // namespace

TEST_CASE("gradients: by variable, complete, in order of creation") {
  const Tensor a = variable(tensor({1, 2}), "a"), b = variable(tensor({3, 4}), "b"), c = variable(tensor({5}), "c");
  const Gradients g = backward(sum(b * a));
  CHECK(g.size() == 2);
  CHECK(g[a].to_vector() == V{3, 4});
  CHECK(g[b].to_vector() == V{1, 2});
  CHECK_FALSE(g[a].tracked());
  CHECK(g.contains(a));
  CHECK_FALSE(g.contains(c));
  CHECK_FALSE(g.contains(tensor({1})));
  REQUIRE(g.entries().size() == 2);
  CHECK(g.entries()[0].variable == a.node());
  CHECK(g.entries()[1].variable == b.node());
  CHECK_THROWS_WITH_AS((void)g[c], "gradients: none for \"c\", float32 (1,): the loss does not depend on it",
                       GradientError);
  CHECK_THROWS_WITH_AS((void)g[variable(ones({2, 2}))],
                       "gradients: none for float32 (2, 2): the loss does not depend on it", GradientError);
  CHECK_THROWS_WITH_AS((void)g[tensor({1})], "gradients: none for float32 (1,): it is a constant", GradientError);
  CHECK_THROWS_WITH_AS((void)Gradients()[a], "gradients: none for \"a\", float32 (2,): the loss does not depend on it",
                       GradientError);
}

TEST_CASE("gradients: may be replaced, as clipping does") {
  const Tensor a = variable(tensor({1, 2}));
  Gradients g = backward(sum(square(a)));
  for (Gradients::Entry& e : g.entries()) e.gradient = e.gradient * 0.5;
  CHECK(g[a].to_vector() == V{1, 2});
}

TEST_CASE("backward: of what, and what not") {
  const Tensor x = variable(ones({2, 3}), "x");
  CHECK_THROWS_WITH_AS(backward(x * 2),
                       "backward: needs a value with one element, got (2, 3); reduce it with sum or mean",
                       GradientError);
  CHECK_THROWS_WITH_AS(backward(scalar(1)),
                       "backward: float32 () does not depend on any variable; was it computed under NoGrad, or of "
                       "constants? variable(x) makes one",
                       GradientError);
  Tensor y;
  {
    const NoGrad off;
    y = sum(x);
  }
  CHECK_THROWS_WITH_AS(backward(y),
                       "backward: float32 () does not depend on any variable; was it computed under NoGrad, or of "
                       "constants? variable(x) makes one",
                       GradientError);
  CHECK_THROWS_WITH_AS(backward(Tensor()),
                       "backward: undefined does not depend on any variable; was it computed under NoGrad, or of "
                       "constants? variable(x) makes one",
                       GradientError);
  const Tensor s = variable(scalar(3));
  CHECK(backward(s)[s].item() == 1);                                   // of a variable itself
  CHECK(backward(reshape(sum(x), {1, 1}))[x].shape() == Shape{2, 3});  // one element of any rank
}

TEST_CASE("backward: gradients of all uses add up") {
  const Tensor x = variable(tensor({2}));
  CHECK(backward(sum(x + x))[x].item() == 2);
  CHECK(backward(sum(x * x * x))[x].item() == 12);
  const Tensor y = x + 0;
  CHECK(backward(sum(y + y + y * y))[x].item() == 6);
  // add hands the same gradient to both inputs; adding to one in place must not change the other
  const Tensor a = variable(tensor({1})), b = variable(tensor({1}));
  const Gradients g = backward(sum((a + b) + a * 3));
  CHECK(g[a].item() == 4);
  CHECK(g[b].item() == 1);
}

TEST_CASE("backward: slices of one value add their gradients in place, as sums of whole gradients would be") {
  Generator random(7);
  for (const DType type : {f32, f64})
    for (const std::int64_t width : {4, 9000}) {  // the wide one is shared by threads
      const Tensor x = variable(rand({3, 5, width}, type, random));
      const std::vector<SliceOptions> slices{
          {.axis = 1, .begin = 1, .end = 4},  {.axis = 1, .begin = 0, .end = 5, .step = 2},
          {.axis = -1, .begin = 2, .end = 3}, {.axis = 0, .begin = 1, .end = 3},
          {.axis = 2, .begin = 3, .end = 3},  {.axis = 0, .begin = 0, .end = 3, .step = 2}};
      Tensor loss = zeros({}, type);
      for (const SliceOptions& o : slices) {
        const Tensor part = slice(x, o);
        loss = loss + sum(part * rand(part.shape(), type, random));
      }
      const Tensor whole = backward(loss, {.create_graph = true})[x];  // recorded, nothing is changed in place
      CHECK(backward(loss)[x].to_vector() == whole.to_vector());
    }
}

TEST_CASE("backward: observers see the sum after a slice added to it, and anomalies in it") {
  struct Seen : Observer {
    std::vector<std::string> gradients;
    void made_gradient(const Node& node, int, const Tensor& g) override {
      gradients.push_back(std::string(node.op()) + g.shape().str());
    }
  };
  const Tensor x = variable(ones({4, 2}));
  const auto loss = [&](double factor) {
    return sum(slice(x, {.begin = 0, .end = 2}) * tensor({1, factor})) + sum(slice(x, {.begin = 1, .end = 2}));
  };
  const Seen seen;
  backward(loss(1));
  CHECK(std::ranges::count(seen.gradients, "slice(4, 2)") == 2);
  const DetectAnomaly detect;
  CHECK_THROWS_WITH_AS(backward(loss(std::nan(""))), doctest::Contains("is nan"), NumericError);
}

TEST_CASE("grad: inputs, intermediates, cotangents") {
  const Tensor x = variable(tensor({1, 2}), "x"), h = square(x), y = h * 3;
  const std::vector<Tensor> g = grad(sum(y), {x, h, y});
  CHECK(g[0].to_vector() == V{6, 12});
  CHECK(g[1].to_vector() == V{3, 3});
  CHECK(g[2].to_vector() == V{1, 1});
  CHECK(grad(square(x), x, {.cotangent = tensor({10, 100})}).to_vector() == V{20, 400});
  const Tensor z = square(x);
  CHECK(grad(z, z, {.cotangent = tensor({5, 7})}).to_vector() == V{5, 7});
  const Tensor again = square(x);  // asked for twice
  const std::vector<Tensor> twice = grad(sum(exp(again)), {again, again, x});
  CHECK(twice[0].to_vector() == twice[1].to_vector());
}

TEST_CASE("grad: errors and allow_unused") {
  const Tensor x = variable(tensor({1, 2}), "x"), other = variable(tensor({1}), "other"), constant = tensor({1});
  CHECK_THROWS_WITH_AS(grad(sum(x), {x, other}), "grad: y does not depend on input 1 (\"other\", float32 (1,))",
                       GradientError);
  CHECK_THROWS_WITH_AS(grad(sum(x), constant), "grad: y does not depend on input 0 (float32 (1,))", GradientError);
  CHECK_THROWS_WITH_AS(
      grad(x * 1, x), "grad: needs a value with one element, got (2,); reduce it with sum or mean, or give a cotangent",
      GradientError);
  CHECK_THROWS_WITH_AS(grad(x * 2, x, {.cotangent = tensor({1})}),
                       "grad: the cotangent float32 (1,) does not fit float32 (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(grad(x * 2, x, {.cotangent = ones({2}, f64)}),
                       "grad: the cotangent float64 (2,) does not fit float32 (2,)", ShapeError);
  const std::vector<Tensor> g = grad(sum(x), {other, x, constant, Tensor()}, {.allow_unused = true});
  CHECK_FALSE(g[0].defined());
  CHECK(g[1].to_vector() == V{1, 1});
  CHECK_FALSE(g[2].defined());
  CHECK_FALSE(g[3].defined());
}

TEST_CASE("grad: only what is asked for is computed") {
  PerInput::asked.clear();
  const Tensor a = variable(tensor({2})), b = variable(tensor({3})), c = variable(tensor({4}));
  const Tensor y = apply(PerInput{}, a, b, c);
  CHECK(grad(y, b, {.retain_graph = true}).item() == 2);
  CHECK(PerInput::asked == std::vector<int>{1});
  PerInput::asked.clear();
  (void)backward(y);
  CHECK(PerInput::asked == std::vector<int>{0, 1, 2});
}

TEST_CASE("higher derivatives: sin to the fifth order, and a mixed one") {
  const Tensor x = variable(scalar(0.7, f64));
  Tensor y = sin(x);
  const double expected[] = {std::cos(0.7), -std::sin(0.7), -std::cos(0.7), std::sin(0.7), std::cos(0.7)};
  for (const double e : expected) {
    y = grad(y, x, {.create_graph = true});
    CHECK(y.item() == doctest::Approx(e).epsilon(1e-14));
  }
  const Tensor a = variable(scalar(1.5, f64)), b = variable(scalar(0.5, f64));
  const Tensor ga = grad(exp(a * b), a, {.create_graph = true});
  CHECK(grad(ga, b).item() == doctest::Approx((1 + 0.75) * std::exp(0.75)).epsilon(1e-14));
  CHECK_FALSE(grad(sin(x), x).tracked());  // without create_graph it is a constant
  // a Hessian row by row: f = x0^2 x1
  const Tensor v = variable(tensor({3, 5}, f64));
  const Tensor g = grad(sum(square(slice(v, {.end = 1})) * slice(v, {.begin = 1})), v, {.create_graph = true});
  CHECK(grad(g, v, {.retain_graph = true, .cotangent = tensor({1, 0}, f64)}).to_vector() == V{10, 6});
  CHECK(grad(g, v, {.cotangent = tensor({0, 1}, f64)}).to_vector() == V{6, 0});
}

TEST_CASE("backward with create_graph: a penalty on gradients") {
  const Tensor x = tensor({1, -2}, {1, 2}, f64), w = variable(tensor({0.3, 0.4}, {2, 1}, f64), "w");
  const Gradients g = backward(sum(tanh(matmul(x, w))), {.create_graph = true});
  CHECK(g[w].tracked());
  const Gradients second = backward(sum(square(g[w])));
  const double u = 0.3 - 0.8, t = std::tanh(u), s = 1 - t * t;  // sum g^2 = 5 s^2, derivative 10 s (-2 t s) x
  CHECK(second[w].to_vector()[0] == doctest::Approx(-20 * s * s * t));
  CHECK(second[w].to_vector()[1] == doctest::Approx(40 * s * s * t));
}

TEST_CASE("messages carry the layer, forward and inside backward") {
  const auto layer = [](const Tensor& x) {
    const Scope scope("fc1");
    return matmul(x, zeros({784, 128}));
  };
  CHECK_THROWS_WITH_AS(layer(zeros({64, 100})), "fc1: matmul: inner sizes differ: (64, 100) x (784, 128)", ShapeError);
  Tensor y;
  {
    const Scope a("model"), b("fc2");
    y = sum(apply(Broken{}, variable(ones({2}))));
  }
  const Scope elsewhere("trainer");
  CHECK_THROWS_WITH_AS(backward(y), "model.fc2: matmul: inner sizes differ: (64, 100) x (784, 128)", ShapeError);
  CHECK(current_scope() == "trainer");
}

TEST_CASE("gradient nodes carry the layer whose rule made them") {
  const Tensor x = variable(scalar(1, f64));
  Tensor y;
  {
    const Scope scope("block");
    y = sin(x);
  }
  const Tensor g = grad(y, x, {.create_graph = true});
  REQUIRE(g.node()->scope() != nullptr);
  CHECK(g.node()->scope()->path == "block");
}

TEST_CASE("custom ops: the example, at both orders, of any options") {
  for (const double beta : {1.0, 0.3, -2.0})
    CHECK(gradcheck([beta](auto& x) { return swish(x, beta); }, {randn({3, 4}, f64)},
                    {.order = 2, .probe = Probe::elements}));
  CHECK(swish(tensor({2}, f64)).item() == doctest::Approx(2 / (1 + std::exp(-2.0))));
  CHECK_FALSE(swish(tensor({2})).tracked());
}

TEST_CASE("custom ops: the three forms of backward agree") {
  const Tensor x[] = {randn({3}, f64), randn({3}, f64), randn({3}, f64)};
  const auto per_input = [](auto& a, auto& b, auto& c) { return apply(PerInput{}, a, b, c); };
  const auto all = [](auto& a, auto& b, auto& c) { return ebb::apply(AllAtOnce{}, std::vector{a, b, c}); };
  CHECK(gradcheck(per_input, {x[0], x[1], x[2]}, {.order = 2}));
  CHECK(gradcheck(all, {x[0], x[1], x[2]}, {.order = 2}));
  const Tensor b = variable(x[1]);  // one wanted of three
  CHECK(same_bits(grad(sum(all(x[0], b, x[2])), b), x[0]));
}

namespace {

/// The mean of any number of inputs; its rule needs only what it can ask of the node.
struct Average {
  static constexpr std::string_view name = "average";
  Tensor forward(std::span<const Tensor> x) const {
    Tensor total = x[0];
    for (std::size_t i = 1; i < x.size(); ++i) total = total + x[i];
    return total / static_cast<double>(x.size());
  }
  std::vector<Tensor> backward(const Saved& s, const Tensor& g) const {
    CHECK(g.shape() == s.output_shape());
    return std::vector<Tensor>(static_cast<std::size_t>(s.inputs()), g / static_cast<double>(s.inputs()));
  }
};

}  // namespace

TEST_CASE("custom ops: a rule may ask for the number of inputs and the shape of the output") {
  const auto average = [](std::span<const Tensor> x) { return ebb::apply(Average{}, x); };
  CHECK(gradcheck(average, {randn({2, 3}, f64), randn({2, 3}, f64), randn({2, 3}, f64)},
                  {.order = 2, .probe = Probe::elements}));
  const std::vector<Tensor> x{variable(ones({2})), variable(ones({2})), variable(ones({2})), variable(ones({2}))};
  CHECK(backward(sum(average(x)))[x[3]].to_vector() == V{0.25, 0.25});
}

TEST_CASE("custom ops: rules that lie are named") {
  const Tensor x = variable(ones({2, 3}));
  const auto gradient = [&](const Tensor& lie) { return backward(sum(apply(Liar{lie}, x)))[x]; };
  CHECK(gradient(ones({2, 3})).numel() == 6);
  CHECK_THROWS_WITH_AS(gradient(ones({3, 2})),
                       "liar: backward gave float32 (3, 2) for input 0, which is float32 (2, 3)", GradientError);
  CHECK_THROWS_WITH_AS(gradient(ones({4, 2, 3})),
                       "liar: backward gave float32 (4, 2, 3) for input 0, which is float32 (2, 3)", GradientError);
  CHECK_THROWS_WITH_AS(gradient(ones({2, 3}, f64)),
                       "liar: backward gave float64 (2, 3) for input 0, which is float32 (2, 3)", GradientError);
  CHECK_THROWS_WITH_AS(gradient(Tensor()), "liar: backward gave no gradient for input 0", GradientError);
  CHECK_THROWS_WITH_AS(backward(sum(apply(Forgetful{}, x))),
                       "forgetful: backward reads its output, which the op does not keep", GradientError);
}

TEST_CASE("custom ops: without a rule they are refused where they would be recorded, and only there") {
  const Tensor x = variable(ones({2}));
  CHECK_THROWS_WITH_AS(apply(NoRule{}, x), "no_rule: has no gradient; pass stop_gradient(x), or call it under NoGrad",
                       GradientError);
  CHECK(apply(NoRule{}, stop_gradient(x)).to_vector() == V{2, 2});
  const NoGrad off;
  CHECK(apply(NoRule{}, x).to_vector() == V{2, 2});
}

TEST_CASE("custom ops: a new op reads its inputs in place of the graph inside forward") {
  const Tensor x = variable(ones({2}));
  const Tensor y = swish(x);
  CHECK(y.node()->op() == "swish");
  CHECK(Graph(y).size() == 2);  // nothing of what forward called
}

TEST_CASE("changing what a rule reads between two backwards is refused too") {
  const Tensor x = variable(tensor({1, 2}, f64));
  Tensor w = tensor({3, 4}, f64);
  const Tensor y = sum(square(x) * w);
  (void)backward(y, {.retain_graph = true});
  w.assign(zeros({2}, f64));
  CHECK_THROWS_AS(backward(y), GradientError);
}
