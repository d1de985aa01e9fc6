// Messages that cannot be written.
#include <doctest/doctest.h>
#include <ebb/models/train/progress.h>
#include <ebb/models/train/tell.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

using namespace ebb;

TEST_CASE("tell: a pipe that is not read is waited for once, for a second, it gets what comes when it is read again") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::FILE* paused = ::fdopen(ends[1], "w");
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) tell(paused, std::string(10'000, 'x'));
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(took > 0.9);
  CHECK(took < 30);  // waiting for each would take 90
  std::string read(1 << 20, ' ');
  CHECK(::read(ends[0], read.data(), read.size()) > 40'000);
  tell(paused, "again");
  CHECK(::read(ends[0], read.data(), read.size()) == 5);
  std::fclose(paused);
  ::close(ends[0]);
}

TEST_CASE("tell: what cannot be written is lost, without an error or a signal") {
  const auto default_pipe = ::signal(SIGPIPE, SIG_DFL), default_size = ::signal(SIGXFSZ, SIG_DFL);
  std::FILE* full = std::fopen("/dev/full", "w");
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  std::FILE* unread = ::fdopen(ends[1], "w");
  std::FILE* closed = std::fopen("/dev/null", "r");  // not for writing
  std::FILE* limited = std::tmpfile();
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit low{0, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &low) == 0);
  for (std::FILE* out : {full, unread, closed, limited})
    for (const auto kind : {ProgressOptions::bar, ProgressOptions::lines, ProgressOptions::keras_lines})
      for (const auto style : {KerasStyle::keras2_2, KerasStyle::keras2, KerasStyle::keras3}) {
        tell(out, "hello\n");
        Progress progress(out, 2, {.kind = kind, .style = style});
        progress.update(1, {});
        progress.finish({}, "Epoch 1/1");
      }
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  sigset_t pending;
  ::sigpending(&pending);
  CHECK_FALSE(::sigismember(&pending, SIGPIPE));
  CHECK_FALSE(::sigismember(&pending, SIGXFSZ));
  for (std::FILE* out : {full, unread, closed, limited}) std::fclose(out);
  ::signal(SIGPIPE, default_pipe);
  ::signal(SIGXFSZ, default_size);
}
