// Internal: the one door to BLAS.
#pragma once
#include <cstdint>
#include <string>

namespace ebb::detail {

/// C = op(A) op(B) + beta C for row-major matrices with the given row strides; one thread. op(A) is (m, k), op(B) (k,
/// n).
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
          const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda,
          const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc);

/// Which of the library's kernels are in use: the name that OPENBLAS_CORETYPE takes.
std::string blas_kernel();
/// The library's own description of itself: version, build, kernel.
std::string blas_description();

}  // namespace ebb::detail
