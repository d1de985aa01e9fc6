// Internal: what fit() and evaluate() measure, and how they show it.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include <ebb/models/train/fit.h>
#include <ebb/models/train/history.h>
#include <ebb/models/train/progress.h>

namespace ebb::detail {

/// Means over the samples seen so far, a batch at a time.
struct Running : PartialEpoch {
  void add(double batch_loss, const Tensor& outputs, const Tensor& labels);
  Metrics metrics() const;
};

/// Names and numbers, in the order they are shown.
using Shown = std::vector<std::pair<std::string, double>>;
/// "loss" and, where labels are classes, "accuracy", each with the prefix in front.
Shown shown_metrics(const std::string& prefix, const Metrics& m);

/// How the progress of these options looks on stderr.
ProgressOptions progress_of(Verbose verbose, KerasStyle style);

/// The mean over the batch of weight times loss, where each sample has the weight of its class.
Tensor weighted_loss(const Loss& loss, const Tensor& output, const Tensor& labels, const std::vector<double>& of_class);

}  // namespace ebb::detail
