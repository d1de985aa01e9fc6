#include <ebb/models/hdf5.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/foreign.h>

namespace ebb {
namespace {

using detail::Foreign;

/// An HDF5 object that is closed at the end; below 0 when the library gave none.
class Id {
 public:
  Id(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Id& operator=(Id&&) = delete;
  ~Id() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  bool good() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

class File {
 public:
  explicit File(const std::filesystem::path& path) : path_(path), file_(open(path), H5Fclose) {
    if (!file_.good()) fail("no HDF5 file");
  }

  [[noreturn]] void fail(std::string_view what) const { throw DataError(fmt::format("{}: {}", path_.string(), what)); }

  /// True when each step of the path is there.
  bool has(const std::string& path) const {
    for (std::size_t end = 0; end != path.npos;) {
      end = path.find('/', end + 1);
      if (H5Lexists(file_, path.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
    }
    return true;
  }

  /// The texts of an attribute, of fixed or variable length; false when there is none of that name.
  bool texts(const std::string& group, const char* name, std::vector<std::string>& out) const {
    if (H5Aexists_by_name(file_, group.c_str(), name, H5P_DEFAULT) <= 0) return false;
    const Id attribute(H5Aopen_by_name(file_, group.c_str(), name, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    const Id type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    if (H5Tget_class(type) != H5T_STRING || count < 0 || count > most_names) {
      // an empty list has no texts to tell the type of
      if (count == 0) return true;
      fail(fmt::format("{}: attribute {} is no list of names", group, name));
    }
    const Id memory(H5Tcopy(type), H5Tclose);
    if (H5Tis_variable_str(type) > 0) {
      std::vector<char*> list(static_cast<std::size_t>(count), nullptr);
      if (H5Aread(attribute, memory, list.data()) < 0) fail(fmt::format("{}: cannot read attribute {}", group, name));
      for (const char* text : list) out.emplace_back(text ? text : "");
      H5Dvlen_reclaim(memory, space, H5P_DEFAULT, list.data());
      return true;
    }
    const std::size_t width = H5Tget_size(type);
    if (width > 4096) fail(fmt::format("{}: attribute {} has names of {} bytes", group, name, width));
    std::string all(width * static_cast<std::size_t>(count), '\0');
    if (H5Aread(attribute, memory, all.data()) < 0) fail(fmt::format("{}: cannot read attribute {}", group, name));
    for (std::size_t at = 0; at < all.size(); at += width) {
      const std::string text = all.substr(at, width);
      out.push_back(text.substr(0, text.find('\0')));
    }
    return true;
  }

  /// A dataset of numbers as a tensor like `like`. Of another shape: not read, and the complaint is added to `problems`.
  Tensor read(const std::string& path, const Tensor& like, std::string& problems) const {
    const Id data(H5Dopen2(file_, path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!data.good()) fail(fmt::format("{} is no dataset", path));
    const Id space(H5Dget_space(data), H5Sclose), type(H5Dget_type(data), H5Tclose);
    if (H5Tget_class(type) != H5T_FLOAT) fail(fmt::format("{} does not hold floating-point numbers", path));
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(0, rank)));
    if (rank > 0) H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    const Shape& want = like.shape();
    if (rank != want.rank() || !std::equal(sizes.begin(), sizes.end(), want.begin(), [](hsize_t a, std::int64_t b) { return a == static_cast<hsize_t>(b); })) {
      problems += fmt::format("{}{} is ({}), the model has {}", problems.empty() ? "" : "; ", path, fmt::join(sizes, ", "), want.str());
      return like;
    }
    Tensor out = Tensor::empty(want, like.dtype());
    if (H5Dread(data, like.dtype() == f32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.mutable_raw()) < 0)
      fail(fmt::format("cannot read {}", path));
    return out;
  }

  /// The paths of all datasets below a group.
  std::set<std::string> datasets(const std::string& group) const {
    std::set<std::string> out;
    const auto add = [](hid_t, const char* name, const H5O_info_t* info, void* to) -> herr_t {
      if (info->type == H5O_TYPE_DATASET) static_cast<std::set<std::string>*>(to)->insert(name);
      return static_cast<std::set<std::string>*>(to)->size() > most_names ? 1 : 0;
    };
    H5Ovisit_by_name(file_, group.c_str(), H5_INDEX_NAME, H5_ITER_INC, add, &out, H5P_DEFAULT);
    return out;
  }

 private:
  static constexpr int most_names = 100'000;
  static hid_t open(const std::filesystem::path& path) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // what goes wrong is thrown, not printed
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) throw IoError(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
    ::close(fd);
    return H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  }

  std::filesystem::path path_;
  Id file_;
};

/// The places of each layer's weights among all: [first, last).
std::vector<std::pair<std::size_t, std::size_t>> layers_of(const std::vector<Foreign>& own) {
  std::vector<std::pair<std::size_t, std::size_t>> out;
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (i == 0 || own[i].layer != own[i - 1].layer) out.emplace_back(i, i);
    ++out.back().second;
  }
  return out;
}

/// Keras 2: lists of layers, and of their weights, in order.
std::vector<std::string> paths_in_order(const File& file, const std::string& top, const std::vector<std::string>& names, const std::vector<Foreign>& own) {
  std::vector<std::string> out;
  const auto layers = layers_of(own);
  std::size_t seen = 0;
  for (const std::string& layer : names) {
    const std::string group = top.empty() ? layer : top + "/" + layer;
    std::vector<std::string> weights;
    if (!file.has(group) || !file.texts(group, "weight_names", weights)) file.fail(fmt::format("{} has no weight_names", group));
    if (weights.empty()) continue;
    if (seen < layers.size() && weights.size() != layers[seen].second - layers[seen].first)
      throw ShapeError(fmt::format("{} has {} weights, {} in the model {}", group, weights.size(), own[layers[seen].first].layer, layers[seen].second - layers[seen].first));
    ++seen;
    for (const std::string& w : weights) {
      out.push_back(group + "/" + w);
      if (!file.has(out.back())) file.fail(fmt::format("{} is not there", out.back()));
    }
  }
  if (seen != layers.size()) throw ShapeError(fmt::format("the file has {} layers with weights, the model {}", seen, layers.size()));
  return out;
}

/// Keras 3: groups by the kind of layer, of which attention has more below it.
std::vector<std::string> paths_by_kind(const File& file, const std::string& top, const std::vector<Foreign>& own) {
  std::vector<std::string> out(own.size());
  std::set<std::string> extra = file.datasets(top);
  std::erase_if(extra, [](const std::string& s) { return s.find("seed_generator") != s.npos; });
  for (const auto& [first, last] : layers_of(own)) {
    const bool recurrent = file.has(top + "/" + own[first].layer + "/cell");
    std::string before;
    int number = 0;
    for (std::size_t i = first; i < last; ++i) {
      std::string inside = recurrent ? "/cell" : "";
      if (const std::size_t slash = own[i].weight.find('/'); slash != std::string::npos) {
        const std::string part = own[i].weight.substr(0, slash);
        inside = part == "attention_output" ? "/output_dense" : "/" + part + "_dense";
      }
      if (inside != before) number = 0;
      before = inside;
      const std::string path = fmt::format("{}{}/vars/{}", own[i].layer, inside, number++);
      if (extra.erase(path)) out[i] = top + "/" + path;
    }
  }
  if (!extra.empty()) throw ShapeError(fmt::format("{}/{} is extra", top, *extra.begin()));
  return out;
}

}  // namespace

void load_keras_h5(Sequential& net, const std::filesystem::path& path) {
  const File file(path);
  std::vector<Foreign> own = detail::foreign_tensors(Naming::keras, net);
  std::vector<std::string> names, paths;
  try {
    if (file.texts(".", "layer_names", names)) paths = paths_in_order(file, "", names, own);
    else if (file.has("model_weights") && file.texts("model_weights", "layer_names", names)) paths = paths_in_order(file, "model_weights", names, own);
    else if (file.has("layers")) paths = paths_by_kind(file, "layers", own);
    else if (file.has("_layer_checkpoint_dependencies")) paths = paths_by_kind(file, "_layer_checkpoint_dependencies", own);
    else file.fail("holds no weights of Keras: neither layer_names nor layers are in it");
  } catch (const ShapeError& e) {
    throw ShapeError(fmt::format("{}: {}", path.string(), e.what()));
  }
  std::vector<Tensor> values(own.size());
  std::string problems;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (!paths[i].empty()) values[i] = file.read(paths[i], own[i].value, problems);
  detail::assign_all(Naming::keras, own, values, problems, path.string());
}

}  // namespace ebb
