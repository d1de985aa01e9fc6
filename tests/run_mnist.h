// Runs the program mnist, for the tests of its command line.
#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <ebb/graph/tensor.h>
#include <ebb/models/data/idx.h>

#include "temp_dir.h"

namespace cli {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;
using Seconds = std::chrono::duration<double>;
constexpr Seconds patience{120};  // sanitizers and a busy machine included

inline std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path().filename().string());
  std::ranges::sort(out);
  return out;
}

/// What a run left behind. `code` is the exit code, or minus the signal that ended it.
struct Result {
  int code = 0;
  std::string out, err;
};

inline doctest::String toString(const Result& r) {
  return ("exit code " + std::to_string(r.code) + "\nstdout: " + r.out + "\nstderr: " + r.err).c_str();
}

/// What a stream is: a file, or a pipe that is read, both of which end up in the Result; and such that take nothing. A
/// paused pipe takes a page, and is read when the program has ended. A terminal is closed when it shows Setting::when;
/// the program is the first of its session, as below ssh.
enum class Stream { file, pipe, full, closed, broken_pipe, paused_pipe, terminal };

struct Setting {
  std::map<std::string, std::string> environment = {};
  Stream out = Stream::file, err = Stream::file;
  int signal = 0, second = 0;  ///< sent as soon as standard error shows this, the second a moment after the first
  std::string when = "Epoch 1/";
  Seconds delay{0};               ///< the first is sent so long after that
  std::vector<int> ignored = {};  ///< signals, as nohup and a shell's & have it
};

/// The two ends of a stream of the program. Read from ours without waiting.
struct Ends {
  int ours = -1, its = -1;
  void read_into(std::string& text) {
    char buffer[4096];
    for (ssize_t n; ours >= 0 && (n = ::read(ours, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(n));
  }
  void close_ours() {
    if (ours >= 0) ::close(std::exchange(ours, -1));
  }
};

/// Runs mnist in a home of its own, in which no data set is installed.
class Mnist {
 public:
  Result operator()(const Args& args, const Setting& setting = {}) const {
    const fs::path out = dir_ / "out", err = dir_ / "err";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const auto open_as = [&](int fd, const fs::path& path) {
      posix_spawn_file_actions_addopen(&actions, fd, path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    };
    open_as(0, "/dev/null");
    const auto connect = [&](int fd, Stream stream, const fs::path& path) {
      Ends ends;
      int both[2];
      switch (stream) {
        case Stream::file: open_as(fd, path); break;
        case Stream::full: open_as(fd, "/dev/full"); break;
        case Stream::closed: posix_spawn_file_actions_addclose(&actions, fd); break;
        case Stream::pipe:
        case Stream::broken_pipe:
        case Stream::paused_pipe:
          REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
          ends = {both[0], both[1]};
          ::fcntl(ends.ours, F_SETFL, O_NONBLOCK);
          if (stream == Stream::broken_pipe) ends.close_ours();
          if (stream == Stream::paused_pipe) ::fcntl(ends.its, F_SETPIPE_SZ, 4096);
          posix_spawn_file_actions_adddup2(&actions, ends.its, fd);
          break;
        case Stream::terminal:
          ends.ours = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
          REQUIRE(ends.ours >= 0);
          REQUIRE(::grantpt(ends.ours) == 0);
          REQUIRE(::unlockpt(ends.ours) == 0);
          open_as(fd, ::ptsname(ends.ours));
      }
      return ends;
    };
    Ends out_ends = connect(1, setting.out, out), err_ends = connect(2, setting.err, err);

    posix_spawnattr_t attributes;  // the signals as a shell leaves them
    posix_spawnattr_init(&attributes);
    sigset_t defaults;
    sigemptyset(&defaults);
    for (const int s : {SIGPIPE, SIGXFSZ, SIGINT, SIGTERM, SIGHUP}) sigaddset(&defaults, s);
    std::vector<std::pair<int, sighandler_t>> before;
    for (const int s : setting.ignored) {
      sigdelset(&defaults, s);
      before.emplace_back(s, ::signal(s, SIG_IGN));
    }
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    const int session = setting.err == Stream::terminal ? POSIX_SPAWN_SETSID : 0;
    posix_spawnattr_setflags(&attributes, static_cast<short>(POSIX_SPAWN_SETSIGDEF | session));

    std::vector<std::string> environment = environment_with(setting.environment);
    Args words = args;
    words.insert(words.begin(), "mnist");
    pid_t pid = 0;
    const int error = ::posix_spawn(&pid, EBB_MNIST_PROGRAM, &actions, &attributes, pointers(words).data(),
                                    pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    for (const auto& [number, handler] : before) ::signal(number, handler);
    for (const int fd : {out_ends.its, err_ends.its})
      if (fd >= 0) ::close(fd);
    REQUIRE(error == 0);

    Result result;
    result.code =
        wait_for(pid, [&, due = setting.signal, then = setting.second, first = std::chrono::steady_clock::time_point(),
                       shown = std::chrono::steady_clock::time_point()]() mutable {
          if (setting.out != Stream::paused_pipe) out_ends.read_into(result.out);
          if (setting.err != Stream::paused_pipe) err_ends.read_into(result.err);
          if (setting.err == Stream::file && due) result.err = contents(err);
          const auto now = std::chrono::steady_clock::now();
          if (setting.err == Stream::terminal && contains(result.err, setting.when)) err_ends.close_ours();
          if (due && shown == decltype(shown)() && contains(result.err, setting.when)) shown = now;
          if (due && shown != decltype(shown)() && now - shown >= setting.delay) {
            ::kill(pid, std::exchange(due, 0));
            first = now;
          } else if (!due && then && now - first > std::chrono::milliseconds(50)) {
            ::kill(pid, std::exchange(then, 0));
          }
        });
    out_ends.read_into(result.out);
    err_ends.read_into(result.err);
    for (Ends* ends : {&out_ends, &err_ends}) ends->close_ours();
    if (setting.out == Stream::file) result.out = contents(out);
    if (setting.err == Stream::file) result.err = contents(err);
    return result;
  }

  /// A place for files of the test.
  fs::path operator/(const fs::path& name) const { return files_ / name; }
  const fs::path& files() const { return files_.path(); }

  /// A folder of four small IDX files that are quickly read and easily learned: a bar in the place of the digit.
  std::string digits() {
    const fs::path folder = files_ / "digits";
    if (fs::exists(folder)) return folder.string();
    fs::create_directory(folder);
    for (const auto& [part, count] : {std::pair{"train", 512}, std::pair{"t10k", 64}}) {
      std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count) * 28 * 28), labels;
      for (int i = 0; i < count; ++i) {
        const int label = i * 7 % 10;
        labels.push_back(static_cast<std::uint8_t>(label));
        const auto bar = pixels.begin() + i * 28 * 28 + (label * 2 + i % 2) * 28;
        std::fill(bar, bar + 28, static_cast<std::uint8_t>(255 - i % 64));
      }
      ebb::write_idx(folder / (std::string(part) + "-images-idx3-ubyte"), ebb::Tensor::from(pixels, {count, 28, 28}));
      ebb::write_idx(folder / (std::string(part) + "-labels-idx1-ubyte"), ebb::Tensor::from(labels, {count}));
    }
    return folder.string();
  }

  /// Arguments that train a tiny network on digits(), and `more`.
  Args tiny(const Args& more = {}) {
    Args args{"train", "--data", digits(), "--epochs", "1", "--arch", "flatten, dense 10"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

 private:
  std::vector<std::string> environment_with(const std::map<std::string, std::string>& more) const {
    std::map<std::string, std::string> all;
    for (char** p = environ; *p; ++p) {
      const std::string entry = *p, name = entry.substr(0, entry.find('='));
      if (name != "EBB_DATA" && name != "TERM" && !name.starts_with("XDG_")) all[name] = entry.substr(name.size() + 1);
    }
    all["HOME"] = dir_.path().string();
    all["XDG_DATA_DIRS"] = (dir_ / "system").string();
    for (const auto& [name, value] : more) all[name] = value;
    std::vector<std::string> out;
    for (const auto& [name, value] : all) out.push_back(name + "=" + value);
    return out;
  }

  static std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> out;
    for (std::string& word : words) out.push_back(word.data());
    out.push_back(nullptr);
    return out;
  }

  static int wait_for(pid_t pid, const std::function<void()>& meanwhile) {
    const auto start = std::chrono::steady_clock::now();
    for (int status = 0;;) {
      if (::waitpid(pid, &status, WNOHANG) == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
      meanwhile();
      if (std::chrono::steady_clock::now() - start > patience) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, &status, 0);
        FAIL("mnist did not end in " << patience.count() << " s");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  TempDir dir_, files_;
};

inline const Args commands{"train",   "verify", "evaluate",  "predict",  "data",   "plot",
                           "summary", "search", "reproduce", "transfer", "export", "graph"};

inline std::string joined_with_commas(const Args& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : ", ") + w;
  return out;
}

inline Args joined(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// A usage error: exit code 2, nothing on stdout, one line about it and one where to read on.
inline void check_usage_error(const Result& r, std::string_view message) {
  CAPTURE(r);
  CHECK(r.code == 2);
  CHECK(r.out == "");
  CHECK(contains(r.err, message));
  const auto text = lines(r.err);
  CHECK(text.size() >= 2);
  CHECK(r.err.starts_with("mnist: "));
  CHECK((!text.empty() && text.back().starts_with("Try: mnist ")));
}

/// A failed run: exit code 1, nothing on stdout, a message that begins with the program's name.
inline void check_failure(const Result& r, std::string_view message) {
  CAPTURE(r);
  CHECK(r.code == 1);
  CHECK(r.out == "");
  CHECK(r.err.starts_with("mnist: "));
  CHECK(contains(r.err, message));
}

}  // namespace cli
