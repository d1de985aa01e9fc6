// The table of Boost.Graph's algorithms: each row tries one of them on graphs that ebb recorded.
#pragma once
#include <doctest/doctest.h>

#include <span>
#include <string_view>

namespace ebb::testing {

/// What an algorithm needs.
enum class Needs {
  graph,     ///< works on a Graph
  in_edges,  ///< works on a BidirectionalGraph
  copy,      ///< works on a graph of Boost's own that copy_graph filled
  nothing    ///< has nothing to say about a recorded graph: it makes, changes or asks for another kind of graph
};

struct BoostRow {
  std::string_view algorithm;  ///< the function's name; several that belong together with commas
  std::string_view header;     ///< without boost/graph/
  Needs needs;
  void (*tried)();  ///< checks its answers
};

// The rows, by file.
std::span<const BoostRow> boost_searches();
std::span<const BoostRow> boost_structures();
std::span<const BoostRow> boost_paths();
std::span<const BoostRow> boost_flows();
std::span<const BoostRow> boost_measures();
std::span<const BoostRow> boost_orders();
std::span<const BoostRow> boost_drawings();
std::span<const BoostRow> boost_files();

/// Tries each.
inline void try_all(std::span<const BoostRow> rows) {
  for (const BoostRow& row : rows) {
    CAPTURE(row.algorithm);
    row.tried();
  }
}

}  // namespace ebb::testing
