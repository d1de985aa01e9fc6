// Drawings of a graph in Graphviz' DOT language.
#pragma once
#include <filesystem>
#include <iosfwd>
#include <map>
#include <string>

#include <ebb/graph/graph.h>

namespace ebb {

class Profiler;

/// How a drawing looks.
struct DotOptions {
  std::string name = "ebb";  ///< of the drawing
  bool clusters = true;      ///< one box around the nodes of each layer
  /// Draw nodes of the same op, shape and layer as one, marked with their number, where there are at least this many:
  /// the steps of a recurrent network become one cell. 0 draws all.
  int collapse = 3;
  bool open = false;  ///< draw each op of a composition such as mean(), which is else one node (composition.h)
  /// Adds time, share, GFLOP/s and GB/s to each node, and colors the slow ones. Must outlive the call.
  const Profiler* profile = nullptr;
  /// The value whose gradients the graph holds: what was computed after it is drawn in blue, with data flowing up
  /// beside the values of the same layer; what it reads of them is dashed. Null: everything flows down.
  const Node* loss = nullptr;
  std::map<const Node*, std::string> notes = {};  ///< one more line in the labels of these nodes
};

/// Writes the graph so that `dot -Tsvg` draws it: nodes carry op, name and shape; data flow downward; what comes in as
/// a constant is named in the node that takes it.
void write_dot(std::ostream& out, const Graph& graph, const DotOptions& options = {});
/// The same into a file; throws IoError with the path and the system's reason.
void write_dot(const std::filesystem::path& path, const Graph& graph, const DotOptions& options = {});

}  // namespace ebb
