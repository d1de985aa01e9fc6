#include <ebb/models/history.h>

#include <fmt/core.h>

#include <ebb/graph/error.h>

namespace ebb {

const std::vector<double>& History::operator[](const std::string& key) const {
  const auto it = values.find(key);
  if (it != values.end()) return it->second;
  std::string keys;
  for (const auto& [name, _] : values) keys += (keys.empty() ? "" : ", ") + name;
  throw ValueError(fmt::format("history: no \"{}\"; there are: {}", key, keys));
}

}  // namespace ebb
