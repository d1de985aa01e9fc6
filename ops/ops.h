// The catalog: every op that ebb offers, one documented line each. Layout is NHWC, kernels are HWIO, dense kernels
// (in, out). Arithmetic takes float32 or float64, both inputs alike, and broadcasts as NumPy does.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/geometry.h>
#include <ebb/ops/kernels/threads.h>
#include <ebb/ops/random.h>

namespace ebb {

// A gradient of 0 stays 0 where a function's slope is infinite or no number (sqrt and log at 0, pow, quotients, exp
// where it overflows), and an infinite gradient becomes 0 where a choice has the slope 0 (maximum, minimum, clip, max,
// abs, relu): so where(greater(x, 0), sqrt(x), 0) and sqrt(maximum(x, 0)) have the gradient 0 for x < 0. A product of
// two tensors does not do so: 0 times an infinite factor is no number.

// ---- arithmetic, with broadcasting ---------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);    ///< a + b
Tensor sub(const Tensor& a, const Tensor& b);    ///< a - b
Tensor mul(const Tensor& a, const Tensor& b);    ///< a * b, elementwise
Tensor div(const Tensor& a, const Tensor& b);    ///< a / b
Tensor pow(const Tensor& a, const Tensor& b);    ///< a^b; the gradient for b needs a >= 0, and is 0 at a = 0
Tensor atan2(const Tensor& y, const Tensor& x);  ///< angle of the point (x, y), in [-pi, pi]; gradient 0 at the origin
Tensor maximum(const Tensor& a, const Tensor& b);  ///< the larger; at a tie each input gets half of the gradient
Tensor minimum(const Tensor& a, const Tensor& b);  ///< the smaller; at a tie each input gets half of the gradient
Tensor affine(const Tensor& x, double scale, double shift);  ///< x * scale + shift
Tensor pow(const Tensor& x, double exponent);                ///< x^exponent

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }  ///< add
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }  ///< sub
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }  ///< mul
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }  ///< div
inline Tensor operator+(const Tensor& a, double b) { return affine(a, 1, b); }   ///< affine
inline Tensor operator+(double a, const Tensor& b) { return affine(b, 1, a); }   ///< affine
inline Tensor operator-(const Tensor& a, double b) { return affine(a, 1, -b); }  ///< affine
inline Tensor operator-(double a, const Tensor& b) { return affine(b, -1, a); }  ///< affine
inline Tensor operator*(const Tensor& a, double b) { return affine(a, b, 0); }   ///< affine
inline Tensor operator*(double a, const Tensor& b) { return affine(b, a, 0); }   ///< affine
inline Tensor operator-(const Tensor& x) { return affine(x, -1, 0); }            ///< affine
Tensor operator/(const Tensor& a, double b);  ///< the quotient itself: most reciprocals are not exact
Tensor operator/(double a, const Tensor& b);  ///< likewise

// ---- functions of one number ---------------------------------------------------------------------------------------
Tensor exp(const Tensor& x);         ///< e^x
Tensor log(const Tensor& x);         ///< natural logarithm
Tensor log1p(const Tensor& x);       ///< log(1 + x), exact for small x
Tensor sqrt(const Tensor& x);        ///< the gradient is infinite at 0
Tensor rsqrt(const Tensor& x);       ///< 1 / sqrt(x)
Tensor square(const Tensor& x);      ///< x^2
Tensor reciprocal(const Tensor& x);  ///< 1 / x
Tensor abs(const Tensor& x);         ///< gradient 0 at 0
Tensor sin(const Tensor& x);         ///< of radians
Tensor cos(const Tensor& x);         ///< of radians
Tensor erf(const Tensor& x);         ///< 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x
Tensor tanh(
    const Tensor& x);  ///< hyperbolic tangent; the gradient is made of the value, so it errs by up to 2^-21 in float32
Tensor sigmoid(
    const Tensor& x);  ///< 1 / (1 + exp(-x)), without overflow; the gradient errs by up to 2^-22 for the same reason
Tensor softplus(const Tensor& x);                        ///< log(1 + exp(x)), without overflow
Tensor relu(const Tensor& x);                            ///< max(x, 0); gradient 0 at 0
Tensor leaky_relu(const Tensor& x, double slope = 0.3);  ///< x where x > 0, slope * x elsewhere
Tensor elu(const Tensor& x, double alpha = 1);           ///< x where x > 0, alpha (exp(x) - 1) elsewhere
Tensor selu(const Tensor& x);                            ///< scaled elu (Klambauer et al. 2017, section 2)
Tensor gelu(const Tensor& x);                            ///< x Phi(x), exact (Hendrycks and Gimpel 2016)
Tensor silu(const Tensor& x);                            ///< x sigmoid(x)
Tensor clip(const Tensor& x, double low, double high);   ///< x kept in [low, high]
Tensor stop_gradient(const Tensor& x);                   ///< the same value as a constant

// ---- choice and conversion -----------------------------------------------------------------------------------------
Tensor greater(const Tensor& a, const Tensor& b);  ///< a > b as uint8, any type; likewise less and equal
Tensor less(const Tensor& a, const Tensor& b);     ///< a < b as uint8
Tensor equal(const Tensor& a, const Tensor& b);    ///< a = b as uint8
Tensor greater(const Tensor& a, double b);         ///< a > b as uint8
Tensor less(const Tensor& a, double b);            ///< a < b as uint8
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);  ///< a where the uint8 is not 0, else b
Tensor cast(const Tensor& x, DType dtype);  ///< converted elements; a gradient flows from float to float

// ---- reductions ----------------------------------------------------------------------------------------------------
// A sum in float32 errs by at most 24 * 2^-24 of the sum of magnitudes, whatever its length (axes that are not
// neighbors: once for each run of them); so do what is made of sums: mean, variance (besides, a rounding of the mean is
// made good), the norms, softmax, losses, avg_pool2d, and the gradients of biases, scales and gathered rows. A sample's
// sum does not depend on its batch. Products of matrices and convolutions add in float32 in an order of BLAS, which may
// depend on the batch.

/// Axes of a reduction: none given means all; negative ones count from the last.
class Axes {
 public:
  Axes() = default;
  Axes(int axis) : Axes({axis}) {}        ///< one axis
  Axes(std::initializer_list<int> axes);  ///< several; ShapeError on more than 8
  /// One bit per axis of a tensor of this rank; throws ShapeError on an axis that does not exist or comes twice.
  unsigned mask(const Shape& shape, std::string_view op) const;

 private:
  std::array<std::int8_t, Shape::max_rank> axes_{};
  int count_ = -1;
};
/// Options of the reductions.
struct ReduceOptions {
  bool keepdims = false;  ///< leave the reduced axes in place with size 1
};
Tensor sum(const Tensor& x, Axes axes = {}, ReduceOptions options = {});       ///< sum of the elements along the axes
Tensor mean(const Tensor& x, Axes axes = {}, ReduceOptions options = {});      ///< mean of the elements along the axes
Tensor max(const Tensor& x, Axes axes = {}, ReduceOptions options = {});       ///< ties share the gradient
Tensor min(const Tensor& x, Axes axes = {}, ReduceOptions options = {});       ///< ties share the gradient
Tensor variance(const Tensor& x, Axes axes = {}, ReduceOptions options = {});  ///< mean of squared deviations
Tensor logsumexp(const Tensor& x, Axes axes = {},
                 ReduceOptions options = {});        ///< log(sum(exp(x))), shifted by the max
Tensor sum_to(const Tensor& x, const Shape& shape);  ///< sums x to `shape`, the adjoint of broadcast_to
Tensor argmax(const Tensor& x, int axis = -1);  ///< int64 position of the first NaN, else of the first largest element

// ---- layout --------------------------------------------------------------------------------------------------------
Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> sizes);  ///< one size may be -1: inferred
Tensor reshape(const Tensor& x, const Shape& shape);  ///< ShapeError unless the number of elements is the same
Tensor flatten(const Tensor& x);                      ///< (n, ...) to (n, rest)
Tensor transpose(const Tensor& x, std::initializer_list<int> axes);  ///< axis i of the result is axes[i] of x
Tensor transpose(const Tensor& x);                                   ///< all axes reversed
Tensor broadcast_to(const Tensor& x, const Shape& shape);            ///< repeated as NumPy's broadcasting repeats
/// Options of slice().
struct SliceOptions {
  int axis = 0;                             ///< along which
  std::int64_t begin = 0, end = INT64_MAX;  ///< [begin, end), clipped to the axis; negative ones count from its end
  std::int64_t step = 1;                    ///< at least 1
};
Tensor slice(const Tensor& x, SliceOptions options);  ///< a part of one axis
/// Options of pad().
struct PadOptions {
  int axis = 0;                        ///< along which
  std::int64_t before = 0, after = 0;  ///< zeros added at the ends
};
Tensor pad(const Tensor& x, PadOptions options);             ///< zeros at the ends of one axis
Tensor concat(std::span<const Tensor> parts, int axis = 0);  ///< joined along an axis; the other sizes must be equal
Tensor concat(std::initializer_list<Tensor> parts, int axis = 0);  ///< likewise
Tensor stack(std::span<const Tensor> parts, int axis = 0);         ///< joins along a new axis

// ---- products ------------------------------------------------------------------------------------------------------
/// Options of matmul().
struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;  ///< swap the last two axes on the fly
};
/// (..., m, k) x (..., k, n) = (..., m, n); the leading axes broadcast.
Tensor matmul(const Tensor& a, const Tensor& b, MatmulOptions options = {});
/// x (..., in) times kernel (in, out) plus bias (out), then the activation if any: relu, sigmoid and tanh run in the
/// same pass.
Tensor linear(const Tensor& x, const Tensor& kernel, const Tensor& bias, Tensor (*activation)(const Tensor&) = nullptr);
/// The definition of linear and its test oracle: matmul, add, activation.
Tensor linear_plain(const Tensor& x, const Tensor& kernel, const Tensor& bias,
                    Tensor (*activation)(const Tensor&) = nullptr);

// ---- images (NHWC) -------------------------------------------------------------------------------------------------
/// x (n, h, w, in) with kernel (kh, kw, in, out): (n, oh, ow, out), oh = (h + pads - dilation (kh - 1) - 1) / stride
/// + 1.
Tensor conv2d(const Tensor& x, const Tensor& kernel, Conv2dOptions options = {});
/// max_pool2d(relu(conv2d(x, kernel) + bias), {pool}) in one pass over blocks of images; a pool of 1 changes nothing.
Tensor conv2d_relu(const Tensor& x, const Tensor& kernel, const Tensor& bias, Conv2dOptions options = {},
                   Pair pool = 1);
/// The definition of conv2d and its test oracle: im2col, one matmul, reshape.
Tensor conv2d_plain(const Tensor& x, const Tensor& kernel, Conv2dOptions options = {});
/// conv2d in groups: channels and filters in `groups` equal parts, kernel (kh, kw, in / groups, out), each filter over
/// its own part of the channels; as many groups as channels is a depthwise convolution.
Tensor conv2d_grouped(const Tensor& x, const Tensor& kernel, std::int64_t groups, Conv2dOptions options = {});
/// The adjoint of conv2d with respect to x: g (n, oh, ow, out) to an image of (h, w).
Tensor conv2d_transpose(const Tensor& g, const Tensor& kernel, Pair image, Conv2dOptions options = {});
/// Patches as rows: (n, h, w, c) to (n, oh, ow, kh * kw * c).
Tensor im2col(const Tensor& x, Pair kernel, Conv2dOptions options = {});
/// The adjoint of im2col: patches added back into images of (h, w).
Tensor col2im(const Tensor& patches, Pair image, Pair kernel, Conv2dOptions options = {});
Tensor max_pool2d(const Tensor& x,
                  PoolOptions options = {});  ///< the gradient goes to the first maximum of each window
Tensor avg_pool2d(const Tensor& x, PoolOptions options = {});  ///< padding does not count in the mean

// ---- indices -------------------------------------------------------------------------------------------------------
Tensor gather(const Tensor& x, const Tensor& indices);  ///< rows of x by int64 or uint8 indices of any shape
Tensor scatter_rows(const Tensor& g, const Tensor& indices, std::int64_t rows);  ///< the adjoint: rows added up
Tensor pick(const Tensor& x, const Tensor& indices);  ///< x (..., c), indices (...): the element chosen in each row
Tensor place(const Tensor& g, const Tensor& indices,
             std::int64_t classes);  ///< the adjoint of pick: g at the chosen positions, else 0
/// indices of any shape to (..., classes): 1 at the index, else 0
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::f32);

// ---- classification ------------------------------------------------------------------------------------------------
Tensor softmax(const Tensor& x);      ///< along the last axis
Tensor log_softmax(const Tensor& x);  ///< along the last axis
/// Options of cross_entropy().
struct CrossEntropyOptions {
  double label_smoothing = 0;  ///< this share of each target is spread over all classes
  Tensor class_weights = {};   ///< (c): a row counts as often as the weight of its class, or the mean weight of its
                               ///< probabilities, says; the sum is divided by n as in Keras, not by the sum of weights
};
/// Mean cross-entropy of logits (n, c) against labels: classes (n) as int64 or uint8, or probabilities (n, c).
Tensor cross_entropy(const Tensor& logits, const Tensor& labels);
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, CrossEntropyOptions options);  ///< with options
/// The definition of cross_entropy and its test oracle, from log_softmax.
Tensor cross_entropy_plain(const Tensor& logits, const Tensor& labels, CrossEntropyOptions options = {});
/// Mean binary cross-entropy of logits against targets in [0, 1] of the same shape.
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets);
Tensor mse(const Tensor& prediction, const Tensor& target);  ///< mean squared error
Tensor mae(const Tensor& prediction, const Tensor& target);  ///< mean absolute error
/// Mean of d^2 / 2 where the error d is at most delta, delta (|d| - delta / 2) beyond (Huber 1964).
Tensor huber(const Tensor& prediction, const Tensor& target, double delta = 1);
/// Mean over rows of sum t log(t / softmax(logits)): how far the rows of softmax(logits) are from the probabilities t
/// (n, c); where t is 0 nothing is added.
Tensor kl_divergence(const Tensor& logits, const Tensor& targets);

// ---- normalization -------------------------------------------------------------------------------------------------
/// Mean and variance of a batch, of each channel.
struct Moments {
  Tensor mean, variance;  ///< (channels)
};
/// Options of batch_norm().
struct BatchNormOptions {
  double epsilon = 1e-3;       ///< added to the variance
  Moments* moments = nullptr;  ///< receives the batch's own, as constants
};
/// gamma (x - mean) / sqrt(variance + epsilon) + beta with the mean and the (population) variance of each channel, the
/// last axis of x (n, ..., c), over all other axes (Ioffe and Szegedy 2015, algorithm 1); gamma and beta are (c).
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, BatchNormOptions options = {});
/// The definition of batch_norm and its test oracle.
Tensor batch_norm_plain(const Tensor& x, const Tensor& gamma, const Tensor& beta, BatchNormOptions options = {});

// ---- noise ---------------------------------------------------------------------------------------------------------
/// Zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate), while training() is true.
Tensor dropout(const Tensor& x, double rate, Generator& generator = default_generator());

}  // namespace ebb
