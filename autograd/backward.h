// Reverse-mode differentiation. Gradients are values: nothing is stored in the tensors.
#pragma once
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/tensor.h>

namespace ebb {

/// The gradients of one backward pass, by variable: g[w].
class Gradients {
 public:
  /// The gradient of a variable, of its shape and dtype. Throws GradientError, naming it, when the loss does not
  /// depend on it: a missing gradient is never taken for zero.
  const Tensor& operator[](const Tensor& variable) const;
  bool contains(const Tensor& variable) const;          ///< whether there is one for the variable
  std::size_t size() const { return entries_.size(); }  ///< number of variables

  /// A variable and its gradient.
  struct Entry {
    Ref<Node> variable;  ///< its leaf in the graph
    Tensor gradient;     ///< of its shape and dtype
  };
  /// All of them, in order of the variables' creation.
  std::span<const Entry> entries() const& { return entries_; }
  /// For changing gradients before a step, such as clipping.
  std::span<Entry> entries() & { return entries_; }
  void entries() && = delete;  // `for (auto& e : backward(loss).entries())` would outlive what it walks
  void add(Ref<Node> variable, Tensor gradient);  ///< engine use: variables come in order of creation

 private:
  std::vector<Entry> entries_;
  NodeIndex index_;
};

/// What backward() does beside the gradients.
struct BackwardOptions {
  bool retain_graph = false;  ///< keep what backward reads, for another pass through the same graph
  bool create_graph = false;  ///< record the gradients too, so that they can be differentiated; retains the graph
};

/// Gradients of a scalar with respect to every variable that it depends on. Frees the graph's kept values as it goes.
/// Throws GradientError when the loss has more than one element, depends on no variable, or its graph was freed.
Gradients backward(const Tensor& loss, BackwardOptions options = {});

/// As BackwardOptions, and what grad() alone has.
struct GradOptions {
  bool retain_graph = false;  ///< keep what backward reads, for another pass
  bool create_graph = false;  ///< record the gradients too; retains the graph
  bool allow_unused = false;  ///< an undefined tensor instead of an error for an x that y does not depend on
  bool partial = false;       ///< the xs are independent: the gradient of one leaves out what passes through another
  Tensor cotangent = {};      ///< weights of y's elements, of y's shape; needed unless y has one element
};

/// Gradients of y with respect to xs, which may be variables or any tracked intermediate values.
std::vector<Tensor> grad(const Tensor& y, std::span<const Tensor> xs, GradOptions options = {});
/// The same for a list in braces.
std::vector<Tensor> grad(const Tensor& y, std::initializer_list<Tensor> xs, GradOptions options = {});
/// The same for one x.
Tensor grad(const Tensor& y, const Tensor& x, GradOptions options = {});

namespace detail {
/// The transpose of a map that was recorded: gradients of the sum of <ts, gs> in u, through nothing that is older than
/// u. Undefined when no g depends on it.
Tensor transposed(std::span<const Tensor> gs, std::vector<Tensor> ts, const Tensor& u, bool create_graph);
/// A rule's gradient in the shape of input j: broadcasting undone, everything else that does not fit refused.
Tensor fitted(const Node& node, std::size_t j, Tensor g);
/// Throws GradientError when backward has freed what the node kept.
void expect_kept(const Node& node);

/// While one lives, errors and new nodes carry the layer path of a node.
class AtScopeOf {
 public:
  explicit AtScopeOf(const Node& node) : before_(std::exchange(mode.scope, node.scope())) {}
  ~AtScopeOf() { mode.scope = before_; }
  AtScopeOf(const AtScopeOf&) = delete;
  AtScopeOf& operator=(const AtScopeOf&) = delete;

 private:
  const ScopePath* before_;
};
}  // namespace detail
}  // namespace ebb
