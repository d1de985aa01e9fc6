#include <ebb/graph/mode.h>

#include <fmt/core.h>
#include <pthread.h>

#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include <ebb/graph/error.h>

namespace ebb {

namespace {
/// Nodes point at the paths from any thread and at any age, so they are never freed; a program has as many as layers.
struct Scopes {
  std::mutex mutex;
  std::map<std::pair<const ScopePath*, std::string_view>, const ScopePath*> paths;
  std::deque<ScopePath> arena;
};
Scopes& scopes() {
  static Scopes& all = *new Scopes;
  return all;
}
// Whoever forks has the lock, so that it is open in the child.
[[maybe_unused]] const int forks_with_scopes =
    ::pthread_atfork([] { scopes().mutex.lock(); }, [] { scopes().mutex.unlock(); }, [] { scopes().mutex.unlock(); });
}  // namespace

const ScopePath* detail::enter_scope(const ScopePath* parent, std::string_view name) {
  Scopes& all = scopes();
  const std::lock_guard lock(all.mutex);
  if (const auto it = all.paths.find({parent, name}); it != all.paths.end()) return it->second;
  ScopePath& made = all.arena.emplace_back(
      ScopePath{parent, std::string(name),
                parent && !parent->path.empty() ? fmt::format("{}.{}", parent->path, name) : std::string(name)});
  all.paths.emplace(std::pair{parent, std::string_view(made.name)}, &made);
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
