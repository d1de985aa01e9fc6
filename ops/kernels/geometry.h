// Windows over images: sizes, padding and options of convolutions and poolings, and whether Winograd's method is used.
#pragma once
#include <cstdint>

namespace ebb {

/// A pair of sizes; one number means both alike.
struct Pair {
  std::int64_t h, w;                                                                ///< along the height and the width
  constexpr Pair(std::int64_t both) : h(both), w(both) {}                           ///< both alike
  constexpr Pair(std::int64_t height, std::int64_t width) : h(height), w(width) {}  ///< one each
  friend bool operator==(const Pair&, const Pair&) = default;                       ///< both equal
};

/// Zeros around an image: as many as given on all sides, or what makes the output ceil(size / stride) (Keras' "same":
/// an odd one goes to the bottom and right).
struct Padding {
  std::int64_t top = 0, left = 0, bottom = 0, right = 0;  ///< rows and columns of zeros
  bool is_same = false;  ///< as many as same() needs; the four numbers are not read then
  constexpr Padding(std::int64_t all = 0) : top(all), left(all), bottom(all), right(all) {}  ///< as many on all sides
  /// So many above and below, and so many left and right.
  constexpr Padding(Pair p) : top(p.h), left(p.w), bottom(p.h), right(p.w) {}
  static constexpr Padding valid() { return {}; }  ///< none
  /// What makes the output ceil(size / stride).
  static constexpr Padding same() {
    Padding p;
    p.is_same = true;
    return p;
  }
};

/// Options of conv2d() and its relatives.
struct Conv2dOptions {
  Pair stride = 1;    ///< step of the kernel
  Padding pad = 0;    ///< zeros around the image
  Pair dilation = 1;  ///< distance of the kernel's elements
};

/// Whether 3x3 convolutions of stride 1 in float32 may save multiplications by Winograd's method, where it pays. Its
/// rounding error was at most 6.5e-6 of the largest result (100 draws of six shapes), against 1.4e-6: of the largest
/// one, so a pixel of 1e6 costs results within 5 pixels digits that they would keep in the plain way. An image whose
/// transform is not finite is convolved in the plain way, and NaN and infinite pixels spoil only what sees them. A
/// thread keeps what it made of the last eight kernels of single images, at most 10 MB. On, unless the environment has
/// EBB_WINOGRAD=0.
void set_winograd(bool on);
bool winograd();  ///< what was set

/// Options of the poolings.
struct PoolOptions {
  Pair size = 2;    ///< of the window
  Pair stride = 0;  ///< 0: as the size
  Padding pad = 0;  ///< around the image; it takes no part in a result
};

}  // namespace ebb
