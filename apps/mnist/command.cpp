#include "command.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

namespace mnist {
namespace {

/// Letters to add, drop, change or swap with the next.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::vector<std::string> names_of(const po::options_description& options) {
  std::vector<std::string> out;
  for (const auto& option : options.options()) out.push_back(option->long_name());
  return out;
}

/// What --model best trains: batch-normalised convolutions, two to a size.
constexpr const char* best_network =
    "conv 32 3, batchnorm, relu, conv 32 3, batchnorm, relu, pool 2, conv 64 3, batchnorm, relu, conv 64 3, batchnorm, relu, "
    "pool 2, conv 128 3, batchnorm, relu, flatten, dropout 0.3, dense 10";

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t distance = std::min<std::size_t>(3, name.size() / 2 + 1);  // a short name has too many neighbours
  for (const std::string& candidate : names)
    if (const std::size_t d = edit_distance(name, candidate); d < distance) {
      distance = d;
      best = candidate;
    }
  return best;
}

bool parse(const std::vector<std::string>& args, const po::options_description& options, const std::string& usage,
           const std::string& examples, po::variables_map& values, bool takes_file) {
  po::options_description all(80, 40);
  all.add(options).add_options()("help,h", "this text");
  po::options_description everything;
  everything.add(all).add_options()("file", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("file", -1);
  if (std::ranges::any_of(args, [](const std::string& a) { return a == "--help" || a == "-h"; })) {
    std::ostringstream text;
    text << all;
    fmt::print("Usage: {}\n{}\n{}", usage, text.str(), examples);
    return false;
  }
  try {
    po::store(po::command_line_parser(args)
                  .options(everything)
                  .positional(positional)
                  .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                  .run(),
              values);
    po::notify(values);
  } catch (const po::unknown_option& e) {
    const std::string given = e.get_option_name().substr(0, e.get_option_name().find('='));
    if (!given.starts_with("--")) throw UsageError(fmt::format("unknown option {}", given));
    const std::string guess = nearest(given.substr(2), names_of(options));
    throw UsageError(fmt::format("unknown option {}{}", given, guess.empty() ? "" : fmt::format("; did you mean --{}?", guess)));
  } catch (const po::error& e) {
    throw UsageError(e.what());
  }
  if (values.count("file")) {
    const auto& files = values["file"].as<std::vector<std::string>>();
    if (!takes_file) throw UsageError(fmt::format("unexpected argument \"{}\"", files[0]));
    if (files.size() > 1) throw UsageError(fmt::format("only one model file is expected, got \"{}\" and \"{}\"", files[0], files[1]));
  }
  return true;
}

std::string file_of(const po::variables_map& values) {
  return values.count("file") ? values["file"].as<std::vector<std::string>>()[0] : "";
}

std::vector<std::string> words(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, separator);) {
    const auto first = word.find_first_not_of(' '), last = word.find_last_not_of(' ');
    if (first != std::string::npos) out.push_back(word.substr(first, last - first + 1));
  }
  return out;
}

std::vector<std::int64_t> numbers(const std::string& option, const std::string& text) {
  std::vector<std::int64_t> out;
  for (std::size_t begin = 0; begin <= text.size() && !text.empty();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::int64_t n = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, n);
    if (error != std::errc() || stop != text.data() + end)
      throw UsageError(fmt::format("--{} takes numbers separated by commas, such as 512,64; got \"{}\"", option, text));
    out.push_back(n);
    begin = end + 1;
  }
  return out;
}

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
      ("arch", po::value<std::string>(), "the whole network instead, such as\n\"conv 32 3 relu, pool 2, flatten, dense 10\"");
  return o;
}

std::string architecture(const po::variables_map& v) {
  if (v.count("arch")) return v["arch"].as<std::string>();
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
    return net;
  } catch (const ebb::ValueError& e) {
    throw UsageError(e.what());
  } catch (const ebb::ShapeError& e) {
    throw UsageError(e.what());
  }
}

po::options_description data_options() {
  po::options_description o("Data", 80, 40);
  o.add_options()
      ("dataset", po::value<std::string>()->default_value("mnist"), "mnist, fashion, or synthetic (needs no files)")
      ("data", po::value<std::string>(), "folder of the four IDX files; default: $EBB_DATA, then the XDG data and cache folders")
      ("threads", po::value<int>(), "default: one per processor; results are the same for any number");
  return o;
}

ebb::Mnist load_data(const po::variables_map& v) {
  const auto name = v["dataset"].as<std::string>();
  const std::string folder = v.count("data") ? v["data"].as<std::string>() : "";
  for (const auto& [text, set] : {std::pair{"mnist", ebb::DatasetName::mnist}, std::pair{"fashion", ebb::DatasetName::fashion},
                                  std::pair{"synthetic", ebb::DatasetName::synthetic}})
    if (name == text) return ebb::find_dataset(set, folder);
  throw UsageError(fmt::format("--dataset must be mnist, fashion or synthetic, got \"{}\"", name));
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

void use_threads(const po::variables_map& v) {
  if (!v.count("threads")) return;
  const int n = v["threads"].as<int>();
  if (n < 1 || n > 256) throw UsageError(fmt::format("--threads must be 1 to 256, got {}", n));
  ebb::set_threads(n);
}

}  // namespace mnist
