// What a measured process knows about itself. Plain C++17 on Linux, without the library: the LibTorch peer is measured
// by the same code.
#pragma once
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace bench {

/// Seconds of some clock that never goes back.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds since this process began, to a hundredth (field 22 of /proc/self/stat); 0 where that cannot be read.
inline double seconds_since_start() {
  std::ifstream in("/proc/self/stat");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(text.substr(name_end + 1));
  std::string word;
  for (int field = 3; field <= 22; ++field) rest >> word;
  timespec uptime{};
  clock_gettime(CLOCK_BOOTTIME, &uptime);
  return static_cast<double>(uptime.tv_sec) + 1e-9 * static_cast<double>(uptime.tv_nsec) -
         std::stod(word) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// The most memory that was ever resident, in MB of 10^6 bytes; 0 where that cannot be read.
inline double peak_memory_mb() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.compare(0, 6, "VmHWM:") == 0) return std::stod(line.substr(6)) * 1024 / 1e6;
  return 0;
}

/// Of some numbers, of which there must be one at least.
inline double median(std::vector<double> values) {
  const std::size_t half = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// The next turn of a paced process: how many batches (or calls) `bench compare` asks for on standard input, 0 for all
/// there are; nothing when it wants no more.
inline std::optional<long> next_turn() {
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return std::stol(line);
}

}  // namespace bench
