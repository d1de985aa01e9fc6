// Internal: folds of a row in lanes. The compiler may not reorder a sum of floats, so the order is written down: it is the
// same for every instruction set, and each has registers for it.
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ebb/ops/loops.h>

namespace ebb::detail {

/// The sum.
struct Adding {
  template <class T>
  static constexpr T start = 0;
  template <class T>
  EBB_INLINE T operator()(T a, T b) const { return a + b; }
};

/// The largest, NaN left out.
struct Larger {
  template <class T>
  static constexpr T start = std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
  template <class T>
  EBB_INLINE T operator()(T a, T b) const { return b > a ? b : a; }
};

/// at(0) .. at(n - 1) folded by Op: lane k of 16 takes each sixteenth. For the inside of simd_for.
template <class Op, class T, class At>
EBB_INLINE inline T fold(std::int64_t n, const At& at) {
  constexpr int lanes = 16;
  constexpr Op op;
  T all = Op::template start<T>;
  const std::int64_t whole = n / lanes * lanes;
#pragma GCC unroll 4
  for (std::int64_t i = whole; i < n; ++i) all = op(all, at(i));
  if (whole == 0) return all;
  T part[lanes];
  std::fill(part, part + lanes, Op::template start<T>);
  for (std::int64_t i = 0; i < whole; i += lanes)
#pragma GCC unroll 1  // choices are vectorised as a loop only
    for (int k = 0; k < lanes; ++k) part[k] = op(part[k], at(i + k));
#pragma GCC unroll 4
  for (int width = lanes / 2; width; width /= 2)
    for (int k = 0; k < width; ++k) part[k] = op(part[k], part[k + width]);
  return op(part[0], all);
}

template <class Op, class T>
EBB_INLINE inline T fold(const T* x, std::int64_t n) {
  return fold<Op, T>(n, [x](std::int64_t i) EBB_INLINE { return x[i]; });
}

}  // namespace ebb::detail
