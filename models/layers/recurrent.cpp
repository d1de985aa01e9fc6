#include <ebb/models/layers/recurrent.h>

#include <fmt/core.h>

#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/given.h>

namespace ebb {

Recurrent::Recurrent(RecurrentOptions options, std::string_view type, std::int64_t gates)
    : options_(options), type_(type), gates_(gates) {
  detail::expect_given(options.weight_init, type, "weight_init is null");
  detail::expect_given(options.recurrent_init, type, "recurrent_init is null");
  if (options.units < 1) throw ValueError(fmt::format("{}: units must be at least 1, got {}", type, options.units));
}

void Recurrent::make(const Tensor& x) {
  weight = make_parameter(options_.weight_init, {x.size(2), gates_ * options_.units}, x, "weight");
  recurrent_weight =
      make_parameter(options_.recurrent_init, {options_.units, gates_ * options_.units}, x, "recurrent_weight");
  bias = make_parameter(zeros_init, {gates_ * options_.units}, x, "bias");
}

Tensor Recurrent::forward(const Tensor& x) {
  if (x.rank() != 3 || x.size(1) == 0)
    fail<ShapeError>(type_, fmt::format("needs sequences (n, steps, features), got {}", x.shape().str()));
  if (!weight.defined()) make(x);
  const std::int64_t n = x.size(0), steps = x.size(1), u = options_.units;
  const Tensor xw = linear(x, weight, bias);  // (n, t, gates * u): all steps in one product
  Tensor h = zeros({n, u}, x.dtype()), carry = h;
  std::vector<Tensor> states;
  for (std::int64_t t = 0; t < steps; ++t) {
    h = step(reshape(slice(xw, {.axis = 1, .begin = t, .end = t + 1}), {n, gates_ * u}), h, carry);
    if (options_.return_sequences) states.push_back(h);
  }
  return options_.return_sequences ? stack(states, 1) : h;
}

void Recurrent::visit(Visitor& v) { v("weight", weight), v("recurrent_weight", recurrent_weight), v("bias", bias); }

Tensor Recurrent::gate(const Tensor& rows, std::int64_t i) const {
  return slice(rows, {.axis = 1, .begin = i * options_.units, .end = (i + 1) * options_.units});
}

Tensor SimpleRNN::step(const Tensor& xw, const Tensor& h, Tensor&) { return tanh(xw + recurrent(h)); }

void GRU::make(const Tensor& x) {
  Recurrent::make(x);
  recurrent_bias = make_parameter(zeros_init, {3 * options_.units}, x, "recurrent_bias");
}

void GRU::visit(Visitor& v) { Recurrent::visit(v), v("recurrent_bias", recurrent_bias); }

Tensor GRU::step(const Tensor& xw, const Tensor& h, Tensor&) {
  const Tensor hu = recurrent(h) + recurrent_bias;
  const Tensor z = sigmoid(gate(xw, 0) + gate(hu, 0)), r = sigmoid(gate(xw, 1) + gate(hu, 1));
  const Tensor fresh = tanh(gate(xw, 2) + r * gate(hu, 2));
  return fresh + z * (h - fresh);
}

void LSTM::make(const Tensor& x) {
  Recurrent::make(x);
  Tensor start = zeros(bias.shape(), x.dtype());
  const std::int64_t u = options_.units;
  visit_float(x.dtype(), [&]<class T>(T) {
    for (auto& b : start.mutable_values<T>().subspan(static_cast<std::size_t>(u), static_cast<std::size_t>(u))) b = 1;
  });
  bias.assign(start);
}

Tensor LSTM::step(const Tensor& xw, const Tensor& h, Tensor& carry) {
  const Tensor a = xw + recurrent(h);
  carry = sigmoid(gate(a, 1)) * carry + sigmoid(gate(a, 0)) * tanh(gate(a, 2));
  return sigmoid(gate(a, 3)) * tanh(carry);
}

}  // namespace ebb
