// A model file is a safetensors file. Its tensors by name, and the texts in its metadata:
//   PATH                  parameters and buffers of the model to use: for most trainings those that are trained, else the
//                         averages of them, or the best ones where these are to be restored
//   ebb.architecture, ebb.input_shape, ebb.version
//   ebb.frozen            JSON: the paths of the parameters that are not trained; left out when there are none
//   ebb.build             JSON: compiler, BLAS and instruction set that the training ran with (build_facts), with a history
//   optimizer.N.PATH      the optimiser's N-th tensor of state for a parameter
//   ebb.optimizer         JSON: {name, options, steps, groups}
//   training.PATH         what training goes on from, where that is not PATH
//   callback.NAME.KEY     a tensor that a callback remembers: its name, the callback's own key
//   ebb.history           JSON: {values: {KEY: [..]}, seconds: [..], interrupted, partial: {batches, loss, correct, seen,
//                         classes, seconds}, callbacks: {NAME: {NUMBER: ..}}}; numbers that JSON lacks are "inf", "-inf", null
// Files of before have no ebb.frozen, ebb.build, training. and callback., nor classes, seconds and callbacks; and null for
// every number that is not finite.
#include <ebb/models/serialize.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include <ebb/graph/error.h>
#include <ebb/models/architecture.h>
#include <ebb/models/atomic_file.h>
#include <ebb/models/safetensors.h>
#include <ebb/models/version.h>

namespace ebb {
namespace {

constexpr const char* architecture_key = "ebb.architecture";
constexpr const char* input_key = "ebb.input_shape";
constexpr const char* version_key = "ebb.version";
constexpr const char* optimizer_key = "ebb.optimizer";
constexpr const char* history_key = "ebb.history";
constexpr const char* frozen_key = "ebb.frozen";
constexpr const char* build_key = "ebb.build";
constexpr std::string_view state_prefix = "optimizer.", training_prefix = "training.", callback_prefix = "callback.";

using Json = nlohmann::ordered_json;

std::string to_text(const Shape& shape) { return fmt::format("{}", fmt::join(shape.begin(), shape.end(), ",")); }

Shape shape_from(const std::string& text, const std::filesystem::path& path) {
  std::vector<std::int64_t> sizes;
  for (const char *p = text.data(), *end = p + text.size();; ++p) {
    std::int64_t n = 0;
    const auto [stop, error] = std::from_chars(p, end, n);
    if (error != std::errc() || n < 1 || n > 65536 || (stop != end && *stop != ','))
      throw DataError(fmt::format("{}: \"{}\" is no input shape", path.string(), text));
    sizes.push_back(n);
    if (stop == end) return Shape(sizes);
    p = stop;
  }
}

/// Copies the file's tensors into the module's; nothing is changed unless all fit.
void restore(Module& module, const SafeTensors& file, const std::filesystem::path& path) {
  std::string problems;
  const auto complain = [&](const std::string& what) { problems += (problems.empty() ? "" : "; ") + what; };
  const auto own = named_tensors(module);
  const bool has_state = file.metadata.contains(optimizer_key), has_history = file.metadata.contains(history_key);
  for (const NamedTensor& t : own) {
    const auto it = file.tensors.find(t.path);
    if (it == file.tensors.end()) {
      complain(fmt::format("{} is missing", t.path));
      continue;
    }
    if (it->second.shape() != t.tensor->shape() || it->second.dtype() != t.tensor->dtype())
      complain(fmt::format("{} is {}, the model has {}", t.path, describe(it->second), describe(*t.tensor)));
  }
  std::unordered_set<std::string_view> known;
  for (const NamedTensor& t : own) known.insert(t.path);
  for (const auto& [name, _] : file.tensors)
    if (!known.contains(name) && !(has_state && name.starts_with(state_prefix)) &&
        !(has_history && (name.starts_with(training_prefix) || name.starts_with(callback_prefix)))) complain(fmt::format("{} is extra", name));
  if (!problems.empty()) throw ShapeError(fmt::format("{}: {}", path.string(), problems));
  for (const NamedTensor& t : own) t.tensor->assign(file.tensors.at(t.path));
}

// ---- the training so far --------------------------------------------------------------------------------------------

std::string to_json(const Optimizer& o) {
  Json groups = Json::array();
  for (const ParameterGroup& g : o.groups()) groups.push_back({{"match", g.match}, {"lr_factor", g.lr_factor}, {"decay", g.decay}});
  return Json{{"name", o.name()}, {"options", o.options()}, {"steps", o.steps()}, {"groups", groups}}.dump();
}

/// Numbers that JSON lacks are texts, but for NaN, which is null.
Json number(double x) { return std::isinf(x) ? Json(x > 0 ? "inf" : "-inf") : Json(x); }

double number_from(const Json& j) {
  if (j.is_null()) return NAN;
  if (j == "inf") return INFINITY;
  if (j == "-inf") return -INFINITY;
  return j.get<double>();
}

std::string to_json(const History& h) {
  const auto numbers = [](const std::vector<double>& list) {
    Json out = Json::array();
    for (const double x : list) out.push_back(number(x));
    return out;
  };
  Json values = Json::object(), callbacks = Json::object();
  for (const auto& [key, list] : h.values) values[key] = numbers(list);
  for (const auto& [name, state] : h.callbacks) {
    callbacks[name] = Json::object();
    for (const auto& [key, x] : state.numbers) callbacks[name][key] = number(x);
  }
  const PartialEpoch& p = h.partial;
  return Json{{"values", values},
              {"seconds", numbers(h.seconds)},
              {"interrupted", h.interrupted},
              {"partial", {{"batches", p.batches}, {"loss", number(p.loss)}, {"correct", p.correct}, {"seen", p.seen}, {"classes", p.classes}, {"seconds", p.seconds}}},
              {"callbacks", callbacks}}
      .dump();
}

std::unique_ptr<Optimizer> optimizer_from(const Json& j, Sequential& net, const SafeTensors& file) {
  auto out = make_optimizer(j.at("name").get<std::string>(), j.at("options").get<OptimizerOptions>());
  const auto steps = j.at("steps").get<std::int64_t>();
  if (steps < 0) throw ValueError(fmt::format("an optimiser that took {} steps", steps));
  out->set_steps(steps);
  std::vector<ParameterGroup> groups;
  for (const Json& g : j.at("groups")) groups.push_back({g.at("match").get<std::string>(), g.at("lr_factor").get<double>(), g.at("decay").get<bool>()});
  out->set_groups(std::move(groups));
  std::size_t used = 0, stored = 0;
  for (const NamedTensor& t : named_parameters(net)) {
    std::vector<Tensor> slots;
    for (int i = 0;; ++i) {
      const auto it = file.tensors.find(fmt::format("{}{}.{}", state_prefix, i, t.path));
      if (it == file.tensors.end()) break;
      slots.push_back(it->second);
      ++used;
    }
    if (!slots.empty()) out->set_state(*t.tensor, std::move(slots));
  }
  for (const auto& [name, _] : file.tensors) stored += name.starts_with(state_prefix);
  if (used != stored) throw ValueError(fmt::format("{} tensors of optimiser state, {} belong to parameters", stored, used));
  return out;
}

History history_from(const Json& j, Sequential& net, const SafeTensors& file) {
  const auto numbers = [](const Json& list) {
    std::vector<double> out;
    for (const Json& x : list) out.push_back(number_from(x));
    return out;
  };
  History h;
  for (const auto& [key, list] : j.at("values").items()) h.values[key] = numbers(list);
  h.seconds = numbers(j.at("seconds"));
  h.interrupted = j.at("interrupted").get<bool>();
  const Json& p = j.at("partial");
  h.partial = {p.at("batches").get<std::int64_t>(), number_from(p.at("loss")), p.at("correct").get<std::int64_t>(),
               p.at("seen").get<std::int64_t>(), p.value("classes", true), p.value("seconds", 0.0)};
  if (const auto it = j.find("callbacks"); it != j.end())
    for (const auto& [name, state] : it->items())
      for (const auto& [key, x] : state.items()) h.callbacks[name].numbers[key] = number_from(x);
  std::map<std::string, const Tensor*> own;
  for (const NamedTensor& t : named_tensors(net)) own[t.path] = t.tensor;
  for (const auto& [name, t] : file.tensors) {
    if (name.starts_with(training_prefix)) {
      const std::string path = name.substr(training_prefix.size());
      const auto it = own.find(path);
      if (it == own.end() || it->second->shape() != t.shape() || it->second->dtype() != t.dtype())
        throw ValueError(fmt::format("{} {} does not belong to the model", name, describe(t)));
      h.weights[path] = t;
    } else if (name.starts_with(callback_prefix)) {
      const std::size_t begin = callback_prefix.size(), dot = name.find('.', begin);
      if (dot == std::string::npos) throw ValueError(fmt::format("{}: names no callback and key", name));
      h.callbacks[name.substr(begin, dot - begin)].tensors[name.substr(dot + 1)] = t;
    }
  }
  return h;
}

/// The parameters that are in this list become constants.
void freeze_listed(Sequential& net, const Json& j) {
  const auto paths = j.get<std::vector<std::string>>();
  std::unordered_set<std::string_view> listed(paths.begin(), paths.end());
  for (const NamedTensor& t : named_tensors(net))
    if (t.trained && listed.erase(t.path) > 0) *t.tensor = t.tensor->detach();
  if (!listed.empty()) throw ValueError(fmt::format("frozen: the model has no parameter \"{}\"", *listed.begin()));
}

}  // namespace

SafeTensors model_contents(Module& module, Metadata metadata) {
  SafeTensors file;
  file.metadata = std::move(metadata);
  file.metadata[version_key] = version();
  for (const NamedTensor& t : named_tensors(module)) file.tensors[t.path] = t.tensor->detach();
  return file;
}

void save(Module& module, const std::filesystem::path& path, const Metadata& metadata) {
  write_safetensors(path, model_contents(module, metadata));
}

void load(Module& module, const std::filesystem::path& path) { restore(module, read_safetensors(path), path); }

void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path, Metadata metadata,
                const SavedTraining& training) {
  write_safetensors(path, model_contents(net, architecture, std::move(metadata), training));
}

SafeTensors model_contents(Sequential& net, const std::string& architecture, Metadata metadata, const SavedTraining& training) {
  if (!net.input_shape()) throw ValueError("save_model: the model has not seen its input shape");
  metadata[architecture_key] = architecture;
  metadata[input_key] = to_text(*net.input_shape());
  if (training.optimizer) metadata[optimizer_key] = to_json(*training.optimizer);
  if (training.history) {
    metadata[history_key] = to_json(*training.history);
    metadata[build_key] = Json(build_facts()).dump();
  }
  Json frozen = Json::array();
  for (const NamedTensor& t : named_tensors(net))
    if (t.trained && !t.tensor->tracked()) frozen.push_back(t.path);
  if (!frozen.empty()) metadata[frozen_key] = frozen.dump();
  SafeTensors file = model_contents(static_cast<Module&>(net), std::move(metadata));
  if (training.optimizer)
    for (const NamedTensor& t : named_parameters(net)) {
      const auto slots = training.optimizer->state(*t.tensor);
      for (std::size_t i = 0; i < slots.size(); ++i) file.tensors[fmt::format("{}{}.{}", state_prefix, i, t.path)] = slots[i];
    }
  if (!training.history) return file;
  const auto own = named_tensors(net);
  for (const NamedTensor& t : own) {
    const auto aside = training.history->weights.find(t.path), chosen = training.chosen.find(t.path);
    const Tensor trained = aside == training.history->weights.end() ? t.tensor->detach() : aside->second;
    Tensor& model = file.tensors.at(t.path);
    if (chosen != training.chosen.end()) model = chosen->second;
    if (!same_bits(trained, model)) file.tensors[fmt::format("{}{}", training_prefix, t.path)] = trained;
  }
  for (const auto& [name, state] : training.history->callbacks)
    for (const auto& [key, t] : state.tensors) file.tensors[fmt::format("{}{}.{}", callback_prefix, name, key)] = t;
  return file;
}

SavedModel load_model(const std::filesystem::path& path) {
  const SafeTensors file = read_safetensors(path);
  const auto value = [&](const char* key) {
    const auto it = file.metadata.find(key);
    if (it == file.metadata.end()) throw DataError(fmt::format("{}: holds no architecture ({} is not in its metadata)", path.string(), key));
    return it->second;
  };
  SavedModel out;
  out.architecture = value(architecture_key);
  out.metadata = file.metadata;
  const std::string input = value(input_key);
  try {
    out.net = Sequential(shape_from(input, path), parse_architecture(out.architecture));
  } catch (const ValueError& e) {
    throw DataError(fmt::format("{}: {}", path.string(), e.what()));
  } catch (const ShapeError& e) {
    throw DataError(fmt::format("{}: {}", path.string(), e.what()));
  }
  try {
    restore(out.net, file, path);
  } catch (const ShapeError& e) {  // names the path already
    throw DataError(e.what());
  }
  try {
    if (const auto it = file.metadata.find(frozen_key); it != file.metadata.end()) freeze_listed(out.net, Json::parse(it->second));
    if (const auto it = file.metadata.find(optimizer_key); it != file.metadata.end())
      out.optimizer = optimizer_from(Json::parse(it->second), out.net, file);
    if (const auto it = file.metadata.find(history_key); it != file.metadata.end())
      out.history = history_from(Json::parse(it->second), out.net, file);
  } catch (const Json::exception& e) {
    throw DataError(fmt::format("{}: the training in it: {}", path.string(), e.what()));
  } catch (const Error& e) {
    throw DataError(fmt::format("{}: the training in it: {}", path.string(), e.what()));
  }
  return out;
}

void check_writable(const std::filesystem::path& path, bool overwrite) { check_writable(path, overwrite, 0); }

}  // namespace ebb
