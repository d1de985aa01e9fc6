// Internal: the numbers of other programs' files, as tensors.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include <ebb/graph/tensor.h>

namespace ebb::detail {

/// How a file holds a number.
enum class Element : std::uint8_t {
  f32,
  f64,
  i64,
  u8,
  boolean,
  i8,
  i16,
  i32,
  u16,
  u32,
  u64,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2
};

/// Its bytes in the file.
std::size_t size_of(Element e);
/// What its values become: the types that ebb has stay what they are, narrower floats become float32, other integers
/// int64 (each holds all values of theirs; of uint64 those below 2^63), bool uint8.
DType dtype_of(Element e);

/// Fills `out`, whose type is dtype_of(e), in order; `read` is asked for the next bytes, piece by piece. Gives the
/// place of the first number that the type cannot hold, at which it stops.
std::optional<std::int64_t> read_elements(Tensor& out, Element e, bool big_endian,
                                          const std::function<void(std::span<std::uint8_t>)>& read);

}  // namespace ebb::detail
