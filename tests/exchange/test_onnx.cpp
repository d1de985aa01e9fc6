// ONNX files, decoded here from their bytes. What other runtimes make of them is compared in tests/interop.
// (over 400 lines because it decodes the format itself)
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>
#include <ebb/models/exchange/onnx.h>
#include <ebb/models/exchange/onnx_graph.h>
#include <ebb/models/exchange/protobuf.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
#include <ebb/ops/ops.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "op_table.h"
#include "temp_dir.h"

using namespace ebb;

namespace {

/// A message: its fields by number, in order; numbers as they are, texts and messages as bytes, 32-bit floats as bytes.
struct Message {
  struct Field {
    std::uint64_t number = 0;
    std::string bytes;
  };
  std::multimap<int, Field> fields;

  explicit Message(std::string_view in) {
    while (!in.empty()) {
      const std::uint64_t key = varint(in);
      Field f;
      switch (key & 7) {
        case 0: f.number = varint(in); break;
        case 2: f.bytes = take(in, varint(in)); break;
        case 5: f.bytes = take(in, 4); break;
        default: FAIL("wire type " << (key & 7));
      }
      fields.emplace(static_cast<int>(key >> 3), std::move(f));
    }
  }
  std::vector<Message> messages(int field) const {
    std::vector<Message> out;
    for (auto [it, end] = fields.equal_range(field); it != end; ++it) out.emplace_back(it->second.bytes);
    return out;
  }
  Message message(int field) const {
    const auto all = messages(field);
    REQUIRE(all.size() == 1);
    return all[0];
  }
  std::vector<std::string> texts(int field) const {
    std::vector<std::string> out;
    for (auto [it, end] = fields.equal_range(field); it != end; ++it) out.push_back(it->second.bytes);
    return out;
  }
  std::string text(int field) const { return texts(field).empty() ? "" : texts(field)[0]; }
  std::vector<std::int64_t> numbers(int field) const {
    std::vector<std::int64_t> out;
    for (auto [it, end] = fields.equal_range(field); it != end; ++it)
      out.push_back(static_cast<std::int64_t>(it->second.number));
    return out;
  }
  std::int64_t number(int field) const { return numbers(field).empty() ? -1 : numbers(field)[0]; }

 private:
  static std::uint64_t varint(std::string_view& in) {
    std::uint64_t out = 0;
    for (int shift = 0;; shift += 7) {
      REQUIRE(!in.empty());
      const auto byte = static_cast<unsigned char>(in[0]);
      in.remove_prefix(1);
      out |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return out;
    }
  }
  static std::string take(std::string_view& in, std::uint64_t n) {
    REQUIRE(n <= in.size());
    const std::string out(in.substr(0, n));
    in.remove_prefix(n);
    return out;
  }
};

/// A model by the fields of onnx.proto.
struct Model {
  Message model, graph;
  explicit Model(const std::string& bytes) : model(bytes), graph(model.message(7)) {}

  std::vector<std::string> types() const {
    std::vector<std::string> out;
    for (const Message& n : graph.messages(1)) out.push_back(n.text(4));
    return out;
  }
  Message node(std::string_view type) const {
    for (const Message& n : graph.messages(1))
      if (n.text(4) == type) return n;
    FAIL("no node " << type);
    throw 0;
  }
  std::vector<std::int64_t> ints(const Message& n, std::string_view name) const {
    for (const Message& a : n.messages(5))
      if (a.text(1) == name) return a.number(20) == 2 ? a.numbers(3) : a.numbers(8);
    return {};
  }
  Message initializer(std::string_view name) const {
    for (const Message& t : graph.messages(5))
      if (t.text(8) == name) return t;
    FAIL("no initializer " << name);
    throw 0;
  }
  std::vector<float> floats(std::string_view name) const {
    const std::string bytes = initializer(name).text(9);
    std::vector<float> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  /// "float (N, 28)"
  std::string value(int field) const {
    const Message v = graph.message(field), type = v.message(2).message(1);
    std::string out = v.text(1) + " " + std::to_string(type.number(1)) + " (";
    for (const Message& size : type.message(2).messages(1))
      out += (size.text(2).empty() ? std::to_string(size.number(1)) : size.text(2)) + ",";
    return out + ")";
  }
};

std::string get(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Model exported(Module& m, const Shape& sample, const OnnxOptions& options = {}) {
  const TempDir dir;
  export_onnx(m, dir / "m.onnx", sample, options);
  return Model(get(dir / "m.onnx"));
}

struct FunctionOf : Module {
  std::function<Tensor(const Tensor&)> f;
  explicit FunctionOf(std::function<Tensor(const Tensor&)> g) : f(std::move(g)) {}
  Tensor forward(const Tensor& x) override { return f(x); }
};

/// The message of an export that must be refused, and leave no file.
std::string refusal(Module& m, const Shape& sample = {4}) {
  const TempDir dir;
  try {
    export_onnx(m, dir / "m.onnx", sample);
  } catch (const ValueError& e) {
    CHECK(std::filesystem::is_empty(dir.path()));
    return e.what();
  }
  CHECK(std::filesystem::exists(dir / "m.onnx"));
  return "nothing";
}
std::string refusal(std::function<Tensor(const Tensor&)> f, const Shape& sample = {4}) {
  FunctionOf m(std::move(f));
  return refusal(m, sample);
}

}  // namespace

TEST_CASE("onnx: the wire format") {
  // protobuf.dev/programming-guides/encoding: 150 in field 1; "testing" in field 2
  CHECK(detail::ProtoMessage().integer(1, 150).bytes() == "\x08\x96\x01");
  CHECK(detail::ProtoMessage().text(2, "testing").bytes() == "\x12\x07testing");
  CHECK(detail::ProtoMessage().integer(1, -1).bytes() == "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(detail::ProtoMessage().number(2, 1.0f).bytes() == std::string("\x15\0\0\x80\x3f", 5));
  CHECK(detail::ProtoMessage().integer(20, 7).bytes() == "\xa0\x01\x07");
  CHECK(detail::ProtoMessage().message(3, detail::ProtoMessage().integer(1, 150)).bytes() == "\x1a\x03\x08\x96\x01");
}

TEST_CASE("onnx: a network of dense layers") {
  Sequential net({2, 3, 1}, {Flatten(), Dense(4, relu), Dropout(0.5), Dense(2)});
  auto& dense = dynamic_cast<Dense&>(*net.layers()[1]);
  const Model m = exported(net, {2, 3, 1}, {.name = "digits", .metadata = {{"scale", "0.5"}}});
  CHECK(m.model.number(1) == 7);
  CHECK(m.model.text(2) == "ebb");
  CHECK(m.model.message(8).number(2) == 13);
  CHECK(m.model.message(14).text(1) == "scale");
  CHECK(m.model.message(14).text(2) == "0.5");
  CHECK(m.graph.text(2) == "digits");
  CHECK(m.types() == std::vector<std::string>{"Flatten", "Gemm", "Relu", "Gemm"});
  CHECK(m.value(11) == "input 1 (N,2,3,1,)");
  CHECK(m.value(12) == "output 1 (N,2,)");
  CHECK(m.graph.messages(1).back().text(2) == "output");
  const Message w = m.initializer("layers.1.weight");
  CHECK(w.numbers(1) == std::vector<std::int64_t>{4, 6});  // (out, in), with transB
  CHECK(w.number(2) == 1);
  CHECK(m.ints(m.node("Gemm"), "transB") == std::vector<std::int64_t>{1});
  const auto got = m.floats("layers.1.weight");
  for (std::size_t i = 0; i < 6; ++i)
    for (std::size_t o = 0; o < 4; ++o) CHECK(got[o * 6 + i] == dense.weight.values<float>()[i * 4 + o]);
  CHECK(m.graph.messages(5).size() == 4);  // what the export makes on its way is not in the file
}

TEST_CASE("onnx: images are turned once on the way in and once before they are flattened") {
  Sequential net(
      {9, 9, 2},
      {Conv2D({.filters = 4, .kernel = {3, 2}, .stride = 2, .pad = Padding::same(), .activation = relu}), MaxPool2D(2),
       Residual({Conv2D({.filters = 4, .pad = Padding::same()}), BatchNormalization()}), relu, Flatten(), Dense(3)});
  const Model m = exported(net, {9, 9, 2});
  CHECK(m.types() == std::vector<std::string>{"Transpose", "Conv", "Relu", "MaxPool", "Conv", "Mul", "Add", "Add",
                                              "Relu", "Transpose", "Flatten", "Gemm"});
  const Message conv = m.node("Conv");
  CHECK(conv.texts(1)[1] == "layers.0.weight");
  CHECK(conv.texts(1)[2] == "layers.0.bias");
  CHECK(m.ints(conv, "kernel_shape") == std::vector<std::int64_t>{3, 2});
  CHECK(m.ints(conv, "strides") == std::vector<std::int64_t>{2, 2});
  CHECK(m.ints(conv, "pads") ==
        std::vector<std::int64_t>{1, 0, 1, 1});  // top, left, bottom, right: 9 to 5, Keras' "same"
  CHECK(m.ints(conv, "group") == std::vector<std::int64_t>{1});
  CHECK(m.initializer("layers.0.weight").numbers(1) == std::vector<std::int64_t>{4, 2, 3, 2});
  const auto& kernel = dynamic_cast<Conv2D&>(*net.layers()[0]).weight;  // (3, 2, 2, 4)
  const auto got = m.floats("layers.0.weight");
  CHECK(got[((3 * 2 + 1) * 3 + 2) * 2 + 1] == kernel.values<float>()[((2 * 2 + 1) * 2 + 1) * 4 + 3]);
  CHECK(m.ints(m.node("Transpose"), "perm") == std::vector<std::int64_t>{0, 3, 1, 2});
}

TEST_CASE("onnx: groups, pools and activations are single ops again") {
  const auto types = [](std::initializer_list<Layer> layers, const Shape& sample) {
    Sequential net(sample, layers);
    return exported(net, sample).types();
  };
  using Types = std::vector<std::string>;
  CHECK(types({Conv2D({.filters = 4, .groups = 2})}, {5, 5, 4}) == Types{"Transpose", "Conv", "Transpose"});
  CHECK(types({Conv2D({.filters = 4, .groups = 4})}, {5, 5, 4}) == Types{"Transpose", "Conv", "Transpose"});
  CHECK(types({Conv2D(Conv2DOptions{.filters = 4}), GlobalAvgPool2D()}, {5, 5, 4}) ==
        Types{"Transpose", "Conv", "GlobalAveragePool", "Flatten"});
  CHECK(types({Conv2D(Conv2DOptions{.filters = 4}), GlobalMaxPool2D()}, {5, 5, 4}) ==
        Types{"Transpose", "Conv", "GlobalMaxPool", "Flatten"});
  CHECK(types({Dense(2), [](const Tensor& x) { return leaky_relu(x); }}, {3}) == Types{"Gemm", "LeakyRelu"});
  CHECK(types({Dense(2), [](const Tensor& x) { return elu(x, 0.5); }}, {3}) == Types{"Gemm", "Elu"});
  CHECK(types({Dense(2), selu}, {3}) == Types{"Gemm", "Selu"});
  CHECK(types({[](const Tensor& x) { return clip(x, -1, 1); }}, {3}) == Types{"Clip"});
  CHECK(types({[](const Tensor& x) { return min(x, 1); }}, {3, 2}) == Types{"ReduceMin"});
  CHECK(types({[](const Tensor& x) { return pad(x, {.axis = 1, .after = 2}); }}, {3, 2}) == Types{"Pad"});
  CHECK(types({[](const Tensor& x) { return rsqrt(x); }}, {3}) == Types{"Sqrt", "Reciprocal"});
  CHECK(types({[](const Tensor& x) { return one_hot(argmax(x), 3); }}, {3}) == Types{"ArgMax", "OneHot"});
  CHECK(types({Conv2DTranspose({.filters = 2})}, {5, 5, 4}) == Types{"Transpose", "ConvTranspose", "Transpose"});
  // a composition that ONNX does not have is written as its ops
  CHECK(types({[](const Tensor& x) { return variance(x, {1}); }}, {3, 2}) ==
        Types{"ReduceMean", "Sub", "Mul", "ReduceMean", "ReduceMean", "Mul", "Min", "Sub"});
  CHECK(types({Dense(2), softmax}, {3}) == Types{"Gemm", "Softmax"});
  CHECK(types({[](const Tensor& x) { return mean(x, 1); }}, {3, 2}) == Types{"ReduceMean"});
  Sequential grouped({5, 5, 4}, {Conv2D({.filters = 6, .groups = 2})});
  const Model m = exported(grouped, {5, 5, 4});
  CHECK(m.ints(m.node("Conv"), "group") == std::vector<std::int64_t>{2});
  // (kh, kw, in / groups, out) to (out, in / groups, kh, kw)
  const auto& kernel = dynamic_cast<Conv2D&>(*grouped.layers()[0]).weight;
  const auto name = m.node("Conv").texts(1)[1];
  CHECK(m.initializer(name).numbers(1) == std::vector<std::int64_t>{6, 2, 3, 3});
  CHECK(m.floats(name)[((5 * 2 + 1) * 3 + 2) * 3 + 0] == kernel.values<float>()[((2 * 3 + 0) * 2 + 1) * 6 + 5]);
}

TEST_CASE("onnx: other inputs than float32") {
  Sequential words({Embedding({.size = 5, .units = 2}), GRU(3)});
  const Model m = exported(words, {4}, {.input = i64});
  CHECK(m.value(11) == "input 7 (N,4,)");
  CHECK(m.value(12) == "output 1 (N,3,)");
  CHECK(m.types().front() == "Gather");
  Sequential floats({Embedding({.size = 5, .units = 2})});  // takes floats, but no fractions
  const auto types = exported(floats, {4}).types();
  CHECK(std::ranges::find(types, "Gather") != types.end());
  Sequential wide({Dense(2)});
  build(wide, {3}, f64);
  CHECK(exported(wide, {3}, {.input = f64}).value(12) == "output 11 (N,2,)");
  FunctionOf compares([](const Tensor& x) { return greater(x, 0.5); });
  CHECK(exported(compares, {3}).value(12) == "output 2 (N,3,)");
  FunctionOf stacks([](const Tensor& x) { return reshape(x, {-1, 2}); });
  CHECK(exported(stacks, {6}).value(12) == "output 1 (3N,2,)");
}

TEST_CASE("onnx: the model and the generator stay as they were") {
  Sequential net({4}, {Dense(3), BatchNormalization(), Dropout(0.5)});
  std::vector<Tensor> before;
  for (const NamedTensor& t : named_tensors(net)) before.push_back(t.tensor->clone());
  const auto position = default_generator().position();
  const Training on(true);
  CHECK(exported(net, {4}).types() == std::vector<std::string>{"Gemm", "Mul", "Add"});
  CHECK(default_generator().position() == position);
  std::size_t i = 0;
  for (const NamedTensor& t : named_tensors(net)) CHECK(same_bits(*t.tensor, before[i++]));
  CHECK(training());
}

TEST_CASE("onnx: the same parameter twice is stored once, alike ones are not") {
  const auto shared = std::make_shared<Dense>(4);
  Sequential net({4}, {shared, shared, Dense(4)});
  const Model m = exported(net, {4});
  CHECK(m.graph.messages(5).size() == 4);
  CHECK(m.graph.messages(1)[0].texts(1)[2] == m.graph.messages(1)[1].texts(1)[2]);
  CHECK(m.graph.messages(1)[2].texts(1)[2] == "layers.2.bias");  // zeros like the other
}

TEST_CASE("onnx: what cannot be expressed is refused by layer and op") {
  Sequential net({4, 4, 1}, {Conv2D({.filters = 1, .pad = Padding::same()}), [](const Tensor& x) {
                               return col2im(im2col(x, 2), {4, 4}, 2);
                             }});
  CHECK(refusal(net, {4, 4, 1}) == "export_onnx: layers.1: col2im cannot be expressed in ONNX opset 13");
  CHECK(refusal([](const Tensor& x) { return cross_entropy(x, zeros({x.size(0)}, i64)); }) ==
        "export_onnx: cross_entropy cannot be expressed in ONNX opset 13");
  CHECK(refusal([](const Tensor& x) { return atan2(x, x); }) ==
        "export_onnx: atan2 cannot be expressed in ONNX opset 13");
  CHECK(refusal(
            [](const Tensor& x) {
              return col2im(im2col(x, 2), {4, 4}, 2);
            },
            {4, 4, 1}) == "export_onnx: col2im cannot be expressed in ONNX opset 13");
  CHECK(refusal([](const Tensor& x) { return matmul(x, x, {.transpose_b = true}); }) == "nothing");  // (N, N)
  CHECK(refusal([](const Tensor& x) { return reshape(matmul(x, x, {.transpose_b = true}), {-1}); }) ==
        "export_onnx: the result: gives (9,) for 3 samples and (25,) for 5; only multiples of the batch can be said");
  CHECK(refusal([](const Tensor& x) { return x; }) ==
        "export_onnx: the result is the input itself: there is nothing to export");
  CHECK(refusal([](const Tensor& x) {
          return ones({x.size(0), 2});
        }) == "export_onnx: the result does not depend on the input");
}

TEST_CASE("onnx: what would hold for the traced data only is refused") {
  const std::string alike = "; a graph holds for every input alike";
  // constants made of the data
  CHECK(refusal([](const Tensor& x) { return x * x.clone(); }) ==
        "export_onnx: mul reads a constant float32 (3, 4) that depends on the size of the batch" + alike);
  CHECK(refusal([](const Tensor& x) { return x * scalar(sum(x).item()); }) ==
        "export_onnx: mul reads a constant float32 () that is computed from the input, or at random" + alike);
  CHECK(refusal([](const Tensor& x) { return x + randn({4}); }) ==
        "export_onnx: add reads a constant float32 (4,) that is computed from the input, or at random" + alike);
  CHECK(refusal([](const Tensor& x) { return x * sum(x).item(); }) ==
        "export_onnx: affine has another scale for another batch" + alike);
  CHECK(refusal([](const Tensor& x) {
          return x + arange(x.size(0)).viewed_as({x.size(0), 1});
        }) == "export_onnx: add reads a constant float32 (3, 1) that depends on the size of the batch" + alike);
  CHECK(refusal([](const Tensor& x) { return x * static_cast<double>(x.size(0)); }) ==
        "export_onnx: affine has another scale for another batch" + alike);
  CHECK(refusal([](const Tensor& x) { return slice(x, {.begin = 1}); }) ==
        "export_onnx: slice has another count for another batch" + alike);
  // branches: also where both batches of small positive numbers go one way
  CHECK(refusal([](const Tensor& x) { return x.size(0) > 4 ? relu(x) : tanh(x); }) ==
        "export_onnx: tanh ran for one batch and relu for another" + alike);
  CHECK(refusal([](const Tensor& x) { return sum(x).item() > 0 ? relu(x) : tanh(x); }) ==
        "export_onnx: relu ran for one batch and tanh for another" + alike);
  CHECK(refusal([](const Tensor& x) { return max(abs(x)).item() > 1 ? relu(relu(x)) : relu(x); }) ==
        "export_onnx: 1 ops ran for one batch and 2 for another" + alike);
  // values that go past the ops
  CHECK(
      refusal([](const Tensor& x) { return relu(x + 1.0).rows(0, 1) * 2.0; }) ==
      "export_onnx: affine reads a part of a computed value that no op has taken out of it; use slice() or reshape()");
  CHECK(refusal([](const Tensor& x) {
          Tensor y = relu(x);
          y.mutable_values<float>()[0] = 7;
          return y * 2.0;
        }) == "export_onnx: the model changes a value in place, which no graph can say");
  // what is as large as the batch and alike for each sample is fine
  CHECK(refusal([](const Tensor& x) { return x + ones_like(x); }) == "nothing");
}

TEST_CASE("onnx: too large a model, and a file that cannot be written") {
  const Tensor table = Tensor::empty({(std::int64_t{1} << 29) + 1, 1});  // 2 GiB that nobody touches
  CHECK(refusal([table](const Tensor& x) {
          return gather(table, cast(x, i64));
        }).find("m.onnx: the model takes 2.0 GiB, an ONNX file holds less than 2") != std::string::npos);
  Sequential net({4}, {Dense(2)});
  CHECK_THROWS_AS(export_onnx(net, "/nonexistent/m.onnx", {4}), IoError);
}

namespace {

/// The ops that run and have no row, outside of compositions that have one.
std::set<std::string> without_row(const std::function<void()>& f) {
  struct Missing : Observer {
    void ran(const OpEvent& e) override {
      if (!inside && !detail::onnx_row(e.op)) ops.emplace(e.op);
    }
    void enters_composition(std::string_view name) override { inside += inside || detail::onnx_row(name); }
    void leaves_composition() override { inside -= inside > 0; }
    int inside = 0;
    std::set<std::string> ops;
  } missing;
  f();
  return missing.ops;
}

}  // namespace

TEST_CASE("onnx: each op is written, or its row in the table of ops says why not") {
  using namespace ebb::testing;
  const NoGrad quiet;
  const auto expect = [](const std::string& name, const std::string& why_not, const std::set<std::string>& missing) {
    for (const std::string& op : missing)
      CHECK_MESSAGE(!why_not.empty(), name << ": ONNX: no row of \"" << op
                                           << "\"; add one to `rows` in models/exchange/onnx_ops.cpp, such as {\"" << op
                                           << "\", \"Abs\", elementwise}, or say why not in the row of " << name
                                           << " in apps/gradcheck/op_table_*.cpp: {\"" << name << "\", {\"torch."
                                           << name << "(x)\", \"opset 13 has no such op\"}, ...}");
    if (missing.empty())
      CHECK_MESSAGE(why_not.empty(),
                    name << ": is written as ONNX; its row in apps/gradcheck/op_table_*.cpp says not: " << why_not);
  };
  std::set<std::string> with_row;
  for (const Row& row : rows()) {
    with_row.insert(row.name);
    expect(row.name, row.elsewhere.no_onnx,
           without_row([&] { row.function(row.cases[0])(inputs_for(row, row.cases[0])); }));
  }
  for (const ValueRow& row : value_rows())
    if (!with_row.contains(row.name) && row.no_onnx.empty()) expect(row.name, "", without_row([&] { row.f(); }));
}
