#include <ebb/models/layers/module.h>

#include <fmt/core.h>
#include <pthread.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <new>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <ebb/autograd/tools.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>

namespace ebb {

namespace {

thread_local detail::Cloning* cloning = nullptr;

/// A visitor made of one function for tensors.
class TensorVisitor : public Visitor {
 public:
  explicit TensorVisitor(std::function<void(std::string, Tensor&, bool)> use) : use_(std::move(use)) {}

 private:
  void on_parameter(std::string_view name, Tensor& t) override { use_(path(name), t, true); }
  void on_buffer(std::string_view name, Tensor& t) override { use_(path(name), t, false); }
  std::function<void(std::string, Tensor&, bool)> use_;
};

/// Gives direct members the name that visit gives them.
class Namer : public Visitor {
  void on_module(std::string_view name, Module& m) override {
    if (depth() > 0 || !seen_.insert(&m).second) return;  // of several names the first, as named_parameters has it
    if (m.name().empty()) m.set_name(std::string(name));
    detail::ModuleAccess::set_step(m, name);
  }
  std::unordered_set<const Module*> seen_;
};

/// Names a tensor of the module itself, not of its members, that is not made yet.
class Unmade : public Visitor {
 public:
  std::string name;

 private:
  void on_parameter(std::string_view n, Tensor& t) override { look(n, t); }
  void on_buffer(std::string_view n, Tensor& t) override { look(n, t); }
  void look(std::string_view n, const Tensor& t) {
    if (depth() == 0 && !t.defined() && name.empty()) name = n;
  }
};

/// Members look after themselves when they are copied in their turn.
void expect_shareable(const Module& module) {
  if (cloning) return;
  Unmade first;
  const_cast<Module&>(module).visit(first);
  if (first.name.empty()) return;
  throw ValueError(fmt::format(
      "{}: a copy shares its parameters, but {} is not made yet: build the module first, or copy it with clone()",
      module.name().empty() ? module.type() : module.name(), first.name));
}

/// Sets the mark of a module and of all its members.
void set_frozen(Module& module, bool frozen) {
  struct Marker : Visitor {
    explicit Marker(bool f) : value(f) {}
    void on_module(std::string_view, Module& m) override { detail::ModuleAccess::frozen(m) = value; }
    bool value;
  } marker(frozen);
  detail::ModuleAccess::frozen(module) = frozen;
  module.visit(marker);
}

}  // namespace

const std::string& Module::step() const {
  const std::string* const member = std::atomic_ref(const_cast<Module*>(this)->member_).load(std::memory_order_acquire);
  return member ? *member : name_;
}

Module::Module(const Module& other)
    : name_(other.name_),
      member_(other.member_),
      forward_hooks_(other.forward_hooks_),
      backward_hooks_(other.backward_hooks_),
      hooks_added_(other.hooks_added_),
      members_named_(other.members_named_),
      frozen_(other.frozen_) {
  expect_shareable(other);
}

Module& Module::operator=(const Module& other) {
  if (this == &other) return *this;
  expect_shareable(other);
  name_ = other.name_, member_ = other.member_;
  forward_hooks_ = other.forward_hooks_, backward_hooks_ = other.backward_hooks_;
  hooks_added_ = other.hooks_added_, members_named_ = other.members_named_, frozen_ = other.frozen_;
  return *this;
}

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
/// Of all modules: first passes of one inside another's need no order. Whoever forks has it, so that it is open in the
/// child, where it is made anew: its owner had another number there.
std::recursive_mutex& first_passes() {
  static std::recursive_mutex& mutex = *new std::recursive_mutex;
  [[maybe_unused]] static const int forks =
      ::pthread_atfork([] { first_passes().lock(); }, [] { first_passes().unlock(); },
                       [] { ::new (&first_passes()) std::recursive_mutex; });
  return mutex;
}

}  // namespace

void detail::ModuleAccess::set_step(Module& m, std::string_view name) {
  static std::set<std::string, std::less<>>& steps = *new std::set<std::string, std::less<>>;
  const std::lock_guard lock(first_passes());
  auto it = steps.find(name);
  if (it == steps.end()) it = steps.emplace(name).first;
  std::atomic_ref(m.member_).store(&*it, std::memory_order_release);
}

namespace {
/// One pass of a module, alone while none has gone through: the first creates parameters and names members.
class FirstPass {
 public:
  FirstPass(Module& module, bool& first_done) : module_(module), done_(first_done) {
    if (done_.load(std::memory_order_acquire)) return;
    lock_ = std::unique_lock(first_passes());
    if (done_.load(std::memory_order_relaxed)) {  // by another thread meanwhile
      lock_.unlock();
      return;
    }
    Namer namer;
    module.visit(namer);
    ++inside_;
  }
  FirstPass(const FirstPass&) = delete;
  FirstPass& operator=(const FirstPass&) = delete;
  ~FirstPass() {
    if (lock_.owns_lock()) --inside_;
  }
  void went_through() {
    if (!lock_.owns_lock()) return;
    if (inside_ == 1) named_tensors(module_);  // what the outermost names is owned: a member that it forgets is not
    --inside_;
    done_.store(true, std::memory_order_release);
    lock_.unlock();
  }

 private:
  static thread_local int inside_;
  Module& module_;
  std::atomic_ref<bool> done_;
  std::unique_lock<std::recursive_mutex> lock_;
};
thread_local int FirstPass::inside_ = 0;
}  // namespace

Tensor Module::operator()(const Tensor& x) {
  FirstPass pass(*this, members_named_);
  const Scope scope(step());
  Tensor y = forward(x);
  pass.went_through();
  for (const auto& [_, hook] : forward_hooks_) hook(x, y);
  for (const auto& [_, hook] : backward_hooks_) y = on_gradient(y, hook);
  return y;
}

Tensor Module::joined(const Tensor& x, const Module& next) {
  if (hooked() || next.hooked()) return {};
  FirstPass pass(*this, members_named_);
  const Scope scope(step());
  Tensor y = forward_joined(x, next);
  if (y.defined()) pass.went_through();
  return y;
}

std::size_t Module::on_forward(ForwardHook hook) {
  detail::expect_given(hook, "on_forward", "the hook is empty");
  forward_hooks_.emplace_back(hooks_added_, std::move(hook));
  return hooks_added_++;
}

std::size_t Module::on_backward(BackwardHook hook) {
  detail::expect_given(hook, "on_backward", "the hook is empty");
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

namespace {
/// By their ids, which no other node ever gets. They serve a warning alone: a set that grew long is begun anew. Its
/// lock is its own: that of the first passes may be held for as long as one of them runs.
struct OwnedVariables {
  std::mutex mutex;
  std::unordered_set<std::uint64_t> ids;
};
OwnedVariables& owned_variables() {
  static OwnedVariables& all = *new OwnedVariables;
  return all;
}
}  // namespace

void detail::ModuleAccess::set_owned(const Node* variable) {
  OwnedVariables& all = owned_variables();
  const std::lock_guard lock(all.mutex);
  if (all.ids.size() > 65536) all.ids.clear();
  all.ids.insert(variable->id());
}

bool detail::ModuleAccess::owned(const Node* variable) {
  OwnedVariables& all = owned_variables();
  const std::lock_guard lock(all.mutex);
  return all.ids.contains(variable->id());
}

namespace {
/// All tensors, made or not.
std::vector<NamedTensor> all_tensors(Module& module) {
  std::vector<NamedTensor> out;
  std::unordered_map<std::string, const Tensor*> known;
  TensorVisitor v([&](std::string path, Tensor& t, bool trained) {
    if (const auto [it, is_new] = known.try_emplace(path, &t); !is_new && it->second != &t)
      throw ValueError(fmt::format("visit: two tensors have the path {}: each member needs a name of its own", path));
    if (trained && t.tracked()) detail::ModuleAccess::set_owned(t.node().get());
    out.push_back({std::move(path), &t, trained});
  });
  module.visit(v);
  return out;
}
}  // namespace

std::vector<NamedTensor> named_tensors(Module& module) {
  std::vector<NamedTensor> out = all_tensors(module);
  std::erase_if(out, [](const NamedTensor& t) { return !t.tensor->defined(); });
  return out;
}

void expect_built(std::string_view who, Module& module) {
  for (const NamedTensor& t : all_tensors(module))
    if (!t.tensor->defined())
      throw ValueError(
          fmt::format("{}: {} is not made yet: call build(module, sample shape), or the module, first", who, t.path));
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
  expect_built("parameter_count", module);
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
  expect_built("freeze", module);
  for (const NamedTensor& t : named_tensors(module))
    if (t.trained) *t.tensor = t.tensor->detach();
  set_frozen(module, true);
}

void unfreeze(Module& module) {
  expect_built("unfreeze", module);
  std::unordered_map<const std::byte*, Tensor> known;  // what was one parameter in two places is one again
  const auto own = named_tensors(module);
  for (const NamedTensor& t : own)
    if (t.trained && t.tensor->tracked()) known.emplace(t.tensor->raw(), *t.tensor);
  for (const NamedTensor& t : own) {
    if (!t.trained || t.tensor->tracked()) continue;
    const auto it = known.find(t.tensor->raw());
    *t.tensor = it != known.end() && it->second.shape() == t.tensor->shape() ? it->second : variable(*t.tensor, t.path);
    known.emplace(t.tensor->raw(), *t.tensor);
  }
  set_frozen(module, false);
  named_tensors(module);  // the new variables are owned
}

void copy_state(Module& from, Module& to) {
  expect_built("copy_state", from);
  expect_built("copy_state", to);
  const auto source = named_tensors(from), target = named_tensors(to);
  if (source.size() != target.size())
    throw ShapeError(fmt::format("copy_state: {} tensors against {}", source.size(), target.size()));
  for (std::size_t i = 0; i < source.size(); ++i)
    if (source[i].path != target[i].path || describe(*source[i].tensor) != describe(*target[i].tensor))
      throw ShapeError(fmt::format("copy_state: {} {} against {} {}", source[i].path, describe(*source[i].tensor),
                                   target[i].path, describe(*target[i].tensor)));
  for (std::size_t i = 0; i < source.size(); ++i) target[i].tensor->assign(*source[i].tensor);
}

// ---- clone ----------------------------------------------------------------------------------------------------------

detail::Cloning::Cloning() : before_(std::exchange(cloning, this)) {}
detail::Cloning::~Cloning() { cloning = before_; }
detail::Cloning* detail::Cloning::now() { return cloning; }

std::shared_ptr<Module> detail::Cloning::one(const std::shared_ptr<Module>& module,
                                             std::shared_ptr<Module> (*copy)(const Module&)) {
  if (const auto it = copies_.find(module.get()); it != copies_.end()) return it->second;
  std::shared_ptr<Module> made = copy(*module);
  if (!made) throw ValueError(fmt::format("clone: a layer {} cannot be copied", module->type()));
  return copies_.emplace(module.get(), std::move(made)).first->second;
}

void detail::Cloning::separate(Module& from, Module& copy) {
  const auto source = named_tensors(from), target = named_tensors(copy);
  std::unordered_set<const Tensor*> own;
  for (const NamedTensor& t : source) own.insert(t.tensor);
  std::unordered_map<const std::byte*, Tensor> made;  // what is one tensor in two places stays one
  for (const NamedTensor& t : target) {
    if (own.contains(t.tensor))
      throw ValueError(fmt::format(
          "clone: {} lies behind a pointer that the copy has too; give the module a copy constructor", t.path));
    const auto it = made.find(t.tensor->raw());
    if (it != made.end() && it->second.shape() == t.tensor->shape() && it->second.tracked() == t.tensor->tracked()) {
      *t.tensor = it->second;
      continue;
    }
    const std::byte* const key = t.tensor->raw();
    *t.tensor =
        t.tensor->tracked() ? variable(t.tensor->clone(), std::string(t.tensor->node()->name())) : t.tensor->clone();
    made.emplace(key, *t.tensor);
  }
  named_tensors(copy);  // the new variables are owned
}

}  // namespace ebb
