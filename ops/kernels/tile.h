// Internal: float32 products of matrices that are in cache already, held in registers tile by tile, without packing.
#pragma once
#include <cstdint>
#include <type_traits>

#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// W floats in one register, loaded from and stored to any float's address.
template <int W>
struct Lanes {
  typedef float type __attribute__((vector_size(W * 4), aligned(4), may_alias));
};

/// Runs f(lanes) (a lambda marked EBB_INLINE) compiled for the instruction set in use; lanes() floats fill a register.
template <class F>
void simd_lanes(const F& f) {
  switch (isa()) {
    case Isa::avx512: return run_avx512([&]() EBB_INLINE { f(std::integral_constant<int, 16>{}); });
    case Isa::avx2: return run_avx2([&]() EBB_INLINE { f(std::integral_constant<int, 8>{}); });
    case Isa::baseline: return f(std::integral_constant<int, 4>{});
  }
}

/// C (m, n) = A (m, k) B (k, n). The inner axis k = (outer, inner) is walked by two strides in A and in B, so that a
/// window's rows can be read where they lie in the image.
struct Product {
  static constexpr std::int64_t lanes = 16;  // n is a multiple of this

  std::int64_t m, n, outer, inner;
  const float* a;
  std::int64_t a_row, a_outer, a_inner;
  const float* b;
  std::int64_t b_outer, b_inner;
  float* c;
  std::int64_t c_row;
  const float* bias = nullptr;  // n numbers added to each row
  bool add = false;             // C += instead of C =; not together with bias
  bool relu = false;
};
/// One thread. Each element is added up in the order of k, whatever m is: a row does not depend on its neighbors.
void multiply(const Product& p);

}  // namespace ebb::detail
