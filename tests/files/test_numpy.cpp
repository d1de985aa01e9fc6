// NumPy's files. What numpy itself writes and reads is compared in tests/interop.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/files/byte_source.h>
#include <ebb/models/files/numpy.h>

#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "temp_dir.h"
#include "zip_file.h"

using namespace ebb;

namespace {

const std::string mark = "\x93NUMPY";

/// A .npy file by hand: version 1, a header that ends in a newline, the elements.
std::string npy(std::string header, std::string_view elements, char version = 1) {
  header += '\n';
  return mark + std::string{version, '\0'} + little(static_cast<std::uint32_t>(header.size()), version == 1 ? 2 : 4) +
         header + std::string(elements);
}

void put(const std::filesystem::path& path, std::string_view bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string get(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The message of reading these bytes, without the path.
std::string says(std::string_view bytes) {
  const TempDir dir;
  put(dir / "a.npy", bytes);
  try {
    read_npy(dir / "a.npy");
  } catch (const DataError& e) {
    return std::string(e.what()).substr((dir / "a.npy: ").string().size());
  }
  return "nothing";
}

/// A zip of several stored files.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string out, directory;
  for (const auto& [name, data] : files) {
    const auto crc = static_cast<std::uint32_t>(
        ::crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
    const auto size = static_cast<std::uint32_t>(data.size());
    const std::string common = little(20, 2) + little(0, 8) + little(crc, 4) + little(size, 4) + little(size, 4) +
                               little(static_cast<std::uint32_t>(name.size()), 2) + little(0, 2);
    directory += "PK\1\2" + little(20, 2) + common + little(0, 4) + little(0, 2) + little(0, 4) +
                 little(static_cast<std::uint32_t>(out.size()), 4) + name;
    out += "PK\3\4" + common + name + data;
  }
  const auto n = static_cast<std::uint32_t>(files.size()), at = static_cast<std::uint32_t>(out.size());
  return out + directory + "PK\5\6" + little(0, 4) + little(n, 2) + little(n, 2) +
         little(static_cast<std::uint32_t>(directory.size()), 4) + little(at, 4) + little(0, 2);
}

std::string says_npz(const std::string& bytes) {
  const TempDir dir;
  put(dir / "a.npz", bytes);
  try {
    read_npz(dir / "a.npz");
  } catch (const DataError& e) {
    return std::string(e.what()).substr((dir / "a.npz: ").string().size());
  }
  return "nothing";
}

const std::string floats("\0\0\x80\x3f\0\0\0\x40", 8);  // 1, 2

}  // namespace

TEST_CASE("npy: what is written is read, of each type and rank") {
  const TempDir dir;
  for (const Tensor& t :
       {tensor({1, -2.5, 3, 4, 5, 6}, {2, 3}), tensor({1e300, -1e-300}, f64), tensor({-1, 1LL << 40}, i64),
        tensor({0, 255}, u8), scalar(7.0), Tensor::empty({3, 0, 2}), ones({1, 1, 1, 1, 1, 1, 1, 2})}) {
    write_npy(dir / "t.npy", t);
    CHECK(same_bits(read_npy(dir / "t.npy"), t));
  }
}

TEST_CASE("npy: the bytes are numpy's") {
  const TempDir dir;
  write_npy(dir / "t.npy", tensor({1, 2}));
  // numpy 1.24: numpy.save(file, numpy.array([1, 2], "f4"))
  CHECK(get(dir / "t.npy") == mark + std::string("\1\0\x76\0", 4) +
                                  "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" + std::string(60, ' ') +
                                  "\n" + floats);
  write_npy(dir / "t.npy", zeros({2621, 0}));
  CHECK(get(dir / "t.npy").find("'shape': (2621, 0), }") != std::string::npos);
}

TEST_CASE("npy: versions, orders, other types and spellings that are read") {
  const TempDir dir;
  const auto read = [&](const std::string& bytes) {
    put(dir / "a.npy", bytes);
    return read_npy(dir / "a.npy");
  };
  for (const char version : {'\1', '\2', '\3'})
    CHECK(same_bits(read(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats, version)),
                    tensor({1, 2})));
  CHECK(same_bits(read(npy("{\"shape\":(2,1),\"descr\":\"<f4\" , \"fortran_order\":False}", floats)),
                  tensor({1, 2}, {2, 1})));
  CHECK(same_bits(read(npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", "\1\4\2\5\3\6")),
                  tensor({1, 2, 3, 4, 5, 6}, {2, 3}, u8)));
  CHECK(same_bits(read(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }",
                           std::string("\1\0\0\0\xff\xff\xff\xff\0\0\0\x80", 12))),
                  tensor({1, -1, -2147483648.0}, i64)));
  CHECK(same_bits(read(npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", std::string("\0\1\2", 3))),
                  tensor({0, 1, 1}, u8)));
  CHECK(
      same_bits(read(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", floats.substr(0, 4))), scalar(1)));
  const std::string plain = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats);
  detail::write_by_name(dir / "a.npy.gz", std::array{std::as_bytes(std::span(std::string_view(plain)))});
  CHECK(same_bits(read_npy(dir / "a.npy.gz"), tensor({1, 2})));
}

TEST_CASE("npy: every plain type, in both byte orders and both orders of axes") {
  const TempDir dir;
  // numpy.array([[1, 2, 3], [-4, 5, 6]]) of each type; unsigned ones hold 2^n - 4
  for (const std::string kind : {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "b1"})
    for (const bool big : {false, true})
      for (const bool fortran : {false, true}) {
        const std::string type = (big ? ">" : "<") + kind;
        CAPTURE(type);
        CAPTURE(fortran);
        const int wide = kind[1] - '0';
        std::string data;
        for (const int v : fortran ? std::vector{1, -4, 2, 5, 3, 6} : std::vector{1, 2, 3, -4, 5, 6}) {
          std::string bytes;
          if (kind == "f2")
            bytes = little(
                std::map<int, std::uint32_t>{
                    {1, 0x3c00}, {2, 0x4000}, {3, 0x4200}, {-4, 0xc400}, {5, 0x4500}, {6, 0x4600}}[v],
                2);
          else if (kind == "f4") bytes = little(std::bit_cast<std::uint32_t>(static_cast<float>(v)), 4);
          else if (kind == "f8")
            bytes = little(0, 4) +
                    little(static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(static_cast<double>(v)) >> 32), 4);
          else
            bytes = wide == 8 ? little(static_cast<std::uint32_t>(v), 4) + little(v < 0 ? 0xffffffff : 0, 4)
                              : little(static_cast<std::uint32_t>(v), wide);
          data += big ? std::string(bytes.rbegin(), bytes.rend()) : bytes;
        }
        put(dir / "a.npy",
            npy("{'descr': '" + type + "', 'fortran_order': " + (fortran ? "True" : "False") + ", 'shape': (2L, 3L), }",
                data));
        std::vector<double> values{1, 2, 3, -4, 5, 6};
        if (kind[0] == 'u') values[3] = std::exp2(8 * wide) - 4;
        if (kind == "b1") values = {1, 1, 1, 1, 1, 1};
        const DType dtype = kind == "f8" ? f64 : kind[0] == 'f' ? f32 : kind == "u1" || kind == "b1" ? u8 : i64;
        const Tensor read = read_npy(dir / "a.npy");
        CHECK(read.dtype() == dtype);
        CHECK(read.shape() == Shape{2, 3});
        CHECK(read.to_vector() == values);
      }
  put(dir / "a.npy", npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", std::string(7, '\xff') + "\x7f"));
  CHECK(read_npy(dir / "a.npy").values<std::int64_t>()[0] == std::numeric_limits<std::int64_t>::max());
  CHECK(says(npy("{'descr': '>u8', 'fortran_order': False, 'shape': (2,), }",
                 std::string(8, '\0') + "\x80" + std::string(7, '\0'))) ==
        "byte 76: a number above 2^63 - 1, the largest of int64");
}

TEST_CASE("npy: what breaks the format is refused by byte and rule") {
  const std::string good = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats);
  REQUIRE(says(good) == "nothing");
  CHECK(says("") == "byte 0: expected a NumPy array, which begins with \\x93NUMPY");
  CHECK(says(good.substr(0, 7)) == "byte 0: expected a NumPy array, which begins with \\x93NUMPY");
  CHECK(says("X" + good.substr(1)) == "byte 0: expected a NumPy array, which begins with \\x93NUMPY");
  CHECK(says(mark + std::string("\4\0\0\0", 4)) == "byte 6: version 4.0 is not read, only 1.0, 2.0 and 3.0");
  CHECK(says(mark + std::string("\1\1\0\0", 4)) == "byte 6: version 1.1 is not read, only 1.0, 2.0 and 3.0");
  CHECK(says(mark + std::string("\1\0\1", 3)) ==
        "byte 8: expected the length of the header, found the end of the file");
  CHECK(says(mark + std::string("\2\0\xff\xff\xff\x7f", 6)) == "byte 8: a header of 2147483647 bytes, more than 65536");
  CHECK(says(good.substr(0, 30)) == "byte 10: expected a header of 58 bytes, found the end of the file");
  CHECK(says(good.substr(0, good.size() - 1)) == "byte 68: expected 8 bytes of elements, the file is too short");
  CHECK(says(good + "x") == "byte 76: expected the end of the data, found more bytes");

  const auto header = [](const std::string& type, const std::string& order, const std::string& shape) {
    return says(npy("{'descr': " + type + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }", floats));
  };
  CHECK(header("'|O'", "False", "(2,)") == "byte 20: arrays of Python objects are not read");
  CHECK(header("[('a', '<f4')]", "False", "(2,)") == "byte 20: arrays of records are not read");
  for (const std::string kind : {"<c8", "<f16", "|f4", "=f4", "f4", "<U2", "|S2", "|V4", "<M8[s]", "<i3", "<", ""})
    CHECK(header("'" + kind + "'", "False", "(2,)") ==
          "byte 20: type '" + kind +
              "' is not supported; expected one of <f2 <f4 <f8 <i2 <i4 <i8 <u2 <u4 <u8, the same with >, |i1 |u1 |b1");
  CHECK(header("<f4", "False", "(2,)") == "byte 20: expected a text in quotes");
  CHECK(header("'<f4'", "1", "(2,)") == "byte 44: expected True or False");
  CHECK(header("'<f4'", "False", "(-2,)") == "byte 61: a size must not be negative, got -2");
  CHECK(header("'<f4'", "False", "(99999999999999999999,)") == "byte 61: a size is too large");
  CHECK(header("'<f4'", "False", "(4611686018427387904, 4)") == "byte 88: the sizes are too large");
  CHECK(header("'<f4'", "False", "(4611686018427387904, 0)") == "byte 88: the sizes are too large");
  CHECK(header("'<f4'", "False", "(1000000000, 1000)") ==
        "byte 82: expected 4000000000000 bytes of elements, the file is too short");
  CHECK(header("'<f4'", "False", "(2)") == "byte 62: expected ',' in a tuple of one");
  CHECK(header("'<f4'", "False", "[2]") == "byte 60: expected '('");
  CHECK(header("'<f4'", "False", "(2.0,)") == "byte 62: expected ',' in a tuple of one");
  CHECK(header("'<f4'", "False", "(2LL,)") == "byte 63: expected ',' in a tuple of one");
  CHECK(header("'<f4'", "False", "(2l,)") == "byte 62: expected ',' in a tuple of one");
  CHECK(header("'<f4'", "False", "(1,1,1,1,1,1,1,1,2)") == "byte 77: at most 8 axes are read");
  CHECK(says(npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats)) ==
        "byte 27: 'descr' comes twice");
  CHECK(says(npy("{'descr': '<f4', 'shape': (2,), }", floats)) == "byte 44: the header lacks 'fortran_order'");
  CHECK(says(npy("{'descr': '<f4', 'order': 1}", floats)) == "byte 27: expected 'descr', 'fortran_order' or 'shape'");
  CHECK(says(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } import os", floats)) ==
        "byte 68: expected the end of the header");
  CHECK(says(npy("__import__('os')", floats)) == "byte 10: expected '{'");
  CHECK_THROWS_AS(read_npy("/nonexistent/a.npy"), IoError);
}

TEST_CASE("npz: arrays by name, stored or deflated") {
  const TempDir dir;
  const std::map<std::string, Tensor> all{
      {"layers.0.weight", tensor({1, 2, 3, 4}, {2, 2})}, {"a", tensor({5}, i64)}, {"none", zeros({0})}};
  write_npz(dir / "t.npz", all);
  const auto back = read_npz(dir / "t.npz");
  REQUIRE(back.size() == all.size());
  for (const auto& [name, t] : all) CHECK(same_bits(back.at(name), t));
  const std::string one = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats);
  CHECK(get(dir / "t.npz") == [&] {  // the zip by hand
    std::vector<std::pair<std::string, std::string>> files;
    for (const auto& [name, t] : all) {
      write_npy(dir / "x.npy", t);
      files.emplace_back(name + ".npy", get(dir / "x.npy"));
    }
    std::string zip = zip_of(files);
    for (std::size_t at = 0; (at = zip.find(std::string("\x14\0\0\0\0\0\0\0\0\0", 10), at)) != zip.npos; at += 10)
      zip[at + 8] = 0x21;  // the date
    return zip;
  }());
  for (const bool stored : {true, false})
    for (const bool descriptor : {true, false}) {
      put(dir / "z.npz", zipped(one, {.name = "x.npy", .stored = stored, .descriptor = descriptor}));
      CHECK(same_bits(read_npz(dir / "z.npz").at("x"), tensor({1, 2})));
    }
  write_npz(dir / "empty.npz", {});
  CHECK(read_npz(dir / "empty.npz").empty());
}

TEST_CASE("npz: what breaks the format is refused") {
  const std::string one = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", floats);
  const std::string good = zip_of({{"a.npy", one}, {"b.npy", one}});
  REQUIRE(says_npz(good) == "nothing");
  CHECK(says_npz(one) == "byte 0: expected a zip");
  CHECK(says_npz("") == "byte 0: expected a zip");
  CHECK(says_npz(zip_of({{"a.npy", one}, {"a.npy", one}})) == "holds a.npy twice");
  CHECK(says_npz(zip_of({{"a.txt", one}})) == "expected files NAME.npy in it, found a.txt");
  CHECK(says_npz(zip_of({{"a.npy", one}, {"b.npy", "hello world"}})) ==
        "b.npy: byte 0: expected a NumPy array, which begins with \\x93NUMPY");
  CHECK(says_npz(zip_of({{"a.npy", one + "x"}})) == "a.npy: byte 76: expected the end of the data, found more bytes");
  const std::size_t second = 30 + 5 + one.size(), central = 2 * second;
  const auto broken = [&](std::size_t at, std::string_view with) {
    return says_npz(std::string(good).replace(at, with.size(), with));
  };
  const auto at = [](std::size_t n) { return "byte " + std::to_string(n) + " of the zip file: expected "; };
  CHECK(broken(second, "XX") == at(second) + "a header that agrees with the directory of the zip");
  CHECK(broken(second + 18, "X") == at(second + 14) + "sizes that agree with the directory of the zip");
  CHECK(broken(central + 51 + 42, "X").starts_with("byte "));
  CHECK(broken(central + 51, "XX") == at(central + 51) + "2 entries in the directory of the zip");
  CHECK(broken(second - 1, "X").find("expected data with checksum ") != std::string::npos);
  CHECK(broken(good.size() - 12, "\3") == at(good.size() - 22) + "a zip in one piece");
  // a size that no deflated data can have: refused before anything is inflated
  std::string bomb = zipped(std::string(100000, '\0'), {.name = "a.npy"});
  for (const std::size_t size_at : {std::size_t{22}, bomb.rfind("PK\1\2") + 24})
    bomb.replace(size_at, 4, little(0xfffffff0, 4));
  CHECK(says_npz(bomb).ends_with("expected a size that the compressed data can have"));
}

TEST_CASE("npz: what cannot be written") {
  const TempDir dir;
  CHECK_THROWS_WITH_AS(write_npz(dir / "t.npz", {{"", scalar(1)}}),
                       "write_npz: a name must be 1 to 1000 printable ASCII characters, got 0 of them or others",
                       ValueError);
  CHECK_THROWS_AS(write_npz(dir / "t.npz", {{"a\n", scalar(1)}}), ValueError);
  CHECK_THROWS_WITH_AS(write_npz(dir / "t.npz", {{"a", Tensor()}}), "write_npz: an undefined tensor", ValueError);
  CHECK_THROWS_WITH_AS(write_npy(dir / "t.npy", Tensor()), "write_npy: an undefined tensor", ValueError);
  CHECK_FALSE(std::filesystem::exists(dir / "t.npz"));
  CHECK_THROWS_AS(write_npy(dir / "none" / "t.npy", scalar(1)), IoError);
}
