#include <ebb/models/report/metrics.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include <ebb/graph/error.h>
#include <ebb/models/data/preprocess.h>

namespace ebb {
namespace {

using Indices = std::vector<std::int64_t>;
using Values = std::vector<double>;

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

void expect_as_many(std::string_view op, std::size_t labels, std::int64_t others, std::string_view name) {
  if (static_cast<std::int64_t>(labels) != others)
    throw ShapeError(fmt::format("{}: {} labels, but {} {}", op, labels, others, name));
}

Values checked_scores(std::string_view op, const Tensor& scores) {
  Values out = scores.to_vector();
  for (std::size_t i = 0; i < out.size(); ++i)
    if (std::isnan(out[i])) throw ValueError(fmt::format("{}: score {} is not a number", op, i));
  return out;
}

/// Rows (n, classes) for labels below `classes`.
Values score_rows(std::string_view op, const Indices& labels, const Tensor& scores) {
  if (!scores.defined() || scores.rank() != 2)
    throw ShapeError(
        fmt::format("{}: scores must be (n, classes), got {}", op, scores.defined() ? describe(scores) : "none"));
  expect_as_many(op, labels.size(), scores.size(0), "rows of scores");
  for (const std::int64_t label : labels)
    if (label >= scores.size(1))
      throw ValueError(fmt::format("{}: label {} is out of range for {} classes", op, label, scores.size(1)));
  return checked_scores(op, scores);
}

/// For each different score, falling: how many negatives and positives have at least that.
struct Counts {
  Values thresholds, negatives, positives;
};

Counts count_by_score(std::string_view op, const Tensor& labels, const Tensor& scores, std::int64_t positive) {
  const Indices classes = detail::class_numbers(labels, op);
  if (scores.defined() && scores.rank() == 2) {
    if (positive < 0 || positive >= scores.size(1))
      throw ValueError(fmt::format("{}: there is no class {} in scores of {} classes", op, positive, scores.size(1)));
  } else if (!scores.defined() || scores.rank() != 1) {
    throw ShapeError(fmt::format("{}: scores must be (n) or (n, classes), got {}", op,
                                 scores.defined() ? describe(scores) : "none"));
  }
  const std::size_t step = scores.rank() == 2 ? static_cast<std::size_t>(scores.size(1)) : 1;
  const Values all = scores.rank() == 2 ? score_rows(op, classes, scores) : checked_scores(op, scores);
  expect_as_many(op, classes.size(), scores.size(0), "scores");
  const auto score = [&](std::size_t i) { return all[i * step + (step > 1 ? static_cast<std::size_t>(positive) : 0)]; };
  std::vector<std::size_t> order(classes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, std::greater<>(), score);
  Counts out;
  double negatives = 0, positives = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    ++(classes[order[i]] == positive ? positives : negatives);
    if (i + 1 < order.size() && score(order[i + 1]) == score(order[i])) continue;
    out.thresholds.push_back(score(order[i]));
    out.negatives.push_back(negatives);
    out.positives.push_back(positives);
  }
  if (positives == 0)
    throw ValueError(fmt::format("{}: no sample is of class {}: its rates are not defined", op, positive));
  return out;
}

void divide(Values& values, double by) {
  for (double& v : values) v /= by;
}

}  // namespace

Tensor confusion_matrix(const Tensor& labels, const Tensor& predicted, std::int64_t classes) {
  constexpr std::string_view op = "confusion_matrix";
  detail::expect(classes >= 0, op, "classes must not be negative", static_cast<double>(classes));
  const Indices rows = detail::class_numbers(labels, op, classes),
                columns = detail::class_numbers(predicted, op, classes);
  expect_as_many(op, rows.size(), static_cast<std::int64_t>(columns.size()), "predictions");
  if (classes == 0)
    for (const Indices& all : {rows, columns})
      for (const std::int64_t c : all) classes = std::max(classes, c + 1);
  Tensor out = zeros({classes, classes}, i64);
  const auto counts = out.mutable_values<std::int64_t>();
  for (std::size_t i = 0; i < rows.size(); ++i) ++counts[static_cast<std::size_t>(rows[i] * classes + columns[i])];
  return out;
}

ClassificationReport classification_report(const Tensor& confusion) {
  if (!confusion.defined() || confusion.rank() != 2 || confusion.size(0) != confusion.size(1))
    throw ShapeError(fmt::format("classification_report: expected a confusion matrix (classes, classes), got {}",
                                 confusion.defined() ? describe(confusion) : "none"));
  const auto counts = confusion.values<std::int64_t>();
  const auto n = static_cast<std::size_t>(confusion.size(0));
  ClassificationReport out;
  double right = 0;
  std::int64_t total = 0;
  for (std::size_t c = 0; c < n; ++c) {
    std::int64_t actual = 0, predicted = 0;
    for (std::size_t j = 0; j < n; ++j) actual += counts[c * n + j], predicted += counts[j * n + c];
    const auto hit = static_cast<double>(counts[c * n + c]);
    out.classes.push_back({ratio(hit, static_cast<double>(predicted)), ratio(hit, static_cast<double>(actual)),
                           ratio(2 * hit, static_cast<double>(actual + predicted)), actual});
    right += hit;
    total += actual;
  }
  out.accuracy = ratio(right, static_cast<double>(total));
  out.macro.support = out.weighted.support = total;
  const auto add = [](ClassScore& sum, const ClassScore& s, double weight) {
    sum.precision += weight * s.precision;
    sum.recall += weight * s.recall;
    sum.f1 += weight * s.f1;
  };
  for (const ClassScore& s : out.classes) {
    add(out.macro, s, 1 / static_cast<double>(n));
    add(out.weighted, s, ratio(static_cast<double>(s.support), static_cast<double>(total)));
  }
  return out;
}

std::string ClassificationReport::text(const std::vector<std::string>& names) const {
  if (!names.empty() && names.size() != classes.size())
    throw ValueError(fmt::format("classification_report: {} names for {} classes", names.size(), classes.size()));
  std::size_t width = std::string_view("weighted avg").size();
  for (const std::string& name : names) width = std::max(width, name.size());
  const auto row = [&](std::string_view name, const ClassScore& s) {
    return fmt::format("{:>{}}  {:>9.2f} {:>9.2f} {:>9.2f} {:>9}\n", name, width, s.precision, s.recall, s.f1,
                       s.support);
  };
  std::string out =
      fmt::format("{:>{}}  {:>9} {:>9} {:>9} {:>9}\n\n", "", width, "precision", "recall", "f1-score", "support");
  for (std::size_t c = 0; c < classes.size(); ++c)
    out += row(names.empty() ? fmt::format("{}", c) : names[c], classes[c]);
  out += fmt::format("\n{:>{}}  {:>9} {:>9} {:>9.2f} {:>9}\n", "accuracy", width, "", "", accuracy, macro.support);
  return out + row("macro avg", macro) + row("weighted avg", weighted);
}

RocCurve roc_curve(const Tensor& labels, const Tensor& scores, std::int64_t positive) {
  const Counts c = count_by_score("roc_curve", labels, scores, positive);
  const std::size_t n = c.thresholds.size();
  if (c.negatives.back() == 0)
    throw ValueError(
        fmt::format("roc_curve: every sample is of class {}: the false positive rate is not defined", positive));
  RocCurve out{{0}, {0}, {c.thresholds[0] + 1}};
  const auto bends = [](const Values& v, std::size_t i) { return v[i + 1] - v[i] != v[i] - v[i - 1]; };
  for (std::size_t i = 0; i < n; ++i) {
    if (i > 0 && i + 1 < n && !bends(c.negatives, i) && !bends(c.positives, i)) continue;
    out.fpr.push_back(c.negatives[i]);
    out.tpr.push_back(c.positives[i]);
    out.thresholds.push_back(c.thresholds[i]);
  }
  divide(out.fpr, c.negatives.back());
  divide(out.tpr, c.positives.back());
  return out;
}

PrecisionRecallCurve precision_recall_curve(const Tensor& labels, const Tensor& scores, std::int64_t positive) {
  const Counts c = count_by_score("precision_recall_curve", labels, scores, positive);
  PrecisionRecallCurve out;
  for (std::size_t i = c.thresholds.size(); i-- > 0;) {
    out.precision.push_back(c.positives[i] / (c.positives[i] + c.negatives[i]));
    out.recall.push_back(c.positives[i] / c.positives.back());
    out.thresholds.push_back(c.thresholds[i]);
  }
  out.precision.push_back(1);
  out.recall.push_back(0);
  return out;
}

double auc(const std::vector<double>& x, const std::vector<double>& y) {
  if (x.size() < 2 || x.size() != y.size())
    throw ValueError(fmt::format("auc: expected at least two points, got {} and {} numbers", x.size(), y.size()));
  const bool rises = std::ranges::is_sorted(x);
  if (!rises && !std::ranges::is_sorted(x, std::greater<>())) throw ValueError("auc: x neither rises nor falls");
  double area = 0;
  for (std::size_t i = 1; i < x.size(); ++i) area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2;
  return rises ? area : -area;
}

double auc(const RocCurve& curve) { return auc(curve.fpr, curve.tpr); }

double average_precision(const PrecisionRecallCurve& curve) {
  double area = 0;
  for (std::size_t i = 1; i < curve.recall.size(); ++i)
    area += (curve.recall[i - 1] - curve.recall[i]) * curve.precision[i - 1];
  return area;
}

double macro_auc(const Tensor& labels, const Tensor& scores) {
  score_rows("macro_auc", detail::class_numbers(labels, "macro_auc"), scores);
  double sum = 0;
  for (std::int64_t c = 0; c < scores.size(1); ++c) sum += auc(roc_curve(labels, scores, c));
  return sum / static_cast<double>(scores.size(1));
}

double top_k_accuracy(const Tensor& labels, const Tensor& scores, std::int64_t k) {
  constexpr std::string_view op = "top_k_accuracy";
  const Indices classes = detail::class_numbers(labels, op);
  const Values all = score_rows(op, classes, scores);
  const auto width = static_cast<std::size_t>(scores.size(1));
  if (k < 1 || k > scores.size(1)) throw ValueError(fmt::format("{}: k must be 1 to {}, got {}", op, width, k));
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const double* row = all.data() + i * width;
    const auto label = static_cast<std::size_t>(classes[i]);
    std::int64_t ahead = 0;
    for (std::size_t j = 0; j < width; ++j) ahead += row[j] > row[label] || (row[j] == row[label] && j < label);
    hits += ahead < k;
  }
  return ratio(static_cast<double>(hits), static_cast<double>(classes.size()));
}

}  // namespace ebb
