// mnist summary: the layers of a network.
#include <fmt/core.h>

#include "command.h"

namespace mnist {

int summary(const std::vector<std::string>& args) {
  po::options_description own = app::option_group(
      "Table",
      {
          {"style", po::value<std::string>()->default_value("keras2"), "keras2.2, keras2 or keras3: whose table"},
      });
  po::options_description options(80, 40);
  options.add(model_options()).add(own);
  po::variables_map v;
  if (!parse(args, options, "mnist summary [FILE] [OPTIONS]", "Example:\n  mnist summary --model cnn --style keras3\n",
             v, true))
    return ok;
  ebb::SummaryOptions how;
  try {
    how.style = ebb::style_of(v["style"].as<std::string>());
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--style: {}", e.what()));
  }
  ebb::Sequential net = network(v);
  app::print("{}", ebb::summary(net, how));
  return ok;
}

}  // namespace mnist
