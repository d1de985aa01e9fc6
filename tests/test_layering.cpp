// The structure of the source tree: who may include whom, where third parties may appear, how long a file may
// be.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

/// Where files live. A room sees itself and those of lower rank; two of the same rank do not see each other.
struct Room {
  std::string_view path;
  int rank;
};
constexpr Room rooms[] = {
    {"graph", 0},        {"ops/kernels", 1}, {"ops", 2},          {"autograd", 3},      {"models/layers", 4},
    {"models/files", 4}, {"models/data", 5}, {"models/train", 6}, {"models/report", 7}, {"models/exchange", 7},
    {"models", 8},       {"apps", 9},        {"tests", 10},
};
const std::vector<std::string> folders{"graph", "ops", "autograd", "models", "apps", "tests"};
constexpr std::ptrdiff_t longest = 400;

/// The room of a file such as "ops/kernels/blas.cpp": the longest that its path begins with. Null for none.
const Room* room_of(std::string_view path) {
  const Room* found = nullptr;
  for (const Room& r : rooms)
    if (path.starts_with(r.path) && path.size() > r.path.size() && path[r.path.size()] == '/' &&
        (!found || found->path.size() < r.path.size()))
      found = &r;
  return found;
}

/// The file that `#include <header>` or `#include "header"` means; empty for one of others.
std::string included(std::string_view header) {
  if (header == "ebb/ebb.h") return "models/ebb.h";
  return header.starts_with("ebb/") ? std::string(header.substr(4)) : "";
}

struct Include {
  bool quoted;
  std::string header;
};
std::vector<Include> includes_of(const std::string& text) {
  static const std::regex include("(?:^|\n)[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]");
  std::vector<Include> out;
  for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it)
    out.push_back({(*it)[1] == "\"", (*it)[2]});
  return out;
}

/// What is wrong with a file, one line each; `path` is relative to the top, such as "ops/matmul.cpp".
std::vector<std::string> complaints(const std::string& path, const std::string& text) {
  std::vector<std::string> out;
  const auto complain = [&](const std::string& what) { out.push_back(path + ": " + what); };
  const std::string folder = path.substr(0, path.find('/'));
  const bool test = folder == "tests";
  const bool graph_source = folder == "graph" && (path.ends_with(".cpp") || path == "graph/boost_graph.h");

  for (const Include& it : includes_of(text)) {
    const std::string& header = it.header;
    const auto begins = [&](const char* prefix) { return header.starts_with(prefix); };
    if (begins("ebb/")) {
      const Room *from = room_of(path), *to = room_of(included(header));
      if (!to) complain("includes <" + header + ">, which is in no room");
      else if (to->path == "tests") complain("includes <" + header + "> from the tests");
      else if (to != from && from && to->rank >= from->rank)
        complain("includes <" + header + "> of " + std::string(to->path) + ", which " + std::string(from->path) +
                 " does not see");
    }
    if (header.find("..") != std::string::npos) complain("includes \"" + header + "\" by a path that climbs");
    if (begins("boost/graph/") && !graph_source && !test)
      complain("includes <" + header + "> outside of graph/*.cpp and graph/boost_graph.h");
    if ((header == "cblas.h" || begins("openblas") || begins("lapack")) && path != "ops/kernels/blas.cpp")
      complain("includes <" + header + "> outside of ops/kernels/blas.cpp");
    if (begins("boost/program_options") && folder != "apps") complain("includes <" + header + "> outside of apps/");
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

/// Every source of the project by its path.
std::map<std::string, std::string> sources(const fs::path& top) {
  std::map<std::string, std::string> out;
  for (const std::string& folder : folders)
    for (const auto& entry : fs::recursive_directory_iterator(top / folder)) {
      const std::string extension = entry.path().extension();
      if (!entry.is_regular_file() ||
          (extension != ".h" && extension != ".cpp" && extension != ".hpp" && extension != ".cc"))
        continue;
      std::ifstream in(entry.path());
      out[fs::relative(entry.path(), top).generic_string()] = {std::istreambuf_iterator<char>(in), {}};
    }
  return out;
}

/// The headers that each file includes, of those that are there. A quoted one is looked for beside the file, then in
/// the folders that its target's include path names.
std::map<std::string, std::vector<std::string>> include_graph(const std::map<std::string, std::string>& files) {
  std::map<std::string, std::vector<std::string>> out;
  for (const auto& [path, text] : files) {
    std::vector<std::string>& found = out[path];
    for (const auto& [quoted, header] : includes_of(text)) {
      if (!quoted) {
        if (const std::string to = included(header); files.contains(to)) found.push_back(to);
        continue;
      }
      for (const std::string& folder : {fs::path(path).parent_path().generic_string(), std::string("apps/common"),
                                        std::string("apps/bench"), std::string("apps/gradcheck"), std::string("tests")})
        if (const std::string to = folder + "/" + header; files.contains(to)) {
          found.push_back(to);
          break;
        }
    }
  }
  return out;
}

/// A circle of includes through `at`, as "a.h -> b.h -> a.h"; empty when there is none.
std::string circle(const std::map<std::string, std::vector<std::string>>& graph, const std::string& at,
                   std::vector<std::string>& path, std::set<std::string>& done) {
  if (const auto again = std::ranges::find(path, at); again != path.end()) {
    std::string out;
    for (auto it = again; it != path.end(); ++it) out += *it + " -> ";
    return out + at;
  }
  if (!done.insert(at).second) return "";
  path.push_back(at);
  for (const std::string& next : graph.at(at))
    if (std::string found = circle(graph, next, path, done); !found.empty()) return found;
  path.pop_back();
  return "";
}
std::string any_circle(const std::map<std::string, std::vector<std::string>>& graph) {
  std::set<std::string> done;
  for (const auto& [file, _] : graph) {
    std::vector<std::string> path;
    if (std::string found = circle(graph, file, path, done); !found.empty()) return found;
  }
  return "";
}

/// True for what may stand at the top: the sources, hidden files, and what .gitignore leaves out.
bool belongs_at_top(const std::string& name) {
  static const std::set<std::string> named{"CMakeLists.txt", "CMakePresets.json",     "LICENSE",
                                           "README.md",      "compile_commands.json", "runs"};
  return named.contains(name) || std::ranges::count(folders, name) > 0 || name.starts_with(".") ||
         name.starts_with("build");
}

}  // namespace

TEST_CASE("layering: the tree keeps its rules") {
  for (const auto& [path, text] : sources(EBB_SOURCE_DIR))
    for (const std::string& c : complaints(path, text)) FAIL_CHECK(c);
}

TEST_CASE("layering: no circle of includes, and no program that includes a test's header") {
  const auto graph = include_graph(sources(EBB_SOURCE_DIR));
  CHECK(any_circle(graph) == "");
  for (const auto& [file, headers] : graph)
    for (const std::string& header : headers)
      if (!file.starts_with("tests/") && header.starts_with("tests/")) FAIL_CHECK(file << " includes " << header);
  // That they would be seen.
  const std::string inc = "#include ";
  const auto small = include_graph({{"ops/a.h", inc + "<ebb/ops/b.h>\n"},
                                    {"ops/b.h", inc + "\"c.h\"\n"},
                                    {"ops/c.h", inc + "<ebb/ops/a.h>\n"},
                                    {"ops/d.h", inc + "<ebb/ops/a.h>\n"},
                                    {"apps/x/a.cpp", inc + "\"t.h\"\n"},
                                    {"tests/t.h", ""}});
  CHECK(any_circle(small) == "ops/a.h -> ops/b.h -> ops/c.h -> ops/a.h");
  CHECK(small.at("apps/x/a.cpp") == std::vector<std::string>{"tests/t.h"});
}

TEST_CASE("layering: nothing else at the top") {
  for (const auto& entry : fs::directory_iterator(EBB_SOURCE_DIR)) {
    const std::string name = entry.path().filename();
    CAPTURE(name);
    CHECK(belongs_at_top(name));
  }
  for (const char* stray : {"src", "notes.txt", "include", "model.safetensors"}) CHECK_FALSE(belongs_at_top(stray));
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
       "graph/a.cpp: includes <ebb/ops/ops.h> of ops, which graph does not see"},
      {"ops/a.h", "#pragma once\n  # include <ebb/autograd/backward.h>\n",
       "ops/a.h: includes <ebb/autograd/backward.h> of autograd, which ops does not see"},
      {"autograd/a.cpp", inc + "\"ebb/models/train/fit.h\"\n",
       "autograd/a.cpp: includes <ebb/models/train/fit.h> of models/train, which autograd does not see"},
      {"ops/a.cpp", inc + "<ebb/ebb.h>\n", "ops/a.cpp: includes <ebb/ebb.h> of models, which ops does not see"},
      {"models/a.cpp", inc + "<ebb/apps/x.h>\n",
       "models/a.cpp: includes <ebb/apps/x.h> of apps, which models does not see"},
      {"models/a.cpp", inc + "<ebb/ebb.h>\n" + inc + "<ebb/ops/ops.h>\n", nullptr},
      {"apps/mnist/a.cpp", inc + "<ebb/ebb.h>\n" + inc + "<boost/program_options.hpp>\n", nullptr},
      {"tests/a.cpp",
       inc + "<ebb/models/train/fit.h>\n" + inc + "<doctest/doctest.h>\n" + inc + "<boost/graph/graph_traits.hpp>\n",
       nullptr},
      {"models/data/a.cpp", inc + "<ebb/models/files/numpy.h>\n" + inc + "<ebb/models/layers/module.h>\n", nullptr},
      {"models/files/a.h", inc + "<ebb/models/layers/module.h>\n",
       "models/files/a.h: includes <ebb/models/layers/module.h> of models/layers, which models/files does not see"},
      {"models/layers/a.h", inc + "<ebb/models/train.h>\n",
       "models/layers/a.h: includes <ebb/models/train.h> of models, which models/layers does not see"},
      {"ops/kernels/a.h", inc + "<ebb/ops/ops.h>\n",
       "ops/kernels/a.h: includes <ebb/ops/ops.h> of ops, which ops/kernels does not see"},
      {"models/a.cpp", inc + "<ebb/nowhere/x.h>\n", "models/a.cpp: includes <ebb/nowhere/x.h>, which is in no room"},
      {"models/a.cpp", inc + "\"../apps/x.h\"\n", "models/a.cpp: includes \"../apps/x.h\" by a path that climbs"},
      {"graph/graph.cpp", inc + "<boost/graph/depth_first_search.hpp>\n", nullptr},
      {"graph/boost_graph.h", inc + "<boost/graph/graph_traits.hpp>\n", nullptr},
      {"graph/graph.h", inc + "<boost/graph/graph_traits.hpp>\n",
       "graph/graph.h: includes <boost/graph/graph_traits.hpp> outside of graph/*.cpp and "
       "graph/boost_graph.h"},
      {"ops/a.cpp", inc + "<boost/graph/graph_traits.hpp>\n",
       "ops/a.cpp: includes <boost/graph/graph_traits.hpp> outside of graph/*.cpp and graph/boost_graph.h"},
      {"ops/kernels/blas.cpp", inc + "<cblas.h>\n", nullptr},
      {"ops/conv.cpp", inc + "<cblas.h>\n", "ops/conv.cpp: includes <cblas.h> outside of ops/kernels/blas.cpp"},
      {"models/a.cpp", inc + "<boost/program_options.hpp>\n",
       "models/a.cpp: includes <boost/program_options.hpp> outside of apps/"},
      {"ops/a.cpp", inc + "<doctest/doctest.h>\n", "ops/a.cpp: includes <doctest/doctest.h> outside of tests/"},
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
