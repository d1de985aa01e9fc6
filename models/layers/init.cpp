#include <ebb/models/layers/init.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/from_file.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

struct Fans {
  double in, out;
};

Fans fans_of(const Shape& s) {
  if (s.rank() < 2) return {static_cast<double>(s.numel()), static_cast<double>(s.numel())};
  const std::int64_t in = s.at(-2), out = s.at(-1);
  const double field = in && out ? static_cast<double>(s.numel() / (in * out)) : 1;
  return {field * static_cast<double>(in), field * static_cast<double>(out)};
}

Tensor uniform_of_variance(const Shape& shape, double variance, DType dtype) {
  const double limit = std::sqrt(3 * variance);
  return uniform(shape, -limit, limit, dtype);
}

/// Draws beyond two deviations are drawn again; the scale makes up for the variance that this takes away.
Tensor truncated_normal(const Shape& shape, double variance, DType dtype) {
  const double stddev = std::sqrt(variance) / 0.87962566103423978;  // deviation of a normal cut off at +-2
  Tensor out = normal(shape, 0, 1, dtype);
  visit_float(dtype, [&]<class T>(T) {
    for (T& v : out.mutable_values<T>()) {
      while (std::abs(v) > 2) v = static_cast<T>(normal({}, 0, 1, f64).item());
      v *= static_cast<T>(stddev);
    }
  });
  return out;
}

}  // namespace

Tensor zeros_init(const Shape& shape, DType dtype) { return zeros(shape, dtype); }
Tensor ones_init(const Shape& shape, DType dtype) { return ones(shape, dtype); }

Tensor glorot_uniform(const Shape& shape, DType dtype) {
  const Fans f = fans_of(shape);
  return uniform_of_variance(shape, 2 / (f.in + f.out), dtype);
}
Tensor glorot_normal(const Shape& shape, DType dtype) {
  const Fans f = fans_of(shape);
  return truncated_normal(shape, 2 / (f.in + f.out), dtype);
}
Tensor he_uniform(const Shape& shape, DType dtype) { return uniform_of_variance(shape, 2 / fans_of(shape).in, dtype); }
Tensor he_normal(const Shape& shape, DType dtype) { return truncated_normal(shape, 2 / fans_of(shape).in, dtype); }
Tensor lecun_uniform(const Shape& shape, DType dtype) {
  return uniform_of_variance(shape, 1 / fans_of(shape).in, dtype);
}
Tensor lecun_normal(const Shape& shape, DType dtype) { return truncated_normal(shape, 1 / fans_of(shape).in, dtype); }

Tensor orthogonal(const Shape& shape, DType dtype) {
  if (shape.rank() < 2) throw ShapeError(fmt::format("orthogonal: needs at least 2 axes, got {}", shape.str()));
  if (!is_float(dtype)) throw DTypeError(fmt::format("orthogonal: needs float32 or float64, got {}", name_of(dtype)));
  const std::int64_t rows = shape.numel() / std::max<std::int64_t>(1, shape.at(-1)), columns = shape.at(-1);
  const std::int64_t count = std::min(rows, columns), length = std::max(rows, columns);
  Tensor drawn = normal({count, length}, 0, 1, f64);
  double* q = drawn.mutable_values<double>().data();
  const auto dot = [&](const double* a, const double* b) { return std::inner_product(a, a + length, b, 0.0); };
  for (std::int64_t i = 0; i < count; ++i) {
    double* v = q + i * length;
    for (int again = 0; again < 2;
         ++again)  // Gram-Schmidt, twice: once leaves errors that grow with the condition number
      for (const double* u = q; u < v; u += length) {
        const double share = dot(u, v);
        for (std::int64_t k = 0; k < length; ++k) v[k] -= share * u[k];
      }
    const double size = std::sqrt(dot(v, v));
    for (std::int64_t k = 0; k < length; ++k) v[k] /= size;
  }
  return reshape(cast(rows < columns ? drawn : transpose(drawn), dtype), shape);
}

void detail::expect_initializers(std::string_view layer, Initializer weight_init, Initializer bias_init) {
  expect_given(weight_init, layer, "weight_init is null");
  expect_given(bias_init, layer, "bias_init is null");
}

Tensor make_parameter(Initializer init, const Shape& shape, const Tensor& like, std::string_view name) {
  const std::string_view scope = current_scope();
  detail::expect_given(init, "make_parameter", "the initializer is null");
  if (detail::FromFile::now()) init = zeros_init;
  detail::FromFile::take(shape);
  return variable(init(shape, like.dtype()), scope.empty() ? std::string(name) : fmt::format("{}.{}", scope, name));
}

namespace {

thread_local std::int64_t elements_left = -1;  // below 0: nobody counts

}  // namespace

detail::FromFile::FromFile(std::int64_t elements) { elements_left = elements; }
detail::FromFile::~FromFile() { elements_left = -1; }
bool detail::FromFile::now() { return elements_left >= 0; }

void detail::FromFile::take(const Shape& shape) {
  if (!now()) return;
  if (shape.numel() > elements_left)
    fail<ShapeError>(
        "build", fmt::format("a tensor {} more is needed, the file has {} elements left", shape.str(), elements_left));
  elements_left -= shape.numel();
}

}  // namespace ebb
