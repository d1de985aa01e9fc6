#include <ebb/models/tell.h>

#include <signal.h>

namespace ebb {

void tell(std::FILE* out, std::string_view text) {
  // A pipe that nobody reads sends SIGPIPE, a file at its limit SIGXFSZ: kept from the program while it writes, then taken back.
  sigset_t signals, before;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  sigaddset(&signals, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  std::fwrite(text.data(), 1, text.size(), out);
  std::fflush(out);
  for (const timespec at_once{}; sigtimedwait(&signals, nullptr, &at_once) > 0;) {
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace ebb
