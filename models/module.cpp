#include <ebb/models/module.h>

#include <fmt/core.h>
#include <pthread.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <new>
#include <unordered_set>

#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>

namespace ebb {
namespace {

/// A visitor made of one function for tensors.
class TensorVisitor : public Visitor {
 public:
  explicit TensorVisitor(std::function<void(std::string, Tensor&, bool)> use) : use_(std::move(use)) {}

 private:
  void on_parameter(std::string_view name, Tensor& t) override { use_(path(name), t, true); }
  void on_buffer(std::string_view name, Tensor& t) override { use_(path(name), t, false); }
  std::function<void(std::string, Tensor&, bool)> use_;
};

/// Gives direct members without a name of their own the one that visit gives them.
class Namer : public Visitor {
  void on_module(std::string_view name, Module& m) override {
    if (depth() == 0 && m.name().empty()) m.set_name(std::string(name));
  }
};

}  // namespace

void Visitor::operator()(std::string_view name, Tensor& parameter) { on_parameter(name, parameter); }
void Visitor::buffer(std::string_view name, Tensor& value) { on_buffer(name, value); }

void Visitor::operator()(std::string_view name, Module& module) {
  on_module(name, module);
  names_.push_back(name);
  module.visit(*this);
  names_.pop_back();
}

std::string Visitor::path(std::string_view name) const {
  std::string out;
  for (const std::string_view n : names_) out.append(n) += '.';
  return out.append(name);
}

namespace {
/// Of all modules: first passes of one inside another's need no order. Whoever forks has it, so that it is open in the child,
/// where it is made anew: its owner had another number there.
std::recursive_mutex& first_passes() {
  static std::recursive_mutex& mutex = *new std::recursive_mutex;
  [[maybe_unused]] static const int forks = ::pthread_atfork(
      [] { first_passes().lock(); }, [] { first_passes().unlock(); }, [] { ::new (&first_passes()) std::recursive_mutex; });
  return mutex;
}

/// One pass of a module, alone while none has gone through: the first creates parameters and names members.
class FirstPass {
 public:
  FirstPass(Module& module, bool& first_done) : done_(first_done) {
    if (done_.load(std::memory_order_acquire)) return;
    lock_ = std::unique_lock(first_passes());
    if (done_.load(std::memory_order_relaxed)) {  // by another thread meanwhile
      lock_.unlock();
      return;
    }
    Namer namer;
    module.visit(namer);
  }
  void went_through() {
    if (!lock_.owns_lock()) return;
    done_.store(true, std::memory_order_release);
    lock_.unlock();
  }

 private:
  std::atomic_ref<bool> done_;
  std::unique_lock<std::recursive_mutex> lock_;
};
}  // namespace

Tensor Module::operator()(const Tensor& x) {
  FirstPass pass(*this, members_named_);
  const Scope scope(name_);
  Tensor y = forward(x);
  pass.went_through();
  for (const auto& [_, hook] : forward_hooks_) hook(x, y);
  for (const auto& [_, hook] : backward_hooks_) y = on_gradient(y, hook);
  return y;
}

Tensor Module::joined(const Tensor& x, const Module& next) {
  if (hooked() || next.hooked()) return {};
  FirstPass pass(*this, members_named_);
  const Scope scope(name_);
  Tensor y = forward_joined(x, next);
  if (y.defined()) pass.went_through();
  return y;
}

std::size_t Module::on_forward(ForwardHook hook) {
  forward_hooks_.emplace_back(hooks_added_, std::move(hook));
  return hooks_added_++;
}

std::size_t Module::on_backward(BackwardHook hook) {
  backward_hooks_.emplace_back(hooks_added_, std::move(hook));
  return hooks_added_++;
}

bool Module::remove_hook(std::size_t number) {
  const auto is_it = [number](const auto& entry) { return entry.first == number; };
  return std::erase_if(forward_hooks_, is_it) + std::erase_if(backward_hooks_, is_it) > 0;
}

void Module::clear_hooks() {
  forward_hooks_.clear();
  backward_hooks_.clear();
}

std::vector<NamedTensor> named_tensors(Module& module) {
  std::vector<NamedTensor> out;
  TensorVisitor v([&](std::string path, Tensor& t, bool trained) {
    if (t.defined()) out.push_back({std::move(path), &t, trained});
  });
  module.visit(v);
  return out;
}

std::vector<NamedTensor> named_parameters(Module& module) {
  std::vector<NamedTensor> out;
  std::unordered_set<const Node*> seen;
  TensorVisitor v([&](std::string path, Tensor& t, bool trained) {
    // A layer that is used in two places is visited twice, but takes one step.
    if (trained && t.tracked() && seen.insert(t.node().get()).second) out.push_back({std::move(path), &t, true});
  });
  module.visit(v);
  return out;
}

std::vector<Tensor> parameters(Module& module) {
  std::vector<Tensor> out;
  for (const NamedTensor& t : named_parameters(module)) out.push_back(*t.tensor);
  return out;
}

std::int64_t parameter_count(Module& module) {
  std::int64_t n = 0;
  std::unordered_set<const std::byte*> counted;  // a shared parameter counts once
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained && counted.insert(t.tensor->raw()).second) n += t.tensor->numel();
  return n;
}

Shape build(Module& module, const Shape& sample, DType dtype) {
  const NoGrad quiet;
  return module(zeros(sample.inserted(0, 1), dtype)).shape().without(0);
}

void freeze(Module& module) {
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained) *t.tensor = t.tensor->detach();
}

void unfreeze(Module& module) {
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained && !t.tensor->tracked()) *t.tensor = variable(*t.tensor, t.path);
}

void copy_state(Module& from, Module& to) {
  const auto source = named_tensors(from), target = named_tensors(to);
  if (source.size() != target.size())
    throw ShapeError(fmt::format("copy_state: {} tensors against {}", source.size(), target.size()));
  for (std::size_t i = 0; i < source.size(); ++i)
    if (source[i].path != target[i].path || describe(*source[i].tensor) != describe(*target[i].tensor))
      throw ShapeError(fmt::format("copy_state: {} {} against {} {}", source[i].path, describe(*source[i].tensor),
                                   target[i].path, describe(*target[i].tensor)));
  for (std::size_t i = 0; i < source.size(); ++i) target[i].tensor->assign(*source[i].tensor);
}

}  // namespace ebb
