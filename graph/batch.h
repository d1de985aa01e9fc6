// Batched tensors: one that stands for n tensors of its shape, whose values lie one behind the other in its storage.
// Where ops meet one, they run on all n at once: as a rule of the op says (Vmap in apply.h), else n times. What is
// recorded are the ops on one of the n, so that shapes, backward rules and the engine need to know nothing of it: a
// rule's ops run batched too. The result, unless each of its inputs is an ordinary tensor, is batched. vmap() and
// jacobian() are made of this.
#pragma once
#include <cstdint>
#include <span>
#include <utility>

#include <ebb/graph/apply.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/tensor.h>

namespace ebb::detail {

inline bool batched(const Tensor& t) { return t.storage()->batch() != 0; }

/// While one lives, tensors of this thread may be batched and stand for n; with 0, ops run as anywhere else. Within one
/// of the same n it goes on with that one's tensors.
class Batching {
 public:
  explicit Batching(std::int64_t n);
  ~Batching() {
    mode.batch = before_;
    mode.batch_number = number_;
  }
  Batching(const Batching&) = delete;
  Batching& operator=(const Batching&) = delete;

 private:
  std::int64_t before_;
  std::uint64_t number_;
};

/// While one lives, ops run as anywhere else, and a batched tensor may be read, as whole() shows it.
class AsOne {
 public:
  AsOne() : n_(mode.batch), before_(std::exchange(mode.as_one, true)) { mode.batch = 0; }
  ~AsOne() {
    mode.as_one = before_;
    mode.batch = n_;
  }
  AsOne(const AsOne&) = delete;
  AsOne& operator=(const AsOne&) = delete;
  std::int64_t size() const { return n_; }  ///< how many tensors a batched one stands for

 private:
  std::int64_t n_;
  bool before_;
};

/// A batched tensor as one of shape (n, ...), a constant of the same storage; an ordinary one as it is.
Tensor whole(const Tensor& t);
/// The same with 1s behind n, so that it broadcasts with others of so many axes.
Tensor whole(const Tensor& t, int rank);
/// An ordinary one too, repeated.
Tensor repeated(const Tensor& t, std::int64_t n);
/// (n, ...) as a batched tensor that stands for n; copied where others see its storage.
Tensor apart(Tensor t, std::int64_t n);
/// The way back, for results, while the batch is still open: (n, ...), repeated if need be.
Tensor joined(Tensor t, std::int64_t n);

/// All elements that a tensor holds, of each that it stands for.
template <class T>
std::span<const T> every_value(const Tensor& t) {
  if (!batched(t)) return t.values<T>();
  return {reinterpret_cast<const T*>(t.storage()->data()), static_cast<std::size_t>(t.numel() * t.storage()->batch())};
}

/// op on (n, ...), as most rules do: an op whose options count axes from the front is given one that counts one more.
template <class Op, class... T>
Tensor run_whole(Op&& op, const T&... inputs) {
  const AsOne as_one;
  return apart(op.forward(inputs...), as_one.size());
}

/// (b, ...) for n together: (n b, ...); and back.
Tensor merged(const Tensor& t);
Tensor unmerged(const Tensor& t, std::int64_t n);

/// op on what merged() made.
template <class Op, class... T>
Tensor run_on_merged(Op&& op, const T&... inputs) {
  const AsOne as_one;
  return apart(unmerged(op.forward(inputs...), as_one.size()), as_one.size());
}
/// op on n batches of images or rows as one; the others are ordinary tensors.
template <class Op, class... T>
Tensor run_merged(Op&& op, const Tensor& images, const T&... others) {
  return run_on_merged(op, merged(images), others...);
}

bool meets_batched(const OpKind& kind, const void* op, std::span<const Tensor* const> inputs);
Tensor run_batched(const OpKind& kind, void* op, std::span<const Tensor* const> inputs);

}  // namespace ebb::detail
