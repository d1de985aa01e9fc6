// A zip with one file, made by hand so that tests can break any of its fields.
#pragma once
#include <zlib.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

struct ZipParts {
  std::string name = "digits.csv";
  bool stored = false;
  bool descriptor = false;  ///< sizes after the data instead of before them
  bool descriptor_mark = true;
  std::string extra = "", comment = "";
};

inline std::string little(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xff);
  return out;
}

/// Deflate without a header.
inline std::string deflated(std::string_view text) {
  z_stream z{};
  if (::deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw std::runtime_error("deflateInit2");
  std::string out(::deflateBound(&z, text.size()) + 16, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  if (::deflate(&z, Z_FINISH) != Z_STREAM_END) throw std::runtime_error("deflate");
  out.resize(z.total_out);
  ::deflateEnd(&z);
  return out;
}

inline std::string zipped(std::string_view text, const ZipParts& p = {}) {
  const std::string data = p.stored ? std::string(text) : deflated(text);
  const auto crc = static_cast<std::uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())));
  const auto size = static_cast<std::uint32_t>(text.size()), packed = static_cast<std::uint32_t>(data.size());
  const std::string sizes = little(crc, 4) + little(packed, 4) + little(size, 4);
  const std::string kind =
      little(20, 2) + little(p.descriptor ? 8 : 0, 2) + little(p.stored ? 0 : 8, 2) + little(0x21, 4);
  const std::string names =
      little(static_cast<std::uint32_t>(p.name.size()), 2) + little(static_cast<std::uint32_t>(p.extra.size()), 2);
  std::string out = "PK\3\4" + kind + (p.descriptor ? std::string(12, '\0') : sizes) + names + p.name + p.extra + data;
  if (p.descriptor) out += (p.descriptor_mark ? "PK\7\10" : "") + sizes;
  const auto central_at = static_cast<std::uint32_t>(out.size());
  out += "PK\1\2" + little(20, 2) + kind + sizes + names + little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
         little(0, 4) + p.name + p.extra;
  const auto central = static_cast<std::uint32_t>(out.size()) - central_at;
  out += "PK\5\6" + little(0, 4) + little(1, 2) + little(1, 2) + little(central, 4) + little(central_at, 4) +
         little(static_cast<std::uint32_t>(p.comment.size()), 2) + p.comment;
  return out;
}
