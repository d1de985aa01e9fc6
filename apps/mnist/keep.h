// What is kept of a training: nothing that went wrong, and what went well in spite of a disk that is full.
#pragma once
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include <ebb/models/finite.h>

#include "command.h"

namespace mnist {

/// Why the network is no good: a weight that is no number, or a loss on the first of these samples that is none; else empty.
inline std::string went_wrong(ebb::Sequential& net, const ebb::Dataset& data) {
  if (std::string bad = ebb::not_finite(net); !bad.empty()) return bad;
  const std::int64_t n = std::min<std::int64_t>(512, data.size());
  const double loss = ebb::evaluate(net, data.slice(0, n)).loss;
  return std::isfinite(loss) ? "" : fmt::format("the loss on {} samples is {} at its end", n, loss);
}

/// write(target); where that fails after all the work, another file is written. Throws IoError that says which, and what
/// target `holds`.
template <class Write>
void keep(const std::filesystem::path& target, const Write& write, const std::string& holds = "") {
  try {
    write(target);
  } catch (const ebb::IoError& e) {
    std::string folder = (std::filesystem::temp_directory_path() / "ebb-XXXXXX").string();
    if (!::mkdtemp(folder.data())) throw;
    write(folder + "/model.safetensors");
    throw ebb::IoError(fmt::format("{}; the training is in {}/model.safetensors instead{}", e.what(), folder, holds));
  }
}

}  // namespace mnist
