#include <ebb/models/data/csv.h>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/files/byte_source.h>
#include <ebb/models/files/separated.h>

namespace ebb {
namespace {

constexpr std::size_t pixels = Digits::pixels, columns = pixels + 1;
/// More than any known set of ten digits has; keeps a small file that inflates without end from taking all memory.
constexpr std::size_t max_rows = 1'000'000;
constexpr std::size_t longest_line = std::size_t{1} << 16;  // of a header; a row cannot have more than 3142 bytes

using detail::printable;

/// The text, some lines at a time. A line ends with its newline or with the data; newlines in quotes belong to it.
class Lines {
 public:
  explicit Lines(const std::filesystem::path& path) : source_(path), buffer_(longest_line + (longest_line >> 1)) {}

  /// The next line without its end (a carriage return is part of the end); false when there are no more.
  bool next(std::string_view& line) {
    const std::size_t before = below_;
    const char* end = find_end();
    if (!end) {
      refill();
      end = find_end();
    }
    if (!end && used_ == filled_) return false;
    number_ += 1 + before;
    if (!end && filled_ - used_ > longest_line) fail(0, "expected the end of the line within 65536 bytes");
    if (!end && in_quotes_) fail(0, "expected the closing quote, found the end of the data");
    if (!end) end = text() + filled_;
    line = {text() + used_, static_cast<std::size_t>(end - text()) - used_};
    used_ = std::min(filled_, used_ + line.size() + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return true;
  }
  void expect_end() { source_.expect_end(); }

  /// Column 0: the whole line.
  [[noreturn]] void fail(std::size_t column, std::string_view message) const {
    throw DataError(fmt::format("{}: line {}{}: {}", source_.path().string(), number_,
                                column ? fmt::format(", column {}", column) : "", message));
  }

 private:
  const char* text() const { return reinterpret_cast<const char*>(buffer_.data()); }
  const char* find(char c, std::size_t from, std::size_t to) const {
    return static_cast<const char*>(std::memchr(text() + from, c, to - from));
  }
  /// The next newline outside quotes; an escaped quote is two and changes nothing.
  const char* find_end() {
    in_quotes_ = false;
    below_ = 0;
    for (std::size_t from = used_;; ++below_) {
      const char* const end = find('\n', from, filled_);
      const std::size_t to = end ? static_cast<std::size_t>(end - text()) : filled_;
      if (find('"', from, to)) in_quotes_ ^= std::count(text() + from, text() + to, '"') % 2 != 0;
      if (!end || !in_quotes_) return end;
      from = to + 1;
    }
  }

  /// Moves the beginning of a line to the front and reads on behind it.
  void refill() {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(used_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(filled_), buffer_.begin());
    filled_ -= used_;
    used_ = 0;
    filled_ += source_.read(std::span(buffer_).subspan(filled_));
  }

  detail::Source source_;
  std::vector<std::uint8_t> buffer_;
  std::size_t used_ = 0, filled_ = 0;
  std::size_t number_ = 0, below_ = 0;  // of the current line, from 1; how many more it takes in the file
  bool in_quotes_ = false;              // what find_end() saw ends there
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
  });
  return out;
}

std::vector<std::string> cells_of(const Lines& lines, std::string_view line) {
  return detail::separated(line, ',', [&](std::size_t cell, const std::string& what) { lines.fail(cell, what); });
}

void check_header(const Lines& lines, std::string_view header) {
  if (header.starts_with("\xef\xbb\xbf")) header.remove_prefix(3);  // the mark that some editors put before UTF-8
  const std::vector<std::string> names = cells_of(lines, header);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    if (i == 0 && !name.empty() && name.find_first_not_of("0123456789.+-eE ") == std::string::npos)
      lines.fail(1, fmt::format("expected a header with names, found the number {}", printable(name, 20)));
    const std::string word = lower(name);
    if (i > 0 && (word == "label" || word == "class" || word == "target" || word == "y"))
      lines.fail(i + 1, fmt::format("expected the labels in column 1, found \"{}\" here", printable(name, 20)));
  }
  if (names.size() != columns)
    lines.fail(0, fmt::format("expected a header of {} columns, the label and {} pixels, found {}", columns, pixels,
                              names.size()));
}

/// A row in which something is quoted or wrong, slowly.
void read_row(const Lines& lines, std::string_view row, std::uint8_t& label, std::uint8_t* out) {
  const std::vector<std::string> cells = cells_of(lines, row);
  for (std::size_t i = 0; i < std::min(cells.size(), columns); ++i) {
    const std::string& cell = cells[i];
    const bool number = !cell.empty() && cell.size() <= 3 && cell.find_first_not_of("0123456789") == std::string::npos;
    const int value = number ? std::stoi(cell) : -1, most = i == 0 ? 9 : 255;
    if (value < 0 || value > most)
      lines.fail(i + 1, fmt::format("expected a {} from 0 to {}, found \"{}\"", i == 0 ? "label" : "pixel", most,
                                    printable(cell, 20)));
    (i == 0 ? label : out[i - 1]) = static_cast<std::uint8_t>(value);
  }
  if (cells.size() != columns) lines.fail(0, fmt::format("expected {} columns, found {}", columns, cells.size()));
}

/// Numbers of one to three digits separated by commas; false when anything is wrong.
bool parse_row(std::string_view row, std::uint8_t& label, std::uint8_t* out) {
  const char *p = row.data(), *const end = p + row.size();
  for (std::size_t column = 0; column < columns; ++column) {
    unsigned value = 0;
    const char* const begin = p;
    for (; p < end && static_cast<unsigned char>(*p - '0') <= 9; ++p)
      value = value * 10 + static_cast<unsigned>(*p - '0');
    const auto digits = p - begin;
    if (digits < 1 || digits > 3 || value > (column == 0 ? 9u : 255u)) return false;
    if (column == 0) label = static_cast<std::uint8_t>(value);
    else out[column - 1] = static_cast<std::uint8_t>(value);
    if (column + 1 < columns && (p == end || *p++ != ',')) return false;
  }
  return p == end;
}

}  // namespace

Digits load_digits_csv(const std::filesystem::path& path) {
  Lines lines(path);
  std::string_view line;
  if (!lines.next(line))
    throw DataError(fmt::format("{}: line 1: expected a header, found the end of the data", path.string()));
  check_header(lines, line);
  std::vector<std::uint8_t> images, labels;
  bool blank = false;  // only after the last row
  while (lines.next(line)) {
    if (std::exchange(blank, line.empty()) && !blank) lines.fail(0, "expected no more rows after an empty line");
    if (blank) continue;
    if (labels.size() == max_rows) lines.fail(0, fmt::format("expected at most {} digits, found more", max_rows));
    images.resize(images.size() + pixels);
    labels.push_back(0);
    if (!parse_row(line, labels.back(), images.data() + images.size() - pixels))
      read_row(lines, line, labels.back(), images.data() + images.size() - pixels);
  }
  lines.expect_end();
  if (labels.empty())
    throw DataError(fmt::format("{}: line 2: expected a digit, found the end of the data", path.string()));
  const auto n = static_cast<std::int64_t>(labels.size());
  return {Tensor::from(images, {n, Digits::side, Digits::side}), Tensor::from(labels, {n})};
}

void save_digits_csv(const std::filesystem::path& path, const Digits& digits) {
  const auto is = [](const Tensor& t, const Shape& shape) {
    return t.defined() && t.dtype() == u8 && t.shape() == shape;
  };
  const std::int64_t n = digits.size();
  if (!digits.images.defined() || digits.images.dtype() != u8 || !digits.labels.defined() ||
      digits.labels.dtype() != u8)
    throw DTypeError(fmt::format("save_digits_csv: writes uint8 only, got {} and {}", describe(digits.images),
                                 describe(digits.labels)));
  if (!is(digits.images, {n, Digits::side, Digits::side}) || !is(digits.labels, {n}))
    throw ShapeError(fmt::format("save_digits_csv: expected images (n, 28, 28) and labels (n,), got {} and {}",
                                 digits.images.shape().str(), digits.labels.shape().str()));
  std::string text = "label";
  for (std::size_t i = 0; i < pixels; ++i) text += fmt::format(",pixel{}", i);
  text += '\n';
  std::array<std::string, 256> numbers;
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = fmt::format(",{}", i);
  const auto images = digits.images.values<std::uint8_t>(), labels = digits.labels.values<std::uint8_t>();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    text += fmt::format("{}", labels[i]);
    for (const std::uint8_t p : images.subspan(i * pixels, pixels)) text += numbers[p];
    text += '\n';
  }
  detail::write_by_name(path, std::array{std::as_bytes(std::span(std::as_const(text)))});
}

}  // namespace ebb
