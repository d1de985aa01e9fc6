#include <ebb/models/exchange/trace.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include <ebb/graph/composition.h>
#include <ebb/graph/error.h>
#include <ebb/graph/observe.h>
#include <ebb/ops/ops.h>

namespace ebb::detail {
namespace {

/// Lists the ops of one pass that depend on its input; what they read besides is a constant.
class Recorder : public Observer {
 public:
  Recorder(const Tensor& input, std::string_view caller, bool (*knows)(std::string_view))
      : caller_(caller), knows_(knows) {
    add(input, true);
  }

  void ran(const OpEvent& event) override {
    if (!inside_) record(event.op, event.inputs, event.output, event.attributes);
  }
  void enters_composition(std::string_view name) override { inside_ += inside_ || knows_(name); }
  void composed(const CompositionEvent& event) override {
    if (inside_ == 1) record(event.name, event.inputs, event.output, event.attributes);
  }
  void leaves_composition() override { inside_ -= inside_ > 0; }
  Program finish(const Tensor& result) {
    for (const auto& [storage, version] : versions_)
      if (storage->version() != version)
        throw ValueError(fmt::format("{}: the model changes a value in place, which no graph can say", caller_));
    Step end;
    end.op = "the result";
    out_.output = is_computed(end, result) ? find(result) : -1;
    if (out_.output < 0) throw ValueError(fmt::format("{}: the result does not depend on the input", caller_));
    return std::move(out_);
  }

 private:
  void record(std::string_view op, std::span<const Tensor* const> inputs, const Tensor& output,
              std::span<const Attribute> attributes) {
    Step step;
    std::vector<const Tensor*> read(inputs.begin(), inputs.end());
    for (const Attribute& a : attributes) {
      if (const auto* t = std::get_if<Tensor>(&a.value)) read.push_back(t);
      else step.attributes.push_back(a);
    }
    step.op = op;
    step.path = current_scope();
    if (std::ranges::none_of(read, [&](const Tensor* t) { return is_computed(step, *t); }))
      return;  // a constant by itself
    for (const Tensor* t : read) {
      const int known = find(*t);
      step.inputs.push_back(known >= 0 ? known : add(*t, false));
    }
    step.output = add(output, true);
    out_.steps.push_back(std::move(step));
  }

  /// The newest value that this tensor shows, or -1. The values are held, so that no address is used again.
  int find(const Tensor& t) const {
    const auto it = at_.find(t.raw());
    if (it == at_.end()) return -1;
    for (auto id = it->second.rbegin(); id != it->second.rend(); ++id) {
      const Tensor& v = out_.values[static_cast<std::size_t>(*id)].value;
      if (v.shape() == t.shape() && v.dtype() == t.dtype()) return *id;
    }
    return -1;
  }

  bool is_computed(const Step& step, const Tensor& t) const {
    const int id = find(t);
    if (id >= 0) return out_.values[static_cast<std::size_t>(id)].computed;
    if (computed_.contains(t.storage().get()))
      throw ValueError(fmt::format(
          "{}: {} reads a part of a computed value that no op has taken out of it; use slice() or reshape()", caller_,
          step.place()));
    return false;
  }

  int add(const Tensor& t, bool computed) {
    const int id = static_cast<int>(out_.values.size());
    out_.values.push_back({t.detach(), computed, t.shape()});
    at_[t.raw()].push_back(id);
    versions_.try_emplace(t.storage().get(), t.storage()->version());
    if (computed) computed_[t.storage().get()] = true;
    return id;
  }

  std::string_view caller_;
  bool (*knows_)(std::string_view);
  int inside_ = 0;  // of a composition that is one step: how many are open
  Program out_;
  std::unordered_map<const std::byte*, std::vector<int>> at_;
  std::unordered_map<const Storage*, std::uint32_t> versions_;
  std::unordered_map<const Storage*, bool> computed_;
};

/// Leaves out what the result does not depend on.
void drop_unused(Program& p) {
  std::vector<bool> used(p.values.size());
  used[static_cast<std::size_t>(p.output)] = true;
  for (std::size_t i = p.steps.size(); i-- > 0;) {
    Step& s = p.steps[i];
    if (!used[static_cast<std::size_t>(s.output)]) s.op.clear();
    else
      for (const int id : s.inputs) used[static_cast<std::size_t>(id)] = true;
  }
  std::erase_if(p.steps, [](const Step& s) { return s.op.empty(); });
}

// ---- several passes ------------------------------------------------------------------------------------------------

Tensor made_up(const Shape& shape, DType dtype, int pass, bool whole) {
  Generator random(2027, static_cast<std::uint64_t>(pass));
  if (whole) return cast(cast(rand(shape, f64, random) * (2.0 * pass), i64), dtype);  // 0, then 0 and 1
  if (pass < 2) return rand(shape, dtype, random);
  return normal(shape, 0, 4, dtype, random);
}

/// A constant that every sample reads alike as one of size 1 along `axis`; undefined when the samples differ.
Tensor one_of(const Tensor& t, int axis) {
  const Tensor first = slice(t, {.axis = axis, .begin = 0, .end = 1});
  for (std::int64_t i = 1; i < t.size(axis); ++i)
    if (!same_bits(first, slice(t, {.axis = axis, .begin = i, .end = i + 1}))) return {};
  return first;
}

/// Adds to `a` what another pass teaches; throws where they differ in what must be alike.
void compare(Program& a, const Program& b, std::string_view caller) {
  const auto refuse = [&](const Step& s, std::string_view what) {
    throw ValueError(fmt::format("{}: {} {}; a graph holds for every input alike", caller, s.place(), what));
  };
  for (std::size_t i = 0; i < std::min(a.steps.size(), b.steps.size()); ++i) {
    const Step &s = a.steps[i], &t = b.steps[i];
    if (s.op != t.op || s.path != t.path || s.inputs.size() != t.inputs.size())
      refuse(s, fmt::format("ran for one batch and {} for another", t.place()));
  }
  if (a.steps.size() != b.steps.size())
    throw ValueError(fmt::format("{}: {} ops ran for one batch and {} for another; a graph holds for every input alike",
                                 caller, a.steps.size(), b.steps.size()));
  const bool same_batch = a.values[0].value.shape() == b.values[0].value.shape();
  std::vector<int> same(a.values.size(), -1);  // the value of b for each of a
  const auto pair = [&](const Step& s, int x, int y) {
    TracedValue& v = a.values[static_cast<std::size_t>(x)];
    const TracedValue& w = b.values[static_cast<std::size_t>(y)];
    int& known = same[static_cast<std::size_t>(x)];
    if (known >= 0 && known != y && v.computed) refuse(s, "reads different values for one batch and for another");
    if (known >= 0 && v.batch_axis >= 0) return;
    known = y;
    if (v.computed != w.computed || v.value.dtype() != w.value.dtype() || v.value.rank() != w.value.rank())
      refuse(s, "reads different kinds of values for one batch and for another");
    if (v.computed) {
      if (same_batch && v.value.shape() != w.value.shape()) refuse(s, "gives a size that depends on the input");
      v.other = w.value.shape();
      return;
    }
    if (v.batch_axis >= 0) {  // known from an earlier comparison
      if (const Tensor one = one_of(w.value, v.batch_axis); one.defined() && same_bits(one, v.value)) return;
      refuse(s, "reads a constant that is computed from the input, or at random");
    }
    if (v.value.shape() == w.value.shape()) {
      if (v.value.raw() != w.value.raw() && !same_bits(v.value, w.value))
        refuse(s, fmt::format("reads a constant {} that is computed from the input, or at random", describe(v.value)));
      return;
    }
    int axis = -1;
    for (int k = 0; k < v.value.rank(); ++k)
      if (v.value.shape()[k] != w.value.shape()[k]) axis = axis < 0 ? k : 99;
    const Tensor one = axis < 8 ? one_of(v.value, axis) : Tensor(), two = axis < 8 ? one_of(w.value, axis) : Tensor();
    if (!one.defined() || !two.defined() || !same_bits(one, two) || v.value.size(axis) != Program::batch ||
        w.value.size(axis) != Program::other_batch)
      refuse(s, fmt::format("reads a constant {} that depends on the size of the batch", describe(v.value)));
    v.value = one, v.other = one.shape(), v.batch_axis = axis;
  };
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    const Step &s = a.steps[i], &t = b.steps[i];
    for (std::size_t k = 0; k < s.inputs.size(); ++k) pair(s, s.inputs[k], t.inputs[k]);
    pair(s, s.output, t.output);
    for (const Attribute& x : s.attributes) {
      const Attribute* y = t.find(x.name);
      const bool alike =
          y && (std::holds_alternative<double>(x.value) ? std::get<double>(x.value) == std::get<double>(y->value)
                : std::holds_alternative<std::int64_t>(x.value)
                    ? std::get<std::int64_t>(x.value) == std::get<std::int64_t>(y->value)
                    : std::get<std::vector<std::int64_t>>(x.value) == std::get<std::vector<std::int64_t>>(y->value));
      if (!alike) refuse(s, fmt::format("has another {} for another batch", x.name));
    }
  }
  a.values[0].other = b.values[0].value.shape();
}

}  // namespace

const Attribute* Step::find(std::string_view name) const {
  for (const Attribute& a : attributes)
    if (a.name == name) return &a;
  return nullptr;
}
std::int64_t Step::integer(std::string_view name) const { return std::get<std::int64_t>(find(name)->value); }
double Step::number(std::string_view name) const { return std::get<double>(find(name)->value); }
const std::vector<std::int64_t>& Step::integers(std::string_view name) const {
  return std::get<std::vector<std::int64_t>>(find(name)->value);
}
std::string Step::place() const { return path.empty() ? op : fmt::format("{}: {}", path, op); }

Program trace(Module& module, const Shape& sample, DType dtype, std::string_view caller,
              bool (*knows)(std::string_view)) {
  const NoGrad quiet;
  const Training inference(false);
  bool whole = !is_float(dtype);
  const auto pass = [&](int number) {
    const std::int64_t n = number == 1 ? Program::other_batch : Program::batch;
    const Tensor x = made_up(sample.inserted(0, n), dtype, number, whole);
    Program p = [&] {
      Recorder recorder(x, caller, knows);
      return recorder.finish(module(x));
    }();
    drop_unused(p);
    return p;
  };
  Program first = [&] {
    try {
      return pass(0);
    } catch (const ValueError&) {
      if (whole) throw;
      whole = true;  // an Embedding takes floats, but no fractions
      return pass(0);
    }
  }();
  compare(first, pass(1), caller);
  // Other data, at which a branch on values may go another way; a model need not take them (indices are no such
  // numbers).
  if (is_float(dtype))
    for (int i = 2; i < 6; ++i) {
      Program other;
      try {
        other = pass(i);
      } catch (const Error&) {
        break;
      }
      Program copy = first;
      compare(copy, other, caller);
    }
  return first;
}

}  // namespace ebb::detail
