// Confusion matrices, reports and curves against scikit-learn 1.2.1: the numbers below are what its functions of these
// names give for the same labels and scores.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/report/metrics.h>
#include <ebb/ops/ops.h>

#include <limits>
#include <numeric>
#include <vector>

namespace {

using namespace ebb;
using Values = std::vector<double>;

Tensor classes(const std::vector<std::int64_t>& v) { return Tensor::from(v, {static_cast<std::int64_t>(v.size())}); }
Tensor doubles(const Values& v) { return Tensor::from(v, {static_cast<std::int64_t>(v.size())}); }

void check_close(const Values& got, const Values& wanted) {
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(1e-14));
}
double total(const Values& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

/// 200 samples of ten classes: label (29 i mod 53) mod 10, score of class c ((37 i + 101 c) mod 97 + 40 [c is the
/// label]) / 136.
struct Sample {
  Tensor labels, scores, probabilities;  // the last: each row over its sum
  Sample() {
    std::vector<std::int64_t> y;
    Values s, p;
    for (int i = 0; i < 200; ++i) {
      y.push_back(i * 29 % 53 % 10);
      const auto whole = [&](int c) { return (37 * i + 101 * c) % 97 + (c == y.back() ? 40 : 0); };
      double row = 0;
      for (int c = 0; c < 10; ++c) row += whole(c);
      for (int c = 0; c < 10; ++c) s.push_back(whole(c) / 136.0), p.push_back(whole(c) / row);
    }
    labels = classes(y);
    scores = Tensor::from(s, {200, 10});
    probabilities = Tensor::from(p, {200, 10});
  }
};

const Tensor few = classes({0, 0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1});  // with ties between positives and negatives
const Tensor few_scores = doubles({.1, .4, .35, .8, .8, .8, .4, .2, .9, .9, .1, .05});

}  // namespace

TEST_CASE("metrics: confusion matrix") {
  const Sample s;
  const Tensor m = confusion_matrix(s.labels, argmax(s.scores));
  CHECK(m.dtype() == i64);
  CHECK(m.shape() == Shape{10, 10});
  CHECK(m.to_vector() == Values{24, 0, 0,  0, 0, 0,  0, 0, 0,  0, 1, 23, 0, 0,  0, 0, 0,  0, 0, 0,  1, 2, 20, 0, 0,
                                0,  0, 0,  0, 0, 0,  0, 1, 16, 0, 0, 0,  0, 0,  0, 0, 0,  1, 1, 15, 0, 0, 0,  0, 0,
                                2,  1, 0,  1, 1, 15, 0, 0, 0,  0, 2, 1,  0, 0,  0, 1, 16, 0, 0, 0,  0, 1, 2,  1, 1,
                                0,  1, 14, 0, 0, 0,  1, 2, 1,  0, 1, 0,  1, 11, 0, 1, 0,  1, 1, 1,  1, 0, 0,  1, 12});
  CHECK(confusion_matrix(tensor({0, 2}, u8), tensor({1, 2}, u8)).to_vector() == Values{0, 1, 0, 0, 0, 0, 0, 0, 1});
  CHECK(confusion_matrix(tensor({0.0, 1.0}), tensor({1.0, 1.0}), 3).shape() == Shape{3, 3});
  CHECK(confusion_matrix(classes({}), classes({}), 2).to_vector() == Values{0, 0, 0, 0});

  CHECK_THROWS_WITH_AS(confusion_matrix(classes({0, 1}), classes({0})), "confusion_matrix: 2 labels, but 1 predictions",
                       ShapeError);
  CHECK_THROWS_WITH_AS(confusion_matrix(classes({0, 3}), classes({0, 1}), 3),
                       "confusion_matrix: label 3 of sample 1 is out of range for 3 classes", ValueError);
  CHECK_THROWS_WITH_AS(confusion_matrix(classes({0, -1}), classes({0, 1})),
                       "confusion_matrix: label -1 of sample 1 is no class: expected whole numbers from 0", ValueError);
  CHECK_THROWS_WITH_AS(confusion_matrix(zeros({2, 10}), classes({0, 1})),
                       "confusion_matrix: labels must be classes (n), got float32 (2, 10)", ShapeError);
  CHECK_THROWS_WITH_AS(confusion_matrix(classes({0}), Tensor()), "confusion_matrix: there are no labels", ValueError);
}

TEST_CASE("metrics: classification report, in numbers and as text") {
  const Sample s;
  const ClassificationReport r = classification_report(confusion_matrix(s.labels, argmax(s.scores)));
  const auto numbers = [](const ClassScore& c) {
    return Values{c.precision, c.recall, c.f1, static_cast<double>(c.support)};
  };
  check_close(numbers(r.classes[0]), {0.7741935483870968, 1, 0.8727272727272727, 24});
  check_close(numbers(r.classes[4]), {0.8333333333333334, 0.8823529411764706, 0.8571428571428571, 17});
  check_close(numbers(r.macro), {0.8527785636563363, 0.8215153452685422, 0.8252859160060474, 200});
  check_close(numbers(r.weighted), {0.8475570432721353, 0.83, 0.8272309198772919, 200});
  CHECK(r.accuracy == doctest::Approx(0.83).epsilon(1e-14));
  CHECK(r.text() == R"(              precision    recall  f1-score   support

           0       0.77      1.00      0.87        24
           1       0.79      0.96      0.87        24
           2       0.74      0.87      0.80        23
           3       0.76      0.94      0.84        17
           4       0.83      0.88      0.86        17
           5       0.83      0.75      0.79        20
           6       0.94      0.80      0.86        20
           7       0.93      0.70      0.80        20
           8       0.92      0.65      0.76        17
           9       1.00      0.67      0.80        18

    accuracy                           0.83       200
   macro avg       0.85      0.82      0.83       200
weighted avg       0.85      0.83      0.83       200
)");

  // A class that is never there and never predicted, and one that is never predicted, with zero_division=0
  const ClassificationReport gaps =
      classification_report(confusion_matrix(classes({0, 0, 1, 1, 3}), classes({0, 1, 1, 1, 0})));
  check_close(numbers(gaps.classes[2]), {0, 0, 0, 0});
  check_close(numbers(gaps.classes[3]), {0, 0, 0, 1});
  check_close(numbers(gaps.macro), {0.29166666666666663, 0.375, 0.325, 5});
  check_close(numbers(gaps.weighted), {0.4666666666666666, 0.6, 0.52, 5});
  const std::string text = gaps.text({"shirt", "a rather long name", "bag", "boot"});
  CHECK(text.find("\na rather long name       0.67      1.00      0.80         2\n") != std::string::npos);
  CHECK_THROWS_WITH_AS(gaps.text({"shirt"}), "classification_report: 1 names for 4 classes", ValueError);
  CHECK_THROWS_WITH_AS(classification_report(zeros({2, 3}, i64)),
                       "classification_report: expected a confusion matrix (classes, classes), got int64 (2, 3)",
                       ShapeError);
  CHECK_THROWS_AS(classification_report(zeros({2, 2})), DTypeError);
}

TEST_CASE("metrics: ROC curve, with ties") {
  const RocCurve r = roc_curve(few, few_scores);
  check_close(r.fpr, {0, 0, 0.2, 0.4, 0.4, 0.6, 1, 1});
  check_close(r.tpr, {0, 0.2857142857142857, 0.5714285714285714, 0.7142857142857143, 0.8571428571428571,
                      0.8571428571428571, 0.8571428571428571, 1});
  check_close(r.thresholds, {1.9, .9, .8, .4, .35, .2, .1, .05});
  CHECK(auc(r) == doctest::Approx(0.7285714285714285).epsilon(1e-14));

  const Sample s;  // points between others are left out
  const RocCurve big = roc_curve(s.labels, s.scores, 3);
  CHECK(big.fpr.size() == 44);
  check_close({total(big.fpr), total(big.tpr), total(big.thresholds)},
              {18.437158469945356, 33.529411764705884, 19.65441176470588});

  CHECK_THROWS_WITH_AS(roc_curve(classes({0, 0}), doubles({1, 2})),
                       "roc_curve: no sample is of class 1: its rates are not defined", ValueError);
  CHECK_THROWS_WITH_AS(roc_curve(classes({1, 1}), doubles({1, 2})),
                       "roc_curve: every sample is of class 1: the false positive rate is not defined", ValueError);
  CHECK_THROWS_WITH_AS(roc_curve(classes({}), doubles({})),
                       "roc_curve: no sample is of class 1: its rates are not defined", ValueError);
  CHECK_THROWS_WITH_AS(roc_curve(few, doubles({1, 2})), "roc_curve: 12 labels, but 2 scores", ShapeError);
  CHECK_THROWS_WITH_AS(roc_curve(few, scalar(1)), "roc_curve: scores must be (n) or (n, classes), got float32 ()",
                       ShapeError);
  CHECK_THROWS_WITH_AS(roc_curve(s.labels, s.scores, 10), "roc_curve: there is no class 10 in scores of 10 classes",
                       ValueError);
  CHECK_THROWS_WITH_AS(roc_curve(classes({0, 7}), zeros({2, 3}), 0), "roc_curve: label 7 is out of range for 3 classes",
                       ValueError);
  CHECK_THROWS_WITH_AS(roc_curve(classes({0, 1}), doubles({1, std::numeric_limits<double>::quiet_NaN()})),
                       "roc_curve: score 1 is not a number", ValueError);
}

TEST_CASE("metrics: precision-recall curve and average precision") {
  const PrecisionRecallCurve p = precision_recall_curve(few, few_scores);
  check_close(p.precision,
              {0.5833333333333334, 0.5454545454545454, 0.6666666666666666, 0.75, 0.7142857142857143, 0.8, 1, 1});
  check_close(p.recall, {1, 0.8571428571428571, 0.8571428571428571, 0.8571428571428571, 0.7142857142857143,
                         0.5714285714285714, 0.2857142857142857, 0});
  check_close(p.thresholds, {.05, .1, .2, .35, .4, .8, .9});
  CHECK(average_precision(p) == doctest::Approx(0.8068027210884353).epsilon(1e-14));
  const Sample s;
  const PrecisionRecallCurve big = precision_recall_curve(s.labels, s.scores, 3);
  CHECK(big.precision.size() == 106);
  check_close({total(big.precision), total(big.recall), total(big.thresholds)},
              {27.160065815284245, 83.52941176470588, 41.205882352941174});

  const PrecisionRecallCurve all = precision_recall_curve(classes({1, 1, 1}), doubles({.2, .5, .5}));  // no negatives
  check_close(all.precision, {1, 1, 1});
  check_close(all.recall, {1, 0.6666666666666666, 0});
  CHECK_THROWS_WITH_AS(precision_recall_curve(classes({0}), doubles({1})),
                       "precision_recall_curve: no sample is of class 1: its rates are not defined", ValueError);
}

TEST_CASE("metrics: areas of each class, their mean, any area") {
  const Sample s;
  Values areas, averages;
  for (int c = 0; c < 10; ++c) {
    areas.push_back(auc(roc_curve(s.labels, s.scores, c)));
    averages.push_back(average_precision(precision_recall_curve(s.labels, s.scores, c)));
  }
  check_close(areas,
              {0.7859848484848485, 0.8575994318181818, 0.786538933922869, 0.8413693346190936, 0.819672131147541,
               0.8288888888888889, 0.8548611111111111, 0.8452777777777777, 0.8232079717132755, 0.8470695970695971});
  check_close(averages,
              {0.5307106368170755, 0.6193161814818637, 0.5047964443971045, 0.5844959758709911, 0.5004848860290998,
               0.5645014777053896, 0.6010306848006708, 0.6078133934431473, 0.5713586728221285, 0.5771030700378527});
  CHECK(macro_auc(s.labels, s.scores) == doctest::Approx(0.8290470026553184).epsilon(1e-14));
  // roc_auc_score(multi_class="ovr"), which takes probabilities
  CHECK(macro_auc(s.labels, s.probabilities) == doctest::Approx(0.9018106734046164).epsilon(1e-14));
  CHECK(auc({0, .5, 1}, {0, .8, 1}) == doctest::Approx(0.65));
  CHECK(auc({1, .5, 0}, {1, .8, 0}) == doctest::Approx(0.65));
  CHECK_THROWS_WITH_AS(auc({0, 1, .5}, {0, 1, 1}), "auc: x neither rises nor falls", ValueError);
  CHECK_THROWS_WITH_AS(auc({0}, {0}), "auc: expected at least two points, got 1 and 1 numbers", ValueError);
  CHECK_THROWS_WITH_AS(macro_auc(classes({0, 1}), zeros({2, 3})),
                       "roc_curve: no sample is of class 2: its rates are not defined", ValueError);
  CHECK_THROWS_WITH_AS(macro_auc(classes({0, 1}), zeros({2})),
                       "macro_auc: scores must be (n, classes), got float32 (2,)", ShapeError);
}

TEST_CASE("metrics: top-k accuracy") {
  const Sample s;
  for (const auto& [k, share] : {std::pair{1, 0.83}, {2, 0.865}, {3, 0.895}, {5, 0.955}, {10, 1.0}})
    CHECK(top_k_accuracy(s.labels, s.scores, k) == doctest::Approx(share).epsilon(1e-14));
  // Of equal scores the lower class is first, as in argmax
  const Tensor level = zeros({3, 3});
  CHECK(top_k_accuracy(classes({0, 1, 2}), level, 1) == doctest::Approx(1 / 3.0));
  CHECK(top_k_accuracy(classes({0, 0, 0}), level, 1) == 1);
  CHECK(top_k_accuracy(classes({2, 2, 2}), level, 2) == 0);
  CHECK_THROWS_WITH_AS(top_k_accuracy(s.labels, s.scores, 11), "top_k_accuracy: k must be 1 to 10, got 11", ValueError);
  CHECK_THROWS_WITH_AS(top_k_accuracy(s.labels, s.scores, 0), "top_k_accuracy: k must be 1 to 10, got 0", ValueError);
  CHECK_THROWS_WITH_AS(top_k_accuracy(classes({0}), level, 1), "top_k_accuracy: 1 labels, but 3 rows of scores",
                       ShapeError);
}
