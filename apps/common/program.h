// What the programs with commands share: the table of commands, how they run, and where data come from.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "options.h"
#include "output.h"

namespace ebb {
struct Mnist;
}

namespace app {

enum Exit { ok = 0, failed = 1, usage = 2 };

/// A command: dispatch, help, man page and completion are made from its row.
struct Command {
  const char* name;
  const char* about;        ///< what it does, such as "test a saved network"
  const char* arguments;    ///< what follows its name: "FILE [OPTIONS]"
  const char* description;  ///< more lines about it; may be empty
  const char* examples;     ///< lines
  po::options_description (*options)();
  int (*run)(Values& values);  ///< the exit code
  int files = 0;               ///< arguments that are no options: at most so many
};

/// A program of commands, `mnist train --epochs 3`. One that has a single command of its own name takes the options of
/// that without naming it, `gradcheck --op conv2d`.
struct Program {
  const char* name;
  const char* about;
  std::span<const Command> commands;
  const char* examples;
  const char* exit_codes;
  bool is_one_command() const { return commands.size() == 1 && std::string_view(name) == commands[0].name; }
};

/// Prints the help or the version, or runs a command, and turns what it throws into one line and an exit code. For the
/// installation, --man prints the man page and --bash-completion the completion; for tests, --defaults prints every
/// option with its default and its rule.
int run_program(const Program& program, int argc, char** argv);

/// All options of a command, --help too.
po::options_description options_of(const Command& command);
/// Reads a command's arguments. Throws UsageError, with the nearest name on an unknown option.
Values parse(const Command& command, const std::vector<std::string>& args);
/// "mnist train [OPTIONS]"
std::string usage_of(const Program& program, const Command& command);
/// "Train a network.", with the description below.
std::string text_of(const Command& command);
std::string man_page(const Program& program);
std::string bash_completion(const Program& program);
std::string table_of_defaults(const Program& program);

/// --data, --dataset, --threads.
po::options_description data_options();
/// Only --data, --threads; only --threads.
Option data_option();
Option threads_option();
ebb::Mnist load_data(const po::variables_map& values);
/// Applies --threads.
void use_threads(const po::variables_map& values);

/// Checks before anything is read that this file can be written (ebb::check_writable). Where it is standard output,
/// results go to standard error.
void check_output(const std::string& file, bool overwrite, std::uintmax_t bytes = 0);
/// Whether two names are of one file, which need not be there yet. What takes all, as /dev/null, is nobody's.
bool same_file(const std::string& a, const std::string& b);
/// Throws UsageError when two of these are the same file; each is what the command line calls it and its name, which
/// may be empty.
void refuse_same_files(const std::vector<std::pair<std::string, std::string>>& files);

}  // namespace app
