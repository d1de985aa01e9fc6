#include <ebb/ops/tangent.h>

#include <ebb/ops/ops.h>

namespace ebb::detail {

Tensor tangent_of_layer(const Saved& s, std::span<const Tensor> t, const void* op,
                        Tensor (*p)(const void*, const Tensor&, const Tensor&),
                        Tensor (*after)(const void*, const Tensor&)) {
  Tensor d;
  const auto add = [&d](const Tensor& part) { d = d.defined() ? d + part : part; };
  if (t[0].defined()) add(p(op, t[0], s.input(1)));
  if (t[1].defined()) add(p(op, s.input(0), t[1]));
  if (after && d.defined()) d = after(op, d);
  if (t[2].defined()) add(d.defined() ? t[2] : broadcast_to(t[2], s.output_shape()));
  return d;
}

}  // namespace ebb::detail
