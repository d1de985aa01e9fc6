// Runs the program mnist, for the tests of its command line.
#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
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
#include <vector>

#include <ebb/graph/tensor.h>
#include <ebb/models/idx.h>

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

enum class Stdout { file, full, closed, broken_pipe };

struct Setting {
  std::map<std::string, std::string> environment = {};
  Stdout out = Stdout::file;
  int signal = 0;  ///< sent as soon as the progress shows this
  std::string when = "Epoch 1/";
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
    int ends[2] = {-1, -1};
    switch (setting.out) {
      case Stdout::file: open_as(1, out); break;
      case Stdout::full: open_as(1, "/dev/full"); break;
      case Stdout::closed: posix_spawn_file_actions_addclose(&actions, 1); break;
      case Stdout::broken_pipe:
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        ::close(ends[0]);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        break;
    }
    open_as(2, err);

    posix_spawnattr_t attributes;  // the signals as a shell leaves them
    posix_spawnattr_init(&attributes);
    sigset_t defaults;
    sigemptyset(&defaults);
    for (const int s : {SIGPIPE, SIGINT, SIGTERM}) sigaddset(&defaults, s);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);

    std::vector<std::string> environment = environment_with(setting.environment);
    Args words = args;
    words.insert(words.begin(), "mnist");
    pid_t pid = 0;
    const int error = ::posix_spawn(&pid, EBB_MNIST_PROGRAM, &actions, &attributes, pointers(words).data(),
                                    pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (ends[1] >= 0) ::close(ends[1]);
    REQUIRE(error == 0);

    Result result;
    result.code = wait_for(pid, [&, sent = false]() mutable {
      if (sent || setting.signal == 0 || !contains(contents(err), setting.when)) return;
      sent = true;
      ::kill(pid, setting.signal);
    });
    result.out = setting.out == Stdout::file ? contents(out) : "";
    result.err = contents(err);
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

inline const Args commands{"train", "evaluate", "predict", "data", "plot", "summary", "search", "reproduce", "transfer", "export", "graph"};

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
