#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/idx.h>
#include <sys/stat.h>
#include <zlib.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "temp_dir.h"

namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

ebb::Tensor counted(const ebb::Shape& shape) {
  ebb::Tensor t = ebb::Tensor::empty(shape, ebb::u8);
  std::uint8_t next = 0;
  for (std::uint8_t& v : t.mutable_values<std::uint8_t>()) v = static_cast<std::uint8_t>(next++ * 7);
  return t;
}

/// gzip of the bytes that write_idx gives for (2, 3).
std::string small_gzip(const TempDir& dir) {
  ebb::write_idx(dir / "small.gz", counted({2, 3}));
  return read(dir / "small.gz");
}

std::string error_of(const fs::path& path) {
  try {
    ebb::read_idx(path);
  } catch (const ebb::DataError& e) {
    return e.what();
  }
  return "no error";
}

/// The message for a file of these bytes, without the path in front; fails when the path is not there.
std::string message(const TempDir& dir, std::string_view bytes) {
  const fs::path path = dir / "f";
  write(path, bytes);
  const std::string text = error_of(path), prefix = path.string() + ": ";
  return text.starts_with(prefix) ? text.substr(prefix.size()) : "path missing in: " + text;
}

}  // namespace

TEST_CASE("idx: what is written is read back") {
  const TempDir dir;
  for (const ebb::Shape& shape :
       {ebb::Shape{5}, ebb::Shape{1}, ebb::Shape{2, 3}, ebb::Shape{4, 5, 6}, ebb::Shape{2, 3, 4, 5}, ebb::Shape{0},
        ebb::Shape{0, 28, 28}, ebb::Shape{7, 0}, ebb::Shape{300, 28, 28}}) {
    CAPTURE(shape.str());
    const ebb::Tensor t = counted(shape);
    for (const char* name : {"a", "a.gz"}) {
      ebb::write_idx(dir / name, t);
      const ebb::Tensor back = ebb::read_idx(dir / name);
      CHECK(ebb::same_bits(back, t));
    }
    CHECK(read(dir / "a").size() == 4 + 4 * static_cast<std::size_t>(shape.rank()) + t.bytes());
    CHECK(read(dir / "a.gz").starts_with("\x1f\x8b"));
    fs::rename(dir / "a.gz", dir / "b");  // the content decides, not the name
    fs::rename(dir / "a", dir / "b.gz");
    CHECK(ebb::same_bits(ebb::read_idx(dir / "b"), t));
    CHECK(ebb::same_bits(ebb::read_idx(dir / "b.gz"), t));
  }
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 2);  // no temporaries left
}

TEST_CASE("idx: the bytes of a file") {
  const TempDir dir;
  ebb::write_idx(dir / "a", counted({2, 3}));
  CHECK(read(dir / "a") == "\0\0\x08\2\0\0\0\2\0\0\0\3\0\7\x0e\x15\x1c\x23"s);
}

TEST_CASE("idx: every broken rule has its message") {
  const TempDir dir;
  const auto says = [&](std::string_view bytes) { return message(dir, bytes); };
  CHECK(says("") == "byte 0: expected the 4 bytes of the magic, found the end of the data");
  CHECK(says("\0\0\x08"s) == "byte 3: expected the 4 bytes of the magic, found the end of the data");
  CHECK(says("\0\0\x0d\1\0\0\0\1\0\0\0\0"s) == "byte 0: expected magic 00 00 08 NN, found 00 00 0d 01");
  CHECK(says("\x89PNG") == "byte 0: expected magic 00 00 08 NN, found 89 50 4e 47");
  CHECK(says("\0\0\x08\0"s) == "byte 3: expected 1 to 4 axes, found 0");
  CHECK(says("\0\0\x08\5"s) == "byte 3: expected 1 to 4 axes, found 5");
  CHECK(says("\0\0\x08\1\0\0"s) == "byte 6: expected the size of axis 0, found the end of the data");
  CHECK(says("\0\0\x08\2\0\0\0\1"s) == "byte 8: expected the size of axis 1, found the end of the data");
  CHECK(says("\0\0\x08\2\0\0\0\2\0\0\0\3abcde"s) ==
        "byte 17: expected 6 elements (2 x 3), found the end of the data after 5");
  CHECK(says("\0\0\x08\2\0\0\0\2\0\0\0\3abcdefgh"s) == "byte 18: expected the end of the data, found 2 more bytes");
  CHECK(says("\0\0\x08\1\0\0\0\0x"s) == "byte 8: expected the end of the data, found 1 more bytes");
}

TEST_CASE("idx: a header that claims too much is refused before memory is asked for") {
  const TempDir dir;
  const auto says = [&](std::string_view bytes) { return message(dir, bytes); };
  CHECK(says("\0\0\x08\2\x80\0\0\0\x80\0\0\0"s) ==
        "byte 4: expected at most 17179869184 elements, found 2147483648 x 2147483648");
  CHECK(says("\0\0\x08\4\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s) ==
        "byte 4: expected at most 17179869184 elements, found 4294967295 x 4294967295 x 4294967295 x "
        "4294967295");
  CHECK(says("\0\0\x08\4\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s) ==
        "byte 4: expected at most 17179869184 elements, found 0 x 4294967295 x 4294967295 x 4294967295");
  CHECK(says("\0\0\x08\1\xff\xff\xff\xff"s) ==
        "byte 8: expected 4294967295 elements (4294967295), found the end of the data after 0");

  // The same claim inside gzip.
  const fs::path path = dir / "claim.gz";
  gzFile out = ::gzopen(path.c_str(), "wb");
  REQUIRE(out != nullptr);
  ::gzwrite(out, "\0\0\x08\1\xff\xff\xff\xff", 8);
  REQUIRE(::gzclose(out) == Z_OK);
  ebb::reset_peak_memory();
  const std::size_t before = ebb::memory_stats().in_use;
  CHECK(error_of(path) == path.string() + ": byte 8: expected 4294967295 elements (4294967295), found a gzip file of " +
                              std::to_string(fs::file_size(path)) + " bytes");
  CHECK(ebb::memory_stats().peak - before < 1 << 20);
}

TEST_CASE("idx: more inside gzip than the header says is not inflated") {
  const TempDir dir;
  // A header for 1 element, then 64 MiB of zeros.
  const fs::path path = dir / "bomb.gz";
  gzFile out = ::gzopen(path.c_str(), "wb9");
  REQUIRE(out != nullptr);
  const std::string header = "\0\0\x08\1\0\0\0\1"s, zeros(std::size_t{1} << 20, '\0');
  ::gzwrite(out, header.data(), static_cast<unsigned>(header.size()));
  for (int i = 0; i < 64; ++i) ::gzwrite(out, zeros.data(), static_cast<unsigned>(zeros.size()));
  REQUIRE(::gzclose(out) == Z_OK);
  ebb::reset_peak_memory();
  const std::size_t before = ebb::memory_stats().in_use;
  CHECK(error_of(path) == path.string() + ": byte 9: expected the end of the data, found more bytes");
  CHECK(ebb::memory_stats().peak - before < 1 << 20);
}

TEST_CASE("idx: a large gzip, whose memory another thread asks for") {
  const TempDir dir;
  constexpr unsigned count = 9'000'003;
  std::string values(count, '\0');
  std::uint32_t state = 1;  // two bits in each byte, so that the file is large as well
  for (char& v : values) v = static_cast<char>((state = state * 1664525u + 1013904223u) >> 30);
  const fs::path path = dir / "large.gz";
  gzFile out = ::gzopen(path.c_str(), "wb1");
  REQUIRE(out != nullptr);
  const std::string header{
      0, 0, 8, 1, char(count >> 24), char(count >> 16 & 0xff), char(count >> 8 & 0xff), char(count & 0xff)};
  ::gzwrite(out, header.data(), static_cast<unsigned>(header.size()));
  ::gzwrite(out, values.data(), count);
  REQUIRE(::gzclose(out) == Z_OK);
  CHECK(ebb::same_bits(
      ebb::read_idx(path),
      ebb::Tensor::from(std::span(reinterpret_cast<const std::uint8_t*>(values.data()), count), {count})));
  const std::string good = read(path), size = std::to_string(good.size() - 1);
  REQUIRE(good.size() > std::size_t{1} << 20);
  CHECK(message(dir, std::string_view(good).substr(0, good.size() - 1)) ==
        "byte " + size + " of the gzip file: expected more compressed data, found the end of the file");
}

TEST_CASE("idx: broken gzip") {
  const TempDir dir;
  const std::string good = small_gzip(dir);
  const std::string size = std::to_string(good.size());
  CHECK(message(dir, good + "x") ==
        "byte " + size + " of the gzip file: expected the end of the file, found trailing bytes");
  CHECK(message(dir, good.substr(0, good.size() - 1)) ==
        "byte " + std::to_string(good.size() - 1) +
            " of the gzip file: expected more compressed data, found the end of the file");

  std::string bad = good;
  bad[bad.size() - 5] = static_cast<char>(bad[bad.size() - 5] ^ 1);  // CRC
  CHECK(message(dir, bad) == "byte " + std::to_string(good.size() - 4) +
                                 " of the gzip file: expected valid compressed data, found: incorrect data check");
  bad = good;
  bad.back() = static_cast<char>(bad.back() ^ 1);  // length
  CHECK(message(dir, bad) ==
        "byte " + size + " of the gzip file: expected valid compressed data, found: incorrect length check");
  bad = good;
  bad[2] = 7;  // method
  CHECK(message(dir, bad).find("expected valid compressed data, found: unknown compression method") !=
        std::string::npos);
}

TEST_CASE("idx: gzip of several members is one file") {
  const TempDir dir;
  ebb::write_idx(dir / "plain", counted({40, 5}));
  const std::string bytes = read(dir / "plain");
  const auto member = [&](std::string_view part) {
    const fs::path path = dir / "part.gz";
    const gzFile out = ::gzopen(path.c_str(), "wb");
    ::gzwrite(out, part.data(), static_cast<unsigned>(part.size()));
    REQUIRE(::gzclose(out) == Z_OK);
    return read(path);
  };
  // what bgzip puts at the end of its files: an empty member with an extra field
  const std::string end_of_bgzf("\x1f\x8b\x08\x04\0\0\0\0\0\xff\6\0BC\2\0\x1b\0\3\0\0\0\0\0\0\0\0\0", 28);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{100}, bytes.size()}) {
    CAPTURE(cut);
    const std::string first = member(bytes.substr(0, cut)), second = member(bytes.substr(cut)), good = first + second;
    for (const std::string& whole : {good, good + end_of_bgzf, member("") + good, good + std::string(512, '\0'),
                                     good + std::string(100'000, '\0')}) {
      write(dir / "f", whole);
      CHECK(ebb::same_bits(ebb::read_idx(dir / "f"), counted({40, 5})));
    }
    // each member is checked, and nothing but zeros may follow
    const std::string size = std::to_string(good.size());
    CHECK(message(dir, good + "x") ==
          "byte " + size + " of the gzip file: expected the end of the file, found trailing bytes");
    CHECK(message(dir, good + std::string(9, '\0') + "x") ==
          "byte " + std::to_string(good.size() + 9) +
              " of the gzip file: expected the end of the file, found trailing bytes");
    CHECK(message(dir, good + '\0' + second) ==
          "byte " + std::to_string(good.size() + 1) +
              " of the gzip file: expected the end of the file, found trailing bytes");
    CHECK(message(dir, good + "\x1f") ==
          "byte " + std::to_string(good.size() + 1) +
              " of the gzip file: expected more compressed data, found the end of the file");
    CHECK(message(dir, good + "\x1f\x8c").find("expected valid compressed data, found: incorrect header check") !=
          std::string::npos);
    if (cut < bytes.size())
      CHECK(message(dir, good + second).starts_with("byte 212: expected the end of the data, found more bytes"));
    for (const std::size_t from_end : {1, 5}) {  // length and checksum of the first
      std::string bad = good;
      bad[first.size() - from_end] = static_cast<char>(bad[first.size() - from_end] ^ 1);
      CHECK(message(dir, bad).find(from_end == 1 ? "incorrect length check" : "incorrect data check") !=
            std::string::npos);
    }
    for (std::size_t n = cut == 0 ? first.size() : 1; n < good.size(); ++n) {
      CAPTURE(n);
      if (cut < bytes.size()) CHECK(message(dir, good.substr(0, n)) != "no error");
    }
  }
}

TEST_CASE("idx: a file cut short anywhere is refused") {
  const TempDir dir;
  ebb::write_idx(dir / "plain", counted({2, 3}));
  for (const std::string& whole : {read(dir / "plain"), small_gzip(dir)})
    for (std::size_t n = 0; n < whole.size(); ++n) {
      CAPTURE(n);
      write(dir / "cut", std::string_view(whole).substr(0, n));
      CHECK_THROWS_AS(ebb::read_idx(dir / "cut"), ebb::DataError);
    }
}

TEST_CASE("idx: a flipped bit in gzip is found, or changes nothing") {
  const TempDir dir;
  const ebb::Tensor t = counted({20, 7});
  ebb::write_idx(dir / "good.gz", t);
  const std::string good = read(dir / "good.gz");
  int unnoticed = 0;
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
    write(dir / "bad", bad);
    ebb::Tensor read_back;
    try {
      read_back = ebb::read_idx(dir / "bad");
    } catch (const ebb::DataError&) {
      continue;
    }
    CHECK(ebb::same_bits(read_back, t));
    ++unnoticed;
  }
  // Time stamp (32 bits), extra flags and system (8 each) and the text flag mean nothing; up to 7 bits pad
  // the data.
  CHECK(unnoticed >= 49);
  CHECK(unnoticed <= 56);
}

TEST_CASE("idx: files that the system refuses") {
  const TempDir dir;
  CHECK_THROWS_WITH_AS(ebb::read_idx(dir / "none"),
                       ((dir / "none").string() + ": cannot read: No such file or directory").c_str(), ebb::IoError);
  CHECK_THROWS_WITH_AS(ebb::read_idx(dir.path()), (dir.path().string() + ": cannot read: Is a directory").c_str(),
                       ebb::IoError);
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH_AS(ebb::read_idx(dir / "pipe"),
                       ((dir / "pipe").string() + ": cannot read: not a regular file").c_str(), ebb::IoError);
  CHECK_THROWS_WITH_AS(ebb::write_idx(dir / "no" / "a", counted({2})),
                       ((dir / "no" / "a").string() + ": cannot write: No such directory").c_str(), ebb::IoError);
  fs::create_directory(dir / "taken");
  CHECK_THROWS_WITH_AS(ebb::write_idx(dir / "taken", counted({2})),
                       ((dir / "taken").string() + ": cannot write: Is a directory").c_str(), ebb::IoError);
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 2);  // pipe and taken: no temporaries left
}

TEST_CASE("idx: tensors that the format cannot hold") {
  const TempDir dir;
  CHECK_THROWS_WITH_AS(ebb::write_idx(dir / "a", ebb::zeros({2, 2})),
                       "write_idx: writes uint8 only, got float32 (2, 2)", ebb::DTypeError);
  CHECK_THROWS_WITH_AS(ebb::write_idx(dir / "a", ebb::Tensor()), "write_idx: writes uint8 only, got undefined",
                       ebb::DTypeError);
  CHECK_THROWS_WITH_AS(ebb::write_idx(dir / "a", ebb::zeros({}, ebb::u8)),
                       "write_idx: IDX cannot hold (): 1 to 4 axes, at most 17179869184 elements", ebb::ShapeError);
  CHECK_THROWS_AS(ebb::write_idx(dir / "a", ebb::zeros({1, 1, 1, 1, 1}, ebb::u8)), ebb::ShapeError);
  CHECK_THROWS_AS(ebb::write_idx(dir / "a", ebb::zeros({0, 5000000000}, ebb::u8)), ebb::ShapeError);
  CHECK_FALSE(fs::exists(dir / "a"));
}
