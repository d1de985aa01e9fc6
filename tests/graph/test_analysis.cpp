// What a graph says about itself: critical path, memory, repeated sub-expressions, drawings.
#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>
#include <string>

#include <ebb/autograd/backward.h>
#include <ebb/graph/analysis.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/ops/ops.h>

using namespace ebb;

TEST_CASE("critical path: the dearest chain, not the longest") {
  const Tensor a = variable(randn({8, 8}), "a"), b = variable(randn({8, 8}), "b");
  const Tensor dear = matmul(a, b);                           // 1024
  const Tensor cheap = exp(exp(exp(exp(exp(exp(exp(a)))))));  // 7 * 64
  const Tensor y = sum(dear + cheap);                         // 64 + 64
  const CriticalPath path = critical_path(Graph(y));
  CHECK(path.flops == 2 * 8 * 8 * 8 + 64 + 64);
  std::vector<std::string> ops;
  for (const Node* n : path.nodes) ops.emplace_back(n->op());
  CHECK(ops == std::vector<std::string>{"variable", "matmul", "add", "sum"});
}

TEST_CASE("critical path: equals the longest path by plain dynamic programming, on shared graphs with several roots") {
  Generator random(5);
  for (int round = 0; round < 20; ++round) {
    std::vector<Tensor> values{variable(ones({3, 3}))};
    for (int i = 0; i < 30; ++i) {
      const Tensor &p = values[random.below(values.size())], &q = values[random.below(values.size())];
      values.push_back(random.below(2) ? matmul(p, q) : p + q);
    }
    const Graph graph(values);
    std::vector<double> longest(graph.size());
    for (std::size_t i = 0; i < graph.size(); ++i) {
      for (const Input& in : graph.nodes()[i]->inputs())
        longest[i] = std::max(longest[i], longest[graph.index_of(in.node.get())]);
      longest[i] += graph.nodes()[i]->flops();
    }
    CHECK(critical_path(graph).flops == *std::ranges::max_element(longest));
  }
}

TEST_CASE("memory plan: what a graph keeps is what the allocator counts") {
  const Tensor w = variable(randn({28, 16}), "w"), k = variable(randn({3, 3, 1, 4}), "k");
  const std::size_t before = memory_stats().in_use;
  const Tensor loss = [&] {
    const Tensor h = max_pool2d(relu(conv2d(randn({2, 28, 28, 1}), k)));
    return sum(tanh(matmul(reshape(sum(h, {1, 3}), {2, 13}), slice(w, {.end = 13}))));
  }();
  const MemoryPlan plan = plan_backward(Graph(loss));
  // the loss itself is held by its handle, and no node keeps it
  CHECK(plan.kept == memory_stats().in_use - before - Storage::footprint(loss.bytes()));
}

TEST_CASE("memory plan: predicted and measured peak of a backward pass are equal") {
  const Tensor x = randn({64, 100});
  std::vector<Tensor> w;
  for (const Shape& s : {Shape{100, 300}, Shape{300, 50}, Shape{50, 10}}) w.push_back(variable(randn(s)));
  const Tensor labels = zeros({64}, i64);
  const std::size_t before = memory_stats().in_use;
  const Tensor loss = [&] {
    Tensor h = x;
    for (std::size_t i = 0; i < w.size(); ++i) h = i + 1 < w.size() ? relu(matmul(h, w[i])) : matmul(h, w[i]);
    return cross_entropy(h, labels);
  }();
  const MemoryPlan plan = plan_backward(Graph(loss));
  reset_peak_memory();
  const Gradients g = backward(loss);
  const std::size_t outside =
      before - Storage::footprint(x.bytes()) - Storage::footprint(labels.bytes()) + Storage::footprint(loss.bytes());
  CHECK(plan.peak == memory_stats().peak - outside);
  CHECK(plan.at->op() == "relu");  // the widest gradient beside the value that it came from
}

TEST_CASE("memory plan: the peaks of networks are the measured ones too") {
  const Tensor x = rand({32, 28, 28, 1}), labels = zeros({32}, i64);
  for (const std::string text :
       {"flatten, dense 512 relu, dense 10",  // the dense layer's rule makes a tensor beside its results
        "flatten, dense 100 tanh, dense 50 sigmoid, dense 10",
        "conv 8 3 relu, pool 2, conv 16 3 relu, pool 2, flatten, dense 64 relu, dense 10",
        "conv 8 3 relu, pool 2, conv 16 3 relu, flatten, dense 10",  // a convolution without a pool holds no choice
        "conv 8 3, batchnorm, relu, flatten, dense 10",
        "reshape 28 28, gru 12, dense 10"}) {  // slices of one value: their gradients are added up
    CAPTURE(text);
    Sequential net({28, 28, 1}, parse_architecture(text));
    const std::size_t before = memory_stats().in_use;
    const Tensor loss = cross_entropy(net(x), labels);
    const MemoryPlan plan = plan_backward(Graph(loss));
    const std::size_t outside =
        before - Storage::footprint(x.bytes()) - Storage::footprint(labels.bytes()) + Storage::footprint(loss.bytes());
    CHECK(plan.kept == memory_stats().in_use - outside);
    reset_peak_memory();
    const Gradients g = backward(loss);
    CHECK(plan.peak == memory_stats().peak - outside);
    if (text.starts_with("conv")) CHECK(memory_stats().workspace > 0);  // what convolutions work in is counted apart
  }
}

TEST_CASE("common sub-expressions: found through chains, told apart by options") {
  const Tensor x = variable(ones({3})), y = variable(ones({3}));
  const Tensor a = exp(x * y), b = exp(x * y), c = exp(x * x), d = x * 2.0, e = x * 2.0, f = x * 3.0;
  const auto groups = common_subexpressions(Graph(a + b + c + d + e + f));
  REQUIRE(groups.size() == 3);
  std::vector<std::string> ops;
  for (const auto& group : groups) {
    CHECK(group.size() == 2);
    ops.emplace_back(group[0]->op());
  }
  CHECK(ops == std::vector<std::string>{"mul", "exp", "affine"});
}

TEST_CASE("common sub-expressions: every option counts") {
  const Tensor x = variable(rand({2, 2, 2})), m = variable(rand({2, 2}));
  const auto repeated = [](const Tensor& a, const Tensor& b) {
    return common_subexpressions(Graph(std::vector{a, b})).size() == 1;
  };
  CHECK(repeated(matmul(m, m), matmul(m, m)));
  CHECK_FALSE(repeated(matmul(m, m), matmul(m, m, {.transpose_b = true})));
  CHECK(repeated(pow(x, 1.5), pow(x, 1.5)));
  CHECK_FALSE(repeated(pow(x, 1.5), pow(x, 2.5)));
  CHECK(repeated(sum(x, 1), sum(x, 1)));
  CHECK_FALSE(repeated(sum(x, 1), sum(x, 2)));
  CHECK_FALSE(repeated(sum(x, 1), sum(x, 1, {.keepdims = true})));
  CHECK(repeated(reshape(x, {4, 2}), reshape(x, {4, 2})));
  CHECK_FALSE(repeated(reshape(x, {4, 2}), reshape(x, {8})));
  CHECK(repeated(transpose(x, {1, 0, 2}), transpose(x, {1, 0, 2})));
  CHECK_FALSE(repeated(transpose(x, {1, 0, 2}), transpose(x, {0, 2, 1})));
  CHECK_FALSE(repeated(exp(x), sin(x)));
  const Tensor image = reshape(x, {1, 2, 2, 2});
  CHECK_FALSE(repeated(max_pool2d(image), max_pool2d(image)));  // each holds its choice, so they are not compared
}

namespace {

/// A node whose inputs a test may set after it was made, as no recorded graph allows.
struct Loose final : Node {
  static Ref<Node> make(const Shape& shape, int count) {
    const std::size_t bytes = sizeof(Loose) + static_cast<std::size_t>(count) * sizeof(Input);
    return Ref<Node>::adopt(::new (detail::allocate_block(bytes)) Loose(shape, count, bytes));
  }
  static Input& input(const Ref<Node>& node, int i) {
    return reinterpret_cast<Input*>(static_cast<Loose*>(node.get()) + 1)[i];
  }
  std::string_view op() const override { return "loose"; }
  void backward(const Saved&, const Tensor&, std::span<Tensor>) const override {}

 private:
  Loose(const Shape& shape, int count, std::size_t bytes)
      : Node(shape, f32, reinterpret_cast<Input*>(this + 1), count, bytes) {
    for (int i = 0; i < count; ++i) (::new (reinterpret_cast<Input*>(this + 1) + i) Input)->shape = shape;
  }
};

Tensor value_of(const Ref<Node>& node) { return zeros(node->shape()).with_node(node); }

}  // namespace

TEST_CASE("verify: a cycle, a node older than its input and an edge of another shape are named") {
  const auto numbered = [](const Node& n) { return "#" + std::to_string(n.id()); };
  const Ref<Node> old = Loose::make({2}, 1);
  const Tensor x = variable(zeros({2}), "x");
  Loose::input(old, 0).node = x.node();
  CHECK_THROWS_WITH_AS(verify(Graph(value_of(old))),
                       ("verify: loose " + numbered(*old) + " is older than its input " + numbered(*x.node())).c_str(),
                       GradientError);

  const Ref<Node> misfit = Loose::make({3}, 1);
  Loose::input(misfit, 0).node = x.node();
  CHECK_THROWS_WITH_AS(verify(Graph(value_of(misfit))),
                       ("verify: loose " + numbered(*misfit) + " expects (3,), its input variable has (2,)").c_str(),
                       GradientError);

  const Ref<Node> first = Loose::make({2}, 1), second = Loose::make({2}, 1);
  Loose::input(second, 0).node = first;
  const Tensor last = value_of(second);
  const Graph before(last);
  verify(before);
  Loose::input(first, 0).node = second;
  CHECK_THROWS_WITH_AS(verify(before), "verify: the graph has a cycle", GradientError);
  CHECK_THROWS_WITH_AS(Graph{last}, "loose: the graph has a cycle through this node", GradientError);
  Loose::input(first, 0).node = nullptr;  // or the two would own each other for good
}

TEST_CASE("drawing: layers are boxes, repeated nodes are drawn once with their number, data are named") {
  const Tensor w = variable(ones({4, 4}), "w");
  Tensor h = ones({2, 4});
  for (int i = 0; i < 5; ++i) {
    const Scope cell("cell");
    h = tanh(matmul(h, w));
  }
  std::ostringstream out;
  write_dot(out, Graph(h), {.name = "a \"quoted\" name"});
  const std::string dot = out.str();
  CHECK(dot.find("label=\"a \\\"quoted\\\" name\"") != std::string::npos);
  CHECK(dot.find("subgraph \"cluster_cell\"") != std::string::npos);
  CHECK(dot.find("matmul  x5") != std::string::npos);
  CHECK(dot.find("tanh  x5") != std::string::npos);
  CHECK(dot.find("(2, 4) to (2, 4)") != std::string::npos);  // the first step takes a constant
  std::ostringstream all;
  write_dot(all, Graph(h), {.collapse = 0});
  CHECK(all.str().find("x5") == std::string::npos);
  CHECK(std::ranges::count(all.str(), '[') > 10);
}

TEST_CASE("drawing: a profile puts times on the nodes") {
  Profiler profile;
  const Tensor y = sum(matmul(ones({2, 3}), variable(ones({3, 4}))));
  std::ostringstream out;
  write_dot(out, Graph(y), {.profile = &profile});
  CHECK(out.str().find("GFLOP/s") != std::string::npos);
}
