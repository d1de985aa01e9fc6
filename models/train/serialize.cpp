// A model file is a safetensors file.
//
// Its tensors:
//   PATH                the parameters and buffers of the model to use: the trained ones, their averages, or those
//                       of the best epoch
//   training.PATH       what training continues from, where that is not PATH
//   optimizer.N.PATH    the N-th tensor of the optimizer's state for a parameter
//   callback.NAME.KEY   a tensor of a callback's state
//
// The texts in its metadata:
//   ebb.architecture, ebb.input_shape, ebb.version
//   ebb.frozen          JSON: the paths of frozen parameters, and of frozen layers that have running averages but no
//                       parameters; left out when there are none
//   ebb.optimizer       JSON: {name, options, steps, groups}
//   ebb.history         JSON: {values: {KEY: [..]}, seconds: [..], interrupted, partial: {batches, loss, correct, seen,
//                       classes, seconds}, callbacks: {NAME: {NUMBER: ..}}}; NaN is null, infinities are "inf", "-inf"
//   ebb.build           JSON: compiler, BLAS and instruction set of the training (build_facts), with a history
//
// Older files lack ebb.frozen, ebb.build, training., callback., classes, seconds and callbacks, have null for
// infinities too, and older names of the optimizer's options.
#include <ebb/models/train/serialize.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/checked_json.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/files/version.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/from_file.h>

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

Shape shape_from(const std::string& text) {
  std::vector<std::int64_t> sizes;
  for (const char *p = text.data(), *end = p + text.size();; ++p) {
    std::int64_t n = 0;
    const auto [stop, error] = std::from_chars(p, end, n);
    if (error != std::errc() || n < 1 || n > 65536 || (stop != end && *stop != ','))
      throw ValueError(
          fmt::format("\"{}\" is not an input shape; expected sizes such as 28,28,1", detail::printable(text, 80)));
    sizes.push_back(n);
    if (stop == end) return Shape(sizes);
    p = stop;
  }
}

/// Copies the file's tensors into the module's; nothing is changed unless all fit.
void restore(Module& module, const SafeTensors& file, const std::filesystem::path& path) {
  std::string problems;
  std::size_t count = 0;
  const auto complain = [&](const std::string& what) {
    constexpr std::size_t shown = 100;
    if (++count <= shown) problems += (problems.empty() ? "" : "; ") + what;
    else if (count == shown + 1) problems += "; and more";
  };
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
        !(has_history && (name.starts_with(training_prefix) || name.starts_with(callback_prefix))))
      complain(fmt::format("{} is extra", detail::printable(name, 80)));
  if (!problems.empty()) throw ShapeError(fmt::format("{}: {}", path.string(), problems));
  for (const NamedTensor& t : own) t.tensor->assign(file.tensors.at(t.path));
}

// ---- the training so far --------------------------------------------------------------------------------------------

std::string to_json(const Optimizer& o) {
  Json groups = Json::array();
  for (const ParameterGroup& g : o.groups())
    groups.push_back({{"match", g.match}, {"lr_factor", g.lr_factor}, {"decay", g.decay}});
  return Json{{"name", o.name()}, {"options", o.options()}, {"steps", o.steps()}, {"groups", groups}}.dump();
}

/// JSON has no infinities, which become texts, and no NaN, which becomes null.
Json number(double x) { return std::isinf(x) ? Json(x > 0 ? "inf" : "-inf") : Json(x); }

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
              {"partial",
               {{"batches", p.batches},
                {"loss", number(p.loss)},
                {"correct", p.correct},
                {"seen", p.seen},
                {"classes", p.classes},
                {"seconds", p.seconds}}},
              {"callbacks", callbacks}}
      .dump();
}

using detail::CheckedJson;

std::unique_ptr<Optimizer> optimizer_from(const CheckedJson& j, Sequential& net, const SafeTensors& file) {
  OptimizerOptions options;
  for (const auto& [key, value] : detail::object_of(j, "options").items()) options[key] = detail::number(value, key);
  auto out = make_optimizer(detail::text(j, "name"), options);
  out->set_steps(detail::whole(j, "steps"));
  std::vector<ParameterGroup> groups;
  for (const CheckedJson& g : detail::list(j, "groups"))
    groups.push_back({detail::text(g, "match"), detail::number(detail::member(g, "lr_factor"), "lr_factor"),
                      detail::flag(g, "decay")});
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
  if (used != stored)
    throw ValueError(fmt::format("{} tensors of optimizer state, {} belong to parameters", stored, used));
  return out;
}

History history_from(const CheckedJson& j, Sequential& net, const SafeTensors& file) {
  const auto numbers = [](const CheckedJson& list, const std::string& name) {
    std::vector<double> out;
    if (!list.is_array()) detail::expected(name, "a list of numbers", list);
    for (const CheckedJson& x : list) out.push_back(detail::number(x, name));
    return out;
  };
  History h;
  h.seconds = numbers(detail::list(j, "seconds"), "seconds");
  for (const double s : h.seconds)
    if (!(s >= 0)) throw ValueError(fmt::format("seconds: an epoch took {}, expected at least 0", s));
  for (const auto& [key, list] : detail::object_of(j, "values").items()) {
    std::vector<double>& of_key = h.values[key] = numbers(list, key);
    // A number that is measured only from a later epoch on has fewer.
    if (of_key.empty() || of_key.size() > h.seconds.size() || (key == "loss" && of_key.size() < h.seconds.size()))
      throw ValueError(fmt::format("{}: expected {} numbers, one for each epoch, found {}", detail::printable(key, 40),
                                   h.seconds.size(), of_key.size()));
  }
  h.interrupted = detail::flag(j, "interrupted");
  const CheckedJson& p = detail::object_of(j, "partial");
  h.partial = {detail::whole(p, "batches"),
               detail::number(detail::member(p, "loss"), "loss"),
               detail::whole(p, "correct"),
               detail::whole(p, "seen"),
               !p.contains("classes") || detail::flag(p, "classes"),
               p.contains("seconds") ? detail::number(p.at("seconds"), "seconds") : 0.0};
  if (!(h.partial.seconds >= 0))
    throw ValueError(fmt::format("seconds: an epoch took {}, expected at least 0", h.partial.seconds));
  if (h.partial.correct > h.partial.seen)
    throw ValueError(fmt::format("correct: {} of {} samples", h.partial.correct, h.partial.seen));
  if (j.contains("callbacks"))
    for (const auto& [name, state] : detail::object_of(j, "callbacks").items()) {
      if (!state.is_object()) detail::expected(name, "an object", state);
      for (const auto& [key, x] : state.items()) h.callbacks[name].numbers[key] = detail::number(x, key);
    }
  std::map<std::string, const Tensor*> own;
  for (const NamedTensor& t : named_tensors(net)) own[t.path] = t.tensor;
  for (const auto& [name, t] : file.tensors) {
    if (name.starts_with(training_prefix)) {
      const std::string path = name.substr(training_prefix.size());
      const auto it = own.find(path);
      if (it == own.end() || it->second->shape() != t.shape() || it->second->dtype() != t.dtype())
        throw ValueError(fmt::format("{} {} does not belong to the model", detail::printable(name, 80), describe(t)));
      h.weights[path] = t;
    } else if (name.starts_with(callback_prefix)) {
      const std::size_t begin = callback_prefix.size(), dot = name.find('.', begin);
      if (dot == std::string::npos)
        throw ValueError(fmt::format("{}: names no callback and key", detail::printable(name, 80)));
      h.callbacks[name.substr(begin, dot - begin)].tensors[name.substr(dot + 1)] = t;
    }
  }
  return h;
}

/// Layers with buffers but without parameters, by path: only their own mark says whether they are frozen.
class FrozenAverages : public Visitor {
 public:
  std::map<std::string, Module*> found;

 private:
  void on_module(std::string_view name, Module& m) override {
    const auto own = named_tensors(m);
    if (!own.empty() && std::ranges::none_of(own, &NamedTensor::trained)) found[path(name)] = &m;
  }
};

/// Freezes the parameters in this list.
void freeze_listed(Sequential& net, const CheckedJson& j) {
  std::vector<std::string> paths;
  if (!j.is_array()) detail::expected("frozen", "a list of parameters", j);
  for (const CheckedJson& path : j) {
    if (!path.is_string()) detail::expected("frozen", "the name of a parameter", path);
    paths.push_back(path.get<std::string>());
  }
  std::unordered_set<std::string_view> listed(paths.begin(), paths.end());
  for (const NamedTensor& t : named_tensors(net))
    if (t.trained && listed.erase(t.path) > 0) *t.tensor = t.tensor->detach();
  FrozenAverages averages;
  net.visit(averages);
  for (const auto& [layer, module] : averages.found)
    if (listed.erase(layer) > 0) freeze(*module);
  if (!listed.empty())
    throw ValueError(fmt::format("frozen: the model has no parameter \"{}\"", detail::printable(*listed.begin(), 80)));
}

}  // namespace

SafeTensors model_contents(Module& module, Metadata metadata) {
  SafeTensors file;
  file.metadata = std::move(metadata);
  file.metadata[version_key] = version();
  expect_built("save", module);
  for (const NamedTensor& t : named_tensors(module)) file.tensors[t.path] = t.tensor->detach();
  return file;
}

void save(Module& module, const std::filesystem::path& path, const Metadata& metadata) {
  write_safetensors(path, model_contents(module, metadata));
}

void load(Module& module, const std::filesystem::path& path) {
  expect_built("load", module);
  restore(module, read_safetensors(path), path);
}

void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path, Metadata metadata,
                const SavedTraining& training) {
  write_safetensors(path, model_contents(net, architecture, std::move(metadata), training));
}

SafeTensors model_contents(Sequential& net, const std::string& architecture, Metadata metadata,
                           const SavedTraining& training) {
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
  FrozenAverages averages;
  net.visit(averages);
  for (const auto& [layer, module] : averages.found)
    if (module->frozen()) frozen.push_back(layer);
  if (!frozen.empty()) metadata[frozen_key] = frozen.dump();
  SafeTensors file = model_contents(static_cast<Module&>(net), std::move(metadata));
  if (training.optimizer)
    for (const NamedTensor& t : named_parameters(net)) {
      const auto slots = training.optimizer->state(*t.tensor);
      for (std::size_t i = 0; i < slots.size(); ++i)
        file.tensors[fmt::format("{}{}.{}", state_prefix, i, t.path)] = slots[i];
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
    if (it == file.metadata.end())
      throw DataError(fmt::format("{}: holds no architecture ({} is not in its metadata)", path.string(), key));
    return it->second;
  };
  SavedModel out;
  out.architecture = value(architecture_key);
  out.metadata = file.metadata;
  const std::string input = value(input_key);
  std::int64_t elements = std::int64_t{1} << 22;  // so many more, so that a file which almost fits is refused by name
  for (const auto& [name, t] : file.tensors)
    elements += name.starts_with(state_prefix) || name.starts_with(callback_prefix) ? 0 : t.numel();
  try {
    const detail::FromFile filled(elements);
    out.net = Sequential(shape_from(input), parse_architecture(out.architecture));
  } catch (const Error& e) {  // the first line: an architecture's error has its text with a mark below
    const std::string_view what = e.what();
    throw DataError(fmt::format("{}: {}", path.string(), what.substr(0, what.find('\n'))));
  }
  try {
    restore(out.net, file, path);
  } catch (const ShapeError& e) {  // names the path already
    throw DataError(e.what());
  }
  try {
    if (const auto it = file.metadata.find(frozen_key); it != file.metadata.end())
      freeze_listed(out.net, detail::parse_json(it->second));
    if (const auto it = file.metadata.find(optimizer_key); it != file.metadata.end())
      out.optimizer = optimizer_from(detail::parse_json(it->second), out.net, file);
    if (const auto it = file.metadata.find(history_key); it != file.metadata.end())
      out.history = history_from(detail::parse_json(it->second), out.net, file);
  } catch (const Error& e) {
    throw DataError(fmt::format("{}: the training in it: {}", path.string(), e.what()));
  }
  return out;
}

}  // namespace ebb
