#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/architecture.h>
#include <ebb/models/fit.h>
#include <ebb/models/safetensors.h>
#include <ebb/models/serialize.h>
#include <ebb/models/version.h>
#include <ebb/ops/ops.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace {

using namespace ebb;
namespace fs = std::filesystem;

/// A module with parameters of both types and a buffer.
struct Mixed : Module {
  Dense head{3};
  Tensor wide = variable(tensor({1, 2}, f64), "wide");
  Tensor mean = tensor({0.25, -0.5});
  Tensor forward(const Tensor& x) override { return head(x); }
  void visit(Visitor& v) override {
    v("head", head);
    v("wide", wide);
    v.buffer("mean", mean);
  }
};

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

const std::string text = "conv 4 3 relu, pool 2, flatten, dropout 0.5, dense 5 tanh, dense 3";

template <class E, class F>
std::string message(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("serialize: save and load give the same bits") {
  const TempDir dir;
  manual_seed(31);
  Mixed net, other;
  build(net, {4});
  build(other, {4});
  net.head.bias.mutable_values<float>()[0] = -0.0f;
  net.head.bias.mutable_values<float>()[1] = 1e-42f;  // not normal
  save(net, dir / "net.safetensors", {{"note", "two\nlines"}});
  other.mean = tensor({7, 7});
  REQUIRE_FALSE(same(values_of(net), values_of(other)));
  const Ref<Node> node = other.head.weight.node();
  load(other, dir / "net.safetensors");
  CHECK(same(values_of(net), values_of(other)));
  CHECK(other.head.weight.node() == node);  // values only: optimisers and graphs know the parameter still
  CHECK(other.head.weight.storage() != net.head.weight.storage());

  const SafeTensors file = read_safetensors(dir / "net.safetensors");
  std::vector<std::string> names;
  for (const auto& [name, _] : file.tensors) names.push_back(name);
  CHECK(names == std::vector<std::string>{"head.bias", "head.weight", "mean", "wide"});
  CHECK(file.metadata == Metadata{{"ebb.version", version()}, {"note", "two\nlines"}});
  CHECK(file.tensors.at("wide").dtype() == f64);
}

TEST_CASE("serialize: frozen parameters are saved and loaded too") {
  const TempDir dir;
  Mixed net, other;
  build(net, {4});
  build(other, {4});
  freeze(net);
  freeze(other);
  save(net, dir / "f");
  load(other, dir / "f");
  CHECK(same(values_of(net), values_of(other)));
  CHECK_FALSE(other.head.weight.tracked());
}

TEST_CASE("serialize: load names all that does not fit and changes nothing") {
  const TempDir dir;
  Sequential from({4}, {Dense(3), Dense(2)});
  save(from, dir / "f");
  const std::string path = (dir / "f").string();

  Sequential to({4}, {Dense(5), relu, Dense({.units = 2, .use_bias = false})});
  const auto before = values_of(to);
  CHECK(message<ShapeError>([&] { load(to, path); }) ==
        path +
            ": layers.0.weight is float32 (4, 3), the model has float32 (4, 5); "
            "layers.0.bias is float32 (3,), the model has float32 (5,); layers.2.weight is missing; "
            "layers.1.bias is extra; layers.1.weight is extra");
  CHECK(same(values_of(to), before));

  // The first of these fits: it must not have been copied.
  Sequential partly({4}, {Dense(3), Dense(3)});
  const auto untouched = values_of(partly);
  CHECK(message<ShapeError>([&] { load(partly, path); }) ==
        path +
            ": layers.1.weight is float32 (3, 2), the model has float32 (3, 3); "
            "layers.1.bias is float32 (2,), the model has float32 (3,)");
  CHECK(same(values_of(partly), untouched));

  Sequential wide({Dense(3), Dense(2)});
  build(wide, {4}, f64);
  CHECK(message<ShapeError>([&] {
          load(wide, path);
        }).rfind(path + ": layers.0.weight is float32 (4, 3), the model has float64 (4, 3); ", 0) == 0);

  Sequential unbuilt({Dense(3)});
  CHECK(message<ShapeError>([&] { load(unbuilt, path); }) ==
        path +
            ": layers.0.bias is extra; layers.0.weight is extra; layers.1.bias is extra; layers.1.weight is "
            "extra");
}

TEST_CASE("serialize: files that are none") {
  const TempDir dir;
  Sequential net({4}, {Dense(3)});
  const std::string path = (dir / "f").string();
  CHECK(message<IoError>([&] { load(net, path); }) == path + ": cannot read: No such file or directory");
  std::ofstream(path) << "not a model at all";
  CHECK(message<DataError>([&] { load(net, path); }).rfind(path + ": header too large: ", 0) == 0);
  CHECK(message<DataError>([&] { load_model(path); }).rfind(path + ": header too large: ", 0) == 0);
  std::ofstream(path, std::ios::trunc) << "abc";
  CHECK(message<DataError>([&] { load_model(path); }) ==
        path + ": file too short: 3 bytes, the size of the header takes 8");
  CHECK(message<IoError>([&] { save(net, dir / "none" / "f"); }) ==
        (dir / "none" / "f").string() + ": cannot write: No such directory");
}

TEST_CASE("serialize: a saved model needs nothing else") {
  const TempDir dir;
  manual_seed(32);
  Sequential net({8, 8, 1}, parse_architecture(text));
  save_model(net, text, dir / "m", {{"scale", "0.5"}});
  manual_seed(33);
  SavedModel loaded = load_model(dir / "m");
  CHECK(loaded.architecture == text);
  CHECK(loaded.metadata == Metadata{{"ebb.architecture", text},
                                    {"ebb.input_shape", "8,8,1"},
                                    {"ebb.version", version()},
                                    {"scale", "0.5"}});
  REQUIRE(loaded.net.input_shape());
  CHECK(*loaded.net.input_shape() == Shape{8, 8, 1});
  CHECK(same(values_of(net), values_of(loaded.net)));
  manual_seed(34);
  const Tensor x = randn({20, 8, 8, 1});
  const Tensor y = predict(net, x);
  CHECK(same_bits(predict(loaded.net, x), y));
  CHECK(y.shape() == Shape{20, 3});

  // Weights of a model file load into a net of the same layers.
  Sequential again({8, 8, 1}, parse_architecture(text));
  load(again, dir / "m");
  CHECK(same_bits(predict(again, x), y));

  Sequential deferred({Dense(3)});
  CHECK_THROWS_WITH_AS(save_model(deferred, "dense 3", dir / "d"),
                       "save_model: the model has not seen its input shape", ValueError);
  CHECK_FALSE(fs::exists(dir / "d"));
}

TEST_CASE("serialize: model files that do not hold what they say") {
  const TempDir dir;
  const std::string path = (dir / "m").string();
  Sequential net({4}, {Dense(3)});
  const auto with = [&](const Metadata& metadata) {
    save(net, path, metadata);
    return message<DataError>([&] { load_model(path); });
  };
  CHECK(with({}) == path + ": holds no architecture (ebb.architecture is not in its metadata)");
  CHECK(with({{"ebb.architecture", "dense 3"}}) ==
        path + ": holds no architecture (ebb.input_shape is not in its metadata)");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4,x"}}) ==
        path + ": \"4,x\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "-4"}}) ==
        path + ": \"-4\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "0"}}) ==
        path + ": \"0\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "65537"}}) ==
        path + ": \"65537\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4;4"}}) ==
        path + ": \"4;4\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4,"}}) ==
        path + ": \"4,\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", ""}}) ==
        path + ": \"\" is no input shape");
  CHECK(with({{"ebb.architecture", "dense"}, {"ebb.input_shape", "4"}}) ==
        path + ": architecture: column 6: the number of units is missing\n  dense\n       ^");
  CHECK(with({{"ebb.architecture", "conv 3 3"}, {"ebb.input_shape", "4"}}) ==
        path + ": conv2d: Conv2D: needs an image batch (n, h, w, c), got (1, 4)");
  CHECK(with({{"ebb.architecture", "dense 5"}, {"ebb.input_shape", "4"}}) ==
        path +
            ": layers.0.weight is float32 (4, 3), the model has float32 (4, 5); "
            "layers.0.bias is float32 (3,), the model has float32 (5,)");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4"}}) == "nothing was thrown");
}

TEST_CASE("serialize: check_writable") {
  const TempDir dir;
  const std::string file = (dir / "f").string();
  CHECK_NOTHROW(check_writable(file, false));
  CHECK_FALSE(fs::exists(file));  // asking makes nothing

  std::ofstream(file) << "old";
  CHECK_THROWS_WITH_AS(check_writable(file, false),
                       (file + ": exists already; choose another name, or --force to overwrite it").c_str(),
                       IoError);
  CHECK_NOTHROW(check_writable(file, true));

  const std::string lost = (dir / "none" / "f").string(), under = (dir / "f" / "g").string();
  CHECK_THROWS_WITH_AS(check_writable(lost, false),
                       (lost + ": cannot write: No such file or directory").c_str(), IoError);
  CHECK_THROWS_WITH_AS(check_writable(under, false), (under + ": cannot write: Not a directory").c_str(),
                       IoError);
  CHECK_THROWS_WITH_AS(check_writable(dir.path(), true),
                       (dir.path().string() + ": cannot write: it is a folder").c_str(), IoError);

  if (::geteuid() == 0) return;  // the superuser may write anywhere
  ::chmod(file.c_str(), 0444);
  CHECK_THROWS_WITH_AS(check_writable(file, true), (file + ": cannot write: Permission denied").c_str(),
                       IoError);
  ::chmod(dir.path().c_str(), 0555);
  const std::string next = (dir / "next").string();
  CHECK_THROWS_WITH_AS(check_writable(next, true),
                       (next + ": cannot write: " + dir.path().string() + ": Permission denied").c_str(),
                       IoError);
  ::chmod(dir.path().c_str(), 0755);
}
