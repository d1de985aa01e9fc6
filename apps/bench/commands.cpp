#include "commands.h"

#include <fmt/core.h>

#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/random.h>

namespace bench {

namespace po = app::po;

po::options_description workload_options() {
  return app::option_group(
      "Workload",
      {
          {"model", app::one_of("mlp_512", workload_names()), "{}"},
          {"arch", app::text(), "another network instead, such as\n\"conv 32 3 relu, pool 2, flatten, dense 10\""},
          {"optimizer", app::one_of({"sgd", "rmsprop", "adam"}), "{}; default: the model's"},
          {"batch", app::number<std::int64_t>(1, 65536), "samples in each step; default: the model's"},
          {"seed", app::number<std::uint64_t>(1, 0, UINT64_MAX), "seed of weights, sample order and dropout"},
      });
}

Workload workload_from(const po::variables_map& v) {
  Workload w = workload(v["model"].as<std::string>());
  if (v.count("arch")) {
    w.name = "network";
    w.architecture = v["arch"].as<std::string>();
  }
  if (v.count("optimizer")) w.optimizer = v["optimizer"].as<std::string>();
  if (v.count("batch")) w.batch = v["batch"].as<std::int64_t>();
  try {
    const ebb::Sequential checked = network(w);
  } catch (const ebb::ValueError& e) {
    throw app::UsageError(e.what());
  } catch (const ebb::ShapeError& e) {
    throw app::UsageError(e.what());
  }
  return w;
}

std::vector<int> thread_list(const std::string& text) {
  std::vector<int> out;
  for (const std::int64_t n : app::numbers("threads", text)) {
    if (n < 1 || n > 256) throw app::UsageError(fmt::format("--threads must be 1 to 256, got {}", n));
    out.push_back(static_cast<int>(n));
  }
  if (out.empty()) throw app::UsageError("--threads needs a number");
  return out;
}

ebb::Dataset random_digits(std::int64_t n) {
  ebb::Generator random(1);
  return {ebb::cast(ebb::uniform({n, 28, 28, 1}, 0, 255, ebb::f32, random), ebb::u8),
          ebb::cast(ebb::uniform({n}, 0, 10, ebb::f32, random), ebb::u8), 1.0 / 255};
}

}  // namespace bench
