// IDX files, the format of MNIST: a magic number, the sizes of the axes, the elements.
#pragma once
#include <filesystem>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Reads an IDX file of unsigned bytes with 1 to 4 axes, plain or gzip of any number of members, or the one file of a
/// zip (the content decides, not the name). Strict: whatever breaks the format, down to one byte too many, is a
/// DataError with file, byte position, what was expected and what was found. What the system refuses is an IoError. A
/// header that claims more than the file can hold is refused before memory is asked for.
Tensor read_idx(const std::filesystem::path& path);

/// Writes a uint8 tensor with 1 to 4 axes, as gzip when the name ends in ".gz". The file appears complete or
/// not at all. Throws DTypeError or ShapeError on another tensor, IoError with the system's reason.
void write_idx(const std::filesystem::path& path, const Tensor& values);

}  // namespace ebb
