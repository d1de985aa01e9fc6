// bench step: where the time of a training step goes, and what the framework itself costs.
#include <fmt/core.h>

#include <algorithm>

#include <ebb/ebb.h>

#include "commands.h"
#include "measure.h"

namespace bench {
namespace {

namespace po = app::po;
using namespace ebb;

/// Median seconds of `repeats` runs of f.
template <class F>
double median_seconds(int repeats, const F& f) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const double start = now();
    f();
    times.push_back(now() - start);
  }
  return median(std::move(times));
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
  app::print("\nan op on one element, not recorded  {:7.0f} ns\n", constant * 1e9);
  app::print("the same, recorded and freed        {:7.0f} ns\n", recorded * 1e9);
  app::print("its share of a backward pass        {:7.0f} ns\n", walked * 1e9);
}

/// Parts of a training step, and its ops.
void parts(const Workload& w, const Dataset& data, std::uint64_t seed, int repeats) {
  Sequential net = network(w, seed);
  std::vector<Tensor> trained = parameters(net);
  const auto opt = optimizer(w);
  const Batches batches(data, {.size = w.batch, .drop_last = true});
  if (batches.count() == 0)
    throw app::UsageError(fmt::format("--batch {} is more than the {} samples there are", w.batch, data.size()));
  std::int64_t turn = 0;
  Batch b = batches[0];
  Tensor loss;
  Gradients g;
  const auto whole_step = [&] {
    b = batches[turn++ % batches.count()];
    loss = cross_entropy(net(b.inputs), b.labels);
    g = backward(loss);
    opt->step(trained, g);
  };
  for (int i = 0; i < 3; ++i) whole_step();
  const std::uint64_t requests = memory_stats().system_requests;
  const double fetch = median_seconds(repeats, [&] { b = batches[turn++ % batches.count()]; });
  const double forward = median_seconds(repeats, [&] { loss = cross_entropy(net(b.inputs), b.labels); });
  const double graph = median_seconds(repeats, [&] { const Graph view(loss); });
  const double both = median_seconds(repeats, [&] {
    loss = cross_entropy(net(b.inputs), b.labels);
    g = backward(loss);
  });
  const double update = median_seconds(repeats, [&] { opt->step(trained, g); });
  const double step = median_seconds(repeats, whole_step);
  const std::uint64_t asked = memory_stats().system_requests - requests;
  app::print("{}: {}\n{}, batch {}, {} thread{}: {:.1f} us a step, medians of {}\n", w.name, w.architecture,
             w.optimizer, w.batch, threads(), threads() == 1 ? "" : "s", step * 1e6, repeats);
  const auto row = [&](const char* what, double seconds) {
    app::print("  {:<16}{:>10.1f} us{:>8.2f} %\n", what, seconds * 1e6, 100 * seconds / step);
  };
  row("batch", fetch);
  row("forward", forward);
  row("graph view", graph);
  row("other backward", both - forward - graph);
  row("optimizer", update);
  row("sum of these", fetch + both + update);
  app::print("memory asked of the system in these steps: {} times\n\n", asked);

  Profiler profile;
  for (int i = 0; i < repeats; ++i) whole_step();
  app::print("ops of {} steps (forward, backward and batches; {:.1f} % of their time)\n{}", repeats,
             100 * profile.seconds() / (step * repeats), profile.table());
}

po::options_description step_options() {
  return app::joined({workload_options(), app::option_group("Run", {app::threads_option(),
                                                                    {"repeats", app::number(101, 1, 1'000'000),
                                                                     "steps that each median is taken over"}})});
}

int run_step(app::Values& v) {
  const Workload w = workload_from(v);
  const auto repeats = v["repeats"].as<int>();
  app::use_threads(v);
  parts(w, random_digits(std::max<std::int64_t>(8 * w.batch, 4096)), v["seed"].as<std::uint64_t>(), repeats);
  overhead();
  return app::ok;
}

}  // namespace

const app::Command step_command{
    .name = "step",
    .about = "time the parts of a training step, and its ops",
    .arguments = "[OPTIONS]",
    .description =
        "The parts of a training step (fetching the batch, forward, the walk over the\n"
        "graph, the rest of backward, optimizer), every op by time, GFLOP/s and GB/s, and\n"
        "the cost of an op that computes nothing. Pixels are random: no files are needed.\n",
    .examples =
        "  bench step --model cnn_64 --threads 1\n"
        "  bench step --arch \"flatten, dense 64 relu, dense 10\" --batch 16\n",
    .options = step_options,
    .run = run_step,
};

}  // namespace bench
