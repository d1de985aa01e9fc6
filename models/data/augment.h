// Augmentation: small random distortions of images that do not change what they show.
#pragma once
#include <ebb/graph/tensor.h>
#include <ebb/ops/random.h>

namespace ebb {

/// How far each image is moved, each amount drawn for each image on its own. Zero switches a distortion off.
struct AugmentOptions {
  double shift = 2;    ///< largest move along each axis, pixels
  double rotate = 10;  ///< largest turn either way, degrees
  double scale = 0.1;  ///< largest change of size, drawn for each axis: 0.1 gives 0.9 to 1.1
  double shear = 0.1;  ///< largest shear: columns moved by this share of their distance from the middle row
  double elastic = 1;  ///< standard deviation of the displacements on a coarse grid, pixels
  double knots = 7;    ///< distance of the points of that grid, pixels
};

/// A function from a batch of images to a distorted batch, for FitOptions::augment. The elastic part moves
/// the points of a coarse grid by normal random amounts and every pixel by their cubic B-spline (Ronneberger
/// et al. 2015, section 3.1; Simard et al. 2003 for digits). Pixels are read between their neighbors
/// (bilinear), zero outside of the image.
class Augment {
 public:
  /// Throws ValueError on an amount that is negative or not finite, a scale of 1 or more, or knots closer
  /// than a pixel.
  explicit Augment(AugmentOptions options = {});
  /// images (n, h, w, c), float32 or float64, else ShapeError or DTypeError; the result is a constant of the
  /// same shape.
  Tensor operator()(const Tensor& images, Generator& generator = default_generator()) const;

 private:
  AugmentOptions options_;
};

}  // namespace ebb
