#include <ebb/ops/random.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/loops.h>

namespace ebb {
namespace {

__extension__ using Uint128 = unsigned __int128;

constexpr int width = 16;  // counters per round of the vectorized loop

/// Ten rounds of Philox4x32 on `width` counters at once; out[j] holds word j of each.
inline void EBB_INLINE philox(std::uint64_t seed, std::uint64_t stream, std::uint64_t position,
                              std::uint32_t (&out)[4][width]) {
  std::uint32_t c0[width], c1[width], c2[width], c3[width];
#pragma GCC unroll 1
  for (int i = 0; i < width; ++i) {
    const std::uint64_t p = position + static_cast<std::uint64_t>(i);
    c0[i] = static_cast<std::uint32_t>(p);
    c1[i] = static_cast<std::uint32_t>(p >> 32);
    c2[i] = static_cast<std::uint32_t>(stream);
    c3[i] = static_cast<std::uint32_t>(stream >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 1
    for (int i = 0; i < width; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53} * c0[i], b = std::uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<std::uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<std::uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<std::uint32_t>(b);
      c3[i] = static_cast<std::uint32_t>(a);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
#pragma GCC unroll 1
  for (int i = 0; i < width; ++i) {
    out[0][i] = c0[i];
    out[1][i] = c1[i];
    out[2][i] = c2[i];
    out[3][i] = c3[i];
  }
}

/// to[i] = value(word i) for the n words from a position on.
template <class T, class F>
void fill_with(const Generator& g, std::uint64_t position, std::int64_t n, T* to, const F& value) {
  constexpr std::int64_t round = 4 * width;
  detail::parallel_for(n, detail::elementwise_block, [&](std::int64_t begin, std::int64_t end) {
    detail::simd([&]() EBB_INLINE {
      const F each = value;  // a copy, which the stores cannot change
      std::uint32_t words[4][width];
      for (std::int64_t i = begin; i < end; i += round) {
        philox(g.seed(), g.stream(), position + static_cast<std::uint64_t>(i / 4), words);
        const std::uint32_t* const w = &words[0][0];
        if (end - i >= round) {
#pragma GCC unroll 1
          for (std::int64_t j = 0; j < round; ++j) to[i + j] = each(w[j]);
        } else
          for (std::int64_t j = 0; j < end - i; ++j) to[i + j] = each(w[j]);
      }
    });
  });
}

/// Reserves the blocks for n words, whole rounds at a time, and returns where they begin.
std::uint64_t reserve(Generator& g, std::int64_t words) {
  const std::uint64_t begin = g.position();
  g.seek(begin + static_cast<std::uint64_t>((words + 4 * width - 1) / (4 * width)) * width);
  return begin;
}

double unit(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

/// The largest T below high, but low where there is none between them: what a sum near high may round up to is kept
/// below it.
template <class T>
T below(double low, double high) {
  const auto a = static_cast<T>(low), b = static_cast<T>(high);
  return std::max(a, static_cast<double>(b) < high ? b : std::nextafter(b, -std::numeric_limits<T>::infinity()));
}

}  // namespace

void Generator::fill(std::span<std::uint32_t> out) {
  const auto n = static_cast<std::int64_t>(out.size());
  fill_with(*this, reserve(*this, n), n, out.data(), [](std::uint32_t word) EBB_INLINE { return word; });
}

std::uint64_t Generator::next_u64() {
  std::uint32_t words[4][width];
  philox(seed_, stream_, position_++, words);
  return std::uint64_t{words[0][0]} << 32 | words[1][0];
}

std::uint64_t Generator::below(std::uint64_t n) {
  if (n == 0) fail<ValueError>("below", "no integers below 0");
  const std::uint64_t limit = ~std::uint64_t{0} - ~std::uint64_t{0} % n;  // a multiple of n: no value is favored
  std::uint64_t v;
  do v = next_u64();
  while (v >= limit);
  return v % n;
}

double Generator::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

std::vector<std::int64_t> Generator::permutation(std::int64_t n) {
  if (n < 0 || n > std::int64_t{1} << 50) fail<ValueError>("permutation", fmt::format("cannot order {} numbers", n));
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::vector<std::uint32_t> draws(2 * order.size());
  fill(draws);
  for (std::size_t i = order.size(); i > 1; --i) {
    // 64 random bits times i, high half: the bias is below i / 2^64
    const std::uint64_t bits = std::uint64_t{draws[2 * i - 2]} << 32 | draws[2 * i - 1];
    const auto j = static_cast<std::size_t>((static_cast<Uint128>(bits) * i) >> 64);
    std::swap(order[i - 1], order[j]);
  }
  return order;
}

Generator& default_generator() {
  thread_local Generator g;
  return g;
}

void manual_seed(std::uint64_t seed) { default_generator() = Generator(seed); }

Tensor uniform(const Shape& shape, double low, double high, DType dtype, Generator& generator) {
  if (!is_float(dtype)) fail<DTypeError>("uniform", fmt::format("needs float32 or float64, got {}", name_of(dtype)));
  const double range = dtype == f32 ? static_cast<double>(static_cast<float>(high - low)) : high - low;
  if (!(low <= high && std::isfinite(range)))
    fail<ValueError>("uniform",
                     fmt::format("low must not be above high, and their distance finite, got {} and {}", low, high));
  Tensor out = Tensor::empty(shape, dtype);
  const std::int64_t n = out.numel();
  if (dtype == f32) {
    float* to = out.mutable_values<float>().data();
    const auto a = static_cast<float>(low), w = static_cast<float>(high - low), top = below<float>(low, high);
    fill_with(generator, reserve(generator, n), n, to, [=](std::uint32_t word) EBB_INLINE {
      const float v = a + w * (static_cast<float>(word >> 8) * 0x1p-24f);
      return v > top ? top : v;
    });
  } else {
    std::vector<std::uint32_t> words(2 * static_cast<std::size_t>(n));
    generator.fill(words);
    double* to = out.mutable_values<double>().data();
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
      to[i] = std::min(below<double>(low, high), low + (high - low) * unit(words[2 * i], words[2 * i + 1]));
  }
  return out;
}

Tensor normal(const Shape& shape, double mean, double stddev, DType dtype, Generator& generator) {
  if (!is_float(dtype)) fail<DTypeError>("normal", fmt::format("needs float32 or float64, got {}", name_of(dtype)));
  Tensor out = Tensor::empty(shape, dtype);
  const auto n = static_cast<std::size_t>(out.numel()), pairs = (n + 1) / 2;
  std::vector<std::uint32_t> words(4 * pairs);
  generator.fill(words);
  visit_float(dtype, [&]<class T>(T) {
    T* to = out.mutable_values<T>().data();
    for (std::size_t i = 0; i < pairs; ++i) {  // Box and Muller, 1958
      const double r = std::sqrt(-2 * std::log(1 - unit(words[4 * i], words[4 * i + 1])));
      const double angle = 2 * std::numbers::pi * unit(words[4 * i + 2], words[4 * i + 3]);
      to[2 * i] = static_cast<T>(mean + stddev * r * std::cos(angle));
      if (2 * i + 1 < n) to[2 * i + 1] = static_cast<T>(mean + stddev * r * std::sin(angle));
    }
  });
  return out;
}

Tensor randn(const Shape& shape, DType dtype, Generator& generator) { return normal(shape, 0, 1, dtype, generator); }
Tensor rand(const Shape& shape, DType dtype, Generator& generator) { return uniform(shape, 0, 1, dtype, generator); }

Tensor bernoulli(const Shape& shape, double keep, double value, DType dtype, Generator& generator) {
  if (!(keep >= 0 && keep <= 1)) fail<ValueError>("bernoulli", fmt::format("a probability, got {}", keep));
  if (!is_float(dtype)) fail<DTypeError>("bernoulli", fmt::format("needs float32 or float64, got {}", name_of(dtype)));
  Tensor out = Tensor::empty(shape, dtype);
  const std::int64_t n = out.numel();
  const auto limit = static_cast<std::uint64_t>(keep * 0x1p32);  // a word is kept when it is below: 2^32 keeps all
  const auto last = static_cast<std::uint32_t>(limit - (limit != 0));
  visit_float(dtype, [&]<class T>(T) {
    const T on = limit != 0 ? static_cast<T>(value) : T(0);
    fill_with(generator, reserve(generator, n), n, out.mutable_values<T>().data(),
              [=](std::uint32_t word) EBB_INLINE { return word <= last ? on : T(0); });
  });
  return out;
}

}  // namespace ebb
