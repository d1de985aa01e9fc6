#include <ebb/models/files/picture.h>

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>

namespace ebb {
namespace {

std::uint8_t gray(double v) { return static_cast<std::uint8_t>(std::lround(255 * (v > 0 ? std::min(v, 1.0) : 0.0))); }

std::string big_endian(std::uint32_t v) {
  std::string out;
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(v >> shift & 0xff);
  return out;
}

/// Length, kind, content and CRC of the last two, as the PNG specification (ISO/IEC 15948) has it.
std::string chunk(const std::string& kind, const std::string& content) {
  const std::string body = kind + content;
  const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<std::uint32_t>(content.size())) + body + big_endian(static_cast<std::uint32_t>(crc));
}

std::string deflated(const std::string& data) {
  uLongf size = ::compressBound(static_cast<uLong>(data.size()));
  std::string out(size, '\0');
  if (::compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
                  static_cast<uLong>(data.size()), Z_BEST_COMPRESSION) != Z_OK)
    throw MemoryError("write_png: no memory to compress the picture");
  out.resize(size);
  return out;
}

}  // namespace

void write_png(const std::filesystem::path& path, const Tensor& picture, const PictureOptions& o) {
  if (!picture.defined() || !(picture.rank() == 2 || (picture.rank() == 3 && picture.size(2) == 1)) ||
      picture.numel() == 0)
    throw ShapeError(
        fmt::format("write_png: expected a picture (h, w), got {}", picture.defined() ? describe(picture) : "none"));
  const bool bytes = picture.dtype() == u8;
  if (!bytes && !is_float(picture.dtype()))
    throw DTypeError(fmt::format("write_png: expected uint8 or floats, got {}", describe(picture)));
  if (o.zoom < 1) throw ValueError(fmt::format("write_png: zoom must be at least 1, got {}", o.zoom));
  if (o.zoom > 1 << 14 || picture.numel() > (1 << 28) / o.zoom / o.zoom)
    throw ValueError(fmt::format("write_png: {} at zoom {} is more than 2^28 pixels", picture.shape().str(), o.zoom));
  const auto width = static_cast<std::size_t>(picture.size(1)), zoom = static_cast<std::size_t>(o.zoom);
  const std::vector<double> values = picture.to_vector();
  std::string rows;
  for (std::size_t begin = 0; begin < values.size(); begin += width) {
    std::string row(1, '\0');  // a row begins with its filter: none
    for (std::size_t i = 0; i < width; ++i) {
      const auto v = bytes ? static_cast<std::uint8_t>(values[begin + i]) : gray(values[begin + i]);
      row.append(zoom, static_cast<char>(o.colors == ColorMap::binary ? 255 - v : v));
    }
    for (std::size_t i = 0; i < zoom; ++i) rows += row;
  }
  const auto side = [&](int axis) { return big_endian(static_cast<std::uint32_t>(picture.size(axis) * o.zoom)); };
  const std::string depth_gray("\x08\0\0\0\0", 5);  // 8 bits, gray; deflate, the usual filters, not interlaced
  write_atomically(path, "\x89PNG\r\n\x1a\n" + chunk("IHDR", side(1) + side(0) + depth_gray) +
                             chunk("IDAT", deflated(rows)) + chunk("IEND", ""));
}

Tensor image_grid(const Tensor& images, std::int64_t columns) {
  if (!images.defined() || !(images.rank() == 3 || (images.rank() == 4 && images.size(3) == 1)) || images.numel() == 0)
    throw ShapeError(
        fmt::format("image_grid: expected images (n, h, w), got {}", images.defined() ? describe(images) : "none"));
  if (columns < 1) throw ValueError(fmt::format("image_grid: columns must be at least 1, got {}", columns));
  const std::int64_t n = images.size(0), h = images.size(1), w = images.size(2);
  columns = std::min(columns, n);
  Tensor out = zeros({(n + columns - 1) / columns * h, columns * w}, images.dtype());
  const auto line = static_cast<std::size_t>(w) * size_of(images.dtype());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t y = 0; y < h; ++y) {
      const std::int64_t to = (i / columns * h + y) * columns + i % columns;  // in lines of one image
      std::memcpy(out.mutable_raw() + static_cast<std::size_t>(to) * line,
                  images.raw() + static_cast<std::size_t>(i * h + y) * line, line);
    }
  return out;
}

}  // namespace ebb
