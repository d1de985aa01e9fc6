#include <ebb/ops/kernels/processors.h>

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace ebb::detail {
namespace {

// Paths are strings here: without memory, g++ 12's std::filesystem::path crashes where it is joined or cut.

/// How many processors' time per period one group grants: of version 2, "QUOTA PERIOD" or "max PERIOD" in one file; of
/// version 1, a file each, and a quota of -1. 0 without a limit.
double grant_of(const std::string& group) {
  double quota = 0, period = 0;
  std::ifstream both(group + "/cpu.max");
  if (!(both >> quota >> period)) {
    quota = 0;
    std::ifstream(group + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(group + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) out.push_back(part);
  return out;
}

bool has(const std::vector<std::string>& words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

/// Path of this process' group in one hierarchy, from proc/self/cgroup ("7:cpu,cpuacct:/a/b", "0::/a/b"); empty when
/// not in it.
std::string group_in(const std::string& root, bool version2) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version2 ? controllers.empty() && line.starts_with("0:") : has(split(controllers, ','), "cpu"))
      return line.substr(second + 1);
  }
  return "";
}

/// The processors of the affinity, on machines of any number.
int in_affinity() {
  for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 2) {
    std::vector<cpu_set_t> set(static_cast<std::size_t>(most / CPU_SETSIZE));
    const std::size_t bytes = set.size() * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, bytes, set.data()) == 0) return CPU_COUNT_S(bytes, set.data());
  }
  return 1;
}

}  // namespace

int granted_processors(const std::string& root) {
  double least = 0;
  // "31 23 0:28 /GROUP/AT/THE/TOP /MOUNT/POINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS"
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> word = split(line, ' ');
    const auto dash = std::ranges::find(word, "-");
    if (word.size() < 5 || word.end() - dash < 4) continue;
    const bool version2 = dash[1] == "cgroup2";
    if (!version2 && !(dash[1] == "cgroup" && has(split(dash[3], ','), "cpu"))) continue;
    std::string group = group_in(root, version2);
    // A container may see the hierarchy from its own group on, while its path is told from the host's top.
    if (const std::string& top = word[3]; top != "/")
      group = group.starts_with(top + "/") ? group.substr(top.size()) : "";
    // From the group up to where the hierarchy is mounted
    for (std::size_t end = group.size(); end != group.npos; end = end == 0 ? group.npos : group.rfind('/', end - 1))
      if (const double grant = grant_of(root + word[4] + group.substr(0, end)); grant > 0)
        least = least > 0 ? std::min(least, grant) : grant;
  }
  return static_cast<int>(std::ceil(std::min(least, 1e6)));
}

int processors() {
  const int affinity = std::max(1, in_affinity()), granted = granted_processors();
  return granted > 0 ? std::min(affinity, granted) : affinity;
}

}  // namespace ebb::detail
