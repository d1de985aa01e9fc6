#include "command.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <fstream>

namespace mnist {
namespace {

/// What --model best trains: batch-normalised convolutions, two to a size.
constexpr const char* best_network =
    "conv 32 3, batchnorm, relu, conv 32 3, batchnorm, relu, pool 2, conv 64 3, batchnorm, relu, conv 64 3, batchnorm, relu, "
    "pool 2, conv 128 3, batchnorm, relu, flatten, dropout 0.3, dense 10";

/// What --arch gives: a text, or a JSON file as text.
std::string given_architecture(const std::string& arch) {
  if (!arch.ends_with(".json")) return arch;
  std::ifstream in(arch, std::ios::binary);
  std::string json(std::size_t{1} << 20, '\0');
  in.read(json.data(), static_cast<std::streamsize>(json.size()));
  if (!in.eof()) throw UsageError(fmt::format("--arch: {} cannot be read, or is larger than 1 MB", arch));
  json.resize(static_cast<std::size_t>(in.gcount()));
  try {
    return ebb::describe_architecture(ebb::parse_architecture_json(json));
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("{}: {}", arch, e.what()));
  }
}

/// The loss is taken from logits: a softmax before it would be a second one.
void refuse_probabilities(const ebb::Sequential& net) {
  if (net.layers().empty()) return;
  const ebb::Module& last = *net.layers().back();
  const auto* dense = dynamic_cast<const ebb::Dense*>(&last);
  const auto* function = dynamic_cast<const ebb::Function*>(&last);
  const ebb::Activation f = dense ? dense->options().activation : function ? function->plain() : nullptr;
  if (f == static_cast<ebb::Activation>(ebb::softmax))
    throw UsageError("leave out the softmax at the end: the loss and the probabilities are made from what the last layer gives");
}

}  // namespace

po::options_description model_options() {
  po::options_description o("Model", 80, 40);
  o.add_options()
      ("model", po::value<std::string>()->default_value("mlp"), "mlp (dense layers), cnn (convolutions, then dense layers), or best: a network and a training that reach 99.6 % on MNIST")
      ("layers", po::value<std::string>()->default_value("512"), "widths of the hidden dense layers, such as 512,512; \"\" for none")
      ("activation", po::value<std::string>()->default_value("relu"), "of the hidden layers: relu, sigmoid, tanh, gelu, ...")
      ("dropout", po::value<double>()->default_value(0), "rate after each hidden dense layer")
      ("filters", po::value<std::string>()->default_value("32,64,64"), "cnn: filters of each convolution")
      ("kernel", po::value<int>()->default_value(3), "cnn: side of the convolution kernels")
      ("pool", po::value<int>()->default_value(2), "cnn: side of the max-pooling between convolutions")
      ("arch", po::value<std::string>(), "the whole network instead, such as\n\"conv 32 3 relu, pool 2, flatten, dense 10\", or a file FILE.json");
  return o;
}

std::string architecture(const po::variables_map& v) {
  if (v.count("arch")) return given_architecture(v["arch"].as<std::string>());
  const auto model = v["model"].as<std::string>();
  if (model == "best") return best_network;
  const auto activation = v["activation"].as<std::string>();
  try {
    ebb::activation_of(activation);
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--activation: {}", e.what()));
  }
  const double dropout = v["dropout"].as<double>();
  if (!(dropout >= 0 && dropout < 1)) throw UsageError(fmt::format("--dropout must be in [0, 1), got {}", dropout));
  std::string text;
  if (model == "cnn") {
    const auto filters = numbers("filters", v["filters"].as<std::string>());
    for (std::size_t i = 0; i < filters.size(); ++i) {
      text += fmt::format("conv {} {} {}, ", filters[i], v["kernel"].as<int>(), activation);
      if (i + 1 < filters.size()) text += fmt::format("pool {}, ", v["pool"].as<int>());
    }
  } else if (model != "mlp") {
    throw UsageError(fmt::format("--model must be mlp, cnn or best, got \"{}\"; --arch describes any other network", model));
  }
  text += "flatten";
  for (const std::int64_t width : numbers("layers", v["layers"].as<std::string>())) {
    text += fmt::format(", dense {} {}", width, activation);
    if (dropout > 0) text += fmt::format(", dropout {}", dropout);
  }
  return text + ", dense 10";
}

ebb::Sequential build_network(const std::string& architecture) {
  const ebb::Shape sample{28, 28, 1};
  try {
    ebb::Sequential net(sample, ebb::parse_architecture(architecture));
    if (const ebb::Shape out = ebb::build(net, sample); out != ebb::Shape{10})
      throw UsageError(fmt::format("the network gives {} for a digit, but ten classes need (10,): {}", out.str(), architecture));
    refuse_probabilities(net);
    return net;
  } catch (const ebb::ValueError& e) {
    throw UsageError(e.what());
  } catch (const ebb::ShapeError& e) {
    throw UsageError(e.what());
  }
}

double scale_of(const ebb::SavedModel& m, const std::string& file) {
  const auto it = m.metadata.find("scale");
  if (it == m.metadata.end()) return 1.0 / 255;
  double scale = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, scale);
  if (error != std::errc() || stop != end || !std::isfinite(scale) || scale == 0)
    throw ebb::DataError(fmt::format("{}: scale \"{}\" is no number to multiply pixels by", file, it->second));
  return scale;
}

}  // namespace mnist
