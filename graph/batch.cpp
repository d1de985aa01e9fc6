#include <ebb/graph/batch.h>

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include <ebb/graph/error.h>

namespace ebb::detail {
namespace {

/// A tensor that outlived its vmap() means nothing in another, whose n may be the same by chance.
void expect_of_this_batch(std::string_view op, const Tensor& t) {
  if (t.storage()->batch_number() != mode.batch_number)
    fail<ValueError>(
        op, fmt::format("{} stands for {} tensors of another vmap() or jacobian(): only what f returns leaves one",
                        t.shape().str(), t.storage()->batch()));
}

Tensor part(const Tensor& t, std::int64_t i) {
  Tensor out = Tensor::empty(t.shape(), t.dtype());
  if (t.bytes())
    std::memcpy(out.mutable_raw(), t.storage()->data() + static_cast<std::size_t>(i) * t.bytes(), t.bytes());
  return out;
}

/// Once for each of n, on copies of their own: whatever batched tensor forward reads beside them refuses to be read.
Tensor run_each(const OpKind& kind, void* op, std::span<const Tensor* const> inputs, std::int64_t n) {
  if (!kind.pure) fail<ValueError>(kind.name, "forward changes the op, so it cannot run once for each of a batch");
  const Batching alone(0);
  std::vector<Tensor> in(inputs.size()), results;
  std::vector<const Tensor*> pointers(inputs.size());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < in.size(); ++k) {
      in[k] = batched(*inputs[k]) ? part(*inputs[k], i) : *inputs[k];
      pointers[k] = &in[k];
    }
    results.push_back(kind.forward(op, pointers));
  }
  const Tensor& first = results[0];
  Tensor out = Tensor::empty(first.shape().inserted(0, n), first.dtype());
  std::byte* to = out.mutable_raw();
  for (const Tensor& r : results) {
    if (r.shape() != first.shape() || r.dtype() != first.dtype())
      fail<ShapeError>(kind.name, fmt::format("results of a batch differ: {} and {}", describe(first), describe(r)));
    if (r.bytes()) std::memcpy(to, r.raw(), r.bytes());
    to += r.bytes();
  }
  return apart(std::move(out), n);
}

}  // namespace

Batching::Batching(std::int64_t n) : before_(std::exchange(mode.batch, n)), number_(mode.batch_number) {
  static std::atomic<std::uint64_t> last{0};
  if (n != 0 && n != before_) mode.batch_number = last.fetch_add(1, std::memory_order_relaxed) + 1;
}

Tensor whole(const Tensor& t) { return whole(t, t.rank()); }

Tensor whole(const Tensor& t, int rank) {
  if (!batched(t)) return t.detach();
  Shape shape = t.shape();
  while (shape.rank() < rank) shape = shape.inserted(0, 1);
  return Tensor(t.storage(), t.storage()->data(), shape.inserted(0, t.storage()->batch()), t.dtype());
}

Tensor repeated(const Tensor& t, std::int64_t n) {
  if (batched(t)) return whole(t);
  Tensor out = Tensor::empty(t.shape().inserted(0, n), t.dtype());
  std::byte* to = out.mutable_raw();
  for (std::int64_t i = 0; i < n && t.bytes(); ++i, to += t.bytes()) std::memcpy(to, t.raw(), t.bytes());
  return out;
}

Tensor apart(Tensor t, std::int64_t n) {
  if (t.rank() == 0 || t.shape()[0] != n)
    fail<ShapeError>("vmap", fmt::format("{} is not {} tensors", t.shape().str(), n));
  if (!batched(t)) {
    t = t.detach();
    if (!t.storage()->unique() || t.raw() != t.storage()->data()) t = t.clone();
    t.storage()->set_batch(n, mode.batch_number);
  }
  return Tensor(t.storage(), t.storage()->data(), t.shape().without(0), t.dtype());
}

Tensor joined(Tensor t, std::int64_t n) {
  const AsOne as_one;
  if (!batched(t)) return repeated(t, n);
  expect_of_this_batch("vmap", t);
  t = whole(t);
  if (!t.storage()->unique()) return t.clone();
  t.storage()->set_batch(0, 0);
  return t;
}

Tensor merged(const Tensor& t) {
  const Tensor all = whole(t);
  return batched(t) ? all.viewed_as(all.shape().without(0).with(0, all.shape()[0] * all.shape()[1])) : all;
}

Tensor unmerged(const Tensor& t, std::int64_t n) {
  return t.viewed_as(t.shape().with(0, t.shape()[0] / n).inserted(0, n));
}

bool meets_batched(const OpKind& kind, const void* op, std::span<const Tensor* const> inputs) {
  const auto meets = [&kind](const Tensor* t) {
    if (!t || !t->defined() || !batched(*t)) return false;
    expect_of_this_batch(kind.name, *t);
    return true;
  };
  bool any = meets(kind.held(op));
  for (const Tensor* t : inputs) any |= meets(t);
  return any;
}

Tensor run_batched(const OpKind& kind, void* op, std::span<const Tensor* const> inputs) {
  const std::int64_t n = mode.batch;
  if (kind.batched) return kind.batched(op, inputs);
  if (kind.vmap == Vmap::by_ops) return kind.forward(op, inputs);
  if (kind.vmap == Vmap::each) return run_each(kind, op, inputs, n);
  int rank = 0;
  for (const Tensor* t : inputs) rank = std::max(rank, t->rank());
  std::vector<Tensor> in;
  std::vector<const Tensor*> pointers;
  const AsOne as_one;
  for (const Tensor* t : inputs) in.push_back(kind.vmap == Vmap::rows ? repeated(*t, n) : whole(*t, rank));
  for (const Tensor& t : in) pointers.push_back(&t);
  return apart(kind.forward(op, pointers), n);
}

}  // namespace ebb::detail
