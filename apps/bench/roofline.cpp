// bench roofline: the limit that this machine sets to each workload, and how close ebb comes.
#include <fmt/core.h>

#include <ebb/ops/kernels/threads.h>

#include "commands.h"
#include "limit.h"
#include "measure.h"

namespace bench {

namespace po = app::po;

namespace {

po::options_description roofline_options() {
  return app::option_group("Options", {
                                          {"models", app::text("all"), "workloads, such as mlp_512,cnn_64, or all"},
                                          {"threads", app::text("1,2"), "numbers of threads"},
                                          {"seconds", app::number(0.3, 0.0, 60.0),
                                           "seconds of training that each workload is timed for; 0: only the limits"},
                                          {"shapes", "also every product: its shape, GFLOP/s and share"},
                                      });
}

int run_roofline(app::Values& v) {
  const std::vector<Workload> chosen = workloads_of(v["models"].as<std::string>());
  const std::vector<int> threads = thread_list(v["threads"].as<std::string>());
  const double seconds = v["seconds"].as<double>();
  const ebb::Dataset data = random_digits(60000);
  for (const int n : threads) {
    Machine machine(n);
    app::print("{} thread{}: peak {:.0f} GFLOP/s; copies, GB/s read and written:", n, n == 1 ? "" : "s",
               machine.peak_gflops());
    const std::vector<std::int64_t> caches = cache_sizes();
    for (std::size_t i = 0; i < caches.size(); ++i)
      app::print(" L{} {:.0f},", i + 1, machine.copy_bandwidth(static_cast<double>(caches[i]) / 2) * 1e-9);
    app::print(" memory {:.0f}\n", machine.copy_bandwidth(1e12) * 1e-9);
    app::print("{:<13}{:>9}{:>11}{:>10}{:>11}{:>12}{:>8}{:>9}{:>9}{:>7}\n", "s per epoch", "GFLOP", "products",
               "GFLOP/s", "optimizer", "activations", "batch", "limit", "ebb", "times");
    for (const Workload& w : chosen) {
      const Machine::Limit limit = machine.step(w);
      const Demand need = demand(w);
      const double steps = 60000.0 / static_cast<double>(w.batch);
      app::print("{:<13}{:>9.1f}{:>11.4f}{:>10.0f}{:>11.4f}{:>12.4f}{:>8.4f}{:>9.3f}", w.name,
                 need.flops * steps * 1e-9, limit.products * steps, need.flops / limit.products * 1e-9,
                 limit.optimizer * steps, limit.activations * steps, limit.gather * steps, limit.total() * steps);
      if (seconds > 0) {
        ebb::set_threads(n);
        const double ours = epoch_seconds(w, data, seconds);
        app::print("{:>9.3f}{:>7.2f}", ours, ours / (limit.total() * steps));
      }
      app::print("\n");
      if (!v.count("shapes")) continue;
      for (const auto& ways : need.products) {
        const Product best = *std::ranges::min_element(ways, {}, [&](const Product& p) { return machine.seconds(p); });
        app::print("    {}{} {:>6} x {:>5} x {:>6}, {:>3} times{:>8.0f} GFLOP/s{:>7.1f} %\n", best.ta ? 'T' : 'N',
                   best.tb ? 'T' : 'N', best.m, best.n, best.k, best.count, best.flops() / machine.seconds(best) * 1e-9,
                   100 * machine.seconds(best) / limit.total());
      }
    }
    app::print("\n");
  }
  return app::ok;
}

}  // namespace

const app::Command roofline_command{
    .name = "roofline",
    .about = "measure the limits that this machine sets, and how close ebb is",
    .arguments = "[OPTIONS]",
    .description =
        "Measures this machine with the BLAS that the library uses: multiply-adds that\n"
        "wait for nothing, copies within each cache, and the products of each\n"
        "workload's step in their exact shapes. Their sum, with optimizer, activations\n"
        "and batches at the speed of copies, is the limit: direct convolution, no random\n"
        "numbers, best times seen.\n"
        "Then a short training of each says how far ebb is from it. Needs no files.\n",
    .examples =
        "  bench roofline --models mlp_512 --threads 1 --shapes\n"
        "  bench roofline --seconds 1\n",
    .options = roofline_options,
    .run = run_roofline,
};

}  // namespace bench
