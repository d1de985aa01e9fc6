// mnist predict: the digits that a saved network sees.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <cmath>
#include <stdexcept>

#include <ebb/models/data/mnist.h>
#include <ebb/models/train/fit.h>
#include <ebb/ops/ops.h>

#include "command.h"
#include "json_text.h"

namespace mnist {
namespace {

/// The picture in characters, two to a pixel so that it comes out square.
std::string picture(const ebb::Tensor& image) {
  constexpr std::string_view ink = " .:-=+*#%@";
  std::string out;
  const auto pixels = image.values<std::uint8_t>();
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    out += std::string(2, ink[pixels[i] * (ink.size() - 1) / 255]);
    if (i % 28 == 27) out += '\n';
  }
  return out;
}

po::options_description predict_options() {
  return joined({app::option_group("Digits", {{"index", text("0,1,2,3,4,5,6,7,8,9"),
                                               "which digits of the test samples, counted from 0"},
                                              {"show", "draw each digit in characters"}}),
                 data_options(), split_options(), json_option()});
}

int run_predict(Values& v) {
  const auto indices = numbers("index", v["index"].as<std::string>());
  if (indices.empty()) throw UsageError("--index needs at least one number");
  split_of(v);
  ebb::SavedModel model = load_file(v);
  refuse_not_finite(model, file_of(v));
  use_split_of(model, file_of(v), v);
  use_threads(v);
  const ebb::Mnist data = split_data(load_data(v), v);
  const std::int64_t n = data.test.images.size(0);
  for (const std::int64_t i : indices)
    if (i < 0 || i >= n) throw UsageError(fmt::format("--index must be 0 to {}, got {}", n - 1, i));
  const ebb::Dataset test = data.test.scaled(scale_of(model, file_of(v)));
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const std::int64_t i : indices) {
    const ebb::Tensor p = ebb::softmax(ebb::predict(model.net, test.slice(i, i + 1)));
    const auto probabilities = p.to_vector();
    const auto best = static_cast<std::size_t>(ebb::argmax(p).item());
    if (!std::isfinite(probabilities[best]))
      throw std::runtime_error(fmt::format("{}: what it gives for digit {} is no number", file_of(v), i));
    const int label = data.test.labels.values<std::uint8_t>()[static_cast<std::size_t>(i)];
    if (v.count("json")) {
      list.push_back({{"index", i},
                      {"digit", best},
                      {"probability", probabilities[best]},
                      {"label", label},
                      {"probabilities", probabilities}});
      continue;
    }
    if (v.count("show")) app::print("{}", picture(data.test.images.rows(i, i + 1)));
    app::print("{:>5}: {} with probability {:.4f} ({})\n", i, best, probabilities[best],
               static_cast<int>(best) == label ? "right" : fmt::format("wrong: it is {}", label));
  }
  if (v.count("json")) app::print("{}\n", list.dump());
  return ok;
}

}  // namespace

const app::Command predict_command{
    .name = "predict",
    .about = "name digits of the test samples with a saved network",
    .arguments = "FILE [OPTIONS]",
    .description = "",
    .examples = "  mnist predict digits.safetensors --index 0,7 --show\n",
    .options = predict_options,
    .run = run_predict,
    .files = 1,
};

}  // namespace mnist
