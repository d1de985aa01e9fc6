#include <ebb/graph/apply.h>

#include <fmt/core.h>

namespace ebb::detail {

Kept kept(const Tensor& t) { return {t.storage(), const_cast<std::byte*>(t.raw()), t.storage()->version()}; }

void fill_inputs(Input* slots, const Tensor* const* inputs, int count, Keeps keeps) {
  int tracked = 0;
  for (int i = 0; i < count; ++i) tracked += inputs[i]->tracked();
  for (int i = 0; i < count; ++i) {
    const Tensor& t = *inputs[i];
    const bool other_wanted = tracked > (t.tracked() ? 1 : 0);
    const bool keep = keeps == Keeps::inputs || keeps == Keeps::inputs_and_output || (keeps == Keeps::other_inputs && other_wanted);
    ::new (slots + i) Input{t.node(), keep ? kept(t) : Kept{}, t.shape(), t.dtype()};
  }
}

void refuse_no_gradient(std::string_view op) {
  fail<GradientError>(op, "has no gradient; pass stop_gradient(x), or call it under NoGrad");
}

void refuse_undefined(std::string_view op, int input) {
  fail<ValueError>(op, fmt::format("input {} is undefined", input));
}

void refuse_count(std::string_view op, std::size_t count) {
  fail<ValueError>(op, fmt::format("takes 1 to {} inputs, got {}", Node::max_inputs, count));
}

}  // namespace ebb::detail
