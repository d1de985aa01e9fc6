#include "workloads.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <ebb/graph/names.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/ops/random.h>

#include "program.h"

namespace bench {

const std::vector<Workload>& workloads() {
  static const std::string features = "conv 32 3 relu, pool 2, conv 64 3 relu, pool 2, conv 64 3 relu, flatten, ";
  static const std::vector<Workload> all{
      {"mlp_50_25", "flatten, dense 50 relu, dense 25 relu, dense 10", "rmsprop", 128, 1.35, 1.5, 1.9},
      {"mlp_512", "flatten, dense 512 relu, dense 10", "rmsprop", 128, 1.25, 1.25, 1.45},
      {"mlp_512_do", "flatten, dense 512 relu, dropout 0.5, dense 10", "rmsprop", 128, 1.6, 1.8, 2.0},
      {"mlp_512x2_do", "flatten, dense 512 relu, dropout 0.2, dense 512 relu, dropout 0.2, dense 10", "adam", 128, 1.5,
       1.5, 1.9},
      {"mlp_75x4", "flatten, dense 75 relu, dense 75 relu, dense 75 relu, dense 75 relu, dense 10", "adam", 32, 2.3,
       2.6, 3.2},
      {"mlp_32", "flatten, dense 32 relu, dense 10", "adam", 32, 3, 3, 4.5},
      {"sig_32x5",
       "flatten, dense 32 sigmoid, dense 32 sigmoid, dense 32 sigmoid, dense 32 sigmoid, dense 32 sigmoid, dense 10",
       "sgd", 16, 4.5, 4.5, 7},
      {"sig_2048", "flatten, dense 2048 sigmoid, dense 10", "sgd", 128, 1.05, 1.05, 1.25},
      {"cnn_64", features + "dense 64 relu, dense 10", "adam", 32, 1.3, 1.4, 1.6},
      {"cnn_512", features + "dense 512 relu, dense 10", "rmsprop", 128, 1.3, 1.4, 1.6},
  };
  return all;
}

std::vector<std::string> workload_names() {
  std::vector<std::string> out;
  for (const Workload& w : workloads()) out.push_back(w.name);
  return out;
}

const Workload& workload(const std::string& name) {
  const auto it = std::ranges::find(workloads(), name, &Workload::name);
  if (it != workloads().end()) return *it;
  throw app::UsageError(ebb::detail::unknown_name("workload", name, workload_names()));
}

std::vector<Workload> workloads_of(const std::string& names) {
  if (names == "all") return workloads();
  std::vector<Workload> out;
  for (const std::string& name : app::words(names)) out.push_back(workload(name));
  if (out.empty())
    throw app::UsageError(fmt::format("no workload is named; there are {}", fmt::join(workload_names(), ", ")));
  return out;
}

ebb::Sequential network(const Workload& w, std::uint64_t seed) {
  ebb::manual_seed(seed);
  return ebb::Sequential({28, 28, 1}, ebb::parse_architecture(w.architecture));
}

std::unique_ptr<ebb::Optimizer> optimizer(const Workload& w) {
  if (w.optimizer == "sgd") return std::make_unique<ebb::SGD>();
  if (w.optimizer == "rmsprop") return std::make_unique<ebb::RMSprop>();
  return std::make_unique<ebb::Adam>();
}

}  // namespace bench
