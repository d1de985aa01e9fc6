// Internal: bytes moved by all threads.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// Bytes of one block of a copy.
inline constexpr std::int64_t copy_block = 4 * elementwise_block;
/// How many of n parts of so many bytes one block takes.
inline std::int64_t in_block(std::int64_t n, std::int64_t bytes) {
  return n * bytes <= copy_block ? n : std::max<std::int64_t>(1, copy_block / bytes);
}

void zero(std::byte* to, std::int64_t bytes);
void copy(std::byte* to, const std::byte* from, std::int64_t bytes);
/// n runs of so many bytes, from each from_step bytes to each to_step bytes.
void copy_runs(std::byte* to, std::int64_t to_step, const std::byte* from, std::int64_t from_step, std::int64_t n,
               std::int64_t run);

/// An axis of a copy: elements, and bytes from one to the next where they come from and where they go.
struct CopyAxis {
  std::int64_t n, from, to = 0;
};
/// Elements of so many bytes (1, 4 or 8), at least one, to where they lie densely in the order of the axes; one of the
/// axes has them densely in `from`. Changes the axes.
void permute(std::byte* to, const std::byte* from, std::int64_t bytes, std::span<CopyAxis> axes);
/// n matrices (rows, columns), at least one element, each transposed.
void transpose_each(float* to, const float* from, std::int64_t n, std::int64_t rows, std::int64_t columns);

}  // namespace ebb::detail
