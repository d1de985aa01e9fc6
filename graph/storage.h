// Storage: reference-counted, 64-byte aligned bytes from a caching allocator.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <ebb/graph/ref.h>

namespace ebb {

/// Bytes behind one or more tensors. The header sits in front of the data, in the same block.
class alignas(64) Storage {
 public:
  /// Uninitialised bytes. Throws MemoryError, naming the size, when the system has none. `workspace` is memory that a
  /// kernel works in for the time of a call: MemoryStats counts it apart from values.
  static Ref<Storage> allocate(std::size_t bytes, bool workspace = false);

  std::byte* data() { return reinterpret_cast<std::byte*>(this) + sizeof(Storage); }  ///< the first byte
  std::size_t bytes() const { return bytes_; }                                        ///< as asked for
  /// What `bytes` of data take from the allocator: with the header, rounded up to a size class.
  static std::size_t footprint(std::size_t bytes);
  /// Counts in-place changes: backward refuses a saved value whose storage has moved on.
  std::uint32_t version() const { return version_; }
  void changed() { ++version_; }  ///< to be called on each change in place
  /// How many tensors of one shape its bytes hold, one behind the other, for ops that run on all of them at once
  /// (batch.h); 0 for an ordinary value.
  std::int64_t batch() const { return batch_; }
  /// Which vmap() or batch of jacobian() that is of (mode.batch_number); in another one it has no meaning.
  std::uint64_t batch_number() const { return batch_number_; }
  void set_batch(std::int64_t n, std::uint64_t number) { batch_ = n, batch_number_ = number; }  ///< engine use
  bool unique() const { return refs_.load(std::memory_order_acquire) == 1; }  ///< true when nobody else holds it

  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }  ///< for Ref
  /// For Ref: the last one gives the block back.
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }

 private:
  Storage(std::size_t bytes, const void* worker) : worker_(worker), bytes_(bytes) {}
  void destroy();

  std::atomic<std::int32_t> refs_{1};
  std::uint32_t version_ = 0;
  const void* worker_;  // of a workspace, the thread that asked for it
  std::size_t bytes_;
  std::int64_t batch_ = 0;
  std::uint64_t batch_number_ = 0;
};

/// Counters of the allocator that serves tensors and graph nodes.
struct MemoryStats {
  std::size_t in_use = 0;             ///< bytes handed out and not returned
  std::size_t peak = 0;               ///< highest in_use since the last reset_peak_memory()
  std::size_t workspace = 0;          ///< highest that kernels worked in at once, beside in_use, since that reset
  std::size_t cached = 0;             ///< bytes kept for reuse
  std::uint64_t system_requests = 0;  ///< blocks ever asked of the system: constant in a steady training step
  std::uint64_t requests = 0;         ///< blocks ever handed out
};
MemoryStats memory_stats();  ///< of the whole process
void reset_peak_memory();    ///< the peak is what is in use now
/// Returns the cached blocks to the system.
void release_cached_memory();

namespace detail {
/// A 64-byte aligned block; give it back with the same size. Blocks are reused by size class. `worker`, any address
/// that is a thread's own, makes it a workspace: the same thread gets it again if it can, since its cache holds it.
void* allocate_block(std::size_t bytes, const void* worker = nullptr);
void free_block(void* block, std::size_t bytes, const void* worker = nullptr) noexcept;
/// What a block of so many bytes counts for in MemoryStats.
std::size_t block_bytes(std::size_t bytes);
}  // namespace detail

}  // namespace ebb
