#include <ebb/models/layers/gradcheck_module.h>

#include <algorithm>
#include <utility>

#include <ebb/autograd/tools.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

/// Gives a module's tensors and the random numbers back as they were.
class Restore {
 public:
  explicit Restore(std::span<const NamedTensor> tensors) : random_(default_generator()) {
    for (const NamedTensor& t : tensors) before_.emplace_back(t.tensor, *t.tensor);
  }
  ~Restore() {
    for (auto& [to, value] : before_) *to = std::move(value);
    default_generator() = random_;
  }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;
  const Generator& random() const { return random_; }

 private:
  std::vector<std::pair<Tensor*, Tensor>> before_;
  Generator random_;
};

}  // namespace

GradcheckReport gradcheck(Module& module, const Tensor& x, GradcheckOptions options) {
  const HoldState held;
  const bool as_now = training();
  {
    const NoGrad quiet;
    const Training off(false);  // dropout would draw numbers
    (void)module(x);            // makes the parameters
  }
  const std::vector<NamedTensor> tensors = named_tensors(module);
  const Restore restore(tensors);
  const bool with_input = is_float(x.dtype());
  std::vector<Tensor> inputs;
  std::vector<std::string> names;
  if (with_input) {
    inputs.push_back(cast(x.detach(), f64));
    names.emplace_back("x");
  }
  std::vector<std::vector<Tensor*>> places;  // of each parameter: more than one where it is shared
  std::vector<const Node*> nodes;
  for (const NamedTensor& t : tensors) {
    const Node* node = t.tensor->node().get();
    const Tensor value = is_float(t.tensor->dtype()) ? cast(t.tensor->detach(), f64) : t.tensor->detach();
    *t.tensor = value;
    if (!t.trained || !node) continue;
    if (const auto known = std::ranges::find(nodes, node); known != nodes.end()) {
      places[static_cast<std::size_t>(known - nodes.begin())].push_back(t.tensor);
      continue;
    }
    nodes.push_back(node);
    places.push_back({t.tensor});
    inputs.push_back(value);
    names.push_back(t.path);
  }
  if (options.names.empty()) options.names = std::move(names);
  return gradcheck(MultiFunction([&](std::span<const Tensor> in) {
                     std::size_t i = with_input ? 1 : 0;
                     for (const std::vector<Tensor*>& all : places) {
                       const Tensor value =
                           in[i].tracked() ? in[i] : variable(in[i]);  // a constant would be a frozen parameter
                       ++i;
                       for (Tensor* place : all) *place = value;
                     }
                     const Training same(as_now);
                     default_generator() = restore.random();
                     return module(with_input ? in[0] : x);
                   }),
                   std::move(inputs), options);
}

}  // namespace ebb
