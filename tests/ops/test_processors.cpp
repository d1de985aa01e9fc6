// How many processors this process may use.
#include <doctest/doctest.h>
#include <sched.h>

#include <fstream>
#include <map>
#include <string>

#include <ebb/ops/kernels/processors.h>

#include "in_child.h"
#include "temp_dir.h"

using namespace ebb;

namespace {

/// Processors granted where these files are.
int granted(const std::map<std::string, std::string>& files) {
  const TempDir dir;
  for (const auto& [name, text] : files) {
    std::filesystem::create_directories((dir / name).parent_path());
    std::ofstream(dir / name) << text;
  }
  return detail::granted_processors(dir.path());
}

const std::string v2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string v1 =
    "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
const std::string mounts = "proc/self/mountinfo", groups = "proc/self/cgroup", top2 = "sys/fs/cgroup/",
                  top1 = "sys/fs/cgroup/cpu,cpuacct/";

}  // namespace

TEST_CASE("processors: a quota of control groups counts, a part of a processor as one") {
  CHECK(granted({}) == 0);
  CHECK(granted({{mounts, v2}, {groups, "0::/a/b\n"}}) == 0);
  CHECK(granted({{mounts, v2}, {groups, "0::/a/b\n"}, {top2 + "a/b/cpu.max", "max 100000\n"}}) == 0);
  CHECK(granted({{mounts, v2}, {groups, "0::/a/b\n"}, {top2 + "a/b/cpu.max", "200000 100000\n"}}) == 2);
  CHECK(granted({{mounts, v2}, {groups, "0::/a/b\n"}, {top2 + "a/b/cpu.max", "150000 100000\n"}}) == 2);
  CHECK(granted({{mounts, v2}, {groups, "0::/a/b\n"}, {top2 + "a/b/cpu.max", "5000 100000\n"}}) == 1);
  // The least of the group's and of those it is in; others do not matter.
  CHECK(granted({{mounts, v2},
                 {groups, "0::/a/b\n"},
                 {top2 + "a/b/cpu.max", "400000 100000\n"},
                 {top2 + "a/cpu.max", "300000 100000\n"},
                 {top2 + "c/cpu.max", "100000 100000\n"}}) == 3);
  CHECK(granted({{mounts, v1},
                 {groups, "7:cpu,cpuacct:/a\n3:cpuset:/b\n"},
                 {top1 + "a/cpu.cfs_quota_us", "250000\n"},
                 {top1 + "a/cpu.cfs_period_us", "100000\n"}}) == 3);
  CHECK(granted({{mounts, v1},
                 {groups, "7:cpu,cpuacct:/a\n"},
                 {top1 + "a/cpu.cfs_quota_us", "-1\n"},
                 {top1 + "a/cpu.cfs_period_us", "100000\n"}}) == 0);
  // Both versions side by side, and a group told by the host's path in a container that is mounted its own group.
  CHECK(granted({{mounts, v2 + v1},
                 {groups, "7:cpu,cpuacct:/\n0::/x\n"},
                 {top1 + "cpu.cfs_quota_us", "100000\n"},
                 {top1 + "cpu.cfs_period_us", "50000\n"},
                 {top2 + "x/cpu.max", "900000 100000\n"}}) == 2);
  CHECK(granted({{mounts, "30 23 0:27 /docker/f00 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"},
                 {groups, "0::/docker/f00\n"},
                 {top2 + "cpu.max", "200000 100000\n"}}) == 2);
  CHECK(granted({{mounts, v2}, {groups, "0::/docker/f00\n"}, {top2 + "cpu.max", "200000 100000\n"}}) == 2);
}

TEST_CASE("processors: what cannot be read limits nothing") {
  for (const char* text : {"", "max", "0 0", "-5 100000", "100000 0", "100000 -1", "many 100000", "nan 100000"})
    CHECK(granted({{mounts, v2}, {groups, "0::/a\n"}, {top2 + "a/cpu.max", text}}) == 0);
  for (const char* text :
       {"", "x", "30 23 0:27 /", "- - - -", "a b c d e - cgroup2", "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2"})
    CHECK(granted({{mounts, text}, {groups, "0::/a\n"}, {top2 + "a/cpu.max", "100000 100000"}}) == 0);
  for (const char* text : {"", "x", ":", "0:", "::/a", "1:memory:/a"})
    CHECK(granted({{mounts, v2}, {groups, text}, {top2 + "a/cpu.max", "100000 100000"}}) == 0);
  CHECK(granted({{mounts, v2}, {groups, "0::/../../..\n"}, {top2 + "cpu.max", "300000 100000"}}) <= 3);
  CHECK(granted({{mounts, v2}, {groups, "0::/a\n"}, {top2 + "a/cpu.max", "1e30 1\n"}}) == 1000000);
}

TEST_CASE("processors: those of the affinity") {
  CHECK(detail::processors() >= 1);
  CHECK(testing::in_child([] {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return true;  // more of them than such a set holds
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    return ::sched_setaffinity(0, sizeof set, &set) == 0 && detail::processors() == 1;
  }));
}
