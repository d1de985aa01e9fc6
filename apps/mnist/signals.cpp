#include "signals.h"

#include <signal.h>

#include <array>
#include <atomic>

namespace mnist {
namespace {

constexpr std::array asked_to_stop{SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1, SIGUSR2};
std::atomic<int> caught{0};

void note(int number) {
  if (caught == SIGXCPU && number == SIGXCPU) return;  // comes again every second
  if (caught.exchange(number) == 0) return;
  ::signal(number, SIG_DFL);  // it may have been another signal the first time
  ::raise(number);
}

}  // namespace

void catch_signals() {
  for (const int number : asked_to_stop) {
    struct sigaction before;
    ::sigaction(number, nullptr, &before);
    if (before.sa_handler != SIG_IGN) ::signal(number, note);  // nohup and a shell's & ask for it to be ignored
  }
}

void end_on_signals() {
  for (const int number : asked_to_stop) {
    struct sigaction now;
    ::sigaction(number, nullptr, &now);
    if (now.sa_handler == note && caught == 0) ::signal(number, SIG_DFL);
  }
}

int caught_signal() { return caught; }

}  // namespace mnist
