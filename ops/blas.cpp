#include <ebb/ops/blas.h>

#include <cblas.h>
#include <fmt/core.h>

#include <limits>

#include <ebb/graph/error.h>

namespace ebb::detail {
namespace {

// BLAS runs on the thread that calls it: our own loops hand out the blocks (ops/loops.h). Its pthread pool beside ours
// would only fight for the processors.
void once() {
  static const bool set = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)set;
}

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

std::string blas_description() {
  const int flavour = openblas_get_parallel();
  return fmt::format("{} (kernel {}, {})", openblas_get_config(), openblas_get_corename(),
                     flavour == 0 ? "serial" : flavour == 1 ? "pthreads" : "OpenMP");
}

}  // namespace ebb::detail
