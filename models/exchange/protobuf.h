// Internal: the wire format of protocol buffers, to the extent that ONNX needs it
// (https://protobuf.dev/programming-guides/encoding).
#pragma once
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ebb::detail {

/// A message that is built field by field; a message inside another is a text field.
class ProtoMessage {
 public:
  ProtoMessage& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  ProtoMessage& integers(int field, std::span<const std::int64_t> values) {
    for (const std::int64_t v : values) integer(field, v);
    return *this;
  }
  ProtoMessage& number(int field, float value) {
    key(field, 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xff);
    return *this;
  }
  ProtoMessage& text(int field, std::string_view value) {
    open(field, value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& inner) { return text(field, inner.bytes_); }
  /// Begins a text field of `size` bytes that the caller writes elsewhere.
  ProtoMessage& open(int field, std::size_t size) {
    key(field, 2);
    varint(size);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, unsigned wire) { varint(static_cast<unsigned>(field) << 3 | wire); }
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_ += static_cast<char>((v & 0x7f) | 0x80);
    bytes_ += static_cast<char>(v);
  }
  std::string bytes_;
};

}  // namespace ebb::detail
