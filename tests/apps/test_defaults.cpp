// The options of all programs, with their defaults and rules, as tests/apps/defaults.txt has them.
#include <doctest/doctest.h>

#if !defined(EBB_DEFAULT_PROGRAMS)
TEST_CASE("defaults: of the command line") { MESSAGE("skipped: the build does not have all programs"); }
#else

#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::vector<std::string> lines_of(std::istream&& in) {
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

}  // namespace

TEST_CASE("defaults: those of the command line are the ones that tests/apps/defaults.txt lists") {
  const std::string file = EBB_SOURCE_DIR "/tests/apps/defaults.txt";
  std::string text, write;
  std::istringstream programs(EBB_DEFAULT_PROGRAMS);
  for (std::string program; programs >> program;) {
    write += program + " --defaults; ";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(::popen((program + " --defaults").c_str(), "r"),
                                                              ::pclose);
    REQUIRE(out);
    for (int c; (c = std::fgetc(out.get())) != EOF;) text += static_cast<char>(c);
  }
  const std::vector<std::string> here = lines_of(std::istringstream(text)), listed = lines_of(std::ifstream(file));
  REQUIRE_FALSE(here.empty());
  const std::set<std::string> in_program(here.begin(), here.end()), in_file(listed.begin(), listed.end());
  const bool has_ops = text.find("bench ops ") != std::string::npos;  // only where Google Benchmark was found
  std::string changes;
  for (const std::string& line : listed)
    if (!in_program.contains(line) && (has_ops || !line.starts_with("bench ops "))) changes += "  - " + line + "\n";
  for (const std::string& line : here)
    if (!in_file.contains(line)) changes += "  + " + line + "\n";
  CHECK_MESSAGE(changes.empty(), "options that changed (- in the file, + in the programs):\n",
                changes + "If this is wanted, write the file anew: (" + write + ") > " + file);
}

#endif
