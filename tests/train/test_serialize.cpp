// Files of models and trainings, and trainings that go on from them.
// (over 400 lines because every way to cut a training is tried on the same nets and callbacks)
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/storage.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/files/version.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/train/fit.h>
#include <ebb/models/train/serialize.h>
#include <ebb/ops/ops.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <tuple>
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
  CHECK(other.head.weight.node() == node);  // values only: optimizers and graphs know the parameter still
  CHECK(other.head.weight.storage() != net.head.weight.storage());

  const SafeTensors file = read_safetensors(dir / "net.safetensors");
  std::vector<std::string> names;
  for (const auto& [name, _] : file.tensors) names.push_back(name);
  CHECK(names == std::vector<std::string>{"head.bias", "head.weight", "mean", "wide"});
  CHECK(file.metadata == Metadata{{"ebb.version", version()}, {"note", "two\nlines"}});
  CHECK(file.tensors.at("wide").dtype() == f64);
}

TEST_CASE("serialize: a module that is not built is neither written nor read") {
  const TempDir dir;
  Sequential bare({Flatten(), Dense(3)});
  const std::string what = ": layers.1.weight is not made yet: call build(module, sample shape), or the module, first";
  CHECK(message<ValueError>([&] { save(bare, dir / "f"); }) == "save" + what);
  CHECK(message<ValueError>([&] { model_contents(bare); }) == "save" + what);
  CHECK_FALSE(std::filesystem::exists(dir / "f"));
  Sequential built({4}, {Flatten(), Dense(3)});
  save(built, dir / "f");
  CHECK(message<ValueError>([&] { load(bare, dir / "f"); }) == "load" + what);
  CHECK(message<ValueError>([&] { save_model(bare, "flatten, dense 3", dir / "g"); }) ==
        "save_model: the model has not seen its input shape");
  build(bare, {4});
  load(bare, dir / "f");
  CHECK(same(values_of(bare), values_of(built)));
  Sequential none({Flatten(), relu});  // nothing to build
  save(none, dir / "n");
  load(none, dir / "n");
}

TEST_CASE("serialize: a frozen layer that has averages alone stays frozen") {
  const TempDir dir;
  const auto norm = [] { return BatchNormalization({.scale = false, .center = false}); };
  Sequential net({3}, {Dense(4), norm(), Residual({norm()}), Dense(2)});
  freeze(*net.layers()[2]);
  save_model(net, describe_architecture(net.layers()), dir / "m");
  SavedModel saved = load_model(dir / "m");
  CHECK_FALSE(saved.net.layers()[1]->frozen());
  const Tensor x = randn({6, 3});
  const auto before = values_of(saved.net);
  saved.net(x);
  const auto after = values_of(saved.net);
  std::size_t moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) moved += !same_bits(before[i], after[i]);
  CHECK(moved == 2);  // the averages of the one that is not frozen
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
  CHECK(message<ValueError>([&] { load(unbuilt, path); }) ==
        "load: layers.0.weight is not made yet: call build(module, sample shape), or the module, first");
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
  CHECK(
      loaded.metadata ==
      Metadata{{"ebb.architecture", text}, {"ebb.input_shape", "8,8,1"}, {"ebb.version", version()}, {"scale", "0.5"}});
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
  CHECK_THROWS_WITH_AS(save_model(deferred, "dense 3", dir / "d"), "save_model: the model has not seen its input shape",
                       ValueError);
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
        path + ": \"4,x\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "-4"}}) ==
        path + ": \"-4\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "0"}}) ==
        path + ": \"0\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "65537"}}) ==
        path + ": \"65537\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4;4"}}) ==
        path + ": \"4;4\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4,"}}) ==
        path + ": \"4,\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", ""}}) ==
        path + ": \"\" is not an input shape; expected sizes such as 28,28,1");
  CHECK(with({{"ebb.architecture", "dense"}, {"ebb.input_shape", "4"}}) ==
        path + ": architecture: column 6: the number of units is missing");
  CHECK(with({{"ebb.architecture", "conv 3 3"}, {"ebb.input_shape", "4"}}) ==
        path + ": layers.0: Conv2D: needs an image batch (n, h, w, c), got (0, 4)");
  CHECK(with({{"ebb.architecture", "dense 5"}, {"ebb.input_shape", "4"}}) ==
        path +
            ": layers.0.weight is float32 (4, 3), the model has float32 (4, 5); "
            "layers.0.bias is float32 (3,), the model has float32 (5,)");
  CHECK(with({{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4"}}) == "nothing was thrown");
}

TEST_CASE("serialize: a training is saved whole, and goes on with the same bits in another process' objects") {
  const TempDir dir;
  manual_seed(40);
  const Tensor x = randn({60, 8, 8, 1}), y = Tensor::from(std::vector<std::int64_t>(60, 1), {60});
  Tensor labels = y.clone();
  for (std::size_t i = 0; i < 60; ++i) labels.mutable_values<std::int64_t>()[i] = static_cast<std::int64_t>(i % 3);
  const Dataset data{x, labels};
  const auto options = [&](int epochs) {
    FitOptions o;
    o.epochs = epochs;
    o.batch = 16;  // four steps an epoch
    o.seed = 9;
    o.validation = data.slice(0, 20);
    o.verbose = Verbose::silent;
    return o;
  };
  for (const std::string& name : optimizer_names()) {
    CAPTURE(name);
    const OptimizerOptions given{{"lr", 0.01}, {"weight_decay", 0.1}};
    const auto fresh = [&] {
      manual_seed(41);
      return Sequential({8, 8, 1}, parse_architecture(text));
    };
    Sequential whole = fresh();
    const auto all = make_optimizer(name, given);
    all->set_groups({{.match = "bias", .lr_factor = 0.5, .decay = false}});
    const History want = fit(whole, *all, data, options(5));

    // Two epochs and three; and cut in the middle of an epoch.
    for (const int cut : {8, 10}) {
      CAPTURE(cut);
      Sequential net = fresh();
      const auto optimizer = make_optimizer(name, given);
      optimizer->set_groups({{.match = "bias", .lr_factor = 0.5, .decay = false}});
      FitOptions o = options(cut == 8 ? 2 : 5);
      int batches = 0;
      o.interrupted = [&] { return ++batches == cut && cut != 8; };
      const History part = fit(net, *optimizer, data, o);
      CHECK(part.epochs() == 2);
      save_model(net, text, dir / "t", {{"scale", "1"}}, {.optimizer = optimizer.get(), .history = &part});

      manual_seed(999);
      SavedModel saved = load_model(dir / "t");
      REQUIRE(saved.optimizer);
      REQUIRE(saved.history);
      CHECK(saved.optimizer->name() == name);
      CHECK(saved.optimizer->options() == optimizer->options());
      CHECK(saved.optimizer->steps() == cut);
      CHECK(saved.optimizer->groups().size() == 1);
      CHECK(saved.history->values == part.values);
      CHECK(saved.history->seconds == part.seconds);
      CHECK(saved.history->interrupted == part.interrupted);
      o = options(5);
      o.resume = saved.history;
      const History h = fit(saved.net, *saved.optimizer, data, o);
      CHECK(h.values == want.values);
      CHECK(same(values_of(saved.net), values_of(whole)));
    }
  }
}

TEST_CASE("serialize: a saved training is a model too, and one that was never trained can be saved") {
  const TempDir dir;
  Sequential net({4}, {Dense(3)});
  save_model(net, "dense 3", dir / "plain");
  const SavedModel plain = load_model(dir / "plain");
  CHECK_FALSE(plain.optimizer);
  CHECK_FALSE(plain.history);

  Adam adam;
  const History none;
  save_model(net, "dense 3", dir / "untrained", {}, {.optimizer = &adam, .history = &none});
  const SavedModel untrained = load_model(dir / "untrained");
  REQUIRE(untrained.optimizer);
  CHECK(untrained.optimizer->steps() == 0);
  CHECK(untrained.history->epochs() == 0);

  Gradients g;
  for (const NamedTensor& t : named_tensors(net)) g.add(t.tensor->node(), ones(t.tensor->shape()));
  adam.step(net, g);
  save_model(net, "dense 3", dir / "trained", {}, {.optimizer = &adam});
  CHECK(read_safetensors(dir / "trained").tensors.size() == 2 + 2 * 2);
  Sequential other({4}, {Dense(3)});
  load(other, dir / "trained");  // the model alone
  CHECK(same(values_of(other), values_of(net)));

  History h;  // numbers that JSON has not
  constexpr double inf = std::numeric_limits<double>::infinity();
  h.values["loss"] = {0.1, std::numeric_limits<double>::quiet_NaN(), inf, -inf};
  h.seconds = {1, 2, 3, 4};
  h.partial = {.batches = 2, .loss = inf, .correct = 0, .seen = 3, .classes = false, .seconds = 0.25};
  h.callbacks["mine"] = {.tensors = {{"a.b", tensor({1, 2})}}, .numbers = {{"x", -inf}, {"y", 0.1}}};
  h.weights["layers.0.bias"] = tensor({7, 8, 9});
  save_model(net, "dense 3", dir / "nan", {}, {.history = &h});
  const History back = *load_model(dir / "nan").history;
  CHECK(back["loss"][0] == 0.1);
  CHECK(std::isnan(back["loss"][1]));
  CHECK(back["loss"][2] == inf);
  CHECK(back["loss"][3] == -inf);
  CHECK(back.epochs() == 4);
  CHECK(back.partial.loss == inf);
  CHECK_FALSE(back.partial.classes);
  CHECK(back.partial.seconds == 0.25);
  CHECK(back.callbacks.at("mine").numbers == h.callbacks["mine"].numbers);
  CHECK(same_bits(back.callbacks.at("mine").tensors.at("a.b"), tensor({1, 2})));
  CHECK(same_bits(back.weights.at("layers.0.bias"), tensor({7, 8, 9})));
  CHECK(back.weights.size() == 1);
}

TEST_CASE("serialize: what is frozen stays frozen, and goes on training as it was") {
  const TempDir dir;
  manual_seed(50);
  const Dataset data{randn({40, 4}), Tensor::from(std::vector<std::int64_t>(40, 1), {40})};
  const auto fresh = [] {
    manual_seed(51);
    Sequential net({4}, parse_architecture("dense 5 relu, batchnorm, dense 3"));
    freeze(*net.layers()[0]);
    freeze(*net.layers()[1]);
    return net;
  };
  Sequential whole = fresh(), net = fresh();
  Adam all, some;
  fit(whole, all, data, {.epochs = 4, .verbose = Verbose::silent});
  const History half = fit(net, some, data, {.epochs = 2, .verbose = Verbose::silent});
  save_model(net, "dense 5 relu, batchnorm, dense 3", dir / "m", {}, {.optimizer = &some, .history = &half});
  SavedModel saved = load_model(dir / "m");
  std::vector<std::string> trained;
  for (const NamedTensor& t : named_parameters(saved.net)) trained.push_back(t.path);
  CHECK(trained == std::vector<std::string>{"layers.2.weight", "layers.2.bias"});
  fit(saved.net, *saved.optimizer, data, {.epochs = 4, .resume = saved.history, .verbose = Verbose::silent});
  CHECK(same(values_of(saved.net), values_of(whole)));

  SafeTensors file = read_safetensors(dir / "m");
  file.metadata["ebb.frozen"] = "[\"layers.7.bias\"]";
  write_safetensors(dir / "m", file);
  CHECK(message<DataError>([&] { load_model(dir / "m"); }) ==
        (dir / "m").string() + ": the training in it: frozen: the model has no parameter \"layers.7.bias\"");
}

namespace {

/// Remembers a number and a tensor over the epochs, and changes the training by them.
class Remembering : public CallbackBase {
 public:
  void train_begin(TrainingState&) override { sum_ = 0, mean_ = zeros({1}); }
  void batch_end(TrainingState& s) override {
    sum_ += s.loss + rand({1}).item();
    mean_ = mean_ * 0.5 + s.loss;
    s.optimizer.set_lr(0.01 + 0.001 * std::fmod(sum_ + mean_.item(), 1));
  }
  void epoch_begin(TrainingState& s) override { s.logs["drawn"] = sum_ += rand({1}).item(); }
  void epoch_end(TrainingState& s) override { s.logs["sum"] = sum_ += rand({1}).item(); }
  std::string_view name() const override { return "remembering"; }
  CallbackState state() const override { return {.tensors = {{"mean", mean_.clone()}}, .numbers = {{"sum", sum_}}}; }
  void set_state(const CallbackState& s) override { sum_ = s.numbers.at("sum"), mean_ = s.tensors.at("mean"); }

 private:
  double sum_ = 0;
  Tensor mean_;
};

}  // namespace

TEST_CASE("serialize: whatever callbacks remember, a training that is cut anywhere goes on to the same bits") {
  const TempDir dir;
  manual_seed(60);
  const Tensor x = randn({60, 6, 6, 1});
  Tensor labels = Tensor::from(std::vector<std::int64_t>(60, 0), {60});
  for (std::size_t i = 0; i < 60; ++i) labels.mutable_values<std::int64_t>()[i] = static_cast<std::int64_t>(i * i % 3);
  const Dataset data{x, labels};
  const std::string net_text = "conv 3 3, batchnorm, relu, flatten, dropout 0.3, dense 3";
  using Make = std::vector<Callback> (*)();
  const std::vector<std::pair<const char*, Make>> cases{
      {"none", [] { return std::vector<Callback>{}; }},
      {"best", [] { return std::vector<Callback>{EarlyStopping({.patience = 9, .restore_best = true})}; }},
      {"best of few", [] { return std::vector<Callback>{EarlyStopping({.patience = 1, .restore_best = true})}; }},
      {"averages", [] { return std::vector<Callback>{AverageWeights(0.9)}; }},
      {"best averages",
       [] {
         return std::vector<Callback>{AverageWeights(0.8), EarlyStopping({.patience = 9, .restore_best = true})};
       }},
      {"falling rate",
       [] { return std::vector<Callback>{ReduceLROnPlateau({.factor = 0.5, .patience = 1, .cooldown = 1})}; }},
      {"a rate by epochs",
       [] { return std::vector<Callback>{LearningRateScheduler([](int, double lr) { return lr * 0.7; })}; }},
      {"its own",
       [] {
         return std::vector<Callback>{Remembering(), Remembering()};
       }},
      {"all",
       [] {
         return std::vector<Callback>{AverageWeights(0.8), ReduceLROnPlateau({.factor = 0.5, .patience = 1}),
                                      Remembering(), EarlyStopping({.patience = 9, .restore_best = true})};
       }},
  };
  for (const auto& [name, callbacks] : cases) {
    CAPTURE(name);
    const auto options = [&, make = callbacks] {
      FitOptions o;
      o.epochs = 6;
      o.batch = 10;  // four steps an epoch
      o.seed = 3;
      o.validation_split = 1.0 / 3;
      o.callbacks = make();
      o.verbose = Verbose::silent;
      return o;
    };
    const auto fresh = [&] {
      manual_seed(61);
      return Sequential({6, 6, 1}, parse_architecture(net_text));
    };
    const auto same_maps = [](const TensorMap& a, const TensorMap& b) {
      bool all = a.size() == b.size();
      for (const auto& [path, t] : a) all = all && b.contains(path) && same_bits(t, b.at(path));
      return all;
    };
    Sequential whole = fresh();
    Adam all({.lr = 0.05});
    const History want = fit(whole, all, data, options());
    for (const int cut : {1, 4, 6, 8, 11, 16, 23}) {
      CAPTURE(cut);
      Sequential net = fresh();
      Adam adam({.lr = 0.05});
      FitOptions o = options();
      // At the end of fit, and from within as a checkpoint is written.
      int batches = 0;
      o.interrupted = [&] { return ++batches == cut; };
      struct Checkpoint : CallbackBase {
        Checkpoint(Sequential& n, const std::string& t, std::filesystem::path p, int at)
            : net_(n), text_(t), path_(std::move(p)), at_(at) {}
        void batch_end(TrainingState& s) override {
          if (s.optimizer.steps() != at_) return;
          const History record = s.record();
          save_model(net_, text_, path_, {}, {.optimizer = &s.optimizer, .history = &record, .chosen = s.chosen()});
        }
        Sequential& net_;
        const std::string& text_;
        std::filesystem::path path_;
        int at_;
      };
      o.callbacks.emplace_back(Checkpoint(net, net_text, dir / "within", cut));
      const History part = fit(net, adam, data, o);
      save_model(net, net_text, dir / "end", {}, {.optimizer = &adam, .history = &part});
      for (const std::string file : {"end", "within"}) {
        CAPTURE(file);
        if (file == "within" && !part.interrupted) continue;  // it had stopped before
        manual_seed(999);
        SavedModel saved = load_model(dir / file);
        CHECK(same(values_of(saved.net), values_of(net)));  // the model to use, whoever wrote it
        o = options();
        o.resume = saved.history;
        const History h = fit(saved.net, *saved.optimizer, data, o);
        CHECK(h.values == want.values);
        CHECK(same(values_of(saved.net), values_of(whole)));
        CHECK(same_maps(h.weights, want.weights));
        CHECK(saved.optimizer->lr() == all.lr());
      }
    }
  }
}

TEST_CASE("serialize: files of before have no state of callbacks, and still load") {
  const TempDir dir;
  Sequential net({4}, {Dense(3)});
  SafeTensors file;
  for (const NamedTensor& t : named_tensors(net)) file.tensors[t.path] = t.tensor->detach();
  for (const char* path : {"layers.0.weight", "layers.0.bias"})
    file.tensors[std::string("optimizer.0.") + path] = zeros_like(file.tensors[path]);
  file.metadata = {
      {"ebb.architecture", "dense 3"},
      {"ebb.input_shape", "4"},
      {"ebb.version", "0.1.0"},
      {"ebb.optimizer",
       R"({"name":"lion","options":{"beta1":0.9,"beta2":0.99,"lr":0.001,"weight_decay":0.0},"steps":3,"groups":[]})"},
      {"ebb.history",
       R"({"values":{"loss":[0.5,null]},"seconds":[1.0,2.0],"interrupted":true,"partial":{"batches":1,"loss":0.5,"correct":1,"seen":2}})"}};
  write_safetensors(dir / "old", file);
  const SavedModel saved = load_model(dir / "old");
  CHECK(saved.optimizer->steps() == 3);
  CHECK(saved.history->values.at("loss")[0] == 0.5);
  CHECK(std::isnan(saved.history->values.at("loss")[1]));
  CHECK(saved.history->partial.batches == 1);
  CHECK(saved.history->partial.classes);
  CHECK(saved.history->callbacks.empty());
  CHECK(saved.history->weights.empty());
  CHECK(named_parameters(const_cast<Sequential&>(saved.net)).size() == 2);
}

TEST_CASE("serialize: a small file that asks for a large model takes no memory") {
  const TempDir dir;
  const auto says = [&](const std::string& architecture, const std::string& input) {
    write_safetensors(dir / "m", {.metadata = {{"ebb.architecture", architecture}, {"ebb.input_shape", input}},
                                  .tensors = {{"layers.0.weight", zeros({4, 3})}}});
    reset_peak_memory();
    const std::size_t before = memory_stats().in_use;
    const std::string text = message<DataError>([&] { load_model(dir / "m"); });
    CHECK(memory_stats().peak - before < std::size_t{17} << 20);
    CHECK(text.find('\n') == std::string::npos);
    const std::string prefix = (dir / "m").string() + ": ";
    return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
  };
  CHECK(says("dense 30000, dense 30000", "784") ==
        "layers.0: build: a tensor (784, 30000) more is needed, the file has 4194316 elements left");
  for (const auto& [architecture, input] :
       std::map<std::string, std::string>{{"conv 1 1 stride 1, dense 1000000", "65536,65536,1"},
                                          {"deconv 1 1 stride 100000, conv 4 4", "28,28,1"},
                                          {"embedding 1000000 1000", "4"},
                                          {"flatten, batchnorm noscale nocenter", "65536,65536"},
                                          {"standardize", "65536,65536"},
                                          {"attention 1 causal", "65536,4"},
                                          {"residual (dense 1000000, dense 4)", "4"},
                                          {"concat (dense 9 | gru 100000)", "4,4"},
                                          {"position", "65536,65536"},
                                          {"reshape 5", "4"},
                                          {"residual (", "1"}})
    CHECK(says(architecture, input) != "nothing was thrown");
}

TEST_CASE("serialize: every kind of layer is built from a file without a sample") {
  const TempDir dir;
  for (
      const auto& [architecture, shape] : std::vector<std::pair<std::string, Shape>>{
          {"conv 4 3 same relu, depthwise 3, pool 2, avgpool 2, deconv 2 2, groupnorm 2, spatialdropout 0.5, "
           "globalavgpool, dense 3",
           {16, 16, 2}},
          {"conv 4 3 groups 2, batchnorm, globalmaxpool, layernorm, reshape 2 2, flatten, dropout 0.5, dense 3 softmax",
           {8, 8, 2}},
          {"embedding 9 4, position, attention 2 causal, lstm 3 sequences, gru 3 sequences, rnn 3, standardize, dense "
           "2",
           {5}},
          {"residual (conv 2 3 same, batchnorm | conv 2 1), concat (conv 1 1 | pool 3 stride 1 same), flatten, dense 2",
           {6, 6, 2}}}) {
    CAPTURE(architecture);
    manual_seed(3);
    Sequential net(shape, parse_architecture(architecture));
    save_model(net, architecture, dir / "m");
    SavedModel saved = load_model(dir / "m");
    const Tensor x = architecture.starts_with("embedding") ? ones(shape.inserted(0, 2)) : randn(shape.inserted(0, 2));
    const NoGrad quiet;  // and no dropout
    CHECK(same_bits(net(x), saved.net(x)));
    saved.net.add(Dense(2));  // which is built with a sample again
    CHECK(saved.net(x).shape().at(-1) == 2);
  }
}

TEST_CASE("serialize: options of optimizers are read by their names of before") {
  const TempDir dir;
  Sequential net({4}, {Dense(3)});
  SafeTensors file = model_contents(net);
  file.metadata = {{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4"}};
  for (const auto& [name, before, now] :
       {std::tuple{"adagrad", R"("start":0.5,"eps":0.25)",
                   OptimizerOptions{{"initial_accumulator_value", 0.5}, {"epsilon", 0.25}}},
        std::tuple{"adam", R"("eps":0.25)", OptimizerOptions{{"epsilon", 0.25}}},
        std::tuple{"rmsprop", R"("eps":0.25,"eps_inside_sqrt":0)",
                   OptimizerOptions{{"epsilon", 0.25}, {"epsilon_inside_sqrt", 0}}}}) {
    CAPTURE(name);
    file.metadata["ebb.optimizer"] =
        std::string(R"({"name":")") + name + R"(","options":{"lr":0.5,)" + before + R"(},"steps":7,"groups":[]})";
    write_safetensors(dir / "m", file);
    const SavedModel saved = load_model(dir / "m");
    OptimizerOptions options = saved.optimizer->options();
    for (const auto& [option, value] : now) CHECK(options.at(option) == value);
    CHECK(options.at("lr") == 0.5);
    CHECK_FALSE(options.contains("eps"));
    CHECK(saved.optimizer->steps() == 7);
    save_model(net, "dense 3", dir / "again", {}, {.optimizer = saved.optimizer.get()});
    CHECK(load_model(dir / "again").optimizer->options() == options);
  }
}

TEST_CASE("serialize: trainings that do not fit their model") {
  const TempDir dir;
  const std::string path = (dir / "m").string();
  Sequential net({4}, {Dense(3)});
  const auto with = [&](const Metadata& more, const std::map<std::string, Tensor>& tensors = {}) {
    SafeTensors file;
    for (const NamedTensor& t : named_tensors(net)) file.tensors[t.path] = t.tensor->detach();
    for (const auto& [name, t] : tensors) file.tensors[name] = t;
    file.metadata = {{"ebb.architecture", "dense 3"}, {"ebb.input_shape", "4"}};
    file.metadata.insert(more.begin(), more.end());
    write_safetensors(path, file);
    return message<DataError>([&] { load_model(path); });
  };
  const auto optimizer = [](const std::string& name, const std::string& options = "{}",
                            const std::string& steps = "1") {
    return Metadata{{"ebb.optimizer",
                     "{\"name\":\"" + name + "\",\"options\":" + options + ",\"steps\":" + steps + ",\"groups\":[]}"}};
  };
  const std::string in = path + ": the training in it: ";
  CHECK(with(optimizer("lion"), {{"optimizer.0.layers.0.weight", zeros({4, 3})}}) == "nothing was thrown");
  CHECK(with(optimizer("lien")) ==
        in + "unknown optimizer \"lien\"; expected one of sgd, rmsprop, adam, adamw, nadam, adagrad, lion");
  CHECK(with(optimizer("lion", "{\"momentum\":1}")) ==
        in + "lion: unknown option \"momentum\"; expected one of lr, beta1, beta2, weight_decay");
  CHECK(with(optimizer("lion", "{}", "-1")) ==
        in + "steps: expected a whole number from 0 to 9007199254740992, found -1");
  CHECK(with(optimizer("lion", "{}", "1.5")) ==
        in + "steps: expected a whole number from 0 to 9007199254740992, found 1.5");
  CHECK(with(optimizer("lion", "{}", "1e300")) ==
        in + "steps: expected a whole number from 0 to 9007199254740992, found 1e+300");
  CHECK(with(optimizer("lion", "{}", "18446744073709551615")) ==
        in + "steps: expected a whole number from 0 to 9007199254740992, found 18446744073709551615");
  CHECK(with(optimizer("lion", "{\"lr\":\"x\"}")) == in + "lr: expected a number, found \"x\"");
  CHECK(with(optimizer("lion", "{\"lr\":1,\"lr\":2}")) == in + "duplicate key \"lr\"");
  CHECK(with(optimizer("lion"), {{"optimizer.0.layers.0.weight", zeros({3})}}) ==
        in + "lion: the state float32 (3,) does not fit the parameter float32 (4, 3)");
  CHECK(with(optimizer("adam"), {{"optimizer.0.layers.0.weight", zeros({4, 3})}}) ==
        in + "adam: keeps 2 tensors for a parameter, got 1");
  CHECK(with(optimizer("lion"), {{"optimizer.0.layers.7.weight", zeros({4, 3})}}) ==
        in + "1 tensors of optimizer state, 0 belong to parameters");
  CHECK(with({{"ebb.optimizer", "{"}}).starts_with(in));
  CHECK(with({{"ebb.optimizer", "{\"name\":3}"}}).starts_with(in));
  CHECK(with({{"ebb.history", "[]"}}).starts_with(in));
  CHECK(with({{"ebb.history", "{\"values\":{\"loss\":\"x\"}}"}}).starts_with(in));
  const auto history = [&](const std::string& values, const std::string& seconds,
                           const std::string& partial = R"("batches":0,"loss":0,"correct":0,"seen":0)",
                           const std::string& interrupted = "false") {
    const std::string says =
        with({{"ebb.history", "{\"values\":{" + values + "},\"seconds\":[" + seconds +
                                  "],\"interrupted\":" + interrupted + ",\"partial\":{" + partial + "}}"}});
    return says.starts_with(in) ? says.substr(in.size()) : says;
  };
  CHECK(history(R"("loss":[1,2],"val_loss":[null])", "1,2") == "nothing was thrown");
  CHECK(history(R"("loss":[])", "1,1,1") ==
        "loss: expected 3 numbers, one for each epoch, found 0");  // crashed --resume
  CHECK(history(R"("loss":[1])", "1,1") == "loss: expected 2 numbers, one for each epoch, found 1");
  CHECK(history(R"("loss":[1],"lr":[1,2])", "1") == "lr: expected 1 numbers, one for each epoch, found 2");
  CHECK(history(R"("loss":[1],"lr":[])", "1") == "lr: expected 1 numbers, one for each epoch, found 0");
  CHECK(history(R"("loss":{"a":1})", "1") == "loss: expected a list of numbers, found object");
  CHECK(history(R"("loss":["x"])", "1") == "loss: expected a number, found \"x\"");
  CHECK(history(R"("loss":[1],"loss":[1])", "1") == "duplicate key \"loss\"");
  CHECK(history(R"("loss":[1])", "-1") == "seconds: an epoch took -1, expected at least 0");
  CHECK(history(R"("loss":[1])", "1", R"("batches":1.5,"loss":0,"correct":0,"seen":0)")
            .starts_with("batches: expected a whole number"));
  CHECK(history(R"("loss":[1])", "1", R"("batches":1,"loss":0,"correct":0,"seen":-5)")
            .starts_with("seen: expected a whole number from 0"));
  CHECK(history(R"("loss":[1])", "1", R"("batches":1e300,"loss":0,"correct":0,"seen":0)")
            .starts_with("batches: expected a whole number"));
  CHECK(history(R"("loss":[1])", "1", R"("batches":1,"loss":0,"correct":2,"seen":1)") == "correct: 2 of 1 samples");
  CHECK(history(R"("loss":[1])", "1", R"("batches":1,"loss":0,"seen":1)") == "correct is missing");
  CHECK(history(R"("loss":[1])", "1", "", "1") == "interrupted: expected true or false, found 1");
  CHECK(with({{"ebb.history", std::string(100'000, '[')}}) == in + "JSON more than 8 deep");
  std::string keys;
  for (int i = 0; i < 60'000; ++i) keys += (i ? ",\"" : "\"") + std::to_string(i) + "\":[1]";
  CHECK(history(keys, "1") == "nothing was thrown");  // took quadratic time
  // Without an optimizer there is no state to belong to one.
  CHECK(with({}, {{"optimizer.0.layers.0.weight", zeros({4, 3})}}) == path + ": optimizer.0.layers.0.weight is extra");
}
