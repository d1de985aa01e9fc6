// Trainings of the program mnist that are cut short and go on: to the same bits with every option, from every
// checkpoint.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: resume") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <ebb/models/files/safetensors.h>
#include <ebb/models/train/serialize.h>

#include <nlohmann/json.hpp>

#include <thread>

#include "run_mnist.h"

using namespace cli;
using nlohmann::json;

namespace {

/// Empty when two training files hold the same bits: tensors, history, state of the optimizer.
std::string difference(const fs::path& a, const fs::path& b) {
  const ebb::SafeTensors x = ebb::read_safetensors(a), y = ebb::read_safetensors(b);
  for (const auto& [name, t] : x.tensors)
    if (!y.tensors.contains(name) || !ebb::same_bits(t, y.tensors.at(name))) return name;
  if (x.tensors.size() != y.tensors.size()) return "more tensors";
  const json p = json::parse(x.metadata.at("ebb.history")), q = json::parse(y.metadata.at("ebb.history"));
  if (p.at("values") != q.at("values")) return "history " + p.at("values").dump() + " against " + q.at("values").dump();
  if (p.at("callbacks") != q.at("callbacks")) return "callbacks";
  return x.metadata.at("ebb.optimizer") == y.metadata.at("ebb.optimizer") ? "" : "optimizer";
}

}  // namespace

TEST_CASE(
    "mnist: with every option, a training that goes on from any checkpoint ends with the bits of one that was not "
    "cut") {
  Mnist mnist;
  const std::string data = mnist.digits(), small = "flatten, dense 8 relu, dropout 0.3, dense 10";
  struct Row {
    const char* name;
    Args options;
  };
  const std::vector<Row> rows{
      {"sgd", {"--optimizer", "sgd", "--lr", "0.1"}},
      {"sgd, momentum", {"--optimizer", "sgd", "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "0.01"}},
      {"rmsprop", {"--optimizer", "rmsprop", "--momentum", "0.5", "--rmsprop-eps", "outside"}},
      {"adamw", {"--optimizer", "adamw", "--schedule", "cosine", "--warmup", "1"}},
      {"nadam", {"--optimizer", "nadam", "--schedule", "exponential", "--clip-norm", "1"}},
      {"adagrad", {"--optimizer", "adagrad", "--schedule", "step", "--clip-value", "0.01"}},
      {"lion", {"--optimizer", "lion", "--schedule", "one-cycle"}},
      {"reduce-lr", {"--reduce-lr", "1", "--validation-split", "0.25", "--lr", "0.2"}},
      {"early stopping", {"--early-stopping", "1", "--min-delta", "0.05", "--validation-split", "0.25", "--lr", "0.2"}},
      {"restore best", {"--early-stopping", "9", "--restore-best", "--validation-split", "0.25", "--lr", "0.5"}},
      {"restore best, stopped",
       {"--early-stopping", "1", "--restore-best", "--validation", "test", "--lr", "0.5", "--monitor", "val_accuracy"}},
      {"ema", {"--ema", "0.9", "--validation-split", "0.25"}},
      {"ema, restore best, reduce-lr",
       {"--ema", "0.8", "--early-stopping", "9", "--restore-best", "--reduce-lr", "1", "--validation-split", "0.25",
        "--lr", "0.5"}},
      {"augment", {"--augment", "--limit", "300"}},
      {"augment of two kinds", {"--augment", "shift 1, rotate 5", "--raw"}},
      {"class weights, a new split",
       {"--class-weight", "balanced", "--test-size", "0.25", "--split-seed", "4", "--stratify"}},
      {"smoothed labels", {"--label-smoothing", "0.1", "--seed", "18446744073709551615"}},
      {"no hidden layer", {"--model", "mlp", "--layers", ""}},
      {"cnn", {"--model", "cnn", "--filters", "2,2", "--layers", "4", "--dropout", "0.2", "--limit", "96"}},
      {"batchnorm, gru",
       {"--arch", "conv 2 3, batchnorm, relu, pool 2, reshape 13 26, gru 4, dense 10", "--limit", "128"}},
      {"best",
       {"--model", "best", "--epochs", "2", "--limit", "64", "--batch", "16", "--ema", "0.9", "--test-size", "64"}},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    Args train{"train", "--data", data, "--quiet"};
    const auto given = [&](const char* option) { return std::ranges::find(row.options, option) != row.options.end(); };
    if (!given("--model") && !given("--arch")) train = joined(train, {"--arch", small});
    if (!given("--epochs")) train = joined(train, {"--epochs", "4"});
    if (!given("--batch")) train = joined(train, {"--batch", "32"});
    train = joined(train, row.options);
    const auto file = [&](const char* name) { return mnist / name; };
    for (const auto& entry : fs::directory_iterator(mnist.files()))
      if (entry.is_regular_file()) fs::remove(entry);
    const auto run = [&](const Args& args) {
      const Result r = mnist(args);
      CAPTURE(r);
      REQUIRE(r.code == 0);
    };
    run(joined(train, {"--save", file("whole").string()}));
    // Checkpoints in the middle of epochs and at their ends, the older ones too; they disturb nothing.
    for (const Args& every :
         {Args{"--checkpoint-every", "3steps", "--keep", "99"}, Args{"--checkpoint-every", "1", "--keep", "99"}}) {
      CAPTURE(every[1]);
      run(joined(train, joined({"--save", file("cut").string(), "--force"}, every)));
      CHECK(difference(file("whole"), file("cut")) == "");
      int files = 0;
      while (fs::exists(mnist / ("cut." + std::to_string(files + 1)))) ++files;
      const fs::path middle = mnist / ("cut." + std::to_string((files + 1) / 2));
      REQUIRE(files > 0);
      run({"train", "--resume", middle.string(), "--data", data, "--quiet", "--threads", "1"});
      CHECK(difference(file("whole"), middle) == "");
      for (; files > 0; --files) fs::remove(mnist / ("cut." + std::to_string(files)));
    }
  }
}

TEST_CASE(
    "mnist: what a file of a training gives to use is the best or the averaged model, also in the middle of an epoch") {
  Mnist mnist;
  const std::string data = mnist.digits();
  const auto loss = [&](const fs::path& file) {
    const Result r = mnist({"evaluate", file.string(), "--data", data, "--json"});
    CAPTURE(r);
    REQUIRE(r.code == 0);
    return json::parse(r.out).at("test_loss").get<double>();
  };
  const Args train{"train", "--data", data,           "--arch", "flatten, dense 10", "--epochs", "4", "--batch", "64",
                   "--lr",  "0.5",    "--validation", "test",   "--quiet",           "--json"};
  // Three of four steps into the fourth epoch, the best epoch is one of the three before.
  const Result best = mnist(joined(train, {"--early-stopping", "9", "--restore-best", "--checkpoint-every", "31steps",
                                           "--keep", "2", "--save", (mnist / "best").string()}));
  REQUIRE(best.code == 0);
  const auto losses = json::parse(best.out).at("history").at("val_loss").get<std::vector<double> >();
  CHECK(loss(mnist / "best") == *std::ranges::min_element(losses));
  const Result early = mnist(joined(train, {"--early-stopping", "9", "--restore-best", "--checkpoint-every", "13steps",
                                            "--keep", "9", "--save", (mnist / "early").string()}));
  REQUIRE(early.code == 0);
  CHECK(loss(mnist / "early.1") ==
        losses[0]);  // after 13 of 8 and 8 steps; the last one, after 26, gave way to the end
  const ebb::SavedModel saved = ebb::load_model(mnist / "early.1");
  CHECK(saved.optimizer->steps() == 13);
  CHECK(saved.history->weights.size() == 2);
}

TEST_CASE("mnist: a training goes on with the network it began with, whatever has become of the file of --arch") {
  Mnist mnist;
  const std::string arch = (mnist / "net.json").string(), model = (mnist / "m").string(), data = mnist.digits();
  std::ofstream(arch)
      << R"([{"layer": "flatten"}, {"layer": "dense", "units": 8, "activation": "relu"}, {"layer": "dense", "units": 10}])";
  REQUIRE(mnist({"train", "--data", data, "--epochs", "1", "--arch", arch, "--save", model}).code == 0);
  const std::string text = ebb::load_model(model).architecture;
  ebb::SafeTensors old = ebb::read_safetensors(model);  // as earlier versions kept it
  json words = json::parse(old.metadata.at("mnist.options"));
  for (json& word : words)
    if (word.get<std::string>().starts_with("--arch=")) word = "--arch=" + arch;
  old.metadata["mnist.options"] = words.dump();
  const std::string before = (mnist / "before").string();
  ebb::write_safetensors(before, old);
  std::ofstream(arch)
      << R"([{"layer": "flatten"}, {"layer": "dense", "units": 9, "activation": "tanh"}, {"layer": "dense", "units": 10}])";
  for (const std::string& file : {model, before}) {
    CAPTURE(file);
    const Result r = mnist({"train", "--data", data, "--resume", file, "--epochs", "2"});
    CAPTURE(r);
    CHECK(r.code == 0);
    CHECK(ebb::load_model(file).architecture == text);
    CHECK(mnist({"verify", file, "--data", data}).code == 0);
  }
  fs::remove(arch);
  CHECK(mnist({"train", "--data", data, "--resume", model, "--epochs", "3"}).code == 0);
}

TEST_CASE("mnist: checkpoints by time and steps, kept in number") {
  Mnist mnist;
  const std::string model = (mnist / "m.safetensors").string(), data = mnist.digits();
  const Args train{"train", "--data", data,  "--arch", "flatten, dense 10", "--epochs", "3", "--batch",
                   "64",    "--save", model, "--force"};
  const Result r = mnist(joined(train, {"--checkpoint-every", "4steps", "--keep", "3"}));
  CAPTURE(r);
  REQUIRE(r.code == 0);
  CHECK(names_in(mnist.files()) == Args{"digits", "m.1.safetensors", "m.2.safetensors", "m.safetensors"});
  CHECK(ebb::load_model(mnist / "m.1.safetensors").optimizer->steps() == 20);
  CHECK(ebb::load_model(mnist / "m.2.safetensors").optimizer->steps() == 16);
  CHECK(mnist(joined(train, {"--checkpoint-every", "1h"})).code == 0);
  check_usage_error(mnist(joined(train, {"--checkpoint-every", "5 minutes"})),
                    "--checkpoint-every: interval: must be a number of epochs");
  check_usage_error(mnist(joined(train, {"--keep", "3"})), "--keep belongs to --checkpoint-every");
  check_usage_error(mnist(joined(train, {"--keep", "0", "--checkpoint-every", "1"})),
                    "--keep must be a whole number from 1 to 1000, got 0");

  // Killed at once, it goes on from the file.
  const Result killed = mnist({"train", "--data", data, "--arch", "flatten, dense 10", "--epochs", "100000", "--save",
                               (mnist / "k").string(), "--checkpoint-every", "1step"},
                              {.signal = SIGKILL, .when = "Epoch 3/"});
  CHECK(killed.code == -SIGKILL);
  CHECK(ebb::load_model(mnist / "k").history->epochs() >= 2);
}

TEST_CASE("mnist: a checkpoint that fails is told, and training goes on, one that cannot be is told before") {
  Mnist mnist;
  const fs::path file = mnist / "m", older = mnist / "m.1";
  const Args train{"train",
                   "--data",
                   mnist.digits(),
                   "--arch",
                   "flatten, dense 10",
                   "--epochs",
                   "300",
                   "--save",
                   file.string(),
                   "--checkpoint-every",
                   "1",
                   "--keep",
                   "2",
                   "--quiet"};
  std::thread in_the_way([&] {
    std::error_code none;
    while (!fs::exists(file, none)) std::this_thread::yield();
    while (!fs::create_directories(older / "in the way", none)) fs::remove(older, none);
  });
  const Result r = mnist(train);
  in_the_way.join();
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(r.err.find("mnist: warning: a checkpoint failed: " + older.string() + ": cannot write: ") != std::string::npos);
  CHECK(ebb::load_model(file).history->epochs() == 300);
  fs::remove(file);
  check_failure(mnist(train), older.string() + ": cannot write: Is a directory");
  CHECK_FALSE(fs::exists(file));
}

TEST_CASE("mnist: files of before are resumed and verified, but for averages without the weights that were trained") {
  Mnist mnist;
  const std::string data = mnist.digits();
  /// As mnist train wrote it then: the given options alone, nothing of callbacks, builds and runs.
  const auto before = [&](const char* name, const Args& more) {
    REQUIRE(mnist(joined({"train", "--data", data, "--arch", "flatten, dense 10", "--epochs", "2", "--batch", "64",
                          "--save", (mnist / name).string()},
                         more))
                .code == 0);
    ebb::SafeTensors file = ebb::read_safetensors(mnist / name);
    std::erase_if(file.tensors,
                  [](const auto& t) { return t.first.starts_with("callback.") || t.first.starts_with("training."); });
    for (const char* key : {"ebb.build", "mnist.runs"}) file.metadata.erase(key);
    Args words{"--arch=flatten, dense 10", "--epochs=2", "--batch=64"};
    if (!more.empty()) words.push_back(more[0] + "=" + more[1]);
    file.metadata["mnist.options"] = json(words).dump();
    json history = json::parse(file.metadata.at("ebb.history"));
    history.erase("callbacks");
    for (const char* key : {"classes", "seconds"}) history["partial"].erase(key);
    file.metadata["ebb.history"] = history.dump();
    ebb::write_safetensors(mnist / name, file);
    return (mnist / name).string();
  };
  const std::string old = before("old", {});
  const Result verified = mnist({"verify", old, "--data", data});
  CAPTURE(verified);
  CHECK(verified.code == 0);
  CHECK(mnist({"evaluate", old, "--data", data}).code == 0);
  REQUIRE(mnist({"train", "--resume", old, "--data", data, "--epochs", "4"}).code == 0);
  REQUIRE(mnist({"train", "--data", data, "--arch", "flatten, dense 10", "--epochs", "4", "--batch", "64", "--save",
                 (mnist / "whole").string()})
              .code == 0);
  CHECK(difference(mnist / "whole", old) == "");
  CHECK(mnist({"verify", old, "--data", data}).code == 0);
  check_failure(mnist({"train", "--resume", before("averages", {"--ema", "0.9"}), "--data", data}),
                "holds the averages of the weights alone");
}

TEST_CASE("mnist: the same bits for 1, 2, 3, 4 and 8 threads: a dense, a convolutional and a recurrent network") {
  Mnist mnist;
  const std::string data = mnist.digits();
  const std::vector<Args> networks{
      {"--arch", "flatten, dense 512 relu, dropout 0.2, dense 10"},
      {"--arch", "conv 16 3, batchnorm, relu, conv 16 3 relu, pool 2, flatten, dropout 0.3, dense 10", "--augment",
       "--optimizer", "rmsprop"},
      {"--arch", "reshape 28 28, gru 32, dense 10", "--optimizer", "nadam", "--ema", "0.9"}};
  for (const Args& network : networks) {
    CAPTURE(network[1]);
    for (const char* threads : {"1", "2", "3", "4", "8"}) {
      CAPTURE(threads);
      const Result r =
          mnist(joined({"train", "--data", data, "--limit", "256", "--epochs", "2", "--batch", "50", "--validation",
                        "test", "--quiet", "--threads", threads, "--save", (mnist / threads).string(), "--force"},
                       network));
      REQUIRE(r.code == 0);
      CHECK(difference(mnist / "1", mnist / threads) == "");
    }
  }
}

TEST_CASE("mnist verify: the same bits, or what differs") {
  Mnist mnist;
  const std::string data = mnist.digits(), model = (mnist / "m").string();
  const auto verify = [&](const std::string& file, const Setting& setting = {}, const std::string& folder = "") {
    return mnist({"verify", file, "--data", folder.empty() ? data : folder, "--quiet"}, setting);
  };
  const auto good = [&](const std::string& file) {
    const Result r = verify(file);
    CAPTURE(r);
    CHECK(r.code == 0);
    CHECK(r.out.starts_with("same bits: "));
    CHECK(lines(r.out).size() == 1);
  };
  // Cut in an epoch, resumed with more epochs under a schedule that depends on their number.
  REQUIRE(mnist({"train",
                 "--data",
                 data,
                 "--arch",
                 "flatten, dense 6 relu, dropout 0.2, dense 10",
                 "--epochs",
                 "3",
                 "--batch",
                 "64",
                 "--schedule",
                 "cosine",
                 "--ema",
                 "0.9",
                 "--early-stopping",
                 "5",
                 "--restore-best",
                 "--validation-split",
                 "0.25",
                 "--augment",
                 "--save",
                 model,
                 "--checkpoint-every",
                 "4steps",
                 "--keep",
                 "4"})
              .code == 0);
  good(model);
  const std::string part = (mnist / "m.1").string(), mid = (mnist / "m.2").string();
  good(mid);
  REQUIRE(mnist({"train", "--resume", part, "--data", data, "--epochs", "5"}).code == 0);
  REQUIRE(mnist({"train", "--resume", part, "--data", data, "--epochs", "6", "--threads", "1"}).code == 0);
  good(part);
  const json runs = json::parse(ebb::load_model(part).metadata.at("mnist.runs"));
  REQUIRE(runs.size() == 3);
  CHECK(runs[1].at("epochs") == 5);
  CHECK(runs[1].at("command").get<Args>() == Args{"mnist", "train", "--resume", part, "--data", data, "--epochs", "5"});
  for (const auto fact : {"blas", "compiler", "isa", "version", "training data", "test data"})
    CHECK(runs[2].at("facts").contains(fact));

  ebb::SafeTensors file = ebb::read_safetensors(model);
  file.tensors.at("layers.3.bias").mutable_values<float>()[2] += 0.5f;
  ebb::write_safetensors(mnist / "touched", file);
  const Result touched = verify((mnist / "touched").string());
  CAPTURE(touched);
  CHECK(touched.code == 1);
  CHECK(contains(touched.out, "tensors: 1 of "));
  CHECK(contains(touched.out, "first layers.3.bias (by up to 0.5)"));
  CHECK(contains(touched.out, "nothing that the file records differs here"));

  file = ebb::read_safetensors(model);
  json other = json::parse(file.metadata.at("mnist.runs"));
  other[0]["facts"]["blas"] = "OpenBLAS 9.9.9 Quantum";
  other[0]["facts"]["training data"] = "512 samples, crc32 00000000";
  file.metadata["mnist.runs"] = other.dump();
  ebb::write_safetensors(mnist / "elsewhere", file);
  const Result elsewhere = verify((mnist / "elsewhere").string());
  CHECK(elsewhere.code == 1);
  CHECK(contains(elsewhere.out, "  blas: OpenBLAS 9.9.9 Quantum then, "));
  CHECK(contains(elsewhere.out, "  training data: 512 samples, crc32 00000000 then, "));
  const Result resumed = mnist({"train", "--resume", (mnist / "elsewhere").string(), "--data", data});
  CHECK(contains(resumed.err, "note: blas: OpenBLAS 9.9.9 Quantum then, "));

  check_usage_error(mnist({"verify"}), "which model?");
  ebb::Sequential net({28, 28, 1}, {ebb::Flatten(), ebb::Dense(10)});
  ebb::save_model(net, "flatten, dense 10", mnist / "plain");
  check_failure(verify((mnist / "plain").string()), "holds no training");
}

#endif
