#include <ebb/models/train/finite.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace ebb {

namespace {

std::string not_finite(const std::string& name, const Tensor& t) {
  std::string found;
  if (is_float(t.dtype()))
    visit_float(t.dtype(), [&]<class T>(T) {
      const auto values = t.values<T>();
      const auto it = std::ranges::find_if(values, [](auto x) { return !std::isfinite(x); });
      if (it != values.end()) found = fmt::format("{} holds {}", name, *it);
    });
  return found;
}

}  // namespace

std::string not_finite(Module& module) {
  for (const NamedTensor& t : named_tensors(module))
    if (std::string found = not_finite(t.path, *t.tensor); !found.empty()) return found;
  return {};
}

std::string not_finite(const TensorMap& tensors) {
  for (const auto& [name, t] : tensors)
    if (std::string found = not_finite(name, t); !found.empty()) return found;
  return {};
}

}  // namespace ebb
