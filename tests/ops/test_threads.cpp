// The one pool: its limits, errors from inside a block, several callers, a fork, and a system that gives little.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/ops.h>

#include "in_child.h"
#include "restore.h"

using namespace ebb;

TEST_CASE("threads: limits, and an error inside a block reaches the caller") {
  const testing::Threads restore;
  CHECK_THROWS_WITH_AS(set_threads(0), "set_threads: 1 to 256 threads, got 0", ValueError);
  CHECK_THROWS_WITH_AS(set_threads(257), "set_threads: 1 to 256 threads, got 257", ValueError);
  for (const int n : {1, 3}) {
    set_threads(n);
    CHECK(threads() == n);
    for (int round = 0; round < 50; ++round) {
      CHECK_THROWS_WITH_AS(detail::parallel_for(100, 1,
                                                [](std::int64_t begin, std::int64_t) {
                                                  if (begin % 7 == 3) throw ValueError("from a block");
                                                }),
                           "from a block", ValueError);
      std::atomic<int> done = 0;
      detail::parallel_for(100, 1, [&](std::int64_t, std::int64_t) { ++done; });
      CHECK(done == 100);
    }
  }
}

TEST_CASE("threads: even shares of what is handed over") {
  CHECK(detail::even_block(0, 8, 1) == 1);
  CHECK(detail::even_block(8, 8, 16) == 8);     // not worth the hand-over
  CHECK(detail::even_block(9, 8, 1) == 3);      // 3, 3, 3 and nothing: fewer than fours
  CHECK(detail::even_block(128, 41, 1) == 32);  // and not 41, 41, 41 and 5
  CHECK(detail::even_block(5, 0, 1) == 1);      // each larger than a block
  CHECK(detail::even_block(36864, 1 << 15, 16) == 9216);
  CHECK(detail::even_block((1 << 17) + 1, 1 << 15, 16) == (1 << 14) + 16);
}

TEST_CASE("threads: denormals are flushed on request, by every thread, and only then") {
  const std::int64_t n = 1 << 18;  // several blocks
  const Tensor tiny = full({n}, 1e-39), one = ones({n});
  const testing::Threads restore;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    CHECK(sum(tiny * one).item() > 0);
    {
      const FlushDenormals flush;
      CHECK(max(tiny * one).item() == 0);
      CHECK(max(full({n}, 1e-30) * 1e-9).item() == 0);
    }
    CHECK(min(tiny * one).item() > 0);
  }
}

namespace {
/// Threads of this process.
std::ptrdiff_t running() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}
}  // namespace

TEST_CASE("blas: no thread but ours") {
  const testing::Threads restore;
  for (const int count : {1, 3}) {
    set_threads(count);
    CHECK(sum(matmul(ones({300, 300}), ones({300, 300}))).item() == 300.0 * 300 * 300);
    CHECK(running() == count);
  }
}

TEST_CASE("blas: a processor that OpenBLAS does not know gets the kernels that it can run") {
  if (std::getenv("OPENBLAS_CORETYPE") || detail::best_isa() == detail::Isa::baseline) return;
  for (const char* old : {"Prescott", "Nehalem", "Sandybridge", "Barcelona"}) CHECK(detail::blas_kernel() != old);
  CHECK(matmul(ones({3, 5}), ones({5, 2})).to_vector() == std::vector<double>(6, 5.0));
}

TEST_CASE("threads: the library that multiplies says what it is") {
  const std::string text = detail::blas_description();
  CHECK(text.starts_with("OpenBLAS "));
  CHECK(text.find(" (kernel ") != std::string::npos);
}

TEST_CASE("threads: several callers at once") {
  const Tensor a = randn({200, 100}), b = randn({100, 150}), expected = matmul(a, b);
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int k = 0; k < 20; ++k)
        if (!same_bits(matmul(a, b), expected)) ++wrong;
    });
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("threads: set_threads while others compute, and not from inside a loop") {
  const testing::Threads restore(3);
  const Tensor a = randn({200, 100}), b = randn({100, 150}), expected = matmul(a, b);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i)
    callers.emplace_back([&] {
      while (!stop)
        if (!same_bits(matmul(a, b), expected)) ++wrong;
    });
  for (int k = 0; k < 100; ++k) {
    set_threads(1 + k % 4);
    CHECK(threads() == 1 + k % 4);
  }
  stop = true;
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
  set_threads(2);
  CHECK_THROWS_WITH_AS(detail::parallel_for(8, 1, [](std::int64_t, std::int64_t) { set_threads(3); }),
                       "set_threads: called from inside a loop of the pool", ValueError);
  CHECK(threads() == 2);
}

TEST_CASE("threads: the child of a fork computes, whatever other threads were doing") {
  const testing::Threads restore(3);
  const Tensor a = randn({300, 100}), b = randn({100, 150}), expected = matmul(a, b);
  std::atomic<bool> stop = false;
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i)
    callers.emplace_back([&] {
      while (!stop) matmul(a, b);
    });
  for (int k = 0; k < 20; ++k)
    CHECK(testing::in_child([&] {
      for (int again = 0; again < 3; ++again)
        if (!same_bits(matmul(a, b), expected)) return false;
      return threads() == 3 && running() >= 3 && testing::in_child([&] { return same_bits(matmul(a, b), expected); });
    }));
  stop = true;
  for (std::thread& t : callers) t.join();
  CHECK(same_bits(matmul(a, b), expected));
}

TEST_CASE("threads: where the system starts fewer, those that came do the work") {
  const testing::Threads restore(2);
  const Tensor a = randn({300, 100}), b = randn({100, 150}), expected = matmul(a, b);
  CHECK(testing::in_child([&] {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_NPROC, &none) != 0 || (::getuid() == 0 && ::setuid(65534) != 0)) return false;
    set_threads(8);  // none does
    if (threads() != 1 || !same_bits(matmul(a, b), expected)) return false;
    set_threads(5);
    return threads() == 1 && same_bits(matmul(a, b), expected);
  }));
  CHECK(testing::in_child([&] {  // the pool that nobody asked for, made at the first loop
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_NPROC, &none) != 0 || (::getuid() == 0 && ::setuid(65534) != 0)) return false;
    return threads() == 2 && same_bits(matmul(a, b), expected) && threads() == 1;
  }));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need address space of their own
TEST_CASE("blas: products wait for the buffers that there are where no further one fits") {
  const testing::Threads restore(16);
  constexpr std::int64_t n = 256, blocks = 64;
  const std::vector<float> a(n * n, 1), b(n * n, 2);
  std::vector<float> c(n * n * blocks);
  const auto products = [&] {
    std::ranges::fill(c, 0.0f);
    detail::parallel_for(blocks, 1, [&](std::int64_t i, std::int64_t) {
      detail::gemm(false, false, n, n, n, a.data(), n, b.data(), n, 0.0f, c.data() + i * n * n, n);
    });
    return std::ranges::count(c, 512.0f) == n * n * blocks;
  };
  CHECK(testing::in_child([&] {
    if (detail::gemm(false, false, n, n, n, a.data(), n, b.data(), n, 0.0f, c.data(), n); c[0] != 512) return false;
    set_threads(15);  // their stacks are there before the limit
    testing::limit_address_space(64 << 20);
    for (int k = 0; k < 50; ++k)
      if (!products()) return false;
    return true;
  }));
}

TEST_CASE("storage: what has no memory under a limit says so, and what was freed is used first") {
  CHECK(testing::in_child([] {
    release_cached_memory();
    testing::limit_address_space(64 << 20);
    try {
      Tensor::empty({100 << 20});
      return false;
    } catch (const MemoryError& e) {
      const std::string text = e.what();
      if (!text.starts_with("allocate: no memory for 400.0 MiB (") ||
          text.find("of address space by ulimit -v)") == std::string::npos)
        return false;
    }
    for (int k = 1; k < 12; ++k) Tensor::empty({k << 20});  // 4 to 44 MiB, each in a size class of its own
    return true;
  }));
}
#endif
