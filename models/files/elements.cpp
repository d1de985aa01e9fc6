#include <ebb/models/files/elements.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace ebb::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "the elements of a file are copied as they are");

/// A float of 1 sign bit, so many bits of exponent, and the rest.
template <int exponent_bits, int fraction_bits, bool has_infinity = true>
float from_bits(unsigned bits) {
  constexpr unsigned most = (1u << exponent_bits) - 1, ones = (1u << fraction_bits) - 1;
  constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  const unsigned fraction = bits & ones, exponent = bits >> fraction_bits & most;
  const bool negative = (bits >> (exponent_bits + fraction_bits) & 1) != 0;
  float value = 0;
  if (exponent == most && has_infinity)
    value = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  else if (exponent == most && fraction == ones)
    value = std::numeric_limits<float>::quiet_NaN();  // E4M3 has one NaN and no infinity
  else if (exponent == 0) value = std::ldexp(static_cast<float>(fraction), 1 - bias - fraction_bits);
  else value = std::ldexp(static_cast<float>(fraction + ones + 1), static_cast<int>(exponent) - bias - fraction_bits);
  return negative ? -value : value;
}

/// The numbers of one piece; how many of them the tensor's type can hold.
template <class From, class To, class F>
std::size_t convert(std::span<std::uint8_t> bytes, bool big_endian, To* out, F value) {
  const std::size_t n = bytes.size() / sizeof(From);
  for (std::size_t i = 0; i < n; ++i) {
    std::array<std::uint8_t, sizeof(From)> b;
    std::copy_n(bytes.data() + i * sizeof(From), sizeof(From), b.data());
    if (big_endian) std::ranges::reverse(b);
    const auto from = std::bit_cast<From>(b);
    if constexpr (std::is_same_v<From, std::uint64_t>)
      if (from > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return i;
    out[i] = static_cast<To>(value(from));
  }
  return n;
}

template <class From, class To>
std::size_t convert(std::span<std::uint8_t> bytes, bool big_endian, To* out) {
  return convert<From>(bytes, big_endian, out, [](From v) { return v; });
}

std::size_t convert(std::span<std::uint8_t> bytes, Element e, bool big_endian, std::byte* to) {
  auto* floats = reinterpret_cast<float*>(to);
  auto* whole = reinterpret_cast<std::int64_t*>(to);
  switch (e) {
    case Element::f32: return convert<float>(bytes, big_endian, floats);
    case Element::f64: return convert<double>(bytes, big_endian, reinterpret_cast<double*>(to));
    case Element::i64: return convert<std::int64_t>(bytes, big_endian, whole);
    case Element::i8: return convert<std::int8_t>(bytes, big_endian, whole);
    case Element::i16: return convert<std::int16_t>(bytes, big_endian, whole);
    case Element::i32: return convert<std::int32_t>(bytes, big_endian, whole);
    case Element::u16: return convert<std::uint16_t>(bytes, big_endian, whole);
    case Element::u32: return convert<std::uint32_t>(bytes, big_endian, whole);
    case Element::u64: return convert<std::uint64_t>(bytes, big_endian, whole);
    case Element::f16: return convert<std::uint16_t>(bytes, big_endian, floats, from_bits<5, 10>);
    case Element::bf16:
      return convert<std::uint16_t>(bytes, big_endian, floats,
                                    [](unsigned v) { return std::bit_cast<float>(v << 16); });
    case Element::f8_e4m3: return convert<std::uint8_t>(bytes, big_endian, floats, from_bits<4, 3, false>);
    case Element::f8_e5m2: return convert<std::uint8_t>(bytes, big_endian, floats, from_bits<5, 2>);
    case Element::boolean:
      return convert<std::uint8_t>(bytes, big_endian, reinterpret_cast<std::uint8_t*>(to),
                                   [](unsigned v) { return v != 0; });
    default: return convert<std::uint8_t>(bytes, big_endian, reinterpret_cast<std::uint8_t*>(to));
  }
}

}  // namespace

std::size_t size_of(Element e) {
  switch (e) {
    case Element::f64:
    case Element::i64:
    case Element::u64: return 8;
    case Element::f32:
    case Element::i32:
    case Element::u32: return 4;
    case Element::f16:
    case Element::bf16:
    case Element::i16:
    case Element::u16: return 2;
    default: return 1;
  }
}

DType dtype_of(Element e) {
  switch (e) {
    case Element::f64: return DType::f64;
    case Element::u8:
    case Element::boolean: return DType::u8;
    case Element::f32:
    case Element::f16:
    case Element::bf16:
    case Element::f8_e4m3:
    case Element::f8_e5m2: return DType::f32;
    default: return DType::i64;
  }
}

std::optional<std::int64_t> read_elements(Tensor& out, Element e, bool big_endian,
                                          const std::function<void(std::span<std::uint8_t>)>& read) {
  const bool as_they_are = e == Element::f32 || e == Element::f64 || e == Element::i64 || e == Element::u8;
  if (as_they_are && (!big_endian || size_of(e) == 1)) {
    read({reinterpret_cast<std::uint8_t*>(out.mutable_raw()), out.bytes()});
    return {};
  }
  alignas(8) std::array<std::uint8_t, 1 << 13> part;
  const std::int64_t at_once = static_cast<std::int64_t>(part.size() / size_of(e));
  std::byte* to = out.mutable_raw();
  for (std::int64_t done = 0; done < out.numel(); done += at_once) {
    const auto n = static_cast<std::size_t>(std::min(at_once, out.numel() - done));
    const std::span<std::uint8_t> bytes = std::span(part).first(n * size_of(e));
    read(bytes);
    const std::size_t held = convert(bytes, e, big_endian, to);
    if (held < n) return done + static_cast<std::int64_t>(held);
    to += n * size_of(out.dtype());
  }
  return {};
}

}  // namespace ebb::detail
