// The structure of the source tree: who may include whom, where third parties may appear, how long a file may
// be.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

// Each folder sees itself and those to its left; tests see all.
const std::vector<std::string> folders{"graph", "ops", "autograd", "models", "apps", "tests"};
constexpr std::ptrdiff_t longest = 400;

std::ptrdiff_t rank_of(std::string_view folder) {
  const auto it = std::ranges::find(folders, folder);
  return it == folders.end() ? -1 : it - folders.begin();
}

/// What is wrong with a file, one line each; `path` is relative to the top, such as "ops/matmul.cpp".
std::vector<std::string> complaints(const std::string& path, const std::string& text) {
  std::vector<std::string> out;
  const auto complain = [&](const std::string& what) { out.push_back(path + ": " + what); };
  const std::string folder = path.substr(0, path.find('/'));
  const bool test = folder == "tests";
  const bool graph_source = folder == "graph" && (path.ends_with(".cpp") || path == "graph/boost_graph.h");

  static const std::regex include("(?:^|\n)[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"]+)[>\"]");
  for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
    const std::string header = (*it)[1];
    const auto begins = [&](const char* prefix) { return header.starts_with(prefix); };
    if (begins("ebb/")) {
      const std::string rest = header.substr(4),
                        to = header == "ebb/ebb.h" ? "models" : rest.substr(0, rest.find('/'));
      if (rank_of(to) < 0)
        complain("includes <" + header + ">, which is in no folder");
      else if (rank_of(to) > rank_of(folder))
        complain("includes <" + header + "> from a folder to its right");
      else if (to == "tests")
        complain("includes <" + header + "> from the tests");
    }
    if (header.find("..") != std::string::npos) complain("includes \"" + header + "\" by a path that climbs");
    if (begins("boost/graph/") && !graph_source && !test)
      complain("includes <" + header + "> outside of graph/*.cpp and graph/boost_graph.h");
    if ((header == "cblas.h" || begins("openblas") || begins("lapack")) && path != "ops/blas.cpp")
      complain("includes <" + header + "> outside of ops/blas.cpp");
    if (begins("boost/program_options") && folder != "apps")
      complain("includes <" + header + "> outside of apps/");
    if (begins("doctest") && !test) complain("includes <" + header + "> outside of tests/");
  }

  const std::ptrdiff_t lines = std::ranges::count(text, '\n');
  if (lines > longest) {
    std::istringstream in(text);
    std::string head, line;
    for (int i = 0; i < 5 && std::getline(in, line); ++i) head += line + "\n";
    if (head.find("over 400 lines because") == std::string::npos)
      complain("has " + std::to_string(lines) + " lines and does not say why");
  }
  return out;
}

std::vector<std::string> all_complaints(const fs::path& top) {
  std::vector<std::string> out;
  for (const std::string& folder : folders)
    for (const auto& entry : fs::recursive_directory_iterator(top / folder)) {
      const std::string extension = entry.path().extension();
      if (!entry.is_regular_file() ||
          (extension != ".h" && extension != ".cpp" && extension != ".hpp" && extension != ".cc"))
        continue;
      std::ifstream in(entry.path());
      const std::string text{std::istreambuf_iterator<char>(in), {}};
      for (std::string& c : complaints(fs::relative(entry.path(), top).generic_string(), text))
        out.push_back(std::move(c));
    }
  return out;
}

/// True for what may stand at the top: the sources, hidden files, and what .gitignore leaves out.
bool belongs_at_top(const std::string& name) {
  static const std::set<std::string> named{"CMakeLists.txt", "CMakePresets.json",     "LICENSE",
                                           "README.md",      "compile_commands.json", "runs"};
  return named.contains(name) || rank_of(name) >= 0 || name.starts_with(".") || name.starts_with("build");
}

}  // namespace

TEST_CASE("layering: the tree keeps its rules") {
  for (const std::string& c : all_complaints(EBB_SOURCE_DIR)) FAIL_CHECK(c);
}

TEST_CASE("layering: nothing else at the top") {
  for (const auto& entry : fs::directory_iterator(EBB_SOURCE_DIR)) {
    const std::string name = entry.path().filename();
    CAPTURE(name);
    CHECK(belongs_at_top(name));
  }
  for (const char* stray : {"src", "notes.txt", "include", "model.safetensors"})
    CHECK_FALSE(belongs_at_top(stray));
}

TEST_CASE("layering: the checker sees what it should") {
  struct Example {
    const char* path;
    std::string text;
    const char* complaint;  // null: none
  };
  const std::string inc = "#include ";  // in pieces, so that this file does not include what it talks about
  const Example examples[] = {
      {"graph/a.cpp", inc + "<ebb/ops/ops.h>\n",
       "graph/a.cpp: includes <ebb/ops/ops.h> from a folder to its right"},
      {"ops/a.h", "#pragma once\n  # include <ebb/autograd/backward.h>\n",
       "ops/a.h: includes <ebb/autograd/backward.h> from a folder to its right"},
      {"autograd/a.cpp", inc + "\"ebb/models/fit.h\"\n",
       "autograd/a.cpp: includes <ebb/models/fit.h> from a folder to its right"},
      {"ops/a.cpp", inc + "<ebb/ebb.h>\n", "ops/a.cpp: includes <ebb/ebb.h> from a folder to its right"},
      {"models/a.cpp", inc + "<ebb/apps/x.h>\n",
       "models/a.cpp: includes <ebb/apps/x.h> from a folder to its right"},
      {"models/a.cpp", inc + "<ebb/ebb.h>\n" + inc + "<ebb/ops/ops.h>\n", nullptr},
      {"apps/mnist/a.cpp", inc + "<ebb/ebb.h>\n" + inc + "<boost/program_options.hpp>\n", nullptr},
      {"tests/a.cpp",
       inc + "<ebb/models/fit.h>\n" + inc + "<doctest/doctest.h>\n" + inc +
           "<boost/graph/graph_traits.hpp>\n",
       nullptr},
      {"models/a.cpp", inc + "<ebb/nowhere/x.h>\n",
       "models/a.cpp: includes <ebb/nowhere/x.h>, which is in no folder"},
      {"models/a.cpp", inc + "\"../apps/x.h\"\n",
       "models/a.cpp: includes \"../apps/x.h\" by a path that climbs"},
      {"graph/graph.cpp", inc + "<boost/graph/depth_first_search.hpp>\n", nullptr},
      {"graph/boost_graph.h", inc + "<boost/graph/graph_traits.hpp>\n", nullptr},
      {"graph/graph.h", inc + "<boost/graph/graph_traits.hpp>\n",
       "graph/graph.h: includes <boost/graph/graph_traits.hpp> outside of graph/*.cpp and "
       "graph/boost_graph.h"},
      {"ops/a.cpp", inc + "<boost/graph/graph_traits.hpp>\n",
       "ops/a.cpp: includes <boost/graph/graph_traits.hpp> outside of graph/*.cpp and graph/boost_graph.h"},
      {"ops/blas.cpp", inc + "<cblas.h>\n", nullptr},
      {"ops/conv.cpp", inc + "<cblas.h>\n", "ops/conv.cpp: includes <cblas.h> outside of ops/blas.cpp"},
      {"models/a.cpp", inc + "<boost/program_options.hpp>\n",
       "models/a.cpp: includes <boost/program_options.hpp> outside of apps/"},
      {"ops/a.cpp", inc + "<doctest/doctest.h>\n",
       "ops/a.cpp: includes <doctest/doctest.h> outside of tests/"},
      {"ops/a.cpp", "// #include <cblas.h>\n", nullptr},
      {"ops/a.cpp", std::string(400, '\n'), nullptr},
      {"ops/a.cpp", std::string(401, '\n'), "ops/a.cpp: has 401 lines and does not say why"},
      {"ops/a.cpp", "// Words; over 400 lines because of a reason.\n" + std::string(500, '\n'), nullptr},
      {"ops/a.cpp", std::string(500, '\n') + "// over 400 lines because\n",
       "ops/a.cpp: has 501 lines and does not say why"},
  };
  for (const Example& e : examples) {
    CAPTURE(e.path);
    CAPTURE(e.text.substr(0, 80));
    const std::vector<std::string> got = complaints(e.path, e.text);
    if (e.complaint == nullptr) {
      CHECK(got.empty());
    } else {
      REQUIRE(got.size() == 1);
      CHECK(got[0] == e.complaint);
    }
  }
}
