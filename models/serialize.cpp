#include <ebb/models/serialize.h>

#include <fmt/format.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <algorithm>
#include <charconv>
#include <cstring>

#include <ebb/graph/error.h>
#include <ebb/models/architecture.h>
#include <ebb/models/safetensors.h>
#include <ebb/models/version.h>

namespace ebb {
namespace {

constexpr const char* architecture_key = "ebb.architecture";
constexpr const char* input_key = "ebb.input_shape";
constexpr const char* version_key = "ebb.version";

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
  std::size_t known = 0;
  for (const NamedTensor& t : own) {
    const auto it = file.tensors.find(t.path);
    if (it == file.tensors.end()) {
      complain(fmt::format("{} is missing", t.path));
      continue;
    }
    ++known;
    if (it->second.shape() != t.tensor->shape() || it->second.dtype() != t.tensor->dtype())
      complain(fmt::format("{} is {}, the model has {}", t.path, describe(it->second), describe(*t.tensor)));
  }
  if (known < file.tensors.size())
    for (const auto& [name, _] : file.tensors)
      if (std::ranges::none_of(own, [&](const NamedTensor& t) { return t.path == name; })) complain(fmt::format("{} is extra", name));
  if (!problems.empty()) throw ShapeError(fmt::format("{}: {}", path.string(), problems));
  for (const NamedTensor& t : own) t.tensor->assign(file.tensors.at(t.path));
}

}  // namespace

void save(Module& module, const std::filesystem::path& path, const Metadata& metadata) {
  SafeTensors file;
  file.metadata = metadata;
  file.metadata[version_key] = version();
  for (const NamedTensor& t : named_tensors(module)) file.tensors[t.path] = t.tensor->detach();
  write_safetensors(path, file);
}

void load(Module& module, const std::filesystem::path& path) { restore(module, read_safetensors(path), path); }

void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path, Metadata metadata) {
  if (!net.input_shape()) throw ValueError("save_model: the model has not seen its input shape");
  metadata[architecture_key] = architecture;
  metadata[input_key] = to_text(*net.input_shape());
  save(net, path, metadata);
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
  return out;
}

void check_writable(const std::filesystem::path& path, bool overwrite) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw IoError(fmt::format("{}: cannot write: it is a folder", path.string()));
  const bool exists = std::filesystem::exists(path, error);
  if (exists && !overwrite)
    throw IoError(fmt::format("{}: exists already; choose another name, or --force to overwrite it", path.string()));
  std::filesystem::path target = path;  // where a link that leads nowhere yet would lead to
  for (int hops = 0; hops < 40 && std::filesystem::is_symlink(target, error); ++hops)
    target = target.parent_path() / std::filesystem::read_symlink(target, error);
  // Only opening it tells: names can be too long, folders missing or closed, disks read-only.
  const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) throw IoError(fmt::format("{}: cannot write: {}", path.string(), std::strerror(errno)));
  ::close(fd);
  if (!exists) std::filesystem::remove(target, error);
}

}  // namespace ebb
