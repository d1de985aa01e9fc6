// Layers: members, forward, visit.
#pragma once
#include <cstdint>
#include <string_view>

#include <ebb/models/init.h>
#include <ebb/models/module.h>
#include <ebb/ops/ops.h>

namespace ebb {

/// A function that a layer applies to its result, such as relu; null for none.
using Activation = Tensor (*)(const Tensor&);

/// Of Dense.
struct DenseOptions {
  std::int64_t units = 0;  ///< size of the result's last axis
  Activation activation = nullptr;  ///< of the result
  bool use_bias = true;  ///< add one
  Initializer weight_init = glorot_uniform;  ///< of the weight
  Initializer bias_init = zeros_init;  ///< of the bias
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
  Tensor weight, bias;  ///< undefined until built; bias also without use_bias

 private:
  DenseOptions options_;
};

/// Of Conv2D.
struct Conv2DOptions {
  std::int64_t filters = 0;  ///< channels of the result
  Pair kernel = 3;  ///< its size
  Pair stride = 1;  ///< step of the kernel
  Padding pad = Padding::valid();  ///< zeros around the image
  Pair dilation = 1;  ///< distance of the kernel's elements
  Activation activation = nullptr;  ///< of the result
  bool use_bias = true;  ///< add one
  Initializer weight_init = glorot_uniform;  ///< of the weight
  Initializer bias_init = zeros_init;  ///< of the bias
};
/// (n, h, w, in) to (n, oh, ow, filters). Parameters: weight (kh, kw, in, filters), bias (filters).
class Conv2D : public Module {
 public:
  explicit Conv2D(Conv2DOptions options);  ///< ValueError on filters below 1
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Conv2D"; }
  Tensor weight, bias;  ///< undefined until built; bias also without use_bias

 protected:
  /// With relu and a bias, and followed by a max-pool of windows side by side.
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
  explicit MaxPool2D(std::int64_t size) : options_{.size = size} {}  ///< a square window
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
  explicit AvgPool2D(std::int64_t size) : options_{.size = size} {}  ///< a square window
  Tensor forward(const Tensor& x) override { return avg_pool2d(x, options_); }
  std::string_view type() const override { return "AvgPool2D"; }

 private:
  PoolOptions options_;
};

/// (n, h, w, c) to (n, c): the mean of each channel.
class GlobalAvgPool2D : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  std::string_view type() const override { return "GlobalAvgPool2D"; }
};

/// (n, ...) to (n, rest).
class Flatten : public Module {
 public:
  Tensor forward(const Tensor& x) override { return flatten(x); }
  std::string_view type() const override { return "Flatten"; }
};

/// In training: zeroes a share of the elements and scales up the rest; at inference: nothing.
class Dropout : public Module {
 public:
  /// Throws ValueError unless rate is in [0, 1).
  explicit Dropout(double rate);
  Tensor forward(const Tensor& x) override { return dropout(x, rate_); }
  std::string_view type() const override { return "Dropout"; }

 private:
  double rate_;
};

}  // namespace ebb
