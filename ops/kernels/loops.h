// Internal: the only parallel loops, and the choice of instruction set.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

// The one macro: an attribute that lambdas take only in this spelling.
#define EBB_INLINE __attribute__((always_inline))

namespace ebb::detail {

/// Runs body(block) for every block of [0, blocks) on the pool's threads and returns when all are done. Which thread
/// takes which block is left to chance; what a block computes must not depend on it.
void run_blocks(std::int64_t blocks, void (*body)(const void*, std::int64_t), const void* context);

/// The calling thread's place in the pool: 0 for a thread that is not of the pool, as who calls run_blocks.
int thread_index();
inline constexpr int most_threads = 256;

/// body(begin, end) over [0, n) on the fixed grid of `block` elements: the same pieces for any number of threads.
template <class F>
void parallel_for(std::int64_t n, std::int64_t block, const F& body) {
  struct Context {
    const F* body;
    std::int64_t n, block;
  } context{&body, n, block};
  run_blocks(
      n <= block ? n > 0 : (n + block - 1) / block,
      [](const void* p, std::int64_t i) {
        const auto& c = *static_cast<const Context*>(p);
        (*c.body)(i* c.block, std::min(c.n, (i + 1) * c.block));
      },
      &context);
}

/// Instruction sets that kernels exist in; one binary holds all of them.
enum class Isa { baseline, avx2, avx512 };
/// The set in use: the processor's best, or what EBB_ISA (baseline, avx2, avx512) or set_isa ask for.
Isa isa();
void set_isa(Isa isa);
Isa best_isa();
const char* name_of(Isa isa);

// A function body compiled three times: the callee is always inlined, so its loops are vectorized for the wrapper's
// instruction set. Nothing but such a body may be called through these. Where there are better sets, the baseline is
// compiled for size: it runs only on x86-64 processors without AVX2, made before 2013 for the most part.
template <class F>
__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi,bmi2,prefer-vector-width=512"), noinline)) void
run_avx512(const F& f) {
  f();
}
template <class F>
__attribute__((target("avx2,fma,bmi,bmi2"), noinline)) void run_avx2(const F& f) {
  f();
}
template <class F>
#if defined(__x86_64__)
__attribute__((cold, noinline))
#endif
void run_baseline(const F& f) {
  f();
}
/// Runs f (a lambda marked EBB_INLINE) with the best instruction set.
template <class F>
void simd(const F& f) {
  switch (isa()) {
    case Isa::avx512: return run_avx512(f);
    case Isa::avx2: return run_avx2(f);
    case Isa::baseline: return run_baseline(f);
  }
}

/// The same for a loop over elements of type T: all sets for float32; float64, in which gradients are proven, does
/// without the widest, and integers have one version.
template <class T, class F>
void simd_for(const F& f) {
  if constexpr (std::is_same_v<T, float>) simd(f);
  else if constexpr (std::is_same_v<T, double>) isa() == Isa::baseline ? run_baseline(f) : run_avx2(f);
  else f();
}

/// Both: body(begin, end), a lambda marked EBB_INLINE, over [0, n) for elements of type T.
template <class T, class F>
void parallel_simd_for(std::int64_t n, std::int64_t block, const F& body) {
  parallel_for(n, block, [&](std::int64_t begin, std::int64_t end) {
    simd_for<T>([&]() EBB_INLINE {
      const F own = body;  // no store can change what a local copy holds, so that it stays in registers
      own(begin, end);
    });
  });
}

/// An integer as wide as T, for loops over both: one width is what vectorizes.
template <class T>
using IntegerOf = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

/// Whether a loop exists for several instruction sets. One that calls the C library for each element gains nothing from
/// them. A long function of two operands is compiled for whole ones alone: a number that meets a row is repeated for
/// it.
enum class Loop { vector, calls, whole };
template <Loop how, class T, class F>
void run_loop(const F& f) {
  if constexpr (how != Loop::calls) simd_for<T>(f);
  else f();
}

/// Elements of one block of an elementwise loop: big enough to hide the hand-over, small enough for L2.
inline constexpr std::int64_t elementwise_block = 1 << 15;

/// The block for n things of which `block` are worth handing over: a number of blocks that two or four threads share
/// evenly, each of whole units, such as the floats of a cache line.
inline std::int64_t even_block(std::int64_t n, std::int64_t block, std::int64_t unit) {
  if (n <= block) return std::max<std::int64_t>(1, n);
  const std::int64_t blocks = 4 * ((n - 1) / (4 * std::max<std::int64_t>(1, block)) + 1);
  return ((n - 1) / (blocks * unit) + 1) * unit;
}
/// The same for rows of so many elements.
inline std::int64_t even_rows(std::int64_t rows, std::int64_t elements) {
  return even_block(rows, elementwise_block / std::max<std::int64_t>(1, elements), 1);
}

}  // namespace ebb::detail
