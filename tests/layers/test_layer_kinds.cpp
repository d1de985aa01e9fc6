// What must hold for each kind of layer, from one line of each.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/models/exchange/interop.h>
#include <ebb/models/exchange/onnx.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/gradcheck_module.h>
#include <ebb/models/layers/layer_kinds.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/serialize.h>
#include <ebb/ops/ops.h>

#include "layer_check.h"
#include "temp_dir.h"

using namespace ebb;

namespace {

struct Case {
  std::string architecture;  // begins with the layer's word
  Shape sample;
  DType input = f64;
  std::string no_torch = "", no_keras = "";  // the refusal of its names, where there is one
};

const std::vector<Case> cases{
    {"conv 2 3 stride 2 same", {5, 4, 2}},
    {"depthwise 2 multiplier 2", {4, 4, 2}},
    {"deconv 2 3 stride 2", {3, 2, 2}},
    {"dense 3 tanh", {4}},
    {"pool 2", {4, 4, 2}},
    {"avgpool 2", {4, 4, 2}},
    {"globalavgpool", {3, 3, 2}},
    {"globalmaxpool", {3, 3, 2}},
    {"flatten", {2, 3}},
    {"reshape 3 2", {6}},
    {"dropout 0.5, dense 2", {4}},
    {"spatialdropout 0.5, flatten, dense 2", {3, 3, 2}},
    {"batchnorm", {3}},
    {"layernorm", {4}},
    {"groupnorm 2", {3, 3, 4}},
    {"standardize",
     {3},
     f64,
     "PyTorch names: layer 0 (Standardize): has no counterpart",
     "Keras names: layer standardize (Standardize): has no counterpart"},
    {"embedding 5 2", {3}, i64},
    {"position", {3, 2}},
    {"rnn 2 sequences", {3, 2}},
    {"gru 2", {3, 2}},
    {"lstm 2", {3, 2}},
    {"attention 2 causal", {3, 4}},
    {"residual (dense 4 tanh)", {4}},
    {"concat (dense 2 | dense 3)", {4}},
};

std::string word(const Case& c) { return c.architecture.substr(0, c.architecture.find_first_of(" ,")); }

/// With values of its own in each parameter and buffer. In float32 it knows the shape of its input.
Sequential made(const Case& c, DType dtype = f32) {
  manual_seed(3);
  const std::vector<Layer> layers = parse_architecture(c.architecture);
  Sequential net = dtype == f32 ? Sequential(c.sample, layers) : Sequential(layers);
  if (dtype != f32) build(net, c.sample, c.input);
  for (const NamedTensor& t : named_tensors(net))
    t.tensor->assign(uniform(t.tensor->shape(), 0.5, 1.5, t.tensor->dtype()));
  return net;
}
Tensor input(const Case& c, DType dtype) {
  const Shape shape = c.sample.inserted(0, 2);
  return c.input == i64 ? cast(uniform(shape, 0, 5), i64) : cast(testing::distinct(shape, 1), dtype);
}

/// Empty when it does not throw.
template <class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("layer kinds: each has a case here") {
  for (const detail::LayerKind& kind : detail::layer_kinds())
    CHECK_MESSAGE(std::ranges::any_of(cases, [&](const Case& c) { return word(c) == kind.word; }),
                  "the layer \"" << std::string(kind.word)
                                 << "\" has no case: add one to `cases` in tests/layers/test_layer_kinds.cpp, "
                                 << "its text and the shape of a small sample: {\"" << std::string(kind.word)
                                 << " 2\", {4}},");
  for (const Case& c : cases) CHECK_MESSAGE(detail::layer_kind(word(c)), "there is no layer \"" << word(c) << "\"");
}

TEST_CASE("layer kinds: gradients in input and parameters, at orders 1 and 2") {
  for (const Case& c : cases) {
    CAPTURE(c.architecture);
    Sequential net = made(c, f64);
    const GradcheckReport r = gradcheck(net, input(c, f64), {.order = 2});
    INFO(r);
    CHECK(r);
  }
}

TEST_CASE("layer kinds: text and a saved model give the layer back") {
  const TempDir dir;
  const NoGrad quiet;
  for (const Case& c : cases) {
    CAPTURE(c.architecture);
    Sequential net = made(c);
    CHECK(describe_architecture(net.layers()) == c.architecture);
    const Tensor x = input(c, f32), y = net(x);
    save_model(net, c.architecture, dir / "m");
    SavedModel loaded = load_model(dir / "m");
    CHECK(loaded.architecture == c.architecture);
    CHECK(same_bits(loaded.net(x), y));
  }
}

TEST_CASE("layer kinds: PyTorch's and Keras' names give the values back, or are refused as stated") {
  const TempDir dir;
  const NoGrad quiet;
  for (const Case& c : cases)
    for (const Naming naming : {Naming::torch, Naming::keras}) {
      CAPTURE(c.architecture);
      CAPTURE((naming == Naming::torch ? "torch" : "keras"));
      Sequential net = made(c);
      const Tensor x = input(c, f32), y = net(x);
      std::map<std::string, Tensor> tensors;
      const std::string said = refusal([&] { tensors = named_as(naming, net); });
      CHECK(said == (naming == Naming::torch ? c.no_torch : c.no_keras));
      if (!said.empty()) continue;
      for (auto& [name, t] : tensors) t = t.clone();
      for (const NamedTensor& t : named_tensors(net)) t.tensor->assign(zeros(t.tensor->shape()));
      assign_as(naming, net, tensors, "here");
      CHECK(same_bits(net(x), y));
    }
}

TEST_CASE("layer kinds: each is written as ONNX") {
  const TempDir dir;
  for (const Case& c : cases) {
    CAPTURE(c.architecture);
    Sequential net = made(c);
    const std::string said =
        refusal([&] { export_onnx(net, dir / "m.onnx", c.sample, {.input = c.input == i64 ? i64 : f32}); });
    CHECK(said == "");
  }
}
