// What is done to labels before training: counting classes, one-hot rows, weights.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// How often a class occurs.
struct ValueCount {
  std::int64_t value, count;  ///< the class and its samples
  double share;               ///< of all samples
};
/// The classes that occur in labels, most frequent first, equally frequent ones in the order they were seen, as pandas'
/// value_counts. Labels are classes (n): int64, uint8, or floats that are whole numbers; others throw as in
/// to_categorical.
std::vector<ValueCount> value_counts(const Tensor& labels);

/// One-hot rows (n, classes) of labels (n) or (n, 1), as Keras' to_categorical; without `classes` there is one more
/// than the largest label. Throws ShapeError on another shape, ValueError on a label that is negative, no whole number
/// or too large.
Tensor to_categorical(const Tensor& labels, std::int64_t classes = 0, DType dtype = DType::f32);

/// What a sample of each class should count so that all classes count alike: n / (classes n_c), and 0 for a class that
/// does not occur (scikit-learn's "balanced"). For FitOptions::class_weight. Throws as to_categorical.
std::vector<double> balanced_weights(const Tensor& labels, std::int64_t classes);

namespace detail {
/// Labels (n) or (n, 1) as class numbers; what is wrong with them is an error that names `op`. With `classes` above 0,
/// labels must be smaller.
std::vector<std::int64_t> class_numbers(const Tensor& labels, std::string_view op, std::int64_t classes = 0);
}  // namespace detail

}  // namespace ebb
