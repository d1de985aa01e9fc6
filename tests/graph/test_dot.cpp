// Drawings in the DOT language.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <ebb/autograd/backward.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/ops/ops.h>

#include "temp_dir.h"

using namespace ebb;

TEST_CASE("drawings: names, shapes, clusters, escapes, files") {
  const Tensor x = variable(ones({2, 3}), "the \"x\"");
  Tensor y;
  {
    const Scope outer("encoder"), inner("fc1");
    y = exp(x);
  }
  std::ostringstream out;
  write_dot(out, Graph(sum(y)), {.name = "a\\b"});
  const std::string text = out.str();
  for (const char* part :
       {"digraph", "label=\"a\\\\b\"", "[label=\"the \\\"x\\\"\\n(2, 3)\"", "[label=\"exp\\n(2, 3)\"",
        "[label=\"sum\\n()\"", "subgraph \"cluster_encoder\"", "subgraph \"cluster_encoder.fc1\"", "0->1", "1->2"}) {
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
  std::ostringstream flat;
  write_dot(flat, Graph(y), {.clusters = false});
  CHECK(flat.str().find("subgraph") == std::string::npos);
  std::ostringstream collapsed;
  write_dot(collapsed, Graph(exp(exp(exp(x)))));
  CHECK(collapsed.str().find("[label=\"exp  x3\\n(2, 3)\"") != std::string::npos);
  CHECK_THROWS_WITH_AS(write_dot(std::filesystem::path("/no/such/folder/g.dot"), Graph(y)),
                       "/no/such/folder/g.dot: cannot write: No such file or directory", IoError);
}

/// Whether dot draws the training step that ends in `loss`, every node a box, within so many seconds of processor time.
static bool drawn_within(int seconds, const Tensor& loss, std::uintmax_t bytes) {
  const Gradients g = backward(loss, {.create_graph = true});
  std::vector<Tensor> roots{loss};
  for (const auto& e : g.entries()) roots.push_back(e.gradient);
  const TempDir dir;
  const std::string file = (dir.path() / "step.dot").string();
  write_dot(std::filesystem::path(file), Graph(roots), {.collapse = 0, .loss = loss.node().get()});
  CHECK(std::filesystem::file_size(file) < bytes);
  return std::system(
             ("ulimit -t " + std::to_string(seconds) + "; dot -Tsvg " + file + " -o " + file + ".svg").c_str()) == 0;
}

TEST_CASE(
    "drawings: dot draws a training step of 50 recurrent steps in seconds of processor time, each in a frame of its "
    "own or all in one") {
  if (std::system("command -v dot >/dev/null 2>&1") != 0) return;
  const Tensor w = variable(full({8, 8}, 0.1), "w"), u = variable(full({4, 8}, 0.1), "u"),
               b = variable(zeros({8}), "b"), o = variable(full({8, 3}, 0.1), "o");
  Tensor h = zeros({2, 8}), total = scalar(0);
  for (int t = 0; t < 50; ++t) {
    const Scope cell("step" + std::to_string(t));
    h = tanh(linear(ones({2, 4}), u, b) + matmul(h, w));
    total = total + cross_entropy(matmul(h, o), zeros({2}, i64));
  }
  CHECK(drawn_within(5, total, 150'000));
  const Tensor x = ones({2, 50, 4});
  Sequential net({50, 4}, {SimpleRNN({.units = 8}), Dense(3)});
  CHECK(drawn_within(10, cross_entropy(net(x), zeros({2}, i64)), 150'000));
}

TEST_CASE("drawings: gradients flow up beside the values, dashed where they read them, with notes") {
  const Tensor w = variable(ones({2, 3}), "w");
  Tensor h, v, y;
  {
    const Scope layer("first");
    h = exp(w);
  }
  {
    const Scope layer("second");
    v = variable(ones({3}), "v");
    y = h * v;
  }
  const Tensor loss = sum(y);
  const Gradients g = backward(loss, {.create_graph = true});
  const Graph graph(std::vector{loss, g[w], g[v]});
  std::ostringstream out;
  write_dot(out, graph, {.loss = loss.node().get(), .notes = {{g[w].node().get(), "gradient of \"w\""}}});
  const std::string text = out.str();
  const auto number = [&](const Tensor& t) { return std::to_string(graph.index_of(t.node().get())); };
  // what was computed up to the loss flows down
  CHECK(text.find(number(h) + "->" + number(y) + ";") != std::string::npos);
  CHECK(text.find(number(y) + "->" + number(loss) + ";") != std::string::npos);
  // exp's rule reads its output, and its gradient comes from below: the arrow points at the upper end
  CHECK(text.find(number(h) + "->" + number(g[w]) + " [style=dashed") != std::string::npos);
  std::size_t up = 0;
  for (std::size_t at = text.find("[dir=back"); at != std::string::npos; at = text.find("[dir=back", at + 1)) ++up;
  std::size_t between_gradients = 0;
  for (const Node* n : graph.nodes())
    for (const Input& in : n->inputs()) between_gradients += in.node && in.node->id() > loss.node()->id();
  CHECK(up == between_gradients);
  CHECK(up > 0);
  CHECK(text.find(number(g[w]) + " [label=\"chain_mul\\n(2, 3)\\ngradient of \\\"w\\\"\", color=steelblue") !=
        std::string::npos);
  // what keeps the boxes one below the other: from the first layer's ends to the second's parameter
  CHECK(text.find(number(h) + "->" + number(v) + " [style=invis]") != std::string::npos);
  std::ostringstream plain;
  write_dot(plain, graph);
  CHECK(plain.str().find("dir=back") == std::string::npos);
  CHECK(plain.str().find("gradient of") == std::string::npos);
}

TEST_CASE("drawings: a value and a gradient that are alike stay apart") {
  const Tensor x = variable(ones({2, 2}), "x");
  Tensor y = x;
  for (int i = 0; i < 3; ++i) y = y * x;
  const Tensor loss = sum(y);
  const Gradients g = backward(loss, {.create_graph = true});
  const Graph graph(std::vector{loss, g[x]});
  std::size_t gradients = 0;  // products of the rules
  for (const Node* n : graph.nodes()) gradients += n->op() == "mul" && n->id() > loss.node()->id();
  CHECK(gradients >= 3);
  std::ostringstream out;
  write_dot(out, graph, {.loss = loss.node().get()});
  CHECK(out.str().find("[label=\"mul  x3\\n(2, 2)\"]") != std::string::npos);
  std::ostringstream merged;
  write_dot(merged, graph);
  CHECK(merged.str().find("[label=\"mul  x" + std::to_string(3 + gradients) + "\\n") != std::string::npos);
}

TEST_CASE("dot: Graphviz draws a convolutional network with its backward pass and a profile on one page") {
  if (std::system("command -v dot >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: Graphviz is not installed");
    return;
  }
  Sequential net({28, 28, 1},
                 parse_architecture("conv 4 3 relu, pool 2, conv 8 3 relu, flatten, dense 16 relu, dense 10"));
  const Tensor x = rand({2, 28, 28, 1});
  Profiler profile;
  const Tensor loss = cross_entropy(net(x), zeros({2}, i64));
  const Gradients g = backward(loss, {.create_graph = true});
  DotOptions how{.profile = &profile, .loss = loss.node().get()};
  std::vector<Tensor> roots{loss};
  for (const auto& entry : g.entries()) {
    roots.push_back(entry.gradient);
    how.notes[entry.gradient.node().get()] = "gradient of " + std::string(entry.variable->name());
  }
  const TempDir dir;
  const auto path = [&](const char* name) { return (dir.path() / name).string(); };
  write_dot(std::filesystem::path(path("net.dot")), Graph(roots), how);
  CHECK(std::system(("dot -Tsvg " + path("net.dot") + " -o " + path("net.svg") + " 2> " + path("warnings")).c_str()) ==
        0);
  const auto contents = [](const std::string& file) {
    std::ifstream in(file);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  CHECK(contents(path("warnings")).empty());
  const std::string svg = contents(path("net.svg"));
  for (const char* part :
       {"<svg", ">conv2d_kernel<", ">max_unpool2d<", ">cross_entropy_grad<", ">layers.0<", ">layers.2<", ">layers.5<",
        ">gradient of layers.0.weight<", ">gradient of layers.5.bias<", "GFLOP/s"})
    CHECK_MESSAGE(svg.find(part) != std::string::npos, part);
  // The boxes of the layers stand one below the other, so that it can be read from top to bottom.
  double width = 0, height = 0;
  REQUIRE(std::sscanf(svg.c_str() + svg.find("width=\""), "width=\"%lfpt\" height=\"%lfpt\"", &width, &height) == 2);
  CHECK(width < height);
  CHECK(width < 1200);
}
