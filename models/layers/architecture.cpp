// Architectures as text: reader, printer, help. The kinds of layers are listed in layer_kinds.cpp.
// (over 400 lines because reader and printer of the same grammar are kept side by side)
#include <ebb/models/layers/architecture.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <string>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/layers/layer_kinds.h>

namespace ebb {
namespace {

using detail::Fields;
using detail::LayerKind;

struct NamedActivation {
  std::string_view name;
  Activation f;
};
constexpr auto activations = std::to_array<NamedActivation>({
    {"relu", relu},
    {"sigmoid", sigmoid},
    {"tanh", tanh},
    {"softplus", softplus},
    {"softmax", softmax},
    {"gelu", gelu},
    {"silu", silu},
    {"selu", selu},
    {"elu", [](const Tensor& x) { return elu(x); }},
    {"leaky_relu", [](const Tensor& x) { return leaky_relu(x); }},
    {"linear", nullptr},
});
Tensor unchanged(const Tensor& x) { return x; }

}  // namespace

std::vector<std::string> activation_names() {
  std::vector<std::string> out;
  for (const NamedActivation& a : activations) out.emplace_back(a.name);
  return out;
}

Activation activation_of(std::string_view name) {
  for (const NamedActivation& a : activations)
    if (a.name == name) return a.f;
  throw ValueError(fmt::format("unknown activation \"{}\"; expected one of {}", detail::printable(name, 40),
                               detail::activation_words()));
}

std::string_view activation_name(Activation f) {
  if (f == unchanged) f = nullptr;
  for (const NamedActivation& a : activations)
    if (a.f == f) return a.name;
  return {};
}

Layer detail::activation_layer(Activation f) { return f ? f : unchanged; }

// ---- reading -------------------------------------------------------------------------------------------------------

namespace {

struct Word {
  std::string_view text;
  std::size_t column;
};

using detail::printable;
constexpr std::size_t shown = 40;  // of a word, in a message

/// Throws with the text, or the part of a long one around the column, and a mark below the column.
[[noreturn]] void fail_at_column(std::string_view text, std::size_t column, std::string_view what) {
  constexpr std::size_t whole = 200, before = 60;
  const std::size_t begin = text.size() > whole && column > before ? column - before : 0;
  const std::string part =
      (begin ? "..." : "") + printable(text.substr(begin), text.size() > whole ? 2 * before : whole);
  throw detail::ArchitectureError(fmt::format("architecture: column {}: {}\n  {}\n  {:>{}}", column + 1, what, part,
                                              "^", column - begin + (begin ? 4 : 1)));
}

/// The words of one layer as its options.
class WordReader final : public Fields {
 public:
  WordReader(std::string_view text, std::vector<Word> words, std::size_t end, std::vector<std::vector<Layer>> parts)
      : text_(text), words_(std::move(words)), end_(end), parts_(std::move(parts)) {}

  void operator()(std::string_view name, std::int64_t& value, std::string_view what, bool need) override {
    if (need || take(name)) value = integer(next(what), what);
  }
  void operator()(std::string_view name, Pair& value, std::string_view what, bool need) override {
    if (!need && !take(name)) return;
    const Word w = next(what);
    const std::size_t x = w.text.find('x');
    if (x == std::string_view::npos) value = integer(w, what);
    else
      value =
          Pair(integer({w.text.substr(0, x), w.column}, what), integer({w.text.substr(x + 1), w.column + x + 1}, what));
  }
  void number(std::string_view name, double& value, std::string_view what) override {
    if (take(name)) value = parsed<double>(next(what), what);
  }
  void rate(double& value) override {
    const Word w = next("the rate");
    value = parsed<double>(w, "the rate");
    if (!(value >= 0 && value < 1)) fail_at_column(text_, w.column, "the rate must be in [0, 1)");
  }
  void flag(std::string_view name, bool& value) override {
    if (take(value ? fmt::format("no{}", name) : std::string(name))) value = !value;
  }
  void padding(Padding& value) override {
    if (take("same")) value = Padding::same();
    else take("valid");
  }
  void activation(Activation& value) override {
    for (const NamedActivation& a : activations)
      if (take(a.name)) {
        value = a.f;
        return;
      }
    lacks_activation_ = true;
  }
  void sizes(std::vector<std::int64_t>& value, std::string_view what) override {
    do value.push_back(integer(next(what), what));
    while (!words_.empty());
  }
  void layers(std::string_view, std::vector<Layer>& value, std::string_view what, bool need) override {
    if (part_ < parts_.size()) value = parts_[part_++];
    else if (need) fail_at_column(text_, end_, fmt::format("{} are missing: (LAYER, ...)", what));
  }
  void branches(std::vector<std::vector<Layer>>& value, std::string_view what) override {
    if (parts_.empty()) fail_at_column(text_, end_, fmt::format("{} are missing: (LAYER, ... | LAYER, ...)", what));
    part_ = parts_.size();
    value = parts_;
  }

  /// Refuses what no option took.
  void finish(std::size_t parts_column) const {
    if (!words_.empty() && lacks_activation_)
      fail_at_column(text_, words_[0].column,
                     fmt::format("unknown activation \"{}\"; expected one of {}", printable(words_[0].text, shown),
                                 detail::activation_words()));
    if (!words_.empty())
      fail_at_column(text_, words_[0].column,
                     fmt::format("\"{}\" is not understood here", printable(words_[0].text, shown)));
    if (part_ < parts_.size()) fail_at_column(text_, parts_column, "this layer takes fewer lists of layers");
  }

 private:
  /// Removes a name, wherever it stands; next() then gives its value.
  bool take(std::string_view name) {
    const auto found = std::ranges::find(words_, name, &Word::text);
    if (found == words_.end()) return false;
    at_ = words_.erase(found) - words_.begin();
    return true;
  }
  /// The value of the name that was just taken, or the next word by position.
  Word next(std::string_view what) {
    if (at_ == std::ssize(words_)) fail_at_column(text_, end_, fmt::format("{} is missing", what));
    const Word w = words_[static_cast<std::size_t>(at_)];
    words_.erase(words_.begin() + at_);
    at_ = 0;
    return w;
  }
  template <class T>
  T parsed(const Word& w, std::string_view what) const {
    T value{};
    const auto [stop, error] = std::from_chars(w.text.data(), w.text.data() + w.text.size(), value);
    if (error != std::errc() || stop != w.text.data() + w.text.size())
      fail_at_column(text_, w.column, fmt::format("{} must be a number, not \"{}\"", what, printable(w.text, shown)));
    return value;
  }
  std::int64_t integer(const Word& w, std::string_view what) const {
    const auto n = parsed<std::int64_t>(w, what);
    if (n < 1 || n > detail::largest_size)
      fail_at_column(text_, w.column, fmt::format("{} must be 1 to 1,000,000", what));
    return n;
  }

  std::string_view text_;
  std::vector<Word> words_;  // not taken yet
  std::size_t end_;
  std::vector<std::vector<Layer>> parts_;
  std::size_t part_ = 0;
  std::ptrdiff_t at_ = 0;
  bool lacks_activation_ = false;
};

class TextParser {
 public:
  explicit TextParser(std::string_view text) : text_(text) {
    if (text.size() > detail::longest_architecture)
      throw detail::ArchitectureError(
          fmt::format("architecture: {} characters, at most {} are read", text.size(), detail::longest_architecture));
    for (std::size_t i = 0; i < text.size();) {
      std::size_t stop = i + 1;
      if (space(text[i])) {
        i = stop;
        continue;
      }
      if (!mark(text[i]))
        while (stop < text.size() && !space(text[stop]) && !mark(text[stop])) ++stop;
      words_.push_back({text.substr(i, stop - i), i});
      i = stop;
    }
  }

  std::vector<Layer> parse() {
    std::vector<Layer> out = list();
    if (next_ < words_.size())
      fail_at_column(text_, words_[next_].column,
                     fmt::format("\"{}\" is not understood here", printable(words_[next_].text, shown)));
    return out;
  }

 private:
  static bool space(char c) { return c == ' ' || c == '\t'; }
  static bool mark(char c) { return c == ',' || c == '(' || c == ')' || c == '|'; }
  bool at_word() const { return next_ < words_.size() && !mark(words_[next_].text[0]); }
  bool take(std::string_view word) {
    if (next_ == words_.size() || words_[next_].text != word) return false;
    ++next_;
    return true;
  }

  std::vector<Layer> list() {
    std::vector<Layer> out;
    do {
      if (out.size() == detail::most_layers)
        fail_at_column(text_, end(), fmt::format("more than {} layers in a row", detail::most_layers));
      out.push_back(layer());
    } while (take(","));
    return out;
  }

  Layer layer() {
    if (!at_word()) {
      const std::size_t after = next_ ? words_[next_ - 1].column + words_[next_ - 1].text.size() : 0;
      fail_at_column(text_, after, "a layer is expected here");
    }
    const Word kind = words_[next_++];
    const auto a = std::ranges::find(activations, kind.text, &NamedActivation::name);
    if (a != activations.end()) return detail::activation_layer(a->f);
    const LayerKind* row = detail::layer_kind(kind.text);
    if (!row)
      fail_at_column(text_, kind.column,
                     fmt::format("unknown layer \"{}\"; expected one of {}, {}", printable(kind.text, shown),
                                 detail::kind_words(), detail::activation_words()));

    std::vector<Word> words;
    std::vector<std::vector<Layer>> parts;
    std::size_t parts_column = 0;
    while (at_word()) words.push_back(words_[next_++]);
    if (take("(")) {
      parts_column = words_[next_ - 1].column;
      if (++depth_ > detail::deepest_nesting)
        fail_at_column(text_, parts_column,
                       fmt::format("more than {} layers inside one another", detail::deepest_nesting));
      do {
        if (parts.size() == detail::most_layers)
          fail_at_column(text_, end(), fmt::format("more than {} lists of layers", detail::most_layers));
        parts.push_back(list());
      } while (take("|"));
      if (!take(")")) fail_at_column(text_, end(), "\")\" is missing here");
      --depth_;
      while (at_word()) words.push_back(words_[next_++]);
    }
    if (words.size() > detail::most_options)
      fail_at_column(text_, words[detail::most_options].column,
                     fmt::format("more than {} words in a layer", detail::most_options));
    WordReader options(text_, std::move(words), end(), std::move(parts));
    try {
      Layer made = row->make(options);
      options.finish(parts_column);
      return made;
    } catch (const detail::ArchitectureError&) {
      throw;
    } catch (const ValueError& e) {  // a rule that the layer itself checks
      fail_at_column(text_, kind.column, e.what());
    }
  }
  std::size_t end() const { return next_ < words_.size() ? words_[next_].column : text_.size(); }

  std::string_view text_;
  std::vector<Word> words_;
  std::size_t next_ = 0;
  int depth_ = 0;
};

// ---- printing ------------------------------------------------------------------------------------------------------

/// Writes the options that differ from those seen first.
class Printer final : public Fields {
 public:
  explicit Printer(const LayerKind& kind) : text_(kind.word) {
    kind.defaults(*this);
    first_ = false;
  }
  std::string str() const { return parts_.empty() ? text_ : fmt::format("{} ({})", text_, fmt::join(parts_, " | ")); }

  void operator()(std::string_view name, std::int64_t& value, std::string_view, bool need) override {
    write(name, need ? std::to_string(value) : fmt::format("{} {}", name, value), need);
  }
  void operator()(std::string_view name, Pair& value, std::string_view, bool need) override {
    const std::string size = value.h == value.w ? std::to_string(value.h) : fmt::format("{}x{}", value.h, value.w);
    write(name, need ? size : fmt::format("{} {}", name, size), need);
  }
  void number(std::string_view name, double& value, std::string_view) override {
    write(name, fmt::format("{} {}", name, value), false);
  }
  void rate(double& value) override { write("rate", fmt::format("{}", value), true); }
  void flag(std::string_view name, bool& value) override {
    write(name, value ? std::string(name) : fmt::format("no{}", name), false);
  }
  void padding(Padding& value) override {
    if (!value.is_same && (value.top || value.left || value.bottom || value.right))
      throw ValueError(fmt::format("describe_architecture: {}: no text gives zeros around an image by number", text_));
    write("padding", value.is_same ? "same" : "valid", false);
  }
  void activation(Activation& value) override {
    const std::string_view name = activation_name(value);
    if (name.empty()) throw ValueError(fmt::format("describe_architecture: {}: its activation has no name", text_));
    write("activation", std::string(name), false);
  }
  void sizes(std::vector<std::int64_t>& value, std::string_view) override {
    write("sizes", fmt::format("{}", fmt::join(value, " ")), true);
  }
  void layers(std::string_view, std::vector<Layer>& value, std::string_view, bool) override {
    if (!first_ && !value.empty()) parts_.push_back(describe_architecture(value));
  }
  void branches(std::vector<std::vector<Layer>>& value, std::string_view) override {
    if (!first_)
      for (const auto& branch : value) parts_.push_back(describe_architecture(branch));
  }

 private:
  void write(std::string_view name, std::string words, bool need) {
    if (first_) usual_[std::string(name)] = std::move(words);
    else if (need || usual_[std::string(name)] != words) text_ += " " + words;
  }
  std::string text_;
  std::vector<std::string> parts_;
  std::map<std::string, std::string> usual_;
  bool first_ = true;
};

/// Writes names instead of values.
class Usage final : public Fields {
 public:
  std::string text;
  void operator()(std::string_view name, std::int64_t&, std::string_view, bool need) override { add(name, "N", need); }
  void operator()(std::string_view name, Pair&, std::string_view, bool need) override { add(name, "N", need); }
  void number(std::string_view name, double&, std::string_view) override { add(name, "X", false); }
  void rate(double&) override { add("rate", "", true); }
  void flag(std::string_view name, bool& value) override { text += fmt::format(" [{}{}]", value ? "no" : "", name); }
  void padding(Padding&) override { text += " [same]"; }
  void activation(Activation&) override { text += " [ACTIVATION]"; }
  void sizes(std::vector<std::int64_t>&, std::string_view) override { text += " N ..."; }
  void layers(std::string_view, std::vector<Layer>&, std::string_view, bool need) override {
    text += need ? " (LAYER, ..." : " [| LAYER, ...])";
  }
  void branches(std::vector<std::vector<Layer>>&, std::string_view) override { text += " (LAYER, ... | LAYER, ...)"; }

 private:
  void add(std::string_view name, std::string_view value, bool need) {
    std::string upper(name);
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    text += need ? " " + upper : fmt::format(" [{} {}]", name, value);
  }
};

}  // namespace

std::vector<Layer> parse_architecture(std::string_view text) { return TextParser(text).parse(); }

std::string describe_architecture(const std::vector<Layer>& layers) {
  std::vector<std::string> out;
  for (const Layer& layer : layers) {
    if (const auto* f = dynamic_cast<const Function*>(&*layer)) {
      const std::string_view name = f->plain() ? activation_name(f->plain()) : std::string_view();
      if (name.empty())
        throw ValueError(
            fmt::format("describe_architecture: {}: no text describes a function without a name", layer->name()));
      out.emplace_back(name);
      continue;
    }
    Usage any;
    const LayerKind* kind = detail::layer_kind_of(*layer, any);
    if (!kind)
      throw ValueError(fmt::format("describe_architecture: {}: no text describes a {}", layer->name(), layer->type()));
    Printer printer(*kind);
    kind->look(*layer, printer);
    out.push_back(printer.str());
  }
  return fmt::format("{}", fmt::join(out, ", "));
}

std::string architecture_help() {
  std::string out;
  for (const LayerKind& kind : detail::layer_kinds()) {
    Usage usage;
    kind.defaults(usage);
    out += fmt::format("{}{}\n    {}\n", kind.word, usage.text, kind.help);
  }
  return out + fmt::format("ACTIVATION: {}\n", detail::activation_words());
}

}  // namespace ebb
