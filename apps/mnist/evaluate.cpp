// mnist evaluate: how well a saved network does on the test samples.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ebb/models/data/mnist.h>
#include <ebb/models/data/preprocess.h>
#include <ebb/models/report.h>
#include <ebb/models/train/fit.h>
#include <ebb/ops/ops.h>

#include "command.h"
#include "json_text.h"

namespace mnist {
namespace {

struct DigitAreas {
  std::int64_t digit;
  double roc, precision;  ///< areas under the curves
};
/// Of the digits that occur; nothing when only one does, for then there is no other to tell it from.
std::vector<DigitAreas> areas_of(const ebb::Tensor& labels, const ebb::Tensor& scores) {
  std::vector<DigitAreas> out;
  auto digits = ebb::value_counts(labels);
  std::ranges::sort(digits, {}, &ebb::ValueCount::value);
  if (digits.size() > 1)
    for (const ebb::ValueCount& d : digits)
      out.push_back({d.value, ebb::auc(ebb::roc_curve(labels, scores, d.value)),
                     ebb::average_precision(ebb::precision_recall_curve(labels, scores, d.value))});
  return out;
}
double mean_roc(const std::vector<DigitAreas>& areas) {
  double sum = 0;
  for (const DigitAreas& a : areas) sum += a.roc;
  return sum / static_cast<double>(areas.size());
}

po::options_description evaluate_options() {
  return joined(
      {app::option_group(
           "Details",
           {
               {"report", "precision, recall and F1 of each digit"},
               {"confusion", "how often each digit was taken for which"},
               {"top-k", number<std::int64_t>(1, 10), "share of digits whose label is among the K most probable"},
               {"auc", "areas under the ROC and the precision-recall curve of each digit"},
               {"plot", text(), "draw the confusion matrix to this file (SVG)"},
               {"colors", one_of("diverging", {"diverging", "sequential"}),
                "colors of that drawing: diverging (blue to red) or sequential (white to blue)"},
               {"roc", text(), "draw ROC and precision-recall curves of each digit to this file (SVG)"},
               {"force", "overwrite files that exist"},
           }),
       data_options(), split_options(), json_option()});
}

int run_evaluate(Values& v) {
  const auto colors = v["colors"].as<std::string>();
  const std::int64_t k = v.count("top-k") ? v["top-k"].as<std::int64_t>() : 1;
  split_of(v);
  ebb::SavedModel model = load_file(v);
  refuse_not_finite(model, file_of(v));
  use_split_of(model, file_of(v), v);
  const std::string plot = output_file(v, "plot"), roc = output_file(v, "roc");
  refuse_same_files({{"--plot", plot}, {"--roc", roc}});
  use_threads(v);
  const ebb::Mnist data = split_data(load_data(v), v);
  const ebb::Dataset test = data.test.scaled(scale_of(model, file_of(v)));
  const ebb::Metrics m = ebb::evaluate(model.net, test);
  if (!std::isfinite(m.loss))
    throw std::runtime_error(fmt::format("{}: the loss on these samples is {}", file_of(v), m.loss));
  const ebb::Tensor logits = ebb::predict(model.net, test), probabilities = ebb::softmax(logits);
  const ebb::Tensor confusion = ebb::confusion_matrix(test.labels, ebb::argmax(logits), 10);
  const ebb::ClassificationReport report = ebb::classification_report(confusion);
  std::vector<DigitAreas> areas;
  if (v.count("auc")) areas = areas_of(test.labels, probabilities);
  // The results are told before a drawing can fail.
  const auto draw = [&] {
    app::flush_results();
    if (!plot.empty())
      ebb::plot_confusion(confusion, plot,
                          fmt::format("{} of {} right", ebb::with_commas(ebb::count_correct(logits, test.labels)),
                                      ebb::with_commas(test.size())),
                          colors == "diverging");
    if (!roc.empty()) ebb::plot_curves(test.labels, probabilities, roc);
  };

  if (v.count("json")) {
    nlohmann::ordered_json out{{"test_accuracy", m.accuracy}, {"test_loss", m.loss}, {"dataset", data.name}};
    const auto score = [](const ebb::ClassScore& s) {
      return nlohmann::ordered_json{
          {"precision", s.precision}, {"recall", s.recall}, {"f1", s.f1}, {"support", s.support}};
    };
    if (v.count("top-k")) out["top_k"] = {{"k", k}, {"accuracy", ebb::top_k_accuracy(test.labels, logits, k)}};
    if (v.count("report")) {
      for (const ebb::ClassScore& s : report.classes) out["report"]["classes"].push_back(score(s));
      out["report"]["macro"] = score(report.macro);
      out["report"]["weighted"] = score(report.weighted);
    }
    if (v.count("confusion"))
      for (std::int64_t i = 0; i < 10; ++i) {
        const auto row = confusion.rows(i, i + 1);
        out["confusion"].push_back(
            std::vector<std::int64_t>(row.values<std::int64_t>().begin(), row.values<std::int64_t>().end()));
      }
    for (const DigitAreas& a : areas)
      out["auc"][fmt::format("{}", a.digit)] = {{"roc", a.roc}, {"average_precision", a.precision}};
    if (!areas.empty()) out["macro_auc"] = mean_roc(areas);
    if (!plot.empty()) out["plot"] = plot;
    if (!roc.empty()) out["roc"] = roc;
    app::print("{}\n", app::json_text(out));
    draw();
    return ok;
  }
  app::print("test accuracy {:.4f}, test loss {:.4f} on {}\n", m.accuracy, m.loss, data.name);
  if (v.count("top-k")) app::print("top-{} accuracy {:.4f}\n", k, ebb::top_k_accuracy(test.labels, logits, k));
  if (v.count("report")) app::print("\n{}", report.text());
  if (v.count("confusion")) {
    app::print("\nactual   predicted\n     ");
    for (int j = 0; j < 10; ++j) app::print("{:>7}", j);
    for (std::int64_t i = 0; i < 100; ++i)
      app::print("{}{:>7}", i % 10 ? "" : fmt::format("\n{:>5}", i / 10),
                 confusion.values<std::int64_t>()[static_cast<std::size_t>(i)]);
    app::print("\n");
  }
  if (!areas.empty()) {
    app::print("\ndigit  area under ROC  average precision\n");
    for (const DigitAreas& a : areas) app::print("{:>5}{:>16.6f}{:>19.6f}\n", a.digit, a.roc, a.precision);
    app::print(" mean{:>16.6f}\n", mean_roc(areas));
  }
  draw();
  for (const std::string& file : {plot, roc})
    if (!file.empty()) app::print("wrote {}\n", file);
  return ok;
}

}  // namespace

const app::Command evaluate_command{
    .name = "evaluate",
    .about = "test a saved network",
    .arguments = "FILE [OPTIONS]",
    .description =
        "The test samples are those of the training in FILE: if that split the data anew,\n"
        "the same split is used, unless --test-size asks for another.\n",
    .examples =
        "  mnist evaluate digits.safetensors --json\n"
        "  mnist evaluate digits.safetensors --report --confusion --top-k 3\n"
        "  mnist evaluate digits.safetensors --plot confusion.svg --roc roc.svg\n",
    .options = evaluate_options,
    .run = run_evaluate,
    .files = 1,
};

}  // namespace mnist
