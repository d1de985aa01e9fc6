// How good predictions are, class by class: confusion matrix, report, curves and the areas under them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Counts (classes, classes), int64: rows are the true classes, columns the predicted ones. Both arguments are classes
/// (n) as in value_counts; `predicted` may be argmax(scores). Without `classes` there is one more than the largest of
/// both. Throws ShapeError when their numbers differ, ValueError on a class out of range.
Tensor confusion_matrix(const Tensor& labels, const Tensor& predicted, std::int64_t classes = 0);

/// Scores of one class, or a mean of several. A ratio of nothing (never predicted, never there) is 0.
struct ClassScore {
  double precision = 0;      ///< share of what was predicted as the class that is of it
  double recall = 0;         ///< share of the class that was predicted as it
  double f1 = 0;             ///< harmonic mean of both
  std::int64_t support = 0;  ///< samples of the class
};
/// As scikit-learn's classification_report.
struct ClassificationReport {
  std::vector<ClassScore> classes;  ///< by class
  double accuracy = 0;              ///< share of samples that were predicted right; 0 of none
  ClassScore macro;                 ///< mean of the classes
  ClassScore weighted;              ///< mean of the classes weighted by support
  /// The table, in scikit-learn's format; classes are called by these names, or by their numbers. Throws ValueError
  /// when there are names, but not one for each class.
  std::string text(const std::vector<std::string>& names = {}) const;
};
/// From a confusion matrix; throws ShapeError or DTypeError when it is none.
ClassificationReport classification_report(const Tensor& confusion);

/// Receiver operating characteristic of one class against the rest.
struct RocCurve {
  std::vector<double> fpr, tpr;  ///< false and true positive rate, from (0, 0) to (1, 1)
  std::vector<double>
      thresholds;  ///< falling; a point calls positive what scores at least that. The first is the largest + 1
};
/// Scores (n) of the class, or (n, classes), probabilities or logits; a sample is positive when its label is the class.
/// Equal scores make one point, and points on a line between others are left out: scikit-learn 1.2's roc_curve. Throws
/// ShapeError when shapes do not fit, ValueError on a score that is NaN, and when no sample or every sample is of the
/// class: one of the rates is then not defined.
RocCurve roc_curve(const Tensor& labels, const Tensor& scores, std::int64_t positive = 1);

/// Precision against recall of one class against the rest.
struct PrecisionRecallCurve {
  std::vector<double> precision, recall;  ///< recall falls from 1 to 0; the last point is (1, 0), without a threshold
  std::vector<double> thresholds;         ///< rising, one fewer
};
/// As roc_curve(), with one point for each different score: scikit-learn 1.2's precision_recall_curve. Here every
/// sample may be of the class.
PrecisionRecallCurve precision_recall_curve(const Tensor& labels, const Tensor& scores, std::int64_t positive = 1);

/// Area under a curve through these points by the trapezoid rule; x rises or falls. Throws ValueError when it does
/// neither, or when there are fewer than two points or not as many of both.
double auc(const std::vector<double>& x, const std::vector<double>& y);
double auc(const RocCurve& curve);  ///< chance that a positive scores higher than a negative
/// Sum of precision times growth of recall: the area in steps, with no line between points (scikit-learn).
double average_precision(const PrecisionRecallCurve& curve);

/// Mean over the classes of the area under roc_curve(), each against the rest: scikit-learn's
/// roc_auc_score(average="macro", multi_class="ovr"). Scores are (n, classes). Throws as roc_curve, also when a class
/// has no sample.
double macro_auc(const Tensor& labels, const Tensor& scores);

/// Share of rows in scores (n, classes) whose label is among the k largest. Of equal scores the lower class counts as
/// larger, so that k = 1 is the accuracy of argmax. Throws ShapeError when shapes do not fit, ValueError unless 1 <= k
/// <= classes.
double top_k_accuracy(const Tensor& labels, const Tensor& scores, std::int64_t k);

}  // namespace ebb
