// Layers that normalize, and the standardization of features.
#pragma once
#include <cstdint>
#include <string_view>

#include <ebb/models/layers/init.h>
#include <ebb/models/layers/module.h>

namespace ebb {

/// Options for BatchNormalization.
struct BatchNormalizationOptions {
  double momentum = 0.99;            ///< share of the old value that a step keeps in the running mean and variance
  double epsilon = 1e-3;             ///< added to the variance
  bool scale = true, center = true;  ///< whether there is a weight (gamma) and a bias (beta)
};
/// (n, ..., c) to the same: in training with the mean and variance of the batch over all axes but the last, at
/// inference or when frozen with their running means. Parameters: weight, bias (c); buffers: running_mean, running_var
/// (c). As in Keras 3, the running variance is that of the batches' population variances.
class BatchNormalization : public Module {
 public:
  explicit BatchNormalization(BatchNormalizationOptions options = {});  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "BatchNormalization"; }
  const BatchNormalizationOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias, running_mean, running_var;                        ///< undefined until built

 private:
  BatchNormalizationOptions options_;
};

/// Options for LayerNormalization.
struct LayerNormalizationOptions {
  double epsilon = 1e-3;             ///< added to the variance
  bool scale = true, center = true;  ///< whether there is a weight (gamma) and a bias (beta)
};
/// (..., c) to the same: each row along the last axis by its own mean and variance (Ba et al. 2016). Parameters:
/// weight, bias (c).
class LayerNormalization : public Module {
 public:
  explicit LayerNormalization(LayerNormalizationOptions options = {});  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "LayerNormalization"; }
  const LayerNormalizationOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                                   ///< undefined until built

 private:
  LayerNormalizationOptions options_;
};

/// Options for GroupNormalization.
struct GroupNormalizationOptions {
  std::int64_t groups = 32;          ///< of channels
  double epsilon = 1e-3;             ///< added to the variance
  bool scale = true, center = true;  ///< whether there is a weight (gamma) and a bias (beta)
};
/// (n, ..., c) to the same: each group of channels of each sample by its own mean and variance (Wu and He 2018). As
/// many groups as channels is instance normalization. Parameters: weight, bias (c).
class GroupNormalization : public Module {
 public:
  explicit GroupNormalization(GroupNormalizationOptions options = {});  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "GroupNormalization"; }
  const GroupNormalizationOptions& options() const { return options_; }  ///< as given
  Tensor weight, bias;                                                   ///< undefined until built

 private:
  GroupNormalizationOptions options_;
};

/// Shifts and scales each feature to mean 0 and variance 1, as scikit-learn's StandardScaler: fit() to the training
/// samples, then apply to any. A feature that is constant there is only shifted. A Module, so it can be the first layer
/// of a network and be saved; its mean and scale are buffers, and until fit() it changes nothing.
class Standardize : public Module {
 public:
  Standardize() = default;
  explicit Standardize(const Tensor& samples) { fit(samples); }  ///< fit() at once
  /// Measures samples (n, ...) of any dtype times `factor` (that of a Dataset), in double; mean and scale are float64
  /// if the samples are, else float32. Throws ShapeError without a sample, ValueError on a value that is not finite.
  void fit(const Tensor& samples, double factor = 1);
  Tensor forward(const Tensor& x) override;  ///< (x - mean) / scale; integers become floats
  void visit(Visitor& v) override { v.buffer("mean", mean), v.buffer("scale", scale); }
  std::string_view type() const override { return "Standardize"; }
  Tensor mean, scale;  ///< of the shape of one sample; scale is the standard deviation, or 1 where that is 0
};

}  // namespace ebb
