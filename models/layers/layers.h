// Layers: members, forward, visit.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include <ebb/models/layers/init.h>
#include <ebb/models/layers/module.h>
#include <ebb/ops/ops.h>

namespace ebb {

/// A function that a layer applies to its result, such as relu; null for none.
using Activation = Tensor (*)(const Tensor&);

/// Options for Dense.
struct DenseOptions {
  std::int64_t units = 0;                    ///< size of the result's last axis
  Activation activation = nullptr;           ///< applied to the result
  bool use_bias = true;                      ///< add a bias
  Initializer weight_init = glorot_uniform;  ///< first values of the weight
  Initializer bias_init = zeros_init;        ///< first values of the bias
};
/// (..., in) to (..., units): x W + b. Parameters: weight (in, units), bias (units).
class Dense : public Module {
 public:
  explicit Dense(DenseOptions options);  ///< ValueError on units below 1
  /// The same by position.
  explicit Dense(std::int64_t units, Activation activation = nullptr) : Dense(DenseOptions{units, activation}) {}
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Dense"; }
  const DenseOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                      ///< undefined until built; bias also without use_bias

 private:
  DenseOptions options_;
};

/// Options for Conv2D.
struct Conv2DOptions {
  std::int64_t filters = 0;         ///< channels of the result
  Pair kernel = 3;                  ///< size of the kernel
  Pair stride = 1;                  ///< step of the kernel
  Padding pad = Padding::valid();   ///< zeros around the image
  Pair dilation = 1;                ///< distance between the kernel's elements
  std::int64_t groups = 1;          ///< channels and filters are split into so many groups, each convolved by itself
  Activation activation = nullptr;  ///< applied to the result
  bool use_bias = true;             ///< add a bias
  Initializer weight_init = glorot_uniform;  ///< first values of the weight
  Initializer bias_init = zeros_init;        ///< first values of the bias
};
/// (n, h, w, in) to (n, oh, ow, filters). Parameters: weight (kh, kw, in / groups, filters), bias (filters).
class Conv2D : public Module {
 public:
  explicit Conv2D(Conv2DOptions options);  ///< ValueError on filters below 1, or that the groups do not divide
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Conv2D"; }
  const Conv2DOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                       ///< undefined until built; bias also without use_bias

 protected:
  /// One pass for relu and bias, followed by a max-pool whose windows do not overlap.
  Tensor forward_joined(const Tensor& x, const Module& next) override;

 private:
  void build(const Tensor& x);
  Conv2dOptions geometry() const { return {options_.stride, options_.pad, options_.dilation}; }
  bool has_bias_and_relu() const { return options_.use_bias && options_.activation == static_cast<Activation>(relu); }
  Conv2DOptions options_;
};

/// Largest element of each window; the stride is the window's size unless given.
class MaxPool2D : public Module {
 public:
  explicit MaxPool2D(PoolOptions options = {}) : options_(options) {}  ///< window, stride and padding
  explicit MaxPool2D(std::int64_t size) : options_{.size = size} {}    ///< a square window
  Tensor forward(const Tensor& x) override { return max_pool2d(x, options_); }
  std::string_view type() const override { return "MaxPool2D"; }
  const PoolOptions& options() const { return options_; }  ///< as given

 private:
  PoolOptions options_;
};

/// Mean of each window; the stride is the window's size unless given.
class AvgPool2D : public Module {
 public:
  explicit AvgPool2D(PoolOptions options = {}) : options_(options) {}  ///< window, stride and padding
  explicit AvgPool2D(std::int64_t size) : options_{.size = size} {}    ///< a square window
  Tensor forward(const Tensor& x) override { return avg_pool2d(x, options_); }
  std::string_view type() const override { return "AvgPool2D"; }
  const PoolOptions& options() const { return options_; }  ///< as given

 private:
  PoolOptions options_;
};

/// (n, h, w, c) to (n, c): the mean of each channel.
class GlobalAvgPool2D : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string_view type() const override { return "GlobalAvgPool2D"; }
};

/// (n, h, w, c) to (n, c): the largest of each channel.
class GlobalMaxPool2D : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string_view type() const override { return "GlobalMaxPool2D"; }
};

/// (n, ...) to (n, rest).
class Flatten : public Module {
 public:
  Tensor forward(const Tensor& x) override { return flatten(x); }
  std::string_view type() const override { return "Flatten"; }
};

/// Options for Reshape.
struct ReshapeOptions {
  std::vector<std::int64_t> sizes;  ///< shape of one sample, without the batch axis
};
/// (n, ...) to (n, sizes...): the same elements in another shape.
class Reshape : public Module {
 public:
  explicit Reshape(ReshapeOptions options);  ///< ValueError on a size below 1
  /// The same by position: Reshape({28, 28, 1}).
  explicit Reshape(std::initializer_list<std::int64_t> sizes) : Reshape(ReshapeOptions{sizes}) {}
  Tensor forward(const Tensor& x) override;
  std::string_view type() const override { return "Reshape"; }
  const ReshapeOptions& options() const { return options_; }  ///< as given

 private:
  ReshapeOptions options_;
};

/// Options for Dropout and SpatialDropout2D.
struct DropoutOptions {
  double rate = 0.5;  ///< share of the elements or channels that are zeroed, in [0, 1)
};
/// In training: zeroes a share of the elements and scales up the rest; at inference: nothing.
class Dropout : public Module {
 public:
  explicit Dropout(DropoutOptions options);                         ///< ValueError unless the rate is in [0, 1)
  explicit Dropout(double rate) : Dropout(DropoutOptions{rate}) {}  ///< the same by position
  Tensor forward(const Tensor& x) override { return dropout(x, options_.rate); }
  std::string_view type() const override { return "Dropout"; }
  const DropoutOptions& options() const { return options_; }  ///< as given

 private:
  DropoutOptions options_;
};

/// Dropout of whole channels of an image (n, h, w, c) (Tompson et al. 2015, section 3.2).
class SpatialDropout2D : public Module {
 public:
  explicit SpatialDropout2D(DropoutOptions options);  ///< ValueError unless the rate is in [0, 1)
  explicit SpatialDropout2D(double rate) : SpatialDropout2D(DropoutOptions{rate}) {}  ///< the same by position
  Tensor forward(const Tensor& x) override;
  std::string_view type() const override { return "SpatialDropout2D"; }
  const DropoutOptions& options() const { return options_; }  ///< as given

 private:
  DropoutOptions options_;
};

/// Options for Embedding.
struct EmbeddingOptions {
  std::int64_t size = 0;     ///< size of the vocabulary: indices are in [0, size)
  std::int64_t units = 0;    ///< size of each vector
  DType dtype = DType::f32;  ///< type of the vectors
};
/// Indices (...), int64, uint8 or whole numbers as floats, to their vectors (..., units). Parameter: weight (size,
/// units), from U(-0.05, 0.05) as in Keras.
class Embedding : public Module {
 public:
  explicit Embedding(EmbeddingOptions options);  ///< ValueError on a size below 1
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override { v("weight", weight); }
  std::string_view type() const override { return "Embedding"; }
  const EmbeddingOptions& options() const { return options_; }  ///< as given
  Tensor weight;                                                ///< undefined until built

 private:
  EmbeddingOptions options_;
};

}  // namespace ebb
