#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/atomic_file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace {

namespace fs = std::filesystem;
using ebb::write_atomically;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}
using Names = std::vector<std::string>;

unsigned mode_of(const fs::path& path) {
  struct stat info {};
  CHECK(::stat(path.c_str(), &info) == 0);
  return info.st_mode & 07777;
}

std::string error_of(const fs::path& path, std::string_view text) {
  try {
    write_atomically(path, text);
  } catch (const ebb::IoError& e) {
    return e.what();
  }
  return "no error";
}

/// As long as it lives, no file may grow beyond `bytes`: a write takes what fits, the next one fails.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  sighandler_t handler_;
};

}  // namespace

TEST_CASE("write_atomically: pieces follow each other, some empty") {
  const TempDir dir;
  const std::string first = "abc", none, big(3 << 20, 'x');
  const std::vector<std::span<const std::byte>> pieces{
      std::as_bytes(std::span(first)), std::as_bytes(std::span(none)), std::as_bytes(std::span(big))};
  write_atomically(dir / "f", pieces);
  CHECK(read(dir / "f") == "abc" + big);
  write_atomically(dir / "f", std::span<const std::span<const std::byte>>());
  CHECK(read(dir / "f").empty());
  CHECK(fs::exists(dir / "f"));
  CHECK(names_in(dir.path()) == Names{"f"});
}

TEST_CASE("write_atomically: a shorter text replaces a longer one, in the working directory too") {
  const TempDir dir;
  write_atomically(dir / "f", "a long text");
  write_atomically(dir / "f", "short");
  CHECK(read(dir / "f") == "short");

  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  write_atomically("g", "here");
  fs::current_path(before);
  CHECK(read(dir / "g") == "here");
  CHECK(names_in(dir.path()) == Names{"f", "g"});
}

TEST_CASE("write_atomically: a file name as long as the system allows") {
  const TempDir dir;
  const std::string name(255, 'n');
  write_atomically(dir / name, "text");
  CHECK(read(dir / name) == "text");
}

TEST_CASE("write_atomically: permission bits: umask for a new file, those of an old one kept") {
  const TempDir dir;
  const mode_t old = ::umask(027);
  write_atomically(dir / "new", "text");
  CHECK(mode_of(dir / "new") == 0640);
  for (const unsigned mode : {0600u, 0644u, 0666u, 0755u}) {
    CHECK(::chmod((dir / "new").c_str(), mode) == 0);
    write_atomically(dir / "new", "text");
    CHECK(mode_of(dir / "new") == mode);
  }
  ::umask(old);
}

TEST_CASE("write_atomically: a symbolic link stays one") {
  const TempDir dir;
  fs::create_directory(dir / "data");
  write_atomically(dir / "data" / "f", "old");
  fs::create_symlink("data/f", dir / "relative");
  fs::create_symlink(dir / "relative", dir / "absolute");
  write_atomically(dir / "absolute", "new");
  CHECK(read(dir / "data" / "f") == "new");
  CHECK(fs::is_symlink(dir / "relative"));
  CHECK(fs::is_symlink(dir / "absolute"));

  fs::create_symlink("data/later", dir / "dangling");
  write_atomically(dir / "dangling", "made");
  CHECK(read(dir / "data" / "later") == "made");
  CHECK(fs::is_symlink(dir / "dangling"));
  CHECK(names_in(dir / "data") == Names{"f", "later"});
  CHECK(names_in(dir.path()) == Names{"absolute", "dangling", "data", "relative"});

  fs::create_symlink("loop", dir / "loop");
  CHECK(error_of(dir / "loop", "x") ==
        (dir / "loop").string() + ": cannot write: Too many levels of symbolic links");
}

TEST_CASE("write_atomically: what the system refuses") {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  fs::create_directory(dir / "folder");

  CHECK(error_of(dir / "none" / "f", "x") ==
        (dir / "none" / "f").string() + ": cannot write: No such directory");
  CHECK(error_of(dir / "f" / "g", "x") == (dir / "f" / "g").string() + ": cannot write: Not a directory");
  CHECK(error_of(dir / "folder", "x") == (dir / "folder").string() + ": cannot write: Is a directory");
  CHECK(error_of(dir / std::string(256, 'n'), "x").ends_with(": cannot write: File name too long"));
  CHECK(error_of("", "x") == ": cannot write: No such file or directory");
  CHECK(read(dir / "f") == "old");
  CHECK(names_in(dir.path()) == Names{"f", "folder"});
}

TEST_CASE("write_atomically: disk full leaves the old file and no temporary") {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  std::string error;
  {
    const FileSizeLimit limit(1000);  // the first write is cut short, the second fails
    error = error_of(dir / "f", std::string(5000, 'x'));
  }
  CHECK(error == (dir / "f").string() + ": cannot write: File too large");
  CHECK(read(dir / "f") == "old");
  {
    const FileSizeLimit limit(1000);
    error = error_of(dir / "g", std::string(5000, 'x'));
  }
  CHECK(error == (dir / "g").string() + ": cannot write: File too large");
  CHECK(names_in(dir.path()) == Names{"f"});
}

TEST_CASE("write_atomically: a device is written to, not replaced") {
  if (!fs::is_character_file("/dev/full") || !fs::is_character_file("/dev/null")) return;
  const TempDir dir;
  CHECK(error_of("/dev/full", "x") == "/dev/full: cannot write: No space left on device");
  fs::create_symlink("/dev/full", dir / "full");
  CHECK(error_of(dir / "full", "x") == (dir / "full").string() + ": cannot write: No space left on device");
  write_atomically("/dev/null", "text");
  CHECK(fs::is_character_file("/dev/full"));
  CHECK(fs::is_character_file("/dev/null"));
}

TEST_CASE("write_atomically: permissions" * doctest::skip(::geteuid() == 0)) {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  CHECK(::chmod((dir / "f").c_str(), 0444) == 0);
  CHECK(error_of(dir / "f", "x") == (dir / "f").string() + ": cannot write: Permission denied");
  CHECK(::chmod((dir / "f").c_str(), 0644) == 0);

  CHECK(::chmod(dir.path().c_str(), 0500) == 0);
  CHECK(error_of(dir / "f", "x") == (dir / "f").string() + ": cannot write: Permission denied");
  CHECK(error_of(dir / "g", "x") == (dir / "g").string() + ": cannot write: Permission denied");
  CHECK(read(dir / "f") == "old");
  CHECK(names_in(dir.path()) == Names{"f"});

  CHECK(::chmod(dir.path().c_str(), 0300) == 0);  // cannot be listed, so not synced either
  write_atomically(dir / "f", "new");
  CHECK(::chmod(dir.path().c_str(), 0700) == 0);
  CHECK(read(dir / "f") == "new");
  CHECK(names_in(dir.path()) == Names{"f"});
}

TEST_CASE("write_atomically: killed at any moment, the file is whole") {
  const TempDir dir;
  const std::string a(200'000, 'a'), b(300'000, 'b');
  write_atomically(dir / "f", a);
  for (int i = 0; i < 40; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (;;) {
        write_atomically(dir / "f", b);
        write_atomically(dir / "f", a);
      }
    }
    ::usleep(static_cast<useconds_t>(500 + 373 * i));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string text = read(dir / "f");
    CHECK((text == a || text == b));
  }
}
