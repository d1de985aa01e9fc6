#include <ebb/models/finite.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace ebb {

std::string not_finite(Module& module) {
  for (const NamedTensor& t : named_tensors(module)) {
    std::string found;
    if (is_float(t.tensor->dtype()))
      visit_float(t.tensor->dtype(), [&](auto zero) {
        const auto values = t.tensor->values<decltype(zero)>();
        const auto it = std::ranges::find_if(values, [](auto x) { return !std::isfinite(x); });
        if (it != values.end()) found = fmt::format("{} holds {}", t.path, *it);
      });
    if (!found.empty()) return found;
  }
  return {};
}

}  // namespace ebb
