#include <ebb/graph/storage.h>

#include <fmt/core.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#include <ebb/graph/error.h>

namespace ebb {
namespace {

// Size classes: four to each power of two, so that rounding wastes at most a quarter.
constexpr std::size_t smallest = 64;
constexpr int classes = 4 * 48;

int class_of(std::size_t bytes) {
  if (bytes <= smallest) return 0;
  const int log = static_cast<int>(std::bit_width(bytes - 1)) - 1;  // bytes is in (2^log, 2^(log+1)]
  const std::size_t quarter = (std::size_t{1} << log) / 4;
  const auto step = (bytes - (std::size_t{1} << log) + quarter - 1) / quarter;  // 1..4
  return 4 * (log - 6) + static_cast<int>(step);
}

std::size_t bytes_of(int size_class) {
  const int log = 6 + size_class / 4;
  return (std::size_t{1} << log) / 4 * static_cast<std::size_t>(4 + size_class % 4);
}

// A block that is kept for reuse would hide from AddressSanitizer that it was used after it was freed.
#ifdef __SANITIZE_ADDRESS__
constexpr bool reuse = false;
#else
constexpr bool reuse = true;
#endif

// Memory of the system. Large blocks in pages of 2 MiB where the kernel has them: a data set, whose samples are read in
// any order, has more pages of 4 KiB than a processor can keep in mind.
void* from_system(std::size_t size) {
  constexpr std::size_t huge = std::size_t{2} << 20;
  const std::size_t unit = size < 4 * huge ? 64 : huge;
  void* const block = std::aligned_alloc(unit, (size + unit - 1) / unit * unit);
#ifdef MADV_HUGEPAGE
  if (block && unit == huge) ::madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

// A free block holds the link to the next one. One lock for all: uncontended it costs less than the bookkeeping that
// per-thread caches need when one thread produces what another frees. A workspace goes to the thread that had it
// before: two threads that swap theirs wait for lines of each other's cache.
struct Pool {
  struct Free {
    Free* next;
    const void* worker;
  };
  std::mutex mutex;
  std::array<std::array<Free*, classes>, 2> lists{};  // of values, of workspaces
  MemoryStats stats;
  std::size_t workspace = 0;  // in use now

  void* take(int c, std::size_t size, const void* worker) {
    std::size_t highest = 0;
    {
      const std::lock_guard lock(mutex);
      ++stats.requests;
      std::size_t& used = worker ? workspace : stats.in_use;
      std::size_t& peak = worker ? stats.workspace : stats.peak;
      used += size;
      highest = std::exchange(peak, std::max(peak, used));
      Free** link = &list(c, worker);
      for (Free** own = link; worker && *own; own = &(*own)->next)
        if ((*own)->worker == worker) {
          link = own;
          break;
        }
      if (Free* block = *link) {
        *link = block->next;
        stats.cached -= size;
        return block;
      }
      ++stats.system_requests;
    }
    void* block = from_system(size);
    if (!block) {
      trim();
      block = from_system(size);
    }
    if (!block) {
      const std::lock_guard lock(mutex);
      (worker ? workspace : stats.in_use) -= size;
      (worker ? stats.workspace : stats.peak) = highest;
    }
    return block;
  }

  void give(void* block, int c, std::size_t size, const void* worker) {
    const std::lock_guard lock(mutex);
    (worker ? workspace : stats.in_use) -= size;
    if (!reuse) return std::free(block);
    list(c, worker) = ::new (block) Free{list(c, worker), worker};
    stats.cached += size;
  }

  Free*& list(int c, const void* worker) { return lists[worker ? 1 : 0][static_cast<std::size_t>(c)]; }

  void trim() {
    const std::lock_guard lock(mutex);
    for (auto& kind : lists)
      for (Free*& list : kind)
        while (list) std::free(std::exchange(list, list->next));
    stats.cached = 0;
  }
};

// Never destroyed: tensors with static lifetime may be freed after any destructor of ours would have run.
Pool& pool() {
  static Pool& p = *new Pool;
  return p;
}

// Whoever forks has the lock, so that it is open in the child.
[[maybe_unused]] const int forks_with_pool =
    ::pthread_atfork([] { pool().mutex.lock(); }, [] { pool().mutex.unlock(); }, [] { pool().mutex.unlock(); });

const void* this_thread() {
  thread_local char here;
  return &here;
}

}  // namespace

namespace detail {
namespace {
[[noreturn]] void no_memory(std::size_t bytes) {
  const auto mib = [](std::size_t n) { return static_cast<double>(n) / (1 << 20); };
  rlimit limit{};
  const bool limited = ::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  fail<MemoryError>(
      "allocate",
      fmt::format("no memory for {:.1f} MiB ({:.1f} MiB in use{})", mib(bytes), mib(memory_stats().in_use),
                  limited ? fmt::format(", of {:.0f} MiB of address space by ulimit -v", mib(limit.rlim_cur)) : ""));
}
}  // namespace

void* allocate_block(std::size_t bytes, const void* worker) {
  if (bytes > std::size_t{1} << 50) fail<MemoryError>("allocate", fmt::format("{} bytes asked for", bytes));
  const int c = class_of(bytes);
  void* block = pool().take(c, bytes_of(c), worker);
  if (!block) no_memory(bytes);
  return block;
}

void free_block(void* block, std::size_t bytes, const void* worker) noexcept {
  const int c = class_of(bytes);
  pool().give(block, c, bytes_of(c), worker);
}

std::size_t block_bytes(std::size_t bytes) { return bytes_of(class_of(bytes)); }

}  // namespace detail

std::size_t Storage::footprint(std::size_t bytes) { return detail::block_bytes(sizeof(Storage) + bytes); }

Ref<Storage> Storage::allocate(std::size_t bytes, bool workspace) {
  const void* const worker = workspace ? this_thread() : nullptr;
  return Ref<Storage>::adopt(::new (detail::allocate_block(sizeof(Storage) + bytes, worker)) Storage(bytes, worker));
}

void Storage::destroy() { detail::free_block(this, sizeof(Storage) + bytes_, worker_); }

MemoryStats memory_stats() {
  const std::lock_guard lock(pool().mutex);
  return pool().stats;
}

void reset_peak_memory() {
  const std::lock_guard lock(pool().mutex);
  pool().stats.peak = pool().stats.in_use;
  pool().stats.workspace = pool().workspace;
}

void release_cached_memory() { pool().trim(); }

}  // namespace ebb
