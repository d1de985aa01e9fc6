#include <ebb/models/data/mnist.h>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <optional>
#include <span>
#include <system_error>

#include <ebb/graph/error.h>
#include <ebb/models/data/csv.h>
#include <ebb/models/data/idx.h>
#include <ebb/models/data/synthetic.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view train_images = "train-images-idx3-ubyte";

constexpr std::array<std::string_view, 2> digit_parts{"train", "t10k"},
    digit_kinds{"images-idx3-ubyte", "labels-idx1-ubyte"};

/// train-images-idx3-ubyte is also met as train-images.idx3-ubyte.
std::string dotted(std::string_view name) {
  std::string other(name);
  other[other.rfind("-idx")] = '.';
  return other;
}

std::array<std::string, 4> spellings(std::string_view name) {
  const std::string plain(name), other = dotted(name);
  return {plain, plain + ".gz", other, other + ".gz"};
}

/// The file in its first spelling that exists. `refused` says why it cannot be told whether there is one.
std::optional<fs::path> spelled(const fs::path& folder, std::string_view name, std::error_code& refused) {
  for (const std::string& spelling : spellings(name)) {
    std::error_code error;
    fs::path path = folder / spelling;
    if (fs::exists(path, error)) return path;
    if (error) refused = error;
  }
  return std::nullopt;
}

[[noreturn]] void cannot_open(const fs::path& folder, std::string_view name, const std::error_code& why) {
  throw IoError(fmt::format("{}: cannot read: {}", (folder / name).string(), why.message()));
}

fs::path file_of(const fs::path& folder, std::string_view name) {
  std::error_code refused;
  if (const auto path = spelled(folder, name, refused)) return *path;
  if (refused) cannot_open(folder, name, refused);
  throw DataError(
      fmt::format("{}: {} is missing (nor is there {}, plain or .gz)", folder.string(), name, dotted(name)));
}

Digits load_part(const fs::path& folder, std::string_view part) {
  const fs::path image_path = file_of(folder, fmt::format("{}-{}", part, digit_kinds[0]));
  const fs::path label_path = file_of(folder, fmt::format("{}-{}", part, digit_kinds[1]));
  const Digits digits{read_idx(image_path), read_idx(label_path)};

  const Shape &images = digits.images.shape(), &labels = digits.labels.shape();
  if (images.rank() != 3 || images[1] != Digits::side || images[2] != Digits::side)
    throw DataError(
        fmt::format("{}: expected images of shape (n, 28, 28), found {}", image_path.string(), images.str()));
  if (labels.rank() != 1)
    throw DataError(fmt::format("{}: expected labels of shape (n,), found {}", label_path.string(), labels.str()));
  if (labels[0] != images[0])
    throw DataError(
        fmt::format("{}: expected {} labels, one for each image, found {}", label_path.string(), images[0], labels[0]));
  if (images[0] == 0) throw DataError(fmt::format("{}: expected at least one image, found none", image_path.string()));
  const auto values = digits.labels.values<std::uint8_t>();
  const auto wrong = std::ranges::find_if(values, [](std::uint8_t v) { return v > 9; });
  if (wrong != values.end())
    throw DataError(fmt::format("{}: byte {}: expected a label from 0 to 9, found {}", label_path.string(),
                                8 + (wrong - values.begin()), *wrong));
  return digits;
}

/// Which published set these are, told by the first training labels; nothing for anyone's own images.
std::optional<DatasetName> recognized(const Mnist& data) {
  constexpr std::array<std::uint8_t, 10> mnist{5, 0, 4, 1, 9, 2, 1, 3, 1, 4}, fashion{9, 0, 0, 3, 0, 2, 7, 2, 5, 5};
  const auto labels = data.train.labels.values<std::uint8_t>();
  const auto head = labels.first(std::min(labels.size(), mnist.size()));
  if (std::ranges::equal(head, mnist)) return DatasetName::mnist;
  if (std::ranges::equal(head, fashion)) return DatasetName::fashion;
  return std::nullopt;
}

/// The value of an environment variable; empty when it is not set.
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// An XDG base folder; `fallback` is below the home folder. Empty when there is none: the XDG specification
/// says that relative values are to be ignored.
fs::path xdg_folder(const char* name, std::string_view fallback) {
  const fs::path value = environment(name);
  if (value.is_absolute()) return value;
  const fs::path home = environment("HOME");
  return home.is_absolute() ? home / fallback : fs::path();
}

std::vector<fs::path> xdg_data_folders() {
  std::vector<fs::path> folders{xdg_folder("XDG_DATA_HOME", ".local/share")};
  std::string list = environment("XDG_DATA_DIRS");
  if (list.empty()) list = "/usr/local/share:/usr/share";
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(':', begin), list.size());
    folders.emplace_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  std::erase_if(folders, [](const fs::path& f) { return !f.is_absolute(); });
  return folders;
}

}  // namespace

Dataset Digits::scaled(double scale) const {
  const Shape& s = images.shape();
  return {images.viewed_as(s.inserted(s.rank(), 1)), labels, scale};
}

Digits Digits::take(std::span<const std::int64_t> rows) const {
  const Tensor which = Tensor::from(rows, {static_cast<std::int64_t>(rows.size())});
  return {gather(images, which), gather(labels, which)};
}

Digits Mnist::all() const { return {concat({train.images, test.images}), concat({train.labels, test.labels})}; }

Mnist Mnist::split_anew(const SplitOptions& options) const {
  const Digits table = all();
  const SplitIndices rows = split_indices(table.labels, options);
  return {table.take(rows.train), table.take(rows.test), name, source};
}

std::string_view name_of(DatasetName name) {
  constexpr std::array<std::string_view, 3> names{"mnist", "fashion-mnist", "synthetic"};
  return names[static_cast<std::size_t>(name)];
}

Mnist load_mnist(const fs::path& from) {
  std::error_code ignored;
  Mnist data{{}, {}, {}, from.string()};
  if (fs::is_regular_file(from, ignored)) {
    const Digits table = load_digits_csv(from);
    const std::int64_t n = table.size(), at = n - (n + 6) / 7;
    if (at == 0) throw DataError(fmt::format("{}: expected at least two digits, found one", from.string()));
    data.train = {table.images.rows(0, at), table.labels.rows(0, at)};
    data.test = {table.images.rows(at, n), table.labels.rows(at, n)};
  } else {
    auto test = std::async(load_part, from, "t10k");  // unpacking is most of what a program does before its first step
    data.train = load_part(from, "train");
    data.test = test.get();
  }
  data.name = name_of(recognized(data).value_or(DatasetName::mnist));
  return data;
}

std::vector<fs::path> digit_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const std::string_view part : digit_parts)
    for (const std::string_view kind : digit_kinds)
      for (const std::string& spelling : spellings(fmt::format("{}-{}", part, kind)))
        files.push_back(folder / spelling);
  return files;
}

std::vector<fs::path> dataset_folders(DatasetName name, const fs::path& data_dir) {
  if (name == DatasetName::synthetic) return {};
  const std::string_view sub = name_of(name);
  if (!data_dir.empty()) return {data_dir, data_dir / sub};

  std::vector<fs::path> folders;
  const auto add = [&](const fs::path& folder) {
    const fs::path tidy = folder.lexically_normal();
    if (std::ranges::find(folders, tidy) == folders.end()) folders.push_back(tidy);
  };
  if (const fs::path own = environment("EBB_DATA"); !own.empty()) {
    add(own);
    add(own / sub);
  }
  for (const fs::path& base : xdg_data_folders()) {
    add(base / "ebb" / sub);
    if (name == DatasetName::fashion) add(base / "datasets" / sub);
  }
  if (const fs::path cache = xdg_folder("XDG_CACHE_HOME", ".cache"); !cache.empty()) add(cache / "ebb" / sub);
  return folders;
}

Mnist find_dataset(DatasetName name, const fs::path& data_dir) {
  if (name == DatasetName::synthetic) return synthetic_digits();
  std::string places;
  for (const fs::path& folder : dataset_folders(name, data_dir)) {
    std::string reason;
    std::error_code ignored, refused;
    if (fs::is_regular_file(folder, ignored)) return load_mnist(folder);
    if (spelled(folder, train_images, refused)) {
      Mnist data = load_mnist(folder);
      const DatasetName found = recognized(data).value_or(name);
      data.name = name_of(name);
      if (found == name) return data;
      reason = fmt::format("holds {}", name_of(found));
    } else if (refused && !data_dir.empty()) {
      cannot_open(folder, train_images, refused);
    } else {
      reason = refused                       ? refused.message()
               : fs::exists(folder, ignored) ? fmt::format("no {}", train_images)
                                             : "no such folder";
    }
    places += fmt::format("\n  {}: {}", folder.string(), reason);
  }
  const std::string_view fetch =
      name == DatasetName::mnist ? "run apps/fetch-mnist (downloads it)" : "apt-get install dataset-fashion-mnist";
  throw DatasetMissing(
      fmt::format("{} was not found; looked for {} (plain or .gz) in{}\n"
                  "{}, name its folder with EBB_DATA, or take the synthetic set",
                  name_of(name), train_images, places.empty() ? " no place: HOME is not set" : places, fetch));
}

}  // namespace ebb
