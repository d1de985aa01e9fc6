#include <ebb/models/train/history.h>

#include <fmt/core.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include <ebb/graph/error.h>
#include <ebb/models/files/separated.h>

namespace ebb {

const std::vector<double>& History::operator[](const std::string& key) const {
  const auto it = values.find(key);
  if (it != values.end()) return it->second;
  std::string keys;
  for (const auto& [name, _] : values) keys += (keys.empty() ? "" : ", ") + name;
  throw ValueError(
      fmt::format("history: nothing recorded as \"{}\"; recorded are {}", key, keys.empty() ? "no numbers" : keys));
}

History load_history_csv(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) throw IoError(fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno)));
  History out;
  std::vector<std::string> names;
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    const auto refuse = [&](const std::string& what) {
      throw DataError(fmt::format("{}: line {}: {}", path.string(), number, what));
    };
    if (line.ends_with('\r')) line.pop_back();
    const std::vector<std::string> cells =
        detail::separated(line, ',', [&](std::size_t, const std::string& what) { refuse(what); });
    if (number == 1) {
      if (cells[0] != "epoch" || cells.size() < 2) refuse("expected names: epoch,...");
      names = cells;
      for (const std::string& name : names)
        if (name != "epoch" && !out.values.emplace(name, std::vector<double>()).second)
          refuse(fmt::format("duplicate name \"{}\"", name));
      if (out.values.size() + 1 != names.size()) refuse("duplicate name \"epoch\"");
      continue;
    }
    if (cells.size() != names.size()) refuse(fmt::format("expected {} numbers, found {}", names.size(), cells.size()));
    for (std::size_t i = 0; i < cells.size(); ++i) {
      double v = std::numeric_limits<double>::quiet_NaN();
      const char* end = cells[i].data() + cells[i].size();
      const auto [stop, error] = std::from_chars(cells[i].data(), end, v);
      if (cells[i] != "NA" && (error != std::errc() || stop != end))
        refuse(fmt::format("\"{}\" is not a number", cells[i]));
      if (i > 0) out.values[names[i]].push_back(v);
    }
    out.seconds.push_back(0);
  }
  if (in.bad()) throw IoError(fmt::format("{}: cannot read all of it", path.string()));
  if (names.empty()) throw DataError(fmt::format("{}: is empty; expected names: epoch,...", path.string()));
  return out;
}

}  // namespace ebb
