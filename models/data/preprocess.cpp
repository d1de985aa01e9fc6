#include <ebb/models/data/preprocess.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

namespace ebb {

std::vector<std::int64_t> detail::class_numbers(const Tensor& labels, std::string_view op, std::int64_t classes) {
  if (!labels.defined()) throw ValueError(fmt::format("{}: there are no labels", op));
  if (labels.rank() != 1 && !(labels.rank() == 2 && labels.size(1) == 1))
    throw ShapeError(fmt::format("{}: labels must be classes (n), got {}", op, describe(labels)));
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(labels.numel()));
  for (const double v : labels.to_vector()) {
    if (!(v >= 0 && v < 0x1p53 && v == std::floor(v)))
      throw ValueError(
          fmt::format("{}: label {} of sample {} is no class: expected whole numbers from 0", op, v, out.size()));
    if (classes > 0 && v >= static_cast<double>(classes))
      throw ValueError(
          fmt::format("{}: label {} of sample {} is out of range for {} classes", op, v, out.size(), classes));
    out.push_back(static_cast<std::int64_t>(v));
  }
  return out;
}

std::vector<ValueCount> value_counts(const Tensor& labels) {
  const std::vector<std::int64_t> values = detail::class_numbers(labels, "value_counts");
  std::vector<ValueCount> out;
  std::unordered_map<std::int64_t, std::size_t> places;
  for (const std::int64_t v : values) {
    const auto [it, fresh] = places.emplace(v, out.size());
    if (fresh) out.push_back({v, 0, 0});
    ++out[it->second].count;
  }
  for (ValueCount& c : out) c.share = static_cast<double>(c.count) / static_cast<double>(values.size());
  std::ranges::stable_sort(out, std::greater<>(), &ValueCount::count);
  return out;
}

Tensor to_categorical(const Tensor& labels, std::int64_t classes, DType dtype) {
  detail::expect(classes >= 0, "to_categorical", "classes must not be negative", static_cast<double>(classes));
  const std::vector<std::int64_t> values = detail::class_numbers(labels, "to_categorical", classes);
  if (classes == 0) classes = values.empty() ? 0 : *std::ranges::max_element(values) + 1;
  return one_hot(Tensor::from(values, {static_cast<std::int64_t>(values.size())}), classes, dtype);
}

std::vector<double> balanced_weights(const Tensor& labels, std::int64_t classes) {
  if (classes < 1) throw ValueError(fmt::format("balanced_weights: classes must be at least 1, got {}", classes));
  const std::vector<std::int64_t> values = detail::class_numbers(labels, "balanced_weights", classes);
  std::vector<double> out(static_cast<std::size_t>(classes));
  for (const std::int64_t v : values) ++out[static_cast<std::size_t>(v)];
  for (double& w : out) w = w > 0 ? static_cast<double>(values.size()) / (static_cast<double>(classes) * w) : 0;
  return out;
}

}  // namespace ebb
