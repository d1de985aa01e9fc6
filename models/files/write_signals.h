// Internal: writes whose failure is an error, not a signal.
#pragma once
#include <signal.h>

#include <ctime>

namespace ebb::detail {

/// As long as it lives, a write beyond the limit of `ulimit -f`, or to a pipe that nobody reads any more, fails in
/// this thread like any other: the signals that would end the program are held back and dropped.
class WriteSignalsOff {
 public:
  WriteSignalsOff() {
    ::sigset_t pending;
    ::sigpending(&pending);
    ::sigemptyset(&mine_);
    for (const int s : {SIGXFSZ, SIGPIPE})
      if (!::sigismember(&pending, s)) ::sigaddset(&mine_, s);  // one that waits already is somebody else's
    ::pthread_sigmask(SIG_BLOCK, &mine_, &old_);
  }
  WriteSignalsOff(const WriteSignalsOff&) = delete;
  WriteSignalsOff& operator=(const WriteSignalsOff&) = delete;
  ~WriteSignalsOff() {
    const std::timespec at_once{};
    while (::sigtimedwait(&mine_, nullptr, &at_once) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &old_, nullptr);
  }

 private:
  ::sigset_t mine_{}, old_{};
};

}  // namespace ebb::detail
