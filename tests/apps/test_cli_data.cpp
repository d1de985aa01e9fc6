// mnist data, plot, and what evaluate and predict tell beyond one number.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: data and evaluation") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <nlohmann/json.hpp>

#include "run_mnist.h"

using namespace cli;

using nlohmann::json;

namespace {

Result ran(const Mnist& mnist, const Args& args) {
  const Result r = mnist(args);
  CAPTURE(r);
  CHECK(r.code == 0);
  return r;
}

json json_of(const Mnist& mnist, Args args) {
  args.push_back("--json");
  const Result r = ran(mnist, args);
  CHECK(lines(r.out).size() == 1);
  return json::parse(r.out);
}

}  // namespace

TEST_CASE("mnist data: shapes, the first digit, counts and shares") {
  Mnist mnist;
  const Result r = ran(mnist, {"data", "--data", mnist.digits()});
  CHECK(r.err == "");
  for (const std::string part : {"train  images uint8 (512, 28, 28), labels uint8 (512,)\n",
                                 "test   images uint8 (64, 28, 28), labels uint8 (64,)\n",
                                 "train image 0: label 0, one-hot [1. 0. 0. 0. 0. 0. 0. 0. 0. 0.]\n",
                                 "  mean pixel 9.107143, divided by 255 0.03571429\n",  // a line of 255 in 28
                                 "\n    0       52  0.101562        7  0.109375       59  0.102431\n"})
    CHECK_MESSAGE(contains(r.out, part), part << r.out);
  CHECK(contains(r.out, "largest to smallest class: 1.020 in train, 1.167 in test\n"));

  const json all = json_of(mnist, {"data", "--data", mnist.digits(), "--part", "test", "--image", "3,1"});
  CHECK(all["train"]["shape"] == json{512, 28, 28});
  CHECK(all["train"]["dtype"] == "uint8");
  CHECK(all["all"]["counts"]["0"] == 59);
  CHECK(all["images"][0]["index"] == 3);
  CHECK(all["images"][0]["label"] == 1);  // 3 * 7 % 10
  CHECK(all["images"][0]["one_hot"] == json{0, 1, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK_FALSE(all.contains("split"));
}

TEST_CASE("mnist data: a split, drawn as training draws it") {
  Mnist mnist;
  const json d = json_of(mnist, {"data", "--data", mnist.digits(), "--test-size", "100", "--split-seed", "0"});
  CHECK(d["train"]["shape"][0] == 476);
  CHECK(d["test"]["shape"][0] == 100);
  CHECK(d["split"]["first_test_rows"] == json{414, 96, 480, 318, 540});  // RandomState(0).permutation(576)
  const json s = json_of(mnist, {"data", "--data", mnist.digits(), "--test-size", "100", "--stratify"});
  for (const auto& [digit, count] : s["test"]["counts"].items()) {
    CHECK(count.get<int>() >= 9);
    CHECK(count.get<int>() <= 11);
  }
  CHECK(contains(ran(mnist, {"data", "--data", mnist.digits(), "--test-size", "100"}).out,
                 "test begins with rows 414, 96, 480, 318, 540 of all"));
}

TEST_CASE("mnist data: pictures") {
  Mnist mnist;
  const std::string png = (mnist / "d.png").string();
  const Result r = ran(
      mnist, {"data", "--data", mnist.digits(), "--image", "0,1,2", "--png", png, "--zoom", "2", "--colors", "binary"});
  CHECK(contains(r.out, png + ": 3 digits\n"));
  const std::string file = contents(png);
  CHECK(file.starts_with("\x89PNG"));
  CHECK(file.substr(16, 8) == std::string("\0\0\0\xa8\0\0\0\x38", 8));  // 168 by 56
}

TEST_CASE("mnist evaluate: report, confusion matrix, areas, top-k and drawings agree with one another") {
  Mnist mnist;
  const std::string model = (mnist / "m").string(), plot = (mnist / "c.svg").string(), roc = (mnist / "r.svg").string();
  ran(mnist, mnist.tiny({"--save", model, "--batch", "64"}));
  const Args args{"evaluate", model, "--data", mnist.digits()};
  const json d =
      json_of(mnist, joined(args, {"--report", "--confusion", "--auc", "--top-k", "3", "--plot", plot, "--roc", roc}));
  double right = 0, all = 0;
  for (std::size_t i = 0; i < 10; ++i) {
    double row = 0;
    for (std::size_t j = 0; j < 10; ++j) row += d["confusion"][i][j].get<double>();
    CHECK(d["report"]["classes"][i]["support"] == row);
    right += d["confusion"][i][i].get<double>();
    all += row;
  }
  CHECK(all == 64);
  CHECK(d["test_accuracy"].get<double>() == doctest::Approx(right / all));
  CHECK(d["report"]["weighted"]["recall"].get<double>() == doctest::Approx(right / all));
  CHECK(d["top_k"]["k"] == 3);
  CHECK(d["top_k"]["accuracy"].get<double>() >= d["test_accuracy"].get<double>());
  CHECK(d["auc"].size() == 10);
  double sum = 0;
  for (const auto& area : d["auc"]) sum += area["roc"].get<double>();
  CHECK(d["macro_auc"].get<double>() == doctest::Approx(sum / 10));
  CHECK(right > 0);
  CHECK(right < 64);  // or the matrix would show no more than the labels
  CHECK(d["macro_auc"].get<double>() > 0.5);
  for (const std::string& file : {plot, roc}) {
    CHECK(contents(file).starts_with("<svg"));
    CHECK(contents(file).ends_with("</svg>\n"));
  }

  const Result text = ran(mnist, joined(args, {"--report", "--confusion", "--auc", "--top-k", "3"}));
  for (const std::string part : {"test accuracy 0.", "top-3 accuracy ", "precision    recall  f1-score   support",
                                 "\nweighted avg ", "\nactual   predicted\n", "average precision\n"})
    CHECK_MESSAGE(contains(text.out, part), part << text.out);
  CHECK(lines(ran(mnist, args).out).size() == 1);
  check_failure(mnist(joined(args, {"--plot", (mnist / "missing" / "c.svg").string()})), "cannot write");
}

TEST_CASE("mnist evaluate, predict: the test samples are those of the training's split") {
  Mnist mnist;
  const std::string model = (mnist / "m").string();
  const json trained =
      json_of(mnist, mnist.tiny({"--save", model, "--test-size", "100", "--split-seed", "7", "--stratify"}));
  const Args args{"evaluate", model, "--data", mnist.digits()};
  const json own = json_of(mnist, joined(args, {"--confusion"}));
  CHECK(own["test_loss"] == trained["test_loss"]);
  const Result note = mnist(args);
  CHECK(note.err == "note: split as in the training of " + model + ": --test-size=100 --split-seed=7 --stratify\n");
  const Args same{"--test-size", "100", "--split-seed", "7", "--stratify"};
  CHECK(json_of(mnist, joined(args, same))["test_loss"] == trained["test_loss"]);
  const json other = json_of(mnist, joined(args, {"--test-size", "50", "--confusion"}));
  int n = 0;
  for (const auto& row : other["confusion"])
    for (const auto& count : row) n += count.get<int>();
  CHECK(n == 50);
  const json digits =
      json_of(mnist, {"predict", model, "--data", mnist.digits(), "--test-size", "100", "--index", "0"});
  CHECK(digits[0]["label"] == (414 * 7) % 10);  // row 414 of all is the first of that split
}

TEST_CASE("mnist plot: trainings and logs, to a file or standard output") {
  Mnist mnist;
  const std::string model = (mnist / "run.safetensors").string(), log = (mnist / "log.csv").string(),
                    svg = (mnist / "p.svg").string();
  ran(mnist, {"train", "--data", mnist.digits(), "--epochs", "3", "--arch", "flatten, dense 10", "--validation", "test",
              "--save", model, "--log-csv", log});
  const Result one = ran(mnist, {"plot", model});
  CHECK(one.out.starts_with("<svg"));
  CHECK(contains(one.out, ">validation</text>"));
  CHECK(ran(mnist, {"plot", log}).out == one.out);  // the same numbers
  const Result two = ran(mnist, {"plot", model, log, "--svg", svg, "--names", "first, second"});
  CHECK(two.out == svg + ": 3 epochs of first\n" + svg + ": 3 epochs of second\n");
  CHECK(contains(contents(svg), ">second</text>"));
  CHECK(contains(contents(svg), ">Validation loss</text>"));
  const json d = json_of(mnist, {"plot", log});
  CHECK(d["trainings"][0]["name"] == "log");
  CHECK(d["trainings"][0]["history"]["val_loss"].size() == 3);
  std::ofstream(log) << "epoch,loss\n0,x\n";
  check_failure(mnist({"plot", log}), "log.csv: line 2: \"x\" is not a number");
  const std::string bare = (mnist / "bare").string();
  ran(mnist, {"train", "--data", mnist.digits(), "--epochs", "0", "--arch", "flatten, dense 10", "--save", bare});
  check_failure(mnist({"plot", bare}), "holds no history of a training");
}

TEST_CASE("mnist data, plot, evaluate: bad values are usage errors") {
  const Mnist mnist;
  check_usage_error(mnist({"data", "--part", "both"}), "unknown part \"both\"; expected one of train, test");
  check_usage_error(mnist({"data", "--colors", "red"}), "unknown colors \"red\"; expected one of gray, binary");
  check_usage_error(mnist({"data", "--zoom", "0"}), "--zoom must be a whole number from 1 to 100, got 0");
  check_usage_error(mnist({"data", "--image", ""}), "--image takes 1 to 1000 numbers");
  check_usage_error(mnist({"data", "--png", ""}), "--png needs the name of a file");
  check_usage_error(mnist({"data", "--stratify"}), "--stratify belongs to --test-size");
  check_usage_error(mnist({"data", "--dataset", "synthetic", "--image", "-1"}), "--image must be 0 to ");
  check_usage_error(mnist({"data", "--dataset", "synthetic", "--test-size", "0"}), "--test-size: ");
  check_usage_error(mnist({"plot"}), "which training?");
  check_usage_error(mnist({"plot", "a", "b", "--names", "x"}), "--names gives 1 names for 2 files");
  check_usage_error(mnist({"evaluate", "m", "--top-k", "11"}), "--top-k must be a whole number from 1 to 10, got 11");
  check_usage_error(mnist({"evaluate", "m", "--colors", "red"}),
                    "unknown colors \"red\"; expected one of diverging, sequential");
  check_usage_error(mnist({"evaluate", "m", "--split-seed", "-1"}), "--split-seed");
}

#endif
