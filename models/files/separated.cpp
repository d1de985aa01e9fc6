#include <ebb/models/files/separated.h>

#include <fmt/core.h>

#include <algorithm>

#include <ebb/graph/printable.h>

namespace ebb::detail {

std::vector<std::string> separated(std::string_view line, char separator,
                                   const std::function<void(std::size_t cell, const std::string& what)>& refuse) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= line.size(); ++at) {
    std::string& cell = out.emplace_back();
    const bool quoted = at < line.size() && line[at] == '"';
    if (quoted) {
      for (++at; at < line.size() && (line[at] != '"' || line.substr(at + 1, 1) == "\""); ++at)
        cell += line[line[at] == '"' ? at++ : at];
      if (at == line.size()) refuse(out.size(), "expected the closing quote, found the end of the line");
      ++at;
    }
    const std::size_t end = std::min(line.find(separator, at), line.size());
    const std::string_view rest = line.substr(at, end - at);
    if (quoted && !rest.empty())
      refuse(out.size(), fmt::format("expected {} after the closing quote, found \"{}\"",
                                     separator == ',' ? "a comma" : "the separator", printable(rest, 20)));
    if (rest.find('"') != rest.npos)
      refuse(out.size(), fmt::format("expected quotes around the whole cell, found \"{}\"", printable(rest, 20)));
    cell += rest;
    at = end;
  }
  return out;
}

}  // namespace ebb::detail
