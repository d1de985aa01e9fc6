#include "signals.h"

#include <atomic>
#include <csignal>

namespace mnist {
namespace {

std::atomic<int> caught{0};

void note(int number) {
  caught = number;
  std::signal(number, SIG_DFL);
}

}  // namespace

void catch_signals() {
  std::signal(SIGINT, note);
  std::signal(SIGTERM, note);
}

int caught_signal() { return caught; }

}  // namespace mnist
