// Learning rates that change from step to step.
#pragma once
#include <functional>

namespace ebb {

/// The rate at time t of a training that lasts until `total`, both in one unit. fit() asks before every step and counts
/// epochs, with fractions: t = 2.5 is the middle of the third one. Any function of two numbers will do:
///
///     fit(net, SGD(), data, {.epochs = 20, .schedule = cosine_lr({.lr = 0.1, .warmup = 2})});
///     fit(net, SGD(), data, {.epochs = 20, .schedule = [](double t, double) { return 0.1 / (1 + t); }});
using Schedule = std::function<double(double t, double total)>;

/// The same rate all the time.
Schedule constant_lr(double lr);

/// Options of step_lr().
struct StepLrOptions {
  double lr = 1e-3;     ///< at first
  double factor = 0.1;  ///< of each step down
  double every = 10;    ///< time between two steps
};
/// lr factor^floor(t / every).
Schedule step_lr(StepLrOptions options = {});

/// Options of exponential_lr().
struct ExponentialLrOptions {
  double lr = 1e-3;      ///< at first
  double factor = 0.96;  ///< in that time
  double every = 1;      ///< a time
};
/// lr factor^(t / every) (Keras' ExponentialDecay).
Schedule exponential_lr(ExponentialLrOptions options = {});

/// Options of cosine_lr().
struct CosineLrOptions {
  double lr = 1e-3;   ///< at its highest
  double warmup = 0;  ///< until then it rises in a straight line
  double start = 0;   ///< from this, when there is a warm-up
  double end = 0;     ///< and falls to this
};
/// After the warm-up w: end + (lr - end) (1 + cos(pi (t - w) / (total - w))) / 2 (Loshchilov and Hutter 2017, one
/// period).
Schedule cosine_lr(CosineLrOptions options = {});

/// Options of one_cycle_lr().
struct OneCycleLrOptions {
  double lr = 1e-3;          ///< at its highest
  double peak = 0.3;         ///< share of the time when it is
  double start_factor = 25;  ///< it begins at lr / start_factor
  double end_factor = 1e4;   ///< and ends at lr / start_factor / end_factor
};
/// Half a cosine up, then half a cosine down (Smith and Topin 2018; PyTorch's OneCycleLR).
Schedule one_cycle_lr(OneCycleLrOptions options = {});

}  // namespace ebb
