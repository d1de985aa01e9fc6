// Thread-local modes: whether ops are recorded, whether layers behave as in training, and which layer is running.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace ebb {

/// A position in the tree of layers, such as "encoder.conv1". Interned: one object per path, alive for good.
struct ScopePath {
  const ScopePath* parent;      ///< null at the root, whose path is empty
  std::string name;             ///< of this step, such as "conv1"
  std::string path;             ///< of all steps, joined by dots
  bool is_composition = false;  ///< `name` is that of a function which `parent` runs, whose path it has (composition.h)
};

class Observer;

namespace detail {
struct Mode {
  bool record = true;
  signed char training = -1;  // -1: follows `record`
  const ScopePath* scope = nullptr;
  Observer* observer = nullptr;
  std::uint32_t composition = 0;   // number of the one that runs; 0: none
  std::int64_t batch = 0;          // tensors that a batched one stands for here (batch.h); 0: there are none
  std::uint64_t batch_number = 0;  // of the vmap() or jacobian() that they belong to: each has another
  bool as_one = false;             // a batched tensor is read as one of another axis
};
inline constinit thread_local Mode mode;
/// Whether this thread runs within vmap() or a batch of jacobian(), where tensors may be batched (batch.h).
inline bool batching() { return mode.batch != 0; }
const ScopePath* enter_scope(const ScopePath* parent, std::string_view name, bool composition = false);
}  // namespace detail

/// True when ops on tracked tensors are recorded (the default).
inline bool recording() { return detail::mode.record; }
/// True when dropout drops and batch normalization uses the batch: while recording, unless Training says otherwise.
inline bool training() { return detail::mode.training < 0 ? detail::mode.record : detail::mode.training > 0; }
/// Path of the layer that is running, empty outside of any.
inline std::string_view current_scope() {
  return detail::mode.scope ? std::string_view(detail::mode.scope->path) : std::string_view();
}

/// While one lives, nothing is recorded in this thread and layers behave as at inference.
class NoGrad {
 public:
  /// NoGrad(false) changes nothing.
  explicit NoGrad(bool off = true) : before_(detail::mode.record) {
    if (off) detail::mode.record = false;
  }
  ~NoGrad() { detail::mode.record = before_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// While one lives, layers behave as in training (or as at inference), whether or not ops are recorded:
/// Training(false) for gradients of a fixed network, Training(true) under NoGrad for Monte-Carlo dropout.
class Training {
 public:
  /// As in training, or as at inference.
  explicit Training(bool on) : before_(detail::mode.training) { detail::mode.training = on ? 1 : 0; }
  ~Training() { detail::mode.training = before_; }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

 private:
  signed char before_;
};

/// While one lives, errors and graph nodes of this thread carry `name` as one more step of their layer path.
class Scope {
 public:
  /// An empty name adds no step.
  explicit Scope(std::string_view name)
      : before_(detail::mode.scope), inside_(name.empty() ? before_ : detail::enter_scope(before_, name)) {
    detail::mode.scope = inside_;
  }
  ~Scope() { detail::mode.scope = before_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  const ScopePath* before_;
  const ScopePath* inside_;
};

}  // namespace ebb
