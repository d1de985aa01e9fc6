// The one thread policy: our own loops split work on a fixed grid, and each block calls single-threaded BLAS.
#pragma once
#include <cstdint>

namespace ebb {

/// Threads that the ops of this process use; results have the same bits for any number. Default: the processors that
/// this process may use, by its affinity (taskset) and by the time that its control groups grant. They are started at
/// once; where the system starts fewer, threads() says how many. May be called while others compute. One loop at a time
/// runs on them: other threads of the program meanwhile run theirs alone. The child of a fork starts its own at its
/// first loop, whatever other threads did at that time. Throws ValueError below 1 or above 256, and from inside an op.
void set_threads(int n);
int threads();  ///< number of threads in use

/// While one lives, this thread, and the pool when it works for it, takes denormal numbers (float32: below 1.2e-38) for
/// zero and makes none. They mean nothing to a training, and on many processors each costs as much as a hundred others:
/// a saturated sigmoid is full of them, and so is the state of an optimizer for weights that get no gradient. fit,
/// evaluate, predict and each step of an optimizer have one; a loop of your own may want it. Nothing happens where the
/// processor has no such mode (it is SSE's, and AArch64's).
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
