// Options of a command line as rows: a name, what it takes, and a line of help.
#pragma once
#include <boost/program_options.hpp>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace app {

namespace po = boost::program_options;

/// A mistake in the command line: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a command line gives: the values of its options, and the words themselves.
struct Values : po::variables_map {
  std::vector<std::string> words = {};
};

/// What the value of an option must be. An option without a rule takes any text.
struct Rule {
  virtual ~Rule() = default;
  std::string rule;                       ///< "a whole number from 1 to 256"
  std::vector<std::string> choices = {};  ///< all that it can be, where these are few
};

/// Any text.
const po::value_semantic* text();
const po::value_semantic* text(const std::string& standard);
/// A number within bounds (int, std::int64_t, std::uint64_t or double); `standard` is the value where the option is not
/// given.
template <class T>
const po::value_semantic* number(T low, T high);
template <class T>
const po::value_semantic* number(T standard, T low, T high);
/// One of some names. Where a line of help has "{}" for it, there they are listed.
const po::value_semantic* one_of(const std::string& standard, std::vector<std::string> names);
const po::value_semantic* one_of(std::vector<std::string> names);

/// One option of a command. Without a value it is a flag.
struct Option {
  Option(const char* option, const po::value_semantic* value, std::string help)
      : name(option), takes(value), about(std::move(help)) {}
  Option(const char* flag, std::string help) : name(flag), about(std::move(help)) {}
  const char* name;
  const po::value_semantic* takes = nullptr;
  std::string about;
};
/// Options under a title of the help.
po::options_description option_group(const char* title, std::initializer_list<Option> rows);
/// Groups of options as one.
po::options_description joined(std::initializer_list<po::options_description> groups);

/// The rule for an option's value; nullptr where it takes any text, or none.
const Rule* rule_of(const po::option_description& option);
bool takes_value(const po::option_description& option);
/// The value where it is not given, as text; empty where there is none.
std::string default_of(const po::option_description& option);
/// The names of some options.
std::vector<std::string> names_of(const po::options_description& options);

/// All arguments that are no options.
std::vector<std::string> files_of(const po::variables_map& values);
/// The first of them; empty when there is none.
std::string file_of(const po::variables_map& values);
/// The name of a file that this option gives; empty when it was not given. Throws UsageError on an empty one.
std::string output_name(const po::variables_map& values, const char* option);

/// "N2, N4" as words.
std::vector<std::string> words(const std::string& text, char separator = ',');
/// "512,64" as numbers; throws UsageError naming the option.
std::vector<std::int64_t> numbers(const std::string& option, const std::string& text);

}  // namespace app
