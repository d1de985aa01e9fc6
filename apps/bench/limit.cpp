#include "limit.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <ebb/graph/mode.h>
#include <ebb/models/layers/layers.h>
#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/ops.h>

#include "measure.h"

namespace bench {
namespace {

#if defined(__x86_64__)
// Accumulators enough to hide the latency of a fused multiply-add; the empty assembly keeps them in registers.
__attribute__((target("avx2,fma"))) double multiply_add_256(long n) {
  __m256 sum[12];
  const __m256 x = _mm256_set1_ps(0.999999F), y = _mm256_set1_ps(1e-6F);
  for (int i = 0; i < 12; ++i) sum[i] = y;
  for (long k = 0; k < n; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) {
      sum[i] = _mm256_fmadd_ps(sum[i], x, y);
      asm volatile("" : "+x"(sum[i]));
    }
  }
  return 12.0 * 8 * 2 * static_cast<double>(n);
}

__attribute__((target("avx512f"))) double multiply_add_512(long n) {
  __m512 sum[24];
  const __m512 x = _mm512_set1_ps(0.999999F), y = _mm512_set1_ps(1e-6F);
#pragma GCC unroll 24
  for (int i = 0; i < 24; ++i) sum[i] = y;
  for (long k = 0; k < n; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) {
      sum[i] = _mm512_fmadd_ps(sum[i], x, y);
      asm volatile("" : "+v"(sum[i]));
    }
  }
  return 24.0 * 16 * 2 * static_cast<double>(n);
}
#endif

/// Seconds until all of `threads` threads have done f(thread), from when the last of them is ready.
double together(int threads, const std::function<void(int)>& f) {
  std::atomic<int> ready{0};
  std::vector<double> begin(static_cast<std::size_t>(threads)), end(begin);
  const auto work = [&](int i) {
    for (++ready; ready < threads;) std::this_thread::yield();
    begin[static_cast<std::size_t>(i)] = now();
    f(i);
    end[static_cast<std::size_t>(i)] = now();
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& t : others) t.join();
  return *std::ranges::max_element(end) - *std::ranges::min_element(begin);
}

/// The shortest of several runs: what the machine can do, not what it does when disturbed.
template <class F>
double shortest(int runs, const F& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < runs; ++i) best = std::min(best, f());
  return best;
}

std::vector<std::vector<float>> buffers(int threads, std::int64_t floats) {
  return std::vector<std::vector<float>>(static_cast<std::size_t>(threads),
                                         std::vector<float>(static_cast<std::size_t>(floats), 0.01F));
}

}  // namespace

Demand demand(const Workload& w) {
  Demand d;
  ebb::Sequential net = network(w);
  const ebb::NoGrad quiet;
  ebb::Tensor x = ebb::zeros({1, 28, 28, 1});
  const auto batch = static_cast<double>(w.batch);
  bool first = true;
  for (const ebb::Layer& layer : net.layers()) {
    const ebb::Shape before = x.shape();
    x = (*layer)(x);
    double pass = before.rank() == 4 && x.rank() == 4 ? 10 : 0;  // pooling: of the layers that have no parameters
    for (const ebb::Tensor& p : ebb::parameters(*layer)) {
      d.parameters += static_cast<double>(p.numel());
      if (p.rank() == 1) continue;
      const bool conv = p.rank() == 4;
      pass = conv ? 8 : 20;
      const std::int64_t n = p.size(-1), k = p.numel() / n, rows = conv ? x.size(1) * x.size(2) : 1;
      std::vector<Product> forward, weights, inputs;
      for (const std::int64_t images : {std::int64_t{1}, std::int64_t{4}, std::int64_t{16}, w.batch}) {
        if (images > w.batch || (!conv && images != w.batch)) continue;
        const std::int64_t m = rows * images, count = (w.batch + images - 1) / images;
        forward.push_back({false, false, m, n, k, count});
        weights.push_back({true, false, k, n, m, count});
        inputs.push_back({false, true, m, k, n, count});
      }
      d.products.push_back(forward);
      d.products.push_back(weights);
      if (!first) d.products.push_back(inputs);  // nobody needs the gradient of pixels
      first = false;
    }
    d.activation_bytes += pass * static_cast<double>(x.numel()) * batch;
  }
  for (const auto& ways : d.products) d.flops += ways.back().flops();
  const double state = w.optimizer == "sgd" ? 0 : w.optimizer == "rmsprop" ? 1 : 2;
  d.optimizer_bytes = (12 + 8 * state) * d.parameters;
  d.optimizer_set = (8 + 4 * state) * d.parameters;
  d.gather_bytes = 784 * batch;
  d.input_bytes = 4 * 784 * batch;
  return d;
}

double Machine::peak_gflops() {
#if defined(__x86_64__)
  if (peak_ > 0) return peak_;
  const auto measure = [&](double (*f)(long)) {
    constexpr long n = 2'000'000;
    const double flops = f(1000) / 1000 * n;
    return flops * threads_ / shortest(10, [&] { return together(threads_, [&](int) { f(n); }); }) * 1e-9;
  };
  if (__builtin_cpu_supports("avx512f")) peak_ = measure(multiply_add_512);
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) peak_ = measure(multiply_add_256);
#endif
  return peak_;
}

double Machine::copy_bandwidth(double working_set) {
  // measured at half of each cache and far beyond the last; the smallest that holds the working set counts
  std::vector<std::int64_t> sets;
  for (const std::int64_t size : cache_sizes()) sets.push_back(size / 2);
  sets.push_back(std::max<std::int64_t>(256 << 20, sets.empty() ? 0 : 4 * sets.back()));
  const auto at = std::ranges::find_if(sets, [&](std::int64_t s) { return working_set <= static_cast<double>(s); });
  const std::int64_t set = at == sets.end() ? sets.back() : *at;
  double& rate = copies_[set];
  if (rate > 0) return rate;
  const std::int64_t half = set / 2 / 64 * 16;  // floats
  auto from = buffers(threads_, half), to = buffers(threads_, half);
  const auto bytes = static_cast<double>(half) * 4;
  const long repeats = std::max(1L, static_cast<long>(2e8 / bytes));
  const double seconds = shortest(7, [&] {
    return together(threads_, [&](int i) {
      const auto t = static_cast<std::size_t>(i);
      for (long r = 0; r < repeats; ++r) {
        std::memcpy(to[t].data(), from[t].data(), static_cast<std::size_t>(half) * 4);
        asm volatile("" : : "r"(to[t].data()) : "memory");
      }
    });
  });
  return rate = 2 * bytes * static_cast<double>(repeats) * threads_ / seconds;
}

double Machine::seconds(const Product& p) {
  double& one = products_[{p.ta, p.tb, p.m, p.n, p.k}];
  if (one == 0) {
    auto a = buffers(threads_, p.m * p.k), b = buffers(threads_, p.k * p.n), c = buffers(threads_, p.m * p.n);
    const auto call = [&](int i) {
      const auto t = static_cast<std::size_t>(i);
      ebb::detail::gemm(p.ta, p.tb, p.m, p.n, p.k, a[t].data(), p.ta ? p.m : p.k, b[t].data(), p.tb ? p.k : p.n, 0,
                        c[t].data(), p.n);
    };
    call(0);
    const double start = now();
    call(0);
    const long repeats = std::max(1L, static_cast<long>(4e-3 / std::max(now() - start, 1e-7)));
    const double all = shortest(5, [&] {
      return together(threads_, [&](int i) {
        for (long r = 0; r < repeats; ++r) call(i);
      });
    });
    one = all / static_cast<double>(repeats) / threads_;
  }
  return one * static_cast<double>(p.count);
}

Machine::Limit Machine::step(const Workload& w) {
  const Demand d = demand(w);
  Limit out;
  for (const auto& ways : d.products) {
    double best = std::numeric_limits<double>::infinity();
    for (const Product& p : ways) best = std::min(best, seconds(p));
    out.products += best;
  }
  const std::vector<std::int64_t> caches = cache_sizes();
  const double l2 = copy_bandwidth(caches.size() > 1 ? static_cast<double>(caches[1]) / 2 : 256e3);
  out.optimizer = d.optimizer_bytes / copy_bandwidth(d.optimizer_set / threads_);
  out.activations = d.activation_bytes / l2;
  out.gather = d.gather_bytes / copy_bandwidth(1e12) + d.input_bytes / l2;
  return out;
}

std::vector<std::int64_t> cache_sizes() {
  std::map<int, std::int64_t> levels;
  for (int i = 0; i < 8; ++i) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", i);
    std::ifstream level(folder + "level"), size(folder + "size"), type(folder + "type");
    int n = 0;
    std::int64_t kib = 0;
    std::string kind;
    if (level >> n && size >> kib && type >> kind && kind != "Instruction") levels[n] = kib * 1024;
  }
  std::vector<std::int64_t> out;
  for (const auto& [_, bytes] : levels) out.push_back(bytes);
  return out;
}

}  // namespace bench
