#include <ebb/ops/kernels/threads.h>

#include <fmt/core.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/processors.h>

namespace ebb {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// How this thread rounds and what it does with denormals: a register of the processor.
#if defined(__x86_64__)
constexpr std::uint64_t flush_bits = _MM_FLUSH_ZERO_ON | 0x0040;  // results and (denormals are zeros) inputs
std::uint64_t float_mode() { return _mm_getcsr(); }
void set_float_mode(std::uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr std::uint64_t flush_bits = 1 << 24;
std::uint64_t float_mode() {
  std::uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(std::uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
constexpr std::uint64_t flush_bits = 0;
std::uint64_t float_mode() { return 0; }
void set_float_mode(std::uint64_t) {}
#endif

// How often a thread looks before it gives its core away: a look with its pause takes 10 to 110 ns. Nearly all gaps
// between two loops of a training step are shorter than a worker looks (0.2 ms or more), and to wake one that sleeps
// costs the caller some microseconds. The caller's wait for the last blocks is shorter than a block, or a worker was
// taken off its core: then to go on looking would keep it off.
constexpr int looks_of_worker = 20000, looks_of_caller = 4000;

thread_local bool inside_block = false;
thread_local int index_in_pool = 0;

// One job at a time. Each thread has its share of the blocks, the same part of every job, so that what it wrote in one
// loop it finds in its own cache in the next; when its share is done it helps with the others'. A ticket is {job
// number, next block}: a worker that comes late finds another job number and takes nothing, so the job can live on its
// caller's stack. Workers spin for some microseconds (the gap between two loops of a training step), then sleep in the
// kernel.
class Pool {
 public:
  /// The caller's thread and up to n - 1 others: as many as the system starts.
  explicit Pool(std::uint32_t n) : shares_(n) {
    workers_.reserve(n);
    try {
      for (std::uint32_t i = 1; i < n; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {  // a limit on processes
    } catch (const std::bad_alloc&) {
    }
    threads_ = static_cast<std::uint32_t>(workers_.size()) + 1;  // before the first job, which is what workers wait for
  }
  ~Pool() {
    stop_ = true;
    wake();
    for (std::thread& t : workers_) t.join();
  }

  std::uint32_t threads() const { return threads_; }

  void run(std::uint32_t blocks, void (*body)(const void*, std::int64_t), const void* context) {
    ++job_;
    for (std::uint32_t i = 0; i < threads_; ++i) shares_[i].ticket.store(pack(job_, closed), std::memory_order_release);
    body_ = body;
    context_ = context;
    mode_ = float_mode();
    done_.store(0, std::memory_order_relaxed);
    blocks_.store(blocks, std::memory_order_release);
    for (std::uint32_t i = 0; i < threads_; ++i)
      shares_[i].ticket.store(pack(job_, share_begin(i, blocks)), std::memory_order_release);
    wake();
    take(job_, 0);
    for (int looks = 0; done_.load(std::memory_order_acquire) != blocks; ++looks) {
      if (looks < looks_of_caller) pause();
      else std::this_thread::yield();
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  static constexpr std::uint32_t closed = 0xFFFFFFFF;
  static std::uint64_t pack(std::uint32_t job, std::uint32_t block) { return std::uint64_t{job} << 32 | block; }

  struct alignas(64) Share {
    std::atomic<std::uint64_t> ticket{pack(0, closed)};
  };
  std::uint32_t share_begin(std::size_t i, std::uint32_t blocks) const {
    return static_cast<std::uint32_t>(i * blocks / threads_);
  }

  void wake() {
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
  }

  void take(std::uint32_t job, std::size_t own) {
    inside_block = true;
    for (std::size_t k = 0; k < threads_; ++k) take_share(job, (own + k) % threads_);
    inside_block = false;
  }

  void take_share(std::uint32_t job, std::size_t i) {
    std::atomic<std::uint64_t>& ticket = shares_[i].ticket;
    std::uint64_t t = ticket.load(std::memory_order_acquire);
    while (t >> 32 == job &&
           static_cast<std::uint32_t>(t) < share_begin(i + 1, blocks_.load(std::memory_order_acquire))) {
      if (!ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel)) continue;
      if (float_mode() != mode_) set_float_mode(mode_);  // a block's bits are the caller's
      try {
        body_(context_, static_cast<std::int64_t>(t & closed));
      } catch (...) {  // kept for the caller: the other blocks still use its stack, and a worker must not die of it
        const std::lock_guard lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
      done_.fetch_add(1, std::memory_order_acq_rel);
      t = ticket.load(std::memory_order_acquire);
    }
  }

  void work(std::size_t own) {
    index_in_pool = static_cast<int>(own);
    detail::mode.as_one = true;  // kernels alone run here, on what the caller was allowed to read
    std::uint32_t seen = 0;
    while (!stop_) {
      std::uint32_t now = started_.load(std::memory_order_acquire);
      for (int looks = 0; now == seen && looks < looks_of_worker; ++looks) {
        pause();
        now = started_.load(std::memory_order_acquire);
      }
      if (now == seen) {
        started_.wait(seen, std::memory_order_acquire);
        continue;
      }
      seen = now;
      take(static_cast<std::uint32_t>(shares_[own].ticket.load(std::memory_order_acquire) >> 32), own);
    }
  }

  std::vector<Share> shares_;
  std::uint32_t threads_ = 1;
  std::atomic<std::uint32_t> blocks_{0}, done_{0}, started_{0};
  std::uint32_t job_ = 0;
  void (*body_)(const void*, std::int64_t) = nullptr;
  const void* context_ = nullptr;
  std::uint64_t mode_ = 0;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

struct Policy {
  std::mutex mutex;  // held while a job runs: a second caller does its blocks alone
  std::unique_ptr<Pool> pool;
  std::atomic<int> threads{std::min(detail::processors(), detail::most_threads)};
  Pool* of_parent = nullptr;

  Policy();
  /// The pool of so many threads. They may be fewer than asked for.
  void start(int n) {
    pool.reset();
    threads = n;
    if (n == 1) return;
    pool = std::make_unique<Pool>(static_cast<std::uint32_t>(n));
    threads = static_cast<int>(pool->threads());
  }
};
// Never destroyed: a worker asleep at exit needs the pool for as long as the process lives.
Policy& policy() {
  static Policy& p = *new Policy;
  return p;
}

// The child of a fork has one thread, the one that forked: its pool is made anew. What was the parent's is left alone,
// since no worker is there to end, and the mutex may be closed for a job that nobody will end.
Policy::Policy() {
  ::pthread_atfork(nullptr, nullptr, [] {
    Policy& p = policy();
    p.of_parent = p.pool.release();
    ::new (&p.mutex) std::mutex;
    inside_block = false;
    index_in_pool = 0;
  });
}

}  // namespace

void set_threads(int n) {
  if (n < 1 || n > detail::most_threads)
    fail<ValueError>("set_threads", fmt::format("1 to {} threads, got {}", detail::most_threads, n));
  if (inside_block) fail<ValueError>("set_threads", "called from inside a loop of the pool");
  const std::lock_guard lock(policy().mutex);
  if (n != policy().threads || (n > 1 && !policy().pool)) policy().start(n);
}

int threads() { return policy().threads; }

FlushDenormals::FlushDenormals() : before_(float_mode()) { set_float_mode(before_ | flush_bits); }
FlushDenormals::~FlushDenormals() { set_float_mode(before_); }

namespace detail {

int thread_index() { return index_in_pool; }

void run_blocks(std::int64_t blocks, void (*body)(const void*, std::int64_t), const void* context) {
  if (blocks > 1 && blocks < 0x7FFFFFFF && !inside_block && policy().threads.load(std::memory_order_relaxed) > 1) {
    const std::unique_lock lock(policy().mutex, std::try_to_lock);
    if (lock) {
      if (!policy().pool) policy().start(policy().threads);
      if (Pool* pool = policy().pool.get()) return pool->run(static_cast<std::uint32_t>(blocks), body, context);
    }
  }
  for (std::int64_t i = 0; i < blocks; ++i) body(context, i);
}

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

namespace {
Isa asked_isa() {
  const char* asked = std::getenv("EBB_ISA");
  for (const Isa i : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (asked && std::strcmp(asked, name_of(i)) == 0 && i <= best_isa()) return i;
  return best_isa();
}
std::atomic<Isa> chosen{asked_isa()};
}  // namespace

Isa isa() { return chosen.load(std::memory_order_relaxed); }
void set_isa(Isa isa) { chosen = std::min(isa, best_isa()); }

}  // namespace detail
}  // namespace ebb
