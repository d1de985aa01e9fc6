// bench: where the time of a training step goes, and what the framework itself costs.
#include <boost/program_options.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <stdexcept>

#include <ebb/ebb.h>

namespace po = boost::program_options;
using namespace ebb;

namespace {

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Median seconds of `repeats` runs of f.
template <class F>
double median_seconds(int repeats, const F& f) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::nth_element(times, times.begin() + repeats / 2);
  return times[static_cast<std::size_t>(repeats / 2)];
}

/// Cost of apply() for an op that computes next to nothing.
void overhead() {
  constexpr int n = 1000;
  const Tensor x = ones({1}), w = variable(ones({1}));
  const auto chain = [&](const Tensor& start) {
    Tensor h = start;
    for (int i = 0; i < n; ++i) h = h * 0.5;
    return h;
  };
  const double recorded = median_seconds(201, [&] { chain(w); }) / n;
  const double constant = median_seconds(201, [&] { chain(x); }) / n;
  const double walked = median_seconds(201, [&] { backward(chain(w)); }) / n - recorded;
  fmt::print("an op on one element, not recorded  {:7.0f} ns\n", constant * 1e9);
  fmt::print("the same, recorded and freed        {:7.0f} ns\n", recorded * 1e9);
  fmt::print("its share of a backward pass        {:7.0f} ns\n", walked * 1e9);
}

/// Parts of a training step.
void step(const std::string& architecture, std::int64_t batch) {
  Sequential net({28, 28, 1}, parse_architecture(architecture));
  std::vector<Tensor> trained = parameters(net);
  Adam optimizer;
  Generator random(1);
  const Dataset data{cast(uniform({std::max<std::int64_t>(4 * batch, 1024), 28, 28, 1}, 0, 255, f32, random), u8), {}, 1.0 / 255};
  const Tensor labels = zeros({batch}, i64);
  const Batches batches(data, {.size = batch});
  std::int64_t turn = 0;
  Batch b = batches[0];
  Tensor loss = cross_entropy(net(b.inputs), labels);
  Gradients g = backward(loss);
  optimizer.step(trained, g);
  constexpr int repeats = 101;
  const double fetch = median_seconds(repeats, [&] { b = batches[turn++ % (batches.count() - 1)]; });
  const double forward = median_seconds(repeats, [&] { loss = cross_entropy(net(b.inputs), labels); });
  const double graph = median_seconds(repeats, [&] { const Graph view(loss); });
  const double both = median_seconds(repeats, [&] {
    loss = cross_entropy(net(b.inputs), labels);
    g = backward(loss);
  });
  const double update = median_seconds(repeats, [&] { optimizer.step(trained, g); });
  const double back = both - forward, whole = fetch + both + update;
  fmt::print("{}\nbatch {}, {} thread{}, {:.0f} us a step, medians of {}\n", architecture, batch, threads(), threads() == 1 ? "" : "s", whole * 1e6, repeats);
  const auto row = [&](const char* what, double seconds) { fmt::print("  {:<14}{:>10.1f} us{:>8.2f} %\n", what, seconds * 1e6, 100 * seconds / whole); };
  row("batch", fetch);
  row("forward", forward);
  row("graph view", graph);
  row("other backward", back - graph);
  row("optimiser", update);
}

int run(int argc, char** argv) {
  po::options_description options("Options", 80, 40);
  options.add_options()
      ("arch", po::value<std::string>()->default_value("flatten, dense 512 relu, dense 10"), "network of the step")
      ("batch", po::value<std::int64_t>()->default_value(64), "samples a step")
      ("threads", po::value<int>(), "default: one per processor")
      ("help,h", "this text");
  po::variables_map v;
  try {
    po::store(po::command_line_parser(argc, argv).options(options).style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing).run(), v);
    po::notify(v);
  } catch (const po::error& e) {
    throw UsageError(e.what());
  }
  if (v.count("help")) {
    std::cout << "Usage: bench [OPTIONS]\n\nThe parts of a training step, and the cost of an op that computes nothing.\n\n" << options;
    return 0;
  }
  const auto batch = v["batch"].as<std::int64_t>();
  if (batch < 1 || batch > 65536) throw UsageError(fmt::format("--batch must be 1 to 65536, got {}", batch));
  try {
    if (v.count("threads")) set_threads(v["threads"].as<int>());
    step(v["arch"].as<std::string>(), batch);
  } catch (const ValueError& e) {
    throw UsageError(e.what());
  }
  overhead();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const UsageError& e) {
    fmt::print(stderr, "bench: {}\nTry: bench --help\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench: {}\n", e.what());
    return 1;
  }
}
