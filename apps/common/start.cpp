// What must be done before the libraries that a program needs are started.
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

namespace {

/// OpenBLAS starts a thread for each processor as it is loaded. With too little memory for their buffers (ulimit -v
/// below 190 MB for two, measured with 0.3.21) it waits for ever, before main(). ebb calls it from threads of its own
/// and needs none of them, so where memory is limited the program starts again and tells it so; a variable that is set
/// after loading it does not read. Nothing is initialized yet: only system calls.
void start_again_without_threads(int, char** argv, char** environment) {
  static char alone[] = "OPENBLAS_NUM_THREADS=1";
  constexpr std::string_view name = "OPENBLAS_NUM_THREADS=";
  bool limited = false;
  for (const auto memory : {RLIMIT_AS, RLIMIT_DATA}) {
    struct rlimit limit;
    limited = limited || (::getrlimit(memory, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY);
  }
  if (!limited) return;
  constexpr int most = 4000;
  static char* changed[most + 2];
  int count = 0, at = -1;
  for (; environment[count] && count < most; ++count) {
    changed[count] = environment[count];
    if (std::strncmp(environment[count], name.data(), name.size()) == 0) at = count;
  }
  if (count == most || (at >= 0 && std::strcmp(environment[at], alone) == 0)) return;
  changed[at >= 0 ? at : count] = alone;
  ::execve("/proc/self/exe", argv, changed);  // where that fails it goes on as it is
}

// Before the constructors of all libraries (System V gABI, DT_PREINIT_ARRAY).
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_all)(int, char**,
                                                                       char**) = start_again_without_threads;

}  // namespace
