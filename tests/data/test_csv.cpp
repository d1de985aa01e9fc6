#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/data/csv.h>
#include <ebb/models/data/idx.h>
#include <ebb/ops/ops.h>
#include <stdlib.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "temp_dir.h"
#include "zip_file.h"

namespace {

namespace fs = std::filesystem;
using namespace ebb;

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// n digits, every pixel value among them.
Digits some_digits(std::int64_t n) {
  Digits d{Tensor::empty({n, 28, 28}, u8), Tensor::empty({n}, u8)};
  std::uint32_t next = 0;
  for (std::uint8_t& v : d.images.mutable_values<std::uint8_t>()) {
    v = static_cast<std::uint8_t>(next % 3 == 0 ? next * 37 % 256 : 0);
    ++next;
  }
  for (std::uint8_t& v : d.labels.mutable_values<std::uint8_t>()) v = static_cast<std::uint8_t>(next++ % 10);
  return d;
}

std::string csv_of(const TempDir& dir, const Digits& digits) {
  save_digits_csv(dir / "made.csv", digits);
  return read(dir / "made.csv");
}

bool same(const Digits& a, const Digits& b) { return same_bits(a.images, b.images) && same_bits(a.labels, b.labels); }

/// The message for a file of these bytes, without the path in front.
std::string message(const TempDir& dir, std::string_view bytes) {
  const fs::path path = dir / "f";
  write(path, bytes);
  try {
    load_digits_csv(path);
  } catch (const DataError& e) {
    const std::string text = e.what(), prefix = path.string() + ": ";
    return text.starts_with(prefix) ? text.substr(prefix.size()) : "path missing in: " + text;
  }
  return "no error";
}

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  return text.replace(text.find(what), what.size(), with);
}

std::string header() {
  std::string out = "label";
  for (int i = 0; i < 784; ++i) out += ",pixel" + std::to_string(i);
  return out + "\n";
}
std::string row(const std::string& label, const std::string& pixel = "0", int count = 784) {
  std::string out = label;
  for (int i = 0; i < count; ++i) out += "," + pixel;
  return out + "\n";
}

}  // namespace

TEST_CASE("csv: what is written is read back, plain, gzip and zip") {
  const TempDir dir;
  const Digits digits = some_digits(700);  // more than one buffer of text
  save_digits_csv(dir / "a.csv", digits);
  save_digits_csv(dir / "a.csv.gz", digits);
  CHECK(same(load_digits_csv(dir / "a.csv"), digits));
  CHECK(same(load_digits_csv(dir / "a.csv.gz"), digits));
  const std::string text = read(dir / "a.csv");
  CHECK(text.starts_with(header()));
  CHECK(fs::file_size(dir / "a.csv.gz") < text.size() / 4);
  for (const ZipParts& parts :
       {ZipParts{}, ZipParts{.stored = true}, ZipParts{.descriptor = true},
        ZipParts{.stored = true, .descriptor = true}, ZipParts{.descriptor = true, .descriptor_mark = false},
        ZipParts{.name = "a/b.csv", .extra = "some extra field"}, ZipParts{.comment = "a comment with PK\5\6 in it"}}) {
    CAPTURE(parts.name);
    write(dir / "b", zipped(text, parts));  // the content decides, not the name
    CHECK(same(load_digits_csv(dir / "b"), digits));
  }
}

TEST_CASE("csv: what programs write in their own way") {
  const TempDir dir;
  const std::string good = header() + row("3", "255") + row("9", "7");
  write(dir / "f", good);
  const Digits digits = load_digits_csv(dir / "f");
  CHECK(digits.labels.to_vector() == std::vector<double>{3, 9});
  CHECK(digits.images.shape() == Shape{2, 28, 28});
  CHECK(sum(cast(digits.images, f64)).item() == 784 * (255 + 7));
  std::string lines = good, quoted = "\"label\"";
  for (std::size_t at = 0; (at = lines.find('\n', at)) != std::string::npos; at += 2) lines.insert(at, "\r");
  for (int i = 0; i < 784; ++i) quoted += ",\"V" + std::to_string(i) + "\"";
  for (const std::string& text :
       {lines, "\xef\xbb\xbf" + good, replaced(good, "label", "Digit"), replaced(good, header(), quoted + "\n"),
        replaced(good, "3,255", "003,255"), good.substr(0, good.size() - 1), lines.substr(0, lines.size() - 1),
        good + "\n", good + "\n\n\r\n", replaced(good, "3,255,", "\"3\",\"255\","),
        replaced(good, ",255\n", ",\"255\"\n"), replaced(lines, ",255\r", ",\"255\"\r"),
        replaced(good, "label,pixel0,", "\"the \"\"label\"\", in\r\ntwo lines\",\"\",")}) {
    write(dir / "f", text);
    CHECK(same(load_digits_csv(dir / "f"), digits));
  }
}

TEST_CASE("csv: every broken rule has its message, with line and column") {
  const TempDir dir;
  const auto says = [&](std::string_view bytes) { return message(dir, bytes); };
  const std::string top = header(), good = top + row("3") + row("1");
  CHECK(says(good) == "no error");
  CHECK(says("") == "line 1: expected a header, found the end of the data");
  CHECK(says("label,pixel0") == "line 1: expected a header of 785 columns, the label and 784 pixels, found 2");
  CHECK(says("\"label,pixel0\n") == "line 1: expected the closing quote, found the end of the data");
  CHECK(says("label,pixel0\n") == "line 1: expected a header of 785 columns, the label and 784 pixels, found 2");
  CHECK(says("\n") == "line 1: expected a header of 785 columns, the label and 784 pixels, found 1");
  CHECK(says(row("3")) == "line 1, column 1: expected a header with names, found the number 3");
  CHECK(says(top) == "line 2: expected a digit, found the end of the data");
  CHECK(says(replaced(replaced(good, "label", "pixel"), ",pixel783\n", ",class\n")) ==
        "line 1, column 785: expected the labels in column 1, found \"class\" here");
  CHECK(says(top + row("3", "0", 783)) == "line 2: expected 785 columns, found 784");
  CHECK(says(top + row("3") + row("3", "0", 785)) == "line 3: expected 785 columns, found 786");
  CHECK(says(top + "\n" + row("3")) == "line 3: expected no more rows after an empty line");
  CHECK(says(top + "\n\n") == "line 2: expected a digit, found the end of the data");
  CHECK(says(good + " \n") == "line 4, column 1: expected a label from 0 to 9, found \" \"");
  CHECK(says(good + row("10")) == "line 4, column 1: expected a label from 0 to 9, found \"10\"");
  CHECK(says(good + row("-1")) == "line 4, column 1: expected a label from 0 to 9, found \"-1\"");
  CHECK(says(replaced(good, "3,0,0,0,", "3,0,0,256,")) ==
        "line 2, column 4: expected a pixel from 0 to 255, found \"256\"");
  for (const std::string cell : {"", " 0", "0 ", "1.5", "1e2", "-0", "+1", "0x1", "nan", "0255", "4294967296"})
    CHECK(says(replaced(good, "3,0,0,0,", "3,0,0," + cell + ",")) ==
          "line 2, column 4: expected a pixel from 0 to 255, found \"" + cell + "\"");
  CHECK(says(replaced(good, "3,0,0,0,",
                      "3,0,0,\x01\xff"
                      "abcdefghijklmnopqrstuvwxyz,")) ==
        "line 2, column 4: expected a pixel from 0 to 255, found \"\?\?abcdefghijklmnopqr...\"");
  const auto cell = [&](const std::string& text) { return says(replaced(good, "3,0,0,0,", "3,0,0," + text + ",")); };
  CHECK(cell("\"0") == "line 2: expected the closing quote, found the end of the data");
  CHECK(cell("0\"") == "line 2: expected the closing quote, found the end of the data");
  CHECK(cell("\"0\"1") == "line 2, column 4: expected a comma after the closing quote, found \"1\"");
  CHECK(cell("1\"0\"") == "line 2, column 4: expected quotes around the whole cell, found \"1\"0\"\"");
  CHECK(cell("\"0,0\"") == "line 2, column 4: expected a pixel from 0 to 255, found \"0,0\"");
  CHECK(cell("\"0\n\"") == "line 2, column 4: expected a pixel from 0 to 255, found \"0?\"");
  CHECK(cell("\"1\"\"\"") == "line 2, column 4: expected a pixel from 0 to 255, found \"1\"\"");
  CHECK(says(replaced(good, "label,", "\"a\nb\",") + row("x")) ==
        "line 5, column 1: expected a label from 0 to 9, found \"x\"");
  CHECK(says(replaced(good, "\n3,0", "\n3;0")) == "line 2, column 1: expected a label from 0 to 9, found \"3;0\"");
  CHECK(says("label," + std::string(3'000'000, 'x') + "\n") ==
        "line 1: expected the end of the line within 65536 bytes");
  CHECK_THROWS_WITH_AS(load_digits_csv(dir / "none"),
                       ((dir / "none").string() + ": cannot read: No such file or directory").c_str(), IoError);
  CHECK_THROWS_AS(load_digits_csv(dir.path()), IoError);
}

TEST_CASE("csv: broken zips") {
  const TempDir dir;
  const std::string text = header() + row("3") + row("1"), good = zipped(text);
  const auto says = [&](std::string_view bytes) { return message(dir, bytes); };
  const auto with = [&](std::size_t at, std::uint32_t value, int bytes = 2) {
    std::string bad = good;
    return bad.replace(at, static_cast<std::size_t>(bytes), little(value, bytes));
  };
  CHECK(says(good) == "no error");
  const std::size_t end = good.size() - 22, central = good.find("PK\1\2");
  const std::string at_end = "byte " + std::to_string(end) + " of the zip file: expected ",
                    at_central = "byte " + std::to_string(central) + " of the zip file: expected ";
  CHECK(says(good + "x") == "byte " + std::to_string(good.size() + 1) +
                                " of the zip file: expected the directory of the zip, found the end of the file");
  CHECK(
      says(good.substr(0, good.size() - 1)).ends_with("expected the directory of the zip, found the end of the file"));
  std::string two = with(end + 8, 2);
  CHECK(says(two.replace(end + 10, 2, little(2, 2))) == at_end + "a zip with one file, found 2");
  CHECK(says(with(end + 4, 1)) == at_end + "a zip in one piece");
  CHECK(says(with(end + 16, 0xffffffff, 4)) ==
        at_end + "the directory of the zip right before its end (zip64 is not read)");
  CHECK(says(with(central + 8, 1)) == at_central + "a file that is not encrypted");
  CHECK(says(with(central + 10, 14)) == at_central + "a stored or deflated file, found method 14");
  CHECK(says(with(central + 24, 0x40000000, 4)) == at_central + "a size that the compressed data can have");
  CHECK(says(with(central + 24, 0xffffffff, 4)) == at_central + "a file below 4 GiB (zip64 is not read)");
  CHECK(says(with(central + 42, 7, 4)) == at_central + "the file at the beginning of the zip");
  CHECK(says(with(8, 0)) == "byte 0 of the zip file: expected a header that agrees with the directory of the zip");
  CHECK(says(with(14, 0, 4)) == "byte 14 of the zip file: expected sizes that agree with the directory of the zip");
  CHECK(says(with(30, 'x', 1)) == "byte 30 of the zip file: expected the same name as in the directory of the zip");
  CHECK(says(zipped(text, {.name = "folder/"})).ends_with("expected a file, not a folder"));
  std::string longer = good;
  longer.insert(central, "junk").replace(end + 4 + 16, 4, little(static_cast<std::uint32_t>(central + 4), 4));
  CHECK(says(longer) ==
        "byte " + std::to_string(central) + " of the zip file: expected the directory of the zip after the data");
  // The checksum and size in both headers changed alike: only the data tell.
  std::string crc = with(14, 0x12345678, 4);
  CHECK(says(crc.replace(central + 16, 4, little(0x12345678, 4)))
            .find(" of the zip file: expected data with checksum 12345678, found ") != std::string::npos);
  for (const std::size_t change : {text.size() - 1, text.size() + 1}) {
    std::string size = with(22, static_cast<std::uint32_t>(change), 4);
    CHECK(says(size.replace(central + 24, 4, little(static_cast<std::uint32_t>(change), 4)))
              .find("expected " + std::to_string(change) + " bytes of data, found ") != std::string::npos);
  }
  // An IDX file in a zip is read as well.
  write_idx(dir / "idx", some_digits(2).images);
  write(dir / "idx.zip", zipped(read(dir / "idx"), {.name = "idx"}));
  CHECK(same_bits(read_idx(dir / "idx.zip"), some_digits(2).images));
}

TEST_CASE("csv: a small file that inflates without end takes little memory") {
  const TempDir dir;
  const std::string bomb = zipped(header() + std::string(std::size_t{64} << 20, '0') + "\n");
  reset_peak_memory();
  CHECK(message(dir, bomb) == "line 2: expected the end of the line within 65536 bytes");
  CHECK(memory_stats().peak < 1 << 20);
}

TEST_CASE("csv: a file cut short is refused, unless a whole number of rows is left of a plain one") {
  const TempDir dir;
  const Digits digits = some_digits(3);
  const std::string text = csv_of(dir, digits);
  save_digits_csv(dir / "a.gz", digits);
  for (const std::string& whole :
       {text, read(dir / "a.gz"), zipped(text), zipped(text, {.stored = true, .descriptor = true})}) {
    int accepted = 0;
    for (std::size_t n = 0; n<whole.size(); n += n> 40 && n + 40 < whole.size() ? whole.size() / 100 : 1) {
      CAPTURE(n);
      // without the end of the last line, or within its last number, nothing tells
      const bool lines = whole == text && n > header().size() &&
                         std::count(text.begin() + static_cast<std::ptrdiff_t>(text.rfind('\n', n - 2) + 1),
                                    text.begin() + static_cast<std::ptrdiff_t>(n), ',') == 784 &&
                         text[n - 1] != ',';
      accepted += lines;
      CHECK((message(dir, std::string_view(whole).substr(0, n)) == "no error") == lines);
    }
    CHECK(accepted <= 8);
  }
}

TEST_CASE("csv: thousands of damaged files: an error, or the data as they are written there") {
  const TempDir dir;
  const Digits digits = some_digits(2);
  const std::string text = csv_of(dir, digits);
  save_digits_csv(dir / "a.gz", digits);
  std::mt19937 random(7);
  int accepted = 0, refused = 0;
  for (const std::string& whole :
       {text, read(dir / "a.gz"), zipped(text), zipped(text, {.stored = true}), zipped(text, {.descriptor = true})})
    for (int i = 0; i < 300; ++i) {
      std::string bad = whole;
      for (auto changes = 1 + random() % 3; changes > 0; --changes) {
        // Half of the changes near the ends, where the headers are.
        const std::size_t n = bad.size(), near = random() % 90 % n,
                          at = random() % 4 == 0   ? near
                               : random() % 3 == 0 ? n - 1 - near
                                                   : random() % n;
        switch (random() % 5) {
          case 0: bad[at] = static_cast<char>(bad[at] ^ 1 << random() % 8); break;
          case 1: bad[at] = static_cast<char>(random()); break;
          case 2: bad.erase(at, 1 + random() % 4); break;
          case 3: bad.insert(at, 1, "0,\n9\xff"[random() % 5]); break;
          default: bad.insert(at, bad.substr(random() % n, 1 + random() % 30)); break;
        }
        if (bad.empty()) bad = "x";
      }
      write(dir / "bad", bad);
      Digits got;
      try {
        got = load_digits_csv(dir / "bad");
      } catch (const DataError& e) {
        CHECK(std::string(e.what()).starts_with((dir / "bad").string() + ": "));
        CHECK(std::string_view(e.what()).find('\n') == std::string_view::npos);
        ++refused;
        continue;
      }
      ++accepted;
      CAPTURE(i);
      if (whole == text) {  // text has no checksum: what is there must be what was read
        const Digits again = [&] {
          save_digits_csv(dir / "again", got);
          return load_digits_csv(dir / "again");
        }();
        CHECK(same(again, got));
      } else {
        CHECK(same(got, digits));
      }
    }
  CAPTURE(accepted);
  CHECK(refused > 1200);
  CHECK(accepted > 5);  // so that the other branch is tried too
}

TEST_CASE("csv: what cannot be written") {
  const TempDir dir;
  const Digits d = some_digits(2);
  CHECK_THROWS_AS(save_digits_csv(dir / "a", {cast(d.images, f32), d.labels}), DTypeError);
  CHECK_THROWS_AS(save_digits_csv(dir / "a", {}), DTypeError);
  CHECK_THROWS_WITH_AS(save_digits_csv(dir / "a", {d.images, d.labels.rows(0, 1)}),
                       "save_digits_csv: expected images (n, 28, 28) and labels (n,), got (2, 28, 28) and (1,)",
                       ShapeError);
  CHECK_THROWS_AS(save_digits_csv(dir / "a", {zeros({2, 4, 4}, u8), d.labels}), ShapeError);
  CHECK_FALSE(fs::exists(dir / "a"));
}

TEST_CASE("csv: a table in the place of a folder") {
  const TempDir dir;
  const Digits digits = some_digits(15);
  save_digits_csv(dir / "t.csv.gz", digits);
  for (const Mnist& data : {load_mnist(dir / "t.csv.gz"), find_dataset(DatasetName::fashion, dir / "t.csv.gz")}) {
    CHECK(data.train.size() == 12);  // the last ceil(15 / 7) are for the test
    CHECK(data.test.size() == 3);
    CHECK(same(data.all(), digits));
    CHECK(data.source == (dir / "t.csv.gz").string());
  }
  save_digits_csv(dir / "one.csv", some_digits(1));
  CHECK_THROWS_WITH_AS(load_mnist(dir / "one.csv"),
                       ((dir / "one.csv").string() + ": expected at least two digits, found one").c_str(), DataError);
}

TEST_CASE("csv: real digits") {
  const char* given = ::getenv("EBB_DATA");
  if (!given || !fs::exists(fs::path(given) / "mnist")) {
    MESSAGE("skipped: EBB_DATA names no folder with mnist/");
    return;
  }
  const TempDir dir;
  const Mnist data = load_mnist(fs::path(given) / "mnist");
  const Digits part{data.train.images.rows(0, 3500), data.train.labels.rows(0, 3500)};
  write(dir / "digits.csv.zip", zipped(csv_of(dir, part)));
  const Mnist table = load_mnist(dir / "digits.csv.zip");
  CHECK(table.name == "mnist");
  CHECK(table.train.size() == 3000);
  CHECK(same(table.all(), part));
}
