// Counts, one-hot labels and standardised features, against pandas, Keras and scikit-learn 1.2.1.
#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <limits>
#include <vector>

#include "temp_dir.h"

using namespace ebb;

namespace {
using Values = std::vector<double>;
Values flat(const std::vector<ValueCount>& counts) {
  Values out;
  for (const ValueCount& c : counts) out.insert(out.end(), {static_cast<double>(c.value), static_cast<double>(c.count), c.share});
  return out;
}
}  // namespace

TEST_CASE("preprocess: value counts, most frequent first, ties in the order seen") {
  CHECK(flat(value_counts(tensor({3, 1, 0, 1, 3, 7, 1, 0}, u8))) == Values{1, 3, .375, 3, 2, .25, 0, 2, .25, 7, 1, .125});
  CHECK(value_counts(tensor({5.0, 5.0}, f64))[0].count == 2);
  CHECK(value_counts(zeros({0}, i64)).empty());
  CHECK_THROWS_WITH_AS(value_counts(tensor({0.5})), "value_counts: label 0.5 of sample 0 is no class: expected whole numbers from 0", ValueError);
  CHECK_THROWS_AS(value_counts(zeros({2, 2})), ShapeError);
}

TEST_CASE("preprocess: one-hot rows") {
  const Tensor rows = to_categorical(tensor({2, 0}, u8));
  CHECK(rows.dtype() == f32);
  CHECK(rows.shape() == Shape{2, 3});
  CHECK(rows.to_vector() == Values{0, 0, 1, 1, 0, 0});
  CHECK(same_bits(to_categorical(tensor({2, 0}), 3), rows));  // float labels
  CHECK(same_bits(to_categorical(tensor({2, 0}, {2, 1}, i64), 3), rows));
  CHECK(to_categorical(tensor({5}, i64), 10, f64).to_vector() == Values{0, 0, 0, 0, 0, 1, 0, 0, 0, 0});
  CHECK_THROWS_WITH_AS(to_categorical(tensor({0, 3}, i64), 3), "to_categorical: label 3 of sample 1 is out of range for 3 classes", ValueError);
  CHECK_THROWS_WITH_AS(to_categorical(tensor({0}, i64), -1), "to_categorical: classes must not be negative, got -1", ValueError);
  CHECK_THROWS_AS(to_categorical(Tensor()), ValueError);
}

TEST_CASE("preprocess: balanced weights") {
  CHECK(balanced_weights(tensor({0, 0, 0, 1, 2, 2}, i64), 3) == Values{2 / 3.0, 2, 1});  // compute_class_weight
  CHECK(balanced_weights(tensor({0, 2}, i64), 3) == Values{1 / 1.5, 0, 1 / 1.5});
  CHECK_THROWS_WITH_AS(balanced_weights(tensor({4}, i64), 3), "balanced_weights: label 4 of sample 0 is out of range for 3 classes", ValueError);
  CHECK_THROWS_AS(balanced_weights(tensor({0}, i64), 0), ValueError);
}

TEST_CASE("preprocess: standardised features, fitted to training samples and applied to others") {
  const Tensor train = tensor({1, 5, .1, 200, 2, 5, .1, 10, 4, 5, .1, 0, 7, 5, .1, 255}, {4, 4}, f64);
  Standardize s(train);
  const auto check = [](const Tensor& got, const Values& wanted) {
    const auto values = got.to_vector();
    REQUIRE(values.size() == wanted.size());
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(values[i] == doctest::Approx(wanted[i]).epsilon(1e-12));
  };
  check(s.mean, {3.5, 5, .1, 116.25});
  check(s.scale, {2.29128784747792, 1, 1, 112.99197980387811});
  check(s(train), {-1.091089451179962, 0, 0, 0.7412030495028598, -0.6546536707079772, 0, 0, -0.9403322269812401,
                   0.2182178902359924, 0, 0, -1.0288340836382979, 1.5275252316519468, 0, 0, 1.2279632611166782});
  check(s(tensor({0, 6, .3, 1}, {1, 4}, f64)), {-1.5275252316519468, 1, 0.2, -1.0199838979725921});

  // A data set's factor is as good as multiplying the samples
  Standardize halved;
  halved.fit(train, 0.5);
  check(halved(train * 0.5), s(train).to_vector());

  // Bytes; more rows than one block of them
  const Tensor bytes = cast(arange(3000), u8);
  Standardize b(reshape(bytes, {3000, 1}));
  CHECK(b.mean.dtype() == f32);
  const Tensor z = b(reshape(bytes, {3000, 1}));
  CHECK(mean(z).item() == doctest::Approx(0).epsilon(1e-5));
  CHECK(variance(z).item() == doctest::Approx(1).epsilon(1e-5));

  // A module: the first layer of a network, saved with it
  const TempDir dir;
  const Tensor x = cast(train, f32);
  Sequential net({4}, {Standardize(x), Dense(2)});
  save(net, dir / "net");
  Sequential other({4}, {Standardize(), Dense(2)});
  load(other, dir / "net");
  CHECK(same_bits(other(x), net(x)));
  CHECK(parameter_count(net) == 10);  // mean and scale are not trained
  Standardize untouched;
  CHECK(same_bits(untouched(train), train));

  CHECK_THROWS_WITH_AS(s(zeros({2, 3})), "Standardize: was fitted to samples (4,), got (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(Standardize(zeros({0, 3})), "Standardize: needs samples (n, ...), got float32 (0, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(Standardize(tensor({1, std::numeric_limits<double>::infinity()}, {1, 2})), "Standardize: feature 1 has the value inf", ValueError);
}
