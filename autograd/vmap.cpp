#include <ebb/autograd/vmap.h>

#include <fmt/core.h>

#include <utility>

#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

void expect_defined(std::span<const Tensor> results) {
  for (const Tensor& y : results)
    if (!y.defined()) fail<ValueError>("vmap", "f gave an undefined tensor");
}

std::vector<Tensor> one_by_one(const ManyFunction& f, std::span<const Tensor> inputs, std::int64_t n) {
  std::vector<std::vector<Tensor>> results;
  std::vector<Tensor> sample(inputs.size());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < inputs.size(); ++k)
      sample[k] =
          reshape(inputs[k].tracked() || detail::batched(inputs[k]) ? slice(inputs[k], {.begin = i, .end = i + 1})
                                                                    : inputs[k].rows(i, i + 1),
                  inputs[k].shape().without(0));
    const std::vector<Tensor> out = f(sample);
    expect_defined(out);
    if (i == 0) results.resize(out.size());
    if (out.size() != results.size())
      fail<ValueError>(
          "vmap", fmt::format("f gave {} results for sample 0 and {} for sample {}", results.size(), out.size(), i));
    for (std::size_t k = 0; k < out.size(); ++k) results[k].push_back(out[k]);
  }
  std::vector<Tensor> stacked;
  for (const auto& r : results) stacked.push_back(stack(r));
  return stacked;
}

std::vector<Tensor> at_once(const ManyFunction& f, std::span<const Tensor> inputs, std::int64_t n) {
  const detail::Batching batching(n);
  std::vector<Tensor> out;
  {
    std::vector<Tensor> samples;
    for (const Tensor& x : inputs) samples.push_back(detail::apart(x.detach(), n));
    out = f(samples);
    expect_defined(out);
    for (Tensor& y : out) y = y.detach();
  }
  for (Tensor& y : out) y = detail::joined(std::move(y), n);
  return out;
}

}  // namespace

std::vector<Tensor> vmap(const ManyFunction& f, std::span<const Tensor> inputs, VmapOptions options) {
  detail::expect_given(f, "vmap");
  if (inputs.empty()) fail<ValueError>("vmap", "needs an input");
  bool graph = recording() && (options.create_graph || detail::differentiating());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& x = inputs[i];
    if (!x.defined()) fail<ValueError>("vmap", fmt::format("input {} is undefined", i));
    if (x.rank() == 0 || x.size(0) == 0)
      fail<ShapeError>("vmap", fmt::format("input {}, {}, has no samples: its first axis must be one of at least 1", i,
                                           describe(x)));
    if (x.size(0) != inputs[0].size(0))
      fail<ShapeError>(
          "vmap", fmt::format("inputs need a first axis of one size: got {} and {}", describe(inputs[0]), describe(x)));
    graph |= recording() && x.tracked();
  }
  const std::int64_t n = inputs[0].size(0);
  const bool nested = detail::batching();  // one batch at a time
  if (graph || (nested && options.may_loop)) return one_by_one(f, inputs, n);
  if (nested) fail<ValueError>("vmap", "within another vmap(), samples run one by one");
  if (!options.may_loop) return at_once(f, inputs, n);
  try {
    return at_once(f, inputs, n);
  } catch (const Error&) {
    std::vector<Tensor> out = one_by_one(f, inputs, n);
    for (Tensor& y : out) y = y.detach();
    return out;
  }
}

Tensor vmap(const MultiFunction& f, std::span<const Tensor> inputs, VmapOptions options) {
  detail::expect_given(f, "vmap");
  return vmap(ManyFunction([&f](std::span<const Tensor> x) { return std::vector<Tensor>{f(x)}; }), inputs, options)[0];
}

Tensor vmap(const UnaryFunction& f, const Tensor& x, VmapOptions options) {
  detail::expect_given(f, "vmap");
  return vmap(ManyFunction([&f](std::span<const Tensor> in) { return std::vector<Tensor>{f(in[0])}; }), {&x, 1},
              options)[0];
}

}  // namespace ebb
