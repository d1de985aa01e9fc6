// mnist: train digit classifiers and use them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <system_error>

#include <ebb/models/version.h>

#include "command.h"

namespace {

using mnist::Command;

constexpr auto commands = std::to_array<Command>({
    {"train", "train a network and test it", mnist::train},
    {"evaluate", "test a saved network", mnist::evaluate},
    {"predict", "name digits of the test set with a saved network", mnist::predict},
    {"summary", "layers, shapes and parameters of a network", mnist::summary},
    {"search", "try many settings of a training and compare", mnist::search},
    {"reproduce", "train the runs of five published notebooks and compare", mnist::reproduce},
    {"transfer", "put what a saved network learned to use on other pictures", mnist::transfer},
    {"graph", "draw the computation graph of a network", mnist::graph},
});

std::string help() {
  std::string text = "Usage: mnist COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& c : commands) text += fmt::format("  {:<10} {}\n", c.name, c.about);
  return text +
         "\nmnist COMMAND --help lists a command's options;\n"
         "mnist --version tells what this build is.\n"
         "\nExamples:\n"
         "  mnist train --model mlp --layers 512 --optimizer rmsprop --epochs 5\n"
         "  mnist train --model cnn --epochs 5 --save digits.safetensors\n"
         "  mnist predict digits.safetensors --index 0,1,2\n"
         "\nExit codes: 0 done; 1 failed (data, files, a loss that is not a number);\n"
         "2 wrong usage; 130 interrupted by Ctrl-C, 143 terminated (the model so far is\n"
         "saved if --save was given).\n";
}

int run(const std::vector<std::string>& args) {
  if (args.empty()) {
    fmt::print(stderr, "{}", help());
    return mnist::usage;
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    fmt::print("{}", help());
    return mnist::ok;
  }
  if (args[0] == "--version") {
    fmt::print("{}", ebb::build_info());
    return mnist::ok;
  }
  for (const Command& c : commands) {
    if (args[0] != c.name) continue;
    const std::vector<std::string> rest(args.begin() + 1, args.end());
    for (const std::string& a : rest)
      if (a == "--version") {
        fmt::print("{}", ebb::build_info());
        return mnist::ok;
      }
    return c.run(rest);
  }
  std::vector<std::string> names;
  for (const Command& c : commands) names.emplace_back(c.name);
  const std::string guess = mnist::nearest(args[0], names);
  throw mnist::UsageError(guess.empty() ? fmt::format("no command \"{}\"; there are {}", args[0], fmt::join(names, ", "))
                                        : fmt::format("no command \"{}\"; did you mean {}?", args[0], guess));
}

bool is_command(const std::string& name) {
  return std::ranges::any_of(commands, [&](const Command& c) { return name == c.name; });
}

/// What went wrong with standard output, if anything: a full disk or a closed pipe must not look like success.
void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) throw std::system_error(errno ? errno : EIO, std::generic_category());
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error like any other
  const std::vector<std::string> args(argv + 1, argv + argc);
  try {
    const int code = run(args);
    flush_output();
    return code;
  } catch (const mnist::UsageError& e) {
    fmt::print(stderr, "mnist: {}\nTry: mnist {}--help\n", e.what(), !args.empty() && is_command(args[0]) ? args[0] + " " : "");
    return mnist::usage;
  } catch (const std::system_error& e) {
    fmt::print(stderr, "mnist: standard output: {}\n", e.code().message());
    return mnist::failed;
  } catch (const std::exception& e) {
    fmt::print(stderr, "mnist: {}\n", e.what());
    return mnist::failed;
  }
}
