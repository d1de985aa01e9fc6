// Node: one application of an op in the recorded graph.
#pragma once
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <ebb/graph/dtype.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/ref.h>
#include <ebb/graph/shape.h>
#include <ebb/graph/storage.h>

namespace ebb {

class Tensor;
class Node;

/// A value kept for backward: the data without its place in the graph, and the version it had.
struct Kept {
  Ref<Storage> storage;       ///< keeps the data alive
  std::byte* data = nullptr;  ///< its first element
  std::uint32_t version = 0;  ///< of the storage when it was kept
};

/// One input of a node: its producer (null for a constant), its shape and dtype, and its data if backward reads it.
struct Input {
  Ref<Node> node;            ///< null for a constant
  Kept kept;                 ///< empty unless the op's backward reads this input
  Shape shape;               ///< of the input's value
  DType dtype = DType::f32;  ///< of the input's value
};

/// What an op's backward reads. `other_inputs` keeps an input only when the gradient of a different input is
/// wanted, as products need: a first layer keeps its data, for the gradient of the weight, but not the weight.
enum class Keeps : std::uint8_t { nothing, inputs, other_inputs, output, inputs_and_output };

/// How the tangent of an op's result, J t, follows from those of its inputs in forward mode (jvp()). `by_backward` is
/// right for every op whose backward consists of ops. The others are promises, which make it one pass; gradcheck()
/// verifies them.
enum class Tangent : std::uint8_t {
  by_backward,  ///< computes J t by transposing the backward rule, which must consist of ops
  symmetric,  ///< the Jacobian in each input, broadcast, is its own transpose, so that backward gives tangents too: ops
              ///< that work element by element, softmax
  linear,     ///< forward is linear in all inputs together: forward of their tangents
  multilinear,  ///< forward is linear in each input, like a product; the op must keep the others (Keeps::other_inputs
                ///< suffices)
  own,          ///< the op has a rule for it, a member `tangent`
};

/// The kept values that a backward rule reads. They are part of the graph if the backward pass is recorded.
class Saved {
 public:
  static constexpr std::size_t unwanted =
      static_cast<std::size_t>(-1);  ///< the place of a gradient that nobody asks for
  /// Internal. places[i] is the position of input i's gradient; `places` must outlive this object.
  Saved(const Node& node, std::span<const std::size_t> places) : node_(node), places_(places) {}

  /// Value of input i. Throws GradientError when it was not kept, or was changed in place since.
  Tensor input(int i) const;
  /// The node's own value; throws likewise.
  Tensor output() const;
  const Shape& input_shape(int i) const;  ///< known whether or not the value was kept
  DType input_dtype(int i) const;         ///< likewise
  const Shape& output_shape() const;      ///< likewise
  int inputs() const;                     ///< number of inputs
  /// True when the gradient of input i is asked for.
  bool wants(int i) const { return places_[static_cast<std::size_t>(i)] != unwanted; }

 private:
  const Node& node_;
  std::span<const std::size_t> places_;
};

/// One op application with one output. Owns its inputs, never its consumers. Ids grow with creation, so an
/// input's id is always below its consumer's.
class Node {
 public:
  std::uint64_t id() const { return id_; }  ///< grows with creation
  /// The op's name; "variable" for a leaf.
  virtual std::string_view op() const = 0;
  /// A variable's name, empty for other nodes.
  virtual std::string_view name() const { return {}; }
  bool is_variable() const { return count_ == 0; }  ///< true for a leaf, which has no inputs
  const Shape& shape() const { return shape_; }     ///< of the node's value
  DType dtype() const { return dtype_; }            ///< of the node's value
  /// In the order of the op's arguments.
  std::span<const Input> inputs() const { return {inputs_, static_cast<std::size_t>(count_)}; }
  /// Path of the layer that ran the op; null if no layer was running.
  const ScopePath* scope() const { return in_composition() ? scope_->parent : scope_; }
  /// Name of the composition that the op is a part of, such as "mean"; empty for none (composition.h).
  std::string_view composition() const {
    return in_composition() ? std::string_view(scope_->name) : std::string_view();
  }
  /// Each call of a composition has a number of its own; 0 outside of any.
  std::uint32_t composition_number() const { return in_composition() ? composition_ : 0; }
  /// The kept output, if any.
  const Kept& kept_output() const { return kept_output_; }
  bool freed() const { return freed_; }  ///< true after free_kept()
  /// Bytes that the node itself takes from the allocator.
  std::size_t footprint() const { return detail::block_bytes(block_bytes_); }
  /// Bytes of tensors that the op holds for backward beside inputs and output, such as a pooling's choice.
  virtual std::size_t state_bytes() const { return 0; }
  /// Number of tensors of the output's size that backward makes besides its results; -1 if it returns the gradient it
  /// got.
  virtual int temporaries() const { return 0; }
  /// True when the op's inputs broadcast, so that its gradients may come in the output's shape.
  bool broadcasts() const { return broadcasts_; }
  Tangent tangents() const { return tangents_; }  ///< how the op goes forward

  /// Floating-point operations of the forward pass: the op's own count, or one an element of its result.
  virtual double flops() const { return 0; }
  /// True if both apply the same op with the same options; false for an op whose options cannot be compared.
  virtual bool same_op(const Node&) const { return false; }
  /// Gradients of the wanted inputs given that of the output; the rest of `out` stays undefined.
  virtual void backward(const Saved& saved, const Tensor& gradient, std::span<Tensor> out) const = 0;
  /// The tangent of the output. A linear or multilinear op applies its forward to `in`, tensors like its inputs, and
  /// records that if they are tracked. An op with a rule of its own gets the tangents of its inputs; one is undefined
  /// if that input does not move.
  virtual void tangent(const Saved& /*saved*/, std::span<const Tensor> /*in*/, Tensor& /*out*/) const {}
  /// True if the op has one input and can add its gradient to an existing tensor; useful if the gradient is mostly
  /// zeros.
  virtual bool adds_gradient() const { return false; }
  /// sum += the gradient of the input, in place. `sum` has the input's shape and no other owner.
  virtual void add_gradient(const Tensor& /*gradient*/, Tensor& /*sum*/) const {}
  /// Drops what was kept for backward; a later backward through this node is refused.
  void free_kept();

  void retain() const { refs_.fetch_add(1, std::memory_order_relaxed); }  ///< for Ref
  /// For Ref. The last release destroys the node and, without recursion, all nodes that only it held.
  void release() const {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy(const_cast<Node*>(this));
  }

 protected:
  /// The inputs are stored after the node in the same block, so that each node needs one allocation.
  Node(const Shape& shape, DType dtype, Input* inputs, int count, std::size_t block_bytes, bool broadcasts = false,
       Tangent tangents = Tangent::by_backward);
  virtual ~Node();
  void keep_output(const Kept& kept) { kept_output_ = kept; }  ///< for ops whose backward reads their result

 private:
  bool in_composition() const { return scope_ && scope_->is_composition; }
  static void destroy(Node* node) noexcept;

  mutable std::atomic<std::int32_t> refs_{1};
  std::int32_t count_;
  std::uint64_t id_;
  Input* inputs_;
  const ScopePath* scope_;
  Kept kept_output_;
  std::uint32_t block_bytes_;
  std::uint32_t composition_;
  Node* next_dead_ = nullptr;
  Shape shape_;
  DType dtype_;
  bool freed_ = false;
  bool broadcasts_;
  Tangent tangents_;
};

}  // namespace ebb
