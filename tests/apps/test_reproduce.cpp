// mnist reproduce and mnist transfer, through the program.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist: reproduce and transfer") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <sys/file.h>
#include <nlohmann/json.hpp>

#include <set>

#include "run_mnist.h"

using namespace cli;
using nlohmann::json;

namespace {

Args quick(const Mnist& mnist, const Args& more) {
  return joined(
      {"reproduce", "--quick", "--dataset", "synthetic", "--threads", "1", "--out", (mnist / "runs").string()}, more);
}

json records(const Mnist& mnist) { return json::parse(contents(mnist / "runs" / "results.json")).at("runs"); }

}  // namespace

TEST_CASE("mnist reproduce: lists every run of the notebooks") {
  const Result r = Mnist()({"reproduce", "--list"});
  CHECK(r.code == 0);
  std::set<std::string> ids;
  for (const std::string& line : lines(r.out)) ids.insert(line.substr(0, line.find(' ')));
  CHECK(ids.size() == lines(r.out).size());
  // 4 + 4 + (1 + 4 + 7 + 15 + 45 + 1) + 4 + 7
  CHECK(ids.size() == 92);
  for (const char* id : {"N1-a", "N2-3", "N2-3-meant", "N3-rounds-256x5-5", "N4-2-meant", "N5-3-long"})
    CHECK_MESSAGE(ids.count(id) == 1, id);
  CHECK(contains(r.out, "0.1161 / 0.9655"));
  const Result meant = Mnist()({"reproduce", "N2", "--list", "--as-meant"});
  CHECK(contains(meant.out, "N2-3-meant"));
  CHECK_FALSE(contains(meant.out, "as written"));
}

TEST_CASE("mnist reproduce: parameters, steps and continued runs are those of the notebooks") {
  const Mnist mnist;
  const Result r = mnist(quick(mnist, {"N2,N4", "--seeds", "1"}));
  CAPTURE(r);
  REQUIRE(r.code == 0);
  const std::map<std::string, int> parameters{{"N2-1", 40785},        {"N2-2", 669706}, {"N2-3", 669706},
                                              {"N2-3-meant", 109386}, {"N4-1", 25450},  {"N4-2", 25450},
                                              {"N4-2-meant", 25450},  {"N4-3", 93322}};
  const json all = records(mnist);
  CHECK(all.size() == parameters.size());
  std::map<std::string, json> by_id;
  for (const json& j : all) {
    by_id[j.at("run")] = j;
    CHECK(j.at("parameters") == parameters.at(j.at("run")));
    CHECK(j.at("epochs") == 2);
    CHECK(j.at("test").at("accuracy") == j.at("validation").at("accuracy"));  // validated on the test digits
    CHECK(j.at("history").at("val_loss").size() == 2);
  }
  // what is trained on starts where the other run ended
  CHECK(by_id["N2-3"]["history"]["loss"][0] < by_id["N2-2"]["history"]["loss"][1]);
  CHECK(by_id["N4-2"]["history"]["loss"][0] != by_id["N4-2-meant"]["history"]["loss"][0]);
  CHECK(contains(r.out, "N4-2-meant"));
  CHECK_FALSE(contains(r.out, "yes ("));  // --quick judges nothing
  CHECK_FALSE(contains(r.out, "NO ("));
  CHECK(lines(contents(mnist / "runs" / "results.csv")).size() == all.size() + 1);
}

TEST_CASE(
    "mnist reproduce: a record without its numbers is told with its place, one program at a time writes to a folder") {
  const Mnist mnist;
  const fs::path folder = mnist / "runs", file = folder / "results.json";
  fs::create_directory(folder);
  const json whole{{"run", "N2-2"},
                   {"seed", 1},
                   {"quick", true},
                   {"epochs", 2},
                   {"seconds_per_epoch", 0.5},
                   {"train", {{"loss", 1.0}, {"accuracy", 0.5}}},
                   {"validation", {{"loss", 1.0}, {"accuracy", 0.5}}}};
  const auto said = [&](const json& record) {
    std::ofstream(file) << json{{"runs", json::array({whole, record})}};
    const Result r = mnist(quick(mnist, {"--run", "N2-2", "--seeds", "1"}));
    CHECK(r.code == (record == whole ? 0 : 1));
    return r.err;
  };
  CHECK(said(whole) == "");
  for (const char* name : {"run", "seed", "quick", "epochs", "seconds_per_epoch", "train", "validation"}) {
    json bad = whole;
    bad[name] = nullptr;
    CHECK(said(bad).starts_with("mnist: " + file.string() + ": run 2: " + name));
    bad.erase(name);
    CHECK(said(bad).starts_with("mnist: " + file.string() + ": run 2: " + name));
  }
  json bad = whole;
  bad["test"] = {{"loss", 1.0}};
  CHECK(contains(said(bad), ": run 2: test accuracy: expected a number"));

  const int other = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(::flock(other, LOCK_EX) == 0);
  CHECK(contains(said(nullptr), "another mnist reproduce is writing to this folder"));
  ::close(other);
}

TEST_CASE("mnist reproduce: goes on with what is missing, the same bits as in one go") {
  const Mnist whole, parts;
  REQUIRE(whole(quick(whole, {"N4", "--run", "N4-1,N4-2", "--seeds", "1"})).code == 0);
  REQUIRE(parts(quick(parts, {"--run", "N4-1", "--seeds", "1"})).code == 0);
  const std::string first = records(parts)[0].dump();
  const Result r = parts(quick(parts, {"--run", "N4-1,N4-2", "--seeds", "1"}));
  REQUIRE(r.code == 0);
  CHECK(contains(r.err, "N4-1 again, which it continues"));
  CHECK(records(parts)[0].dump() == first);  // kept, not repeated
  CHECK(records(parts).size() == 2);
  CHECK(records(parts)[1].at("history") == records(whole)[1].at("history"));
  const Result again = parts(quick(parts, {"--run", "N4-1,N4-2", "--seeds", "1"}));
  CHECK(again.code == 0);
  CHECK_FALSE(contains(again.err, "epoch"));
  CHECK(again.out == r.out);
}

TEST_CASE("mnist reproduce: interrupted, it keeps the runs that are done") {
  const Mnist mnist;
  Result r = mnist(quick(mnist, {"N5", "--run", "N5-1", "--seeds", "1"}));
  REQUIRE(r.code == 0);
  const Args rest = quick(mnist, {"N5", "--run", "N5-1,N5-3", "--seeds", "40"});
  r = mnist(rest, {.signal = SIGINT, .when = "N5-3 seed 1: epoch 1/"});
  CAPTURE(r);
  CHECK(r.code == 130);
  CHECK(contains(r.err, "goes on with the runs that are missing"));
  CHECK(contains(r.out, "N5-1"));
  CHECK(records(mnist).size() >= 1);
  CHECK(records(mnist)[0].at("run") == "N5-1");
}

TEST_CASE("mnist reproduce: what it refuses") {
  const Mnist mnist;
  check_usage_error(mnist(quick(mnist, {"N6"})), "unknown notebook \"N6\"");
  check_usage_error(mnist(quick(mnist, {"--run", "N2-4"})), "unknown run \"N2-4\"; did you mean");
  check_usage_error(mnist(quick(mnist, {"N1", "--run", "N2-1"})), "no run is both");
  check_usage_error(mnist(quick(mnist, {"--as-written", "--as-meant"})), "either --as-written or --as-meant");
  check_usage_error(mnist(quick(mnist, {"--seeds", "0"})), "--seeds must be a whole number from 1 to 1000, got 0");
  fs::create_directory(mnist / "runs");
  std::ofstream(mnist / "runs" / "results.json") << "{\"runs\": [{\"run\": \"N2-1\"}]}";
  check_failure(
      mnist(quick(mnist, {"--run", "N2-1"})),
      "results.json: run 1: quick: expected true or false, found none; another --out leaves it, --force overwrites it");
  CHECK(contents(mnist / "runs" / "results.json") == "{\"runs\": [{\"run\": \"N2-1\"}]}");
  for (const auto& [foreign, found] : {std::pair{"{}", "an object without one"}, std::pair{"[1, 2]", "array"},
                                       std::pair{"{\"runs\": 3}", "an object without one"}, std::pair{"null", "null"},
                                       std::pair{"name,score\na,1\n", "no JSON, or a part of it"},
                                       std::pair{"{\"runs\": [", "no JSON, or a part of it"}}) {
    std::ofstream(mnist / "runs" / "results.json") << foreign;
    check_failure(
        mnist(quick(mnist, {"--run", "N2-1"})),
        std::string("results.json: not written by mnist reproduce: expected JSON with a list \"runs\", found ") +
            found + "; another --out leaves it, --force overwrites it");
    CHECK(contents(mnist / "runs" / "results.json") == foreign);
  }
  std::ofstream(mnist / "file") << "x";
  check_failure(mnist({"reproduce", "--quick", "--dataset", "synthetic", "--out", (mnist / "file").string()}), "file");
}

TEST_CASE("mnist transfer: a new last layer on frozen ones, then all of them") {
  Mnist mnist;
  const std::string model = (mnist / "net.safetensors").string(), out = (mnist / "moved.safetensors").string();
  const std::string arch = "flatten, dense 16 relu, dropout 0.1, dense 10";
  REQUIRE(
      mnist({"train", "--data", mnist.digits(), "--epochs", "3", "--arch", arch, "--save", model, "--quiet"}).code ==
      0);
  const Result r = mnist({"transfer", model, "--data", mnist.digits(), "--limit", "256", "--head-epochs", "2",
                          "--epochs", "1", "--save", out, "--json"});
  CAPTURE(r);
  REQUIRE(r.code == 0);
  const json j = json::parse(r.out);
  REQUIRE(j.at("stages").size() == 3);
  CHECK(j["stages"][0].at("trained_parameters") == 170);
  CHECK(j["stages"][1].at("trained_parameters") == 784 * 16 + 16 + 170);
  CHECK(j["stages"][2].at("epochs") == 3);
  CHECK(j["samples"] == 256);
  const Result moved = mnist({"evaluate", out, "--data", mnist.digits(), "--json"});
  REQUIRE(moved.code == 0);
  CHECK(json::parse(moved.out).at("test_accuracy") == j["stages"][1].at("test_accuracy"));
  const Result text = mnist(
      {"transfer", model, "--data", mnist.digits(), "--limit", "64", "--no-baseline", "--quiet", "--epochs", "0"});
  CHECK(text.code == 0);
  CHECK(lines(text.out).size() == 2);
  CHECK(text.err == "");
}

TEST_CASE("mnist transfer: what it refuses") {
  Mnist mnist;
  check_usage_error(mnist({"transfer"}), "which model?");
  check_failure(mnist({"transfer", (mnist / "none").string()}), "none");
  const std::string model = (mnist / "net.safetensors").string();
  REQUIRE(mnist(mnist.tiny({"--save", model})).code == 0);
  check_usage_error(mnist({"transfer", model, "--data", mnist.digits()}), "nothing is left to transfer");
  check_usage_error(mnist({"transfer", model, "--epochs", "0", "--head-epochs", "0"}),
                    "are both 0: nothing is trained");
}

#endif
