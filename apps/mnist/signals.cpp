#include "signals.h"

#include <signal.h>

#include <atomic>

namespace mnist {
namespace {

std::atomic<int> caught{0};

void note(int number) {
  if (caught == SIGXCPU && number == SIGXCPU) return;  // comes again every second
  if (caught.exchange(number) == 0) return;
  ::signal(number, SIG_DFL);  // it may have been another signal the first time
  ::raise(number);
}

}  // namespace

void catch_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1, SIGUSR2}) {
    struct sigaction before;
    ::sigaction(number, nullptr, &before);
    if (before.sa_handler != SIG_IGN) ::signal(number, note);  // nohup and a shell's & ask for it to be ignored
  }
}

int caught_signal() { return caught; }

}  // namespace mnist
