// Schedules of the learning rate.
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

/// Options for step_lr().
struct StepLrOptions {
  double lr = 1e-3;     ///< first rate
  double factor = 0.1;  ///< factor of each step
  double every = 10;    ///< time between steps
};
/// lr factor^floor(t / every).
Schedule step_lr(StepLrOptions options = {});

/// Options for exponential_lr().
struct ExponentialLrOptions {
  double lr = 1e-3;      ///< first rate
  double factor = 0.96;  ///< factor per `every`
  double every = 1;      ///< time in which the rate falls by `factor`
};
/// lr factor^(t / every) (Keras' ExponentialDecay).
Schedule exponential_lr(ExponentialLrOptions options = {});

/// Options for cosine_lr().
struct CosineLrOptions {
  double lr = 1e-3;   ///< highest rate
  double warmup = 0;  ///< time of the linear rise from `start` to `lr`
  double start = 0;   ///< first rate of the warm-up
  double end = 0;     ///< last rate
};
/// After the warm-up w: end + (lr - end) (1 + cos(pi (t - w) / (total - w))) / 2 (Loshchilov and Hutter 2017, one
/// period).
Schedule cosine_lr(CosineLrOptions options = {});

/// Options for one_cycle_lr().
struct OneCycleLrOptions {
  double lr = 1e-3;          ///< highest rate
  double peak = 0.3;         ///< when it is reached, as a share of the time
  double start_factor = 25;  ///< the first rate is lr / start_factor
  double end_factor = 1e4;   ///< the last rate is lr / start_factor / end_factor
};
/// Half a cosine up, then half a cosine down (Smith and Topin 2018; PyTorch's OneCycleLR).
Schedule one_cycle_lr(OneCycleLrOptions options = {});

}  // namespace ebb
