// How the programs end: what is said of an exception, and the exit code.
#include <doctest/doctest.h>

#ifndef EBB_BENCH_PROGRAM
TEST_CASE("output: how programs end") { MESSAGE("skipped: the build has no programs"); }
#else

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include <program.h>

namespace {

/// What failed_program() says of an exception, after its exit code.
template <class E>
std::string said(const E& exception) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(::fileno(file.get()), STDERR_FILENO);
  int code = -1;
  try {
    throw exception;
  } catch (...) {
    code = app::failed_program("tool", {"tool", " run", " --help"});
  }
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  std::rewind(file.get());
  std::string out = std::to_string(code) + " ";
  for (int c; (c = std::fgetc(file.get())) != EOF;) out += static_cast<char>(c);
  return out;
}

}  // namespace

TEST_CASE("output: an exception is one line that says what it is") {
  CHECK(said(app::UsageError("no such thing")) == "2 tool: no such thing\nTry: tool run --help\n");
  CHECK(said(std::bad_alloc()) == "1 tool: out of memory\n");
  CHECK(said(std::runtime_error("broken")) == "1 tool: broken\n");
  CHECK(said(std::system_error(EAGAIN, std::generic_category(), "thread")) ==
        "1 tool: thread: Resource temporarily unavailable\n");
  const std::string missing =
      said(std::filesystem::filesystem_error("size", "a/b", std::error_code(ENOENT, std::generic_category())));
  CHECK(missing == "1 tool: filesystem error: size: No such file or directory [a/b]\n");
  CHECK(said(42) == "1 tool: failed\n");
}

#endif
