#include <ebb/ops/blas.h>

#include <cblas.h>
#include <fmt/core.h>
#include <stdlib.h>

#include <limits>
#include <string_view>

#include <ebb/graph/error.h>
#include <ebb/ops/loops.h>

// Exported by every OpenBLAS that carries kernels for several processors; null in others.
extern "C" {
[[gnu::weak]] void gotoblas_dynamic_init();
[[gnu::weak]] void gotoblas_dynamic_quit();
[[gnu::weak]] int blas_thread_shutdown_();
}

namespace ebb::detail {
namespace {

/// A processor that is newer than the library gets the kernels of the oldest: OpenBLAS 0.3.21 answers "Prescott" (SSE3) on
/// Intel's models from 2023 on, a tenth of the speed. It chooses when it is loaded, from OPENBLAS_CORETYPE or from a table of
/// models; here it is made to choose again, by what the processor can do.
void mend_choice() {
  const std::string_view chosen = openblas_get_corename();
  if (chosen != "Prescott" && chosen != "Nehalem" && chosen != "Sandybridge" && chosen != "Barcelona") return;
  if (best_isa() == Isa::baseline || ::getenv("OPENBLAS_CORETYPE") || !gotoblas_dynamic_init || !gotoblas_dynamic_quit) return;
  ::setenv("OPENBLAS_CORETYPE", best_isa() == Isa::avx512 ? "SkylakeX" : "Haswell", 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  ::unsetenv("OPENBLAS_CORETYPE");
}

// BLAS runs on the thread that calls it: our own loops hand out the blocks (ops/loops.h). Its own threads would only fight
// for the processors, and do so unasked: they spin for the first tenth of a second of a process, which loads its data then.
void once() {
  static const bool set = [] {
    mend_choice();
    openblas_set_num_threads(1);
    if (blas_thread_shutdown_) blas_thread_shutdown_();
    return true;
  }();
  (void)set;
}
// When ebb is loaded. The products ask again: a static initialiser of a program may multiply before this one has run.
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
  cblas_sgemm(CblasRowMajor, flag(ta), flag(tb), narrow(m), narrow(n), narrow(k), 1, a, narrow(lda), b, narrow(ldb), beta,
              c, narrow(ldc));
}

void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda,
          const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  once();
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  cblas_dgemm(CblasRowMajor, flag(ta), flag(tb), narrow(m), narrow(n), narrow(k), 1, a, narrow(lda), b, narrow(ldb), beta,
              c, narrow(ldc));
}

std::string blas_kernel() {
  once();
  return openblas_get_corename();
}

std::string blas_description() {
  const int flavour = openblas_get_parallel();
  return fmt::format("{} (kernel {}, {})", openblas_get_config(), blas_kernel(),
                     flavour == 0 ? "serial" : flavour == 1 ? "pthreads" : "OpenMP");
}

}  // namespace ebb::detail
