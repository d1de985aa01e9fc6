// Observers: watch every op that runs, and every gradient that is made.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ebb/graph/mode.h>
#include <ebb/graph/node.h>
#include <ebb/graph/shape.h>
#include <ebb/graph/small_array.h>

namespace ebb {

class Tensor;
struct Attribute;
struct CompositionEvent;

/// One op that has run, forward or as part of a backward rule.
struct OpEvent {
  std::string_view op;                    ///< its name
  std::span<const Tensor* const> inputs;  ///< in the op's order
  const Tensor& output;                   ///< with its node, if it was recorded
  double seconds;                         ///< the clock's, with what ran inside
  double flops;                           ///< as the op counts them
  std::span<const Attribute> attributes;  ///< the op's options (ebb/graph/attribute.h)
};

/// While one lives, it sees what this thread computes. Observers nest: the outer ones see it too. Derive from it for a
/// tool of your own; DetectAnomaly and Profiler are two.
class Observer {
 public:
  Observer();  ///< from now on
  virtual ~Observer();
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  /// After an op has run. What it calls inside is part of it.
  virtual void ran(const OpEvent&) {}
  /// Before the ops of a composition (composition.h), such as those of mean(); they are seen too.
  virtual void enters_composition(std::string_view /*name*/) {}
  /// After them, with inputs and result; not when it throws.
  virtual void composed(const CompositionEvent&) {}
  virtual void leaves_composition() {}  ///< the last, also when it throws
  /// After a backward rule gave the gradient of an input of a node; of one that added to what others gave, the sum.
  virtual void made_gradient(const Node&, int /*input*/, const Tensor&) {}
  virtual void enters_rule(const Node&) {
  }  ///< before the backward rule of a node; the ops until leaves_rule are the rule's
  virtual void leaves_rule(const Node&) {}  ///< after it, also when it throws
  /// Before the optimizer's `step`-th step (from 1) changes anything, for each gradient that it was given. The name is
  /// the parameter's path, or a variable's name.
  virtual void stepping(std::int64_t /*step*/, std::string_view /*parameter*/, const Tensor& /*gradient*/) {}
  Observer* outer() const { return outer_; }  ///< the next one that watches; null for the outermost

 private:
  Observer* outer_;
};

/// Throws NumericError at the first op whose result, or backward rule whose gradient, holds a NaN or infinity, naming
/// op, layer and the range of its inputs; inside a backward rule, the op whose rule it is. Also when an optimizer is
/// given such a gradient, before it changes anything. Tells the step once an optimizer has made one while it lives.
/// Reads every result once more: for debugging.
class DetectAnomaly : public Observer {
 public:
  void ran(const OpEvent& event) override;
  void made_gradient(const Node& node, int input, const Tensor& gradient) override;
  void enters_rule(const Node& node) override { rules_.push_back(&node); }
  void leaves_rule(const Node&) override {
    if (!rules_.empty()) rules_.pop_back();
  }
  void stepping(std::int64_t step, std::string_view parameter, const Tensor& gradient) override;

 private:
  std::string at_step() const;
  std::vector<const Node*> rules_;  // that run now, the innermost last
  std::int64_t steps_ = 0;          // made
};

/// Adds up time, operations and bytes.
class Profiler : public Observer {
 public:
  /// Sums over some ops.
  struct Entry {
    std::int64_t calls = 0;                    ///< ops that ran
    double seconds = 0, flops = 0, bytes = 0;  ///< sums
  };
  void ran(const OpEvent& event) override;
  const std::map<std::string, Entry, std::less<>>& by_op() const { return ops_; }  ///< by the op's name
  /// By layer path; "" outside of any.
  const std::map<std::string, Entry, std::less<>>& by_layer() const { return layers_; }
  /// The figures of one recorded node.
  Entry of(const Node& node) const;
  double seconds() const { return seconds_; }  ///< of all ops together
  /// A table of the ops, slowest first: calls, milliseconds, share, GFLOP/s, GB/s.
  std::string table() const;

 private:
  std::map<std::string, Entry, std::less<>> ops_, layers_;
  std::map<std::uint64_t, Entry> nodes_;
  double seconds_ = 0;
};

namespace detail {

/// Times one op for the observers, and hides from them what runs inside.
class Observation {
 public:
  Observation(std::string_view op, std::span<const Tensor* const> inputs);
  ~Observation() { mode.observer = observer_; }
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;
  void computed() { stop_ = std::chrono::steady_clock::now(); }
  std::span<const Shape* const> shapes() const { return shapes_.all(); }
  void report(const Tensor& output, double flops, std::span<const Attribute> attributes);

 private:
  std::string_view op_;
  std::span<const Tensor* const> inputs_;
  SmallArray<const Shape*, 8> shapes_;
  Observer* observer_;
  std::chrono::steady_clock::time_point start_, stop_;
};

/// Calls `tell` with each observer, none of which sees what the others do.
template <class Tell>
void each_observer(const Tell& tell) {
  Observer* const observer = std::exchange(mode.observer, nullptr);
  struct Restore {
    Observer* to;
    ~Restore() { mode.observer = to; }
  } const restore{observer};
  for (Observer* o = observer; o; o = o->outer()) tell(*o);
}

/// Tells the observers of a gradient.
void observe_gradient(const Node& node, int input, const Tensor& gradient);

/// Tells the observers, if there are any, that the ops of its lifetime belong to a node's backward rule.
class ObservedRule {
 public:
  explicit ObservedRule(const Node& node) : node_(node) {
    if (mode.observer) [[unlikely]]
      tell(true);
  }
  ~ObservedRule() {
    if (mode.observer) [[unlikely]]
      tell(false);
  }
  ObservedRule(const ObservedRule&) = delete;
  ObservedRule& operator=(const ObservedRule&) = delete;

 private:
  void tell(bool enters);
  const Node& node_;
};

/// Tells the observers of a gradient that an optimizer was given.
void observe_step(std::int64_t step, std::string_view parameter, const Tensor& gradient);

}  // namespace detail
}  // namespace ebb
