// The table of mnist reproduce.
#include "reproduce_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include <ebb/models/train/progress.h>

namespace mnist {
namespace {

using Json = nlohmann::ordered_json;

double median(std::vector<double> v) {
  std::ranges::sort(v);
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

}  // namespace

std::string score(double loss, double accuracy) {
  const auto part = [](double x, std::string text) { return std::isnan(x) ? std::string("-") : text; };
  return part(loss, ebb::format_metric(loss)) + " / " + part(accuracy, fmt::format("{:.4f}", accuracy));
}

std::vector<std::vector<std::string>> rows_of(const Experiment& e,
                                              const std::vector<const nlohmann::ordered_json*>& records, bool quick) {
  std::vector<std::vector<std::string>> rows;
  const auto all = [&](const auto& get) {
    std::vector<double> values;
    for (const Json* r : records) values.push_back(get(*r));
    return values;
  };
  const bool published = !std::isnan(e.validation.accuracy) || !std::isnan(e.test.accuracy) || !std::isnan(e.test.loss);
  const bool same = e.validation_split == 0;  // the test set is the validation set
  const std::string final = !records.empty() && records[0]->contains("test") && !(same && std::isnan(e.test.accuracy))
                                ? "test"
                                : "validation";
  for (const auto& [part, theirs] : {std::pair{"train", e.train}, {"validation", e.validation}, {"test", e.test}}) {
    if (records.empty() || !records[0]->contains(part)) continue;
    if (part != final && std::isnan(theirs.accuracy)) continue;
    const std::vector<double> losses = all([&](const Json& r) { return r[part]["loss"].template get<double>(); });
    const std::vector<double> accuracies =
        all([&](const Json& r) { return r[part]["accuracy"].template get<double>(); });
    const double ours = median(accuracies), points = 100 * (ours - theirs.accuracy);
    const auto [low, high] = std::ranges::minmax(accuracies);
    const bool judged = part == final && !quick && !std::isnan(points);
    const bool first = rows.empty();
    rows.push_back(
        {first ? e.id : "", first ? e.about : "", part, published ? score(theirs.loss, theirs.accuracy) : "-",
         score(median(losses), ours), records.size() > 1 ? fmt::format("{:.4f} to {:.4f}", low, high) : "-",
         std::isnan(points) ? "-" : fmt::format("{:+.2f}", points),
         first ? fmt::format("{:g}", median(all([](const Json& r) { return r["epochs"].template get<double>(); })))
               : "",
         first ? fmt::format("{:.2f}",
                             median(all([](const Json& r) { return r["seconds_per_epoch"].template get<double>(); })))
               : "",
         judged ? (points >= -e.band ? fmt::format("yes ({})", e.band) : fmt::format("NO ({})", e.band)) : ""});
  }
  return rows;
}

std::string table(const std::vector<std::vector<std::string>>& rows, bool markdown) {
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line = markdown ? "|" : "";
    for (std::size_t i = 0; i < rows[r].size(); ++i)
      line += markdown ? fmt::format(" {} |", rows[r][i]) : fmt::format("{:<{}}  ", rows[r][i], widths[i]);
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += line + "\n";
    if (r == 0 && markdown) {
      out += "|";
      for (std::size_t i = 0; i < rows[r].size(); ++i) out += "---|";
      out += "\n";
    }
  }
  return out;
}
}  // namespace mnist
