// The program mnist where its streams take nothing, where it is told to stop, and where its output is a stream.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: its streams") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <ebb/models/train/serialize.h>

#include <nlohmann/json.hpp>

#include "run_mnist.h"

using namespace cli;

using nlohmann::json;

namespace {

/// A small training that is saved.
Result train(Mnist& mnist, const fs::path& model, const Setting& setting, const Args& more = {},
             const std::string& epochs = "3") {
  fs::remove(model);
  return mnist(joined({"train", "--data", mnist.digits(), "--arch", "flatten, dense 10", "--epochs", epochs, "--save",
                       model.string()},
                      more),
               setting);
}

int epochs_in(const fs::path& model) { return ebb::load_model(model).history->epochs(); }

/// Trains by steps that take a second or more, in which it asks for no signal; with the head of the progress first.
Args slow(Mnist& mnist) {
  return {"train",
          "--data",
          mnist.digits(),
          "--arch",
          "conv 64 5 relu, conv 64 5 relu, conv 32 5, flatten, dense 10",
          "--batch",
          "512",
          "--epochs",
          "2",
          "--verbose",
          "1",
          "--threads",
          "1"};
}

}  // namespace

TEST_CASE("mnist: what standard error does not take is lost, and the training goes on") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  for (const Stream err : {Stream::closed, Stream::full, Stream::broken_pipe})
    for (const Args& more : {Args{}, Args{"--verbose", "1"}, Args{"--verbose", "2", "--style", "keras2.2"},
                             Args{"--verbose", "1", "--style", "keras3"}}) {
      CAPTURE(static_cast<int>(err));
      CAPTURE(joined_with_commas(more));
      const Result r = train(mnist, model, {.err = err},
                             joined(more, {"--early-stopping", "1", "--monitor", "loss", "--lr", "0", "--json"}));
      CAPTURE(r);
      CHECK(r.code == 0);
      CHECK(json::parse(r.out).at("epochs") == 2);
      CHECK(epochs_in(model) == 2);
    }
}

TEST_CASE("mnist: a reader of standard error that pauses does not hold up the training") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  const Result r = train(mnist, model, {.err = Stream::paused_pipe}, {"--verbose", "2"}, "200");
  CHECK(r.code == 0);
  CHECK(contains(r.err, "data: "));
  CHECK_FALSE(contains(r.err, "Epoch 200/200"));
  CHECK(epochs_in(model) == 200);
}

TEST_CASE("mnist: one pipe does not get two files, nor two models") {
  Mnist mnist;
  const std::string model = (mnist / "model").string();
  check_usage_error(
      mnist(mnist.tiny({"--save", "/dev/stdout", "--log-csv", "/dev/stdout", "--quiet"}), {.out = Stream::pipe}),
      "--save and --log-csv are the same file");
  REQUIRE(mnist({"train", "--data", mnist.digits(), "--epochs", "1", "--arch", "flatten, dense 8 relu, dense 10",
                 "--save", model})
              .code == 0);
  for (const Stream out : {Stream::pipe, Stream::file}) {
    const Result r = mnist({"transfer", model, "--data", mnist.digits(), "--head-epochs", "1", "--epochs", "1",
                            "--no-baseline", "--quiet", "--save", "/dev/stdout", "--force"},
                           {.out = out});
    CAPTURE(r.err);
    CHECK(r.code == 0);
    const std::string named = (mnist / "named").string(), streamed = (mnist / "streamed").string();
    std::ofstream(streamed, std::ios::binary) << r.out;
    REQUIRE(mnist({"transfer", model, "--data", mnist.digits(), "--head-epochs", "1", "--epochs", "1", "--no-baseline",
                   "--quiet", "--save", named, "--force"})
                .code == 0);
    CHECK(contents(streamed) == contents(named));  // the last stage, alone
  }
}

TEST_CASE("mnist: the exit code is the same where errors cannot be told") {
  Mnist mnist;
  for (const Stream err : {Stream::closed, Stream::full, Stream::broken_pipe}) {
    CHECK(mnist({}, {.err = err}).code == 2);
    CHECK(mnist({"train", "--epocs", "3"}, {.err = err}).code == 2);
    CHECK(mnist({"evaluate", (mnist / "none").string()}, {.err = err}).code == 1);
    CHECK(mnist({"summary"}, {.out = Stream::full, .err = err}).code == 1);
  }
}

TEST_CASE("mnist: other commands go on too when standard error takes nothing") {
  Mnist mnist;
  const std::string data = mnist.digits(), model = (mnist / "model").string(), split = (mnist / "split").string();
  REQUIRE(mnist({"train", "--data", data, "--arch", "conv 2 3, flatten, dense 10", "--epochs", "1", "--save", model})
              .code == 0);
  REQUIRE(train(mnist, split, {}, {"--test-size", "0.5"}).code == 0);
  for (const Stream err : {Stream::closed, Stream::full, Stream::broken_pipe})
    for (const Args& args :
         {Args{"evaluate", split, "--data", data},  // notes that it splits as the training did
          Args{"predict", split, "--data", data, "--index", "0"},
          Args{"graph", "--report", "--profile", "--batch", "2", "--arch", "flatten, dense 10"},
          Args{"search", "--data", data, "--epochs", "2", "--arch", "flatten, dense 10", "--vary", "lr=0.001"},
          Args{"transfer", model, "--data", data, "--epochs", "1", "--head-epochs", "0", "--no-baseline"}}) {
      CAPTURE(args.front());
      CAPTURE(static_cast<int>(err));
      const Result r = mnist(args, {.err = err});
      CAPTURE(r);
      CHECK(r.code == 0);
      CHECK(r.out != "");
    }
}

TEST_CASE("mnist: no file becomes a standard stream that was closed") {
  Mnist mnist;
  const fs::path model = mnist / "model", log = mnist / "log.csv";
  const Result r = train(mnist, model, {.out = Stream::closed, .err = Stream::closed}, {"--log-csv", log.string()});
  CHECK(r.code == 1);  // the results are lost
  CHECK(epochs_in(model) == 3);
  const auto table = lines(contents(log));
  REQUIRE(table.size() == 4);
  CHECK(table[0] == "epoch,accuracy,loss");
  for (int i = 1; i <= 3; ++i) CHECK(table[static_cast<std::size_t>(i)].starts_with(std::to_string(i - 1) + ","));
}

TEST_CASE("mnist: a terminal that closes ends the training after the batch, or not at all below nohup") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  const std::map<std::string, std::string> xterm{{"TERM", "xterm"}};
  const Result hung_up = train(mnist, model, {.environment = xterm, .err = Stream::terminal}, {"--json"}, "1000000");
  CAPTURE(hung_up);
  CHECK(hung_up.code == 129);
  CHECK(json::parse(hung_up.out).at("interrupted") == true);
  CHECK(contains(hung_up.err, "Epoch 1/1000000\r\n"));
  CHECK(epochs_in(model) < 1000000);
  const Result nohup = train(mnist, model, {.environment = xterm, .err = Stream::terminal, .ignored = {SIGHUP}});
  CAPTURE(nohup);
  CHECK(nohup.code == 0);
  CHECK(epochs_in(model) == 3);
}

TEST_CASE("mnist: a signal that is ignored when it starts stays so") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    const Result r = train(mnist, model, {.signal = number, .ignored = {number}}, {"--verbose", "2"});
    CAPTURE(r);
    CHECK(r.code == 0);
    CHECK(epochs_in(model) == 3);
  }
}

TEST_CASE("mnist: a second signal ends the program at once, whichever it is, an old file stays whole") {
  Mnist mnist;
  const std::string model = (mnist / "model").string();
  REQUIRE(train(mnist, model, {}).code == 0);
  const std::string before = contents(model);
  for (const auto& [first, second] :
       {std::pair{SIGINT, SIGTERM}, std::pair{SIGTERM, SIGINT}, std::pair{SIGHUP, SIGINT}, std::pair{SIGINT, SIGHUP},
        std::pair{SIGHUP, SIGHUP}, std::pair{SIGINT, SIGINT}, std::pair{SIGTERM, SIGTERM}}) {
    const Result r = mnist(joined(slow(mnist), {"--save", model, "--force"}), {.signal = first, .second = second});
    CAPTURE(r);
    CHECK(r.code == -second);
    CHECK(contents(model) == before);
  }
}

TEST_CASE("mnist: a model can be saved to a pipe, and the results then go to standard error") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  const Args tiny = mnist.tiny({"--quiet", "--save", "/dev/stdout"});
  const Result r = mnist(tiny, {.out = Stream::pipe});
  CHECK(r.code == 0);
  CHECK(r.err.starts_with("test accuracy "));
  CHECK(contains(r.err, "\nsaved /dev/stdout\n"));
  std::ofstream(model, std::ios::binary) << r.out;
  CHECK(epochs_in(model) == 1);
  const Result file = mnist(joined(tiny, {"--force"}));  // standard output is a file: it is replaced
  CHECK(file.code == 0);
  CHECK(contains(file.err, "\nsaved /dev/stdout\n"));
  std::ofstream(model, std::ios::binary) << file.out;
  CHECK(ebb::load_model(model).metadata.contains("test_accuracy"));  // which is added by a second save
  CHECK(epochs_in(model) == 1);
  check_usage_error(mnist(joined(tiny, {"--checkpoint-every", "1"}), {.out = Stream::pipe}), "--checkpoint-every");

  const auto check_written = [&](const Args& args, std::string_view head, std::string_view said) {
    const Result written = mnist(args, {.out = Stream::pipe});
    CAPTURE(args.front());
    CAPTURE(written.err);
    CHECK(written.code == 0);
    CHECK(written.out.starts_with(head));
    CHECK_FALSE(contains(written.out, said));
    CHECK(contains(written.err, said));
  };
  const std::string data = mnist.digits();
  check_written({"export", model.string(), "--onnx", "/dev/stdout", "--force"}, "\x08\x07", "/dev/stdout: ONNX");
  check_written({"data", "--data", data, "--png", "/dev/stdout"}, "\x89PNG", "/dev/stdout: 1 digits");
  check_written({"plot", model.string(), "--svg", "/dev/stdout"}, "<svg", "/dev/stdout: 1 epoch");
  check_written({"graph", model.string(), "--dot", "/dev/stdout"}, "digraph", " nodes, ");
  check_written({"evaluate", model.string(), "--data", data, "--roc", "/dev/stdout"}, "<svg", "wrote /dev/stdout");
  check_written(joined(mnist.tiny({"--quiet"}), {"--log-csv", "/dev/stdout"}), "epoch,accuracy,loss\n0,",
                "test accuracy");
}

TEST_CASE(
    "mnist: a reader of the results that pauses holds up nothing but them: the model is saved, and a signal ends the "
    "program") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  const Result r =
      train(mnist, model, {.out = Stream::paused_pipe, .signal = SIGTERM, .when = "Epoch 200/200", .delay = Seconds(2)},
            {"--json"}, "200");
  CAPTURE(r);
  CHECK(r.code == -SIGTERM);
  CHECK(epochs_in(model) == 200);
  CHECK(ebb::load_model(model).metadata.contains("test_accuracy"));
}

TEST_CASE("mnist export: the size that it tells is that of what it wrote, also through /dev/stdout") {
  Mnist mnist;
  const fs::path model = mnist / "model";
  REQUIRE(train(mnist, model, {}).code == 0);
  for (const char* format : {"--onnx", "--npz", "--safetensors"}) {
    const Args args{"export", model.string(), format, "/dev/stdout", "--force"};
    const Result file = mnist(joined(args, {"--json"})), pipe = mnist(joined(args, {"--json"}), {.out = Stream::pipe}),
                 text = mnist(args);
    CAPTURE(file);
    CHECK(json::parse(file.err).at("files")[0].at("bytes") == file.out.size());
    CHECK(json::parse(pipe.err).at("files")[0].at("bytes").is_null());
    CHECK(pipe.out == file.out);
    CHECK_FALSE(contains(text.err, "0.00 B"));
  }
}

#endif
