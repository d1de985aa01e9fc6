// Charts as SVG files: what was learned over the epochs, confusion matrices, curves; and the panels they are made of.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ebb/graph/tensor.h>
#include <ebb/models/train/history.h>

namespace ebb {

/// One line of a chart. A value that is not finite is a gap.
struct Line {
  std::string name;          ///< in the legend, at most 24 characters of it; empty: not there
  std::vector<double> x, y;  ///< as many of both
  bool dashed = false;       ///< instead of solid
  int color = -1;            ///< one of the ten colors, counted round; -1: the next
};
/// Lines over axes with ticks, and a legend in the corner with the fewest points.
struct LineChart {
  std::string title, x_label, y_label;  ///< may be empty
  std::vector<Line> lines;              ///< drawn in this order
};
/// A matrix in colors, its numbers written in the cells.
struct HeatMap {
  std::string title, x_label, y_label;  ///< may be empty
  Tensor values;                        ///< (rows, columns), of any dtype
  bool diverging = false;               ///< colors from blue over gray to red; else from white to blue
};
/// A part of a figure.
using Panel = std::variant<LineChart, HeatMap>;

/// The panels side by side as an SVG document of this size in pixels. Throws ShapeError on a line with another number
/// of x than of y and on a heat map that is no matrix, ValueError without panels and on a width or height below 100.
std::string svg(std::span<const Panel> panels, double width, double height);

/// Named records of trainings.
using NamedHistories = std::vector<std::pair<std::string, History>>;
/// The panels of plot_history(). Throws ValueError without a history, and on one that has no loss.
std::vector<Panel> history_panels(const NamedHistories& histories);
/// Loss and accuracy by epoch, side by side. Of one training: those of training and validation; of several: those of
/// validation, or where one has none, of training. The file appears complete or not at all; throws IoError.
void plot_history(const NamedHistories& histories, const std::filesystem::path& path);

/// A confusion matrix (confusion_matrix()) in colors, "Actuals" downwards and "Prediction" across.
void plot_confusion(const Tensor& matrix, const std::filesystem::path& path, const std::string& title = {},
                    bool diverging = true);

/// ROC and precision-recall curves side by side, a line for each class that has samples and is not all of them, with
/// the area in its name. Labels and scores as in roc_curve(), scores (n, classes).
void plot_curves(const Tensor& labels, const Tensor& scores, const std::filesystem::path& path);

}  // namespace ebb
