// Layers that normalise.
#pragma once
#include <string_view>

#include <ebb/models/init.h>
#include <ebb/models/module.h>

namespace ebb {

/// Of BatchNormalization.
struct BatchNormalizationOptions {
  double momentum = 0.99;  ///< share of the old value that a step keeps in the running mean and variance
  double epsilon = 1e-3;  ///< added to the variance
  bool scale = true, center = true;  ///< whether there is a weight (gamma) and a bias (beta)
};
/// (n, ..., c) to the same: in training with the mean and variance of the batch over all axes but the last, at inference
/// or when frozen with their running means. Parameters: weight, bias (c); buffers: running_mean, running_var (c). As in
/// Keras 3, the running variance is that of the batches' population variances.
class BatchNormalization : public Module {
 public:
  explicit BatchNormalization(BatchNormalizationOptions options = {});  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "BatchNormalization"; }
  Tensor weight, bias, running_mean, running_var;  ///< undefined until built; weight and bias also when left out

 private:
  BatchNormalizationOptions options_;
};

}  // namespace ebb
