// Architectures as JSON. The values of nlohmann-json do not know their place in the text, which errors need: its events
// build a small tree that does.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include <ebb/graph/printable.h>
#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/layer_kinds.h>

namespace ebb {
namespace {

using detail::ArchitectureError;
using detail::Fields;
using detail::printable;
using json = nlohmann::ordered_json;

constexpr std::size_t most_values = 200'000;  // in a text: bounds the memory of the tree
constexpr std::size_t name_shown = 40;        // in a message

[[noreturn]] void fail_at_offset(std::string_view text, std::size_t offset, std::string_view what) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::ranges::count(before, '\n') + 1;
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == std::string_view::npos ? before.size() : before.size() - newline - 1;
  throw ArchitectureError(fmt::format("architecture: line {}, column {}: {}", line, column + 1, what));
}

struct Member;
/// A value and where it is: for a member, the place of its name.
struct Value {
  std::size_t at = 0;
  json scalar;  // null for lists and objects
  enum { simple, list, object } kind = simple;
  std::vector<Value> items;
  std::vector<Member> members;
};
struct Member {
  std::string name;
  Value value;
};

/// Counts the characters that the library has read.
struct Counting {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* p;
  const char** seen;
  reference operator*() const { return *p; }
  Counting& operator++() {
    *seen = ++p;
    return *this;
  }
  bool operator==(const Counting& other) const { return p == other.p; }
  bool operator!=(const Counting& other) const { return p != other.p; }
};

/// Builds the tree from the library's events.
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view text, const char*& seen) : text_(text), seen_(seen) {}
  Value root;

  bool null() override { return add({}); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(json::number_integer_t v) override { return add(v); }
  bool number_unsigned(json::number_unsigned_t v) override { return add(v); }
  bool number_float(json::number_float_t v, const json::string_t&) override { return add(v); }
  bool string(json::string_t& v) override { return add(v); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Value::object); }
  bool start_array(std::size_t) override { return open(Value::list); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(json::string_t& name) override {
    key_ = name;
    key_at_ = text_.rfind('"', offset() - 2);
    if (open_.back()->members.size() == detail::most_options)
      fail_at_offset(text_, key_at_, fmt::format("more than {} members of an object", detail::most_options));
    for (const auto& [other, value] : open_.back()->members)
      if (other == name)
        fail_at_offset(text_, key_at_, fmt::format("\"{}\" is given twice", printable(name, name_shown)));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    std::string what =
        e.what();  // "[json.exception...] parse error at line 1, column 2: syntax error ...": the rest is ours
    const std::size_t colon = what.find(": ");
    fail_at_offset(text_, position ? position - 1 : 0,
                   printable(colon == std::string::npos ? what : what.substr(colon + 2), 300));
  }

 private:
  std::size_t offset() const { return static_cast<std::size_t>(seen_ - text_.data()); }
  Value& place() {
    if (open_.empty()) return root;
    if (++values_ > most_values) fail_at_offset(text_, offset() - 1, fmt::format("more than {} values", most_values));
    Value& parent = *open_.back();
    if (parent.items.size() == detail::most_layers)
      fail_at_offset(text_, offset() - 1, fmt::format("more than {} items of a list", detail::most_layers));
    if (parent.kind == Value::list) return parent.items.emplace_back();
    parent.members.push_back({key_, {}});
    return parent.members.back().value;
  }
  std::size_t here() const { return !open_.empty() && open_.back()->kind == Value::object ? key_at_ : offset() - 1; }
  bool add(json v) {
    const std::size_t at = here();
    Value& value = place();
    value.at = at;
    value.scalar = std::move(v);
    return true;
  }
  bool open(decltype(Value::kind) kind) {
    if (open_.size() > 3 * static_cast<std::size_t>(detail::deepest_nesting))
      fail_at_offset(text_, offset() - 1, "lists too deep inside one another");
    const std::size_t at = here();
    Value& value = place();
    value.at = at;
    value.kind = kind;
    open_.push_back(&value);  // its parent grows no more before this one is closed
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const char*& seen_;
  std::vector<Value*> open_;
  std::string key_;
  std::size_t key_at_ = 0, values_ = 0;
};

std::vector<Layer> layers_of(std::string_view text, const Value& list, std::string_view what);

/// The members of one object as a layer's options.
class MemberReader final : public Fields {
 public:
  MemberReader(std::string_view text, const Value& object) : text_(text), object_(object) {}

  void operator()(std::string_view name, std::int64_t& value, std::string_view what, bool need) override {
    if (const Value* v = find(name, what, need)) value = integer(*v, what);
  }
  void operator()(std::string_view name, Pair& value, std::string_view what, bool need) override {
    const Value* v = find(name, what, need);
    if (!v) return;
    if (v->kind == Value::list && v->items.size() == 2)
      value = Pair(integer(v->items[0], what), integer(v->items[1], what));
    else value = integer(*v, what);
  }
  void number(std::string_view name, double& value, std::string_view what) override {
    if (const Value* v = find(name, what, false)) value = number_of(*v, what);
  }
  void rate(double& value) override {
    const Value* v = find("rate", "the rate", true);
    value = number_of(*v, "the rate");
    if (!(value >= 0 && value < 1)) fail_at_offset(text_, v->at, "the rate must be in [0, 1)");
  }
  void flag(std::string_view name, bool& value) override {
    const Value* v = find(name, "", false);
    if (v && !v->scalar.is_boolean()) fail_at_offset(text_, v->at, fmt::format("\"{}\" must be true or false", name));
    if (v) value = v->scalar.get<bool>();
  }
  void padding(Padding& value) override {
    const Value* v = find("padding", "", false);
    if (!v) return;
    if (v->scalar == "same") value = Padding::same();
    else if (v->scalar != "valid") fail_at_offset(text_, v->at, "\"padding\" must be \"same\" or \"valid\"");
  }
  void activation(Activation& value) override {
    const Value* v = find("activation", "", false);
    if (!v) return;
    const std::vector<std::string> names = activation_names();
    if (!v->scalar.is_string() || std::ranges::find(names, v->scalar.get<std::string>()) == names.end())
      fail_at_offset(text_, v->at,
                     fmt::format("unknown activation {}; expected one of {}", printable(v->scalar.dump(), name_shown),
                                 detail::activation_words()));
    value = activation_of(v->scalar.get<std::string>());
  }
  void sizes(std::vector<std::int64_t>& value, std::string_view what) override {
    const Value* v = find("sizes", what, true);
    if (v->kind != Value::list || v->items.empty())
      fail_at_offset(text_, v->at, fmt::format("{} must be a list of numbers", what));
    for (const Value& item : v->items) value.push_back(integer(item, what));
  }
  void layers(std::string_view name, std::vector<Layer>& value, std::string_view what, bool need) override {
    if (const Value* v = find(name, what, need)) value = layers_of(text_, *v, what);
  }
  void branches(std::vector<std::vector<Layer>>& value, std::string_view what) override {
    const Value* v = find("branches", what, true);
    if (v->kind != Value::list || v->items.empty())
      fail_at_offset(text_, v->at, fmt::format("{} must be a list of lists of layers", what));
    for (const Value& branch : v->items) value.push_back(layers_of(text_, branch, "a branch"));
  }

  /// Refuses members that no option took.
  void finish() const {
    for (const auto& [name, value] : object_.members)
      if (name != "layer" && std::ranges::find(known_, name) == known_.end())
        fail_at_offset(text_, value.at,
                       fmt::format("unknown option \"{}\"; expected {}{}", printable(name, name_shown),
                                   known_.empty() ? "none" : "one of ", fmt::join(known_, ", ")));
  }

 private:
  const Value* find(std::string_view name, std::string_view what, bool need) {
    known_.push_back(name);
    for (const auto& [key, value] : object_.members)
      if (key == name) return &value;
    if (need) fail_at_offset(text_, object_.at, fmt::format("{} is missing: \"{}\"", what, name));
    return nullptr;
  }
  double number_of(const Value& v, std::string_view what) const {
    if (!v.scalar.is_number()) fail_at_offset(text_, v.at, fmt::format("{} must be a number", what));
    return v.scalar.get<double>();
  }
  std::int64_t integer(const Value& v, std::string_view what) const {
    if (!v.scalar.is_number_integer()) fail_at_offset(text_, v.at, fmt::format("{} must be a whole number", what));
    const double n = v.scalar.get<double>();
    if (!(n >= 1 && n <= static_cast<double>(detail::largest_size)))
      fail_at_offset(text_, v.at, fmt::format("{} must be 1 to 1,000,000", what));
    return v.scalar.get<std::int64_t>();
  }

  std::string_view text_;
  const Value& object_;
  std::vector<std::string_view> known_;
};

Layer layer_of(std::string_view text, const Value& v) {
  if (v.kind != Value::object) fail_at_offset(text, v.at, "a layer is expected here: {\"layer\": ...}");
  const auto name = std::ranges::find(v.members, "layer", &Member::name);
  if (name == v.members.end() || !name->value.scalar.is_string())
    fail_at_offset(text, v.at, "the kind of layer is missing: \"layer\": \"dense\"");
  const std::string word = name->value.scalar.get<std::string>();
  MemberReader options(text, v);
  const std::vector<std::string> functions = activation_names();
  if (std::ranges::find(functions, word) != functions.end()) {
    options.finish();
    return detail::activation_layer(activation_of(word));
  }
  const detail::LayerKind* kind = detail::layer_kind(word);
  if (!kind)
    fail_at_offset(text, name->value.at,
                   fmt::format("unknown layer \"{}\"; expected one of {}, {}", printable(word, name_shown),
                               detail::kind_words(), detail::activation_words()));
  try {
    Layer made = kind->make(options);
    options.finish();
    return made;
  } catch (const ArchitectureError&) {
    throw;
  } catch (const ValueError& e) {
    fail_at_offset(text, v.at, e.what());
  }
}

std::vector<Layer> layers_of(std::string_view text, const Value& list, std::string_view what) {
  if (list.kind != Value::list || list.items.empty())
    fail_at_offset(text, list.at, fmt::format("{} must be a list: [{{\"layer\": ...}}, ...]", what));
  std::vector<Layer> out;
  for (const Value& v : list.items) out.push_back(layer_of(text, v));
  return out;
}

}  // namespace

std::vector<Layer> parse_architecture_json(std::string_view text) {
  if (text.size() > detail::longest_architecture)
    throw ArchitectureError(
        fmt::format("architecture: {} characters, at most {} are read", text.size(), detail::longest_architecture));
  const char* seen = text.data();
  Builder builder(text, seen);
  json::sax_parse(Counting{text.data(), &seen}, Counting{text.data() + text.size(), &seen}, &builder);
  return layers_of(text, builder.root, "an architecture");
}

}  // namespace ebb
