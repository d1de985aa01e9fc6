// bench compare: the workloads beside LibTorch at its best, or beside another build, interleaved.
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include <ebb/models/data/mnist.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/version.h>
#include <ebb/ops/kernels/blas.h>

#include "commands.h"
#include "limit.h"
#include "measure.h"
#include "process.h"
#include "results.h"

namespace bench {
namespace {

namespace fs = std::filesystem;
namespace po = app::po;
using json = nlohmann::ordered_json;

/// A way to run a program: the peer has several.
struct Setting {
  std::string name, program;
  std::vector<std::string> more = {};
  std::map<std::string, std::string> environment = {};
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M UTC", std::gmtime(&now));
  return text.data();
}

/// The first of /usr/lib/<any>/NAME that is there.
std::optional<fs::path> debian_library(const std::string& name) {
  std::error_code none;
  for (const auto& folder : fs::directory_iterator("/usr/lib", none))
    if (fs::exists(folder.path() / name, none)) return folder.path() / name;
  return std::nullopt;
}

/// The peer's program beside this one, built if that can be done here.
std::string torch_program() {
  const fs::path folder = this_program().parent_path(), program = folder / "bench_peer_torch";
  if (!fs::exists(program) && fs::exists(folder / "CMakeCache.txt")) {
    app::note("building {}, which takes about a minute\n", program.string());
    run_to_end({"cmake", "--build", folder.string(), "--target", "bench_peer_torch"});
  }
  if (!fs::exists(program))
    throw std::runtime_error(fmt::format(
        "no {}: install libtorch-dev, configure again, and build the target bench_peer_torch", program.string()));
  return program.string();
}

/// What the peer is tried with.
std::vector<Setting> torch_settings(const std::string& program, int threads, bool convolutions, bool training) {
  std::map<std::string, std::string> environment{
      {"OMP_NUM_THREADS", std::to_string(threads)},
      {"OPENBLAS_NUM_THREADS", std::to_string(threads)},
      {"OPENBLAS_CORETYPE", ebb::detail::blas_kernel()}};  // on a new processor it would choose badly
  // Debian's default OpenBLAS has a pool of its own, which fights with torch's
  if (const auto blas = debian_library("openblas-openmp/libblas.so.3"); blas && threads > 1)
    environment["LD_LIBRARY_PATH"] = blas->parent_path().string();
  auto with_tcmalloc = environment;
  const auto tcmalloc = debian_library("libtcmalloc_minimal.so.4");
  if (tcmalloc) with_tcmalloc["LD_PRELOAD"] = tcmalloc->string();
  const std::string second = training ? tcmalloc ? "flat+tc" : "flat" : "tc";
  const std::vector<std::string> flat = training ? std::vector<std::string>{"--flat"} : std::vector<std::string>{};
  std::vector<Setting> out{{"base", program, {}, environment}};
  if (training || tcmalloc) out.push_back({second, program, flat, with_tcmalloc});
  if (!convolutions) return out;
  for (Setting s : std::vector<Setting>(out)) {
    s.name = s.name == "base" ? "cl" : "cl+" + s.name;
    s.more.push_back("--channels-last");
    out.push_back(s);
  }
  return out;
}

std::string torch_notes(const std::vector<int>& threads) {
  std::string text = "LibTorch is tried as it is (base), with all parameters in one vector (flat)";
  text += debian_library("libtcmalloc_minimal.so.4") ? " and tcmalloc (tc)" : "; tcmalloc is not installed";
  text += ", convolutions also channels-last (cl); threads are set explicitly, both use the same kernels of OpenBLAS";
  if (std::ranges::any_of(threads, [](int t) { return t > 1; }))
    text += debian_library("openblas-openmp/libblas.so.3")
                ? ", more than one with the OpenMP build of OpenBLAS"
                : "; the OpenMP build of OpenBLAS is NOT installed, which is unfair to it";
  return text + ".";
}

/// A program at work on a workload, a turn at a time.
class Paced {
 public:
  Paced(const Setting& s, const std::string& command, const Workload& w, int threads, const std::string& data,
        std::uint64_t seed)
      : child_(arguments(s, command, w, threads, data, seed), s.environment) {}
  /// Seconds and samples of a turn of so many batches or calls; 0: all.
  json turn(std::int64_t batches) {
    child_.say(std::to_string(batches));
    return json::parse(child_.line());
  }
  json end() {
    child_.hang_up();
    const json out = json::parse(child_.line());
    child_.finish();
    return out;
  }

 private:
  static std::vector<std::string> arguments(const Setting& s, const std::string& command, const Workload& w,
                                            int threads, const std::string& data, std::uint64_t seed) {
    std::vector<std::string> out{s.program,     command,
                                 "--arch",      w.architecture,
                                 "--optimizer", w.optimizer,
                                 "--batch",     std::to_string(w.batch),
                                 "--threads",   std::to_string(threads),
                                 "--data",      data,
                                 "--seed",      std::to_string(seed),
                                 "--paced"};
    out.insert(out.end(), s.more.begin(), s.more.end());
    return out;
  }
  Child child_;
};

double per_sample(const json& turn) { return turn.at("seconds").get<double>() / turn.at("samples").get<double>(); }

struct Plan {
  std::string data;      // folder of the digits
  int repeats, rounds;   // fresh processes, turns of each
  double seconds;        // that the fastest is to take a turn
  std::int64_t samples;  // in an epoch (1 for inference: seconds are of a sample)
};

/// Starts every program, then gives them turns in an order that rotates; all numbers are kept.
void interleave(Cell& cell, const std::vector<Setting>& settings, const std::string& command, const Plan& plan,
                std::string& library) {
  cell.peers.clear();
  for (std::size_t i = 1; i < settings.size(); ++i) cell.peers.push_back({settings[i].name, {}});
  cell.ours = {settings[0].name, {}};
  const auto measured = [&](std::size_t i) -> Measured& { return i == 0 ? cell.ours : cell.peers[i - 1]; };
  const bool training = command == "train";
  for (int repeat = 0; repeat < plan.repeats; ++repeat) {
    std::vector<std::unique_ptr<Paced>> programs;
    double fastest = INFINITY;
    for (const Setting& s : settings) {
      programs.push_back(std::make_unique<Paced>(s, command, cell.workload, cell.threads, plan.data,
                                                 static_cast<std::uint64_t>(repeat + 1)));
      programs.back()->turn(10);  // pages, code and caches
      fastest = std::min(fastest, per_sample(programs.back()->turn(10)));
    }
    auto batches =
        static_cast<std::int64_t>(std::ceil(plan.seconds / (fastest * static_cast<double>(cell.workload.batch))));
    if (training && batches * cell.workload.batch >= plan.samples) batches = 0;
    for (int round = 0; round < plan.rounds; ++round)
      for (std::size_t k = 0; k < programs.size(); ++k) {
        const std::size_t i = (k + static_cast<std::size_t>(round)) % programs.size();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the last one's threads may still spin
        measured(i).seconds.push_back(per_sample(programs[i]->turn(batches)) * static_cast<double>(plan.samples));
      }
    for (std::size_t i = 0; i < programs.size(); ++i) {
      const json end = programs[i]->end();
      measured(i).memory_mb.push_back(end.at("peak_memory_mb"));
      if (training) measured(i).first_step.push_back(end.at("first_step_seconds"));
      if (i == 1) library = end.at("library");
    }
  }
}

/// Both programs for the same whole epochs, with each seed.
Learned learn(const Workload& w, const Setting& ours, const Setting& peer, int threads, int epochs, int seeds,
              const std::string& data) {
  Learned out{.workload = w.name, .epochs = epochs};
  const auto run = [&](const Setting& s, int seed, std::vector<double>& accuracy, std::vector<double>& losses) {
    Paced program(s, "train", w, threads, data, static_cast<std::uint64_t>(seed));
    double loss = 0;
    for (int e = 0; e < epochs; ++e) loss = program.turn(0).at("loss");
    losses.push_back(loss);
    accuracy.push_back(program.end().at("test_accuracy"));
  };
  for (int seed = 1; seed <= seeds; ++seed) {
    run(ours, seed, out.ours, out.our_loss);
    run(peer, seed, out.peer, out.peer_loss);
  }
  return out;
}

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  std::string name = "unknown processor";
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) name = line.substr(line.find(':') + 2);
  const unsigned n = std::thread::hardware_concurrency();
  return fmt::format("{}, {} processor{}", name, n, n == 1 ? "" : "s");
}

po::options_description compare_options() {
  return app::joined(
      {app::option_group("What",
                         {
                             {"models", app::text("all"), "workloads, such as mlp_512,cnn_64, or all"},
                             {"threads", app::text("1,2"), "numbers of threads"},
                             {"against", app::text("torch"), "torch, or the path of another build of bench"},
                             {"infer", "time predict() too, with --infer-batches"},
                             {"no-train", "do not train: with --infer"},
                             {"infer-batches", app::text("1,128"), "samples in a call of predict()"},
                             {"data", app::text(), "folder of MNIST's files; default: as in bench train"},
                         }),
       app::option_group(
           "How",
           {
               {"repeats", app::number(3, 1, 1000), "fresh processes of each program"},
               {"rounds", app::number(5, 1, 1000), "turns that each process gets, in rotating order"},
               {"seconds", app::number(0.2, 0.001, 60.0), "seconds that the fastest program takes for a turn"},
               {"epochs", app::number(1, 0, 1000), "whole epochs after which accuracies are compared; 0: they are not"},
               {"seeds", app::number(5, 1, 1000), "seeds of weights and order for which accuracies are compared"},
           }),
       app::option_group("Output", {
                                       {"markdown", "print one row per workload, for a page"},
                                       {"json", app::text(), "write every number to this file"},
                                       {"chart", app::text(), "draw the ratios of training to this SVG file"},
                                       {"force", "overwrite files that exist"},
                                   })});
}

int run_compare(app::Values& v) {
  const std::vector<Workload> chosen = workloads_of(v["models"].as<std::string>());
  const std::vector<int> threads = thread_list(v["threads"].as<std::string>());
  const auto epochs = v["epochs"].as<int>();
  const auto seeds = v["seeds"].as<int>();
  const auto against = v["against"].as<std::string>();
  const bool torch = against == "torch", training = v.count("no-train") == 0;
  std::vector<std::int64_t> infer_batches;
  if (v.count("infer")) infer_batches = app::numbers("infer-batches", v["infer-batches"].as<std::string>());
  if (!training && infer_batches.empty()) throw app::UsageError("--no-train without --infer leaves nothing to do");
  if (!training && v.count("chart")) throw app::UsageError("--chart draws the training, which --no-train leaves out");
  for (const std::int64_t b : infer_batches)
    if (b < 1 || b > 10000) throw app::UsageError(fmt::format("--infer-batches must be 1 to 10000, got {}", b));
  const auto output_file = [&](const char* option) {  // told before the work
    const std::string file = app::output_name(v, option);
    if (!file.empty()) app::check_output(file, v.count("force") > 0);
    return file;
  };
  Plan plan{"", v["repeats"].as<int>(), v["rounds"].as<int>(), v["seconds"].as<double>(), 0};
  const std::string json_file = output_file("json"), chart_file = output_file("chart");
  app::refuse_same_files({{"--json", json_file}, {"--chart", chart_file}});

  const Setting ours{"ebb", this_program().string()};
  const std::string peer_program = torch ? torch_program() : against;
  const ebb::Mnist data =
      ebb::find_dataset(ebb::DatasetName::mnist, v.count("data") ? v["data"].as<std::string>() : "");
  plan.data = data.source;
  plan.samples = data.train.images.size(0);

  Run run{.date = now_utc(),
          .processor = processor(),
          .ours = "ebb " + ebb::version(),
          .peer = against,
          .notes = torch ? torch_notes(threads) : "",
          .against_torch = torch,
          .samples = plan.samples};
  const auto settings = [&](const Workload& w, int n, bool train) {
    std::vector<Setting> out{ours};
    if (torch) {
      const auto peers = torch_settings(peer_program, n, w.architecture.find("conv") != std::string::npos, train);
      out.insert(out.end(), peers.begin(), peers.end());
    } else {
      out.push_back({"other", peer_program});
    }
    return out;
  };
  std::map<int, Machine> machines;  // by threads
  std::string library;
  const auto measure = [&](const Workload& w, int n, const std::string& command, const Plan& p, std::vector<Cell>& to) {
    Cell cell{.workload = w, .threads = n};
    if (command == "train") {
      Machine& machine = machines.try_emplace(n, n).first->second;
      cell.limit = machine.step(w).total() * static_cast<double>(plan.samples) / static_cast<double>(w.batch);
    }
    interleave(cell, settings(w, n, command == "train"), command, p, library);
    to.push_back(cell);
    app::note("{} {}, batch {}, {} thread{}: {:.2f}\n", command, w.name, w.batch, n, n == 1 ? "" : "s",
              ratio(cell).middle);
  };
  const auto measure_all = [&](const Workload& w) {
    if (training)
      for (const int n : threads) measure(w, n, "train", plan, run.training);
    if (training && epochs > 0) {
      const Cell& last = run.training.back();
      const auto all = settings(w, last.threads, true);
      const auto best = std::ranges::find(all, best_peer(last).name, &Setting::name);
      run.learned.push_back(learn(w, ours, *best, last.threads, epochs, seeds, plan.data));
    }
    for (const std::int64_t b : infer_batches)
      for (const int n : threads) {
        Workload at = w;
        at.batch = b;
        Plan p = plan;
        p.samples = 1;
        measure(at, n, "infer", p, run.inference);
      }
  };
  std::exception_ptr failure;
  try {
    for (const Workload& w : chosen) measure_all(w);
  } catch (const std::exception&) {  // what was measured before is told
    if (run.training.empty() && run.inference.empty()) throw;
    failure = std::current_exception();
  }
  run.peer = torch ? library : fmt::format("{} ({})", library, against);
  app::print("{}", v.count("markdown") ? markdown_table(run) : text_table(run));
  if (!chart_file.empty()) ebb::write_atomically(chart_file, chart(run));
  if (!json_file.empty()) ebb::write_atomically(json_file, to_json(run).dump(1) + "\n");
  if (failure) std::rethrow_exception(failure);
  return app::ok;
}

}  // namespace

const app::Command compare_command{
    .name = "compare",
    .about = "time the workloads beside LibTorch, or beside another build",
    .arguments = "[OPTIONS]",
    .description =
        "Trains each workload with ebb and with its peer: LibTorch in each of its good\n"
        "configurations, or another build of bench. The programs run in turns of a\n"
        "fraction of a second, in an order that rotates, so that a busy moment of the\n"
        "machine hits all alike. The peer's configuration with the lowest median counts.\n"
        "All times are kept and shown: median, minimum, maximum.\n"
        "LibTorch's program is built when it is not there (needs Debian's libtorch-dev).\n",
    .examples =
        "  bench compare                                  everything; about half an hour\n"
        "  bench compare --models mlp_512,cnn_64 --repeats 1 --epochs 0\n"
        "  bench compare --against old/bench              did a change help?\n",
    .options = compare_options,
    .run = run_compare,
};

}  // namespace bench
