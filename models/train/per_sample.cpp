#include <ebb/models/train/per_sample.h>

#include <fmt/core.h>

#include <array>
#include <vector>

#include <ebb/autograd/tools.h>
#include <ebb/autograd/vmap.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/kernels/elementwise.h>

namespace ebb {

Gradients per_sample_gradients(Module& module, const Tensor& x, const Tensor& labels, const Loss& loss) {
  const HoldState held;
  if (x.rank() == 0 || x.size(0) == 0) fail<ShapeError>("per_sample_gradients", "no samples in " + describe(x));
  detail::expect_labels("per_sample_gradients", labels);
  if (labels.rank() == 0 || labels.size(0) != x.size(0))
    fail<ShapeError>("per_sample_gradients",
                     fmt::format("{} samples and {} labels: {} and {}", x.size(0),
                                 labels.rank() == 0 ? 0 : labels.size(0), describe(x), describe(labels)));
  {
    const NoGrad quiet;
    const Training off(false);   // dropout would draw numbers
    (void)module(x.rows(0, 1));  // makes the parameters: within vmap() they would be made of a batched tensor
  }
  std::vector<Ref<Node>> variables;
  const auto one = [](const Tensor& t) { return reshape(t, t.shape().inserted(0, 1)); };
  const std::array<Tensor, 2> samples{x, labels};
  std::vector<Tensor> all = vmap(ManyFunction([&](std::span<const Tensor> sample) {
                                   const Gradients g = backward(loss(module(one(sample[0])), one(sample[1])));
                                   variables.clear();
                                   std::vector<Tensor> out;
                                   for (const Gradients::Entry& e : g.entries()) {
                                     variables.push_back(e.variable);
                                     out.push_back(e.gradient);
                                   }
                                   return out;
                                 }),
                                 samples);
  Gradients out;
  for (std::size_t i = 0; i < all.size(); ++i) out.add(variables[i], std::move(all[i]));
  return out;
}

}  // namespace ebb
