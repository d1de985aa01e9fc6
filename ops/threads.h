// The one thread policy: our own loops split work on a fixed grid, and each block calls single-threaded BLAS.
#pragma once

namespace ebb {

/// Threads that the ops of this process use; results have the same bits for any number. Default: the processors
/// that this process may run on. Throws ValueError below 1 or above 256.
void set_threads(int n);
int threads();  ///< number of threads in use

}  // namespace ebb
