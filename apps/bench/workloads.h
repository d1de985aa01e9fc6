// The ten training workloads that ebb is measured by.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/optimizer.h>

namespace bench {

/// A network on MNIST's digits, how it is trained, and what its speed is held to.
struct Workload {
  std::string name;
  std::string architecture;  ///< as ebb/models/layers/architecture.h reads it
  std::string optimizer;     ///< sgd, rmsprop or adam with Keras' defaults
  std::int64_t batch;
  double least_1, least_2;  ///< the peer's seconds over ours: at least this much with one thread and with two,
  double aim;               ///< and hoped for
};

const std::vector<Workload>& workloads();
std::vector<std::string> workload_names();
/// Throws app::UsageError, with the nearest name, when there is none.
const Workload& workload(const std::string& name);
/// "mlp_32,cnn_64" or "all".
std::vector<Workload> workloads_of(const std::string& names);

/// The workload's network, its parameters drawn from `seed` (Glorot uniform, zero biases).
ebb::Sequential network(const Workload& w, std::uint64_t seed = 1);
std::unique_ptr<ebb::Optimizer> optimizer(const Workload& w);

}  // namespace bench
