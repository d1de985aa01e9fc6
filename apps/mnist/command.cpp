#include "command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <ebb/models/data/mnist.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/layers.h>
#include <ebb/models/train/finite.h>
#include <ebb/ops/ops.h>

namespace mnist {
namespace {

/// What --model best trains: batch-normalized convolutions, two to a size.
constexpr const char* best_network =
    "conv 32 3, batchnorm, relu, conv 32 3, batchnorm, relu, pool 2, conv 64 3, batchnorm, relu, conv 64 3, batchnorm, "
    "relu, "
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
    throw UsageError(
        "leave out the softmax at the end: the loss and the probabilities are made from what the last layer gives");
}

}  // namespace

po::options_description model_options() {
  return app::option_group(
      "Model",
      {
          {"model", one_of("mlp", {"mlp", "cnn", "best"}),
           "mlp (dense layers), cnn (convolutions, then dense layers), or best (a network and a training that reach "
           "99.6 % on MNIST)"},
          {"layers", text("512"), "widths of the hidden dense layers, such as 512,512; \"\" for none"},
          {"activation", one_of("relu", ebb::activation_names()), "activation of the hidden layers: {}"},
          {"dropout", number(0.0, 0.0, 0.999999), "dropout rate after each hidden dense layer"},
          {"filters", text("32,64,64"), "cnn: filters of each convolution"},
          {"kernel", number(3, 1, 28), "cnn: side of the convolution kernels"},
          {"pool", number(2, 1, 28), "cnn: side of the max-pooling between convolutions"},
          {"arch", text(),
           "the whole network instead, such as\n\"conv 32 3 relu, pool 2, flatten, dense 10\", or a file FILE.json"},
      });
}

std::string architecture(const po::variables_map& v) {
  if (v.count("arch")) return given_architecture(v["arch"].as<std::string>());
  const auto model = v["model"].as<std::string>();
  if (model == "best") return best_network;
  const auto activation = v["activation"].as<std::string>();
  const double dropout = v["dropout"].as<double>();
  std::string text;
  if (model == "cnn") {
    const auto filters = numbers("filters", v["filters"].as<std::string>());
    for (std::size_t i = 0; i < filters.size(); ++i) {
      text += fmt::format("conv {} {} {}, ", filters[i], v["kernel"].as<int>(), activation);
      if (i + 1 < filters.size()) text += fmt::format("pool {}, ", v["pool"].as<int>());
    }
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
      throw UsageError(
          fmt::format("the network gives {} for a digit, but ten classes need (10,): {}", out.str(), architecture));
    refuse_probabilities(net);
    return net;
  } catch (const ebb::ValueError& e) {
    throw UsageError(e.what());
  } catch (const ebb::ShapeError& e) {
    throw UsageError(e.what());
  }
}

po::options_description json_option() { return app::option_group("Output", {{"json", "print JSON instead of text"}}); }

std::string model_file(const po::variables_map& v) {
  const std::string file = file_of(v);
  if (file.empty()) throw UsageError("which model? Give the file that mnist train --save wrote");
  return file;
}

ebb::SavedModel load_file(const po::variables_map& v) {
  const std::string file = model_file(v);
  ebb::SavedModel model = ebb::load_model(file);
  scale_of(model, file);  // refused now rather than after the data are read
  return model;
}

ebb::Sequential network(const po::variables_map& v) {
  return file_of(v).empty() ? build_network(architecture(v)) : load_file(v).net;
}

po::options_description split_options() {
  return app::option_group(
      "New split of the data",
      {
          {"test-size", number(0.0, 1e9),
           "join all samples and draw this share (or number) of them for the test, as scikit-learn's train_test_split"},
          {"split-seed", number<std::int64_t>(0, 0, UINT32_MAX), "seed of that draw: scikit-learn's random_state"},
          {"stratify", "both parts keep the shares of the digits"},
      });
}

std::optional<ebb::SplitOptions> split_of(const po::variables_map& v) {
  if (!v.count("test-size")) {
    if (v.count("stratify")) throw UsageError("--stratify belongs to --test-size");
    return std::nullopt;
  }
  return ebb::SplitOptions{.test_size = v["test-size"].as<double>(),
                           .seed = static_cast<std::uint32_t>(v["split-seed"].as<std::int64_t>()),
                           .stratify = v.count("stratify") > 0};
}

ebb::Mnist split_data(const ebb::Mnist& data, const po::variables_map& v) {
  const auto split = split_of(v);
  if (!split) return data;
  try {
    return data.split_anew(*split);
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--test-size: {}", e.what()));
  }
}

std::vector<std::string> options_in(const ebb::SavedModel& model, const std::string& file) {
  const auto kept = model.metadata.find(options_key);
  if (kept == model.metadata.end()) return {};
  try {
    return nlohmann::ordered_json::parse(kept->second).get<std::vector<std::string>>();
  } catch (const nlohmann::ordered_json::exception& e) {
    throw ebb::DataError(fmt::format("{}: its options: {}", file, e.what()));
  }
}

void use_split_of(const ebb::SavedModel& model, const std::string& file, po::variables_map& v) {
  if (v.count("test-size")) return;
  const po::options_description options = split_options();
  std::vector<std::string> words;
  for (const std::string& word : options_in(model, file))
    for (const auto& option : options.options())
      if (const std::string name = "--" + option->long_name(); word == name || word.starts_with(name + "="))
        words.push_back(word);
  if (words.empty()) return;
  try {
    po::store(po::command_line_parser(words).options(options).run(),
              v);  // what is stored first stays, but for defaults
  } catch (const po::error& e) {
    throw ebb::DataError(fmt::format("{}: its options: {}", file, e.what()));
  }
  if (v.count("test-size")) app::note("note: split as in the training of {}: {}\n", file, fmt::join(words, " "));
}

void refuse_input(const po::variables_map& v, const char* option, const std::string& file) {
  namespace fs = std::filesystem;
  const std::string name = std::string("--") + option;
  for (const std::string& from : files_of(v)) refuse_same_files({{"the file read", from}, {name, file}});
  if (v.count("arch") && v["arch"].as<std::string>().ends_with(".json"))
    refuse_same_files({{"--arch", v["arch"].as<std::string>()}, {name, file}});
  std::error_code none;
  if (!v.count("dataset") || !fs::exists(file, none)) return;
  const std::string folder = v.count("data") ? v["data"].as<std::string>() : "";
  for (const ebb::DatasetName set : {ebb::DatasetName::mnist, ebb::DatasetName::fashion})
    for (const fs::path& place : ebb::dataset_folders(set, folder)) {
      if (fs::is_regular_file(place, none)) refuse_same_files({{"the data", place.string()}, {name, file}});
      for (const fs::path& part : ebb::digit_files(place))
        refuse_same_files({{"a file of the data", part.string()}, {name, file}});
    }
}

std::string output_file(const po::variables_map& v, const char* option, bool goes_on, std::uintmax_t bytes) {
  const std::string file = app::output_name(v, option);
  if (file.empty()) return "";
  refuse_input(v, option, file);
  check_output(file, goes_on || v.count("force") > 0, bytes);
  return file;
}

void refuse_not_finite(ebb::SavedModel& model, const std::string& file) {
  if (const std::string bad = ebb::not_finite(model.net); !bad.empty())
    throw ebb::DataError(fmt::format("{}: {}: the training that wrote it went wrong", file, bad));
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
