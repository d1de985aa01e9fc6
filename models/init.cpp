#include <ebb/models/init.h>

#include <cmath>

#include <ebb/ops/random.h>

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
  visit_float(dtype, [&](auto zero) {
    using T = decltype(zero);
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

}  // namespace ebb
