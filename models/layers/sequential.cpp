#include <ebb/models/layers/sequential.h>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>

#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/from_file.h>

namespace ebb {

std::string detail::snake_case(std::string_view s) {
  const auto is = [&](std::size_t i, auto test) { return i < s.size() && test(static_cast<unsigned char>(s[i])); };
  const auto upper = [](int c) { return std::isupper(c) != 0; };
  const auto lower = [](int c) { return std::islower(c) != 0; };
  const auto small = [](int c) { return std::islower(c) || std::isdigit(c); };
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (i > 0 && is(i, upper) && (is(i - 1, lower) || is(i + 1, small))) out += '_';
    out += static_cast<char>(std::tolower(static_cast<unsigned char>(s[i])));
  }
  return out;
}

std::string keras_class(std::string_view type) {
  constexpr auto others = std::to_array<std::pair<std::string_view, std::string_view>>({
      {"MaxPool2D", "MaxPooling2D"},
      {"AvgPool2D", "AveragePooling2D"},
      {"GlobalAvgPool2D", "GlobalAveragePooling2D"},
  });
  for (const auto& [ours, theirs] : others)
    if (ours == type) return std::string(theirs);
  return std::string(type);
}

Activation Function::plain() const {
  const Activation* f = f_.target<Activation>();
  return f ? *f : nullptr;
}

Function::Function(std::function<Tensor(const Tensor&)> f) : f_(std::move(f)) { detail::expect_given(f_, "Function"); }

Layer::Layer(std::function<Tensor(const Tensor&)> function) : Layer(Function(std::move(function))) {}

void Layer::expect_module() const { detail::expect_given(module_, "Layer", "the pointer is null"); }

Layer Layer::copied(detail::Cloning& into) const {
  Layer out = *this;
  out.module_ = into.one(module_, copy_);
  return out;
}

Sequential::Sequential(const Sequential& other)
    : Module(other), layers_(other.layers_), paths_(other.paths_), input_(other.input_), last_(other.last_) {
  if (detail::Cloning* into = detail::Cloning::now())
    for (Layer& layer : layers_) layer = layer.copied(*into);
}

Sequential::Sequential(std::initializer_list<Layer> layers) : Sequential(std::vector<Layer>(layers)) {}
Sequential::Sequential(const std::vector<Layer>& layers) {
  for (const Layer& layer : layers) add(layer);
}
Sequential::Sequential(const Shape& sample, std::initializer_list<Layer> layers)
    : Sequential(sample, std::vector<Layer>(layers)) {}
Sequential::Sequential(const Shape& sample, const std::vector<Layer>& layers) : input_(sample) {
  // The shapes are all that is asked for; but a function may need a sample, and what is read from a file cannot have
  // one.
  last_ = zeros(sample.inserted(0, detail::FromFile::now() ? 0 : 1));
  for (const Layer& layer : layers) add(layer);
}

void Sequential::add(Layer layer) {
  layer.expect_module();  // it may have been moved from
  if (layer->name().empty()) {
    const std::string kind = detail::snake_case(keras_class(layer->type()));
    const auto alike = std::ranges::count_if(layers_, [&](const Layer& l) { return l->type() == layer->type(); });
    layer->set_name(alike ? fmt::format("{}_{}", kind, alike) : kind);
  }
  paths_.push_back(fmt::format("layers.{}", layers_.size()));
  if (std::ranges::none_of(layers_, [&](const Layer& l) { return &*l == &*layer; }))
    detail::ModuleAccess::set_step(*layer, paths_.back());
  if (input_) {
    const NoGrad quiet;
    if (last_.size(0) == 0 && !detail::FromFile::now()) last_ = forward(zeros(input_->inserted(0, 1)));
    last_ = (*layer)(last_);
  }
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
