// Internal: the linear maps of Winograd's method, on registers.
#pragma once
#include <cstdint>

#include <ebb/ops/kernels/tile.h>

namespace ebb::detail::winograd_maps {

template <int R, int C>
struct Matrix {
  static constexpr int rows = R, cols = C;
  float at[R][C];
  constexpr Matrix<C, R> transposed() const {
    Matrix<C, R> t{};
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < C; ++j) t.at[j][i] = at[i][j];
    return t;
  }
};

// y = out [(filter g filter^T) * (in x in^T)] out^T, from the interpolation points 0, 1, -1, then 2, then -2, and
// infinity.
template <int M>
struct Maps;
template <>
struct Maps<2> {
  static constexpr Matrix<4, 4> in{{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}};
  static constexpr Matrix<4, 3> filter{{{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}}};
  static constexpr Matrix<2, 4> out{{{1, 1, 1, 0}, {0, 1, -1, -1}}};
};
template <>
struct Maps<3> {
  static constexpr Matrix<5, 5> in{
      {{2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}}};
  static constexpr Matrix<5, 3> filter{
      {{.5f, 0, 0}, {-.5f, -.5f, -.5f}, {-1 / 6.f, 1 / 6.f, -1 / 6.f}, {1 / 6.f, 1 / 3.f, 2 / 3.f}, {0, 0, 1}}};
  static constexpr Matrix<3, 5> out{{{1, 1, 1, 1, 0}, {0, 1, -1, 2, 0}, {0, 1, 1, 4, 1}}};
};
template <>
struct Maps<4> {
  static constexpr Matrix<6, 6> in{{{4, 0, -5, 0, 1, 0},
                                    {0, -4, -4, 1, 1, 0},
                                    {0, 4, -4, -1, 1, 0},
                                    {0, -2, -1, 2, 1, 0},
                                    {0, 2, -1, -2, 1, 0},
                                    {0, 4, 0, -5, 0, 1}}};
  static constexpr Matrix<6, 3> filter{{{.25f, 0, 0},
                                        {-1 / 6.f, -1 / 6.f, -1 / 6.f},
                                        {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                                        {1 / 24.f, 1 / 12.f, 1 / 6.f},
                                        {1 / 24.f, -1 / 12.f, 1 / 6.f},
                                        {0, 0, 1}}};
  static constexpr Matrix<4, 6> out{
      {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
};
template <int M>
struct Adjoints {
  static constexpr auto in = Maps<M>::in.transposed();
  static constexpr auto filter = Maps<M>::filter.transposed();
  static constexpr auto out = Maps<M>::out.transposed();
};

/// sum += row I of L, from column K on, times v; zeros and ones cost nothing.
template <const auto& L, int I, int K, bool Started, class V>
inline void EBB_INLINE combine(const V* v, V& sum) {
  if constexpr (K < L.cols) {
    constexpr float l = L.at[I][K];
    if constexpr (l == 0) return combine<L, I, K + 1, Started>(v, sum);
    if constexpr (l != 0) {
      if constexpr (!Started) sum = l == 1 ? v[K] : l * v[K];
      else if constexpr (l == 1) sum += v[K];
      else if constexpr (l == -1) sum -= v[K];
      else sum += l * v[K];
      combine<L, I, K + 1, true>(v, sum);
    }
  }
}
template <const auto& L, int I, class V, class Use>
inline void EBB_INLINE each_row(const V* v, const Use& use) {
  if constexpr (I < L.rows) {
    V sum;
    combine<L, I, 0, false>(v, sum);
    use(I, sum);
    each_row<L, I + 1>(v, use);
  }
}
/// store(i, j, element of L x L^T) for a square x of registers; load(i, j, register).
template <const auto& L, class V, class Load, class Store>
inline void EBB_INLINE sandwich(const Load& load, const Store& store) {
  V half[L.rows][L.cols];
#pragma GCC unroll 8
  for (int j = 0; j < L.cols; ++j) {
    V column[L.cols];
#pragma GCC unroll 8
    for (int i = 0; i < L.cols; ++i) load(i, j, column[i]);
    each_row<L, 0>(column, [&](int i, const V& sum) EBB_INLINE { half[i][j] = sum; });
  }
#pragma GCC unroll 8
  for (int i = 0; i < L.rows; ++i) each_row<L, 0>(half[i], [&](int j, const V& sum) EBB_INLINE { store(i, j, sum); });
}

// By the number of lanes: a type given as a template argument would lose that it may lie at any address.
template <int W>
inline const typename Lanes<W>::type& EBB_INLINE at(const float* p) {
  return *reinterpret_cast<const typename Lanes<W>::type*>(p);
}
template <int W>
inline typename Lanes<W>::type& EBB_INLINE at(float* p) {
  return *reinterpret_cast<typename Lanes<W>::type*>(p);
}

template <int W>
inline bool EBB_INLINE is_zero(const typename Lanes<W>::type& v) {
  bool all = true;
  for (int k = 0; k < W; ++k) all = all && v[k] == 0;
  return all;
}

}  // namespace ebb::detail::winograd_maps
