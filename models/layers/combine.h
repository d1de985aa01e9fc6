// Layers made of layers.
#pragma once
#include <initializer_list>
#include <string_view>
#include <vector>

#include <ebb/models/layers/sequential.h>

namespace ebb {

/// Options for Residual.
struct ResidualOptions {
  std::vector<Layer> layers;         ///< the layers of the block
  std::vector<Layer> shortcut = {};  ///< layers that x passes before it is added; empty: none
};
/// x + layers(x) (He et al. 2016), or shortcut(x) + layers(x) where the shapes differ:
///     Residual({Conv2D({.filters = 32, .pad = Padding::same(), .activation = relu}),
///               Conv2D({.filters = 32, .pad = Padding::same()})})
class Residual : public Module {
 public:
  explicit Residual(ResidualOptions options)
      : layers_(options.layers), shortcut_(options.shortcut) {}  ///< ValueError on options out of range
  Residual(std::initializer_list<Layer> layers, std::initializer_list<Layer> shortcut = {})
      : layers_(layers), shortcut_(shortcut) {}  ///< of layers by value, shared, or functions
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override { v("body", layers_), v("shortcut", shortcut_); }
  std::string_view type() const override { return "Residual"; }
  ResidualOptions options() const { return {layers_.layers(), shortcut_.layers()}; }  ///< as given

 private:
  Sequential layers_, shortcut_;
};

/// Options for Concat.
struct ConcatOptions {
  std::vector<std::vector<Layer>> branches;  ///< each a list of layers
};
/// The results of all branches for one input, joined along the last axis. A branch of several layers is a Sequential:
///     Concat({Conv2D({.filters = 8, .kernel = 1}), Sequential({MaxPool2D({.size = 3, .stride = 1, .pad = 1}), relu})})
class Concat : public Module {
 public:
  explicit Concat(const ConcatOptions& options);  ///< ValueError on options out of range
  Concat(std::initializer_list<Layer> branches);  ///< of layers by value, shared, or functions
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  std::string_view type() const override { return "Concat"; }
  ConcatOptions options() const;  ///< as given

 private:
  Sequential branches_;  // used as a list only: each branch gets the same x
};

}  // namespace ebb
