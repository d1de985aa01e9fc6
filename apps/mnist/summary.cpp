// mnist summary: the layers of a network.
#include <fmt/core.h>

#include <ebb/models/report/summary.h>

#include "command.h"

namespace mnist {
namespace {

po::options_description summary_options() {
  return joined({model_options(), app::option_group("Table", {{"style", one_of("keras2", ebb::style_names()),
                                                               "look of the table: {}"}})});
}

int run_summary(Values& v) {
  ebb::Sequential net = network(v);
  app::print("{}", ebb::summary(net, {.style = ebb::style_of(v["style"].as<std::string>())}));
  return ok;
}

}  // namespace

const app::Command summary_command{
    .name = "summary",
    .about = "list layers, shapes and parameters of a network",
    .arguments = "[FILE] [OPTIONS]",
    .description = "",
    .examples = "  mnist summary --model cnn --style keras3\n",
    .options = summary_options,
    .run = run_summary,
    .files = 1,
};

}  // namespace mnist
