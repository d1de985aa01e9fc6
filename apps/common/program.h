// What the programs with sub-commands share: options, messages, exit codes, and where data come from.
#pragma once
#include <boost/program_options.hpp>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ebb/models/data/mnist.h>

#include "output.h"

namespace app {

namespace po = boost::program_options;

/// A mistake in the command line: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum Exit { ok = 0, failed = 1, usage = 2 };

struct Command {
  const char* name;
  const char* about;
  int (*run)(const std::vector<std::string>& args);
};

/// A program of sub-commands: `mnist train --epochs 3`. Prints the help (with `examples` at its end) or the version,
/// runs the command, and turns what it throws into one line and an exit code. For the installation, --man prints the
/// man page (which says what the program is `about`) and --bash-completion the completion.
int run_program(const char* name, std::span<const Command> commands, const char* examples, int argc, char** argv,
                const char* about);

/// One option of a command: its name, what it takes, and what its line of the help says. Without a value it is a flag.
struct Option {
  Option(const char* option, const po::value_semantic* value, const char* help = "")
      : name(option), takes(value), about(help) {}
  Option(const char* flag, const char* help) : name(flag), about(help) {}
  const char* name;
  const po::value_semantic* takes = nullptr;
  const char* about;
};
/// Options under a title of the help.
po::options_description option_group(const char* title, std::initializer_list<Option> rows);

/// What a command tells parse() of itself.
struct Synopsis {
  po::options_description options;
  std::string usage, examples;
  bool takes_file;
};
/// The argument on which parse() throws the Synopsis of the command instead; no command line can hold it.
inline const std::string describe("\0describe", 9);
std::string man_page(const std::string& name, const std::string& about, std::span<const Command> commands,
                     const std::string& examples);
std::string bash_completion(const std::string& name, std::span<const Command> commands);

/// Parses a command's arguments. Prints help (usage, options, examples) and returns false when --help is among them.
/// Throws UsageError with the nearest option name on an unknown one. So many arguments that are no options are allowed:
/// file_of(values), files_of(values).
bool parse(const std::vector<std::string>& args, const po::options_description& options, const std::string& usage,
           const std::string& examples, po::variables_map& values, int files = 0);
/// The model file that was given; empty when none was.
std::string file_of(const po::variables_map& values);
/// All files that were given.
std::vector<std::string> files_of(const po::variables_map& values);

/// The nearest of some names, or nothing when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& names);

/// "N2, N4" as words.
std::vector<std::string> words(const std::string& text, char separator = ',');
/// "512,64" as numbers; throws UsageError naming the option.
std::vector<std::int64_t> numbers(const std::string& option, const std::string& text);

/// --data, --dataset, --threads.
po::options_description data_options();
ebb::Mnist load_data(const po::variables_map& values);
/// Applies --threads.
void use_threads(const po::variables_map& values);

/// Checks before anything is read that this file can be written (ebb::check_writable). Where it is standard output,
/// results go to standard error.
void check_output(const std::string& file, bool overwrite, std::uintmax_t bytes = 0);
/// The name of a file that this option gives; empty when it was not given. Throws UsageError on an empty one.
std::string output_name(const po::variables_map& values, const char* option);
/// Whether two names are of one file, which need not be there yet. What takes all, as /dev/null, is nobody's.
bool same_file(const std::string& a, const std::string& b);
/// Throws UsageError when two of these are the same file; each is what the command line calls it and its name, which
/// may be empty.
void refuse_same_files(const std::vector<std::pair<std::string, std::string>>& files);

}  // namespace app
