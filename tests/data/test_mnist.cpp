#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/idx.h>
#include <ebb/models/data/mnist.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace {

namespace fs = std::filesystem;
using ebb::DatasetName;
using Paths = std::vector<fs::path>;

/// Sets environment variables (nullptr: removes them) and puts the old values back.
class Environment {
 public:
  void set(const char* name, const char* value) {
    const char* old = ::getenv(name);
    old_.push_back({name, old ? std::optional<std::string>(old) : std::nullopt});
    put(name, value);
  }
  void set(const char* name, const fs::path& value) { set(name, value.c_str()); }
  Environment() = default;
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() {
    for (auto it = old_.rbegin(); it != old_.rend(); ++it) put(it->name, it->value ? it->value->c_str() : nullptr);
  }

 private:
  struct Variable {
    const char* name;
    std::optional<std::string> value;
  };
  static void put(const char* name, const char* value) {
    if (value) ::setenv(name, value, 1);
    else ::unsetenv(name);
  }
  std::vector<Variable> old_;
};

/// An environment in which nothing is found but below `home`.
void isolate(Environment& env, const fs::path& home) {
  env.set("HOME", home);
  env.set("XDG_DATA_HOME", nullptr);
  env.set("XDG_DATA_DIRS", home / "system");
  env.set("XDG_CACHE_HOME", nullptr);
  env.set("EBB_DATA", nullptr);
}

ebb::Tensor bytes(const ebb::Shape& shape, std::uint8_t value) { return ebb::full(shape, value, ebb::u8); }

/// Four small files; `mark` is the value of all training pixels.
void fake(const fs::path& folder, std::uint8_t mark = 1) {
  fs::create_directories(folder);
  ebb::write_idx(folder / "train-images-idx3-ubyte", bytes({3, 28, 28}, mark));
  ebb::write_idx(folder / "train-labels-idx1-ubyte", bytes({3}, 7));
  ebb::write_idx(folder / "t10k-images-idx3-ubyte.gz", bytes({2, 28, 28}, 2));
  ebb::write_idx(folder / "t10k-labels-idx1-ubyte.gz", bytes({2}, 9));
}

int mark_of(const ebb::Mnist& data) { return data.train.images.values<std::uint8_t>()[0]; }

std::array<int, 10> class_counts(const ebb::Tensor& labels) {
  std::array<int, 10> counts{};
  for (const std::uint8_t v : labels.values<std::uint8_t>()) ++counts[v];
  return counts;
}

std::string error_of(const fs::path& folder) {
  try {
    ebb::load_mnist(folder);
  } catch (const ebb::DataError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("mnist: the real set") {
  const char* given = ::getenv("EBB_DATA");
  const fs::path root = given ? given : "";
  const bool there = given && (fs::exists(root / "mnist") || fs::exists(root / "train-images-idx3-ubyte.gz") ||
                               fs::exists(root / "train-images-idx3-ubyte"));
  if (!there) {
    MESSAGE("skipped: EBB_DATA names no folder with MNIST");
    return;
  }
  const ebb::Mnist data = ebb::find_dataset(DatasetName::mnist);
  CHECK(data.name == "mnist");
  CHECK(data.source.starts_with(root.string()));
  CHECK(data.train.images.shape() == ebb::Shape{60000, 28, 28});
  CHECK(data.train.labels.shape() == ebb::Shape{60000});
  CHECK(data.test.images.shape() == ebb::Shape{10000, 28, 28});
  CHECK(data.test.labels.shape() == ebb::Shape{10000});
  CHECK(data.train.labels.values<std::uint8_t>()[0] == 5);
  CHECK(class_counts(data.train.labels) ==
        std::array<int, 10>{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949});
  const auto first = data.train.images.values<std::uint8_t>().first(784);
  CHECK(std::accumulate(first.begin(), first.end(), 0) / 784. == doctest::Approx(35.108418367).epsilon(1e-10));
  // Asked for the other set, the search is not fooled by the name of the folder.
  CHECK_THROWS_AS(ebb::find_dataset(DatasetName::fashion, data.source), ebb::DataError);
}

TEST_CASE("mnist: both spellings, plain and gzip") {
  for (const std::string suffix : {"", ".gz"})
    for (const char separator : {'-', '.'}) {
      const TempDir dir;
      int n = 4;
      for (const std::string part : {"train", "t10k"}) {
        ebb::write_idx(dir / (part + "-images" + separator + "idx3-ubyte" + suffix), bytes({n, 28, 28}, 3));
        ebb::write_idx(dir / (part + "-labels" + separator + "idx1-ubyte" + suffix), bytes({n}, 8));
        n = 2;
      }
      const ebb::Mnist data = ebb::load_mnist(dir.path());
      CHECK(data.train.images.shape() == ebb::Shape{4, 28, 28});
      CHECK(data.test.labels.shape() == ebb::Shape{2});
      CHECK(data.name == "mnist");
      CHECK(data.source == dir.path().string());
    }
}

TEST_CASE("mnist: what is wrong with a folder") {
  const TempDir dir;
  const std::string at = dir.path().string();
  CHECK(error_of(dir.path()) ==
        at + ": train-images-idx3-ubyte is missing (nor is there train-images.idx3-ubyte, plain or .gz)");
  fake(dir.path());
  CHECK(error_of(dir.path()) == "no error");

  fs::remove(dir / "t10k-labels-idx1-ubyte.gz");
  CHECK(error_of(dir.path()) ==
        at + ": t10k-labels-idx1-ubyte is missing (nor is there t10k-labels.idx1-ubyte, plain or .gz)");

  fake(dir.path());
  ebb::write_idx(dir / "train-labels-idx1-ubyte", bytes({4}, 7));
  CHECK(error_of(dir.path()) == at + "/train-labels-idx1-ubyte: expected 3 labels, one for each image, found 4");

  fake(dir.path());
  ebb::write_idx(dir / "train-labels-idx1-ubyte", ebb::tensor({9, 10, 3}, ebb::u8));
  CHECK(error_of(dir.path()) == at + "/train-labels-idx1-ubyte: byte 9: expected a label from 0 to 9, found 10");
  ebb::write_idx(dir / "train-labels-idx1-ubyte", bytes({3, 1}, 7));
  CHECK(error_of(dir.path()) == at + "/train-labels-idx1-ubyte: expected labels of shape (n,), found (3, 1)");

  fake(dir.path());
  ebb::write_idx(dir / "train-images-idx3-ubyte", bytes({3, 32, 32}, 7));
  CHECK(error_of(dir.path()) ==
        at + "/train-images-idx3-ubyte: expected images of shape (n, 28, 28), found (3, 32, 32)");
}

TEST_CASE("mnist: where it is looked for") {
  const TempDir dir;
  const fs::path home = dir.path();
  Environment env;
  isolate(env, home);
  CHECK(ebb::dataset_folders(DatasetName::synthetic).empty());
  CHECK(ebb::dataset_folders(DatasetName::mnist, "d") == Paths{"d", "d/mnist"});
  CHECK(ebb::dataset_folders(DatasetName::fashion, "d") == Paths{"d", "d/fashion-mnist"});
  CHECK(ebb::dataset_folders(DatasetName::mnist) ==
        Paths{home / ".local/share/ebb/mnist", home / "system/ebb/mnist", home / ".cache/ebb/mnist"});

  env.set("XDG_DATA_DIRS", nullptr);
  CHECK(ebb::dataset_folders(DatasetName::fashion) ==
        Paths{home / ".local/share/ebb/fashion-mnist", home / ".local/share/datasets/fashion-mnist",
              "/usr/local/share/ebb/fashion-mnist", "/usr/local/share/datasets/fashion-mnist",
              "/usr/share/ebb/fashion-mnist", "/usr/share/datasets/fashion-mnist", home / ".cache/ebb/fashion-mnist"});

  env.set("EBB_DATA", "data");  // may be relative, unlike XDG's
  env.set("XDG_DATA_HOME", "relative");
  env.set("XDG_CACHE_HOME", "/c");
  env.set("XDG_DATA_DIRS", "relative:/a:/b:/a/::");
  CHECK(ebb::dataset_folders(DatasetName::mnist) ==
        Paths{"data", "data/mnist", home / ".local/share/ebb/mnist", "/a/ebb/mnist", "/b/ebb/mnist", "/c/ebb/mnist"});

  env.set("HOME", nullptr);
  env.set("EBB_DATA", "");
  env.set("XDG_CACHE_HOME", nullptr);
  env.set("XDG_DATA_DIRS", "/a");
  CHECK(ebb::dataset_folders(DatasetName::mnist) == Paths{"/a/ebb/mnist"});
}

TEST_CASE("mnist: the first folder of the search wins") {
  const TempDir dir;
  Environment env;
  isolate(env, dir.path());
  env.set("EBB_DATA", dir / "own");
  const auto found = [](const fs::path& data_dir = {}) {
    return mark_of(ebb::find_dataset(DatasetName::mnist, data_dir));
  };
  fake(dir / ".cache/ebb/mnist", 60);
  CHECK(found() == 60);
  fake(dir / "system/ebb/mnist", 50);
  CHECK(found() == 50);
  fake(dir / ".local/share/ebb/mnist", 40);
  CHECK(found() == 40);
  fake(dir / "own/mnist", 30);
  CHECK(found() == 30);
  fake(dir / "own", 20);
  CHECK(found() == 20);
  fake(dir / "given/mnist", 10);
  CHECK(found(dir / "given") == 10);
  fake(dir / "given", 5);
  CHECK(found(dir / "given") == 5);
  CHECK(ebb::find_dataset(DatasetName::mnist).source == (dir / "own").string());
  CHECK_THROWS_AS(found(dir / "elsewhere"), ebb::DataError);  // a given folder is the only one

  fs::remove(dir / "own/t10k-images-idx3-ubyte.gz");  // half a set is an error, not passed over
  CHECK_THROWS_AS(found(), ebb::DataError);
}

TEST_CASE("mnist: a folder with the other set is passed over") {
  const TempDir dir;
  Environment env;
  isolate(env, dir.path());
  env.set("EBB_DATA", dir / "own");
  const auto labeled = [&](const fs::path& folder, const ebb::Tensor& labels) {
    fake(folder);
    ebb::write_idx(folder / "train-images-idx3-ubyte", bytes({10, 28, 28}, 1));
    ebb::write_idx(folder / "train-labels-idx1-ubyte", labels);
  };
  labeled(dir / "own", ebb::tensor({5, 0, 4, 1, 9, 2, 1, 3, 1, 4}, ebb::u8));
  labeled(dir / "system/datasets/fashion-mnist", ebb::tensor({9, 0, 0, 3, 0, 2, 7, 2, 5, 5}, ebb::u8));
  const ebb::Mnist fashion = ebb::find_dataset(DatasetName::fashion);
  CHECK(fashion.name == "fashion-mnist");
  CHECK(fashion.source == (dir / "system/datasets/fashion-mnist").string());
  CHECK(ebb::load_mnist(fashion.source).name == "fashion-mnist");
  CHECK(ebb::find_dataset(DatasetName::mnist).source == (dir / "own").string());
}

TEST_CASE("mnist: not found") {
  const TempDir dir;
  const std::string home = dir.path().string();
  Environment env;
  isolate(env, dir.path());
  fs::create_directories(dir / "system/ebb/mnist");
  CHECK_THROWS_WITH_AS(ebb::find_dataset(DatasetName::mnist),
                       ("mnist was not found; looked for train-images-idx3-ubyte (plain or .gz) in\n"
                        "  " +
                        home +
                        "/.local/share/ebb/mnist: no such folder\n"
                        "  " +
                        home +
                        "/system/ebb/mnist: no train-images-idx3-ubyte\n"
                        "  " +
                        home +
                        "/.cache/ebb/mnist: no such folder\n"
                        "run apps/fetch-mnist (downloads it), name its folder with EBB_DATA, "
                        "or take the synthetic set")
                           .c_str(),
                       ebb::DatasetMissing);
  CHECK_THROWS_WITH_AS(ebb::find_dataset(DatasetName::fashion, dir / "system"),
                       ("fashion-mnist was not found; looked for train-images-idx3-ubyte (plain or .gz) in\n"
                        "  " +
                        home +
                        "/system: no train-images-idx3-ubyte\n"
                        "  " +
                        home +
                        "/system/fashion-mnist: no such folder\n"
                        "apt-get install dataset-fashion-mnist, name its folder with EBB_DATA, "
                        "or take the synthetic set")
                           .c_str(),
                       ebb::DataError);
}

TEST_CASE("mnist: a folder that cannot be looked into is not one in which files are missing") {
  const TempDir dir;
  const fs::path images = dir / "train-images-idx3-ubyte", labels = dir / "t10k-labels-idx1-ubyte";
  fs::create_symlink("t10k-labels-idx1-ubyte", labels);
  const std::string loop = ": cannot read: Too many levels of symbolic links";
  {
    fake(dir.path());
    fs::remove(dir / "t10k-labels-idx1-ubyte.gz");
    CHECK_THROWS_WITH_AS(ebb::load_mnist(dir.path()), (labels.string() + loop).c_str(), ebb::IoError);
  }
  fs::remove(images);
  fs::create_symlink("train-images-idx3-ubyte", images);
  CHECK_THROWS_WITH_AS(ebb::find_dataset(DatasetName::mnist, dir.path()), (images.string() + loop).c_str(),
                       ebb::IoError);
  fs::remove(images);

  // Root may enter any folder, so root becomes somebody else.
  fs::permissions(dir.path(), fs::perms::none);
  const uid_t me = ::geteuid();
  if (me == 0) REQUIRE(::seteuid(65534) == 0);
  const std::string denied = images.string() + ": cannot read: Permission denied";
  CHECK_THROWS_WITH_AS(ebb::load_mnist(dir.path()), denied.c_str(), ebb::IoError);
  CHECK_THROWS_WITH_AS(ebb::find_dataset(DatasetName::mnist, dir.path()), denied.c_str(), ebb::IoError);
  CHECK(::seteuid(me) == 0);

  // One of the places where data may be is only passed over, with the reason.
  Environment env;
  isolate(env, dir.path());
  env.set("XDG_DATA_DIRS", dir / "none");
  if (me == 0) REQUIRE(::seteuid(65534) == 0);
  try {
    ebb::find_dataset(DatasetName::mnist);
    FAIL_CHECK("found");
  } catch (const ebb::DataError& e) {
    CHECK(std::string(e.what()).find("/none/ebb/mnist: Permission denied\n") != std::string::npos);
  }
  CHECK(::seteuid(me) == 0);
  fs::permissions(dir.path(), fs::perms::owner_all);
}
