// Convolutions beside Conv2D.
#pragma once
#include <cstdint>
#include <string_view>

#include <ebb/graph/composition.h>
#include <ebb/models/layers/layers.h>

namespace ebb {

/// Options for DepthwiseConv2D.
struct DepthwiseConv2DOptions {
  Pair kernel = 3;                           ///< size of the kernel
  std::int64_t multiplier = 1;               ///< output channels for each input channel
  Pair stride = 1;                           ///< step of the kernel
  Padding pad = Padding::valid();            ///< zeros around the image
  Pair dilation = 1;                         ///< distance between the kernel's elements
  Activation activation = nullptr;           ///< applied to the result
  bool use_bias = true;                      ///< add a bias
  Initializer weight_init = glorot_uniform;  ///< first values of the weight
  Initializer bias_init = zeros_init;        ///< first values of the bias
};
/// Each channel convolved by itself: (n, h, w, c) to (n, oh, ow, c * multiplier). Parameters: weight (kh, kw, c,
/// multiplier), bias (c * multiplier).
class DepthwiseConv2D : public Module {
 public:
  explicit DepthwiseConv2D(DepthwiseConv2DOptions options = {});  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "DepthwiseConv2D"; }
  const DepthwiseConv2DOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                                ///< undefined until built

 private:
  DepthwiseConv2DOptions options_;
};

/// Options for Conv2DTranspose.
struct Conv2DTransposeOptions {
  std::int64_t filters = 0;  ///< channels of the result
  Pair kernel = 3;           ///< size of the kernel
  Pair stride = 1;           ///< step of the kernel
  /// same: the output is stride times the input; valid: it has the kernel's overhang too.
  Padding pad = Padding::valid();
  Activation activation = nullptr;           ///< applied to the result
  bool use_bias = true;                      ///< add a bias
  Initializer weight_init = glorot_uniform;  ///< first values of the weight
  Initializer bias_init = zeros_init;        ///< first values of the bias
};
/// The adjoint of a convolution, which makes images larger: (n, h, w, in) to (n, h * stride + max(kernel - stride, 0),
/// ..., filters), with same padding (n, h * stride, ..., filters). Parameters: weight (kh, kw, filters, in) as in
/// Keras, bias (filters).
class Conv2DTranspose : public Module {
 public:
  explicit Conv2DTranspose(Conv2DTransposeOptions options);  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Conv2DTranspose"; }
  const Conv2DTransposeOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                                ///< undefined until built

 private:
  Conv2DTransposeOptions options_;
};

namespace detail {
/// Throws ShapeError, naming the layer, unless x is (n, h, w, c).
void expect_images(std::string_view layer, const Tensor& x);
/// What a layer makes of its convolution y = whole(x, kernel): y plus the bias if that is defined, together one op
/// named `whole`, and the activation if any.
Tensor finished(Composition& whole, const Tensor& y, const Tensor& x, const Tensor& kernel, const Tensor& bias,
                const Conv2dOptions& options, Activation activation);
}  // namespace detail

}  // namespace ebb
