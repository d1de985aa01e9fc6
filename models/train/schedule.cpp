#include <ebb/models/train/schedule.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include <ebb/graph/error.h>

namespace ebb {
namespace {

void expect_rate(std::string_view who, std::string_view what, double lr) {
  if (!(lr >= 0 && std::isfinite(lr)))
    throw ValueError(fmt::format("{}: {} must be a finite number from 0, got {}", who, what, lr));
}

/// Half a cosine from one rate to another as x goes from 0 to 1.
double ease(double from, double to, double x) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * std::clamp(x, 0.0, 1.0))) / 2;
}

}  // namespace

Schedule constant_lr(double lr) {
  expect_rate("constant_lr", "lr", lr);
  return [lr](double, double) { return lr; };
}

Schedule step_lr(StepLrOptions o) {
  expect_rate("step_lr", "lr", o.lr);
  detail::expect(o.factor > 0 && o.factor <= 1, "step_lr", "factor must be in (0, 1]", o.factor);
  detail::expect(o.every > 0, "step_lr", "every must be above 0", o.every);
  return [o](double t, double) { return o.lr * std::pow(o.factor, std::floor(t / o.every)); };
}

Schedule exponential_lr(ExponentialLrOptions o) {
  expect_rate("exponential_lr", "lr", o.lr);
  detail::expect(o.factor > 0 && o.factor <= 1, "exponential_lr", "factor must be in (0, 1]", o.factor);
  detail::expect(o.every > 0, "exponential_lr", "every must be above 0", o.every);
  return [o](double t, double) { return o.lr * std::pow(o.factor, t / o.every); };
}

Schedule cosine_lr(CosineLrOptions o) {
  expect_rate("cosine_lr", "lr", o.lr);
  expect_rate("cosine_lr", "start", o.start);
  expect_rate("cosine_lr", "end", o.end);
  detail::expect(o.warmup >= 0, "cosine_lr", "warmup must not be negative", o.warmup);
  return [o](double t, double total) {
    if (t < o.warmup) return o.start + (o.lr - o.start) * t / o.warmup;
    return total > o.warmup ? ease(o.lr, o.end, (t - o.warmup) / (total - o.warmup)) : o.lr;
  };
}

Schedule one_cycle_lr(OneCycleLrOptions o) {
  expect_rate("one_cycle_lr", "lr", o.lr);
  detail::expect(o.peak > 0 && o.peak < 1, "one_cycle_lr", "peak must be in (0, 1)", o.peak);
  detail::expect(o.start_factor >= 1, "one_cycle_lr", "start_factor must be at least 1", o.start_factor);
  detail::expect(o.end_factor >= 1, "one_cycle_lr", "end_factor must be at least 1", o.end_factor);
  return [o](double t, double total) {
    const double first = o.lr / o.start_factor, x = total > 0 ? t / total : 0;
    return x < o.peak ? ease(first, o.lr, x / o.peak) : ease(o.lr, first / o.end_factor, (x - o.peak) / (1 - o.peak));
  };
}

}  // namespace ebb
