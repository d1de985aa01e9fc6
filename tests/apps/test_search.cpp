// mnist search, through the program.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist search") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <nlohmann/json.hpp>

#include <set>

#include "run_mnist.h"

using namespace cli;
using nlohmann::json;

namespace {

Args search(Mnist& mnist, const Args& more) {
  return joined({"search", "--data", mnist.digits(), "--layers", "", "--batch", "32"}, more);
}

}  // namespace

TEST_CASE("mnist search: every combination, the best first, the test set once") {
  Mnist mnist;
  const std::string model = (mnist / "best.safetensors").string();
  const Result r = mnist(search(mnist, {"--vary", "lr=1e-9|0.01", "--vary", "optimizer=adam|rmsprop", "--epochs", "2",
                                        "--json", "--quiet", "--save", model}));
  CAPTURE(r);
  REQUIRE(r.code == 0);
  CHECK(r.err == "");
  const json j = json::parse(r.out);
  REQUIRE(j.at("trials").size() == 4);
  std::set<std::pair<std::string, std::string> > seen;
  double last = 2;
  for (const json& t : j["trials"]) {
    seen.emplace(t.at("setting").at("lr"), t.at("setting").at("optimizer"));
    CHECK(t.at("best_val_accuracy").get<double>() <= last);
    last = t.at("best_val_accuracy");
  }
  CHECK(seen.size() == 4);
  CHECK(j["trials"][0].at("setting").at("lr") == "0.01");
  CHECK(j.at("test_accuracy") > 0.5);
  const Result evaluated = mnist({"evaluate", model, "--data", mnist.digits(), "--json"});
  REQUIRE(evaluated.code == 0);
  CHECK(json::parse(evaluated.out).at("test_accuracy") == j.at("test_accuracy"));
}

TEST_CASE("mnist search: draws at random are the seed's, from lists and ranges") {
  Mnist mnist;
  const Args args = search(mnist, {"--vary", "lr=0.0001..0.1", "--vary", "batch=32|64", "--trials", "5", "--epochs",
                                   "1", "--json", "--quiet"});
  Args without_batch;
  for (std::size_t i = 0; i < args.size(); ++i)
    if (args[i] == "--batch") ++i;
    else without_batch.push_back(args[i]);
  const Result a = mnist(without_batch), b = mnist(without_batch);
  CAPTURE(a);
  REQUIRE(a.code == 0);
  const auto settings = [](const Result& r) {
    json out = json::array();
    const json parsed = json::parse(r.out);
    for (const json& t : parsed.at("trials")) out.push_back(t.at("setting"));
    return out;
  };
  CHECK(settings(a) == settings(b));
  REQUIRE(settings(a).size() == 5);
  for (const json& s : settings(a)) {
    const double lr = std::stod(s.at("lr").get<std::string>());
    CHECK(lr >= 0.0001);
    CHECK(lr <= 0.1);
  }
}

TEST_CASE("mnist search: gives up on what falls behind the median, unless told not to") {
  Mnist mnist;
  const Args four{"--vary", "lr=0.01|0.02|0.03|1e-9", "--epochs", "4"};
  const Result r = mnist(search(mnist, four));
  CAPTURE(r);
  REQUIRE(r.code == 0);
  const auto text = lines(r.out);
  REQUIRE(text.size() == 6);
  CHECK(contains(text[4], "lr=1e-9"));
  CHECK(text[4].ends_with("stopped early"));
  CHECK(contains(text[5], "on the test set"));
  CHECK_FALSE(contains(mnist(search(mnist, joined(four, {"--no-stop"}))).out, "stopped early"));
}

TEST_CASE("mnist search: a trial that fails costs itself alone, the best so far is saved after every trial") {
  Mnist mnist;
  const std::string model = (mnist / "best").string();
  const Result r = mnist({"search", "--data", mnist.digits(), "--arch",
                          "flatten, dense 64 relu, dense 64 relu, dense 10", "--optimizer", "sgd", "--batch", "64",
                          "--raw", "--vary", "lr=1e6|1e-6|1e-7", "--epochs", "4", "--json", "--save", model});
  CAPTURE(r);
  CHECK(r.code == 0);
  const json j = json::parse(r.out);
  REQUIRE(j.at("trials").size() == 3);
  CHECK(j["trials"][2].at("setting").at("lr") == "1e6");
  CHECK(j["trials"][2].contains("failed"));
  CHECK_FALSE(j["trials"][0].contains("failed"));
  CHECK(mnist({"evaluate", model, "--data", mnist.digits()}).code == 0);

  fs::remove(model);
  const Result cut =
      mnist(search(mnist, {"--vary", "epochs=1|1000000", "--save", model}), {.signal = SIGTERM, .when = "1/2: "});
  CAPTURE(cut);
  CHECK(cut.code == 143);
  CHECK(contains(cut.err, "interrupted after 1 of 2 trials; " + model + " holds the best so far: epochs=1"));
  CHECK(mnist({"evaluate", model, "--data", mnist.digits()}).code == 0);
}

TEST_CASE("mnist search: what it refuses") {
  Mnist mnist;
  check_usage_error(mnist({"search"}), "nothing to search");
  check_usage_error(mnist(search(mnist, {"--vary", "lr"})), "NAME=VALUE");
  check_usage_error(mnist(search(mnist, {"--vary", "layer=3"})),
                    "--vary: unknown option \"layer\"; expected one of model, layers");
  check_usage_error(mnist(search(mnist, {"--vary", "batch=1|2"})), "both given and varied");
  check_usage_error(mnist(search(mnist, {"--vary", "lr=1|2", "--vary", "lr=3"})), "twice");
  check_usage_error(mnist(search(mnist, {"--vary", "lr=0.1..0.2"})), "needs --trials");
  check_usage_error(mnist(search(mnist, {"--vary", "lr=2..1", "--trials", "3"})), "no range");
  check_usage_error(mnist(search(mnist, {"--vary", "dropout=0|2"})), "--dropout");
  check_usage_error(mnist(search(mnist, {"--vary", "lr=1|2", "--validation", "test"})), "choose by the test set");
  // What only the data tell, before the first trial
  const Result far = mnist(search(mnist, {"--vary", "limit=400|100000", "--epochs", "1"}));
  check_usage_error(far, "--limit must be 1 to 512, got 100000");
  CHECK_FALSE(contains(far.err, "1/2"));
  check_failure(mnist(search(mnist, {"--vary", "lr=0.1|0.2", "--limit", "1"})),
                "validation_split: 0.1 of 1 samples leaves an empty part");
}

#endif
