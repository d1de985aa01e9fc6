#include "options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <type_traits>
#include <utility>

#include <ebb/graph/names.h>
#include <ebb/graph/printable.h>

namespace app {
namespace {

constexpr std::size_t longest_shown = 40;  // of a value, in a message
constexpr unsigned width = 80, column = 40;

/// What is wrong with a value. Boost tells it the name of the option, which stands where the text has "%name%".
class BadValue final : public po::error_with_option_name {
 public:
  using po::error_with_option_name::error_with_option_name;

 protected:
  void substitute_placeholders(const std::string& text) const override {
    m_message = text;
    std::string name = get_option_name();
    name.erase(0, name.find_first_not_of('-'));
    if (const std::size_t at = text.find("%name%"); at != std::string::npos) m_message.replace(at, 6, name);
  }
};

class Choice final : public po::typed_value<std::string>, public Rule {
 public:
  explicit Choice(std::vector<std::string> names) : po::typed_value<std::string>(nullptr) {
    rule = fmt::format("one of {}", fmt::join(names, ", "));
    choices = std::move(names);
  }
  void xparse(boost::any& value, const std::vector<std::string>& given) const override {
    po::validators::check_first_occurrence(value);
    if (std::ranges::find(choices, given.at(0)) == choices.end())
      throw BadValue(ebb::detail::unknown_name("%name%", given[0], choices));
    value = given[0];
  }
};

template <class T>
class Number final : public po::typed_value<T>, public Rule {
 public:
  Number(T low, T high) : po::typed_value<T>(nullptr), low_(low), high_(high) {
    rule = fmt::format("a {}number from {} to {}", std::is_integral_v<T> ? "whole " : "", low, high);
  }
  void xparse(boost::any& value, const std::vector<std::string>& given) const override {
    po::validators::check_first_occurrence(value);
    const std::string& text = given.at(0);
    if (const auto n = read(text)) {
      if (!(*n >= low_ && *n <= high_))
        throw BadValue(fmt::format("--%name% must be {}, got {}", rule, ebb::detail::printable(text, longest_shown)));
      value = *n;
      return;
    }
    std::string point = text;
    if (const std::size_t comma = text.find(','); comma != std::string::npos) point[comma] = '.';
    const bool meant = !std::is_integral_v<T> && point != text && read(point);
    throw BadValue(fmt::format("--%name% must be {}, got \"{}\"{}", rule, ebb::detail::printable(text, longest_shown),
                               ebb::detail::did_you_mean(meant ? point : "")));
  }

 private:
  static std::optional<T> read(const std::string& text) {
    const char *begin = text.data() + text.starts_with('+'), *end = text.data() + text.size();
    T n{};
    const auto [stop, error] = std::from_chars(begin, end, n);
    return error == std::errc() && stop == end ? std::optional(n) : std::nullopt;
  }
  T low_, high_;
};

}  // namespace

template <class T>
const po::value_semantic* number(T low, T high) {
  return new Number<T>(low, high);
}
template <class T>
const po::value_semantic* number(T standard, T low, T high) {
  return (new Number<T>(low, high))->default_value(standard, fmt::format("{}", standard));
}
template const po::value_semantic* number(int, int);
template const po::value_semantic* number(int, int, int);
template const po::value_semantic* number(std::int64_t, std::int64_t);
template const po::value_semantic* number(std::int64_t, std::int64_t, std::int64_t);
template const po::value_semantic* number(std::uint64_t, std::uint64_t);
template const po::value_semantic* number(std::uint64_t, std::uint64_t, std::uint64_t);
template const po::value_semantic* number(double, double);
template const po::value_semantic* number(double, double, double);

const po::value_semantic* text() { return po::value<std::string>(); }
const po::value_semantic* text(const std::string& standard) {
  return po::value<std::string>()->default_value(standard);
}
const po::value_semantic* one_of(const std::string& standard, std::vector<std::string> names) {
  return (new Choice(std::move(names)))->default_value(standard);
}
const po::value_semantic* one_of(std::vector<std::string> names) { return new Choice(std::move(names)); }

po::options_description option_group(const char* title, std::initializer_list<Option> rows) {
  po::options_description group(title, width, column);
  for (const Option& o : rows) {
    if (!o.takes) {
      group.add_options()(o.name, o.about.c_str());
      continue;
    }
    std::string about = o.about;
    if (const std::size_t at = about.find("{}"); at != std::string::npos)
      if (const auto* rule = dynamic_cast<const Rule*>(o.takes))
        about.replace(at, 2, fmt::format("{}", fmt::join(rule->choices, ", ")));
    group.add_options()(o.name, o.takes, about.c_str());
  }
  return group;
}

po::options_description joined(std::initializer_list<po::options_description> groups) {
  po::options_description all(width, column);
  for (const auto& group : groups) all.add(group);
  return all;
}

const Rule* rule_of(const po::option_description& option) { return dynamic_cast<const Rule*>(option.semantic().get()); }

bool takes_value(const po::option_description& option) { return option.semantic()->max_tokens() > 0; }

std::string default_of(const po::option_description& option) {
  const std::string parameter = option.format_parameter();  // "arg", or "arg (=512)"
  const std::size_t begin = parameter.find("(=");
  return begin == std::string::npos ? "" : parameter.substr(begin + 2, parameter.rfind(')') - begin - 2);
}

std::vector<std::string> names_of(const po::options_description& options) {
  std::vector<std::string> out;
  for (const auto& option : options.options()) out.push_back(option->long_name());
  return out;
}

std::vector<std::string> files_of(const po::variables_map& values) {
  return values.count("file") ? values["file"].as<std::vector<std::string>>() : std::vector<std::string>();
}

std::string file_of(const po::variables_map& values) {
  const std::vector<std::string> given = files_of(values);
  return given.empty() ? "" : given[0];
}

std::string output_name(const po::variables_map& v, const char* option) {
  if (!v.count(option)) return "";
  const auto file = v[option].as<std::string>();
  if (file.empty()) throw UsageError(fmt::format("--{} needs the name of a file", option));
  return file;
}

std::vector<std::string> words(const std::string& text, char separator) {
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const auto first = word.find_first_not_of(' '), last = word.find_last_not_of(' ');
    if (first != std::string::npos) out.push_back(word.substr(first, last - first + 1));
    begin = end + 1;
  }
  return out;
}

std::vector<std::int64_t> numbers(const std::string& option, const std::string& text) {
  std::vector<std::int64_t> out;
  for (std::size_t begin = 0; begin <= text.size() && !text.empty();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::int64_t n = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, n);
    if (error != std::errc() || stop != text.data() + end)
      throw UsageError(fmt::format("--{} must be whole numbers separated by commas, such as 512,64; got \"{}\"", option,
                                   ebb::detail::printable(text, longest_shown)));
    out.push_back(n);
    begin = end + 1;
  }
  return out;
}

}  // namespace app
