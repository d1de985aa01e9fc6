// Internal: folds of rows, along them and across. The compiler may not reorder a sum of floats, so the order is written
// down: it is the same for every instruction set, and each has registers for it. A sum adds eight elements as a tree in
// their own type, and the trees in float64: float32 loses nothing to length, at no more instructions than a running
// sum.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// The largest, NaN left out.
struct Larger {
  template <class T>
  static constexpr T start =
      std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
  template <class T>
  EBB_INLINE T operator()(T a, T b) const {
    return b > a ? b : a;
  }
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
#pragma GCC unroll 1  // choices are vectorized as a loop only
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

/// to[k] += at(i + k) for the lanes of a whole number of registers, eight at a time, then one, and to[0] their sum.
template <class T, class To, class At>
EBB_INLINE inline void add_lanes(std::int64_t n, const At& at, To* to) {
  constexpr int lanes = 16;
  std::int64_t i = 0;
  const auto x = [&](int row, int k) EBB_INLINE { return at(i + row * lanes + k); };
  for (; i + 8 * lanes <= n; i += 8 * lanes)
#pragma GCC unroll 1
    for (int k = 0; k < lanes; ++k)
      to[k] +=
          static_cast<To>(((x(0, k) + x(1, k)) + (x(2, k) + x(3, k))) + ((x(4, k) + x(5, k)) + (x(6, k) + x(7, k))));
  for (; i < n; i += lanes)
#pragma GCC unroll 1
    for (int k = 0; k < lanes; ++k) to[k] += static_cast<To>(x(0, k));
#pragma GCC unroll 4
  for (int width = lanes / 2; width; width /= 2)
    for (int k = 0; k < width; ++k) to[k] += to[k + width];
}

/// at(0) + .. + at(n - 1), all of type T; float64 is worth its conversions from 1024 elements on. For the inside of
/// simd_for.
template <class T, class At>
EBB_INLINE inline double sum_of(std::int64_t n, const At& at) {
  constexpr int lanes = 16;
  const std::int64_t whole = n / lanes * lanes;
  T rest = 0;
  std::int64_t i = whole;
  for (; i + 4 <= n; i += 4) rest += (at(i) + at(i + 1)) + (at(i + 2) + at(i + 3));
  for (; i < n; ++i) rest += at(i);
  if (whole == 0) return static_cast<double>(rest);
  if (n < 1024) {
    T part[lanes];
    std::fill(part, part + lanes, T(0));
    add_lanes<T>(whole, at, part);
    return static_cast<double>(part[0] + rest);
  }
  double part[lanes];
  std::fill(part, part + lanes, 0.0);
  add_lanes<T>(whole, at, part);
  return part[0] + static_cast<double>(rest);
}

template <class T>
EBB_INLINE inline double sum_of(const T* x, std::int64_t n) {
  return sum_of<T>(n, [x](std::int64_t i) EBB_INLINE { return x[i]; });
}

/// sums[j] += at(0, j) + .. + at(rows - 1, j) for n columns of type T. For the inside of simd_for.
template <class T, class At>
EBB_INLINE inline void add_rows(std::int64_t rows, std::int64_t n, const At& at, double* sums) {
  double* __restrict s = sums;
  std::int64_t i = 0;
  for (; i + 8 <= rows; i += 8)
    for (std::int64_t j = 0; j < n; ++j)
      s[j] += static_cast<double>(((at(i, j) + at(i + 1, j)) + (at(i + 2, j) + at(i + 3, j))) +
                                  ((at(i + 4, j) + at(i + 5, j)) + (at(i + 6, j) + at(i + 7, j))));
  if (i + 4 <= rows) {
    for (std::int64_t j = 0; j < n; ++j)
      s[j] += static_cast<double>((at(i, j) + at(i + 1, j)) + (at(i + 2, j) + at(i + 3, j)));
    i += 4;
  }
  for (; i < rows; ++i)
    for (std::int64_t j = 0; j < n; ++j) s[j] += static_cast<double>(at(i, j));
}

}  // namespace ebb::detail
