#include <ebb/ops/kernels/copy.h>

#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include <ebb/graph/shape.h>
#include <ebb/ops/kernels/tile.h>

namespace ebb::detail {
namespace {

/// Runs of one element, which are moves and not calls, and of any length. One thread.
void copy_some(std::byte* to, std::int64_t to_step, const std::byte* from, std::int64_t from_step, std::int64_t n,
               std::int64_t run) {
  const auto runs = [=](auto bytes) {
    for (std::int64_t i = 0; i < n; ++i) std::memcpy(to + i * to_step, from + i * from_step, bytes);
  };
  switch (run) {
    case 1: return runs(std::integral_constant<std::size_t, 1>{});
    case 4: return runs(std::integral_constant<std::size_t, 4>{});
    case 8: return runs(std::integral_constant<std::size_t, 8>{});
    default: return runs(static_cast<std::size_t>(run));
  }
}

/// to[i, j] = from[j, i] for a square of `W` elements of so many bytes, in registers: each round interleaves the upper
/// half of the rows with the lower one. Steps are in bytes.
template <int W, int bytes>
inline void EBB_INLINE turn_square(std::byte* to, std::int64_t to_step, const std::byte* from, std::int64_t from_step) {
  typedef std::conditional_t<bytes == 4, std::int32_t, std::int64_t> V
      __attribute__((vector_size(W * bytes), aligned(bytes), may_alias));
  V row[W], next[W];
  const auto interleave = [&]<int... k>(int i, std::integer_sequence<int, k...>) EBB_INLINE {
    next[2 * i] = __builtin_shufflevector(row[i], row[i + W / 2], (k / 2 + k % 2 * W)...);
    next[2 * i + 1] = __builtin_shufflevector(row[i], row[i + W / 2], (k / 2 + k % 2 * W + W / 2)...);
  };
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) row[i] = *reinterpret_cast<const V*>(from + i * from_step);
#pragma GCC unroll 4
  for (int round = 1; round < W; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) interleave(i, std::make_integer_sequence<int, W>());
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) row[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) *reinterpret_cast<V*>(to + i * to_step) = row[i];
}

/// The same for m x n elements, in squares as large as they allow; where the last ones would not fit they overlap.
template <int W, int bytes>
inline void EBB_INLINE turn_squares(std::byte* to, std::int64_t to_step, const std::byte* from, std::int64_t from_step,
                                    std::int64_t m, std::int64_t n) {
  if constexpr (bytes == 1 || W * bytes < 16) {
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        std::memcpy(to + i * to_step + j * bytes, from + j * from_step + i * bytes, bytes);
  } else if (m < W || n < W) {
    turn_squares<W / 2, bytes>(to, to_step, from, from_step, m, n);
  } else {
    for (std::int64_t c = 0; c < n; c += W)
      for (std::int64_t r = 0; r < m; r += W) {
        const std::int64_t i = std::min(r, m - W), j = std::min(c, n - W);
        turn_square<W, bytes>(to + i * to_step + j * bytes, to_step, from + j * from_step + i * bytes, from_step);
      }
  }
}

/// A tensor in blocks of `high` x `wide` elements over two of its axes; the others are `outer`.
struct Blocks {
  std::span<const CopyAxis> outer;
  CopyAxis row, column;
  std::int64_t high, wide;
  std::int64_t down = pieces(row.n, high), across = pieces(column.n, wide);

  static std::int64_t pieces(std::int64_t n, std::int64_t size) { return n <= size ? 1 : (n + size - 1) / size; }
  std::int64_t count() const {
    std::int64_t n = down * across;
    for (const CopyAxis& a : outer) n *= a.n;
    return n;
  }

  /// f(to, from, m, n) for each of the blocks [begin, end): the bytes to where it begins and its elements.
  template <class F>
  void EBB_INLINE visit(std::int64_t begin, std::int64_t end, const F& f) const {
    std::array<std::int64_t, Shape::max_rank> index{};
    std::int64_t i = 0, j = 0, to = 0, from = 0;
    if (begin > 0) {
      j = begin % across * wide;
      i = begin / across % down * high;
      std::int64_t left = begin / across / down;
      for (std::size_t a = outer.size(); a-- > 0; left /= outer[a].n) {
        index[a] = left % outer[a].n;
        to += index[a] * outer[a].to;
        from += index[a] * outer[a].from;
      }
    }
    for (std::int64_t b = begin; b < end; ++b) {
      f(to + i * row.to + j * column.to, from + i * row.from + j * column.from, std::min(high, row.n - i),
        std::min(wide, column.n - j));
      if ((j += wide) < column.n) continue;
      j = 0;
      if ((i += high) < row.n) continue;
      i = 0;
      for (std::size_t a = outer.size(); a-- > 0;) {
        to += outer[a].to;
        from += outer[a].from;
        if (++index[a] < outer[a].n) break;
        to -= outer[a].to * outer[a].n;
        from -= outer[a].from * outer[a].n;
        index[a] = 0;
      }
    }
  }
};

template <int bytes>
void turn(const Blocks& blocks, std::byte* to, const std::byte* from, std::int64_t begin, std::int64_t end) {
  simd_lanes([&](auto lanes) EBB_INLINE {
    blocks.visit(begin, end, [&](std::int64_t t, std::int64_t f, std::int64_t m, std::int64_t n) EBB_INLINE {
      turn_squares<decltype(lanes)::value * 4 / bytes, bytes>(to + t, blocks.row.to, from + f, blocks.column.from, m,
                                                              n);
    });
  });
}

}  // namespace

// Where one block is enough, without the way through the pool: others come by here for each row.
void zero(std::byte* to, std::int64_t bytes) {
  const auto part = [=](std::int64_t begin, std::int64_t end) {
    std::memset(to + begin, 0, static_cast<std::size_t>(end - begin));
  };
  bytes <= copy_block ? part(0, bytes) : parallel_for(bytes, copy_block, part);
}

void copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  const auto part = [=](std::int64_t begin, std::int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
  };
  bytes <= copy_block ? part(0, bytes) : parallel_for(bytes, copy_block, part);
}

void copy_runs(std::byte* to, std::int64_t to_step, const std::byte* from, std::int64_t from_step, std::int64_t n,
               std::int64_t run) {
  if (n == 1 || (to_step == run && from_step == run)) return copy(to, from, n * run);
  const auto part = [=](std::int64_t begin, std::int64_t end) {
    copy_some(to + begin * to_step, to_step, from + begin * from_step, from_step, end - begin, run);
  };
  n* run <= copy_block ? part(0, n) : parallel_for(n, in_block(n, run), part);
}

void permute(std::byte* to, const std::byte* from, std::int64_t bytes, std::span<CopyAxis> axes) {
  // Axes of one element are none, and two that stay neighbors are one.
  std::size_t n = 0;
  for (const CopyAxis& a : axes) {
    if (a.n == 1) continue;
    if (n && axes[n - 1].from == a.n * a.from) axes[n - 1] = {axes[n - 1].n * a.n, a.from};
    else axes[n++] = a;
  }
  std::int64_t step = bytes;
  for (std::size_t i = n; i-- > 0; step *= axes[i].n) axes[i].to = step;
  if (n < 2) return copy(to, from, step);
  // Where the last axis stays the last its runs are copied; else blocks are turned, of it and of what was the last.
  const CopyAxis column = axes[--n];
  const bool stays = column.from == bytes;
  std::size_t at = n - 1;
  while (!stays && axes[at].from != bytes) --at;
  const CopyAxis row = axes[at];
  std::copy(axes.begin() + static_cast<std::ptrdiff_t>(at) + 1, axes.begin() + static_cast<std::ptrdiff_t>(n),
            axes.begin() + static_cast<std::ptrdiff_t>(at));
  const std::int64_t wide = stays ? copy_block / bytes : 128;  // turned: whole lines of cache, of few pages at a time
  const std::int64_t high = stays ? in_block(row.n, std::min(wide, column.n) * bytes) : 32;
  const Blocks blocks{axes.first(n - 1), row, column, high, wide};
  const std::int64_t count = blocks.count();
  parallel_for(count, in_block(count, std::min(high, row.n) * std::min(wide, column.n) * bytes),
               [&](std::int64_t begin, std::int64_t end) {
                 if (!stays)
                   return (bytes == 8 ? turn<8> : bytes == 4 ? turn<4> : turn<1>)(blocks, to, from, begin, end);
                 blocks.visit(begin, end, [&](std::int64_t t, std::int64_t f, std::int64_t rows, std::int64_t columns) {
                   copy_some(to + t, row.to, from + f, row.from, rows, columns * bytes);
                 });
               });
}

void transpose_each(float* to, const float* from, std::int64_t n, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t bytes = sizeof(float);
  std::array<CopyAxis, 3> axes{{{n, rows * columns * bytes}, {columns, bytes}, {rows, columns * bytes}}};
  permute(reinterpret_cast<std::byte*>(to), reinterpret_cast<const std::byte*>(from), bytes, axes);
}

}  // namespace ebb::detail
