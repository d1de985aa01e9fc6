// Drawings of a graph in Graphviz' DOT language.
#pragma once
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <string>

#include <ebb/graph/graph.h>

namespace ebb {

class Profiler;

/// How a drawing looks.
struct DotOptions {
  std::string name = "ebb";  ///< of the drawing
  bool clusters = true;  ///< one box around the nodes of each layer
  /// Draw nodes of the same op, shape and layer as one, marked with their number, where there are at least this many:
  /// the steps of a recurrent network become one cell. 0 draws all.
  int collapse = 3;
  /// Adds time, share and GFLOP/s to each node, and colours the slow ones. Must outlive the call.
  const Profiler* profile = nullptr;
};

/// Writes the graph so that `dot -Tsvg` draws it: nodes carry op, name and shape; data flow downward; what comes in as
/// a constant is named in the node that takes it.
void write_dot(std::ostream& out, const Graph& graph, const DotOptions& options = {});
/// The same into a file; throws IoError with the path and the system's reason.
void write_dot(const std::filesystem::path& path, const Graph& graph, const DotOptions& options = {});

}  // namespace ebb
