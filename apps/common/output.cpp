#include "output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include <ebb/models/train/tell.h>

#include "program.h"

namespace app {
namespace {

std::FILE* results = stdout;
int lost = 0;  // why results could not be written: the first error

void check(bool written) {
  if (!written && lost == 0) lost = errno;
}

/// Says something without asking for memory: it may be the lack of it that is to be said.
void say(std::initializer_list<std::string_view> words) {
  for (const std::string_view w : words) ebb::tell(stderr, w);
}

}  // namespace

void detail::print(std::string_view text) { check(std::fwrite(text.data(), 1, text.size(), results) == text.size()); }
void flush_results() { check(std::fflush(results) == 0); }
void detail::note(std::string_view text) { ebb::tell(stderr, text); }

void keep_results_apart(const std::string& file) {
  struct stat named, out;
  if (::stat(file.c_str(), &named) != 0 || ::fstat(STDOUT_FILENO, &out) != 0) return;
  if (named.st_dev == out.st_dev && named.st_ino == out.st_ino && !S_ISCHR(out.st_mode)) results = stderr;
}

void begin_program(const char* name) {
  // A destructor that asks for memory in vain ends here, as those of nlohmann's JSON do.
  static const char* who;
  who = name;
  std::set_terminate([] {
    if (!std::current_exception()) std::abort();
    std::_Exit(failed_program(who, {}));
  });
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free number, so this one. Opened for the other direction it gives the errors of a closed stream.
    const int mode = fd == 0 ? O_WRONLY : O_RDONLY;
    if (::open("/dev/full", mode) < 0 && ::open("/dev/null", mode) < 0) break;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

int end_program(const char* name, int code) {
  flush_results();
  if (std::ferror(stdout) && lost == 0) lost = EIO;  // written by others: Google Benchmark
  if (lost == 0) return code;
  say({name, ": standard output: ", std::strerror(lost), "\n"});
  return failed;
}

int failed_program(const char* name, std::initializer_list<std::string_view> help) {
  try {
    throw;
  } catch (const UsageError& e) {
    say({name, ": ", e.what(), "\nTry: "});
    say(help);
    say({"\n"});
    return usage;
  } catch (const std::bad_alloc&) {
    say({name, ": out of memory\n"});
  } catch (const std::exception& e) {
    say({name, ": ", e.what(), "\n"});
  } catch (...) {
    say({name, ": failed\n"});
  }
  return failed;
}

}  // namespace app
