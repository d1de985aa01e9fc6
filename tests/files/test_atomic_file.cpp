// Files that are whole or old, whatever happens.
// (over 400 lines because every kind of place to write to needs its mounts, children and limits)
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace {

namespace fs = std::filesystem;
using ebb::check_writable;
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

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const ebb::IoError& e) {
    return e.what();
  }
  return "no error";
}
std::string error_of(const fs::path& path, std::string_view text) {
  return error_of([&] { write_atomically(path, text); });
}
std::string check_of(const fs::path& path, std::uintmax_t bytes = 0) {
  return error_of([&] { check_writable(path, true, bytes); });
}

/// What `f` gives in a process of its own, which may give up rights or mount disks for itself alone.
std::string in_child(const std::function<std::string()>& f) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const std::string text = f();
    const bool written = ::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::_exit(written ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  return text;
}

/// In a child: mounts that no other process sees; false where the system does not allow it.
bool own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}
const std::string not_allowed = "not allowed";
bool skipped(const std::string& said) {
  if (said == not_allowed) MESSAGE("skipped: only the superuser may mount disks");
  return said == not_allowed;
}

/// As long as it lives, no file may grow beyond `bytes`: a write takes what fits, the next one fails, and the signal
/// that says so would end the program.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_DFL)) {
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
  const std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(first)), std::as_bytes(std::span(none)),
                                                       std::as_bytes(std::span(big))};
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
  CHECK(error_of(dir / "loop", "x") == (dir / "loop").string() + ": cannot write: Too many levels of symbolic links");
}

TEST_CASE("write_atomically: what the system refuses") {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  fs::create_directory(dir / "folder");

  CHECK(error_of(dir / "none" / "f", "x") == (dir / "none" / "f").string() + ": cannot write: No such directory");
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
  write_atomically(dir / "f", a);
  CHECK(names_in(dir.path()) == Names{"f"});
}

TEST_CASE("write_atomically: what dead processes left is removed, and nothing else") {
  const TempDir dir;
  for (const char* name :
       {".ebb-tmp-1-0", ".ebb-tmp-4711-12", ".ebb-tmp-5-0", ".ebb-tmp-x", ".ebb-tmp-1-0.bak", "ebb-tmp-1-0"})
    std::ofstream(dir / name) << "half";
  fs::create_directory(dir / ".ebb-tmp-7-0");
  fs::create_symlink("ebb-tmp-1-0", dir / ".ebb-tmp-8-0");
  const int fd = ::open((dir / ".ebb-tmp-5-0").c_str(), O_WRONLY);  // one that is being written
  CHECK(::flock(fd, LOCK_EX) == 0);
  write_atomically(dir / "f", "text");
  CHECK(names_in(dir.path()) ==
        Names{".ebb-tmp-1-0.bak", ".ebb-tmp-5-0", ".ebb-tmp-7-0", ".ebb-tmp-8-0", ".ebb-tmp-x", "ebb-tmp-1-0", "f"});
  ::close(fd);
  CHECK(error_of(dir / "g" / "f", "text").ends_with("No such directory"));
  write_atomically(dir / "f", "text");
  CHECK(!fs::exists(dir / ".ebb-tmp-5-0"));
}

TEST_CASE("write_atomically: many processes and threads at once in one directory disturb none") {
  const TempDir dir;
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    REQUIRE(children.back() >= 0);
    if (children.back() > 0) continue;
    std::string error = "no error";
    for (int n = 0; n < 50 && error == "no error"; ++n)
      error = error_of(dir / std::to_string(i % 2), std::string(20'000, 'x'));
    ::_exit(error == "no error" ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(names_in(dir.path()) == Names{"0", "1"});
}

TEST_CASE("write_atomically: a pipe without a reader is refused, not waited for") {
  const TempDir dir;
  const fs::path pipe = dir / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const std::string refused = pipe.string() + ": cannot write: nobody reads from this pipe";
  CHECK(error_of(pipe, "x") == refused);
  CHECK(check_of(pipe) == refused);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  CHECK(error_of([&] { check_writable(pipe, false, 0); }) == "no error");  // nothing is overwritten
  char text[8] = {};
  CHECK(::read(reader, text, sizeof text) == -1);  // no end after the check: the reader waits
  write_atomically(pipe, "text");
  CHECK(::read(reader, text, sizeof text) == 4);
  CHECK(std::string(text) == "text");
  ::close(reader);
  const sighandler_t before = ::signal(SIGPIPE, SIG_DFL);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  CHECK(error_of("/dev/fd/" + std::to_string(ends[1]), "x") ==
        "/dev/fd/" + std::to_string(ends[1]) + ": cannot write: Broken pipe");
  ::close(ends[1]);
  ::signal(SIGPIPE, before);
  CHECK(fs::is_fifo(pipe));
}

TEST_CASE("write_atomically: a socket is refused") {
  const TempDir dir;
  const fs::path path = dir / "socket";
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  CHECK(error_of(path, "x") == path.string() + ": cannot write: it is a socket");
  CHECK(check_of(path) == path.string() + ": cannot write: it is a socket");
  ::close(fd);
}

TEST_CASE("write_atomically: a file that is a mount point is refused before anything is written") {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  write_atomically(dir / "g", "other");
  const std::string said = in_child([&] {
    if (!own_mounts() || ::mount((dir / "g").c_str(), (dir / "f").c_str(), nullptr, MS_BIND, nullptr) != 0)
      return not_allowed;
    std::string out = check_of(dir / "f") + "\n";
    out += error_of(dir / "f", "new") + "\n";
    return out + read(dir / "f") + std::to_string(names_in(dir.path()).size());
  });
  if (skipped(said)) return;
  const std::string refused =
      (dir / "f").string() +
      ": cannot write: the file is a mount point, which cannot be replaced as a whole; mount its folder instead\n";
  CHECK(said == refused + refused + "other2");
}

TEST_CASE("write_atomically: a full disk, noticed before where the size is known") {
  const TempDir dir;
  const std::string said = in_child([&] {
    if (!own_mounts() || ::mount("none", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) return not_allowed;
    write_atomically(dir / "f", std::string(20'000, 'a'));
    std::string out = check_of(dir / "f", 40'000) + "\n" + check_of(dir / "f", 50'000) + "\n";
    out += error_of(dir / "f", std::string(50'000, 'b')) + "\n";
    out += read(dir / "f") == std::string(20'000, 'a') ? "old" : "torn";
    std::ofstream(dir / ".ebb-tmp-1-0") << std::string(40'000, 'c');  // the room of what is removed counts
    out += "\n" + error_of(dir / "f", std::string(40'000, 'd'));
    return out + " " + std::to_string(names_in(dir.path()).size());
  });
  if (skipped(said)) return;
  const std::string refused = (dir / "f").string() + ": cannot write: ";
  CHECK(said == "no error\n" + refused + "it takes 50000 bytes, the disk has room for 45056\n" + refused +
                    "No space left on device\nold\nno error 1");
}

TEST_CASE("write_atomically: a file in a folder that is read-only, or that is another's") {
  const TempDir dir;
  write_atomically(dir / "f", "old");
  CHECK(::chmod((dir / "f").c_str(), 0666) == 0);
  const auto said = [&](mode_t mode) {
    CHECK(::chmod(dir.path().c_str(), mode) == 0);
    return in_child([&]() -> std::string {
      if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return not_allowed;
      std::string out = check_of(dir / "f") + "\n";
      out += error_of(dir / "f", "new") + "\n";
      return out + read(dir / "f");
    });
  };
  const std::string refused = (dir / "f").string() + ": cannot write: ", denied = refused + "Permission denied\n";
  CHECK(said(0555) == denied + denied + "old");
  if (::geteuid() == 0)  // else the file is our own
    CHECK(said(01777) == refused + "another user's file in a folder where only its owner may replace it\n" + refused +
                             "Operation not permitted\nold");
  CHECK(::chmod(dir.path().c_str(), 0700) == 0);
  CHECK(names_in(dir.path()) == Names{"f"});
}

TEST_CASE("check_writable: never makes the file itself") {
  const TempDir dir;
  const int watch = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  REQUIRE(watch >= 0);
  REQUIRE(::inotify_add_watch(watch, dir.path().c_str(), IN_CREATE | IN_DELETE) >= 0);
  check_writable(dir / "f", false, 0);
  alignas(::inotify_event) char events[4096];
  const ssize_t n = ::read(watch, events, sizeof events);
  ::close(watch);
  REQUIRE(n > 0);
  for (ssize_t at = 0; at < n;) {
    const auto* event = reinterpret_cast<const ::inotify_event*>(events + at);
    CHECK(std::string(event->name) != "f");
    at += static_cast<ssize_t>(sizeof *event + event->len);
  }
}

TEST_CASE("check_writable: a file that comes up during the work is kept") {
  const TempDir dir;
  const std::string file = (dir / "f.x").string();
  check_writable(file, false, 0);
  std::ofstream(file) << "theirs";
  const std::string said =
      file + ": came up meanwhile and is kept; written to " + (dir / "f.new.x").string() + " instead";
  CHECK(error_of(file, "ours") == said);
  CHECK(error_of(file, "again") == said);
  CHECK(read(file) == "theirs");
  CHECK(read(dir / "f.new.x") == "again");
  CHECK(names_in(dir.path()) == Names{"f.new.x", "f.x"});

  check_writable(dir / "g", false, 0);
  CHECK(error_of(dir / "g", "first") == "no error");
  CHECK(error_of(dir / "g", "second") == "no error");  // its own
  CHECK(read(dir / "g") == "second");
}

TEST_CASE("check_writable: asks and leaves nothing") {
  const TempDir dir;
  const std::string file = (dir / "f").string();
  CHECK_NOTHROW(check_writable(file, false, 0));
  CHECK(names_in(dir.path()).empty());

  write_atomically(file, "old");
  CHECK(error_of([&] { check_writable(file, false, 0); }) == file + ": exists already");
  CHECK_THROWS_AS(check_writable(file, false, 0), ebb::FileExists);
  CHECK(check_of(file) == "no error");
  fs::create_symlink("later", dir / "dangling");
  CHECK(check_of(dir / "dangling") == "no error");
  fs::create_symlink("none/later", dir / "lost");
  CHECK(check_of(dir / "lost") == (dir / "lost").string() + ": cannot write: No such directory");
  CHECK(check_of(dir / "none" / "f") == (dir / "none" / "f").string() + ": cannot write: No such directory");
  CHECK(check_of(dir / "f" / "g") == (dir / "f" / "g").string() + ": cannot write: Not a directory");
  CHECK(check_of(dir.path()) == dir.path().string() + ": cannot write: Is a directory");
  CHECK(check_of(dir / std::string(256, 'n')).ends_with(": cannot write: File name too long"));
  CHECK(check_of("/dev/null") == "no error");
  CHECK(error_of([] { check_writable("/dev/null", false, 0); }) == "no error");
  CHECK(check_of(file, std::uintmax_t{1} << 62)
            .starts_with(file + ": cannot write: it takes 4611686018427387904 bytes, the disk has room for "));
  {
    const FileSizeLimit limit(1000);
    CHECK(check_of(file, 1000) == "no error");
    CHECK(check_of(file, 1001) ==
          file + ": cannot write: it takes 1001 bytes, the limit of a file (ulimit -f) is 1000");
  }
  CHECK(read(file) == "old");
  CHECK(names_in(dir.path()) == Names{"dangling", "f", "lost"});
}

TEST_CASE("write_atomically: what is replaced becomes an older file, and only then") {
  const TempDir dir;
  const fs::path file = dir / "f.x";
  const std::vector<fs::path> older{dir / "f.1.x", dir / "f.2.x"};
  const auto write = [&](std::string_view text) {
    const auto piece = std::as_bytes(std::span(text));
    write_atomically(file, std::span(&piece, 1), older);
  };
  const auto there = [&] { return Names{read(file), read(older[0]), read(older[1])}; };
  for (const char* text : {"1", "2", "3", "4"}) write(text);
  CHECK(there() == Names{"4", "3", "2"});
  CHECK(names_in(dir.path()) == Names{"f.1.x", "f.2.x", "f.x"});
  {
    const FileSizeLimit limit(10);
    CHECK(error_of([&] { write("more than ten bytes"); }) == file.string() + ": cannot write: File too large");
  }
  CHECK(there() == Names{"4", "3", "2"});
  fs::remove(file);
  check_writable(file, false);
  std::ofstream(file) << "theirs";
  for (int i = 0; i < 3; ++i)
    CHECK(error_of([&] { write("5"); }).ends_with("written to " + (dir / "f.new.x").string() + " instead"));
  CHECK(there() == Names{"theirs", "3", "2"});
  CHECK(names_in(dir.path()) == Names{"f.1.x", "f.2.x", "f.new.x", "f.x"});
}

TEST_CASE(
    "write_atomically: a link to the file has the older ones beside it, where one is in the way, the new file is there "
    "and no other is lost") {
  const TempDir dir;
  fs::create_directory(dir / "sub");
  write_atomically(dir / "sub" / "f", "1");
  fs::create_symlink("sub/f", dir / "f");
  const auto write = [&](std::string_view text, const std::vector<fs::path>& older) {
    const auto piece = std::as_bytes(std::span(text));
    write_atomically(dir / "f", std::span(&piece, 1), older);
  };
  write("2", {dir / "f.1"});
  CHECK(fs::is_symlink(dir / "f"));
  CHECK(read(dir / "sub" / "f") == "2");
  CHECK(read(dir / "f.1") == "1");
  fs::create_directories(dir / "f.2" / "in the way");
  CHECK(error_of([&] {
          write("3", {dir / "f.1", dir / "f.2"});
        }) == (dir / "f.2").string() + ": cannot write: Is a directory");
  CHECK(read(dir / "f") == "3");
  CHECK(read(dir / "f.1") == "1");
  CHECK(names_in(dir.path()) == Names{"f", "f.1", "f.2", "sub"});
}

TEST_CASE("write_atomically: killed at any moment, the file and the older ones are whole") {
  const TempDir dir;
  const std::vector<fs::path> older{dir / "f.1", dir / "f.2"};
  const auto write = [&](std::string_view text) {
    const auto piece = std::as_bytes(std::span(text));
    write_atomically(dir / "f", std::span(&piece, 1), older);
  };
  const auto text = [](int i) { return std::string(20'000, static_cast<char>('a' + i % 26)); };
  for (int i = 0; i < 3; ++i) write(text(i));
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    for (int i = 0; child == 0; ++i) write(text(i));
    ::usleep(static_cast<useconds_t>(500 + 373 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (const fs::path& file : {dir / "f", older[0], older[1]}) {
      const std::string found = read(file);
      if (found.empty()) CHECK_FALSE(fs::exists(file));  // its turn had not come
      else CHECK(found == text(found[0] - 'a'));
    }
    CHECK(fs::exists(dir / "f"));
  }
  for (int i = 0; i < 3; ++i) write(text(i));
  CHECK(names_in(dir.path()) == Names{"f", "f.1", "f.2"});
}
