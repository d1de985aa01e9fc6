// Images as PNG files: digits, and grids of them.
#pragma once
#include <cstdint>
#include <filesystem>

#include <ebb/graph/tensor.h>

namespace ebb {

/// What a pixel of 0 looks like: black (Matplotlib's "gray") or white ("binary").
enum class ColorMap { gray, binary };

/// How a picture is written.
struct PictureOptions {
  ColorMap colors = ColorMap::gray;  ///< of the pixels
  int zoom = 1;                      ///< side of the square that each pixel becomes
};

/// Writes (h, w) or (h, w, 1) as an 8-bit PNG: uint8 as it is, floats from 0 to 1 (less and more are clipped, NaN is
/// 0). The file appears complete or not at all. Throws ShapeError or DTypeError on anything else, ValueError on a zoom
/// below 1 or a picture of more than 2^28 pixels, IoError.
void write_png(const std::filesystem::path& path, const Tensor& picture, const PictureOptions& options = {});

/// Images (n, h, w) or (n, h, w, 1) side by side, row by row, `columns` to a row: (rows h, columns w). Places that are
/// left over are 0. Throws ShapeError on other shapes and without an image, ValueError on columns below 1.
Tensor image_grid(const Tensor& images, std::int64_t columns);

}  // namespace ebb
