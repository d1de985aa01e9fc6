#include <ebb/graph/dot.h>

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <ostream>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>

namespace ebb {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

/// What is drawn as one: an op, a composition, or several of them that are alike.
struct Drawn {
  const Node* shown;  // stands for all: the first of those that are alike, the last op of a composition
  std::string_view op;
  std::size_t alike;
  bool backward;
  std::vector<const Node*> nodes = {};
};
/// Data flow along an edge, from input to consumer. Between gradients they flow up: such an edge leads the other way,
/// with its arrow at the tail, so that a layer's gradients stand beside its values. Values that a gradient reads are
/// dashed.
enum class Flow { down, up, read };
struct Picture {
  std::vector<Drawn> boxes;
  std::map<std::pair<std::size_t, std::size_t>, Flow>
      arrows;  // from the upper box to the lower; several between the same two are one
};

Picture picture_of(const Graph& graph, const DotOptions& options) {
  const auto is_backward = [&](const Node& n) {
    return options.loss && n.id() > options.loss->id() && !n.is_variable();
  };
  const std::span<const Node* const> nodes = graph.nodes();
  // The last op of a composition stands for it.
  std::vector<std::size_t> stands(nodes.size());
  std::map<std::uint32_t, std::size_t> last;
  for (std::size_t i = nodes.size(); i-- > 0;) {
    const std::uint32_t number = options.open ? 0 : nodes[i]->composition_number();
    stands[i] = number ? last.try_emplace(number, i).first->second : i;
  }
  const auto name = [&](const Node& n) { return options.open || n.composition().empty() ? n.op() : n.composition(); };
  // Alike: same op and shape in the same layer and pass, and for variables the same name.
  const auto likeness = [&](const Node& n) {
    return std::tuple(name(n), n.name(), n.scope(), n.shape().str(), is_backward(n));
  };
  std::map<decltype(likeness(*nodes[0])), std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (stands[i] == i) groups[likeness(*nodes[i])].push_back(i);
  Picture picture;
  std::vector<std::size_t> box(nodes.size()), box_of(nodes.size(), nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const auto& group = groups[likeness(*nodes[stands[i]])];
    const bool merged = options.collapse > 0 && std::ssize(group) >= options.collapse;
    const std::size_t k = merged ? group[0] : stands[i];
    if (box_of[k] == nodes.size()) {
      box_of[k] = picture.boxes.size();
      picture.boxes.push_back({nodes[k], name(*nodes[k]), merged ? group.size() : 1, is_backward(*nodes[k])});
    }
    box[i] = box_of[k];
    picture.boxes[box[i]].nodes.push_back(nodes[i]);
  }
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (const Input& in : nodes[i]->inputs()) {
      if (!in.node) continue;
      const std::size_t source = graph.index_of(in.node.get()), from = box[source], to = box[i];
      if (stands[source] == stands[i]) continue;  // inside a composition
      if (picture.boxes[from].backward) picture.arrows.try_emplace({to, from}, Flow::up);
      else picture.arrows.try_emplace({from, to}, picture.boxes[to].backward ? Flow::read : Flow::down);
    }
  return picture;
}

/// A frame around the boxes of each layer, nested as the layers are.
class Clusters {
 public:
  explicit Clusters(const Picture& picture) {
    for (std::size_t b = 0; b < picture.boxes.size(); ++b)
      if (const ScopePath* scope = picture.boxes[b].shown->scope(); scope && !scope->path.empty())
        add(scope).boxes.push_back(b);
  }
  void write(std::ostream& out) const { write(out, roots_); }

  /// Arrows that nobody sees, from the end of each layer to the parameters of the layer below it: dot then puts one
  /// frame under the other, where it would make stairs of them.
  void stack(const Picture& picture, std::ostream& out) const {
    for (const auto& [ends, flow] : picture.arrows) {
      const Node &above = *picture.boxes[ends.first].shown, &below = *picture.boxes[ends.second].shown;
      const auto frame = frames_.find(below.scope());
      if (flow == Flow::read || above.scope() == below.scope() || frame == frames_.end()) continue;
      for (const std::size_t b : frame->second.boxes)
        if (picture.boxes[b].shown->is_variable()) out << fmt::format("{}->{} [style=invis];\n", ends.first, b);
    }
  }

 private:
  struct Frame {
    std::vector<std::size_t> boxes;
    std::vector<const ScopePath*> inner;
  };
  Frame& add(const ScopePath* scope) {
    const auto [it, made] = frames_.try_emplace(scope);
    if (made) {
      if (scope->parent && !scope->parent->path.empty()) add(scope->parent).inner.push_back(scope);
      else roots_.push_back(scope);
    }
    return it->second;
  }
  void write(std::ostream& out, const std::vector<const ScopePath*>& scopes) const {
    for (const ScopePath* scope : scopes) {
      const Frame& frame = frames_.at(scope);
      out << fmt::format("subgraph \"cluster_{0}\" {{ label=\"{1}\"; labeljust=l; style=rounded; color=gray60;\n",
                         escaped(scope->path), escaped(scope->name));
      for (const std::size_t b : frame.boxes) out << b << ";\n";
      write(out, frame.inner);
      out << "}\n";
    }
  }
  std::map<const ScopePath*, Frame> frames_;
  std::vector<const ScopePath*> roots_;
};

std::string label_of(const Drawn& d) {
  const Node& n = *d.shown;
  std::string text(n.is_variable() && !n.name().empty() ? n.name() : d.op);
  if (d.alike > 1) text += fmt::format("  x{}", d.alike);
  text = escaped(text) + "\\n";
  std::string constants;
  for (const Node* part : d.nodes) {
    if (part != &n && (d.op == n.op() || part->composition_number() != n.composition_number())) continue;
    for (const Input& in : part->inputs())
      if (!in.node && in.shape.rank() > 0) constants += (constants.empty() ? "" : ", ") + in.shape.str();
  }
  if (!constants.empty()) text += constants + " to ";
  return text + n.shape().str();
}

/// White for nothing, red for all of the time.
std::string heat(double share) {
  return fmt::format("#ff{0:02x}{0:02x}", static_cast<int>(255 - 160 * std::min(1.0, 2.5 * share)));
}

}  // namespace

void write_dot(std::ostream& out, const Graph& graph, const DotOptions& options) {
  const Picture picture = picture_of(graph, options);
  out << "digraph G {\nlabel=\"" << escaped(options.name) << "\"; labelloc=t; rankdir=TB; fontname=Helvetica;\n"
      << "node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=Helvetica, fontsize=11];\n";
  // dot improves a layout until it finds nothing better, which takes minutes where there are many boxes: fewer rounds
  // for these.
  if (const std::size_t n = picture.boxes.size(); n > 300)
    out << fmt::format("nslimit={0:.3f}; nslimit1={0:.3f}; mclimit=0.1;{1}\n", 300.0 / static_cast<double>(n),
                       n > 1000 ? " splines=line;" : "");
  if (options.clusters) {
    const Clusters clusters(picture);
    clusters.write(out);
    clusters.stack(picture, out);
  }
  for (std::size_t b = 0; b < picture.boxes.size(); ++b) {
    const Drawn& d = picture.boxes[b];
    std::string label = label_of(d), style;
    if (d.shown->is_variable()) style = ", style=filled, fillcolor=lightyellow";
    if (d.backward) style = ", color=steelblue, fontcolor=\"#1f4e79\", penwidth=1.5";
    for (const Node* n : d.nodes)
      if (const auto note = options.notes.find(n); note != options.notes.end()) label += "\\n" + escaped(note->second);
    if (options.profile && !d.shown->is_variable()) {
      Profiler::Entry all;
      for (const Node* n : d.nodes) {
        const Profiler::Entry e = options.profile->of(*n);
        all.seconds += e.seconds;
        all.flops += e.flops;
        all.bytes += e.bytes;
      }
      const double seconds = std::max(all.seconds, 1e-12),
                   share = all.seconds / std::max(options.profile->seconds(), 1e-12);
      label += fmt::format("\\n{:.0f} us, {:.1f} %", all.seconds * 1e6, 100 * share);
      if (all.flops > 0)
        label += fmt::format("\\n{:.1f} GFLOP/s, {:.1f} GB/s", all.flops / seconds * 1e-9, all.bytes / seconds * 1e-9);
      style += fmt::format(", fillcolor=\"{}\"", heat(share));
    }
    out << fmt::format("{} [label=\"{}\"{}];\n", b, label, style);
  }
  for (const auto& [ends, flow] : picture.arrows)
    out << fmt::format("{}->{}{};\n", ends.first, ends.second,
                       flow == Flow::up     ? " [dir=back, color=steelblue]"
                       : flow == Flow::read ? " [style=dashed, color=gray60]"
                                            : "");
  out << "}\n";
}

void write_dot(const std::filesystem::path& path, const Graph& graph, const DotOptions& options) {
  std::ofstream out(path);
  if (out) write_dot(out, graph, options);
  out.close();
  if (!out) throw IoError(fmt::format("{}: cannot write: {}", path.string(), std::strerror(errno)));
}

}  // namespace ebb
