#include "op_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace ebb::testing {

const std::vector<Row>& rows() {
  static const std::vector<Row> all = [] {
    std::vector<Row> out;
    for (auto part : {elementwise_rows(), tensor_rows(), image_rows(), class_rows()})
      for (Row& row : part) out.push_back(std::move(row));
    return out;
  }();
  return all;
}

std::vector<Parity> parity_cases() {
  std::vector<Parity> out;
  const auto elements = [](const Case& c) {
    std::int64_t n = 0;
    for (const Shape& s : c.shapes) n = s.numel() == 0 ? 1000 : n + s.numel();
    return n;
  };
  for (const Row& row : rows()) {
    const std::string name = row.op() == row.name ? row.name : fmt::format("{}/{}", row.name, row.op());
    const bool known = !row.elsewhere.torch.starts_with("none: ");
    const Case* largest = nullptr;
    for (const Case& c : row.cases)
      if (known && !c.f && elements(c) <= 100 && (!largest || elements(c) > elements(*largest))) largest = &c;
    for (const Case& c : row.cases)
      if (&c == largest || !c.torch.empty())
        out.push_back({fmt::format("{}#{}", name, &c - row.cases.data()), row, c,
                       c.torch.empty() ? row.elsewhere.torch : c.torch});
  }
  return out;
}

std::vector<Tensor> inputs_for(const Row& row, const Case& c, std::uint64_t seed) {
  Generator random(seed, std::hash<std::string>{}(row.name));
  std::int64_t total = 0;
  for (const Shape& s : c.shapes) total += s.numel();
  const std::vector<std::int64_t> order = random.permutation(row.domain.distinct ? total : 0);
  const double step = std::min(0.25, 64.0 / static_cast<double>(total + 1));
  std::vector<Tensor> inputs;
  std::size_t next = 0;
  for (const Shape& s : c.shapes) {
    Tensor x = uniform(s, row.domain.low, row.domain.high, f64, random);
    for (double& v : x.mutable_values<double>()) {
      if (row.domain.distinct) v = (static_cast<double>(order[next++] - total / 2) + 0.5) * step;
      else v += v < 0 ? -row.domain.gap : row.domain.gap;
    }
    inputs.push_back(std::move(x));
  }
  return inputs;
}

std::vector<Tensor> cast_all(In inputs, DType dtype) {
  std::vector<Tensor> out;
  for (const Tensor& x : inputs) out.push_back(cast(x, dtype));
  return out;
}

std::vector<Tensor> variables(In inputs) {
  std::vector<Tensor> out;
  for (const Tensor& x : inputs) out.push_back(variable(x));
  return out;
}

double distance(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return std::numeric_limits<double>::infinity();
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  double size = 1, worst = 0;
  for (const double v : y) size = std::max(size, std::abs(v));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = std::abs(x[i] - y[i]);
    worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(worst, d);
  }
  return worst / size;
}

}  // namespace ebb::testing
