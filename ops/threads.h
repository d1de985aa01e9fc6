// The one thread policy: our own loops split work on a fixed grid, and each block calls single-threaded BLAS.
#pragma once
#include <cstdint>

namespace ebb {

/// Threads that the ops of this process use; results have the same bits for any number. Default: the processors
/// that this process may run on. Throws ValueError below 1 or above 256.
void set_threads(int n);
int threads();  ///< number of threads in use

/// While one lives, this thread, and the pool when it works for it, takes denormal numbers (float32: below 1.2e-38) for zero
/// and makes none. They mean nothing to a training, and on many processors each costs as much as a hundred others: a saturated
/// sigmoid is full of them, and so is the state of an optimiser for weights that get no gradient. fit, evaluate, predict and
/// each step of an optimiser have one; a loop of your own may want it. Nothing happens where the processor has no such mode
/// (it is SSE's, and AArch64's).
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  std::uint64_t before_;
};

}  // namespace ebb
