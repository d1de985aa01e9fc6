// Counts, one-hot labels and weights of classes, against pandas, Keras and scikit-learn 1.2.1.
#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <vector>

using namespace ebb;

namespace {
using Values = std::vector<double>;
Values flat(const std::vector<ValueCount>& counts) {
  Values out;
  for (const ValueCount& c : counts)
    out.insert(out.end(), {static_cast<double>(c.value), static_cast<double>(c.count), c.share});
  return out;
}
}  // namespace

TEST_CASE("preprocess: value counts, most frequent first, ties in the order seen") {
  CHECK(flat(value_counts(tensor({3, 1, 0, 1, 3, 7, 1, 0}, u8))) ==
        Values{1, 3, .375, 3, 2, .25, 0, 2, .25, 7, 1, .125});
  CHECK(value_counts(tensor({5.0, 5.0}, f64))[0].count == 2);
  CHECK(value_counts(zeros({0}, i64)).empty());
  CHECK_THROWS_WITH_AS(value_counts(tensor({0.5})),
                       "value_counts: label 0.5 of sample 0 is no class: expected whole numbers from 0", ValueError);
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
  CHECK_THROWS_WITH_AS(to_categorical(tensor({0, 3}, i64), 3),
                       "to_categorical: label 3 of sample 1 is out of range for 3 classes", ValueError);
  CHECK_THROWS_WITH_AS(to_categorical(tensor({0}, i64), -1), "to_categorical: classes must not be negative, got -1",
                       ValueError);
  CHECK_THROWS_AS(to_categorical(Tensor()), ValueError);
}

TEST_CASE("preprocess: balanced weights") {
  CHECK(balanced_weights(tensor({0, 0, 0, 1, 2, 2}, i64), 3) == Values{2 / 3.0, 2, 1});  // compute_class_weight
  CHECK(balanced_weights(tensor({0, 2}, i64), 3) == Values{1 / 1.5, 0, 1 / 1.5});
  CHECK_THROWS_WITH_AS(balanced_weights(tensor({4}, i64), 3),
                       "balanced_weights: label 4 of sample 0 is out of range for 3 classes", ValueError);
  CHECK_THROWS_AS(balanced_weights(tensor({0}, i64), 0), ValueError);
}
