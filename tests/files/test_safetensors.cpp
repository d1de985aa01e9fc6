// (over 400 lines because each rule of the format is broken once, by a file made by hand)
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/graph/storage.h>
#include <ebb/models/files/safetensors.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "temp_dir.h"

namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using ebb::SafeTensors;
using ebb::Tensor;

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Eight bytes, lowest first.
std::string u64(std::uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i, n >>= 8) bytes += static_cast<char>(n & 0xff);
  return bytes;
}

std::string file_of(std::string_view header, std::string_view data = {}) {
  return u64(header.size()) + std::string(header) + std::string(data);
}

/// The bytes that write_safetensors gives.
std::string bytes_of(const SafeTensors& contents) {
  const TempDir dir;
  ebb::write_safetensors(dir / "f", contents);
  return read(dir / "f");
}

SafeTensors parsed(std::string_view bytes) {
  const TempDir dir;
  write(dir / "f", bytes);
  return ebb::read_safetensors(dir / "f");
}

/// The DataError for a file of these bytes, without the path in front.
std::string message(std::string_view bytes) {
  const TempDir dir;
  write(dir / "f", bytes);
  try {
    ebb::read_safetensors(dir / "f");
  } catch (const ebb::DataError& e) {
    const std::string text = e.what(), prefix = (dir / "f").string() + ": ";
    CHECK(text.find('\n') == text.npos);
    CHECK(text.size() < prefix.size() + 400);
    return text.starts_with(prefix) ? text.substr(prefix.size()) : "path missing in: " + text;
  }
  return "no error";
}

/// The same for a header and as many zero bytes of data.
std::string header_message(std::string_view header, std::size_t data_bytes = 0) {
  return message(file_of(header, std::string(data_bytes, '\0')));
}

/// The same for one tensor "a" with this entry.
std::string entry_message(std::string_view entry, std::size_t data_bytes = 0) {
  return header_message("{\"a\":" + std::string(entry) + "}", data_bytes);
}

template <class E>
std::string write_error(const fs::path& path, const SafeTensors& contents) {
  try {
    ebb::write_safetensors(path, contents);
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

bool same(const SafeTensors& a, const SafeTensors& b) {
  bool equal = a.metadata == b.metadata && a.tensors.size() == b.tensors.size();
  for (const auto& [name, value] : a.tensors)
    equal = equal && b.tensors.count(name) && same_bits(value, b.tensors.at(name));
  return equal;
}

/// One tensor of each kind, one scalar, two empty ones, metadata.
SafeTensors sample() {
  SafeTensors s;
  s.metadata = {{"format", "pt"}, {"step", "12"}};
  s.tensors["layers.0.weight"] = ebb::tensor({1, -2, 3.5, 0, 1e-40, 1e30}, {2, 3});
  s.tensors["layers.0.bias"] = ebb::tensor({0.1, -0.2}, ebb::f64);
  s.tensors["labels"] = ebb::tensor({-1, 9e15, 3}, ebb::i64);
  s.tensors["image"] = ebb::tensor({0, 255, 7}, {3, 1, 1}, ebb::u8);
  s.tensors["scale"] = ebb::scalar(2.5);
  s.tensors["none"] = ebb::zeros({3, 0, 2}, ebb::f64);
  s.tensors["none.either"] = ebb::zeros({0}, ebb::u8);
  return s;
}

}  // namespace

TEST_CASE("safetensors: what is written is read back, bit for bit") {
  const TempDir dir;
  const SafeTensors s = sample();
  ebb::write_safetensors(dir / "f", s);
  CHECK(same(ebb::read_safetensors(dir / "f"), s));

  SUBCASE("values that arithmetic would change") {
    SafeTensors odd;
    odd.tensors["f32"] = ebb::tensor({-0.0, std::numeric_limits<double>::infinity(), 1e-45, NAN});
    odd.tensors["f64"] = ebb::tensor({-0.0, -std::numeric_limits<double>::infinity(), 5e-324, NAN}, ebb::f64);
    odd.tensors["i64"] = Tensor::from(
        std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()},
        {2});
    CHECK(same(parsed(bytes_of(odd)), odd));
  }
  SUBCASE("nothing at all") {
    CHECK(bytes_of({}) == file_of("{}      "));
    CHECK(same(parsed(bytes_of({})), {}));
    CHECK(same(parsed(file_of("{}")), {}));
  }
  SUBCASE("metadata only, any text") {
    const SafeTensors only{.metadata = {{"", ""}, {"a\"\\\n\x01/\x7f", "\xC3\xA9\xF0\x9F\x8C\x8A"}}, .tensors = {}};
    CHECK(same(parsed(bytes_of(only)), only));
  }
  SUBCASE("any name") {
    SafeTensors names;
    for (const std::string name :
         {"", "a\"b\\c\nd", "\xD0\xB2\xD0\xB5\xD1\x81", "\xF0\x9F\x8C\x8A", "__metadata", "\x1b["})
      names.tensors[name] = ebb::tensor({1, 2});
    names.tensors["with\0zero"s] = ebb::tensor({3});
    CHECK(same(parsed(bytes_of(names)), names));
  }
  SUBCASE("many tensors") {
    SafeTensors many;
    for (int i = 0; i < 3000; ++i)
      many.tensors["t" + std::to_string(i)] = ebb::full({i % 4, 3}, i, i % 2 ? ebb::f32 : ebb::u8);
    CHECK(same(parsed(bytes_of(many)), many));
  }
  SUBCASE("eight axes") {
    const SafeTensors deep{.metadata = {}, .tensors = {{"a", ebb::arange(6).viewed_as({1, 1, 2, 1, 3, 1, 1, 1})}}};
    CHECK(same(parsed(bytes_of(deep)), deep));
  }
  SUBCASE("a tensor that looks at a part of another, and one of a graph") {
    const Tensor all = ebb::arange(10);
    const SafeTensors part{.metadata = {}, .tensors = {{"a", all.rows(2, 5)}, {"b", ebb::variable(all)}}};
    const SafeTensors back = parsed(bytes_of(part));
    CHECK(same(back, part));
    CHECK(!back.tensors.at("b").tracked());
  }
}

TEST_CASE("safetensors: tensors that were read share no storage") {
  SafeTensors s = parsed(bytes_of(sample()));
  for (const auto& [name, value] : s.tensors) CHECK(value.storage()->unique());
}

TEST_CASE("safetensors: layout of the file: aligned, by element size, then by name") {
  const SafeTensors s{.metadata = {{"k", "v"}, {"a", "\""}},
                      .tensors = {{"b", ebb::tensor({1}, ebb::u8)},
                                  {"a", ebb::tensor({2, 3}, ebb::u8)},
                                  {"z", ebb::tensor({4}, {1, 1}, ebb::i64)},
                                  {"y", ebb::scalar(1, ebb::f64)},
                                  {"x", ebb::tensor({1})},
                                  {"e", ebb::zeros({0, 2})}}};
  std::string header = R"({"__metadata__":{"a":"\"","k":"v"},)"
                       R"("y":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                       R"("z":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]},)"
                       R"("e":{"dtype":"F32","shape":[0,2],"data_offsets":[16,16]},)"
                       R"("x":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},)"
                       R"("a":{"dtype":"U8","shape":[2],"data_offsets":[20,22]},)"
                       R"("b":{"dtype":"U8","shape":[1],"data_offsets":[22,23]}})";
  CHECK(header.size() % 8 != 0);
  while (header.size() % 8 != 0) header += ' ';
  const std::string data =
      "\0\0\0\0\0\0\xF0\x3F"
      "\4\0\0\0\0\0\0\0"
      "\0\0\x80\x3F"
      "\2\3"
      "\1"s;
  CHECK(bytes_of(s) == file_of(header, data));
}

TEST_CASE("safetensors: a file as Python writes it") {
  // save_file({"test": torch.tensor([[1., 2.], [3., 4.]])}, path, metadata={"format": "pt"})
  const std::string reference =
      "\x60\0\0\0\0\0\0\0"
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"test\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}     "
      "\0\0\x80\x3F\0\0\0\x40\0\0\x40\x40\0\0\x80\x40"s;
  const SafeTensors s{.metadata = {{"format", "pt"}}, .tensors = {{"test", ebb::tensor({1, 2, 3, 4}, {2, 2})}}};
  CHECK(same(parsed(reference), s));
  CHECK(bytes_of(s) == reference);
}

TEST_CASE("safetensors: what other writers may do") {
  // spaces and line ends between tokens, fields and tensors in any order, no padding, escapes, unaligned data
  const SafeTensors s =
      parsed(file_of("{ \"b\\u0041\" : {\"data_offsets\":[1, 5],\n\"shape\":[1],\"dtype\":\"F32\"},\r\n\t"
                     "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},\"__metadata__\":{}}",
                     "\7\0\0\x80\x3F"s));
  CHECK(s.metadata.empty());
  CHECK(s.tensors.size() == 2);
  CHECK(s.tensors.at("a").item() == 7);
  CHECK(s.tensors.at("bA").item() == 1);
  CHECK(reinterpret_cast<std::uintptr_t>(s.tensors.at("bA").raw()) % 64 == 0);

  // empty tensors may share an offset with each other and with one that is not empty, in any order
  const SafeTensors empty = parsed(file_of(R"({"z":{"dtype":"U8","shape":[0],"data_offsets":[1,1]},)"
                                           R"("y":{"dtype":"F64","shape":[2,0],"data_offsets":[0,0]},)"
                                           R"("x":{"dtype":"F64","shape":[0,9223372036854775],"data_offsets":[1,1]},)"
                                           R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                                           R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                           "\1\2"));
  CHECK(empty.tensors.at("a").item() == 1);
  CHECK(empty.tensors.at("b").item() == 2);
  CHECK(empty.tensors.at("x").shape() == ebb::Shape{0, 9223372036854775});
}

TEST_CASE("safetensors: rule: the header's size") {
  CHECK(message("") == "file too short: 0 bytes, the size of the header takes 8");
  CHECK(message("\2\0\0\0\0\0\0"s) == "file too short: 7 bytes, the size of the header takes 8");
  CHECK(message(u64(100'000'001) + "{}") == "header too large: 100000001 bytes, the limit is 100000000");
  CHECK(message(u64(~std::uint64_t{0}) + "{}") ==
        "header too large: 18446744073709551615 bytes, the limit is 100000000");
  CHECK(message(u64(100'000'000) + "{}") == "header too large: 100000000 bytes, the file has 2 after the first 8");
  CHECK(message(u64(3) + "{}") == "header too large: 3 bytes, the file has 2 after the first 8");
}

TEST_CASE("safetensors: rule: '{' first, '}' and spaces last") {
  CHECK(message(u64(0)) == "header start: expected '{', found an empty header");
  CHECK(header_message(" {}") == "header start: expected '{', found byte 0x20");
  CHECK(header_message("\xEF\xBB\xBF{}") == "header start: expected '{', found byte 0xef");
  CHECK(header_message("[]") == "header start: expected '{', found byte 0x5b");
  CHECK(header_message("{}\n") == "header end: expected '}' and spaces, found byte 0x0a");
  CHECK(header_message("{}\0\0"s) == "header end: expected '}' and spaces, found byte 0x00");
  CHECK(header_message("{") == "header end: expected '}' and spaces, found byte 0x7b");
}

TEST_CASE("safetensors: rule: valid UTF-8 and JSON") {
  CHECK(header_message("{}\0{}"s) == "not valid JSON: byte 3 of the header: a zero byte");
  CHECK(header_message("{}{}") == "not valid JSON: byte 3 of the header: unexpected '{'; expected end of input");
  CHECK(header_message("{\"a\":}") ==
        "not valid JSON: byte 6 of the header: unexpected '}'; expected '[', '{', or a literal");
  CHECK(header_message("{'a':1}") == "not valid JSON: byte 2 of the header: invalid literal");
  CHECK(header_message("{\"a\xff\":1}") ==
        "not valid JSON: byte 4 of the header: invalid string: ill-formed UTF-8 byte");
  CHECK(header_message("{\"\xc0\xaf\":1}") ==
        "not valid JSON: byte 3 of the header: invalid string: ill-formed UTF-8 byte");
  CHECK(header_message("{\"\xed\xa0\x80\":1}") ==
        "not valid JSON: byte 4 of the header: invalid string: ill-formed UTF-8 byte");
  CHECK(header_message("{\"\\ud800\":1}") ==
        "not valid JSON: byte 9 of the header: invalid string: surrogate U+D800..U+DBFF must be followed by "
        "U+DC00..U+DFFF");
  CHECK(header_message("{\"a\n\":1}") ==
        "not valid JSON: byte 4 of the header: invalid string: control character U+000A (LF) must be escaped "
        "to \\u000A or \\n");
  CHECK(header_message("{/**/}") == "not valid JSON: byte 2 of the header: invalid literal");
  CHECK(header_message("{\"a\":{},}") == "missing key: \"dtype\" of tensor \"a\"");
  CHECK(header_message("{\"__metadata__\":{},}") ==
        "not valid JSON: byte 20 of the header: unexpected '}'; expected string literal");
  CHECK(entry_message(R"({"dtype":"F32","shape":[1e999]})") ==
        "not valid JSON: byte 34 of the header: number overflow parsing '1e999'");
  CHECK(entry_message(R"({"dtype":"F32","shape":[01]})") ==
        "not valid JSON: byte 31 of the header: unexpected number literal; expected ']'");
}

TEST_CASE("safetensors: rule: nesting is limited to what a header needs") {
  const std::string open(100'000, '['), objects = [] {
    std::string s;
    for (int i = 0; i < 100'000; ++i) s += "{\"a\":";
    return s;
  }();
  CHECK(header_message("{\"a\":" + open + "}") == "entry: tensor \"a\": expected an object, found an array");
  CHECK(header_message("{\"__metadata__\":{\"a\":" + open + "}") ==
        "__metadata__: \"a\": expected a string, found an array");
  CHECK(header_message("{\"a\":{\"shape\":" + open + "}") ==
        "shape: tensor \"a\": expected non-negative integers, found an array");
  CHECK(header_message(objects + "}") == "unknown key: \"a\" of tensor \"a\"");
}

TEST_CASE("safetensors: rule: no duplicate key at any level") {
  const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK(header_message("{" + a + "," + a + "}") == "duplicate key: \"a\"");
  CHECK(header_message("{" + a + R"(,"\u0061":5})") == "duplicate key: \"a\"");
  CHECK(header_message(R"({"__metadata__":{},"__metadata__":{}})") == "duplicate key: \"__metadata__\"");
  CHECK(header_message(R"({"__metadata__":{"k":"1","j":"","k":"1"}})") == "duplicate key: \"k\" of __metadata__");
  CHECK(entry_message(R"({"dtype":"U8","dtype":"U8"})") == "duplicate key: \"dtype\" of tensor \"a\"");
  CHECK(entry_message(R"({"shape":[],"dtype":"U8","shape":[]})") == "duplicate key: \"shape\" of tensor \"a\"");
  CHECK(entry_message(R"({"data_offsets":[0,0],"data_offsets":[0,0]})") ==
        "duplicate key: \"data_offsets\" of tensor \"a\"");
}

TEST_CASE("safetensors: rule: metadata is a map of texts") {
  CHECK(header_message(R"({"__metadata__":{"step":12}})") ==
        "__metadata__: \"step\": expected a string, found a number");
  CHECK(header_message(R"({"__metadata__":{"k":null}})") == "__metadata__: \"k\": expected a string, found null");
  CHECK(header_message(R"({"__metadata__":{"k":{}}})") == "__metadata__: \"k\": expected a string, found an object");
  CHECK(header_message(R"({"__metadata__":["k"]})") == "__metadata__: expected an object, found an array");
  CHECK(parsed(file_of(R"({"__metadata__":null,"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", "\7"))
            .tensors.at("a")
            .item() == 7);
  CHECK(header_message(R"({"__metadata__":null,"__metadata__":null})") == "duplicate key: \"__metadata__\"");
}

TEST_CASE("safetensors: rule: entries have the three keys and nothing else") {
  CHECK(entry_message("null") == "entry: tensor \"a\": expected an object, found null");
  CHECK(entry_message("\"x\"") == "entry: tensor \"a\": expected an object, found a string");
  CHECK(entry_message("true") == "entry: tensor \"a\": expected an object, found true");
  CHECK(entry_message("1") == "entry: tensor \"a\": expected an object, found a number");
  CHECK(entry_message(R"({"shape":[],"data_offsets":[0,4]})", 4) == "missing key: \"dtype\" of tensor \"a\"");
  CHECK(entry_message(R"({"dtype":"F32","data_offsets":[0,4]})", 4) == "missing key: \"shape\" of tensor \"a\"");
  CHECK(entry_message(R"({"dtype":"F32","shape":[]})", 4) == "missing key: \"data_offsets\" of tensor \"a\"");
  CHECK(entry_message(R"({"dtype":"F32","shape":[],"offsets":[0,4]})", 4) ==
        "unknown key: \"offsets\" of tensor \"a\"");
}

TEST_CASE("safetensors: rule: dtype known") {
  const std::string there = "; expected one of F32 F64 I64 U8 BOOL I8 I16 I32 U16 U32 U64 F16 BF16 F8_E4M3 F8_E5M2";
  for (const std::string kind : {"C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"})
    CHECK(entry_message("{\"dtype\":\"" + kind + "\",\"shape\":[1],\"data_offsets\":[0,2]}", 2) ==
          "dtype: tensor \"a\": \"" + kind + "\" is not supported" + there);
  for (const std::string kind : {"f32", "float32", "", "F128"})
    CHECK(entry_message("{\"dtype\":\"" + kind + "\"}") == "dtype: tensor \"a\": \"" + kind + "\" is unknown" + there);
  CHECK(entry_message(R"({"dtype":3})") == "dtype: tensor \"a\": expected a string, found a number");
  CHECK(entry_message(R"({"dtype":["F32"]})") == "dtype: tensor \"a\": expected a string, found an array");
}

TEST_CASE("safetensors: other types become those that ebb has") {
  const auto read = [](const std::string& kind, std::size_t n, std::string_view data) {
    return parsed(file_of("{\"a\":{\"dtype\":\"" + kind + "\",\"shape\":[" + std::to_string(n) +
                              "],\"data_offsets\":[0," + std::to_string(data.size()) + "]}}",
                          data))
        .tensors.at("a");
  };
  using ebb::same_bits;
  using ebb::tensor;
  const double inf = std::numeric_limits<double>::infinity();
  CHECK(same_bits(read("BOOL", 3, "\0\1\2"s), tensor({0, 1, 1}, ebb::u8)));
  CHECK(same_bits(read("I8", 3, "\x7f\x80\xff"), tensor({127, -128, -1}, ebb::i64)));
  CHECK(same_bits(read("I16", 2, "\0\x80\xff\x7f"s), tensor({-32768, 32767}, ebb::i64)));
  CHECK(same_bits(read("U16", 2, "\0\x80\xff\xff"s), tensor({32768, 65535}, ebb::i64)));
  CHECK(same_bits(read("I32", 2, "\0\0\0\x80\1\0\0\0"s), tensor({-2147483648.0, 1}, ebb::i64)));
  CHECK(same_bits(read("U32", 2, "\xff\xff\xff\xff\1\0\0\0"s), tensor({4294967295.0, 1}, ebb::i64)));
  CHECK(read("U64", 1, "\xff\xff\xff\xff\xff\xff\xff\x7f").values<std::int64_t>()[0] ==
        std::numeric_limits<std::int64_t>::max());
  // 1, -2, the largest, the smallest above 0, infinity, -0; as numpy.float16 has them
  CHECK(same_bits(read("F16", 6, "\0\x3c\0\xc0\xff\x7b\1\0\0\x7c\0\x80"s), tensor({1, -2, 65504, 0x1p-24, inf, -0.0})));
  CHECK(std::isnan(read("F16", 1, "\1\x7e").item()));
  CHECK(same_bits(read("BF16", 4, "\x80\x3f\0\xc0\x80\x7f\1\0"s), tensor({1, -2, inf, 0x1p-133})));
  // ml_dtypes.float8_e4m3fn and float8_e5m2
  CHECK(same_bits(read("F8_E4M3", 5, "\x38\xc0\x7e\1\x80"), tensor({1, -2, 448, 0x1p-9, -0.0})));
  CHECK(std::isnan(read("F8_E4M3", 1, "\x7f").item()));
  CHECK(same_bits(read("F8_E5M2", 5, "\x3c\xc0\x7b\1\x7c"), tensor({1, -2, 57344, 0x1p-16, inf})));
  CHECK(std::isnan(read("F8_E5M2", 1, "\x7d").item()));
  // more than one piece of a conversion, and another tensor after it
  std::string many;
  std::vector<std::int64_t> counted;
  for (int i = 0; i < 10'000; ++i)
    counted.push_back(i), many += {static_cast<char>(i & 0xff), static_cast<char>(i >> 8)};
  const SafeTensors two = parsed(file_of(
      R"({"a":{"dtype":"I16","shape":[100,100],"data_offsets":[0,20000]},"b":{"dtype":"F32","shape":[],"data_offsets":[20000,20004]}})",
      many + "\0\0\x80\x3f"s));
  CHECK(same_bits(two.tensors.at("a"), Tensor::from(counted, {100, 100})));
  CHECK(two.tensors.at("b").item() == 1);
  CHECK(
      message(file_of(R"({"a":{"dtype":"U64","shape":[2],"data_offsets":[0,16]}})", std::string(15, '\0') + "\x80")) ==
      "data: tensor \"a\": element 1 is above 2^63 - 1, the largest of int64");
}

TEST_CASE("safetensors: a large header is not kept") {
  // a text of 4 MiB is read, a longer one is not, whatever stands in it
  const std::string most(std::size_t{1} << 22, 'x');
  CHECK(parsed(file_of("{\"__metadata__\":{\"k\":\"" + most + "\"}}")).metadata.at("k") == most);
  const std::string more = "{\"__metadata__\":{\"k\":\"";
  const std::string says = "text too long: byte " + std::to_string(more.size() + most.size() + 1) +
                           " of the header: more than 4194304 bytes of one name, text or number";
  CHECK(header_message(more + most + "y\"}}") == says);
  std::string quotes;
  while (quotes.size() < most.size()) quotes += "\\\"";
  CHECK(header_message(more + quotes + "y\"}}") == says);
  CHECK(header_message("{\"a\":" + std::string(most.size() + 9, '9') + "}").starts_with("text too long: "));
  std::string texts = "{\"__metadata__\":{";
  for (int i = 0; i <= 100'000; ++i) texts += "\"" + std::to_string(i) + "\":\"\",";
  CHECK(header_message(texts + "}}").starts_with("more than 100000 tensors and texts"));
  CHECK_THROWS_AS(bytes_of({.metadata = {{"k", most + "y"}}, .tensors = {}}), ebb::ValueError);
}

TEST_CASE("safetensors: rule: shape is non-negative integers") {
  CHECK(entry_message(R"({"shape":4})") == "shape: tensor \"a\": expected an array, found a number");
  CHECK(entry_message(R"({"shape":{}})") == "shape: tensor \"a\": expected an array, found an object");
  const std::string expected = "shape: tensor \"a\": expected non-negative integers, found ";
  CHECK(entry_message(R"({"shape":[-1]})") == expected + "-1");
  CHECK(entry_message(R"({"shape":[-0]})") == expected + "0");
  CHECK(entry_message(R"({"shape":[2.0]})") == expected + "2.0");
  CHECK(entry_message(R"({"shape":[1e3]})") == expected + "1e3");
  CHECK(entry_message(R"({"shape":["1"]})") == expected + "a string");
  CHECK(entry_message(R"({"shape":[null]})") == expected + "null");
  CHECK(entry_message(R"({"shape":[18446744073709551616]})") == expected + "18446744073709551616");
  CHECK(entry_message("{\"shape\":[1" + std::string(100, '0') + "]}") == expected + "1" + std::string(39, '0') + "...");
  CHECK(entry_message(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", 1) ==
        "shape: tensor \"a\": more than 8 axes");
}

TEST_CASE("safetensors: rule: the number of bytes can be counted") {
  const auto shape_message = [](const std::string& dtype, const std::string& shape) {
    return entry_message("{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[0,0]}");
  };
  CHECK(shape_message("U8", "9223372036854775808") ==
        "shape: tensor \"a\": (9223372036854775808) has too many elements");
  CHECK(shape_message("F32", "2305843009213693952") ==
        "shape: tensor \"a\": (2305843009213693952) has too many elements");
  CHECK(shape_message("U8", "4294967296,4294967296") ==  // 2^64, which would wrap to 0
        "shape: tensor \"a\": (4294967296, 4294967296) has too many elements");
  CHECK(shape_message("F32", "0,4294967296,4294967296") ==
        "shape: tensor \"a\": (0, 4294967296, 4294967296) has too many elements");
  CHECK(shape_message("U8", "0,18446744073709551615") ==
        "shape: tensor \"a\": (0, 18446744073709551615) has too many elements");
}

TEST_CASE("safetensors: rule: offsets are two integers that hold the elements") {
  const auto offsets_message = [](const std::string& offsets, std::size_t data_bytes = 8) {
    return entry_message("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" + offsets + "}", data_bytes);
  };
  CHECK(offsets_message("[0,8]") == "no error");
  CHECK(offsets_message("8") == "data_offsets: tensor \"a\": expected an array, found a number");
  CHECK(offsets_message("[]") == "data_offsets: tensor \"a\": expected 2 numbers, found 0");
  CHECK(offsets_message("[0]") == "data_offsets: tensor \"a\": expected 2 numbers, found 1");
  CHECK(offsets_message("[0,8,8]") == "data_offsets: tensor \"a\": expected 2 numbers, found more");
  CHECK(offsets_message("[0,8.0]") == "data_offsets: tensor \"a\": expected non-negative integers, found 8.0");
  CHECK(offsets_message("[-8,0]") == "data_offsets: tensor \"a\": expected non-negative integers, found -8");
  CHECK(offsets_message("[8,0]") == "data_offsets: tensor \"a\": begin 8 is after end 0");
  CHECK(offsets_message("[0,4]") == "data_offsets: tensor \"a\": 0 to 4 is 4 bytes, F32 of shape (2) takes 8");
  CHECK(offsets_message("[0,18446744073709551615]") ==
        "data_offsets: tensor \"a\": 0 to 18446744073709551615 is 18446744073709551615 bytes, F32 of shape "
        "(2) takes 8");
  CHECK(entry_message(R"({"dtype":"F64","shape":[],"data_offsets":[0,4]})", 4) ==
        "data_offsets: tensor \"a\": 0 to 4 is 4 bytes, F64 of shape () takes 8");
}

TEST_CASE("safetensors: rule: no hole, no overlap, and the file ends with the last tensor") {
  const auto pair_message = [](const std::string& a, const std::string& b, std::size_t data_bytes) {
    const auto entry = [](const std::string& name, const std::string& offsets) {
      return "\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" + offsets + "]}";
    };
    return header_message("{" + entry("a", a) + "," + entry("b", b) + "}", data_bytes);
  };
  CHECK(pair_message("4,8", "0,4", 8) == "no error");
  CHECK(pair_message("4,8", "8,12", 12) == "hole: tensor \"a\" begins at byte 4 of the data, the one before ends at 0");
  CHECK(pair_message("0,4", "5,9", 9) == "hole: tensor \"b\" begins at byte 5 of the data, the one before ends at 4");
  CHECK(pair_message("0,4", "2,6", 6) ==
        "overlap: tensor \"b\" begins at byte 2 of the data, the one before ends at 4");
  CHECK(pair_message("0,4", "0,4", 4) ==
        "overlap: tensor \"b\" begins at byte 0 of the data, the one before ends at 4");
  CHECK(pair_message("0,4", "4,8", 7) == "data size: the tensors take 8 bytes, the file has 7 after the header");
  CHECK(pair_message("0,4", "4,8", 9) == "data size: the tensors take 8 bytes, the file has 9 after the header");
  CHECK(header_message("{}", 1) == "data size: the tensors take 0 bytes, the file has 1 after the header");
  // an empty tensor inside another
  CHECK(header_message(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                       R"("b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
                       4) == "overlap: tensor \"b\" begins at byte 2 of the data, the one before ends at 4");
}

TEST_CASE("safetensors: a claim of much memory in a small file costs none") {
  const auto before = ebb::memory_stats();
  ebb::reset_peak_memory();
  CHECK(entry_message(R"({"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]})", 16) ==
        "data size: the tensors take 4398046511104 bytes, the file has 16 after the header");
  CHECK(ebb::memory_stats().peak == before.in_use);
}

TEST_CASE("safetensors: names in messages are escaped and shortened") {
  CHECK(header_message("{\"a\\nb\\u001b\":1}") == "entry: tensor \"a\\nb\\u001b\": expected an object, found a number");
  CHECK(header_message("{\"" + std::string(5000, 'n') + "\":1}") ==
        "entry: tensor \"" + std::string(80, 'n') + "\"...: expected an object, found a number");
  // cut in the middle of a character
  CHECK(header_message("{\"" + std::string(79, 'n') + "\xC3\xA9\xC3\xA9\":1}") ==
        "entry: tensor \"" + std::string(79, 'n') + "\xEF\xBF\xBD\"...: expected an object, found a number");
}

TEST_CASE("safetensors: what the system refuses to read") {
  const TempDir dir;
  const auto io_error = [](const fs::path& path) {
    try {
      ebb::read_safetensors(path);
    } catch (const ebb::IoError& e) {
      return std::string(e.what());
    }
    return "no error"s;
  };
  CHECK(io_error(dir / "none") == (dir / "none").string() + ": cannot read: No such file or directory");
  CHECK(io_error(dir.path()) == dir.path().string() + ": cannot read: Is a directory");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK(io_error(dir / "pipe") == (dir / "pipe").string() + ": cannot read: not a regular file");
}

TEST_CASE("safetensors: what cannot be written, and the old file stays") {
  const TempDir dir;
  ebb::write_safetensors(dir / "f", sample());
  const std::string old = read(dir / "f");
  const Tensor t = ebb::tensor({1});
  const auto refused = [&](const SafeTensors& s) { return write_error<ebb::ValueError>(dir / "f", s); };

  CHECK(refused({{}, {{"__metadata__", t}}}) == "write_safetensors: no tensor can be named __metadata__");
  CHECK(refused({{}, {{"a\xff", t}}}) == "write_safetensors: tensor name is not UTF-8: \"a\xEF\xBF\xBD\"");
  CHECK(refused({{}, {{"\xed\xa0\x80", t}}}).starts_with("write_safetensors: tensor name is not UTF-8: "));
  CHECK(refused({{{"k\xc3", "v"}}, {}}) == "write_safetensors: metadata key is not UTF-8: \"k\xEF\xBF\xBD\"");
  CHECK(refused({{{"k", "\x80"}}, {}}) == "write_safetensors: metadata text is not UTF-8: \"\xEF\xBF\xBD\"");
  CHECK(refused({{}, {{"a", Tensor()}}}) == "write_safetensors: tensor \"a\" is undefined");
  SafeTensors large;
  for (int i = 0; i < 25; ++i) large.metadata["k" + std::to_string(i)] = std::string(4'000'000, 'x');
  CHECK(refused(large) == "write_safetensors: a header of 100000240 bytes, the limit is 100000000");
  CHECK(write_error<ebb::IoError>(dir / "none" / "f", sample()) ==
        (dir / "none" / "f").string() + ": cannot write: No such directory");
  if (fs::is_character_file("/dev/full"))
    CHECK(write_error<ebb::IoError>("/dev/full", sample()) == "/dev/full: cannot write: No space left on device");

  CHECK(read(dir / "f") == old);
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("safetensors: a file cut at any byte is refused") {
  const std::string whole = bytes_of(sample());
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    const std::string text = message(std::string_view(whole).substr(0, n));
    const bool named = n < 8 ? text.starts_with("file too short: ")
                             : text.starts_with("header too large: ") || text.starts_with("data size: ");
    CHECK(named);
  }
  CHECK(message(whole + '\0').starts_with("data size: "));
}

TEST_CASE("safetensors: random damage is refused or harmless, and memory stays bounded") {
  const TempDir dir;
  const std::string whole = bytes_of(sample());
  std::mt19937_64 random(1);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  constexpr std::string_view likely = "{}[]\",:0123456789-.eE FUI\\\0\xff";
  int read_anyway = 0, refused = 0;
  for (int i = 0; i < 2000; ++i) {
    CAPTURE(i);
    std::string bytes = whole;
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const std::size_t at = below(bytes.size()), n = std::min(1 + below(12), bytes.size() - at);
      switch (below(6)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
        case 1: bytes[at] = likely[below(likely.size())]; break;
        case 2: bytes.insert(at, 1, likely[below(likely.size())]); break;
        case 3: bytes.erase(at, n); break;
        case 4: bytes.insert(below(bytes.size()), bytes.substr(at, n)); break;
        case 5: bytes[at] = static_cast<char>(random()); break;
      }
      // half of the time the size of the header is made to fit, so that the damage gets past it
      if (bytes.size() > 8 && below(2)) {
        const std::size_t end = bytes.rfind('}');
        if (end != bytes.npos && end > 8) bytes.replace(0, 8, u64(end - 7));
      }
      if (bytes.empty()) bytes = "x";
    }
    write(dir / "f", bytes);
    const std::size_t before = ebb::memory_stats().in_use;
    ebb::reset_peak_memory();
    try {
      const SafeTensors s = ebb::read_safetensors(dir / "f");
      std::size_t total = 0;
      for (const auto& [name, value] : s.tensors) total += value.bytes();
      CHECK(total <= bytes.size());
      ++read_anyway;
    } catch (const ebb::DataError& e) {
      CHECK(std::string_view(e.what()).starts_with((dir / "f").string() + ": "));
      ++refused;
    }
    CHECK(ebb::memory_stats().in_use == before);
    CHECK(ebb::memory_stats().peak <= before + 4 * bytes.size());  // a scalar's block is larger than its entry
  }
  CHECK(read_anyway + refused == 2000);
  CHECK(read_anyway > 20);  // damage to elements, names and texts, which nothing can notice
  CHECK(refused > 1000);
}
