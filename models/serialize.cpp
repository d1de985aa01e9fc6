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
constexpr std::string_view state_prefix = "optimizer.";

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
  const bool has_state = file.metadata.contains(optimizer_key);
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
    if (!known.contains(name) && !(has_state && name.starts_with(state_prefix))) complain(fmt::format("{} is extra", name));
  if (!problems.empty()) throw ShapeError(fmt::format("{}: {}", path.string(), problems));
  for (const NamedTensor& t : own) t.tensor->assign(file.tensors.at(t.path));
}

SafeTensors contents(Module& module, Metadata metadata) {
  SafeTensors file;
  file.metadata = std::move(metadata);
  file.metadata[version_key] = version();
  for (const NamedTensor& t : named_tensors(module)) file.tensors[t.path] = t.tensor->detach();
  return file;
}

// ---- the training so far --------------------------------------------------------------------------------------------

std::string to_json(const Optimizer& o) {
  Json groups = Json::array();
  for (const ParameterGroup& g : o.groups()) groups.push_back({{"match", g.match}, {"lr_factor", g.lr_factor}, {"decay", g.decay}});
  return Json{{"name", o.name()}, {"options", o.options()}, {"steps", o.steps()}, {"groups", groups}}.dump();
}

std::string to_json(const History& h) {
  return Json{{"values", h.values},  // what is no finite number becomes null
              {"seconds", h.seconds},
              {"interrupted", h.interrupted},
              {"partial", {{"batches", h.partial.batches}, {"loss", h.partial.loss}, {"correct", h.partial.correct}, {"seen", h.partial.seen}}}}
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

History history_from(const Json& j) {
  const auto numbers = [](const Json& list) {
    std::vector<double> out;
    for (const Json& x : list) out.push_back(x.is_null() ? NAN : x.get<double>());
    return out;
  };
  History h;
  for (const auto& [key, list] : j.at("values").items()) h.values[key] = numbers(list);
  h.seconds = numbers(j.at("seconds"));
  h.interrupted = j.at("interrupted").get<bool>();
  const Json& p = j.at("partial");
  h.partial = {p.at("batches").get<std::int64_t>(), p.at("loss").is_null() ? NAN : p.at("loss").get<double>(), p.at("correct").get<std::int64_t>(),
               p.at("seen").get<std::int64_t>()};
  return h;
}

}  // namespace

void save(Module& module, const std::filesystem::path& path, const Metadata& metadata) {
  write_safetensors(path, contents(module, metadata));
}

void load(Module& module, const std::filesystem::path& path) { restore(module, read_safetensors(path), path); }

void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path, Metadata metadata,
                const SavedTraining& training) {
  if (!net.input_shape()) throw ValueError("save_model: the model has not seen its input shape");
  metadata[architecture_key] = architecture;
  metadata[input_key] = to_text(*net.input_shape());
  if (training.optimizer) metadata[optimizer_key] = to_json(*training.optimizer);
  if (training.history) metadata[history_key] = to_json(*training.history);
  SafeTensors file = contents(net, std::move(metadata));
  if (training.optimizer)
    for (const NamedTensor& t : named_parameters(net)) {
      const auto slots = training.optimizer->state(*t.tensor);
      for (std::size_t i = 0; i < slots.size(); ++i) file.tensors[fmt::format("{}{}.{}", state_prefix, i, t.path)] = slots[i];
    }
  write_safetensors(path, file);
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
    if (const auto it = file.metadata.find(optimizer_key); it != file.metadata.end())
      out.optimizer = optimizer_from(Json::parse(it->second), out.net, file);
    if (const auto it = file.metadata.find(history_key); it != file.metadata.end()) out.history = history_from(Json::parse(it->second));
  } catch (const Json::exception& e) {
    throw DataError(fmt::format("{}: the training in it: {}", path.string(), e.what()));
  } catch (const Error& e) {
    throw DataError(fmt::format("{}: the training in it: {}", path.string(), e.what()));
  }
  return out;
}

void check_writable(const std::filesystem::path& path, bool overwrite) { check_writable(path, overwrite, 0); }

}  // namespace ebb
