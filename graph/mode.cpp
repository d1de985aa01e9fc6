#include <ebb/graph/mode.h>

#include <fmt/core.h>
#include <pthread.h>

#include <deque>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include <ebb/graph/error.h>

namespace ebb {

namespace {
/// Nodes point at the paths from any thread and at any age, so they are never freed; a program has as many as layers.
struct Scopes {
  std::mutex mutex;
  std::map<std::tuple<const ScopePath*, std::string_view, bool>, const ScopePath*> paths;
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

const ScopePath* detail::enter_scope(const ScopePath* parent, std::string_view name, bool composition) {
  if (parent && parent->is_composition) parent = parent->parent;
  Scopes& all = scopes();
  const std::lock_guard lock(all.mutex);
  if (const auto it = all.paths.find({parent, name, composition}); it != all.paths.end()) return it->second;
  std::string path = parent ? parent->path : std::string();
  if (!composition) path += path.empty() ? std::string(name) : fmt::format(".{}", name);
  const ScopePath& made = all.arena.emplace_back(ScopePath{parent, std::string(name), std::move(path), composition});
  all.paths.emplace(std::tuple{parent, std::string_view(made.name), composition}, &made);
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
