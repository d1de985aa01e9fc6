// (over 400 lines because every rule of the format is a check with a message of its own, and the reader belongs beside
// the writer)
#include <ebb/models/files/safetensors.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/descriptor.h>
#include <ebb/models/files/elements.h>

namespace ebb {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr std::uint64_t prefix_bytes = 8;
constexpr std::uint64_t max_header_bytes = 100'000'000;
constexpr std::string_view metadata_key = "__metadata__";

/// Of a name or a text: what parsing takes beside it stays small.
constexpr std::size_t longest_text = std::size_t{1} << 22;
/// Tensors and texts: more than any known model has; what is kept of each is larger than what it takes in a file.
constexpr std::size_t most_entries = 100'000;

using detail::Element;
constexpr std::pair<std::string_view, Element> kinds[] = {
    {"F32", Element::f32},      {"F64", Element::f64},         {"I64", Element::i64},        {"U8", Element::u8},
    {"BOOL", Element::boolean}, {"I8", Element::i8},           {"I16", Element::i16},        {"I32", Element::i32},
    {"U16", Element::u16},      {"U32", Element::u32},         {"U64", Element::u64},        {"F16", Element::f16},
    {"BF16", Element::bf16},    {"F8_E4M3", Element::f8_e4m3}, {"F8_E5M2", Element::f8_e5m2}};
constexpr std::string_view other_kinds[] = {"C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"};

std::string_view kind_of(Element e) {
  return std::ranges::find(kinds, e, &std::pair<std::string_view, Element>::second)->first;
}
std::string_view kind_of(DType dtype) {
  return dtype == f32 ? "F32" : dtype == f64 ? "F64" : dtype == i64 ? "I64" : "U8";
}

/// A text from a file made fit for a message: quoted, escaped, shortened.
std::string printable(std::string_view text) {
  constexpr std::size_t shown = 80;
  const std::string all = json(text.substr(0, shown)).dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() > shown ? all + "..." : all;
}

template <class... Args>
[[noreturn]] void broken(const fs::path& path, fmt::format_string<Args...> format, Args&&... args) {
  throw DataError(path.string() + ": " + fmt::format(format, std::forward<Args>(args)...));
}

/// A file whose bytes go straight to where the bytes belong. (A mapped file would do without the
/// copy, but kill the process when somebody shortens it.)
class FileReader {
 public:
  explicit FileReader(const fs::path& path) : path_(path), file_(path) {}

  std::uint64_t size() const { return static_cast<std::uint64_t>(file_.size()); }
  void read(std::uint64_t at, std::span<std::byte> out) {
    if (file_.read(static_cast<std::int64_t>(at), out) < out.size())
      throw IoError(fmt::format("{}: cannot read: the file became shorter while it was read", path_.string()));
  }

 private:
  const fs::path& path_;
  detail::InputFile file_;
};

/// What the header says of a tensor; the fields are set as they are met.
struct Entry {
  std::optional<Element> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;

  std::uint64_t begin() const { return (*offsets)[0]; }
  std::uint64_t end() const { return (*offsets)[1]; }
};
using Entries = std::map<std::string, Entry>;

/// Takes the header from the JSON parser piece by piece and refuses what cannot be part of one, so that
/// nesting never gets deeper than three and nothing is kept but entries. (The parser's own tree with a filter
/// takes ten times the memory and, as it goes through all names after each entry, quadratic time.)
class HeaderHandler final : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(const fs::path& path, Entries& entries, std::map<std::string, std::string>& metadata)
      : path_(path), entries_(entries), metadata_(metadata) {}

  bool start_object(std::size_t) override {
    if (place_ == Place::file) place_ = Place::names;
    else if (place_ == Place::names) place_ = name_ == metadata_key ? Place::metadata : Place::tensor;
    else unexpected("an object");
    return true;
  }

  bool key(string_t& key) override {
    if (entries_.size() + metadata_.size() == most_entries)
      broken(path_, "more than {} tensors and texts", most_entries);
    if (place_ == Place::names) {
      const bool is_new = key == metadata_key ? !std::exchange(metadata_met_, true) : add_tensor(key);
      if (!is_new) broken(path_, "duplicate key: {}", printable(key));
      name_ = std::move(key);
    } else if (place_ == Place::metadata) {
      const auto [at, is_new] = metadata_.try_emplace(key);
      if (!is_new) broken(path_, "duplicate key: {} of {}", printable(key), metadata_key);
      text_ = &at->second;
      key_ = std::move(key);
    } else {
      const bool twice = (key == "dtype" && entry_->dtype) || (key == "shape" && entry_->shape) ||
                         (key == "data_offsets" && entry_->offsets);
      if (twice) broken(path_, "duplicate key: {} of {}", printable(key), tensor());
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        broken(path_, "unknown key: {} of {}", printable(key), tensor());
      key_ = std::move(key);
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      const char* missing = !entry_->dtype     ? "dtype"
                            : !entry_->shape   ? "shape"
                            : !entry_->offsets ? "data_offsets"
                                               : nullptr;
      if (missing) broken(path_, "missing key: \"{}\" of {}", missing, tensor());
    }
    place_ = Place::names;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") unexpected("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    (place_ == Place::shape ? entry_->shape : entry_->offsets).emplace();
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && entry_->offsets->size() != 2)
      broken(path_, "data_offsets: {}: expected 2 numbers, found {}", tensor(), entry_->offsets->size());
    place_ = Place::tensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (entry_->shape->size() == Shape::max_rank)
        broken(path_, "shape: {}: more than {} axes", tensor(), Shape::max_rank);
      entry_->shape->push_back(value);
    } else if (place_ == Place::offsets) {
      if (entry_->offsets->size() == 2) broken(path_, "data_offsets: {}: expected 2 numbers, found more", tensor());
      entry_->offsets->push_back(value);
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) *text_ = std::move(value);
    else if (place_ == Place::tensor && key_ == "dtype") entry_->dtype = dtype(value);
    else unexpected("a string");
    return true;
  }

  // The parser calls number_integer for negative numbers only, number_float also for too large integers.
  bool number_integer(number_integer_t value) override { unexpected(fmt::format("{}", value)); }
  bool number_float(number_float_t, const string_t& digits) override {
    unexpected(digits.size() > 40 ? digits.substr(0, 40) + "..." : digits);
  }
  bool null() override {
    if (place_ != Place::names || name_ != metadata_key) unexpected("null");  // which some writers give for no metadata
    return true;
  }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    // "[id] parse error at line 1, column 9: syntax error while parsing value - REASON; last read: '...'"
    std::string_view reason = e.what();
    if (const auto at = reason.find(" - "); at != reason.npos) reason.remove_prefix(at + 3);
    else if (const auto id_end = reason.find("] "); id_end != reason.npos) reason.remove_prefix(id_end + 2);
    reason = reason.substr(0, reason.find("; last read"));
    broken(path_, "not valid JSON: byte {} of the header: {}", position, reason.substr(0, 120));
  }

 private:
  enum class Place { file, names, metadata, tensor, shape, offsets };

  bool add_tensor(const std::string& name) {
    const auto [at, is_new] = entries_.try_emplace(name);
    entry_ = &at->second;
    return is_new;
  }

  Element dtype(const std::string& kind) const {
    for (const auto& [name, element] : kinds)
      if (name == kind) return element;
    const bool known = std::ranges::find(other_kinds, kind) != std::end(other_kinds);
    std::string names;
    for (const auto& [name, _] : kinds) names += fmt::format("{}{}", names.empty() ? "" : " ", name);
    broken(path_, "dtype: {}: {} {}; expected one of {}", tensor(), printable(kind),
           known ? "is not supported" : "is unknown", names);
  }

  std::string tensor() const { return "tensor " + printable(name_); }

  [[noreturn]] void unexpected(std::string_view found) const {
    switch (place_) {
      case Place::names:
        if (name_ == metadata_key) broken(path_, "{}: expected an object, found {}", metadata_key, found);
        broken(path_, "entry: {}: expected an object, found {}", tensor(), found);
      case Place::metadata: broken(path_, "{}: {}: expected a string, found {}", metadata_key, printable(key_), found);
      case Place::tensor:
        broken(path_, "{}: {}: expected {}, found {}", key_, tensor(), key_ == "dtype" ? "a string" : "an array",
               found);
      case Place::shape:
      case Place::offsets: broken(path_, "{}: {}: expected non-negative integers, found {}", key_, tensor(), found);
      default: broken(path_, "header: expected an object, found {}", found);
    }
  }

  const fs::path& path_;
  Entries& entries_;
  std::map<std::string, std::string>& metadata_;
  Place place_ = Place::file;
  bool metadata_met_ = false;
  std::string name_, key_;       // the keys that lead to where the parser is
  Entry* entry_ = nullptr;       // of the tensor name_
  std::string* text_ = nullptr;  // of the metadata key_
};

/// The bytes of the header one after the other, read as they are needed: a header of 100 MB is never whole in memory.
class HeaderBytes {
 public:
  HeaderBytes(FileReader& file, std::uint64_t size) : file_(file), size_(size) {}

  /// What the parser walks.
  struct Iterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;
    HeaderBytes* bytes;
    bool end;
    reference operator*() const { return bytes->here(); }
    Iterator& operator++() {
      ++bytes->at_;
      return *this;
    }
    bool operator==(const Iterator& other) const {
      return (end || bytes->at_ == bytes->size_) == (other.end || bytes->at_ == bytes->size_);
    }
    bool operator!=(const Iterator& other) const { return !(*this == other); }
  };
  Iterator begin() { return {this, false}; }
  Iterator end() { return {this, true}; }

  const char& here() {
    if (at_ >= from_ + held_) {
      from_ = at_;
      held_ = std::min<std::uint64_t>(part_.size(), size_ - at_);
      file_.read(prefix_bytes + at_, std::as_writable_bytes(std::span(part_).first(held_)));
    }
    return part_[at_ - from_];
  }

 private:
  FileReader& file_;
  std::uint64_t size_, at_ = 0, from_ = 0;
  std::size_t held_ = 0;
  std::array<char, 1 << 16> part_;
};

/// Checks the size of the header and what the parser would not: its first and last byte, zeros, texts without end.
std::uint64_t check_header(const fs::path& path, FileReader& file) {
  if (file.size() < prefix_bytes)
    broken(path, "file too short: {} bytes, the size of the header takes {}", file.size(), prefix_bytes);
  std::uint64_t size = 0;
  file.read(0, std::as_writable_bytes(std::span(&size, 1)));
  if (size > max_header_bytes) broken(path, "header too large: {} bytes, the limit is {}", size, max_header_bytes);
  if (size > file.size() - prefix_bytes)
    broken(path, "header too large: {} bytes, the file has {} after the first 8", size, file.size() - prefix_bytes);
  if (size == 0) broken(path, "header start: expected '{{', found an empty header");

  HeaderBytes header(file, size);
  char last = 0;
  bool quoted = false, escaped = false;
  std::uint64_t at = 0, zero_at = 0, text = 0;  // bytes of the text, or of the number, so far
  for (const char c : header) {
    if (at == 0 && c != '{')
      broken(path, "header start: expected '{{', found byte 0x{:02x}", static_cast<unsigned char>(c));
    // The parser would take a zero byte for the end of the text.
    if (c == '\0' && zero_at == 0) zero_at = at + 1;
    const bool ends =
        quoted ? c == '"' && !escaped : std::string_view("\",:{}[] \t\r\n").find(c) != std::string_view::npos;
    escaped = quoted && c == '\\' && !escaped;
    if (c == '"' && ends) quoted = !quoted;
    text = ends ? 0 : text + 1;
    if (text > longest_text)
      broken(path, "text too long: byte {} of the header: more than {} bytes of one name, text or number", at + 1,
             longest_text);
    if (c != ' ') last = c;
    ++at;
  }
  if (last != '}')
    broken(path, "header end: expected '}}' and spaces, found byte 0x{:02x}", static_cast<unsigned char>(last));
  if (zero_at) broken(path, "not valid JSON: byte {} of the header: a zero byte", zero_at);
  return size;
}

/// Bytes of the elements; nothing when they cannot be counted. A size of 0 does not excuse the others.
std::optional<std::uint64_t> bytes_of(Element e, const std::vector<std::uint64_t>& sizes) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(e));
  bool empty = false;
  for (const std::uint64_t n : sizes) {
    empty |= n == 0;
    if (n > std::numeric_limits<std::int64_t>::max()) return {};
    if (n != 0 && __builtin_mul_overflow(bytes, static_cast<std::int64_t>(n), &bytes)) return {};
  }
  return empty ? 0 : static_cast<std::uint64_t>(bytes);
}

/// Checks that the entries cover the data, byte for byte; returns them in its order.
std::vector<const Entries::value_type*> in_file_order(const fs::path& path, const Entries& entries,
                                                      std::uint64_t data_bytes) {
  std::vector<const Entries::value_type*> order;
  for (const auto& tensor : entries) {
    const auto& [name, entry] = tensor;
    const std::optional<std::uint64_t> bytes = bytes_of(*entry.dtype, *entry.shape);
    if (!bytes)
      broken(path, "shape: tensor {}: ({}) has too many elements", printable(name), fmt::join(*entry.shape, ", "));
    if (entry.begin() > entry.end())
      broken(path, "data_offsets: tensor {}: begin {} is after end {}", printable(name), entry.begin(), entry.end());
    if (entry.end() - entry.begin() != *bytes)
      broken(path, "data_offsets: tensor {}: {} to {} is {} bytes, {} of shape ({}) takes {}", printable(name),
             entry.begin(), entry.end(), entry.end() - entry.begin(), kind_of(*entry.dtype),
             fmt::join(*entry.shape, ", "), *bytes);
    order.push_back(&tensor);
  }

  // An empty tensor comes before the one that begins where it does; equals stay in the order of their names.
  std::ranges::stable_sort(order, {}, [](const auto* t) { return std::pair(t->second.begin(), t->second.end()); });
  std::uint64_t end = 0;
  for (const auto* tensor : order) {
    const auto& [name, entry] = *tensor;
    if (entry.begin() > end)
      broken(path, "hole: tensor {} begins at byte {} of the data, the one before ends at {}", printable(name),
             entry.begin(), end);
    if (entry.begin() < end)
      broken(path, "overlap: tensor {} begins at byte {} of the data, the one before ends at {}", printable(name),
             entry.begin(), end);
    end = entry.end();
  }
  if (end != data_bytes)
    broken(path, "data size: the tensors take {} bytes, the file has {} after the header", end, data_bytes);
  return order;
}

/// A JSON string. Throws ValueError when the text is not UTF-8.
std::string json_string(std::string_view what, std::string_view text) {
  try {
    std::string out = json(text).dump();
    if (out.size() - 2 > longest_text)
      fail<ValueError>("write_safetensors",
                       fmt::format("{} has {} bytes, the limit is {}", what, out.size() - 2, longest_text));
    return out;
  } catch (const json::type_error&) {
    fail<ValueError>("write_safetensors", fmt::format("{} is not UTF-8: {}", what, printable(text)));
  }
}

}  // namespace

SafeTensors read_safetensors(const fs::path& path) {
  FileReader file(path);
  SafeTensors out;
  Entries entries;
  const std::uint64_t header_bytes = check_header(path, file);
  HeaderBytes header(file, header_bytes);
  HeaderHandler handler(path, entries, out.metadata);
  json::sax_parse(header.begin(), header.end(), &handler);
  const std::uint64_t data_at = prefix_bytes + header_bytes;
  for (const auto* tensor : in_file_order(path, entries, file.size() - data_at)) {
    const auto& [name, entry] = *tensor;
    const std::vector<std::int64_t> sizes(entry.shape->begin(), entry.shape->end());
    Tensor t = Tensor::empty(Shape(sizes), dtype_of(*entry.dtype));
    std::uint64_t at = data_at + entry.begin();
    const auto read = [&](std::span<std::uint8_t> bytes) {
      file.read(at, std::as_writable_bytes(bytes));
      at += bytes.size();
    };
    if (const auto bad = read_elements(t, *entry.dtype, false, read))
      broken(path, "data: tensor {}: element {} is above 2^63 - 1, the largest of int64", printable(name), *bad);
    out.tensors.emplace(name, std::move(t));
  }
  return out;
}

void write_safetensors(const fs::path& path, const SafeTensors& contents, std::span<const fs::path> older) {
  std::vector<const std::pair<const std::string, Tensor>*> order;
  for (const auto& tensor : contents.tensors) {
    const auto& [name, value] = tensor;
    if (name == metadata_key)
      fail<ValueError>("write_safetensors", fmt::format("no tensor can be named {}", metadata_key));
    if (!value.defined()) fail<ValueError>("write_safetensors", fmt::format("tensor {} is undefined", printable(name)));
    order.push_back(&tensor);
  }
  // Wide elements first, so that all are aligned in the file; by name among equals.
  std::ranges::stable_sort(order, std::greater(), [](const auto* t) { return size_of(t->second.dtype()); });

  if (order.size() + contents.metadata.size() > most_entries)
    fail<ValueError>("write_safetensors", fmt::format("{} tensors and texts, the limit is {}",
                                                      order.size() + contents.metadata.size(), most_entries));
  std::string header = "{", separator;
  if (!contents.metadata.empty()) {
    header += fmt::format("\"{}\":{{", metadata_key);
    for (const auto& [key, text] : contents.metadata) {
      header += separator + json_string("metadata key", key) + ":" + json_string("metadata text", text);
      separator = ",";
    }
    header += "}";
  }
  std::uint64_t offset = 0;
  for (const auto* tensor : order) {
    const auto& [name, value] = *tensor;
    header += fmt::format(R"({}{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", separator,
                          json_string("tensor name", name), kind_of(value.dtype()), fmt::join(value.shape(), ","),
                          offset, offset + value.bytes());
    offset += value.bytes();
    separator = ",";
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t size = header.size();
  if (size > max_header_bytes)
    fail<ValueError>("write_safetensors", fmt::format("a header of {} bytes, the limit is {}", size, max_header_bytes));

  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(&size, 1)), std::as_bytes(std::span(header))};
  for (const auto* tensor : order) pieces.emplace_back(tensor->second.raw(), tensor->second.bytes());
  write_atomically(path, pieces, older);
}

}  // namespace ebb
