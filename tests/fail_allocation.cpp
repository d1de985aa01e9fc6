// Preloaded into a program (LD_PRELOAD), makes an allocation fail: the EBB_FAIL-th since main() began, or with
// EBB_FAIL_ON all from there on. operator new asks malloc, so what the system refuses, it refuses here. With EBB_COUNT,
// says at the end how many there were.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::atomic<long> count{0};
long failing = 0;
bool all_from_there = false;
int (*program)(int, char**, char**);

void* counted(void* (*allocate)(std::size_t, std::size_t), std::size_t a, std::size_t b) {
  const long n = ++count;
  if (failing == 0 || !(all_from_there ? n >= failing : n == failing)) return allocate(a, b);
  errno = ENOMEM;
  return nullptr;
}

int start(int argc, char** argv, char** environment) {
  const char* n = std::getenv("EBB_FAIL");
  const bool tell = std::getenv("EBB_COUNT");
  all_from_there = std::getenv("EBB_FAIL_ON");
  count = 0;
  failing = n ? std::atol(n) : 0;
  const int code = program(argc, argv, environment);
  failing = 0;
  if (tell) std::fprintf(stderr, "allocations: %ld\n", count.load());
  return code;
}

}  // namespace

extern "C" {
void* malloc(std::size_t n) {
  return counted([](std::size_t, std::size_t b) { return __libc_malloc(b); }, 0, n);
}
void* calloc(std::size_t a, std::size_t b) { return counted(__libc_calloc, a, b); }
void* realloc(void* p, std::size_t n) {
  return counted([](std::size_t a, std::size_t b) { return __libc_realloc(reinterpret_cast<void*>(a), b); },
                 reinterpret_cast<std::size_t>(p), n);
}
void* memalign(std::size_t a, std::size_t n) { return counted(__libc_memalign, a, n); }
void* aligned_alloc(std::size_t a, std::size_t n) { return counted(__libc_memalign, a, n); }
int posix_memalign(void** p, std::size_t a, std::size_t n) {
  void* const block = counted(__libc_memalign, a, n);
  if (!block) return ENOMEM;
  *p = block;
  return 0;
}

int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, void (*init)(), void (*fini)(),
                      void (*rtld_fini)(), void* stack_end) {
  program = main;
  const auto real = reinterpret_cast<decltype(&__libc_start_main)>(::dlsym(RTLD_NEXT, "__libc_start_main"));
  return real(start, argc, argv, init, fini, rtld_fini, stack_end);
}
}
