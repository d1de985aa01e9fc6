// Helpers of the layers' tests.
#pragma once
#include <doctest/doctest.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/graph/mode.h>
#include <ebb/models/layers/module.h>
#include <ebb/ops/random.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <vector>

namespace ebb::testing {

/// Different values, none within 0.01 of another or of 0, so that no kink or tie is near.
inline Tensor distinct(const Shape& shape, unsigned seed) {
  std::vector<double> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = 0.02 * (static_cast<double>(i) - static_cast<double>(v.size()) / 2) + 0.01;
  std::mt19937 random(seed);
  std::shuffle(v.begin(), v.end(), random);
  return Tensor::from(v, shape);
}

/// gradcheck of a layer in its input and its parameters, all in float64.
template <class L>
GradcheckReport check_layer(L layer, const Tensor& x, GradcheckOptions options = {}) {
  const bool on = training();
  manual_seed(3);
  layer(x);  // makes the parameters, in float64
  std::vector<Tensor> inputs{x};
  for (const NamedTensor& t : named_tensors(layer))
    if (t.trained) inputs.push_back(t.tensor->detach());
  return gradcheck(
      [layer, on](std::span<const Tensor> in) mutable {
        std::size_t i = 0;
        for (const NamedTensor& t : named_tensors(layer))
          if (t.trained)
            *t.tensor = in[++i].tracked() ? in[i] : variable(in[i]);  // a constant would be a frozen parameter
        const Training same(on);
        manual_seed(4);  // what is random must be the same every time
        return layer(in[0]);
      },
      inputs, options);
}

/// Largest difference of two elements.
inline double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto p = a.to_vector(), q = b.to_vector();
  double most = 0;
  for (std::size_t i = 0; i < p.size(); ++i) most = std::max(most, std::abs(p[i] - q[i]));
  return most;
}

}  // namespace ebb::testing
