#include <ebb/graph/apply.h>

#include <fmt/core.h>

#include <algorithm>

#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>

namespace ebb::detail {

Kept kept(const Tensor& t) {
  Storage& s = *t.storage();
  return {t.storage(), s.batch() != 0 ? s.data() : const_cast<std::byte*>(t.raw()), s.version()};
}

void fill_inputs(Input* slots, const Tensor* const* inputs, int count, Keeps keeps) {
  int tracked = 0;
  for (int i = 0; i < count; ++i) tracked += inputs[i]->tracked();
  for (int i = 0; i < count; ++i) {
    const Tensor& t = *inputs[i];
    const bool other_wanted = tracked > (t.tracked() ? 1 : 0);
    const bool keep =
        keeps == Keeps::inputs || keeps == Keeps::inputs_and_output || (keeps == Keeps::other_inputs && other_wanted);
    ::new (slots + i) Input{t.node(), keep ? kept(t) : Kept{}, t.shape(), t.dtype()};
  }
}

void move_to(std::span<Tensor> out, std::span<Tensor> gradients) {
  std::ranges::move(gradients.first(std::min(out.size(), gradients.size())), out.begin());
}

void refuse_none(std::string_view op) { fail<ValueError>(op, "needs at least one input, got none"); }

namespace {

Tensor compute(const OpKind& kind, void* op, std::span<const Tensor* const> inputs) {
  const NoGrad quiet;
  if (mode.batch != 0) [[unlikely]]
    if (meets_batched(kind, op, inputs)) return run_batched(kind, op, inputs);
  return kind.forward(op, inputs);
}

Tensor record(const OpKind& kind, void* op, std::span<const Tensor* const> inputs, Tensor output) {
  if (!is_float(output.dtype())) return output;  // integers carry no gradient, and no float op takes them back
  if (!kind.node) fail<GradientError>(kind.name, "has no gradient; pass stop_gradient(x), or call it under NoGrad");
  return std::move(output).with_node(kind.node(op, inputs.data(), static_cast<int>(inputs.size()), output));
}

[[gnu::noinline]] Tensor run_observed(const OpKind& kind, void* op, std::span<const Tensor* const> inputs,
                                      bool tracked) {
  Observation seen(kind.name, inputs);
  Tensor output = compute(kind, op, inputs);
  seen.computed();
  const double flops = kind.flops(op, seen.shapes(), output.shape());
  const Attributes attributes = kind.attributes(op);
  if (tracked) output = record(kind, op, inputs, std::move(output));
  seen.report(output, flops, attributes);
  return output;
}

}  // namespace

Tensor run(const OpKind& kind, void* op, std::span<const Tensor* const> inputs) {
  bool tracked = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]->defined()) fail<ValueError>(kind.name, fmt::format("input {} is undefined", i));
    tracked |= inputs[i]->tracked();
  }
  tracked &= recording();
  if (mode.observer) [[unlikely]]
    return run_observed(kind, op, inputs, tracked);
  Tensor output = compute(kind, op, inputs);
  if (tracked) return record(kind, op, inputs, std::move(output));
  return output;
}

Tensor run(const OpKind& kind, void* op, std::span<const Tensor> inputs) {
  SmallArray<const Tensor*, 16> in(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) in[i] = &inputs[i];
  return run(kind, op, in.all());
}

}  // namespace ebb::detail
