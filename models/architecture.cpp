#include <ebb/models/architecture.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include <ebb/graph/error.h>
#include <ebb/models/norm.h>

namespace ebb {
namespace {

struct NamedActivation {
  std::string_view name;
  Activation f;
};
constexpr auto activations = std::to_array<NamedActivation>({
    {"relu", relu},
    {"sigmoid", sigmoid},
    {"tanh", tanh},
    {"softplus", softplus},
    {"gelu", gelu},
    {"silu", silu},
    {"selu", selu},
    {"elu", [](const Tensor& x) { return elu(x); }},
    {"leaky_relu", [](const Tensor& x) { return leaky_relu(x); }},
    {"linear", nullptr},
});

std::string names() {
  std::vector<std::string> all = activation_names();
  return fmt::format("{}", fmt::join(all, ", "));
}

struct Word {
  std::string_view text;
  std::size_t column;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::vector<Layer> parse() {
    std::vector<Layer> layers;
    std::size_t begin = 0;
    while (true) {
      const std::size_t comma = std::min(text_.find(',', begin), text_.size());
      split(begin, comma);
      if (words_.empty()) fail_at(std::min(begin, text_.size()), "a layer is expected here");
      next_ = 0;
      layers.push_back(layer());
      if (next_ < words_.size()) fail_at(words_[next_].column, fmt::format("\"{}\" is not understood here", words_[next_].text));
      if (comma == text_.size()) return layers;
      begin = comma + 1;
    }
  }

 private:
  void split(std::size_t begin, std::size_t end) {
    words_.clear();
    for (std::size_t i = begin; i < end;) {
      if (text_[i] == ' ' || text_[i] == '\t') {
        ++i;
        continue;
      }
      std::size_t stop = i;
      while (stop < end && text_[stop] != ' ' && text_[stop] != '\t') ++stop;
      words_.push_back({text_.substr(i, stop - i), i});
      i = stop;
    }
    end_ = end;
  }

  Layer layer() {
    const Word kind = words_[next_++];
    if (kind.text == "conv") {
      Conv2DOptions o;
      o.filters = integer("the number of filters");
      o.kernel = integer("the kernel's size");
      while (next_ < words_.size()) {
        if (take("stride")) o.stride = integer("the stride");
        else if (take("dilation")) o.dilation = integer("the dilation");
        else if (take("same")) o.pad = Padding::same();
        else if (take("valid")) o.pad = Padding::valid();
        else break;
      }
      o.activation = activation();
      return Conv2D(o);
    }
    if (kind.text == "dense") {
      const std::int64_t units = integer("the number of units");
      return Dense({.units = units, .activation = activation()});
    }
    if (kind.text == "pool") return MaxPool2D(integer("the window's size"));
    if (kind.text == "avgpool") return AvgPool2D(integer("the window's size"));
    if (kind.text == "globalavgpool") return GlobalAvgPool2D();
    if (kind.text == "batchnorm") return BatchNormalization();
    if (kind.text == "flatten") return Flatten();
    if (kind.text == "dropout") return Dropout(rate());
    for (const NamedActivation& a : activations)
      if (a.name == kind.text) return a.f ? Layer(a.f) : Layer([](const Tensor& x) { return x; });
    fail_at(kind.column, fmt::format("no layer \"{}\"; there are conv, dense, pool, avgpool, globalavgpool, batchnorm, flatten, dropout, {}", kind.text, names()));
  }

  bool take(std::string_view word) {
    if (next_ >= words_.size() || words_[next_].text != word) return false;
    ++next_;
    return true;
  }

  Activation activation() {
    if (next_ >= words_.size()) return nullptr;
    for (const NamedActivation& a : activations)
      if (take(a.name)) return a.f;
    fail_at(words_[next_].column, fmt::format("\"{}\" is no activation; there are {}", words_[next_].text, names()));
  }

  template <class T>
  T number(std::string_view what) {
    if (next_ >= words_.size()) fail_at(end_, fmt::format("{} is missing", what));
    const Word w = words_[next_++];
    T value{};
    const auto [stop, error] = std::from_chars(w.text.data(), w.text.data() + w.text.size(), value);
    if (error != std::errc() || stop != w.text.data() + w.text.size())
      fail_at(w.column, fmt::format("{} must be a number, not \"{}\"", what, w.text));
    return value;
  }
  std::int64_t integer(std::string_view what) {
    const auto n = number<std::int64_t>(what);
    if (n < 1 || n > 1'000'000) fail_at(words_[next_ - 1].column, fmt::format("{} must be 1 to 1,000,000", what));
    return n;
  }
  double rate() {
    const auto r = number<double>("the rate");
    if (!(r >= 0 && r < 1)) fail_at(words_[next_ - 1].column, "the rate must be in [0, 1)");
    return r;
  }

  [[noreturn]] void fail_at(std::size_t column, const std::string& what) const {
    throw ValueError(fmt::format("architecture: column {}: {}\n  {}\n  {:>{}}", column + 1, what, text_, "^", column + 1));
  }

  std::string_view text_;
  std::vector<Word> words_;
  std::size_t next_ = 0, end_ = 0;
};

}  // namespace

std::vector<Layer> parse_architecture(std::string_view text) { return Parser(text).parse(); }

std::vector<std::string> activation_names() {
  std::vector<std::string> out;
  for (const NamedActivation& a : activations) out.emplace_back(a.name);
  return out;
}

Activation activation_of(std::string_view name) {
  for (const NamedActivation& a : activations)
    if (a.name == name) return a.f;
  throw ValueError(fmt::format("no activation \"{}\"; there are {}", name, names()));
}

}  // namespace ebb
