#include "program.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <new>
#include <sstream>
#include <system_error>

#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/version.h>
#include <ebb/ops/kernels/threads.h>

namespace app {
namespace {

/// Letters to add, drop, change or swap with the next.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::vector<std::string> names_of(const po::options_description& options) {
  std::vector<std::string> out;
  for (const auto& option : options.options()) out.push_back(option->long_name());
  return out;
}

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t distance = std::min<std::size_t>(3, name.size() / 2 + 1);  // a short name has too many neighbors
  for (const std::string& candidate : names)
    if (const std::size_t d = edit_distance(name, candidate); d < distance) {
      distance = d;
      best = candidate;
    }
  return best;
}

namespace {

constexpr std::size_t longest_shown = 300;
/// What a message repeats of an argument, which may be endless.
std::string shown(const std::string& text) {
  return text.size() > longest_shown ? text.substr(0, longest_shown) + "..." : text;
}

}  // namespace

bool parse(const std::vector<std::string>& args, const po::options_description& options, const std::string& usage,
           const std::string& examples, po::variables_map& values, int files) {
  po::options_description all(80, 40);
  all.add(options).add_options()("help,h", "this text");
  for (const auto& option : all.options())  // Boost reads names from a stream, which hides a lack of memory
    if (option->long_name().empty()) throw std::bad_alloc();
  if (!args.empty() && args[0] == describe) throw Synopsis{all, usage, examples, files > 0};
  po::options_description everything;
  everything.add(all).add_options()("file", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("file", -1);
  if (std::ranges::any_of(args, [](const std::string& a) { return a == "--help" || a == "-h"; })) {
    std::ostringstream text;
    text.exceptions(std::ios::badbit);  // else a lack of memory cuts it off
    text << all;
    app::print("Usage: {}\n{}\n{}", usage, text.str(), examples);
    return false;
  }
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
    if (!given.starts_with("--")) throw UsageError(fmt::format("unknown option {}", shown(given)));
    const std::string guess = nearest(given.substr(2, longest_shown), names_of(options));
    throw UsageError(fmt::format("unknown option {}{}", shown(given),
                                 guess.empty() ? "" : fmt::format("; did you mean --{}?", guess)));
  } catch (const po::error& e) {
    throw UsageError(shown(e.what()));
  }
  const std::vector<std::string> given = files_of(values);
  if (static_cast<int>(given.size()) <= files) return true;
  if (files == 0) throw UsageError(fmt::format("unexpected argument \"{}\"", shown(given[0])));
  if (files == 1)
    throw UsageError(
        fmt::format("only one model file is expected, got \"{}\" and \"{}\"", shown(given[0]), shown(given[1])));
  throw UsageError(fmt::format("at most {} files are expected, got {}", files, given.size()));
}

std::vector<std::string> files_of(const po::variables_map& values) {
  return values.count("file") ? values["file"].as<std::vector<std::string>>() : std::vector<std::string>();
}

std::string file_of(const po::variables_map& values) {
  const std::vector<std::string> given = files_of(values);
  return given.empty() ? "" : given[0];
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
      throw UsageError(
          fmt::format("--{} takes numbers separated by commas, such as 512,64; got \"{}\"", option, shown(text)));
    out.push_back(n);
    begin = end + 1;
  }
  return out;
}

po::options_description option_group(const char* title, std::initializer_list<Option> rows) {
  po::options_description group(title, 80, 40);
  for (const Option& o : rows)
    if (o.takes) group.add_options()(o.name, o.takes, o.about);
    else group.add_options()(o.name, o.about);
  return group;
}

po::options_description data_options() {
  return app::option_group(
      "Data", {
                  {"dataset", po::value<std::string>()->default_value("mnist"),
                   "mnist, fashion, or synthetic (needs no files)"},
                  {"data", po::value<std::string>(),
                   "folder of the four IDX files; default: $EBB_DATA, then the XDG data and cache folders"},
                  {"threads", po::value<int>(), "default: one per processor; results are the same for any number"},
              });
}

ebb::Mnist load_data(const po::variables_map& v) {
  const auto name = v["dataset"].as<std::string>();
  const std::string folder = v.count("data") ? v["data"].as<std::string>() : "";
  for (const auto& [text, set] :
       {std::pair{"mnist", ebb::DatasetName::mnist}, std::pair{"fashion", ebb::DatasetName::fashion},
        std::pair{"synthetic", ebb::DatasetName::synthetic}}) {
    if (name != text) continue;
    try {
      return ebb::find_dataset(set, folder);
    } catch (const ebb::DatasetMissing& e) {
      throw ebb::DataError(fmt::format("{}; the options are --data DIR and --dataset synthetic", e.what()));
    }
  }
  throw UsageError(fmt::format("--dataset must be mnist, fashion or synthetic, got \"{}\"", name));
}

void use_threads(const po::variables_map& v) {
  const int n = v.count("threads") ? v["threads"].as<int>() : ebb::threads();
  if (n < 1 || n > 256) throw UsageError(fmt::format("--threads must be 1 to 256, got {}", n));
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

std::string output_name(const po::variables_map& v, const char* option) {
  if (!v.count(option)) return "";
  const auto file = v[option].as<std::string>();
  if (file.empty()) throw UsageError(fmt::format("--{} needs the name of a file", option));
  return file;
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

namespace {

std::string help(const std::string& name, std::span<const Command> commands, const std::string& examples) {
  std::string text = fmt::format("Usage: {} COMMAND [OPTIONS]\n\nCommands:\n", name);
  for (const Command& c : commands) text += fmt::format("  {:<10} {}\n", c.name, c.about);
  return text +
         fmt::format("\n{0} COMMAND --help lists a command's options;\n{0} --version tells what this build is.\n\n",
                     name) +
         examples;
}

int dispatch(const std::string& name, std::span<const Command> commands, const std::string& examples,
             const std::string& about, const std::vector<std::string>& args) {
  if (args.empty()) {
    app::note("{}", help(name, commands, examples));
    return usage;
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    app::print("{}", help(name, commands, examples));
    return ok;
  }
  if (args[0] == "--version") {
    app::print("{}", ebb::build_info());
    return ok;
  }
  if (args[0] == "--man" || args[0] == "--bash-completion") {
    app::print("{}", args[0] == "--man" ? man_page(name, about, commands, examples) : bash_completion(name, commands));
    return ok;
  }
  for (const Command& c : commands) {
    if (args[0] != c.name) continue;
    const std::vector<std::string> rest(args.begin() + 1, args.end());
    for (const std::string& a : rest)
      if (a == "--version") {
        app::print("{}", ebb::build_info());
        return ok;
      }
    return c.run(rest);
  }
  std::vector<std::string> names;
  for (const Command& c : commands) names.emplace_back(c.name);
  const std::string guess = nearest(args[0], names);
  throw UsageError(guess.empty() ? fmt::format("no command \"{}\"; there are {}", args[0], fmt::join(names, ", "))
                                 : fmt::format("no command \"{}\"; did you mean {}?", args[0], guess));
}

}  // namespace

int run_program(const char* name, std::span<const Command> commands, const char* examples, int argc, char** argv,
                const char* about) {
  begin_program(name);
  try {
    return end_program(name, dispatch(name, commands, examples, about, {argv + 1, argv + argc}));
  } catch (...) {
    const bool known =
        argc > 1 && std::ranges::any_of(commands, [&](const Command& c) { return std::strcmp(argv[1], c.name) == 0; });
    return failed_program(name, {name, " ", known ? argv[1] : "", known ? " " : "", "--help"});
  }
}
}  // namespace app
