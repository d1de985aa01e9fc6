// Files that earlier versions saved, in tests/golden/VERSION: each still loads, gives the outputs of then, and trains
// on. To add those of a new version: EBB_WRITE_GOLDEN=tests/golden/VERSION ebb_tests -tc='golden*'.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers.h>
#include <ebb/models/train.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

namespace fs = std::filesystem;

/// A network, and how it is trained; inputs are of the network's input shape.
struct Golden {
  std::string name, architecture;
  Shape sample;
  std::string optimizer;
  OptimizerOptions options = {};
  bool averages = false;
};

std::vector<Golden> all_golden() {
  std::vector<Golden> all{
      {"images",
       "standardize, conv 4 3 same relu, batchnorm, pool 2, residual (conv 4 3 same), depthwise 3 same, "
       "groupnorm 2, concat (conv 2 1 | avgpool 3 stride 1 same), deconv 2 2 stride 2, spatialdropout 0.1, "
       "globalavgpool, dropout 0.1, dense 3",
       Shape{6, 6, 1},
       "adam",
       {},
       true},
      {"sequences",
       "embedding 8 4, position, attention 2, layernorm, lstm 3 sequences, gru 3 sequences, rnn 3, dense 3",
       Shape{5},
       "rmsprop",
       {{"momentum", 0.5}}}};
  for (const std::string& name : optimizer_names())
    all.push_back({"dense_" + name, "dense 4 tanh, dense 3", Shape{5}, name});
  return all;
}

/// Numbers that need no generator.
Dataset samples(const Golden& g) {
  const std::int64_t n = 12, size = g.sample.numel();
  std::vector<float> x;
  std::vector<std::int64_t> y;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < size; ++k)
      x.push_back(g.name == "sequences" ? static_cast<float>((i * 3 + k * 5) % 8)
                                        : static_cast<float>((i * 7 + k * 11) % 13) / 13 - 0.5f);
    y.push_back(i % 3);
  }
  return {Tensor::from(x, g.sample.inserted(0, n)), Tensor::from(y, {n})};
}

FitOptions how(int epochs, bool averages) {
  FitOptions o{.epochs = epochs, .batch = 4, .shuffle = false, .verbose = Verbose::silent};
  if (averages) o.callbacks.emplace_back(AverageWeights(0.5));
  return o;
}

void write(const fs::path& folder) {
  fs::create_directories(folder);
  for (const Golden& g : all_golden()) {
    manual_seed(1);
    Sequential net(g.sample, parse_architecture(g.architecture));
    const auto optimizer = make_optimizer(g.optimizer, g.options);
    const Dataset data = samples(g);
    History history = fit(net, *optimizer, data, how(2, g.averages));
    const fs::path file = folder / (g.name + ".safetensors");
    save_model(net, g.architecture, file, {}, {.optimizer = optimizer.get(), .history = &history});
    SavedModel saved = load_model(file);
    SafeTensors then;
    then.tensors["outputs"] = predict(saved.net, data);
    FitOptions on = how(3, g.averages);
    on.resume = saved.history;
    then.tensors["losses"] = Tensor::from(fit(saved.net, *saved.optimizer, data, on)["loss"], {3});
    then.tensors["outputs_after"] = predict(saved.net, data);
    write_safetensors(folder / (g.name + ".expected"), then);
  }
}

double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return max(abs(cast(a, f64) - cast(b, f64))).item();
}

}  // namespace

TEST_CASE("golden: files of every version load, give the outputs of then, and train on") {
  if (const char* folder = std::getenv("EBB_WRITE_GOLDEN")) write(folder);
  int files = 0;
  for (const auto& version : fs::directory_iterator(EBB_SOURCE_DIR "/tests/golden")) {
    for (const Golden& g : all_golden()) {
      const fs::path file = version.path() / (g.name + ".safetensors"),
                     expected = version.path() / (g.name + ".expected");
      if (!fs::exists(file)) continue;  // of an optimizer that is younger
      CAPTURE(file.string());
      ++files;
      const SafeTensors then = read_safetensors(expected);
      SavedModel saved = load_model(file);
      CHECK(saved.architecture == g.architecture);
      CHECK(saved.optimizer->name() == g.optimizer);
      CHECK(saved.history->epochs() == 2);
      CHECK(saved.optimizer->steps() == 6);
      const Dataset data = samples(g);
      CHECK(distance(predict(saved.net, data), then.tensors.at("outputs")) < 1e-5);  // processors differ by rounding
      FitOptions on = how(3, g.averages);
      on.resume = saved.history;
      const History history = fit(saved.net, *saved.optimizer, data, on);
      CHECK(distance(Tensor::from(history["loss"], {3}), then.tensors.at("losses")) < 1e-5);
      CHECK(distance(predict(saved.net, data), then.tensors.at("outputs_after")) < 1e-4);
    }
    int there = 0;
    for (const auto& entry : fs::directory_iterator(version.path()))
      there += entry.path().extension() == ".safetensors";
    CHECK_MESSAGE(files == there, "a file that no row reads");
    files = 0;
  }
}
