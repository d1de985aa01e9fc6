// .npy (numpy.lib.format, version 1.0 to 3.0) and .npz, a zip of them.
#include <ebb/models/files/numpy.h>

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/byte_source.h>
#include <ebb/models/files/elements.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using namespace std::string_view_literals;
using detail::Source;

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t longest_header = std::size_t{1} << 16;

// ---- the header ----------------------------------------------------------------------------------------------------

struct Header {
  detail::Element kind{};
  bool big_endian = false, fortran = false;
  std::vector<std::int64_t> sizes;
};

/// Reads the dictionary of a header, which is a Python literal.
class HeaderParser {
 public:
  HeaderParser(const Source& in, std::string_view text, std::int64_t begin) : in_(in), text_(text), begin_(begin) {}

  Header run() {
    bool kind = false, fortran = false, shape = false;
    Header out;
    expect('{');
    while (!accept('}')) {
      const std::size_t at = at_;
      const std::string_view key = quoted();
      expect(':');
      bool& seen = key == "descr" ? kind : key == "fortran_order" ? fortran : shape;
      if (key != "descr" && key != "fortran_order" && key != "shape")
        fail(at, "expected 'descr', 'fortran_order' or 'shape'");
      if (seen) fail(at, fmt::format("'{}' comes twice", key));
      seen = true;
      if (key == "descr") type(out);
      else if (key == "fortran_order") out.fortran = boolean();
      else out.sizes = tuple();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip();
    if (at_ != text_.size()) fail(at_, "expected the end of the header");
    if (!kind || !fortran || !shape)
      fail(text_.size(), fmt::format("the header lacks '{}'", !kind ? "descr" : !fortran ? "fortran_order" : "shape"));
    return out;
  }

 private:
  [[noreturn]] void fail(std::size_t at, std::string_view what) const {
    in_.fail_at(begin_ + static_cast<std::int64_t>(at), what);
  }
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(std::string_view word) {
    skip();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  bool accept(char c) { return accept(std::string_view(&c, 1)); }
  void expect(char c) {
    if (!accept(c)) fail(at_, fmt::format("expected '{}'", c));
  }
  std::string_view quoted() {
    skip();
    const char mark = at_ < text_.size() ? text_[at_] : '\0';
    if (mark != '\'' && mark != '"') fail(at_, "expected a text in quotes");
    const std::size_t end = text_.find(mark, at_ + 1);
    if (end == text_.npos) fail(at_, "expected a text in quotes");
    const std::string_view out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return out;
  }
  /// A byte order, a letter and a number of bytes: "<f4".
  void type(Header& out) {
    skip();
    if (at_ < text_.size() && text_[at_] == '[') fail(at_, "arrays of records are not read");
    const std::size_t at = at_;
    const std::string_view kind = quoted();
    if (kind.find('O') != kind.npos) fail(at, "arrays of Python objects are not read");
    using enum detail::Element;
    constexpr std::pair<std::string_view, detail::Element> known[] = {
        {"f2", f16}, {"f4", f32}, {"f8", f64}, {"i1", i8},  {"i2", i16}, {"i4", i32},
        {"i8", i64}, {"u1", u8},  {"u2", u16}, {"u4", u32}, {"u8", u64}, {"b1", boolean}};
    const auto found =
        kind.empty() ? std::end(known)
                     : std::ranges::find(known, kind.substr(1), &std::pair<std::string_view, detail::Element>::first);
    // One byte has no order: NumPy writes '|' and takes any; wider numbers must say theirs.
    const bool ordered = found != std::end(known) &&
                         (kind[0] == '<' || kind[0] == '>' || (kind[0] == '|' && size_of(found->second) == 1));
    if (!ordered)
      fail(at, fmt::format("type '{}' is not supported; expected one of <f2 <f4 <f8 <i2 <i4 <i8 <u2 <u4 <u8, the same "
                           "with >, |i1 |u1 |b1",
                           detail::printable(kind, 20)));
    out.kind = found->second;
    out.big_endian = kind[0] == '>';
  }
  bool boolean() {
    if (accept("True"sv)) return true;
    if (!accept("False"sv)) fail(at_, "expected True or False");
    return false;
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> out;
    expect('(');
    for (bool comma = false;; comma = true) {
      if (accept(')')) {
        if (out.size() == 1 && !comma) fail(at_, "expected a tuple");
        return out;
      }
      skip();
      std::int64_t n = 0;
      const auto [stop, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), n);
      if (error == std::errc::result_out_of_range) fail(at_, "a size is too large");
      if (error != std::errc()) fail(at_, "expected a size");
      if (n < 0) fail(at_, fmt::format("a size must not be negative, got {}", n));
      if (out.size() == Shape::max_rank) fail(at_, fmt::format("at most {} axes are read", Shape::max_rank));
      at_ = static_cast<std::size_t>(stop - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 writes (2L, 3L)
      out.push_back(n);
      if (!accept(',')) {
        if (out.size() == 1) fail(at_, "expected ',' in a tuple of one");
        expect(')');
        return out;
      }
    }
  }

  const Source& in_;
  std::string_view text_;
  std::int64_t begin_;
  std::size_t at_ = 0;
};

Header read_header(Source& in) {
  std::uint8_t start[12] = {};
  if (in.read(std::span(start, 8)) != 8 || !std::equal(magic.begin(), magic.end(), start, [](char a, std::uint8_t b) {
        return static_cast<std::uint8_t>(a) == b;
      }))
    in.fail_at(0, "expected a NumPy array, which begins with \\x93NUMPY");
  if (start[6] < 1 || start[6] > 3 || start[7] != 0)
    in.fail_at(6, fmt::format("version {}.{} is not read, only 1.0, 2.0 and 3.0", start[6], start[7]));
  const std::size_t wide = start[6] == 1 ? 2 : 4;
  if (in.read(std::span(start + 8, wide)) != wide)
    in.fail_at(8, "expected the length of the header, found the end of the file");
  std::size_t length = 0;
  for (std::size_t i = 0; i < wide; ++i) length |= std::size_t{start[8 + i]} << 8 * i;
  if (length > longest_header) in.fail_at(8, fmt::format("a header of {} bytes, more than {}", length, longest_header));
  std::string text(length, '\0');
  const std::int64_t begin = in.position();
  if (in.read(std::span(reinterpret_cast<std::uint8_t*>(text.data()), length)) != length)
    in.fail_at(begin, fmt::format("expected a header of {} bytes, found the end of the file", length));
  return HeaderParser(in, text, begin).run();
}

// ---- reading -------------------------------------------------------------------------------------------------------

Tensor read_array(Source& in) {
  const Header h = read_header(in);
  const std::int64_t begin = in.position(), wide = static_cast<std::int64_t>(size_of(h.kind));
  std::int64_t bytes = wide, all = 0;
  bool fits = true, none = false;
  for (const std::int64_t n : h.sizes)
    none |= n == 0, fits = fits && !__builtin_mul_overflow(bytes, std::max<std::int64_t>(1, n), &bytes);
  if (!fits || __builtin_mul_overflow(bytes, 8, &all) || __builtin_add_overflow(bytes, begin, &all))
    in.fail_at(begin, "the sizes are too large");
  if (none) bytes = 0;
  if (in.packed() ? !in.can_hold(begin + bytes) : bytes > in.limit() - begin)
    in.fail_at(begin, fmt::format("expected {} bytes of elements, the file is too short", bytes));
  if (!in.packed() && bytes < in.limit() - begin)
    in.fail_at(begin + bytes, "expected the end of the data, found more bytes");

  std::vector<std::int64_t> sizes = h.sizes;
  if (h.fortran) std::ranges::reverse(sizes);
  Tensor out = Tensor::empty(Shape(sizes), dtype_of(h.kind));
  const auto read = [&](std::span<std::uint8_t> part) {
    const std::int64_t before = in.position() - begin;
    const std::size_t got = in.read(part);
    if (got != part.size())
      in.fail_at(begin, fmt::format("expected {} bytes of elements, found {}", bytes,
                                    before + static_cast<std::int64_t>(got)));
  };
  if (const auto bad = read_elements(out, h.kind, h.big_endian, read))
    in.fail_at(begin + *bad * wide, "a number above 2^63 - 1, the largest of int64");
  in.expect_end();
  return h.fortran ? transpose(out) : out;
}

// ---- writing -------------------------------------------------------------------------------------------------------

std::string header_of(const Tensor& t, std::string_view caller) {
  if (!t.defined()) throw ValueError(fmt::format("{}: an undefined tensor", caller));
  constexpr std::string_view kinds[] = {"<f4", "<f8", "<i8", "|u1"};
  std::string shape;
  for (const std::int64_t n : t.shape()) shape += fmt::format("{}, ", n);
  if (t.rank() > 1) shape.resize(shape.size() - 2);
  else if (t.rank() == 1) shape.pop_back();
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                                 kinds[static_cast<int>(t.dtype())], shape);
  text.append((64 - (10 + text.size() + 1) % 64) % 64, ' ') += '\n';  // the elements begin at a multiple of 64
  std::string out(magic);
  out += {'\1', '\0', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return out + text;
}

std::span<const std::byte> bytes_of(std::string_view s) { return std::as_bytes(std::span(s)); }
std::span<const std::byte> elements_of(const Tensor& t) { return {t.raw(), t.bytes()}; }

std::string little(std::size_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xff);
  return out;
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) {
  Source in(path);
  return read_array(in);
}

std::map<std::string, Tensor> read_npz(const std::filesystem::path& path) {
  Source in(path, Source::Archive());
  std::map<std::string, Tensor> out;
  const std::vector<std::string> names = in.names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!names[i].ends_with(".npy") || names[i].size() == 4)
      throw DataError(
          fmt::format("{}: expected files NAME.npy in it, found {}", path.string(), detail::printable(names[i], 80)));
    in.open(i);
    out[names[i].substr(0, names[i].size() - 4)] = read_array(in);
  }
  return out;
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  const std::string header = header_of(tensor, "write_npy");
  write_atomically(path, std::array{bytes_of(header), elements_of(tensor)});
}

void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors) {
  constexpr std::size_t most = 0xffffffff;
  std::deque<std::string> texts;  // keeps its elements in place
  std::vector<std::span<const std::byte>> pieces;
  std::string directory;
  std::size_t at = 0;
  const auto add = [&](std::span<const std::byte> piece) {
    pieces.push_back(piece);
    at += piece.size();
  };
  if (tensors.size() > 0xffff)
    throw ValueError(fmt::format("write_npz: {} arrays, a zip holds at most 65535", tensors.size()));
  for (const auto& [key, t] : tensors) {
    if (key.empty() || key.size() > 1000 || !std::ranges::all_of(key, [](char c) { return c >= ' ' && c <= '~'; }))
      throw ValueError(fmt::format(
          "write_npz: a name must be 1 to 1000 printable ASCII characters, got {} of them or others", key.size()));
    const std::string name = key + ".npy";
    const std::string& header = texts.emplace_back(header_of(t, "write_npz"));
    const std::size_t size = header.size() + t.bytes();
    if (size >= most || at > most - size)
      throw ValueError(fmt::format("write_npz: {}: more than the 4 GiB that a zip holds", path.string()));
    std::uint32_t crc =
        static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(header.data()), header.size()));
    crc = static_cast<std::uint32_t>(::crc32_z(crc, reinterpret_cast<const Bytef*>(t.raw()), t.bytes()));
    // Version, flags, stored, 1980-01-01; checksum, sizes; lengths of the name and of nothing more (APPNOTE.TXT 4.3.7)
    const std::string common = little(20, 2) + little(0, 2) + little(0, 2) + little(0, 2) + little(0x21, 2) +
                               little(crc, 4) + little(size, 4) + little(size, 4) + little(name.size(), 2) +
                               little(0, 2);
    directory += "PK\1\2" + little(20, 2) + common + little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
                 little(at, 4) + name;
    add(bytes_of(texts.emplace_back("PK\3\4" + common + name)));
    add(bytes_of(header));
    add(elements_of(t));
  }
  const std::size_t central_at = at;
  if (central_at + directory.size() >= most)
    throw ValueError(fmt::format("write_npz: {}: more than the 4 GiB that a zip holds", path.string()));
  const std::string end = "PK\5\6" + little(0, 4) + little(tensors.size(), 2) + little(tensors.size(), 2) +
                          little(directory.size(), 4) + little(central_at, 4) + little(0, 2);
  add(bytes_of(directory));
  add(bytes_of(end));
  write_atomically(path, pieces);
}

}  // namespace ebb
