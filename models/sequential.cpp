#include <ebb/models/sequential.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include <ebb/graph/mode.h>

namespace ebb {
namespace {

/// A function as a layer.
class Function final : public Module {
 public:
  explicit Function(std::function<Tensor(const Tensor&)> f) : f_(std::move(f)) {}
  Tensor forward(const Tensor& x) override { return f_(x); }
  std::string_view type() const override { return "Function"; }

 private:
  std::function<Tensor(const Tensor&)> f_;
};

std::string lower(std::string_view s) {
  std::string out(s);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

Layer::Layer(std::function<Tensor(const Tensor&)> function) : module_(std::make_shared<Function>(std::move(function))) {}

Sequential::Sequential(std::initializer_list<Layer> layers) : Sequential(std::vector<Layer>(layers)) {}
Sequential::Sequential(const std::vector<Layer>& layers) {
  for (const Layer& layer : layers) add(layer);
}
Sequential::Sequential(const Shape& sample, std::initializer_list<Layer> layers)
    : Sequential(sample, std::vector<Layer>(layers)) {}
Sequential::Sequential(const Shape& sample, const std::vector<Layer>& layers) : input_(sample) {
  last_ = zeros(sample.inserted(0, 1));
  for (const Layer& layer : layers) add(layer);
}

void Sequential::add(Layer layer) {
  if (layer->name().empty()) {
    const std::string kind = lower(layer->type());
    const auto alike = std::ranges::count_if(layers_, [&](const Layer& l) { return l->type() == layer->type(); });
    layer->set_name(alike ? fmt::format("{}_{}", kind, alike) : kind);
  }
  if (input_) {
    const NoGrad quiet;
    last_ = (*layer)(last_);
  }
  paths_.push_back(fmt::format("layers.{}", layers_.size()));
  layers_.push_back(std::move(layer));
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Module& layer = *layers_[i];
    if (i + 1 < layers_.size())
      if (Tensor both = layer.joined(y, *layers_[i + 1]); both.defined()) {
        y = std::move(both);
        ++i;
        continue;
      }
    y = layer(y);
  }
  return y;
}

void Sequential::visit(Visitor& v) {
  for (std::size_t i = 0; i < layers_.size(); ++i) v(paths_[i], *layers_[i]);
}

}  // namespace ebb
