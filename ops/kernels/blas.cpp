#include <ebb/ops/kernels/blas.h>

#include <cblas.h>
#include <fmt/core.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <limits>
#include <mutex>
#include <span>
#include <string_view>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/loops.h>

// Exported by every OpenBLAS that carries kernels for several processors; null in others.
extern "C" {
[[gnu::weak]] void gotoblas_dynamic_init();
[[gnu::weak]] void gotoblas_dynamic_quit();
[[gnu::weak]] int blas_thread_shutdown_();
[[gnu::weak]] void* blas_memory_alloc(int);
[[gnu::weak]] void blas_memory_free(void*);
}

namespace ebb::detail {
namespace {

/// A processor that is newer than the library gets the kernels of the oldest: OpenBLAS 0.3.21 answers "Prescott" (SSE3)
/// on Intel's models from 2023 on, a tenth of the speed. It chooses when it is loaded, from OPENBLAS_CORETYPE or from a
/// table of models; here it is made to choose again, by what the processor can do.
void mend_choice() {
  const std::string_view chosen = openblas_get_corename();
  if (chosen != "Prescott" && chosen != "Nehalem" && chosen != "Sandybridge" && chosen != "Barcelona") return;
  if (best_isa() == Isa::baseline || ::getenv("OPENBLAS_CORETYPE") || !gotoblas_dynamic_init || !gotoblas_dynamic_quit)
    return;
  ::setenv("OPENBLAS_CORETYPE", best_isa() == Isa::avx512 ? "SkylakeX" : "Haswell", 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  ::unsetenv("OPENBLAS_CORETYPE");
}

/// OpenBLAS works in a buffer for the time of a product. It keeps one for each product that ever ran at the same time
/// as others; where the system has no address space for one more, it tries again for ever. So a product waits here
/// until one of the buffers that exist is free, and a further one is made only where it surely fits.
class Buffers {
 public:
  void take() {
    if (!try_take() && !make()) wait();
  }
  void give() {
    free_.fetch_add(1, std::memory_order_release);
    free_.notify_one();
  }
  /// While a thread holds all of them, no other is inside the library.
  void take_all() {
    making_.lock();
    wait_for_all();
  }
  void give_all() {
    free_.fetch_add(made_, std::memory_order_release);
    free_.notify_all();
    making_.unlock();
  }

 private:
  bool try_take() {
    int n = free_.load(std::memory_order_relaxed);
    while (n > 0)
      if (free_.compare_exchange_weak(n, n - 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }
  void wait() {
    while (!try_take()) free_.wait(0, std::memory_order_relaxed);
  }
  void wait_for_all() {
    for (int i = 0; i < made_; ++i) wait();
  }

  /// One more, taken; false when there is no room for it.
  bool make() {
    const std::lock_guard lock(making_);
    if (try_take()) return true;
    if (fits()) {
      wait_for_all();  // or the library would give one that has just become free
      const bool still = fits();
      if (still) {
        std::array<void*, most_threads> all;
        const std::span held = std::span(all).first(static_cast<std::size_t>(++made_));
        if (blas_memory_alloc && blas_memory_free) {
          for (void*& one : held) one = blas_memory_alloc(0);
          for (void* const one : held) blas_memory_free(one);
        }
      }
      free_.fetch_add(still ? made_ - 1 : made_, std::memory_order_release);
      free_.notify_all();
      if (still) return true;
    }
    if (made_ == 0)
      fail<MemoryError>("matmul",
                        fmt::format("no memory for the {} MiB of address space that BLAS works in", size >> 20));
    return false;
  }

  /// The first one only has to fit; each further one leaves room for as much again, since values need memory too.
  bool fits() const {
    if (made_ == most_threads) return false;
    const std::size_t bytes = made_ ? 2 * size : size;
    void* const room = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return room != MAP_FAILED && ::munmap(room, bytes) == 0;
  }

  static constexpr std::size_t size = std::size_t{128} << 20;  // OpenBLAS 0.3.21's on x86-64 and AArch64
  std::mutex making_;
  int made_ = 0;
  std::atomic<int> free_{0};
};
// Never destroyed: a thread may still multiply while the program ends.
Buffers& buffers() {
  static Buffers& all = *new Buffers;
  return all;
}

/// The buffer of one product.
struct InBuffer {
  InBuffer() { buffers().take(); }
  ~InBuffer() { buffers().give(); }
  InBuffer(const InBuffer&) = delete;
  InBuffer& operator=(const InBuffer&) = delete;
};

// BLAS runs on the thread that calls it: our own loops hand out the blocks (ops/kernels/loops.h). Its own threads would
// only fight for the processors, and do so unasked: they spin for the first tenth of a second of a process, which loads
// its data then.
void once() {
  static const bool set = [] {
    mend_choice();
    openblas_set_num_threads(1);
    if (blas_thread_shutdown_) blas_thread_shutdown_();
    // A fork inside the library would leave its locks closed in the child.
    ::pthread_atfork([] { buffers().take_all(); }, [] { buffers().give_all(); }, [] { buffers().give_all(); });
    return true;
  }();
  (void)set;
}
// When ebb is loaded. The products ask again: a static initializer of a program may multiply before this one has run.
[[maybe_unused]] const bool at_start = (once(), true);

int narrow(std::int64_t n) {
  if (n > std::numeric_limits<int>::max()) fail<ShapeError>("matmul", fmt::format("size {} is too large for BLAS", n));
  return static_cast<int>(n);
}

CBLAS_TRANSPOSE flag(bool t) { return t ? CblasTrans : CblasNoTrans; }

template <class T>
void scale(std::int64_t m, std::int64_t n, T beta, T* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : c[i * ldc + j] * beta;
}

}  // namespace

void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
          const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  once();
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  const InBuffer buffer;
  cblas_sgemm(CblasRowMajor, flag(ta), flag(tb), narrow(m), narrow(n), narrow(k), 1, a, narrow(lda), b, narrow(ldb),
              beta, c, narrow(ldc));
}

void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda,
          const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  once();
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  const InBuffer buffer;
  cblas_dgemm(CblasRowMajor, flag(ta), flag(tb), narrow(m), narrow(n), narrow(k), 1, a, narrow(lda), b, narrow(ldb),
              beta, c, narrow(ldc));
}

std::string blas_kernel() {
  once();
  return openblas_get_corename();
}

std::string blas_description() {
  const int flavour = openblas_get_parallel();
  return fmt::format("{} (kernel {}, {})", openblas_get_config(), blas_kernel(),
                     flavour == 0   ? "serial"
                     : flavour == 1 ? "pthreads"
                                    : "OpenMP");
}

}  // namespace ebb::detail
