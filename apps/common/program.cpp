#include "program.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <new>
#include <sstream>
#include <system_error>

#include <ebb/graph/names.h>
#include <ebb/graph/printable.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/version.h>
#include <ebb/ops/kernels/threads.h>

namespace app {
namespace {

/// What a message repeats of an argument, which may be endless.
std::string shown(const std::string& text) { return ebb::detail::printable(text, 300); }

std::string text_of(const po::options_description& options) {
  std::ostringstream text;
  text.exceptions(std::ios::badbit);  // else a lack of memory cuts it off
  text << options;
  std::string out = text.str();
  if (const std::size_t at = out.find("\n\n\n"); at != std::string::npos) out.erase(at, 1);  // of groups within a group
  return out;
}

std::string examples_of(const Command& c) {
  return *c.examples ? fmt::format("Examples:\n{}", c.examples) : std::string();
}

std::string help_of(const Program& p, const Command& c) {
  return fmt::format("Usage: {}\n\n{}\n{}\n{}{}", usage_of(p, c), text_of(c), text_of(options_of(c)), examples_of(c),
                     p.is_one_command() ? fmt::format("\n{}", p.exit_codes) : "");
}

std::string help_of(const Program& p) {
  if (p.is_one_command()) return help_of(p, p.commands[0]);
  std::string text = fmt::format("Usage: {} COMMAND [OPTIONS]\n\nCommands:\n", p.name);
  for (const Command& c : p.commands) text += fmt::format("  {:<10} {}\n", c.name, c.about);
  return text + fmt::format(
                    "\n{0} help COMMAND lists the options of a command.\n{0} --version says what this build is."
                    "\n\nExamples:\n{1}\n{2}",
                    p.name, p.examples, p.exit_codes);
}

const Command* find(const Program& p, const std::string& name) {
  const auto it = std::ranges::find_if(p.commands, [&](const Command& c) { return name == c.name; });
  return it == p.commands.end() ? nullptr : &*it;
}

const Command& command_of(const Program& p, const std::string& name) {
  if (const Command* c = find(p, name)) return *c;
  std::vector<std::string> names;
  for (const Command& c : p.commands) names.emplace_back(c.name);
  throw UsageError(ebb::detail::unknown_name("command", name, names));
}

int print(const std::string& text) {
  app::print("{}", text);
  return ok;
}

int run(const Program& p, const Command& command, const std::vector<std::string>& args) {
  for (const std::string& a : args) {
    if (a == "--help" || a == "-h") return print(help_of(p, command));
    if (a == "--version") return print(ebb::build_info());
  }
  Values values = parse(command, args);
  return command.run(values);
}

int dispatch(const Program& p, const std::vector<std::string>& args) {
  const std::string first = args.empty() ? "" : args[0];
  if (first == "--man") return print(man_page(p));
  if (first == "--bash-completion") return print(bash_completion(p));
  if (first == "--defaults") return print(table_of_defaults(p));
  if (p.is_one_command()) return run(p, p.commands[0], args);
  if (args.empty()) {
    app::note("{}", help_of(p));
    return usage;
  }
  if (first == "help" && args.size() > 1) return print(help_of(p, command_of(p, args[1])));
  if (first == "--help" || first == "-h" || first == "help") return print(help_of(p));
  if (first == "--version") return print(ebb::build_info());
  return run(p, command_of(p, first), {args.begin() + 1, args.end()});
}

}  // namespace

Values parse(const Command& command, const std::vector<std::string>& args) {
  const po::options_description options = options_of(command);
  po::options_description everything;
  everything.add(options).add_options()("file", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("file", -1);
  Values values;
  values.words = args;
  try {
    po::store(po::command_line_parser(args)
                  .options(everything)
                  .positional(positional)
                  .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                  .run(),
              values);
    po::notify(values);
  } catch (const po::unknown_option& e) {
    const std::string given = e.get_option_name().substr(0, e.get_option_name().find('='));
    std::string guess = given.starts_with("--") ? ebb::detail::nearest(given.substr(2), names_of(options)) : "";
    throw UsageError(
        fmt::format("unknown option {}{}", shown(given), ebb::detail::did_you_mean(guess.empty() ? "" : "--" + guess)));
  } catch (const po::error& e) {
    throw UsageError(shown(e.what()));
  }
  const std::vector<std::string> given = files_of(values);
  if (std::ssize(given) <= command.files) return values;
  if (command.files == 0) throw UsageError(fmt::format("unexpected argument \"{}\"", shown(given[0])));
  if (command.files == 1)
    throw UsageError(
        fmt::format("only one model file is expected, got \"{}\" and \"{}\"", shown(given[0]), shown(given[1])));
  throw UsageError(fmt::format("at most {} files are expected, got {}", command.files, given.size()));
}

po::options_description options_of(const Command& command) {
  po::options_description all = joined({command.options()});
  all.add_options()("help,h", "this text");
  for (const auto& option : all.options())  // Boost reads names from a stream, which hides a lack of memory
    if (option->long_name().empty()) throw std::bad_alloc();
  return all;
}

std::string usage_of(const Program& p, const Command& c) {
  return fmt::format("{}{} {}", p.is_one_command() ? "" : fmt::format("{} ", p.name), c.name, c.arguments);
}

std::string text_of(const Command& c) {
  std::string text = c.about;
  text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return fmt::format("{}.\n{}", text, c.description);
}

Option data_option() {
  return {"data", text(), "folder of the four IDX files; default: $EBB_DATA, then the XDG data and cache folders"};
}

Option threads_option() {
  return {"threads", number(1, 256), "number of threads; default: one per processor. Results are the same for any"};
}

po::options_description data_options() {
  return option_group("Data", {{"dataset", one_of("mnist", {"mnist", "fashion", "synthetic"}),
                                "which digits: {}; synthetic needs no files"},
                               data_option(),
                               threads_option()});
}

ebb::Mnist load_data(const po::variables_map& v) {
  const auto name = v["dataset"].as<std::string>();
  try {
    return ebb::find_dataset(name == "mnist"     ? ebb::DatasetName::mnist
                             : name == "fashion" ? ebb::DatasetName::fashion
                                                 : ebb::DatasetName::synthetic,
                             v.count("data") ? v["data"].as<std::string>() : "");
  } catch (const ebb::DatasetMissing& e) {
    throw ebb::DataError(fmt::format("{}; the options are --data DIR and --dataset synthetic", e.what()));
  }
}

void use_threads(const po::variables_map& v) {
  const int n = v.count("threads") ? v["threads"].as<int>() : ebb::threads();
  ebb::set_threads(n);
  if (ebb::threads() < n)
    note("the system started {} of {} threads; going on with those (results are the same)\n", ebb::threads(), n);
}

void check_output(const std::string& file, bool overwrite, std::uintmax_t bytes) {
  try {
    ebb::check_writable(file, overwrite, bytes);
  } catch (const ebb::FileExists& e) {
    throw ebb::FileExists(fmt::format("{}; choose another name, or --force to overwrite it", e.what()));
  }
  keep_results_apart(file);
}

bool same_file(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  struct stat x, y;  // not fs::equivalent, which knows no pipes
  if (::stat(a.c_str(), &x) == 0 && ::stat(b.c_str(), &y) == 0)
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino && !S_ISCHR(x.st_mode);  // /dev/null takes all
  std::error_code none;
  return fs::weakly_canonical(fs::absolute(a), none) ==
         fs::weakly_canonical(fs::absolute(b), none);  // which leaves "x" as it is, not "./x"
}

void refuse_same_files(const std::vector<std::pair<std::string, std::string>>& files) {
  for (std::size_t i = 0; i < files.size(); ++i)
    for (std::size_t k = 0; k < i; ++k)
      if (!files[i].second.empty() && !files[k].second.empty() && same_file(files[i].second, files[k].second))
        throw UsageError(
            fmt::format("{} and {} are the same file: {}", files[k].first, files[i].first, files[i].second));
}

int run_program(const Program& p, int argc, char** argv) {
  begin_program(p.name);
  try {
    return end_program(p.name, dispatch(p, {argv + 1, argv + argc}));
  } catch (...) {
    const bool known = argc > 1 && find(p, argv[1]);
    return failed_program(p.name, {p.name, " ", known ? argv[1] : "", known ? " " : "", "--help"});
  }
}

}  // namespace app
