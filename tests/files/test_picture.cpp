// PNG files, read back with zlib.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/files/picture.h>
#include <zlib.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "temp_dir.h"

using namespace ebb;

namespace {

using Bytes = std::vector<std::uint8_t>;

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::size_t number(const std::string& s, std::size_t at) {
  std::size_t out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out << 8 | static_cast<std::uint8_t>(s[at + i]);
  return out;
}

struct Png {
  std::size_t width, height;
  Bytes pixels;
};
/// Reads an 8-bit gray PNG without filters, checking everything in it.
Png read(const std::filesystem::path& file) {
  const std::string s = contents(file);
  REQUIRE(s.starts_with("\x89PNG\r\n\x1a\n"));
  Png out{};
  std::string packed, kinds;
  for (std::size_t at = 8; at < s.size();) {
    const std::size_t size = number(s, at);
    const std::string kind = s.substr(at + 4, 4), body = s.substr(at + 4, size + 4);
    CHECK(number(s, at + 8 + size) ==
          ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size())));
    kinds += kind;
    if (kind == "IHDR") {
      out.width = number(s, at + 8), out.height = number(s, at + 12);
      CHECK(s.substr(at + 16, 5) == std::string("\x08\0\0\0\0", 5));
    }
    if (kind == "IDAT") packed = body.substr(4);
    at += size + 12;
  }
  CHECK(kinds == "IHDRIDATIEND");
  Bytes rows(out.height * (out.width + 1));
  uLongf size = static_cast<uLongf>(rows.size());
  REQUIRE(::uncompress(rows.data(), &size, reinterpret_cast<const Bytef*>(packed.data()),
                       static_cast<uLong>(packed.size())) == Z_OK);
  CHECK(size == rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i % (out.width + 1)) out.pixels.push_back(rows[i]);
    else CHECK(rows[i] == 0);
  }
  return out;
}

}  // namespace

TEST_CASE("pictures: bytes and floats, both color maps, zoomed") {
  const TempDir dir;
  const Tensor bytes = tensor({0, 10, 255, 3, 4, 5}, {2, 3}, u8);
  write_png(dir / "a.png", bytes);
  const Png a = read(dir / "a.png");
  CHECK(a.width == 3);
  CHECK(a.height == 2);
  CHECK(a.pixels == Bytes{0, 10, 255, 3, 4, 5});
  write_png(dir / "a.png", bytes, {.colors = ColorMap::binary});
  CHECK(read(dir / "a.png").pixels == Bytes{255, 245, 0, 252, 251, 250});
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  write_png(dir / "b.png", tensor({0, .5, 1, -3, 7, nan}, {2, 3, 1}));
  CHECK(read(dir / "b.png").pixels == Bytes{0, 128, 255, 0, 255, 0});
  write_png(dir / "c.png", tensor({1, 2}, {1, 2}, u8), {.zoom = 2});
  const Png c = read(dir / "c.png");
  CHECK(c.width == 4);
  CHECK(c.pixels == Bytes{1, 1, 2, 2, 1, 1, 2, 2});
}

TEST_CASE("pictures: a grid of images") {
  const Tensor images = tensor({1, 2, 3, 4, 5, 6}, {3, 1, 2}, u8);
  const Tensor grid = image_grid(images, 2);
  CHECK(grid.shape() == Shape{2, 4});
  CHECK(grid.to_vector() == std::vector<double>{1, 2, 3, 4, 5, 6, 0, 0});
  CHECK(image_grid(images, 10).shape() == Shape{1, 6});  // no empty columns
  CHECK(image_grid(tensor({1, 2, 3, 4, 5, 6, 7, 8}, {2, 2, 2, 1}), 2).to_vector() ==
        std::vector<double>{1, 2, 5, 6, 3, 4, 7, 8});
  CHECK_THROWS_WITH_AS(image_grid(zeros({2, 3}), 1), "image_grid: expected images (n, h, w), got float32 (2, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(image_grid(images, 0), "image_grid: columns must be at least 1, got 0", ValueError);
}

TEST_CASE("pictures: what cannot be written leaves nothing behind") {
  const TempDir dir;
  const auto file = dir / "a.png";
  CHECK_THROWS_WITH_AS(write_png(file, zeros({3})), "write_png: expected a picture (h, w), got float32 (3,)",
                       ShapeError);
  CHECK_THROWS_AS(write_png(file, Tensor()), ShapeError);
  CHECK_THROWS_AS(write_png(file, zeros({2, 2, 3})), ShapeError);
  CHECK_THROWS_AS(write_png(file, zeros({0, 2})), ShapeError);
  CHECK_THROWS_WITH_AS(write_png(file, zeros({2, 2}, i64)), "write_png: expected uint8 or floats, got int64 (2, 2)",
                       DTypeError);
  CHECK_THROWS_WITH_AS(write_png(file, zeros({2, 2}), {.zoom = 0}), "write_png: zoom must be at least 1, got 0",
                       ValueError);
  CHECK_THROWS_AS(write_png(file, zeros({2, 2}), {.zoom = 1 << 14}), ValueError);
  CHECK_THROWS_AS(write_png(dir / "missing" / "a.png", zeros({2, 2})), IoError);
  CHECK(std::filesystem::is_empty(dir.path()));
}
