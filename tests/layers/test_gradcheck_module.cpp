// gradcheck of whole modules: every parameter is checked, and nothing is changed.
#include <doctest/doctest.h>

#include <ebb/graph/error.h>
#include <ebb/models/layers/gradcheck_module.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

std::vector<Tensor> state(Module& module) {
  std::vector<Tensor> out;
  for (const NamedTensor& t : named_tensors(module)) out.push_back(t.tensor->clone());
  return out;
}

/// A layer that forgets one of its weights on the way back.
struct Forgetful : Module {
  Tensor weight = variable(ones({3}), "weight"), bias = variable(zeros({3}), "bias");
  Tensor forward(const Tensor& x) override { return x * weight + stop_gradient(bias) * 2 - bias; }
  void visit(Visitor& v) override {
    v("weight", weight);
    v("bias", bias);
  }
};

}  // namespace

TEST_CASE("gradcheck of a module: input and parameters, dropout and running averages held still, all left as it was") {
  for (const bool train : {true, false}) {
    const Training mode(train);
    Sequential net{Dense(6), BatchNormalization(), Dropout(0.5), Dense(3)};
    manual_seed(5);
    const Tensor x = randn({4, 5});
    (void)net(x);
    const std::vector<Tensor> before = state(net);
    std::vector<const Node*> nodes;
    for (const Tensor& p : parameters(net)) nodes.push_back(p.node().get());
    const Generator random = default_generator();
    const GradcheckReport r = gradcheck(net, x, {.order = 2});
    INFO(r);
    CHECK(r);
    const std::vector<Tensor> after = state(net);
    REQUIRE(after.size() == before.size());
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(same_bits(after[i], before[i]));
    for (std::size_t i = 0; i < nodes.size(); ++i) CHECK(parameters(net)[i].node().get() == nodes[i]);
    Generator a = default_generator(), b = random;
    CHECK(a.uniform() == b.uniform());
  }
}

TEST_CASE(
    "gradcheck of a module: builds it, checks only parameters where the input holds integers, and names what is "
    "wrong") {
  Embedding words(EmbeddingOptions{10, 4});
  const GradcheckReport ids = gradcheck(words, tensor({1, 3, 3}, {1, 3}, i64));
  INFO(ids);
  CHECK(ids);
  Forgetful forgetful;
  const GradcheckReport wrong = gradcheck(forgetful, randn({2, 3}));
  CHECK_FALSE(wrong);
  CHECK(wrong.wrong_count == 3);
  CHECK(wrong.wrong[0].where == "input 2 \"bias\" element 0");
  CHECK(forgetful.weight.dtype() == f32);
}
