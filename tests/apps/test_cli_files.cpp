// What the program mnist must never lose: what is wrong is told before training, and a bad result replaces no good one.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: its files") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <ebb/models/layers/architecture.h>
#include <ebb/models/train/finite.h>
#include <ebb/models/train/serialize.h>
#include <ebb/ops/ops.h>

#include <sys/stat.h>

#include <cmath>

#include "run_mnist.h"

using namespace cli;

namespace {

/// A model whose first weight is such a number.
std::string model_with(Mnist& mnist, double number) {
  ebb::Sequential net({28, 28, 1}, ebb::parse_architecture("flatten, dense 10, dense 10"));
  ebb::named_tensors(net)[0].tensor->mutable_values<float>()[0] = static_cast<float>(number);
  const fs::path file = mnist / "model";
  ebb::save_model(net, "flatten, dense 10, dense 10", file);
  return file.string();
}

void check_before_training(const Result& r) {
  CAPTURE(r);
  CHECK(!contains(r.err, "Epoch"));
  CHECK(!contains(r.err, "training on"));
}

}  // namespace

TEST_CASE("mnist: a test or training set without a sample is refused before training, by every command") {
  for (const std::string part : {"t10k", "train"}) {
    Mnist mnist;
    const std::string data = mnist.digits(), net = model_with(mnist, 0.5);
    ebb::write_idx(fs::path(data) / (part + "-images-idx3-ubyte"), ebb::Tensor::empty({0, 28, 28}, ebb::u8));
    ebb::write_idx(fs::path(data) / (part + "-labels-idx1-ubyte"), ebb::Tensor::empty({0}, ebb::u8));
    for (const Args& args : {Args{"train", "--epochs", "1"}, Args{"data"}, Args{"evaluate", net}, Args{"predict", net},
                             Args{"transfer", net}, Args{"search", "--vary", "layers=8|16"},
                             Args{"reproduce", "--quick", "--out", (mnist / "out").string()}}) {
      CAPTURE(args.front());
      const Result r = mnist(joined(args, {"--data", data}));
      check_failure(r, data + "/" + part + "-images-idx3-ubyte: expected at least one image, found none");
      check_before_training(r);
    }
  }
}

TEST_CASE("mnist: what cannot be written is told before training") {
  Mnist mnist;
  const std::string pipe = (mnist / "pipe").string(), lost = (mnist / "none" / "f").string(),
                    folder = mnist.files().string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const auto check = [&](const Args& args, const std::string& message) {
    const Result r = mnist(joined(args, {"--data", mnist.digits()}));
    check_failure(r, message);
    check_before_training(r);
  };
  const std::string net = model_with(mnist, 0.5);
  for (const Args& args : {Args{"train", "--save"}, Args{"train", "--log-csv"},
                           Args{"search", "--vary", "layers=8|16", "--save"}, Args{"transfer", net, "--save"},
                           Args{"data", "--png"}, Args{"evaluate", net, "--plot"}, Args{"evaluate", net, "--roc"}}) {
    CAPTURE(args.back());
    check(joined(args, {pipe}), pipe + ": cannot write: nobody reads from this pipe");
    check(joined(args, {lost}), lost + ": cannot write: No such directory");
    check(joined(args, {folder}), folder + ": cannot write: Is a directory");
  }
  check_failure(mnist({"plot", net, "--svg", lost}), lost + ": cannot write: No such directory");
  check_failure(mnist({"export", net, "--npz", pipe}), pipe + ": cannot write: nobody reads from this pipe");
}

TEST_CASE("mnist: a pipe that is read gets the model once, and nothing else") {
  Mnist mnist;
  const std::string pipe = (mnist / "pipe").string(), copy = (mnist / "copy").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const pid_t reader = ::fork();
  REQUIRE(reader >= 0);
  if (reader == 0) {
    ::execlp("cp", "cp", pipe.c_str(), copy.c_str(), nullptr);
    ::_exit(127);
  }
  Result r;
  do r = mnist(mnist.tiny({"--save", pipe, "--quiet"}));
  while (contains(r.err, "nobody reads"));  // it has not begun yet
  int status = 0;
  ::waitpid(reader, &status, 0);
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(status == 0);
  CHECK(mnist({"evaluate", copy, "--data", mnist.digits()}).code == 0);
}

TEST_CASE("mnist: an empty name of a file is refused by every command that saves") {
  Mnist mnist;
  const std::string net = model_with(mnist, 0.5);
  for (const Args& args : {Args{"train"}, Args{"search", "--vary", "layers=8|16"}, Args{"transfer", net}})
    check_usage_error(mnist(joined(args, {"--data", mnist.digits(), "--save", ""})), "--save needs the name of a file");
}

TEST_CASE("mnist: two options that name one file are a usage error, and it stays") {
  Mnist mnist;
  const std::string net = model_with(mnist, 0.5), before = contents(net), data = mnist.digits(),
                    other = (mnist / "new").string();
  fs::create_symlink(net, mnist / "link");
  const std::string link = (mnist / "link").string(), folder = mnist.files().string();
  check_usage_error(mnist({"train", "--data", data, "--save", other, "--log-csv", folder + "/./new"}),
                    "--save and --log-csv are the same file");
  check_usage_error(mnist({"evaluate", net, "--data", data, "--plot", link}),
                    "the file read and --plot are the same file");
  check_usage_error(mnist({"evaluate", net, "--data", data, "--plot", other, "--roc", other}),
                    "--plot and --roc are the same file");
  check_usage_error(mnist({"evaluate", net, "--data", data, "--plot", "ebb-test.svg", "--roc", "./ebb-test.svg"}),
                    "--plot and --roc are the same file");
  check_usage_error(mnist({"plot", net, "--svg", net}), "the file read and --svg are the same file");
  check_usage_error(mnist({"export", net, "--npz", link, "--force"}), "the file read and --npz are the same file");
  CHECK(contents(net) == before);
  CHECK(!fs::exists(other));
}

TEST_CASE("mnist: no output replaces an input, and an existing file only with --force") {
  Mnist mnist;
  const std::string data = mnist.digits(), net = model_with(mnist, 0.5), other = (mnist / "other").string(),
                    pixels = data + "/t10k-images-idx3-ubyte";
  const std::string before = contents(net), images = contents(pixels);
  fs::create_symlink(pixels, mnist / "pixels");
  check_usage_error(mnist({"graph", net, "--dot", net, "--force"}), "the file read and --dot are the same file");
  check_usage_error(mnist({"transfer", net, "--data", data, "--save", net, "--force"}),
                    "the file read and --save are the same file");
  for (const Args& args : {Args{"data", "--png"}, Args{"evaluate", net, "--roc"}, Args{"train", "--log-csv"},
                           Args{"train", "--save"}, Args{"search", "--vary", "layers=8|16", "--save"}})
    check_usage_error(mnist(joined(args, {(mnist / "pixels").string(), "--data", data, "--force"})),
                      "a file of the data and --");
  CHECK(contents(net) == before);
  CHECK(contents(pixels) == images);
  std::ofstream(other) << "precious";
  const Result trained = mnist(mnist.tiny({"--save", (mnist / "run").string(), "--quiet"}));
  REQUIRE(trained.code == 0);
  const std::string run = (mnist / "run").string();
  for (const Args& args :
       {Args{"graph", net, "--dot", other}, Args{"data", "--data", data, "--png", other},
        Args{"evaluate", net, "--data", data, "--plot", other}, Args{"evaluate", net, "--data", data, "--roc", other},
        Args{"plot", run, "--svg", other}, mnist.tiny({"--quiet", "--log-csv", other})}) {
    std::ofstream(other) << "precious";
    check_failure(mnist(args), other + ": exists already; choose another name, or --force to overwrite it");
    CHECK(contents(other) == "precious");
    CHECK(mnist(joined(args, {"--force"})).code == 0);
    CHECK(contents(other) != "precious");
  }
}

TEST_CASE("mnist train: a file that exists and holds a training can also be gone on with, which is said") {
  Mnist mnist;
  const std::string run = (mnist / "run").string(), weights = (mnist / "weights").string();
  REQUIRE(mnist(mnist.tiny({"--save", run, "--quiet"})).code == 0);
  const std::string before = contents(run),
                    exists = ": exists already; choose another name, or --force to overwrite it";
  check_failure(mnist(mnist.tiny({"--save", run})),
                run + exists + "; --resume " + run + " goes on with the training in it, after 1 epochs\n");
  CHECK(contents(run) == before);
  REQUIRE(mnist({"export", run, "--safetensors", weights}).code == 0);
  check_failure(mnist(mnist.tiny({"--save", weights})), weights + exists + "\n");
  CHECK(mnist({"train", "--data", mnist.digits(), "--resume", run, "--epochs", "2", "--quiet"}).code == 0);
}

TEST_CASE(
    "mnist: the numbered checkpoints of --keep are outputs too, and so are trained models of settings with "
    "architectures") {
  Mnist mnist;
  const std::string run = (mnist / "run").string(), older = (mnist / "run.1").string(),
                    taken = (mnist / "taken").string();
  const Args kept{"--checkpoint-every", "1", "--keep", "2", "--quiet", "--save"};
  REQUIRE(mnist(mnist.tiny({"--save", older, "--quiet"})).code == 0);
  const std::string before = contents(older);
  check_usage_error(mnist(joined(joined({"train", "--resume", older}, kept), {run, "--epochs", "3", "--force"})),
                    "--resume and --keep are the same file");
  check_failure(mnist(joined(mnist.tiny({}), joined(kept, {run}))), older + ": exists already");
  CHECK(contents(older) == before);
  fs::remove(older);
  check_usage_error(mnist(joined(mnist.tiny({"--log-csv", older}), joined(kept, {run}))),
                    "--log-csv and --keep are the same file");
  std::ofstream(taken + ".json") << "{}";
  check_usage_error(mnist({"search", "--data", mnist.digits(), "--vary", "arch=flatten, dense 10|" + taken + ".json",
                           "--save", taken + ".json", "--force"}),
                    "");
  CHECK(contents(taken + ".json") == "{}");
}

TEST_CASE("mnist: names that are not UTF-8 lose no result") {
  Mnist mnist;
  const std::string net = model_with(mnist, 0.5), odd = (mnist / "n\xff").string(), out = (mnist / "out").string();
  const Result r = mnist(mnist.tiny({"--save", odd, "--json", "--quiet"}));
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(contains(r.out, "n\xef\xbf\xbd\""));
  CHECK(mnist({"export", odd, "--npz", odd + ".npz", "--json"}).code == 0);
  fs::copy_file(net, odd, fs::copy_options::overwrite_existing);
  CHECK(mnist({"transfer", odd, "--data", mnist.digits(), "--epochs", "1", "--head-epochs", "1", "--no-baseline",
               "--quiet", "--json", "--save", out})
            .code == 0);
  CHECK(ebb::load_model(out).metadata.at("transferred_from").ends_with("n\xef\xbf\xbd"));
}

TEST_CASE("mnist evaluate: the results are told before a drawing fails") {
  Mnist mnist;
  const std::string net = model_with(mnist, 0.5), data = mnist.digits();
  const Result full = mnist({"evaluate", net, "--data", data, "--plot", "/dev/full"});
  CAPTURE(full);
  CHECK(full.code == 1);
  CHECK(full.out.starts_with("test accuracy "));
  CHECK(contains(full.err, "/dev/full: cannot write: No space left on device"));
  ebb::write_idx(fs::path(data) / "t10k-labels-idx1-ubyte", ebb::Tensor::from(std::vector<std::uint8_t>(64, 3), {64}));
  const Result one = mnist({"evaluate", net, "--data", data, "--json", "--roc", (mnist / "roc.svg").string()});
  CAPTURE(one);
  CHECK(one.code == 1);
  CHECK(contains(one.out, "\"test_accuracy\":"));
}

TEST_CASE("mnist: what nothing measures cannot be watched, nor trials be compared by it") {
  Mnist mnist;
  for (const std::string name : {"bogus", "", "lr"})
    check_usage_error(mnist(mnist.tiny({"--early-stopping", "1", "--monitor", name})),
                      "unknown monitor \"" + name + "\"; expected one of val_loss, val_accuracy, loss, accuracy");
  check_usage_error(mnist({"search", "--data", mnist.digits(), "--vary", "layers=8|16", "--validation-split", "0"}),
                    "holds nothing out");
}

TEST_CASE("mnist: a bad epoch never replaces a good file") {
  Mnist mnist;
  const std::string file = (mnist / "model").string();
  // One step an epoch at a rate of a million: the loss of the first is still a number.
  const Args args{"train",       "--data",  mnist.digits(), "--arch", "flatten, dense 64 relu, dense 64 relu, dense 10",
                  "--optimizer", "sgd",     "--lr",         "1e6",    "--batch",
                  "512",         "--raw",   "--epochs",     "30",     "--save",
                  file,          "--force", "--quiet"};
  const auto epochs_in_file = [&] {
    ebb::SavedModel m = ebb::load_model(file);
    CHECK(ebb::not_finite(m.net) == "");
    return m.history->epochs();
  };
  const Result r = mnist(joined(args, {"--checkpoint-every", "1"}));
  check_failure(r,
                "try a smaller --lr; " + file + " holds the training up to epoch " + std::to_string(epochs_in_file()));

  const std::string before = contents(file);
  check_failure(mnist(args), "try a smaller --lr; " + file + " is not written");
  CHECK(contents(file) == before);
  check_failure(mnist(joined(args, {"--early-stopping", "30", "--monitor", "loss", "--restore-best"})),
                file + " holds the weights of the best epoch");
  CHECK(contents(file) != before);
  const int best = epochs_in_file();
  // What is good in it is of use, and what went wrong is nothing to go on from
  const std::string restored = contents(file);
  CHECK(mnist({"evaluate", file, "--data", mnist.digits()}).code == 0);
  const Result on = mnist({"train", "--resume", file, "--data", (mnist / "none").string(), "--epochs",
                           std::to_string(best + 5), "--quiet"});
  check_failure(on, file + ": layers.");
  CHECK(contains(on.err, " in the weights to go on from: the training went wrong; what the file gives to use is good"));
  CHECK(lines(on.err).size() == 1);
  CHECK(contents(file) == restored);
}

TEST_CASE("mnist: a good file stays where the last step leaves weights that are numbers and a loss that is none") {
  Mnist mnist;
  const std::string file = (mnist / "model").string(), data = mnist.digits();
  const Args deep{
      "--data",
      data,
      "--arch",
      "flatten, dense 16 relu, dense 16 relu, dense 16 relu, dense 16 relu, dense 16 relu, dense 16 relu, dense 10",
      "--batch",
      "512",
      "--epochs",
      "1",
      "--save",
      file,
      "--force",
      "--quiet"};
  REQUIRE(mnist(joined({"train"}, deep)).code == 0);
  const std::string before = contents(file);
  const Args bad = joined({"train", "--lr", "1e6"}, deep);
  check_failure(mnist(bad), "try a smaller --lr; " + file + " is not written");
  CHECK(contents(file) == before);
  check_failure(mnist(joined(bad, {"--validation", "test", "--checkpoint-every", "1"})), "the val_loss became ");
  CHECK(contents(file) == before);
  const std::string other = (mnist / "other").string();
  fs::copy_file(file, other);
  check_failure(mnist({"transfer", file, "--data", data, "--lr", "1e7", "--batch", "512", "--head-epochs", "0",
                       "--epochs", "1", "--no-baseline", "--quiet", "--save", other, "--force"}),
                "try a smaller --lr; " + other + " is as it was");
  CHECK(contents(other) == before);
}

TEST_CASE("mnist: a model with a weight that is no number is refused") {
  for (const double number : {NAN, INFINITY}) {
    Mnist mnist;
    const std::string net = model_with(mnist, number), out = (mnist / "out").string(), data = mnist.digits();
    const std::string message = net + ": layers.1.weight holds " + (std::isnan(number) ? "nan" : "inf") +
                                ": the training that wrote it went wrong";
    check_failure(mnist({"predict", net, "--data", data}), message);
    check_failure(mnist({"predict", net, "--data", data, "--json"}), message);
    check_failure(mnist({"evaluate", net, "--data", data, "--json"}), message);
    check_failure(mnist({"transfer", net, "--data", data, "--save", out}), message);
    check_failure(mnist({"export", net, "--onnx", out}), message);
    CHECK(!fs::exists(out));
    CHECK(mnist({"summary", net}).code == 0);
  }
  // Finite weights can give predictions that are none.
  Mnist mnist;
  ebb::Sequential net({28, 28, 1}, ebb::parse_architecture("flatten, dense 10, dense 10"));
  for (const ebb::NamedTensor& t : ebb::named_tensors(net)) t.tensor->assign(ebb::full(t.tensor->shape(), 3e38));
  const std::string file = (mnist / "model").string(), data = mnist.digits();
  ebb::save_model(net, "flatten, dense 10, dense 10", file);
  check_failure(mnist({"predict", file, "--data", data, "--index", "0"}),
                file + ": what it gives for digit 0 is no number");
  check_failure(mnist({"evaluate", file, "--data", data}), file + ": the loss on these samples is ");
}

TEST_CASE("mnist: a log that cannot be written any more does not end the training") {
  Mnist mnist;
  const std::string file = (mnist / "model").string();
  const Result r = mnist(mnist.tiny({"--save", file, "--log-csv", "/dev/full"}));
  CAPTURE(r);
  CHECK(r.code == 1);
  CHECK(contains(r.out, "saved " + file));
  CHECK(contains(r.err, "warning: /dev/full: cannot write: No space left on device; training goes on without it"));
  CHECK(contains(r.err, "mnist: /dev/full: cannot write: No space left on device"));
  CHECK(mnist({"evaluate", file, "--data", mnist.digits()}).code == 0);
}

TEST_CASE("mnist: a model that cannot be written after all goes elsewhere") {
  Mnist mnist;
  fs::create_directory(mnist / "tmp");
  const Result r =
      mnist(mnist.tiny({"--save", "/dev/full", "--quiet"}), {.environment = {{"TMPDIR", (mnist / "tmp").string()}}});
  check_failure(
      r, "/dev/full: cannot write: No space left on device; the training is in " + (mnist / "tmp").string() + "/ebb-");
  REQUIRE(names_in(mnist / "tmp").size() == 1);
  const std::string kept = (mnist / "tmp" / names_in(mnist / "tmp")[0] / "model.safetensors").string();
  CHECK(contains(r.err, kept));
  CHECK(mnist({"evaluate", kept, "--data", mnist.digits()}).code == 0);
}

TEST_CASE("mnist transfer: a model that cannot be written after all goes elsewhere") {
  Mnist mnist;
  fs::create_directory(mnist / "tmp");
  const std::string net = model_with(mnist, 0.5);
  const Result r = mnist({"transfer", net, "--data", mnist.digits(), "--head-epochs", "1", "--epochs", "0",
                          "--no-baseline", "--save", "/dev/full", "--quiet"},
                         {.environment = {{"TMPDIR", (mnist / "tmp").string()}}});
  check_failure(
      r, "/dev/full: cannot write: No space left on device; the training is in " + (mnist / "tmp").string() + "/ebb-");
  REQUIRE(names_in(mnist / "tmp").size() == 1);
  CHECK(mnist({"evaluate", (mnist / "tmp" / names_in(mnist / "tmp")[0] / "model.safetensors").string(), "--data",
               mnist.digits()})
            .code == 0);
}

TEST_CASE("mnist plot: what holds no epoch of a training is told in one line") {
  Mnist mnist;
  const std::string log = (mnist / "log.csv").string(), net = model_with(mnist, 0.5), none = (mnist / "none").string();
  const auto check = [&](const std::string& text, const std::string& message) {
    std::ofstream(log) << text;
    const Result r = mnist({"plot", log});
    check_failure(r, message);
    CHECK(lines(r.err).size() == 1);
  };
  check("epoch,loss\n", log + ": holds no history of a training");
  check("", log + ": ");
  check("epoch,accuracy\n0,1\n", "loss");
  check_failure(mnist({"plot", net}), net + ": holds no history of a training");
  check_failure(mnist({"plot", none}), none + ": cannot read: No such file or directory");
  std::ofstream(log) << "\"epoch\",\"loss\"\n\"0\",\"0.5\"\n";
  CHECK(mnist({"plot", log}).code == 0);
}

#endif
