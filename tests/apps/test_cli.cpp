// The program mnist as its users meet it: help, usage errors, files that are missing or broken.
#include <doctest/doctest.h>

#include <cstdlib>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: its messages") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include "run_mnist.h"

using namespace cli;

TEST_CASE("mnist: it starts where address space is too little for a thread of BLAS on every processor") {
  for (const char* limit : {"60000", "100000", "150000", "400000"})
    for (const char* set : {"", "OPENBLAS_NUM_THREADS=8 ", "env -i "}) {
      CAPTURE(limit);
      CAPTURE(set);
      const std::string command =
          std::string("ulimit -v ") + limit + "; " + set + "timeout 20 " EBB_MNIST_PROGRAM " --version >/dev/null";
      CHECK(std::system(command.c_str()) == 0);
    }
}

TEST_CASE("mnist: help goes to stdout, at most 80 columns wide") {
  const Mnist mnist;
  std::vector<Args> all{{"--help"}, {"-h"}, {"train", "--epochs", "abc", "--help"}};
  for (const auto& c : commands) all.insert(all.end(), {{c, "--help"}, {c, "-h"}});
  for (const Args& args : all) {
    CAPTURE(args.front());
    const Result r = mnist(args);
    CHECK(r.code == 0);
    CHECK(r.err == "");
    CHECK(r.out.starts_with("Usage: mnist "));
    for (const auto& line : lines(r.out)) {
      CAPTURE(line);
      CHECK(line.size() <= 80);
    }
  }
  const std::string top = mnist({"--help"}).out;
  for (const auto& c : commands) CHECK(contains(top, "\n  " + c + " "));
  CHECK(contains(top, "Exit codes"));
  const std::string train = mnist({"train", "--help"}).out;
  for (const auto option :
       {"--model", "--layers", "--activation", "--dropout", "--optimizer", "--lr", "--batch", "--epochs", "--seed",
        "--threads", "--validation ", "--validation-split", "--data ", "--dataset", "--save", "--json", "--help"})
    CHECK_MESSAGE(contains(train, option), option);
  CHECK(contains(train, "Example"));
}

TEST_CASE("mnist: help COMMAND is that command's --help") {
  const Mnist mnist;
  for (const auto& c : commands) {
    CAPTURE(c);
    const Result r = mnist({"help", c});
    CHECK(r.code == 0);
    CHECK(r.out == mnist({c, "--help"}).out);
    CHECK(r.out.starts_with("Usage: mnist " + c));
  }
  check_usage_error(mnist({"help", "trian"}), "unknown command \"trian\"");
}

TEST_CASE("mnist: the version names the build") {
  const Mnist mnist;
  for (const Args& args : {Args{"--version"}, Args{"train", "--version"}}) {
    const Result r = mnist(args);
    CAPTURE(r);
    CHECK(r.code == 0);
    CHECK(r.err == "");
    CHECK(r.out.starts_with("ebb "));
    for (const auto part : {"compiler", "OpenBLAS", "threads"}) CHECK_MESSAGE(contains(r.out, part), part);
  }
}

TEST_CASE("mnist: a command that is missing or unknown is a usage error that names those there are") {
  const Mnist mnist;
  const Result none = mnist({});
  CHECK(none.code == 2);
  CHECK(none.out == "");
  for (const auto& c : commands) CHECK_MESSAGE(contains(none.err, c), c);

  const Result r = mnist({"trian"});
  check_usage_error(r, "\"trian\"");
  CHECK(lines(r.err).front().ends_with("did you mean train?"));
  CHECK(contains(r.err, "Try: mnist --help"));
  const Result strange = mnist({"frobnicate"});
  check_usage_error(strange, "unknown command \"frobnicate\"; expected one of " + joined_with_commas(commands));
  CHECK_FALSE(contains(strange.err, "did you mean"));
  check_usage_error(mnist({""}), "\"\"");
}

TEST_CASE("mnist: unknown options, with the nearest one when it is near") {
  const Mnist mnist;
  const auto check = [&](const Args& args, const std::string& line, const std::string& try_this) {
    const Result r = mnist(args);
    check_usage_error(r, "unknown option");
    CHECK(r.err == "mnist: " + line + "\nTry: mnist " + try_this + "--help\n");
  };
  check({"train", "--epocs", "3"}, "unknown option --epocs; did you mean --epochs?", "train ");
  check({"train", "--epocs=3"}, "unknown option --epocs; did you mean --epochs?", "train ");
  check({"predict", "model", "--indx", "3"}, "unknown option --indx; did you mean --index?", "predict ");
  check({"train", "--frobnicate"}, "unknown option --frobnicate", "train ");
  check({"train", "--foo"}, "unknown option --foo", "train ");
  check({"train", "-x"}, "unknown option -x", "train ");
}

TEST_CASE("mnist: bad values are usage errors, told before any data is read") {
  const Mnist mnist;
  struct Row {
    Args args;
    std::string message;
  };
  const std::vector<Row> rows{
      {{"train", "--epochs", "abc"}, "--epochs"},
      {{"train", "--epochs", "1.5"}, "--epochs must be a whole number from 0 to 1000000, got \"1.5\""},
      {{"train", "--epochs", "-1"}, "--epochs"},
      {{"train", "--epochs", "99999999999999999999"}, "--epochs"},
      {{"train", "--epochs"}, "--epochs"},
      {{"train", "--epochs", "1", "--epochs", "2"}, "--epochs"},
      {{"train", "--epochs", "1", "stray"}, "\"stray\""},
      {{"train", "--json=3"}, "--json"},
      {{"train", "--seed", "-1"}, "--seed must be a whole number from 0 to 18446744073709551615, got \"-1\""},
      {{"transfer", "m", "--seed", "-1"}, "--seed must be a whole number from 0 to"},
      {{"train", "--seed", "x"}, "--seed"},
      {{"train", "--batch", "0"}, "--batch"},
      {{"train", "--lr", "nan"}, "--lr"},
      {{"train", "--lr", "-0.1"}, "--lr must be a number from 0 to 1000000, got -0.1"},
      {{"train", "--lr", "0,01"}, "--lr must be a number from 0 to 1000000, got \"0,01\"; did you mean 0.01?"},
      {{"train", "--lr", "fast"}, "--lr must be a number from 0 to 1000000, got \"fast\""},
      {{"train", "--momentum", "1"}, "--momentum"},
      {{"train", "--optimizer", "adm"},
       "unknown optimizer \"adm\"; expected one of sgd, rmsprop, adam, adamw, nadam, adagrad, lion; did you mean "
       "adam?"},
      {{"train", "--optimizer", "RMSProp"}, "did you mean rmsprop?"},
      {{"train", "--activation", "ReLU"}, "did you mean relu?"},
      {{"train", "--schedule", "Cosine"}, "expected one of constant, step, exponential, cosine, one-cycle; did you"},
      {{"train", "--style", "keras4"}, "unknown style \"keras4\"; expected one of keras2.2, keras2, keras3"},
      {{"train", "--color", "yes"}, "unknown color \"yes\"; expected one of auto, always, never"},
      {{"search", "--vary", "optimizer=adam|Sgd"}, "did you mean sgd?"},
      {{"train", "--optimizer", "adam", "--momentum", "0.9"}, "--momentum"},
      {{"train", "--model", "rnn"}, "\"rnn\""},
      {{"train", "--layers", "512,"}, "--layers"},
      {{"train", "--layers", "5x"}, "--layers"},
      {{"train", "--layers", "99999999999"}, "99999999999"},
      {{"train", "--activation", "rleu"}, "\"rleu\""},
      {{"train", "--dropout", "1"}, "--dropout"},
      {{"train", "--dropout", "nan"}, "--dropout"},
      {{"train", "--model", "cnn", "--kernel", "0"}, "kernel"},
      {{"train", "--model", "cnn", "--pool", "0"}, "pool"},
      {{"train", "--model", "cnn", "--kernel", "29"}, "--kernel must be a whole number from 1 to 28, got 29"},
      {{"train", "--arch", "conv 8 40, flatten, dense 10"}, "40x40"},
      {{"train", "--arch", ""}, "a layer is expected"},
      {{"train", "--arch", "flatten, dnse 10"}, "\"dnse\""},
      {{"train", "--arch", "flatten, dense 0"}, "units"},
      {{"train", "--arch", "flatten, dense 10 softmax"}, "leave out the softmax"},
      {{"train", "--arch", "nowhere.json"}, "nowhere.json cannot be read"},
      {{"train", "--threads", "0"}, "--threads"},
      {{"train", "--threads", "100000"}, "--threads"},
      {{"train", "--dataset", "mnits"}, "\"mnits\""},
      {{"train", "--validation", "tset"}, "\"tset\""},
      {{"train", "--validation-split", "1"}, "--validation-split"},
      {{"train", "--validation", "test", "--validation-split", "0.1"}, "--validation"},
      {{"train", "--schedule", "linear"}, "\"linear\""},
      {{"train", "--augment", "turn 3"}, "\"turn 3\""},
      {{"train", "--augment", "shift"}, "--augment"},
      {{"train", "--augment=shift -2"}, "not negative"},
      {{"train", "--label-smoothing", "1"}, "--label-smoothing"},
      {{"train", "--save", ""}, "--save"},
      {{"train", "--optimizer", "lion", "--momentum", "0.9"}, "--momentum"},
      {{"train", "--weight-decay", "-1"}, "--weight-decay"},
      {{"train", "--rmsprop-eps", "inside"}, "--rmsprop-eps"},
      {{"train", "--optimizer", "rmsprop", "--rmsprop-eps", "within"}, "\"within\""},
      {{"train", "--schedule", "cosin"}, "\"cosin\""},
      {{"train", "--schedule", "one-cycle", "--warmup", "1"}, "--warmup"},
      {{"train", "--schedule", "cosine", "--reduce-lr", "2", "--monitor", "loss"}, "--reduce-lr"},
      {{"train", "--early-stopping", "3"}, "val_loss"},
      {{"train", "--early-stopping", "-1", "--monitor", "loss"}, "--early-stopping"},
      {{"train", "--restore-best"}, "--restore-best"},
      {{"train", "--ema", "1"}, "--ema"},
      {{"train", "--clip-norm", "-1"}, "--clip-norm"},
      {{"train", "--class-weight", "even"}, "\"even\""},
      {{"train", "--stratify"}, "--stratify"},
      {{"train", "--split-seed", "-1"}, "--split-seed"},
      {{"train", "--verbose", "3"}, "--verbose"},
      {{"train", "--style", "keras9"}, "keras9"},
      {{"train", "--color", "red"}, "\"red\""},
      {{"train", "--checkpoint-every", "2"}, "--save"},
      {{"train", "--checkpoint-every", "0", "--save", "x"}, "--checkpoint-every"},
      {{"summary", "--style", "keras9"}, "keras9"},
      {{"evaluate"}, "which model"},
      {{"evaluate", "a", "b"}, "only one"},
      {{"predict", "model", "--index", "1,a"}, "--index"},
      {{"summary", "--kernel", "40", "--model", "cnn"}, "--kernel must be a whole number from 1 to 28, got 40"},
      {{"train", "--optimizer", "adam", "--optimizer", "sgd"}, "--optimizer"},
      {{"graph", "--batch", "0"}, "--batch"},
  };
  for (const Row& row : rows) {
    std::string words;
    for (const auto& word : row.args) words += word + " ";
    CAPTURE(words);
    check_usage_error(mnist(row.args), row.message);
  }
}

TEST_CASE("mnist: when there is no data, the places looked at are listed") {
  const Mnist mnist;
  const Result none = mnist({"train"});
  check_failure(none, "mnist was not found");
  for (const auto place : {"/.local/share/ebb/mnist: ", "/system/ebb/mnist: ", "/.cache/ebb/mnist: "})
    CHECK_MESSAGE(contains(none.err, place), place);
  for (const auto way : {"fetch-mnist", "--data", "EBB_DATA", "--dataset synthetic"})
    CHECK_MESSAGE(contains(none.err, way), way);

  const std::string folder = (mnist / "nowhere").string();
  check_failure(mnist({"train", "--data", folder}), "\n  " + folder + ": ");
  check_failure(mnist({"train"}, {.environment = {{"EBB_DATA", folder}}}), "\n  " + folder + ": ");
  check_failure(mnist({"train", "--dataset", "fashion", "--data", folder}), "fashion-mnist was not found");
}

TEST_CASE("mnist: EBB_DATA names the data, --data comes first") {
  Mnist mnist;
  const Args quick{"train", "--epochs", "0", "--arch", "flatten, dense 10"};
  CHECK(mnist(quick, {.environment = {{"EBB_DATA", mnist.digits()}}}).code == 0);
  const std::map<std::string, std::string> nowhere{{"EBB_DATA", (mnist / "nowhere").string()}};
  CHECK(mnist(quick, {.environment = nowhere}).code == 1);
  CHECK(mnist(joined(quick, {"--data", mnist.digits()}), {.environment = nowhere}).code == 0);
}

TEST_CASE("mnist: broken data and model files fail with one line that names the file") {
  Mnist mnist;
  const fs::path images = fs::path(mnist.digits()) / "t10k-images-idx3-ubyte";
  const fs::path model = mnist / "model.safetensors";
  REQUIRE(mnist(mnist.tiny({"--save", model.string()})).code == 0);
  const auto check = [&](const Args& args, const fs::path& file) {
    const Result r = mnist(args);
    check_failure(r, file.string());
    CHECK(lines(r.err).size() == 1);
  };

  const std::string whole = contents(model);
  const Args evaluate{"evaluate", model.string(), "--data", mnist.digits()};
  const auto put = [&](const std::string& text) { std::ofstream(model, std::ios::binary) << text; };
  for (const std::size_t length : {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() - 1}) {
    CAPTURE(length);
    put(whole.substr(0, length));
    check(evaluate, model);
  }
  put("this is a text, not a model");
  check(evaluate, model);
  for (const std::string scale : {"abc", "nan", ""}) {  // metadata that the program itself reads
    CAPTURE(scale);
    std::string changed = whole;
    const std::size_t begin = changed.find("\"scale\":\"") + 9, end = changed.find('"', begin);
    changed.replace(begin, scale.size(), scale)
        .replace(begin + scale.size(), end - begin - scale.size(), end - begin - scale.size(), ' ');
    put(changed);
    check(evaluate, model);
  }
  check({"evaluate", (mnist / "nothing").string(), "--data", mnist.digits()}, mnist / "nothing");
  check({"summary", (mnist / "nothing").string()}, mnist / "nothing");
  check({"graph", mnist.files().string()}, mnist.files());

  fs::resize_file(images, fs::file_size(images) - 1);
  check(mnist.tiny(), images);
  fs::remove(images);
  check_failure(mnist(mnist.tiny()), "t10k-images-idx3-ubyte is missing");
}

TEST_CASE("mnist: a --save that cannot be written fails before training and leaves nothing") {
  Mnist mnist;
  mnist.digits();
  const std::string taken = (mnist / "taken").string();
  std::ofstream(taken) << "precious";
  fs::create_symlink(mnist / "missing" / "file", mnist / "link");
  const auto before = names_in(mnist.files());
  const auto check = [&](const std::string& file, std::string_view message, const Args& more = {}) {
    CAPTURE(file);
    const Result r = mnist(joined(mnist.tiny(more), {"--save", file, "--limit", "16"}));
    check_failure(r, message);
    CHECK(contains(r.err, file));
    CHECK(lines(r.err).size() == 1);
    CHECK_FALSE(contains(r.err, "Epoch"));
  };
  check((mnist / "missing" / "model").string(), "No such");
  check(mnist.files().string(), "Is a directory");
  check(taken, "--force");
  check(taken + "/model", "Not a directory");
  check((mnist / "link").string(), "No such", {"--force"});
  check((mnist / std::string(300, 'x')).string(), "File name too long");
  CHECK(names_in(mnist.files()) == before);
  CHECK(contents(taken) == "precious");

  CHECK(mnist(mnist.tiny({"--save", taken, "--force"})).code == 0);
  CHECK(contents(taken) != "precious");
  CHECK(names_in(mnist.files()) == before);
}

#endif
