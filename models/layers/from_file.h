// Internal: building a model whose weights a file holds.
#pragma once
#include <cstdint>

#include <ebb/graph/shape.h>

namespace ebb::detail {

/// While one lives, layers that are built on this thread are to be filled from a file: their parameters begin as 0, and
/// together with the buffers they may have no more elements than the file has. A text of 20 bytes can ask for more than
/// there is memory.
class FromFile {
 public:
  explicit FromFile(std::int64_t elements);
  FromFile(const FromFile&) = delete;
  FromFile& operator=(const FromFile&) = delete;
  ~FromFile();
  /// Whether one lives here.
  static bool now();
  /// Counts a tensor before it is made. Throws ShapeError when there are too many elements.
  static void take(const Shape& shape);
};

}  // namespace ebb::detail
