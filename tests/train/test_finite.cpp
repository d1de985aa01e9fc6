#include <doctest/doctest.h>

#include <cmath>

#include <ebb/models/layers/layers.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/finite.h>

TEST_CASE("finite: names the first weight or buffer that is no finite number") {
  ebb::Sequential net({4}, {ebb::Dense(3), ebb::BatchNormalization(), ebb::Dense(2)});
  CHECK(ebb::not_finite(net) == "");
  const auto all = ebb::named_tensors(net);
  for (const double bad : {NAN, INFINITY, -INFINITY})
    for (const ebb::NamedTensor& t : all) {
      ebb::Tensor& tensor = *t.tensor;
      const ebb::Tensor before = tensor.clone();
      const auto last = static_cast<std::size_t>(tensor.numel()) - 1;
      tensor.mutable_values<float>()[last] = static_cast<float>(bad);
      CHECK(ebb::not_finite(net) == t.path + (std::isnan(bad) ? " holds nan" : bad > 0 ? " holds inf" : " holds -inf"));
      tensor.assign(before);
    }
  CHECK(ebb::not_finite(net) == "");
}
