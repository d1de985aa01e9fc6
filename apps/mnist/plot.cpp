// mnist plot: loss and accuracy of trainings, drawn.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

#include <ebb/models/report/svg.h>

#include "command.h"
#include "json_text.h"

namespace mnist {
namespace {

ebb::History history_of(const std::string& file) {
  std::string head(6, '\0');
  std::ifstream(file, std::ios::binary).read(head.data(), 6);
  const bool log = head.starts_with("epoch") || head == "\"epoch";
  const auto history = log ? ebb::load_history_csv(file) : ebb::load_model(file).history;
  if (!history || history->epochs() == 0) throw ebb::DataError(fmt::format("{}: holds no history of a training", file));
  return *history;
}

po::options_description plot_options() {
  return app::option_group(
      "Drawing",
      {
          {"svg", text(), "write the drawing to this file; default: standard output"},
          {"names", text(), "names of the trainings, such as \"fit1,fit2\"; default: the names of the files"},
          {"force", "overwrite a file that exists"},
          {"json", "print the numbers as one JSON object, instead of the drawing unless --svg names a file for it"},
      });
}

int run_plot(Values& v) {
  const auto files = files_of(v);
  if (files.empty()) throw UsageError("which training? Give a file that mnist train --save or --log-csv wrote");
  auto names = words(v.count("names") ? v["names"].as<std::string>() : "");
  if (!v.count("names"))
    for (const std::string& file : files) names.push_back(std::filesystem::path(file).stem().string());
  if (names.size() != files.size())
    throw UsageError(fmt::format("--names gives {} names for {} files", names.size(), files.size()));
  const std::string file = output_file(v, "svg");
  ebb::NamedHistories histories;
  for (std::size_t i = 0; i < files.size(); ++i) histories.emplace_back(names[i], history_of(files[i]));
  if (!file.empty()) ebb::plot_history(histories, file);
  if (v.count("json")) {
    nlohmann::ordered_json out{{"trainings", nlohmann::ordered_json::array()}};
    for (std::size_t i = 0; i < files.size(); ++i)
      out["trainings"].push_back({{"name", names[i]},
                                  {"file", files[i]},
                                  {"epochs", histories[i].second.epochs()},
                                  {"history", histories[i].second.values}});
    if (!file.empty()) out["svg"] = file;
    app::print("{}\n", app::json_text(out));
  } else if (file.empty()) {
    app::print("{}", ebb::svg(ebb::history_panels(histories), 1080, 504));
  } else {
    for (const auto& [name, history] : histories)
      app::print("{}: {} epoch{} of {}\n", file, history.epochs(), history.epochs() == 1 ? "" : "s", name);
  }
  return ok;
}

}  // namespace

const app::Command plot_command{
    .name = "plot",
    .about = "draw loss and accuracy of trainings",
    .arguments = "FILE... [OPTIONS]",
    .description =
        "FILE is what mnist train --save or --log-csv wrote. With one FILE: training\n"
        "against validation, accuracy and loss side by side. With several: their\n"
        "validation numbers.\n",
    .examples =
        "  mnist plot run.safetensors --svg run.svg\n"
        "  mnist plot fit1.csv fit2.csv fit3.csv --svg fits.svg\n",
    .options = plot_options,
    .run = run_plot,
    .files = 100,
};

}  // namespace mnist
