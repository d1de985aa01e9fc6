// What this machine allows: the rate of its multiplications on the shapes of a workload, and of moving the rest.
#pragma once
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "workloads.h"

namespace bench {

/// C = op(A) op(B), `count` times; op(A) is (m, k), op(B) is (k, n).
struct Product {
  bool ta, tb;
  std::int64_t m, n, k, count = 1;
  double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(count);
  }
};

/// What a training step of a workload cannot do without.
struct Demand {
  /// Its products, each in all the ways it may be cut: convolutions by 1, 4, 16 or all images at a time.
  std::vector<std::vector<Product>> products;
  double flops = 0;
  double parameters = 0;
  double optimizer_bytes = 0;   ///< read and written by one pass over parameters, gradients and state
  double optimizer_set = 0;     ///< bytes that this pass goes over: they decide which cache it runs in
  double activation_bytes = 0;  ///< of bias, activation, pooling and their gradients, each one pass
  double gather_bytes = 0;      ///< uint8 pixels from memory
  double input_bytes = 0;       ///< the same as floats
};
Demand demand(const Workload& w);

/// Measures with so many threads, each on data of its own; what was measured once is remembered.
class Machine {
 public:
  explicit Machine(int threads) : threads_(threads) {}
  /// GFLOP/s of fused multiply-adds that wait for nothing; 0 where the processor has neither AVX-512 nor AVX2.
  double peak_gflops();
  /// Bytes per second, read and written, of copying within so many bytes of memory (per thread).
  double copy_bandwidth(double working_set);
  /// Seconds in which the threads together do one product with the library's BLAS.
  double seconds(const Product& p);
  /// Seconds of a training step.
  struct Limit {
    double products = 0, optimizer = 0, activations = 0, gather = 0;
    double total() const { return products + optimizer + activations + gather; }
  };
  Limit step(const Workload& w);

 private:
  int threads_;
  double peak_ = 0;
  std::map<std::int64_t, double> copies_;
  std::map<std::tuple<bool, bool, std::int64_t, std::int64_t, std::int64_t>, double> products_;
};

/// Bytes of the caches of levels 1 to 3 that this processor has (sysfs), smallest first.
std::vector<std::int64_t> cache_sizes();

}  // namespace bench
