#include <ebb/graph/observe.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include <ebb/graph/attribute.h>
#include <ebb/graph/error.h>
#include <ebb/graph/tensor.h>

namespace ebb {
namespace {

/// Index of the first NaN or infinity.
std::optional<std::size_t> first_not_finite(const Tensor& t) {
  if (!is_float(t.dtype())) return std::nullopt;
  return visit_float(t.dtype(), [&]<class T>(T) -> std::optional<std::size_t> {
    const auto v = t.values<T>();
    const auto it = std::ranges::find_if(v, [](auto x) { return !std::isfinite(x); });
    if (it == v.end()) return std::nullopt;
    return static_cast<std::size_t>(it - v.begin());
  });
}

std::string range_of(const Tensor& t) {
  if (t.numel() == 0) return describe(t);
  const std::vector<double> v = t.to_vector();
  const auto [low, high] = std::ranges::minmax_element(v);
  return fmt::format("{} in [{:.4g}, {:.4g}]", describe(t), *low, *high);
}

}  // namespace

Observer::Observer() : outer_(detail::mode.observer) { detail::mode.observer = this; }
Observer::~Observer() { detail::mode.observer = outer_; }

std::string DetectAnomaly::at_step() const { return steps_ ? fmt::format(" (step {})", steps_ + 1) : std::string(); }

void DetectAnomaly::ran(const OpEvent& event) {
  const auto at = first_not_finite(event.output);
  if (!at) return;
  std::string inputs;
  for (const Tensor* t : event.inputs) inputs += (inputs.empty() ? "" : ", ") + range_of(*t);
  const std::string what = fmt::format("element {} of {} is {}; inputs: {}{}", *at, event.output.shape().str(),
                                       event.output.to_vector()[*at], inputs, at_step());
  if (rules_.empty()) fail<NumericError>(event.op, what);
  fail<NumericError>(rules_.back()->op(), fmt::format("backward: in {}: {}", event.op, what));
}

void DetectAnomaly::made_gradient(const Node& node, int input, const Tensor& gradient) {
  if (const auto at = first_not_finite(gradient))
    fail<NumericError>(node.op(), fmt::format("backward: element {} of the gradient of input {} {} is {}{}", *at, input,
                                              gradient.shape().str(), gradient.to_vector()[*at], at_step()));
}

void DetectAnomaly::stepping(std::int64_t step, std::string_view parameter, const Tensor& gradient) {
  steps_ = step - 1;
  if (const auto at = first_not_finite(gradient))
    fail<NumericError>("optimizer",
                       fmt::format("step {}: element {} of the gradient of {} {} is {}", step, *at,
                                   parameter.empty() ? std::string("a parameter") : fmt::format("\"{}\"", parameter),
                                   gradient.shape().str(), gradient.to_vector()[*at]));
  steps_ = step;
}

void Profiler::ran(const OpEvent& event) {
  double bytes = static_cast<double>(event.output.bytes());
  for (const Tensor* t : event.inputs) bytes += static_cast<double>(t->bytes());
  const auto add = [&](Entry& e) {
    ++e.calls;
    e.seconds += event.seconds;
    e.flops += event.flops;
    e.bytes += bytes;
  };
  add(ops_[std::string(event.op)]);
  add(layers_[std::string(current_scope())]);
  if (event.output.tracked()) add(nodes_[event.output.node()->id()]);
  seconds_ += event.seconds;
}

Profiler::Entry Profiler::of(const Node& node) const {
  const auto it = nodes_.find(node.id());
  return it == nodes_.end() ? Entry{} : it->second;
}

std::string Profiler::table() const {
  std::vector<std::pair<std::string, Entry>> rows(ops_.begin(), ops_.end());
  std::ranges::sort(rows, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::string out = fmt::format("{:<22}{:>9}{:>12}{:>9}{:>11}{:>9}\n", "op", "calls", "ms", "share", "GFLOP/s", "GB/s");
  for (const auto& [name, e] : rows) {
    const double s = std::max(e.seconds, 1e-12);
    out += fmt::format("{:<22}{:>9}{:>12.3f}{:>8.1f}%{:>11.2f}{:>9.2f}\n", name, e.calls, e.seconds * 1e3,
                       100 * e.seconds / std::max(seconds_, 1e-12), e.flops / s * 1e-9, e.bytes / s * 1e-9);
  }
  return out;
}

namespace detail {

Observation::Observation(std::string_view op, std::span<const Tensor* const> inputs)
    : op_(op), inputs_(inputs), shapes_(inputs.size()), observer_(mode.observer) {
  for (std::size_t i = 0; i < inputs.size(); ++i) shapes_[i] = &inputs[i]->shape();
  mode.observer = nullptr;
  start_ = stop_ = std::chrono::steady_clock::now();
}

void Observation::report(const Tensor& output, double flops, std::span<const Attribute> attributes) {
  const OpEvent event{op_, inputs_, output, std::chrono::duration<double>(stop_ - start_).count(), flops, attributes};
  for (Observer* o = observer_; o; o = o->outer()) o->ran(event);
}

void observe_gradient(const Node& node, int input, const Tensor& gradient) {
  each_observer([&](Observer& o) { o.made_gradient(node, input, gradient); });
}

void observe_step(std::int64_t step, std::string_view parameter, const Tensor& gradient) {
  each_observer([&](Observer& o) { o.stepping(step, parameter, gradient); });
}

void ObservedRule::tell(bool enters) {
  each_observer([&](Observer& o) { enters ? o.enters_rule(node_) : o.leaves_rule(node_); });
}

}  // namespace detail
}  // namespace ebb
