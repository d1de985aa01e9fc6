// bench: its table of workloads, what it makes of times, and the program itself.
#include <doctest/doctest.h>

#ifndef EBB_BENCH_PROGRAM
TEST_CASE("bench: its program") { MESSAGE("skipped: the build has no program bench"); }
#else

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ebb/ebb.h>
#include <ebb/models/data/idx.h>

#include "limit.h"
#include "program.h"
#include "results.h"
#include "temp_dir.h"
#include "workloads.h"

namespace {

using nlohmann::json;

struct Result {
  int code;
  std::string out, err;
};

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Runs bench with words that need no quoting but the text of an architecture.
Result bench_run(const std::string& arguments, const std::string& input = "") {
  const TempDir dir;
  std::ofstream(dir / "in") << input;
  const std::string command = std::string("'") + EBB_BENCH_PROGRAM + "' " + arguments + " <'" + (dir / "in").string() +
                              "' >'" + (dir / "out").string() + "' 2>'" + (dir / "err").string() + "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, contents(dir / "out"), contents(dir / "err")};
}

/// Four small IDX files: 256 digits to train with, 64 to test.
std::string digits(const TempDir& dir) {
  for (const auto& [part, n] : {std::pair{"train", 256}, std::pair{"t10k", 64}}) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(n) * 784), labels(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < labels.size(); ++i) {
      labels[i] = static_cast<std::uint8_t>(i * 7 % 10);
      for (std::size_t k = 0; k < 28; ++k) pixels[i * 784 + labels[i] * 56 + k] = 200;
    }
    ebb::write_idx(dir / (std::string(part) + "-images-idx3-ubyte"), ebb::Tensor::from(pixels, {n, 28, 28}));
    ebb::write_idx(dir / (std::string(part) + "-labels-idx1-ubyte"), ebb::Tensor::from(labels, {n}));
  }
  return dir.path().string();
}

bench::Cell cell(const std::string& workload, int threads, std::vector<double> ours, std::vector<double> base,
                 std::vector<double> flat) {
  bench::Cell c{.workload = bench::workload(workload), .threads = threads};
  c.ours = {"ebb", std::move(ours), {0.1}, {80}};
  c.peers = {{"base", std::move(base), {0.9}, {400}}, {"flat", std::move(flat), {1.1}, {390}}};
  return c;
}

}  // namespace

TEST_CASE("bench: the workloads are the networks that they are said to be") {
  const std::map<std::string, std::int64_t> parameters{{"mlp_50_25", 784 * 50 + 50 + 50 * 25 + 25 + 25 * 10 + 10},
                                                       {"mlp_512", 407050},
                                                       {"mlp_512_do", 407050},
                                                       {"mlp_512x2_do", 669706},
                                                       {"mlp_75x4", 76735},
                                                       {"mlp_32", 25450},
                                                       {"sig_32x5", 29674},
                                                       {"sig_2048", 1628170},
                                                       {"cnn_64", 93322},
                                                       {"cnn_512", 356298}};
  CHECK(parameters.at("mlp_50_25") == 40785);
  REQUIRE(bench::workloads().size() == parameters.size());
  for (const bench::Workload& w : bench::workloads()) {
    CAPTURE(w.name);
    ebb::Sequential net = bench::network(w);
    CHECK(ebb::parameter_count(net) == parameters.at(w.name));
    CHECK(ebb::build(net, {28, 28, 1}) == ebb::Shape{10});
    CHECK(bench::optimizer(w)->name() == w.optimizer);
    CHECK(w.aim >= w.least_1);
    CHECK(w.aim >= w.least_2);
  }
  CHECK_THROWS_WITH_AS(
      bench::workload("mlp_521"),
      "unknown workload \"mlp_521\"; expected one of mlp_50_25, mlp_512, mlp_512_do, mlp_512x2_do, mlp_75x4, mlp_32, "
      "sig_32x5, sig_2048, cnn_64, cnn_512; did you mean mlp_512?",
      app::UsageError);
  CHECK(bench::workloads_of("cnn_64, mlp_32").at(1).name == "mlp_32");
  CHECK(bench::workloads_of("all").size() == 10);
  CHECK_THROWS_AS(bench::workloads_of(""), app::UsageError);
}

TEST_CASE("bench: the ratio is the peer's best median over ours, with the range of the rounds") {
  const bench::Cell c = cell("mlp_512", 1, {1.0, 1.2, 1.1}, {2.0, 2.2, 9.0}, {1.65, 1.2, 1.76});
  CHECK(bench::best_peer(c).name == "flat");  // 1.65 against 2.2
  const bench::Range r = bench::ratio(c);
  CHECK(r.middle == doctest::Approx(1.65 / 1.1));
  CHECK(r.low == doctest::Approx(1.2 / 1.2));
  CHECK(r.high == doctest::Approx(1.65));
  CHECK(bench::least(c) == 1.25);
  CHECK(bench::least(cell("mlp_512_do", 2, {1}, {1}, {1})) == 1.8);
  CHECK_THROWS_AS(bench::best_peer(bench::Cell{}), std::logic_error);
  const bench::Range even = bench::range({4, 1, 2, 3});
  CHECK(even.middle == 2.5);
  CHECK(even.low == 1);
  CHECK(even.high == 4);
}

TEST_CASE("bench: equal learning is one point of accuracy, or none learned yet") {
  CHECK(bench::Learned{"a", 1, {0.975}, {0.966}, {0.2}, {0.2}}.equal());
  CHECK_FALSE(bench::Learned{"a", 1, {0.975}, {0.964}, {0.2}, {0.2}}.equal());
  CHECK(bench::Learned{"a", 1, {0.0980}, {0.1135}, {2.303}, {2.303}}.equal());
  CHECK(bench::Learned{"a", 1, {0.69, 0.70, 0.75}, {0.68, 0.73, 0.74}}.equal());        // seeds differ as much
  CHECK_FALSE(bench::Learned{"a", 1, {0.69, 0.70, 0.71}, {0.68, 0.73, 0.74}}.equal());  // 0.73 is none of ours
  CHECK_FALSE(bench::Learned{"a", 1, {0.69, 0.70, 0.75}, {0.71, 0.73, 0.74}}.equal());  // 0.70 is none of theirs
}

TEST_CASE("bench: the tables") {
  bench::Run run{.date = "today", .processor = "cpu", .ours = "ebb 1", .peer = "LibTorch 2", .notes = "notes."};
  run.training = {cell("mlp_512", 1, {1.0, 1.2, 1.1}, {2.0, 2.2, 9.0}, {1.65, 1.2, 1.76}),
                  cell("mlp_512", 2, {0.5, 0.6, 0.55}, {1, 1, 1}, {0.6, 0.6, 0.6}),
                  cell("sig_32x5", 1, {0.1}, {0.5}, {0.46})};
  run.training[0].limit = 1;
  run.learned = {{"mlp_512", 1, {0.961}, {0.962}, {0.26}, {0.26}}};
  bench::Cell one = cell("cnn_64", 1, {1e-4}, {5e-4}, {4e-4});
  one.workload.batch = 1;
  run.inference = {one};
  const std::string page = bench::markdown_table(run);
  CAPTURE(page);
  CHECK(page.find("| mlp_512 | 1.10 (1.00..1.20) | 1.65 (1.20..1.76) flat | **1.50** (1.00..1.65), 1.25 | 1.10 | 0.550 "
                  "(0.500..0.600) | "
                  "0.600 (0.600..0.600) flat | **1.09** (1.00..1.20), 1.25 |  | 2.00 | "
                  "80, 390 | 0.10, 0.90 | 0.9610, 0.9620 |\n") != std::string::npos);
  CHECK(page.find("| sig_32x5 | 0.100 (0.100..0.100) | 0.460 (0.460..0.460) flat | **4.60** (4.60..4.60), 4.50 |  | | "
                  "| | | | 80, 390 | 0.10, 0.90 | |\n") != std::string::npos);
  CHECK(page.find("| cnn_64 | 1 | 1 | 10000 | 2500 flat | **4.00** |\n") != std::string::npos);
  // every row of a table has as many cells as its head
  std::istringstream lines(page);
  std::ptrdiff_t cells = 0;
  for (std::string line, before; std::getline(lines, line); before = line) {
    const std::ptrdiff_t n = std::ranges::count(line, '|');
    if (n > 0 && before.find('|') != std::string::npos) CHECK(n == cells);
    cells = n;
  }
  const std::string text = bench::text_table(run);
  CHECK(text.find("NO") != std::string::npos);
  CHECK(text.find("today; cpu; ebb 1 against LibTorch 2. notes.") == 0);
  const std::string drawing = bench::chart(run);
  CAPTURE(drawing);
  const auto times = [&](const std::string& what) {
    std::ptrdiff_t n = 0;
    for (std::size_t at = drawing.find(what); at != std::string::npos; at = drawing.find(what, at + 1)) ++n;
    return n;
  };
  CHECK(times("stroke-width") == 3);  // a bar with its mark for each cell
  for (const char* shown :
       {">1.50<", ">1.09<", ">4.60<", ">mlp_512<", ">sig_32x5<", ">1 thread<", ">2 threads<", ">today, cpu<"})
    CHECK(times(shown) == 1);
  CHECK(times("<rect") == 1 + 2 + 3);
  CHECK(page.find("LibTorch") != std::string::npos);

  // Against another build there is no LibTorch, and nothing that a ratio is held to.
  bench::Run other = run;
  other.against_torch = false;
  other.peer = "ebb 1 (old/bench)";
  other.notes = "";
  for (const std::string& shown :
       {bench::markdown_table(other), bench::text_table(other), bench::chart(other), bench::to_json(other).dump()}) {
    CAPTURE(shown);
    for (const char* word : {"LibTorch", "held", "least", "flat", "NO "})
      if (shown.front() != '{' || word != std::string("flat")) CHECK(shown.find(word) == std::string::npos);
  }
  CHECK(bench::markdown_table(other).find("today; cpu; ebb 1 against ebb 1 (old/bench).\n") == 0);
  CHECK(bench::markdown_table(other).find("ratio: the other build over this build.") != std::string::npos);
  CHECK(bench::markdown_table(other).find("| mlp_512 | 1.10 (1.00..1.20) | 1.65 (1.20..1.76) | **1.50** (1.00..1.65) | "
                                          "1.10 | ") != std::string::npos);
  CHECK(bench::chart(other).find("stroke-width") == std::string::npos);
  const json j = json::parse(bench::to_json(run).dump());
  CHECK(j["training"].size() == 3);
  CHECK(j["training"][0]["best_peer"] == "flat");
  CHECK(j["training"][0]["reached"] == true);
  CHECK(j["training"][1]["reached"] == false);
  CHECK(j["training"][0]["peers"][0]["seconds"].size() == 3);
  CHECK(j["accuracy"][0]["equal"] == true);
}

TEST_CASE("bench: what a step demands") {
  // GFLOP of an epoch: forward and weights of each layer, inputs of all but the first
  const auto gflop = [](const std::string& name) {
    const bench::Workload& w = bench::workload(name);
    return bench::demand(w).flops * 60000 / static_cast<double>(w.batch) * 1e-9;
  };
  CHECK(gflop("mlp_512") == doctest::Approx(60000e-9 * 2 * (2.0 * 784 * 512 + 3.0 * 512 * 10)));
  CHECK(gflop("cnn_512") == doctest::Approx(60000e-9 * 2 *
                                            (2.0 * 676 * 9 * 32 + 3.0 * 121 * 288 * 64 + 3.0 * 9 * 576 * 64 +
                                             3.0 * 576 * 512 + 3.0 * 512 * 10)));
  const bench::Demand adam = bench::demand(bench::workload("mlp_32"));
  CHECK(adam.parameters == 25450);
  CHECK(adam.optimizer_bytes == 28 * 25450);
  CHECK(adam.optimizer_set == 16 * 25450);
  CHECK(adam.gather_bytes == 32 * 784);
  for (const auto& ways : bench::demand(bench::workload("cnn_64")).products)
    for (const bench::Product& p : ways) CHECK(p.flops() == doctest::Approx(ways.back().flops()));
  bench::Machine machine(1);
  CHECK(machine.copy_bandwidth(1000) > 1e8);
  CHECK(machine.seconds({false, false, 16, 16, 16}) > 0);
}

TEST_CASE("bench: help and usage errors") {
  const Result help = bench_run("--help");
  CHECK(help.code == 0);
  CHECK(help.err == "");
  for (const auto command : {"train", "infer", "step", "roofline", "compare"}) {
    CAPTURE(command);
    CHECK(help.out.find(std::string("\n  ") + command + " ") != std::string::npos);
    const Result r = bench_run(std::string(command) + " --help");
    CHECK(r.code == 0);
    CHECK(r.out.find("Example") != std::string::npos);
    std::istringstream lines(r.out);
    for (std::string line; std::getline(lines, line);) CHECK_MESSAGE(line.size() <= 80, line);
  }
  const auto refused = [](const std::string& arguments, const std::string& line) {
    CAPTURE(arguments);
    const Result r = bench_run(arguments);
    CHECK(r.code == 2);
    CHECK(r.out == "");
    CHECK(r.err.substr(0, r.err.find('\n')) == "bench: " + line);
  };

  const std::string names =
      "mlp_50_25, mlp_512, mlp_512_do, mlp_512x2_do, mlp_75x4, mlp_32, sig_32x5, sig_2048, cnn_64, cnn_512";
  CHECK(bench_run("trian").err.find("unknown command \"trian\"; expected one of train, ") != std::string::npos);
  CHECK(bench_run("help step").out == bench_run("step --help").out);
  refused("train --modle mlp_32", "unknown option --modle; did you mean --model?");
  refused("train --model mlp_23", "unknown model \"mlp_23\"; expected one of " + names + "; did you mean mlp_32?");
  refused("train --batch 0", "--batch must be a whole number from 1 to 65536, got 0");
  refused("train --epochs 0", "--epochs must be a whole number from 1 to 1000000, got 0");
  refused("train --threads 0", "--threads must be a whole number from 1 to 256, got 0");
  refused("train --optimizer lion", "unknown optimizer \"lion\"; expected one of sgd, rmsprop, adam");
  refused("compare --models mlp_32,cnn", "unknown workload \"cnn\"; expected one of " + names);
  refused("compare --threads 1,x", "--threads must be whole numbers separated by commas, such as 512,64; got \"1,x\"");
  refused("compare --no-train", "--no-train without --infer leaves nothing to do");
  refused("compare --no-train --infer --chart a.svg", "--chart draws the training, which --no-train leaves out");
  const Result failed = bench_run("train --data /nowhere");
  CHECK(failed.code == 1);
  CHECK(failed.err.starts_with("bench: "));
}

TEST_CASE("bench train: a result, as text and as JSON, turns when it is paced") {
  const TempDir dir;
  const std::string data = " --data '" + digits(dir) + "'";
  const Result r = bench_run("train --model mlp_32 --batches 3 --json --threads 1" + data);
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  const json j = json::parse(r.out);
  CHECK(j["model"] == "mlp_32");
  CHECK(j["parameters"] == 25450);
  CHECK(j["epoch_seconds"].size() == 3);
  CHECK(j["losses"][2] < j["losses"][0]);
  CHECK(j["seconds_per_epoch"] > 0);
  CHECK(j["first_step_seconds"] > 0);
  CHECK(j["peak_memory_mb"] > 5);
  CHECK(j["threads"] == 1);

  const Result text = bench_run("train --arch 'flatten, dense 10' --batch 64 --epochs 2" + data);
  CHECK(text.code == 0);
  CHECK(text.out.find("7,850 parameters") != std::string::npos);
  CHECK(text.out.find("test accuracy") != std::string::npos);

  const Result paced = bench_run("train --model mlp_32 --paced" + data, "2\n0\n");
  REQUIRE(paced.code == 0);
  std::istringstream lines(paced.out);
  std::vector<json> said;
  for (std::string line; std::getline(lines, line);) said.push_back(json::parse(line));
  REQUIRE(said.size() == 3);
  CHECK(said[0]["samples"] == 64);
  CHECK(said[1]["samples"] == 256);
  CHECK(said[2]["test_accuracy"] >= 0);
}

TEST_CASE("bench infer: samples a second, and no memory asked for after the first call") {
  const TempDir dir;
  const Result r = bench_run("infer --model mlp_32 --batch 16 --threads 1 --json --data '" + digits(dir) + "'");
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  const json j = json::parse(r.out);
  CHECK(j["calls"] == 4);
  CHECK(j["samples_per_second"] > 0);
  CHECK(j["system_requests_after_first_call"] == 0);
}

TEST_CASE("bench compare: against itself, with everything it writes") {
  const TempDir dir;
  const std::string file = (dir / "all.json").string();
  const Result r =
      bench_run("compare --against '" + std::string(EBB_BENCH_PROGRAM) +
                "' --models mlp_32 --threads 1 --repeats 2 --rounds 3 --seconds 0.001 --infer --infer-batches 8 "
                "--markdown --json '" +
                file + "' --data '" + digits(dir) + "'");
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  CHECK(r.out.find("| mlp_32 | ") != std::string::npos);
  CHECK(r.out.find("LibTorch") == std::string::npos);
  const json j = json::parse(contents(file));
  CHECK(j["training"][0]["ours"]["seconds"].size() == 6);
  CHECK(j["training"][0]["peers"][0]["first_step_seconds"].size() == 2);
  CHECK(j["training"][0]["ratio"] > 0);
  CHECK(j["inference"][0]["batch"] == 8);
  CHECK(j["accuracy"][0]["ours"] == j["accuracy"][0]["peer"]);  // the same program from the same seed
}

TEST_CASE("bench compare: outputs are checked before the work, and what was measured before a failure is told") {
  const TempDir dir;
  const std::string file = (dir / "all.json").string(), chart = (dir / "chart.svg").string(),
                    peer = (dir / "peer").string();
  const std::string what =
      "compare --against '" + peer +
      "' --models mlp_32,mlp_512 --threads 1 --repeats 1 --rounds 1 --epochs 0 --seconds 0.001 --data '" + digits(dir) +
      "'";
  // Another build, which cannot do the second workload.
  std::ofstream(peer) << "#!/bin/sh\ncase \"$*\" in *'dense 512'*) exit 3;; esac\nexec '" << EBB_BENCH_PROGRAM
                      << "' \"$@\"\n";
  std::filesystem::permissions(peer, std::filesystem::perms::owner_all);
  for (const char* option : {" --json ", " --chart "}) {
    std::ofstream(file) << "precious";
    Result r = bench_run(what + option + "'" + file + "'");
    CHECK(r.code == 1);
    CHECK(r.err == "bench: " + file + ": exists already; choose another name, or --force to overwrite it\n");
    CHECK(contents(file) == "precious");
    r = bench_run(what + option + "/nowhere/f");
    CHECK(r.code == 1);
    CHECK(r.err == "bench: /nowhere/f: cannot write: No such directory\n");
    CHECK(bench_run(what + option + "''").code == 2);
  }
  CHECK(bench_run(what + " --json '" + chart + "' --chart '" + (dir / "." / "chart.svg").string() + "'").code == 2);
  const Result r = bench_run(what + " --force --json '" + file + "' --chart '" + chart + "'");
  CAPTURE(r.err);
  CHECK(r.code == 1);
  CHECK(r.out.find("mlp_32 ") != std::string::npos);
  CHECK(r.out.find("mlp_512") == std::string::npos);
  CHECK(json::parse(contents(file))["training"].size() == 1);
  CHECK(contents(chart).find("mlp_32") != std::string::npos);
}

TEST_CASE("bench: ops") {
  if (bench_run("--help").out.find("  ops ") == std::string::npos) {
    MESSAGE("skipped: built without Google Benchmark");
    return;
  }
  CHECK(bench_run("ops --list --filter ^matmul/").out.find("matmul/128x784/784x512") != std::string::npos);
  const Result r = bench_run("ops --filter ^exp/8x --gradients --seconds 0.001 --threads 1");
  CHECK(r.code == 0);
  CHECK(r.out.find("FLOP/s=") != std::string::npos);
  CHECK(bench_run("ops --filter nothing").code == 2);
}

#endif
