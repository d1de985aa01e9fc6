#include "training_record.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include <ebb/models/files/version.h>
#include <ebb/models/train/progress.h>

#include "json_text.h"
#include "training_options.h"

namespace mnist {
namespace {

using Json = nlohmann::ordered_json;

/// Options that say where results go and not what is trained: not kept in the file, and allowed beside --resume.
const std::vector<std::string> outward{"save",    "force", "checkpoint-every", "keep",  "resume",
                                       "log-csv", "json",  "verbose",          "style", "color",
                                       "quiet",   "data",  "threads",          "file"};
bool is_outward(const std::string& name) { return std::ranges::find(outward, name) != outward.end(); }

po::options_description train_output_options() {
  po::options_description o = output_options(
      "write the model and its training so far to this file (safetensors), also when interrupted; if it is standard "
      "output, results go to standard error");
  const po::options_description more = app::option_group(
      "",
      {
          {"checkpoint-every", text(),
           "write --save during training too, after every N epochs, or 100steps, 200s, 5m, 1h: a killed run loses no "
           "more than that"},
          {"keep", number(1, 1, 1000),
           "keep so many of these files: FILE, then FILE.1 and so on (before its extension), the older the higher"},
          {"resume", text(),
           "go on with the training in this file, under its options, and save to it; --epochs may ask for more"},
          {"log-csv", text(), "write the numbers of every epoch to this file"},
          {"verbose", number(0, 2),
           "progress: 0 none, 1 a bar, 2 one line per epoch as in Keras; default: a bar on a terminal, else lines"},
          {"style", one_of("keras2", ebb::style_names()), "look of the progress: {}"},
          {"color", one_of("auto", {"auto", "always", "never"}), "auto: on a terminal, unless NO_COLOR is set"},
      });
  for (const auto& option : more.options()) o.add(option);
  return o;
}

/// A value as the command line has it.
std::string text_of(const boost::any& value) {
  if (const auto* s = boost::any_cast<std::string>(&value)) return *s;
  if (const auto* x = boost::any_cast<double>(&value)) return fmt::format("{}", *x);
  if (const auto* n = boost::any_cast<int>(&value)) return fmt::format("{}", *n);
  if (const auto* n = boost::any_cast<std::uint64_t>(&value)) return fmt::format("{}", *n);
  return fmt::format("{}", boost::any_cast<std::int64_t>(value));
}

/// Samples and a checksum of their bytes, such as "512 samples, crc32 9ae0daaf".
std::string fingerprint(const ebb::Dataset& data) {
  uLong crc = ::crc32(0, nullptr, 0);
  for (const ebb::Tensor& t : {data.inputs, data.labels})
    crc = ::crc32_z(crc, reinterpret_cast<const Bytef*>(t.raw()),
                    static_cast<std::size_t>(t.numel()) * ebb::size_of(t.dtype()));
  return fmt::format("{} samples, crc32 {:08x}", data.size(), crc);
}

}  // namespace

po::options_description train_options() {
  return joined({model_options(), training_options(), data_options(), split_options(), train_output_options()});
}

std::string kept_options(const po::variables_map& v, const std::string& architecture) {
  const po::options_description options = train_options();
  Json out = Json::array();
  for (const auto& option : options.options()) {
    const std::string& name = option->long_name();
    if (!v.count(name) || is_outward(name)) continue;
    const std::string value = name == "arch" ? architecture : app::takes_value(*option) ? text_of(v[name].value()) : "";
    out.push_back(value.empty() ? "--" + name : fmt::format("--{}={}", name, value));
    if (value.empty() && option->semantic()->min_tokens() > 0) out.push_back("");  // "--layers=" would be an error
  }
  return app::json_text(out);
}

void restore_options(const ebb::SavedModel& saved, const std::string& file, po::variables_map& v) {
  if (!saved.optimizer || !saved.history || !saved.metadata.contains(options_key))
    throw ebb::DataError(fmt::format("{}: holds no training of mnist train to go on with", file));
  for (const auto& [name, value] : v)
    if (!value.defaulted() && name != "epochs" && !is_outward(name))
      throw UsageError(fmt::format("--resume goes on with the options in the file; --{} cannot change", name));
  std::vector<std::string> words = options_in(saved, file);
  for (std::string& word : words)  // earlier versions kept the name of a file
    if (word.starts_with("--arch=") && word.ends_with(".json")) word = "--arch=" + saved.architecture;
  try {
    // what is stored first stays, but for defaults
    po::store(po::command_line_parser(words).options(train_options()).run(), v);
  } catch (const po::error& e) {
    throw ebb::DataError(fmt::format("{}: its options: {}", file, e.what()));
  }
  if (v.count("ema") && saved.optimizer->steps() > 0 && !saved.history->callbacks.contains("average_weights"))
    throw ebb::DataError(fmt::format(
        "{}: holds the averages of the weights alone, as earlier versions wrote; nothing can go on from them", file));
}

std::vector<Run> runs_in(const ebb::SavedModel& saved, const std::string& file) {
  const auto it = saved.metadata.find(runs_key);
  if (it == saved.metadata.end()) {
    po::variables_map v;
    po::store(po::command_line_parser(options_in(saved, file)).options(train_options()).run(), v);
    return {{.epochs = v["epochs"].as<int>()}};
  }
  std::vector<Run> out;
  try {
    for (const Json& j : Json::parse(it->second)) {
      if (!j.at("steps").is_number_integer() || !j.at("epochs").is_number_integer())
        throw ebb::DataError(fmt::format("{}: its runs: steps and epochs must be whole numbers", file));
      out.push_back({j.at("steps").get<std::int64_t>(), j.at("epochs").get<int>(),
                     j.at("command").get<std::vector<std::string>>(),
                     j.at("facts").get<std::map<std::string, std::string>>()});
      const Run& run = out.back();
      if (run.steps < (out.size() > 1 ? out[out.size() - 2].steps : 0) || (out.size() == 1 && run.steps != 0) ||
          run.epochs < 0 || run.epochs > 1'000'000)
        throw ebb::DataError(
            fmt::format("{}: its runs: number {} after {} steps, {} epochs", file, out.size(), run.steps, run.epochs));
    }
  } catch (const Json::exception& e) {
    throw ebb::DataError(fmt::format("{}: its runs: {}", file, e.what()));
  }
  if (out.empty()) throw ebb::DataError(fmt::format("{}: its runs: none", file));
  return out;
}

std::string to_json(const std::vector<Run>& runs) {
  Json out = Json::array();
  for (const Run& r : runs)
    out.push_back({{"steps", r.steps}, {"epochs", r.epochs}, {"command", r.command}, {"facts", r.facts}});
  return app::json_text(out);
}

std::map<std::string, std::string> facts_here(const ebb::Dataset& train, const ebb::Dataset& test) {
  std::map<std::string, std::string> out = ebb::build_facts();
  out["version"] = ebb::version();
  out["training data"] = fingerprint(train);
  out["test data"] = fingerprint(test);
  return out;
}

std::vector<std::string> differences(const std::map<std::string, std::string>& then,
                                     const std::map<std::string, std::string>& here) {
  std::vector<std::string> out;
  for (const auto& [name, value] : then)
    if (const auto it = here.find(name); it != here.end() && it->second != value)
      out.push_back(fmt::format("{}: {} then, {} here", name, value, it->second));
  return out;
}

}  // namespace mnist
