// Philox against the vectors of its authors; distributions; streams; bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/ops.h>

#include "restore.h"

using namespace ebb;

namespace {

/// The four words of the block at a position. fill() lays out rounds of 16 blocks, first words first.
std::array<std::uint32_t, 4> block(std::uint64_t seed, std::uint64_t stream, std::uint64_t position) {
  Generator g(seed, stream);
  g.seek(position);
  std::array<std::uint32_t, 64> words;
  g.fill(words);
  return {words[0], words[16], words[32], words[48]};
}

double mean_of(const Tensor& t) { return mean(cast(t, f64)).item(); }

}  // namespace

TEST_CASE("random: philox4x32-10 gives the known answers of Random123") {
  using W = std::array<std::uint32_t, 4>;
  // counter {position low, position high, stream low, stream high}, key {seed low, seed high}
  CHECK(block(0, 0, 0) == W{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint64_t all = ~std::uint64_t{0};
  CHECK(block(all, all, all) == W{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(block(0x299f31d0'a4093822, 0x03707344'13198a2e, 0x85a308d3'243f6a88) ==
        W{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  CHECK(Generator(0).next_u64() == 0x6627e8d5'e169c58d);
  CHECK(Generator(all, all).next_u64() != Generator(0).next_u64());
}

TEST_CASE("random: a generator continues exactly, and fill is one sequence") {
  Generator a(7, 3);
  std::vector<std::uint32_t> long_run(100'000);
  a.fill(long_run);
  for (const std::size_t first : {64, 128, 64 * 100, 64 * 1024}) {
    Generator b(7, 3);
    std::vector<std::uint32_t> head(first), tail(100'000 - first);
    b.fill(head);
    CHECK(b.position() == first / 4);
    Generator c(7, 3);
    c.seek(b.position());
    c.fill(tail);
    CHECK(std::equal(tail.begin(), tail.end(), long_run.begin() + static_cast<std::ptrdiff_t>(first)));
    CHECK(std::equal(head.begin(), head.end(), long_run.begin()));
  }
  for (const std::size_t n : {1, 3, 63, 65, 100}) {  // a part of a round is the beginning of it
    Generator b(7, 3);
    std::vector<std::uint32_t> part(n);
    b.fill(part);
    CHECK(std::equal(part.begin(), part.end(), long_run.begin()));
    CHECK(b.position() % 16 == 0);
  }
  Generator d(7, 3), e(7, 3);
  (void)uniform({1000}, 0, 1, f32, d);
  e.seek(d.position());
  CHECK(same_bits(normal({33}, 0, 1, f64, d), normal({33}, 0, 1, f64, e)));
  CHECK(d.next_u64() == e.next_u64());
  CHECK(d.permutation(50) == e.permutation(50));
  CHECK(d.position() == e.position());
}

TEST_CASE("random: seeds and streams differ, equal ones do not") {
  const auto draw = [](std::uint64_t seed, std::uint64_t stream) {
    Generator g(seed, stream);
    return uniform({1000}, 0, 1, f64, g);
  };
  CHECK(same_bits(draw(1, 0), draw(1, 0)));
  for (const Tensor& other :
       {draw(2, 0), draw(1, 1), draw(1, std::uint64_t{1} << 32), draw(std::uint64_t{1} << 32, 0)}) {
    const Tensor a = draw(1, 0) - 0.5, b = other - 0.5;
    CHECK(std::abs(mean(a * b).item()) < 4 / (12 * std::sqrt(1000.0)));  // four standard deviations of no correlation
  }
  manual_seed(5);
  const Tensor first = randn({10});
  CHECK_FALSE(same_bits(first, randn({10})));
  manual_seed(5);
  CHECK(same_bits(first, randn({10})));
}

TEST_CASE("random: moments and ranges") {
  constexpr std::int64_t n = 400'000;
  const double root = std::sqrt(static_cast<double>(n));
  for (const DType t : {f32, f64}) {
    Generator g(11);
    const Tensor u = uniform({n}, -1, 3, t, g), z = normal({n}, 2, 0.5, t, g), r = rand({n}, t, g),
                 s = randn({n}, t, g);
    CHECK(min(u).item() >= -1);
    CHECK(max(u).item() <= 3);
    CHECK(min(r).item() >= 0);
    CHECK(max(r).item() < 1);
    CHECK(std::abs(mean_of(u) - 1) < 5 * 4 / std::sqrt(12.0) / root);
    CHECK(variance(cast(u, f64)).item() == doctest::Approx(16.0 / 12).epsilon(0.01));
    CHECK(std::abs(mean_of(z) - 2) < 5 * 0.5 / root);
    CHECK(variance(cast(z, f64)).item() == doctest::Approx(0.25).epsilon(0.01));
    CHECK(std::abs(mean_of(s * s * s)) < 5 * std::sqrt(15.0) / root);           // third moment 0
    CHECK(mean_of(square(s) * square(s)) == doctest::Approx(3).epsilon(0.02));  // fourth 3
    CHECK(mean_of(cast(greater(abs(s), 1.959964), f64)) == doctest::Approx(0.05).epsilon(0.04));
  }
  Generator g(2);
  double total = 0;
  for (int i = 0; i < 10000; ++i) {
    const double v = g.uniform();
    CHECK((v >= 0 && v < 1));
    total += v;
  }
  CHECK(total / 10000 == doctest::Approx(0.5).epsilon(0.03));
}

TEST_CASE("random: bernoulli") {
  Generator g(4);
  for (const double keep : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    const Tensor b = bernoulli({400'000}, keep, 2.5, f32, g);
    for (const float v : b.values<float>()) REQUIRE((v == 0 || v == 2.5f));
    CHECK(std::abs(mean_of(b) / 2.5 - keep) <= 5 * std::sqrt(keep * (1 - keep) / 400'000));
  }
  CHECK_THROWS_WITH_AS(bernoulli({2}, 1.5, 1), "bernoulli: a probability, got 1.5", ValueError);
  CHECK_THROWS_WITH_AS(bernoulli({2}, 0.5, 1, i64), "bernoulli: needs float32 or float64, got int64", DTypeError);
  CHECK_THROWS_WITH_AS(rand({2}, u8), "uniform: needs float32 or float64, got uint8", DTypeError);
  CHECK_THROWS_WITH_AS(randn({2}, i64), "normal: needs float32 or float64, got int64", DTypeError);
}

TEST_CASE("random: below and permutation") {
  Generator g(9);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) ++counts[g.below(7)];
  for (const int c : counts) CHECK(std::abs(c - 10'000) < 5 * 100);
  CHECK(g.below(1) == 0);
  CHECK_THROWS_WITH_AS(g.below(0), "below: no integers below 0", ValueError);
  for (const std::int64_t n : {0, 1, 2, 17, 1000}) {
    std::vector<std::int64_t> p = g.permutation(n);
    std::vector<std::int64_t> sorted = p;
    std::ranges::sort(sorted);
    for (std::int64_t i = 0; i < n; ++i) REQUIRE(sorted[static_cast<std::size_t>(i)] == i);
    if (n == 1000) CHECK(p != sorted);
  }
  std::set<std::vector<std::int64_t>> orders;  // all six orders of three, about equally often
  std::array<int, 3> first{};
  for (int i = 0; i < 3000; ++i) {
    const std::vector<std::int64_t> p = g.permutation(3);
    orders.insert(p);
    ++first[static_cast<std::size_t>(p[0])];
  }
  CHECK(orders.size() == 6);
  for (const int c : first) CHECK(std::abs(c - 1000) < 5 * 26);
}

TEST_CASE("random: the same bits for any number of threads and any instruction set") {
  const auto draw = [] {
    Generator g(21, 4);
    return std::vector<Tensor>{uniform({100'003}, -1, 1, f32, g), uniform({70'001}, 0, 1, f64, g),
                               normal({70'001}, 0, 1, f32, g), bernoulli({100'003}, 0.3, 1, f32, g)};
  };
  const std::vector<Tensor> expected = draw();
  for (const int n : {1, 2, 3}) {
    const testing::Threads use(n);
    testing::on_every_instruction_set([&] {
      const std::vector<Tensor> drawn = draw();
      for (std::size_t k = 0; k < drawn.size(); ++k) CHECK(same_bits(drawn[k], expected[k]));
    });
  }
}

TEST_CASE("dropout: rate, scale, gradient, and off at inference") {
  Generator g(6);
  const Tensor x = variable(ones({100'000}));
  const Tensor y = dropout(x, 0.3, g);
  std::int64_t dropped = 0;
  for (const float v : y.values<float>()) {
    REQUIRE((v == 0 || v == static_cast<float>(1 / 0.7)));
    dropped += v == 0;
  }
  CHECK(static_cast<double>(dropped) / 1e5 == doctest::Approx(0.3).epsilon(0.03));
  CHECK(same_bits(grad(y, x, {.cotangent = ones({100'000})}), y.detach()));  // the same mask both ways
  CHECK_FALSE(same_bits(dropout(x, 0.3, g).detach(), y.detach()));           // and a new one each time
  CHECK(same_bits(dropout(x, 0, g), x));
  {
    const NoGrad off;
    CHECK(same_bits(dropout(x, 0.3, g), x));
    const Training monte_carlo(true);
    CHECK_FALSE(same_bits(dropout(x, 0.3, g), x));
  }
  const Training off(false);
  CHECK(same_bits(dropout(x, 0.3, g), x));
  CHECK_THROWS_WITH_AS(dropout(x, 1), "dropout: the rate must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(dropout(x, std::nan("")), "dropout: the rate must be in [0, 1), got nan", ValueError);
}

TEST_CASE("random: uniform numbers stay below the upper end, which a sum of floats rounds up to") {
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {1, 2}, {-2, -1}, {1, std::nextafter(1.0f, 2.0f)}, {0.1, 0.7}, {1e6, 1e6 + 1}}) {
    const Tensor t = uniform({3'000'000}, low, high);
    CHECK(max(t).item() < high);
    CHECK(min(t).item() >= static_cast<double>(static_cast<float>(low)));
  }
  CHECK(uniform({3}, 1, 1).to_vector() == std::vector<double>{1, 1, 1});
  CHECK(max(uniform({1000}, 1, std::nextafter(1.0, 2.0), f64)).item() == 1);
  CHECK_THROWS_WITH_AS(uniform({2}, 1, 0),
                       "uniform: low must not be above high, and their distance finite, got 1 and 0", ValueError);
  CHECK_THROWS_AS(uniform({2}, -3e38, 3e38), ValueError);
  CHECK_THROWS_AS(uniform({2}, 0, std::nan("")), ValueError);
}
