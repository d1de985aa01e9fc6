#include <ebb/models/exchange/hdf5.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/exchange/foreign.h>
#include <ebb/models/files/descriptor.h>

namespace ebb {
namespace {

using detail::Foreign;
using detail::printable;

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

  /// True when each step of the path is there. Links are refused: they can lead to other files.
  bool has(const std::string& path) const {
    for (std::size_t end = 0; end != path.npos;) {
      end = path.find('/', end + 1);
      const std::string part = path.substr(0, end);
      H5L_info_t info;
      if (H5Lexists(file_, part.c_str(), H5P_DEFAULT) <= 0 || H5Lget_info(file_, part.c_str(), &info, H5P_DEFAULT) < 0)
        return false;
      if (info.type != H5L_TYPE_HARD)
        fail(fmt::format("{} is a link, expected what it leads to", printable(part, 200)));
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

  /// Reads a dataset of numbers as the elements of a tensor like `like`. Of another shape: not read, and the complaint
  /// is added to `problems`.
  void read(const std::string& path, const Tensor& like, std::byte* to, std::string& problems) const {
    const Id data(H5Dopen2(file_, path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!data.good()) fail(fmt::format("{} is no dataset", printable(path, 200)));
    const Id how(H5Dget_create_plist(data), H5Pclose);
    if (H5Pget_external_count(how) != 0)
      fail(fmt::format("{} has its numbers in another file, expected them in this one", printable(path, 200)));
    if (H5Pget_layout(how) == H5D_VIRTUAL)
      fail(fmt::format("{} is put together from other datasets, expected its own numbers", printable(path, 200)));
    const Id space(H5Dget_space(data), H5Sclose), type(H5Dget_type(data), H5Tclose);
    if (H5Tget_class(type) != H5T_FLOAT) fail(fmt::format("{} does not hold floating-point numbers", path));
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(0, rank)));
    if (rank > 0) H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    const Shape& want = like.shape();
    if (rank != want.rank() || !std::equal(sizes.begin(), sizes.end(), want.begin(),
                                           [](hsize_t a, std::int64_t b) { return a == static_cast<hsize_t>(b); })) {
      problems += fmt::format("{}{} is ({}), the model has {}", problems.empty() ? "" : "; ", path,
                              fmt::join(sizes, ", "), want.str());
      return;
    }
    if (H5Dread(data, like.dtype() == f32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) <
        0)
      fail(fmt::format("cannot read {}", path));
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
    detail::InputFile{path};                      // throws what the system refuses, which the library does not tell
    H5PLset_loading_state(0);                     // a file may ask for a library to unpack it
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
std::vector<std::string> paths_in_order(const File& file, const std::string& top, const std::vector<std::string>& names,
                                        const std::vector<Foreign>& own) {
  std::vector<std::string> out;
  const auto layers = layers_of(own);
  std::size_t seen = 0;
  for (const std::string& layer : names) {
    const std::string group = top.empty() ? layer : top + "/" + layer;
    std::vector<std::string> weights;
    if (!file.has(group) || !file.texts(group, "weight_names", weights))
      file.fail(fmt::format("{} has no weight_names", group));
    if (weights.empty()) continue;
    if (seen < layers.size() && weights.size() != layers[seen].second - layers[seen].first)
      throw ShapeError(fmt::format("{} has {} weights, {} in the model {}", group, weights.size(),
                                   own[layers[seen].first].layer, layers[seen].second - layers[seen].first));
    ++seen;
    for (const std::string& w : weights) {
      out.push_back(group + "/" + w);
      if (!file.has(out.back())) file.fail(fmt::format("{} is not there", out.back()));
    }
  }
  if (seen != layers.size())
    throw ShapeError(fmt::format("the file has {} layers with weights, the model {}", seen, layers.size()));
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

// ---- the process that reads -----------------------------------------------------------------------------------------

/// What the child found, as it goes through a pipe: a letter, and a text.
enum class Found : char { values = 'v', shape_error = 's', data_error = 'd', io_error = 'i' };

/// Of this process, in bytes; 0 when the system does not say.
rlim_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

void limit(int what, rlim_t most) {
  const rlimit l{most, most};
  ::setrlimit(static_cast<__rlimit_resource>(what), &l);
}

/// Seconds for a file of a size: many times what reading takes.
int patience(std::uintmax_t bytes) { return 10 + static_cast<int>(std::min<std::uintmax_t>(bytes >> 22, 100'000)); }

/// Reads the weights into `to`, one behind the other, in the order of `own`. Text: for each weight whether it is there,
/// then the problems.
std::string read_weights(const std::filesystem::path& path, const std::vector<Foreign>& own, std::span<std::byte> to,
                         rlim_t memory, int seconds) {
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, static_cast<rlim_t>(seconds));
  const File file(path);
  limit(RLIMIT_NOFILE, 0);  // whatever the library is talked into, it opens no other file
#ifndef __SANITIZE_ADDRESS__
  if (memory) limit(RLIMIT_AS, memory);
#endif
  std::vector<std::string> names, paths;
  if (file.texts(".", "layer_names", names)) paths = paths_in_order(file, "", names, own);
  else if (file.has("model_weights") && file.texts("model_weights", "layer_names", names))
    paths = paths_in_order(file, "model_weights", names, own);
  else if (file.has("layers")) paths = paths_by_kind(file, "layers", own);
  else if (file.has("_layer_checkpoint_dependencies"))
    paths = paths_by_kind(file, "_layer_checkpoint_dependencies", own);
  else file.fail("holds no weights of Keras: neither layer_names nor layers are in it");
  std::string there, problems;
  for (std::size_t i = 0; i < own.size(); ++i) {
    there += paths[i].empty() ? '0' : '1';
    if (!paths[i].empty()) file.read(paths[i], own[i].value, to.data(), problems);
    to = to.subspan(own[i].value.bytes());
  }
  return there + problems;
}

/// Memory that a child writes and its parent reads.
class Shared {
 public:
  explicit Shared(std::size_t bytes)
      : bytes_(std::max<std::size_t>(1, bytes)),
        at_(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (at_ == MAP_FAILED) throw MemoryError(fmt::format("load_keras_h5: no memory for {} bytes", bytes_));
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(at_, bytes_); }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(at_), bytes_}; }

 private:
  std::size_t bytes_;
  void* at_;
};

/// What a pipe gives until its end or the deadline; false at the deadline.
bool read_all(int fd, int seconds, std::string& out) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  for (std::array<char, 4096> part;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd p{fd, POLLIN, 0};
    const int ready = left > 0 ? ::poll(&p, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    const ssize_t n = ready > 0 ? ::read(fd, part.data(), part.size()) : -1;
    if (n == 0) return true;
    if (n < 0 || out.size() > std::size_t{1} << 20) return false;
    out.append(part.data(), static_cast<std::size_t>(n));
  }
}

/// read_weights() in a child process, since a broken file can make the library crash or never end. A thread of this
/// process may hold a lock when the child is made; the child takes none (it makes no tensor) but malloc's, which the C
/// library frees for it, and the HDF5 library's state, which `alone` keeps still.
std::pair<Found, std::string> read_apart(const std::filesystem::path& path, const std::vector<Foreign>& own,
                                         std::span<std::byte> to) {
  static std::mutex alone;
  const std::lock_guard lock(alone);
  std::error_code ignored;
  const auto size = std::filesystem::file_size(path, ignored);
  const rlim_t now = address_space(), memory = now && !ignored ? now + size + (rlim_t{64} << 20) + to.size() : 0;
  const int seconds = patience(ignored ? 0 : size);
  const auto refused = [&] { return IoError(fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno))); };
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw refused();
  const detail::Descriptor from(ends[0]);
  detail::Descriptor to_parent(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw refused();
  if (child == 0) {
    for (const int s : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGINT, SIGTERM}) ::signal(s, SIG_DFL);
    std::string out;
    try {
      out = static_cast<char>(Found::values) + read_weights(path, own, to, memory, seconds);
    } catch (const ShapeError& e) {
      out = fmt::format("{}{}: {}", static_cast<char>(Found::shape_error), path.string(), e.what());
    } catch (const IoError& e) {
      out = static_cast<char>(Found::io_error) + std::string(e.what());
    } catch (const Error& e) {
      out = static_cast<char>(Found::data_error) + std::string(e.what());
    } catch (const std::exception&) {
      out = fmt::format("{}{}: takes more memory to read than its size allows", static_cast<char>(Found::data_error),
                        path.string());
    }
    for (std::size_t done = 0; done < out.size();) {
      const ssize_t n = ::write(to_parent.fd(), out.data() + done, out.size() - done);
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    ::_exit(0);
  }
  to_parent = detail::Descriptor();
  std::string text;
  const bool ended = read_all(from.fd(), 6 * seconds, text);  // of the clock: the machine may be busy
  if (!ended) ::kill(child, SIGKILL);
  int status = 0;
  detail::retried([&] { return ::waitpid(child, &status, 0); });
  if (!ended)
    return {Found::data_error,
            fmt::format("{}: the HDF5 library has not read it within {} s", path.string(), 6 * seconds)};
  if (!WIFEXITED(status) || text.empty())
    return {Found::data_error,
            fmt::format("{}: the HDF5 library crashed on it ({}): expected a file that is not damaged", path.string(),
                        ::strsignal(WIFSIGNALED(status) ? WTERMSIG(status) : SIGABRT))};
  return {static_cast<Found>(text[0]), text.substr(1)};
}

}  // namespace

void load_keras_h5(Sequential& net, const std::filesystem::path& path) {
  std::vector<Foreign> own = detail::foreign_tensors(Naming::keras, net);
  std::size_t bytes = 0;
  for (const Foreign& f : own) bytes += f.value.bytes();
  const Shared shared(bytes);
  const auto [found, text] = read_apart(path, own, shared.bytes());
  if (found == Found::shape_error) throw ShapeError(text);
  if (found == Found::io_error) throw IoError(text);
  if (found != Found::values || text.size() < own.size()) throw DataError(text);
  std::vector<Tensor> values(own.size());
  const std::byte* from = shared.bytes().data();
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (text[i] == '1') {
      values[i] = Tensor::empty(own[i].value.shape(), own[i].value.dtype());
      std::memcpy(values[i].mutable_raw(), from, values[i].bytes());
    }
    from += own[i].value.bytes();
  }
  detail::assign_all(Naming::keras, own, values, text.substr(own.size()), path.string());
}

}  // namespace ebb
