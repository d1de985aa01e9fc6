#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/train/schedule.h>

#include <cmath>
#include <vector>

namespace {

using namespace ebb;

void check(const Schedule& lr, double total, const std::vector<double>& want) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(lr(static_cast<double>(i), total) == doctest::Approx(want[i]).epsilon(1e-12));
  }
}

}  // namespace

TEST_CASE("schedule: constant, step, exponential") {
  check(constant_lr(0.3), 4, {0.3, 0.3, 0.3, 0.3});
  check(step_lr({.lr = 1, .factor = 0.5, .every = 2}), 6, {1, 1, 0.5, 0.5, 0.25, 0.25, 0.125});
  CHECK(step_lr({.lr = 1, .factor = 0.5, .every = 2})(1.999, 6) == 1);
  check(exponential_lr({.lr = 1, .factor = 0.25, .every = 2}), 6, {1, 0.5, 0.25, 0.125});
  CHECK(exponential_lr({.lr = 0.1, .factor = 0.96})(2.5, 10) ==
        doctest::Approx(0.1 * std::pow(0.96, 2.5)).epsilon(1e-15));
}

TEST_CASE("schedule: cosine with warm-up") {
  // cos(0), cos(45 degrees), ... over four units of time
  const double r = std::sqrt(0.5);
  check(cosine_lr({.lr = 1}), 4, {1, (1 + r) / 2, 0.5, (1 - r) / 2, 0, 0});
  check(cosine_lr({.lr = 1, .end = 0.2}), 2, {1, 0.6, 0.2});
  check(cosine_lr({.lr = 1, .warmup = 2}), 6, {0, 0.5, 1, (1 + r) / 2, 0.5, (1 - r) / 2, 0});
  check(cosine_lr({.lr = 1, .warmup = 4, .start = 0.2}), 4, {0.2, 0.4, 0.6, 0.8, 1});
  CHECK(cosine_lr({.lr = 1, .warmup = 10})(5, 4) == 0.5);  // longer than the training
}

TEST_CASE("schedule: one cycle") {
  // up from 1/25 in three units, down to 1/250,000 in four
  const auto lr = one_cycle_lr({.lr = 1, .peak = 3.0 / 7});
  const double low = 1.0 / 25, end = 1.0 / 25e4, r = std::sqrt(0.5);
  check(lr, 7,
        {low, low + (1 - low) * 0.25, low + (1 - low) * 0.75, 1, end + (1 - end) * (1 + r) / 2, end + (1 - end) * 0.5,
         end + (1 - end) * (1 - r) / 2, end});
}

// torch.optim.lr_scheduler.OneCycleLR(max_lr=0.1, total_steps=11, pct_start=0.4) of PyTorch 1.13, whose time ends one
// step earlier than its number of steps and whose peak is at pct_start total_steps - 1
TEST_CASE("schedule: one cycle as PyTorch has it") {
  const auto lr = one_cycle_lr({.lr = 0.1, .peak = (0.4 * 11 - 1) / 10});
  const std::vector<double> torch{0.0040000000000000036,
                                  0.023073537453795687,
                                  0.06513582352345995,
                                  0.09675866701140907,
                                  0.09797465678213016,
                                  0.0861867571584459,
                                  0.06635353275227843,
                                  0.0428844865493034,
                                  0.020997470532822016,
                                  0.005558605334343564,
                                  4e-07};
  REQUIRE(torch.size() == 11);
  check(lr, 10, torch);
}

TEST_CASE("schedule: options out of range") {
  CHECK_THROWS_WITH_AS(constant_lr(-1), "constant_lr: lr must be a finite number from 0, got -1", ValueError);
  CHECK_THROWS_WITH_AS(step_lr({.factor = 0}), "step_lr: factor must be in (0, 1], got 0", ValueError);
  CHECK_THROWS_WITH_AS(step_lr({.every = 0}), "step_lr: every must be above 0, got 0", ValueError);
  CHECK_THROWS_WITH_AS(exponential_lr({.factor = 2}), "exponential_lr: factor must be in (0, 1], got 2", ValueError);
  CHECK_THROWS_WITH_AS(exponential_lr({.lr = NAN}), "exponential_lr: lr must be a finite number from 0, got nan",
                       ValueError);
  CHECK_THROWS_WITH_AS(cosine_lr({.warmup = -1}), "cosine_lr: warmup must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(cosine_lr({.end = -1}), "cosine_lr: end must be a finite number from 0, got -1", ValueError);
  CHECK_THROWS_WITH_AS(one_cycle_lr({.peak = 1}), "one_cycle_lr: peak must be in (0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(one_cycle_lr({.end_factor = 0.5}), "one_cycle_lr: end_factor must be at least 1, got 0.5",
                       ValueError);
}
