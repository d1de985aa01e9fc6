#include <ebb/graph/node.h>

#include <fmt/core.h>

#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>

namespace ebb {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

Tensor unpack(const Node& node, const Kept& kept, const Ref<Node>& origin, const Shape& shape, DType dtype,
              std::string_view what, int index) {
  const auto which = [&] { return index < 0 ? std::string(what) : fmt::format("{} {}", what, index); };
  if (!kept.storage)
    fail<GradientError>(node.op(), fmt::format("backward reads {}, which the op does not keep", which()));
  if (kept.storage->version() != kept.version)
    fail<GradientError>(node.op(),
                        fmt::format("{} {} was changed in place after the op ran; compute the gradient before "
                                    "changing it, or give the op a copy",
                                    which(), shape.str()));
  return Tensor(kept.storage, kept.data, shape, dtype, recording() ? origin : nullptr);
}

}  // namespace

Node::Node(const Shape& shape, DType dtype, Input* inputs, int count, std::size_t block_bytes, bool broadcasts,
           Tangent tangents)
    : count_(count),
      id_(next_id()),
      inputs_(inputs),
      scope_(detail::mode.scope),
      block_bytes_(static_cast<std::uint32_t>(block_bytes)),
      composition_(detail::mode.composition),
      shape_(shape),
      dtype_(dtype),
      broadcasts_(broadcasts),
      tangents_(tangents) {}

Node::~Node() {
  for (int i = 0; i < count_; ++i) inputs_[i].~Input();
}

// Destroying a node releases its inputs, which may be their last owners in turn: a list takes the place of recursion,
// so that a chain of any length goes without growing the stack.
void Node::destroy(Node* node) noexcept {
  thread_local Node* dead = nullptr;
  thread_local bool busy = false;
  node->next_dead_ = dead;
  dead = node;
  if (busy) return;
  busy = true;
  while (dead) {
    Node* n = dead;
    dead = n->next_dead_;
    const std::size_t bytes = n->block_bytes_;
    n->~Node();
    detail::free_block(n, bytes);
  }
  busy = false;
}

void Node::free_kept() {
  if (is_variable()) return;
  for (int i = 0; i < count_; ++i) inputs_[i].kept = {};
  kept_output_ = {};
  freed_ = true;
}

Tensor Saved::input(int i) const {
  const Input& in = node_.inputs()[static_cast<std::size_t>(i)];
  return unpack(node_, in.kept, in.node, in.shape, in.dtype, "input", i);
}

Tensor Saved::output() const {
  return unpack(node_, node_.kept_output(), Ref<Node>::share(const_cast<Node*>(&node_)), node_.shape(), node_.dtype(),
                "its output", -1);
}

const Shape& Saved::input_shape(int i) const { return node_.inputs()[static_cast<std::size_t>(i)].shape; }
DType Saved::input_dtype(int i) const { return node_.inputs()[static_cast<std::size_t>(i)].dtype; }
const Shape& Saved::output_shape() const { return node_.shape(); }
int Saved::inputs() const { return static_cast<int>(node_.inputs().size()); }

}  // namespace ebb
