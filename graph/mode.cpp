#include <ebb/graph/mode.h>

#include <fmt/core.h>

#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include <ebb/graph/error.h>

namespace ebb {

const ScopePath* detail::enter_scope(const ScopePath* parent, std::string_view name) {
  // Nodes point at these from any thread and at any age, so they are never freed; a program has as many as layers.
  static std::mutex& mutex = *new std::mutex;
  static auto& paths = *new std::map<std::pair<const ScopePath*, std::string_view>, const ScopePath*>;
  static auto& arena = *new std::deque<ScopePath>;
  const std::lock_guard lock(mutex);
  if (const auto it = paths.find({parent, name}); it != paths.end()) return it->second;
  ScopePath& made = arena.emplace_back(
      ScopePath{parent, std::string(name),
                parent && !parent->path.empty() ? fmt::format("{}.{}", parent->path, name) : std::string(name)});
  paths.emplace(std::pair{parent, std::string_view(made.name)}, &made);
  return &made;
}

std::string located(std::string_view op, std::string_view message) {
  std::string text(current_scope());
  for (const std::string_view part : {op, message}) {
    if (part.empty()) continue;
    if (!text.empty()) text += ": ";
    text += part;
  }
  return text;
}

void detail::expect(bool holds, std::string_view who, std::string_view rule, double value) {
  if (!holds) throw ValueError(fmt::format("{}: {}, got {}", who, rule, value));
}

}  // namespace ebb
