#include <ebb/ops/kernels/tile.h>

#include <utility>

namespace ebb::detail {
namespace {

/// R rows and N registers of columns of C: R * N sums that stay in registers, fed by N loads of B and R single numbers
/// of A for each step along k.
template <int W, int R, int N>
inline void EBB_INLINE tile(const Product& p, const float* a, const float* b, float* c, const float* bias) {
  using V = typename Lanes<W>::type;
  V sum[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) sum[r][j] = bias ? *reinterpret_cast<const V*>(bias + j * W) : V{};
  constexpr int bases = (R + 2) / 3;
  for (std::int64_t o = 0; o < p.outer; ++o) {
    const float *pa[bases], *pb = b + o * p.b_outer;
#pragma GCC unroll 8
    for (int g = 0; g < bases; ++g) pa[g] = a + o * p.a_outer + 3 * g * p.a_row;
    for (std::int64_t i = 0; i < p.inner; ++i, pb += p.b_inner) {
      V row[N];
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) row[j] = *reinterpret_cast<const V*>(pb + j * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const float x = pa[r / 3][r % 3 * p.a_row];
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) sum[r][j] += x * row[j];
      }
      // One stride reaches all rows from a pointer to each third. The compiler must not know how far apart the pointers
      // are: it would keep an offset for each row instead, more than there are registers for, and load them at each
      // step.
#pragma GCC unroll 8
      for (int g = 0; g < bases; ++g) {
        pa[g] += p.a_inner;
        asm("" : "+r"(pa[g]));
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      V* to = reinterpret_cast<V*>(c + r * p.c_row + j * W);
      V v = sum[r][j];
      if (p.add) v += *to;
      if (p.relu) v = v <= 0 ? V{} : v;  // NaN stays
      *to = v;
    }
}

/// The tile of `rows` rows: rows is 1 to sizeof...(R).
template <int W, int N, int... R>
inline void EBB_INLINE choose(std::int64_t rows, const Product& p, const float* a, const float* b, float* c,
                              const float* bias, std::integer_sequence<int, R...>) {
  ((rows == R + 1 ? tile<W, R + 1, N>(p, a, b, c, bias) : void()), ...);
}

/// Rows of a tile N registers wide: N sums each, of 32 or 16 registers.
template <int W, int N>
constexpr int most_rows = N == 4 ? (W == 16 ? 6 : 2) : (W == 16 ? 14 : 6);

template <int W, int N>
inline void EBB_INLINE columns(const Product& p, std::int64_t j) {
  constexpr int most = most_rows<W, N>;
  const std::int64_t tiles = (p.m + most - 1) / most;
  for (std::int64_t t = 0; t < tiles; ++t) {
    const std::int64_t begin = p.m * t / tiles, end = p.m * (t + 1) / tiles;
    choose<W, N>(end - begin, p, p.a + begin * p.a_row, p.b + j, p.c + begin * p.c_row + j,
                 p.bias ? p.bias + j : nullptr, std::make_integer_sequence<int, most>());
  }
}

}  // namespace

void multiply(const Product& p) {
  simd_lanes([&](auto w) EBB_INLINE {
    constexpr int W = decltype(w)::value;
    std::int64_t j = 0;
    if (p.m <=
        most_rows<W, 4>)  // of few rows, more columns: sums enough to hide what one addition waits for the one before
      for (; j + 4 * W <= p.n; j += 4 * W) columns<W, 4>(p, j);
    for (; j + 2 * W <= p.n; j += 2 * W) columns<W, 2>(p, j);
    for (; j < p.n; j += W) columns<W, 1>(p, j);
  });
}

}  // namespace ebb::detail
