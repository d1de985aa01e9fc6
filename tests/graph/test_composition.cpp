// Compositions: one name for several ops, for observers and drawings.
#include <doctest/doctest.h>

#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <ebb/autograd/backward.h>
#include <ebb/graph/composition.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/observe.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

/// What an observer sees, in order.
struct Log : Observer {
  void ran(const OpEvent& e) override { text += std::string(e.op) + " "; }
  void enters_composition(std::string_view name) override { text += std::string(name) + "( "; }
  void composed(const CompositionEvent& e) override {
    text += "= " + std::string(e.name) + "/" + std::to_string(e.inputs.size());
    for (const Attribute& a : e.attributes) text += " " + std::string(a.name);
    text += " " + e.output.shape().str();
  }
  void leaves_composition() override { text += ") "; }
  std::string text;
};

/// Twice the mean of what fails for an empty input.
Tensor twice_the_mean(const Tensor& x) {
  Composition whole("twice_the_mean");
  return whole.gives(mean(x) * 2, {&x});
}

std::string drawn(const Tensor& y, const DotOptions& options = {}) {
  std::ostringstream out;
  write_dot(out, Graph(y), options);
  return out.str();
}
std::size_t boxes(const std::string& dot) {
  std::size_t n = 0;
  for (std::size_t at = dot.find(" [label="); at != std::string::npos; at = dot.find(" [label=", at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("composition: observers see it around its ops, recorded or not, with inputs, options and result") {
  const Tensor x = variable(ones({2, 3}));
  for (const bool off : {false, true}) {
    const NoGrad quiet(off);
    Log log;
    mean(x, 1);
    CHECK(log.text == "mean( sum affine = mean/1 mask keepdims (2,)) ");
    log.text.clear();
    twice_the_mean(x);
    CHECK(log.text == "twice_the_mean( mean( sum affine = mean/1 mask keepdims ()) affine = twice_the_mean/1 ()) ");
    log.text.clear();
    stack(std::vector<Tensor>{x, x, x}, 1);
    CHECK(log.text == "stack( reshape reshape reshape concat = stack/3 axis (2, 3, 3)) ");
  }
}

TEST_CASE("composition: what throws inside is left, and the next op is no part of it") {
  Log log;
  CHECK_THROWS_AS(twice_the_mean(ones({0})), ShapeError);
  exp(ones({1}));
  CHECK(log.text == "twice_the_mean( ) exp ");
  const Tensor x = variable(ones({2}));
  CHECK_THROWS_AS(twice_the_mean(variable(ones({0}))), ShapeError);
  CHECK(exp(x).node()->composition().empty());
}

TEST_CASE("composition: nodes know the outermost one and its call, and their layer as before") {
  const Tensor x = variable(ones({2, 3}));
  Tensor y, z, w;
  {
    const Scope layer("head");
    y = twice_the_mean(x), z = twice_the_mean(x), w = variance(x);
    CHECK_THROWS_WITH_AS(twice_the_mean(ones({0})), "head: mean: no elements to average in (0,)", ShapeError);
  }
  std::set<std::uint32_t> calls;
  const Graph graph(std::vector{y, z});
  for (const Node* n : graph.nodes()) {
    if (n->is_variable()) continue;
    CHECK(n->composition() == "twice_the_mean");
    REQUIRE(n->scope());
    CHECK(n->scope()->path == "head");
    CHECK_FALSE(n->scope()->is_composition);
    calls.insert(n->composition_number());
  }
  CHECK(calls.size() == 2);
  CHECK_FALSE(calls.contains(0));
  CHECK(exp(x).node()->composition_number() == 0);
  CHECK(exp(x).node()->scope() == nullptr);
  const Tensor g = grad(w, x, {.create_graph = true});  // the gradient is no part of the function
  REQUIRE(g.tracked());
  CHECK(g.node()->composition().empty());
  CHECK(g.node()->scope()->path == "head");
}

TEST_CASE("composition: a layer inside one is a layer") {
  const Tensor x = variable(ones({2}));
  const Scope outer("block");
  Composition whole("body");
  Tensor y;
  {
    const Scope inner("fc");
    y = exp(x);
  }
  y = whole.gives(y, {&x});
  CHECK(y.node()->scope()->path == "block.fc");
  CHECK(y.node()->scope()->parent->path == "block");
  CHECK(y.node()->composition().empty());
}

TEST_CASE("composition: drawings show it as one node, and open it") {
  const Tensor x = variable(ones({2, 3}), "x");
  const Tensor y = twice_the_mean(x);
  const std::string closed = drawn(y), open = drawn(y, {.open = true});
  CHECK(boxes(closed) == 2);
  CHECK(closed.find("[label=\"twice_the_mean\\n()\"") != std::string::npos);
  CHECK(closed.find("0->1;") != std::string::npos);
  CHECK(closed.find("1->1") == std::string::npos);
  CHECK(boxes(open) == 4);
  CHECK(open.find("twice_the_mean") == std::string::npos);
  CHECK(open.find("[label=\"sum\\n()\"") != std::string::npos);
  // one behind the other are two, and three alike are one
  CHECK(boxes(drawn(mean(mean(x, {1}, {.keepdims = true}), {0}))) == 3);
  const std::string alike = drawn(stack(std::vector<Tensor>{mean(x), mean(x), mean(x)}));
  CHECK(alike.find("[label=\"mean  x3\\n()\"") != std::string::npos);
  CHECK(alike.find("[label=\"stack\\n(3,)\"") != std::string::npos);
  CHECK(boxes(alike) == 3);
}

TEST_CASE("composition: layers draw their bias with the convolution, attention and dropout as themselves") {
  Sequential images({6, 6, 4}, {Conv2D({.filters = 2, .groups = 2}), Dropout(0.5)});
  const std::string convolved = drawn(images(ones({1, 6, 6, 4})));
  for (const char* part : {"[label=\"conv2d_grouped\\n", "[label=\"dropout\\n"}) {
    CAPTURE(part);
    CHECK(convolved.find(part) != std::string::npos);
  }
  CHECK(boxes(convolved) == 4);  // weight, bias and the two
  MultiHeadAttention attention({.heads = 2, .causal = true});
  const std::string attended = drawn(attention(variable(ones({1, 3, 4}))), {.collapse = 0});
  CHECK(attended.find("[label=\"attention\\n") != std::string::npos);
  CHECK(attended.find("softmax") == std::string::npos);
}

TEST_CASE("composition: the gradient of one that was drawn is drawn beside it") {
  const Tensor x = variable(ones({2, 3}), "x");
  const Tensor loss = twice_the_mean(square(x));
  const Gradients g = backward(loss, {.create_graph = true});
  std::ostringstream out;
  write_dot(out, Graph(std::vector{loss, g[x]}), {.loss = loss.node().get()});
  CHECK(out.str().find("[label=\"twice_the_mean\\n()\"]") != std::string::npos);
  CHECK(out.str().find("color=steelblue") != std::string::npos);
}
