// The program mnist at work: training, results, signals.
// (over 400 lines because a run of the program is tried from its start to its signals)
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: its runs") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <ebb/models/data/mnist.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/train/serialize.h>

#include <nlohmann/json.hpp>

#include <regex>

#include "run_mnist.h"

using namespace cli;

using nlohmann::json;

TEST_CASE("mnist: training tells what it did, as text") {
  Mnist mnist;
  const Result r = mnist(joined(mnist.tiny(), {"--threads", "1"}));
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(r.out.starts_with("test accuracy 0."));
  CHECK(lines(r.out).size() == 1);
  for (const auto part : {"flatten, dense 10", "7,850 parameters", "512 samples", "seed 1", "1 thread"})
    CHECK_MESSAGE(contains(r.err, part), part);
}

TEST_CASE("mnist: an architecture from a JSON file") {
  Mnist mnist;
  const auto train = [&](const std::string& text) {
    const std::string file = (mnist.files() / "net.json").string();
    std::ofstream(file) << text;
    return mnist({"train", "--data", mnist.digits(), "--epochs", "1", "--arch", file});
  };
  const Result r = train(R"([{"layer": "conv", "filters": 4, "kernel": 3, "activation": "relu"},
  {"layer": "residual", "layers": [{"layer": "conv", "filters": 4, "kernel": 3, "padding": "same"}, {"layer": "batchnorm"}]},
  {"layer": "globalavgpool"}, {"layer": "dense", "units": 10}])");
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(contains(r.err, "conv 4 3 relu, residual (conv 4 3 same, batchnorm), globalavgpool, dense 10"));
  const Result bad = train("[{\"layer\": \"flatten\"},\n {\"layer\": \"dense\", \"unit\": 10}]");
  CAPTURE(bad);
  CHECK(bad.code == 2);
  CHECK(contains(bad.err, "net.json: architecture: line 2, column 2: the number of units is missing"));
}

TEST_CASE("mnist: progress is one line an epoch on stderr, nothing with --quiet") {
  Mnist mnist;
  const Args three{
      "train", "--data", mnist.digits(), "--epochs", "3", "--arch", "flatten, dense 10", "--validation-split", "0.25"};
  const Result r = mnist(three);
  CAPTURE(r);
  REQUIRE(r.code == 0);
  int epochs = 0;
  for (const auto& line : lines(r.err))
    if (line.starts_with("Epoch ")) {
      ++epochs;
      CHECK(line.starts_with("Epoch " + std::to_string(epochs) + "/3 - "));
      for (const auto key : {" - loss: ", " - accuracy: ", " - val_loss: ", " - val_accuracy: "})
        CHECK_MESSAGE(contains(line, key), key);
    }
  CHECK(epochs == 3);
  CHECK_FALSE(contains(r.err, "\r"));
  CHECK_FALSE(contains(r.err, "\x1b"));
  CHECK_FALSE(contains(r.out, "Epoch"));

  const Result quiet = mnist(joined(three, {"--quiet"}));
  CHECK(quiet.code == 0);
  CHECK(quiet.err == "");
  CHECK(contains(quiet.out, "test accuracy"));
}

TEST_CASE("mnist: augmentation, a schedule and smoothed labels change what is learned, and the seed repeats it") {
  Mnist mnist;
  const auto loss = [&](const Args& more) {
    const Result r = mnist(joined(mnist.tiny({"--json", "--quiet"}), more));
    CAPTURE(r);
    REQUIRE(r.code == 0);
    return json::parse(r.out).at("test_loss").get<double>();
  };
  const double plain = loss({}), augmented = loss({"--augment"});
  CHECK(augmented != plain);
  CHECK(loss({"--augment"}) == augmented);
  CHECK(loss({"--augment=shift 0"}) == plain);
  CHECK(loss({"--augment", "shift 1, rotate 5"}) != augmented);
  CHECK(loss({"--schedule", "one-cycle"}) != plain);
  CHECK(loss({"--label-smoothing", "0.1"}) != plain);
}

TEST_CASE("mnist: --model best brings its training with it, and what the user says stands") {
  Mnist mnist;
  const Result r = mnist(
      {"train", "--model", "best", "--data", mnist.digits(), "--epochs", "1", "--limit", "64", "--json", "--quiet"});
  CAPTURE(r);
  REQUIRE(r.code == 0);
  const json j = json::parse(r.out);
  CHECK(contains(j.at("architecture").get<std::string>(), "batchnorm"));
  CHECK(j.at("batch") == 64);
  CHECK(j.at("epochs") == 1);
  CHECK(contains(mnist({"summary", "--model", "best"}).out, "batch_normalization_4"));
}

TEST_CASE("mnist: --json prints one object, the same for any number of threads") {
  const Mnist mnist;
  std::vector<json> runs;
  for (const auto threads : {"1", "2", "1", "2"}) {
    const Result r = mnist({"train", "--dataset", "synthetic", "--limit", "512", "--epochs", "1", "--arch",
                            "flatten, dense 10", "--json", "--seed", "7", "--threads", threads});
    CAPTURE(r);
    REQUIRE(r.code == 0);
    CHECK(lines(r.out).size() == 1);
    const json j = json::parse(r.out);
    CHECK(j.at("parameters") == 7850);
    CHECK(j.at("seed") == 7);
    CHECK(j.at("threads") == std::stoi(threads));
    CHECK(j.at("dataset") == "synthetic");
    CHECK(j.at("test_accuracy").get<double>() >= 0);
    CHECK(j.at("test_accuracy").get<double>() <= 1);
    CHECK(j.at("seconds_per_epoch").get<double>() > 0);
    CHECK(j.at("history").at("loss").size() == 1);
    CHECK(j.at("history").at("accuracy").size() == 1);
    runs.push_back(j);
  }
  for (const json& j : runs)
    for (const auto key : {"test_loss", "test_accuracy"}) CHECK(j.at(key) == runs[0].at(key));
  for (const json& j : runs) CHECK(j.at("history").at("loss") == runs[0].at("history").at("loss"));
}

TEST_CASE("mnist: another seed gives another network") {
  Mnist mnist;
  const auto loss = [&](const char* seed) {
    return json::parse(mnist(mnist.tiny({"--json", "--seed", seed})).out).at("test_loss").get<double>();
  };
  CHECK(loss("1") == loss("1"));
  CHECK(loss("1") != loss("2"));
}

TEST_CASE("mnist: it learns, and a saved model gives the same again") {
  Mnist mnist;
  const std::string model = (mnist / "model.safetensors").string(), data = mnist.digits();
  const Result trained = mnist({"train", "--data", data, "--epochs", "10", "--arch",
                                "conv 4 3 relu, pool 2, flatten, dropout 0.1, dense 10", "--batch", "16", "--lr",
                                "0.01", "--json", "--quiet", "--save", model});
  CAPTURE(trained);
  REQUIRE(trained.code == 0);
  const json t = json::parse(trained.out);
  CHECK(t.at("saved") == model);
  CHECK(t.at("test_accuracy").get<double>() > 0.9);

  const Result evaluated = mnist({"evaluate", model, "--data", data, "--json"});
  CAPTURE(evaluated);
  REQUIRE(evaluated.code == 0);
  CHECK(evaluated.err == "");
  const json e = json::parse(evaluated.out);
  CHECK(e.at("test_accuracy") == t.at("test_accuracy"));
  CHECK(e.at("test_loss") == t.at("test_loss"));
  CHECK(mnist({"evaluate", model, "--data", data}).out.starts_with("test accuracy "));

  SUBCASE("predict") {
    const Result r = mnist({"predict", model, "--data", data, "--index", "0,63,5", "--json"});
    CAPTURE(r);
    REQUIRE(r.code == 0);
    const json p = json::parse(r.out);
    REQUIRE(p.size() == 3);
    CHECK(p[1].at("index") == 63);
    CHECK(p[1].at("label") == 63 * 7 % 10);
    CHECK(p[1].at("probabilities").size() == 10);
    CHECK(p[1].at("probability") == p[1].at("probabilities").at(p[1].at("digit").get<std::size_t>()));
    double sum = 0;
    for (const double q : p[1].at("probabilities")) sum += q;
    CHECK(sum == doctest::Approx(1));

    const Result text = mnist({"predict", model, "--data", data});
    CHECK(text.code == 0);
    CHECK(lines(text.out).size() == 10);
    CHECK(lines(mnist({"predict", model, "--data", data, "--index", "3", "--show"}).out).size() == 29);
    check_usage_error(mnist({"predict", model, "--data", data, "--index", "0,64"}), "got 64");
    check_usage_error(mnist({"predict", model, "--data", data, "--index", "-1"}), "got -1");
    check_usage_error(mnist({"predict", model, "--data", data, "--index", ""}), "--index");
  }
  SUBCASE("summary") {
    const Result r = mnist({"summary", model});
    CAPTURE(r);
    CHECK(r.code == 0);
    for (const auto part : {"Conv2D", "Flatten", "Dropout", "Dense", "Total params: 6810"})
      CHECK_MESSAGE(contains(r.out, part), part);
    for (const auto& line : lines(r.out)) CHECK(line.size() <= 80);
  }
  SUBCASE("graph") {
    const Result r = mnist({"graph", model, "--batch", "2"});
    CAPTURE(r);
    CHECK(r.code == 0);
    CHECK(r.out.starts_with("digraph "));
    CHECK(contains(r.out, "conv2d"));
    CHECK(contains(r.out, "->"));

    const fs::path dot = mnist / "net.dot";
    const Result written = mnist({"graph", model, "--batch", "2", "--dot", dot.string()});
    CHECK(written.code == 0);
    CHECK(contains(written.out, dot.string()));
    CHECK(contents(dot) == r.out);
    const Result backward = mnist({"graph", model, "--batch", "2", "--backward"});
    CHECK(contains(backward.out, "gradient of layers."));
    CHECK(contains(backward.out, "dir=back"));
    // The plan of the backward pass is what the allocator measures: the same figure twice.
    const Result reported = mnist({"graph", model, "--batch", "2", "--report", "--dot", dot.string(), "--force"});
    CAPTURE(reported);
    CHECK(contains(reported.err, "critical path: "));
    CHECK(contains(reported.err, "repeated sub-expressions: 0"));
    std::smatch memory;
    REQUIRE(std::regex_search(reported.err, memory,
                              std::regex("kept for backward, (.*) at its worst moment \\((.*)\\), (.*) measured")));
    CHECK(memory[1] == memory[3]);
    const Result profiled = mnist({"graph", model, "--batch", "2", "--profile"});
    CHECK(contains(profiled.out, "GFLOP/s"));
    CHECK(contains(profiled.err, "GFLOP/s"));
    check_failure(mnist({"graph", model, "--dot", (mnist / "missing" / "net.dot").string()}), "net.dot");
  }
}

TEST_CASE("mnist: a first layer that standardizes measures the training data, and is saved with the network") {
  Mnist mnist;
  const std::string model = (mnist / "model.safetensors").string(), data = mnist.digits();
  const auto train = [&](const std::string& architecture) {
    return mnist({"train", "--data", data, "--epochs", "2", "--arch", architecture, "--json", "--quiet", "--save",
                  model, "--force"});
  };
  const json plain = json::parse(train("flatten, dense 10").out);
  const Result trained = train("standardize, flatten, dense 10");
  CAPTURE(trained);
  REQUIRE(trained.code == 0);
  const json t = json::parse(trained.out);
  CHECK(t.at("parameters") == plain.at("parameters"));
  CHECK(t.at("test_loss") != plain.at("test_loss"));
  CHECK(json::parse(mnist({"evaluate", model, "--data", data, "--json"}).out).at("test_loss") == t.at("test_loss"));

  // It measures what it trains on, not what is held out.
  const Result split = mnist({"train", "--data", data, "--epochs", "1", "--arch", "standardize, flatten, dense 10",
                              "--validation-split", "0.75", "--json", "--quiet", "--save", model, "--force"});
  CAPTURE(split);
  REQUIRE(split.code == 0);
  const ebb::SavedModel loaded = ebb::load_model(model);
  const auto& saved = dynamic_cast<const ebb::Standardize&>(*loaded.net.layers()[0]);
  const ebb::Dataset samples = ebb::load_mnist(data).train.scaled(1 / 255.0);
  ebb::Standardize quarter, whole;
  quarter.fit(samples.slice(0, samples.size() / 4).inputs, samples.scale);
  whole.fit(samples.inputs, samples.scale);
  CHECK(saved.mean.to_vector() == quarter.mean.to_vector());
  CHECK(saved.mean.to_vector() != whole.mean.to_vector());

  // A search measures them for each of its trainings.
  const auto search = [&](const std::string& architecture) {
    const Result r = mnist(
        {"search", "--data", data, "--epochs", "2", "--arch", architecture, "--vary", "lr=0.001", "--json", "--quiet"});
    CAPTURE(r);
    REQUIRE(r.code == 0);
    return json::parse(r.out).at("trials").at(0).at("val_loss");
  };
  CHECK(search("standardize, flatten, dense 10") != search("flatten, dense 10"));
}

TEST_CASE("mnist: a signal ends training after the batch, the model so far is saved") {
  Mnist mnist;
  const std::string model = (mnist / "model.safetensors").string();
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}, std::pair{SIGHUP, 129},
                                     std::pair{SIGXCPU, 152}, std::pair{SIGUSR1, 138}, std::pair{SIGUSR2, 140}}) {
    const Result r = mnist({"train", "--data", mnist.digits(), "--epochs", "1000000", "--arch", "flatten, dense 10",
                            "--json", "--save", model, "--force"},
                           {.signal = signal});
    CAPTURE(r);
    CHECK(r.code == code);
    REQUIRE(json::accept(r.out));
    const json t = json::parse(r.out);
    CHECK(t.at("interrupted") == true);
    CHECK(t.at("epochs").get<int>() < 1000000);
    const Result evaluated = mnist({"evaluate", model, "--data", mnist.digits(), "--json"});
    REQUIRE(evaluated.code == 0);
    CHECK(json::parse(evaluated.out).at("test_accuracy") == t.at("test_accuracy"));
  }
}

TEST_CASE("mnist: a loss that is no number fails, names --lr and saves nothing") {
  Mnist mnist;
  const fs::path model = mnist / "model.safetensors";
  const Result r =
      mnist({"train", "--data", mnist.digits(), "--epochs", "3", "--arch", "flatten, dense 64 relu, dense 10",
             "--optimizer", "sgd", "--lr", "1e6", "--raw", "--save", model.string(), "--quiet"});
  check_failure(r, "--lr");
  CHECK_FALSE(fs::exists(model));
}

TEST_CASE("mnist: results that cannot be written are a failure") {
  Mnist mnist;
  for (const Stream out : {Stream::full, Stream::closed, Stream::broken_pipe}) {
    CAPTURE(static_cast<int>(out));
    const std::string reason = out == Stream::full     ? "No space left on device"
                               : out == Stream::closed ? "Bad file descriptor"
                                                       : "Broken pipe";
    for (const Args& args : {Args{"summary"}, Args{"graph"}, Args{"train", "--help"}, Args{"--version"}}) {
      CAPTURE(args.front());
      check_failure(mnist(args, {.out = out}), "standard output: " + reason);
    }
    // The work is kept all the same.
    const fs::path model = mnist / "model.safetensors";
    const Result r = mnist(mnist.tiny({"--quiet", "--force", "--save", model.string()}), {.out = out});
    check_failure(r, "standard output: " + reason);
    CHECK(mnist({"evaluate", model.string(), "--data", mnist.digits()}).code == 0);
    fs::remove(model);
  }
}

TEST_CASE("mnist: a training that is resumed, or interrupted and resumed, ends with the bits of one that was not") {
  Mnist mnist;
  const std::string data = mnist.digits(), whole = (mnist / "whole").string(), part = (mnist / "part").string();
  const auto train = [&](const std::string& epochs, const std::string& file, const Args& more = {}, int signal = 0) {
    return mnist(joined({"train", "--data", data, "--arch", "flatten, dense 20 relu, dropout 0.3, dense 10", "--batch",
                         "16", "--validation-split", "0.25", "--optimizer", "nadam", "--weight-decay", "0.01",
                         "--epochs", epochs, "--json", "--save", file},
                        more),
                 {.signal = signal});
  };
  const json want = json::parse(train("5", whole).out);
  const auto weights = [&](const std::string& file) { return ebb::load_model(file); };
  const auto same_as_whole = [&](const Result& r) {
    CAPTURE(r);
    REQUIRE(r.code == 0);
    const json got = json::parse(r.out);
    for (const auto key : {"test_loss", "test_accuracy", "epochs"}) CHECK(got.at(key) == want.at(key));
    for (const auto key : {"loss", "accuracy", "val_loss", "val_accuracy"})
      CHECK(got.at("history").at(key) == want.at("history").at(key));
    auto a = weights(whole), b = weights(part);
    const auto x = ebb::named_tensors(a.net), y = ebb::named_tensors(b.net);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(ebb::same_bits(x[i].tensor->detach(), y[i].tensor->detach()));
    CHECK(b.optimizer->steps() == a.optimizer->steps());
  };
  REQUIRE(train("2", part).code == 0);
  const std::string two = contents(part);
  same_as_whole(mnist({"train", "--resume", part, "--data", data, "--epochs", "5", "--json"}));

  // Again, somewhere else, with one thread; the file that was resumed stays.
  std::ofstream(mnist / "two", std::ios::binary) << two;
  fs::remove(part);
  same_as_whole(mnist({"train", "--resume", (mnist / "two").string(), "--data", data, "--epochs", "5", "--threads", "1",
                       "--json", "--save", part}));
  CHECK(contents(mnist / "two") == two);

  // Interrupted in the middle of some epoch. Its options, with the number of epochs, are in the file.
  const Result cut = train("5", part, {"--force", "--seed", "1"}, SIGINT);
  if (cut.code == 130 && json::parse(cut.out).at("interrupted") == true) {  // else it was done before the signal came
    same_as_whole(mnist({"train", "--resume", part, "--data", data, "--json"}));
  }

  check_usage_error(mnist({"train", "--resume", part, "--batch", "8"}), "--batch cannot change");
  const std::string plain = (mnist / "plain").string();
  ebb::Sequential net({28, 28, 1}, ebb::parse_architecture("flatten, dense 10"));
  ebb::save_model(net, "flatten, dense 10", plain);
  check_failure(mnist({"train", "--resume", plain}), "holds no training");
}

TEST_CASE("mnist: checkpoints, the table of epochs, and early stopping") {
  Mnist mnist;
  const std::string model = (mnist / "m").string(), log = (mnist / "log.csv").string();
  const Result r = mnist({"train", "--data", mnist.digits(), "--arch", "flatten, dense 10", "--epochs", "3",
                          "--validation-split", "0.25", "--save", model, "--checkpoint-every", "1", "--log-csv", log});
  CAPTURE(r);
  REQUIRE(r.code == 0);
  const auto table = lines(contents(log));
  REQUIRE(table.size() == 4);
  CHECK(table[0] == "epoch,accuracy,loss,val_accuracy,val_loss");
  CHECK(table[3].starts_with("2,"));
  CHECK(ebb::load_model(model).history->epochs() == 3);

  // A rate of 0 improves nothing: the second epoch is the first one without improvement.
  const Result stopped =
      mnist({"train", "--data", mnist.digits(), "--arch", "flatten, dense 10", "--epochs", "9", "--validation-split",
             "0.25", "--lr", "0", "--early-stopping", "2", "--restore-best", "--json"});
  CAPTURE(stopped);
  REQUIRE(stopped.code == 0);
  CHECK(json::parse(stopped.out).at("epochs") == 3);
  CHECK(contains(stopped.err, "Epoch 3: early stopping\nRestoring model weights from the end of the best epoch: 1.\n"));
  const Result falling = mnist({"train", "--data", mnist.digits(), "--arch", "flatten, dense 10", "--epochs", "3",
                                "--lr", "0", "--reduce-lr", "1", "--monitor", "loss", "--json"});
  CHECK(json::parse(falling.out).at("history").at("lr").size() == 3);
}

TEST_CASE("mnist: the progress of Keras on demand") {
  Mnist mnist;
  const auto err = [&](const Args& more) { return mnist(mnist.tiny(joined({"--batch", "128"}, more))).err; };
  CHECK(contains(err({"--verbose", "2"}), "Epoch 1/1\n4/4 - 0s - loss: "));
  CHECK(contains(err({"--verbose", "1"}), "\r4/4 [==============================] - 0s "));
  CHECK(contains(err({"--verbose", "1", "--style", "keras2.2"}), "Train on 512 samples\nEpoch 1/1\n"));
  CHECK(contains(err({"--verbose", "1", "--style", "keras3"}), "4/4 ━━━━━━━━━━━━━━━━━━━━ 0s "));
  CHECK(err({"--verbose", "0"}) == "");
  CHECK(contains(mnist({"summary", "--model", "cnn", "--style", "keras3"}).out, "│ max_pooling2d (MaxPooling2D)    │"));
  CHECK(contains(mnist({"summary", "--model", "cnn", "--style", "keras2.2"}).out, "Param #   \n"));
}

TEST_CASE("mnist: every optimizer and schedule trains, class weights, clipping, averages and a new split too") {
  Mnist mnist;
  const auto check = [&](const Args& more) {
    const Result r = mnist(mnist.tiny(joined({"--json", "--limit", "256"}, more)));
    CAPTURE(r);
    REQUIRE(r.code == 0);
    CHECK(json::parse(r.out).at("test_loss").get<double>() > 0);
  };
  for (const auto name : {"sgd", "rmsprop", "adam", "adamw", "nadam", "adagrad", "lion"}) check({"--optimizer", name});
  check({"--optimizer", "rmsprop", "--rmsprop-eps", "outside"});
  for (const auto name : {"constant", "step", "exponential", "cosine", "one-cycle"}) check({"--schedule", name});
  check({"--class-weight", "balanced", "--label-smoothing", "0.1", "--clip-norm", "1", "--clip-value", "0.1", "--ema",
         "0.9"});
  check({"--test-size", "0.25", "--stratify", "--split-seed", "4"});
}

#endif
