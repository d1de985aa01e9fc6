// The one pool: its limits, errors from inside a block, several callers.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/ops/blas.h>
#include <ebb/ops/loops.h>
#include <ebb/ops/ops.h>

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
  CHECK(detail::even_block(8, 8, 16) == 8);      // not worth the hand-over
  CHECK(detail::even_block(9, 8, 1) == 3);       // 3, 3, 3 and nothing: fewer than fours
  CHECK(detail::even_block(128, 41, 1) == 32);   // and not 41, 41, 41 and 5
  CHECK(detail::even_block(5, 0, 1) == 1);       // each larger than a block
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

TEST_CASE("blas: no thread but ours") {
  const testing::Threads restore;
  const auto running = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks));
  };
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
