// Keras' HDF5 files that are none, that lead to other files, or that break the library. Only in a build with
// -DEBB_HDF5=ON.
#ifdef EBB_HDF5
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/exchange/hdf5.h>
#include <ebb/ops/ops.h>
#include <hdf5.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "corpus/readers.h"
#include "temp_dir.h"

namespace {

using namespace ebb;
namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(hid_t file, const char* name, const std::vector<hsize_t>& sizes, const std::vector<float>& values,
         hid_t how = H5P_DEFAULT) {
  const hid_t space = H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
  const hid_t data = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, how, H5P_DEFAULT);
  REQUIRE(data >= 0);
  if (!values.empty()) REQUIRE(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Dclose(data), H5Sclose(space);
}

const std::vector<float> weights{1, 2, 3, 4, 5, 6};

/// A file of Keras 3 for Dense(3) of two inputs; `kernel` makes layers/dense/vars/0.
void write(const fs::path& path, const std::function<void(hid_t)>& kernel) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  for (const char* group : {"layers", "layers/dense", "layers/dense/vars"})
    H5Gclose(H5Gcreate2(file, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  put(file, "layers/dense/vars/1", {3}, {7, 8, 9});
  kernel(file);
  H5Fclose(file);
}

std::string says(const fs::path& path) {
  Sequential net({2}, {Dense(3)});
  try {
    load_keras_h5(net, path);
  } catch (const Error& e) {
    const std::string text = e.what(), prefix = path.string() + ": ";
    CHECK(text.find('\n') == text.npos);
    return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
  }
  return "nothing";
}

}  // namespace

TEST_CASE("hdf5: a file of Keras is read, and one that leads to other files is refused") {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const TempDir dir;
  const auto path = dir / "a.weights.h5";
  write(path, [](hid_t f) { put(f, "layers/dense/vars/0", {2, 3}, weights); });
  CHECK(says(path) == "nothing");
  Sequential net({2}, {Dense(3)});
  load_keras_h5(net, path);
  CHECK(same_bits(net(ones({1, 2})), tensor({12, 15, 18}, {1, 3})));

  write(dir / "other.h5", [](hid_t f) { put(f, "layers/dense/vars/0", {2, 3}, weights); });
  std::ofstream(dir / "secret") << "this is not for everybody to read";
  write(path, [&](hid_t f) {
    const hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(how, (dir / "secret").c_str(), 0, 24);
    put(f, "layers/dense/vars/0", {2, 3}, {}, how);
    H5Pclose(how);
  });
  CHECK(says(path) == "layers/dense/vars/0 has its numbers in another file, expected them in this one");
  write(path, [&](hid_t f) {
    const hsize_t sizes[] = {2, 3};
    const hid_t space = H5Screate_simple(2, sizes, nullptr), how = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(how, space, (dir / "other.h5").c_str(), "layers/dense/vars/0", space);
    put(f, "layers/dense/vars/0", {2, 3}, {}, how);
    H5Pclose(how), H5Sclose(space);
  });
  CHECK(says(path) == "layers/dense/vars/0 is put together from other datasets, expected its own numbers");
  // the walk over Keras 3's datasets follows no link, so that the weight is not there; where a path is given, the link
  // is named
  write(path, [&](hid_t f) {
    H5Lcreate_external((dir / "other.h5").c_str(), "layers/dense/vars/0", f, "layers/dense/vars/0", H5P_DEFAULT,
                       H5P_DEFAULT);
  });
  CHECK(says(path).find("dense/kernel") != std::string::npos);
  write(path,
        [&](hid_t f) { H5Lcreate_soft("/layers/dense/vars/1", f, "layers/dense/vars/0", H5P_DEFAULT, H5P_DEFAULT); });
  CHECK(says(path).find("dense/kernel") != std::string::npos);
  {
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external((dir / "other.h5").c_str(), "layers", file, "layers", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
  }
  CHECK(says(path) == "layers is a link, expected what it leads to");
}

TEST_CASE("hdf5: a thousand broken files are refused, whatever they do to the library") {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const TempDir dir;
  write(dir / "a.weights.h5", [](hid_t f) { put(f, "layers/dense/vars/0", {2, 3}, weights); });
  const std::string good = contents(dir / "a.weights.h5");
  int refused = 0, taken = 0, crashed = 0, late = 0;
  int number = 0;
  corpus::mutate(good, [&](const std::string& bytes, corpus::Change) {
    if (++number % 2 != 0) return;  // each takes a process
    std::ofstream(dir / "bad.h5", std::ios::binary) << bytes;
    const std::string text = says(dir / "bad.h5");
    (text == "nothing" ? taken : refused) += 1;
    crashed += text.find("crashed") != std::string::npos;
    late += text.find("within") != std::string::npos;
  });
  MESSAGE("hdf5: " << refused << " refused, of which " << crashed << " crashed the library and " << late
                   << " kept it busy; " << taken << " taken");
  CHECK(refused >= 1000);
}
#endif
