// Drawings in the DOT language.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <ebb/autograd/backward.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
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
  for (const char* part : {"digraph", "label=\"a\\\\b\"", "[label=\"the \\\"x\\\"\\n(2, 3)\"",
                           "[label=\"exp\\n(2, 3)\"", "[label=\"sum\\n()\"", "subgraph \"cluster_encoder\"",
                           "subgraph \"cluster_encoder.fc1\"", "0->1", "1->2"}) {
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

TEST_CASE("dot: Graphviz draws a network with its backward pass") {
  if (std::system("command -v dot >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: Graphviz is not installed");
    return;
  }
  const Tensor k = variable(randn({3, 3, 1, 4}), "k"), w = variable(randn({676, 10}), "w");
  Tensor h;
  {
    const Scope layer("conv");
    h = max_pool2d(relu(conv2d(randn({2, 28, 28, 1}), k)));
  }
  const Tensor loss = cross_entropy(matmul(flatten(h), w), zeros({2}, i64));
  const Gradients g = backward(loss, {.create_graph = true});
  const TempDir dir;
  const std::string file = (dir.path() / "net.dot").string(), picture = (dir.path() / "net.svg").string();
  write_dot(std::filesystem::path(file), Graph(std::vector{loss, g[k], g[w]}));
  CHECK(std::system(("dot -Tsvg " + file + " -o " + picture).c_str()) == 0);
  std::ifstream in(picture);
  const std::string svg{std::istreambuf_iterator<char>(in), {}};
  for (const char* part : {"<svg", "conv2d_kernel", "max_unpool2d", "cross_entropy_grad", ">conv<"}) CHECK_MESSAGE(svg.find(part) != std::string::npos, part);
}
