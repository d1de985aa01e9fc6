#include "process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

extern char** environ;

namespace bench {
namespace {

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Child::Child(std::vector<std::string> command, const std::map<std::string, std::string>& environment)
    : shown_(fmt::format("{}", fmt::join(command, " "))) {
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0)
    throw std::runtime_error(fmt::format("pipe: {}", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to[0], 0);
  posix_spawn_file_actions_adddup2(&actions, from[1], 1);
  std::vector<std::string> variables;
  for (char** p = environ; *p; ++p) {
    const std::string entry = *p;
    if (!environment.contains(entry.substr(0, entry.find('=')))) variables.push_back(entry);
  }
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  const int error = ::posix_spawnp(&pid_, command[0].c_str(), &actions, nullptr, pointers(command).data(),
                                   pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  ::close(to[0]);
  ::close(from[1]);
  in_ = to[1];
  out_ = from[0];
  if (error == 0) return;
  ::close(in_);
  ::close(out_);
  throw std::runtime_error(fmt::format("cannot start {}: {}", command[0], std::strerror(error)));
}

Child::~Child() {
  hang_up();
  ::close(out_);
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  wait();
}

void Child::say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw std::runtime_error(fmt::format("{}: does not listen: {}", shown_, std::strerror(errno)));
}

std::string Child::line() {
  for (;;) {
    if (const std::size_t end = pending_.find('\n'); end != std::string::npos) {
      const std::string out = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return out;
    }
    pollfd p{out_, POLLIN, 0};
    const int ready = ::poll(&p, 1, 600'000);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) throw std::runtime_error(fmt::format("{}: said nothing for ten minutes", shown_));
    char buffer[4096];
    const ssize_t n = ::read(out_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::runtime_error(fmt::format("{}: ended before its result", shown_));
    pending_.append(buffer, static_cast<std::size_t>(n));
  }
}

void Child::hang_up() {
  if (in_ >= 0) ::close(in_);
  in_ = -1;
}

void Child::finish() {
  hang_up();
  const int status = wait();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error(fmt::format("{}: {} {}", shown_, WIFEXITED(status) ? "exit code" : "ended by signal",
                                         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
}

int Child::wait() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  return status;
}

void run_to_end(std::vector<std::string> command) {
  command.insert(command.begin(), {"sh", "-c", "exec \"$@\" >&2", "sh"});
  Child(command).finish();
}

std::filesystem::path this_program() { return std::filesystem::read_symlink("/proc/self/exe"); }

}  // namespace bench
