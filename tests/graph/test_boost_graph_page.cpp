// apps/docs/BOOST_GRAPH.md tells of each of Boost.Graph's algorithms what the tests tried.
#include <doctest/doctest.h>

#include <boost/version.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "graph/boost_rows.h"

using namespace ebb::testing;

namespace {

std::vector<BoostRow> all_rows() {
  std::vector<BoostRow> all;
  for (const auto rows : {boost_searches(), boost_structures(), boost_paths(), boost_flows(), boost_measures(),
                          boost_orders(), boost_drawings(), boost_files()})
    all.insert(all.end(), rows.begin(), rows.end());
  return all;
}

std::string_view words(Needs needs) {
  switch (needs) {
    case Needs::graph: return "works";
    case Needs::in_edges: return "works, with in-edges";
    case Needs::copy: return "needs a copy";
    default: return "makes no sense";
  }
}

std::string page() {
  std::ifstream in(EBB_SOURCE_DIR "/apps/docs/BOOST_GRAPH.md");
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("boost graph: the page tells of each algorithm what was tried, and names every header of Boost.Graph") {
  std::set<std::string> tried, told;
  for (const BoostRow& row : all_rows())
    tried.insert(std::string(row.algorithm) + " | " + std::string(row.header) + " | " + std::string(words(row.needs)));
  CHECK(tried.size() == all_rows().size());
  const std::string text = page();
  std::istringstream lines(text);
  bool table = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## ")) table = line == "## The algorithms";
    if (!table || !line.starts_with("| `")) continue;
    std::erase(line, '`');
    const std::size_t end = line.find(" | ", line.find(" | ", line.find(" | ") + 3) + 3);  // the fourth column says why
    told.insert(line.substr(2, end - 2));
  }
  CHECK(told == tried);
  const std::filesystem::path headers = "/usr/include/boost/graph";
  if (BOOST_VERSION != 107400 || !std::filesystem::exists(headers)) return;
  for (const auto& entry : std::filesystem::directory_iterator(headers)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file()) CHECK_MESSAGE(text.find("`" + name + "`") != std::string::npos, name);
  }
}
