// Internal: how a convolution is cut for threads and caches, and what each way to compute it has to offer.
#pragma once
#include <algorithm>
#include <cstdint>

#include <ebb/graph/tensor.h>
#include <ebb/ops/kernels/convolve_tail.h>
#include <ebb/ops/kernels/window.h>

namespace ebb::detail {

/// Half of the L2 cache of a server's core, 1 MiB; all of a smaller one.
inline constexpr std::int64_t half_l2 = 512 << 10;
/// Half of an L1 cache, which has 32 KiB or more.
inline constexpr std::int64_t half_l1 = 16 << 10;
/// Gradients of a kernel are summed over images in so many groups, and the groups are added in order: the bits do not
/// depend on the number of threads, and up to four threads have even shares.
inline constexpr std::int64_t most_groups = 4;

/// Working memory of one block.
template <class T>
struct Scratch {
  Tensor memory;
  T* data;
  explicit Scratch(std::int64_t n)
      : memory(Tensor::workspace({n}, dtype_of<T>())), data(memory.mutable_values<T>().data()) {}
};

/// What is asked for: the value, the gradient of the kernel, or that of the image and perhaps the kernel's too.
enum class Pass { forward, kernel_gradient, image_gradient };

/// The arguments of convolve() and convolve_back() that the algorithms share. Backward, x or k may be null.
template <class T>
struct Convolution {
  const Window& v;
  std::int64_t out;  // channels
  const T *x, *k;
  Pass pass;
  std::int64_t outputs() const { return v.positions() * out; }  // elements of one image's result
  std::int64_t kernel_size() const { return v.patch() * out; }  // elements of the kernel
};

// An algorithm A is a struct with these members. convolve.cpp has the loops over blocks and pieces, and chooses.
//   static bool suits(const Convolution<T>& c)      whether it can compute c, and is worth it
//   explicit A(const Convolution<T>& c)
//   static constexpr Cut cut                        what its pieces are
//   std::int64_t block() const                      images in a block, which one thread takes
//   Scratch<T> scratch(std::int64_t images) const   working memory for a block
//   void forward(const Piece& p, const T* bias, bool relu, T* y, T* scratch)
//     y = the outputs of the piece
//   bool backward(const Piece& p, const T* dy, T* dx, T* sums, bool add, T* scratch)
//     From dy, the gradient of the piece's outputs: the images' gradients, unless dx is null; and a part of the
//     kernel's gradient, unless sums is null, which is added to sums or, without `add`, written there.
//   std::int64_t sums_size() const                  elements of such a part
//   bool kernel_gradient(std::int64_t parts, const T* sums, T* dk) const
//     dk = the gradient of the kernel from so many parts, one behind the other
// Backward is computed once more by the next algorithm when a call returned false.

/// Pieces of a block: all of its images, one image at a time, or a few rows of one.
enum class Cut { blocks, images, rows };

/// Some images, and for Cut::rows some rows of their outputs.
struct Piece {
  std::int64_t begin, end;   // images
  std::int64_t first, last;  // rows of outputs
  const Window& pool;        // of the tail, over these outputs
  std::int64_t at;           // where their pooled elements begin among all of the result
};

/// The pieces of a convolution whose outputs are pooled.
class Pieces {
 public:
  /// Cut::rows: the outputs of a piece stay in the L1 cache until they are pooled, and their gradients until they are
  /// used.
  template <class T>
  Pieces(const Convolution<T>& c, Pair pool, Cut cut) : cut_(cut), all_(pool_of(c.v, c.out, pool)), rows_(all_.oh) {
    constexpr std::int64_t fits = half_l1 / static_cast<std::int64_t>(sizeof(T));
    if (cut == Cut::rows) rows_ = std::clamp<std::int64_t>(fits / (pool.h * c.v.ow * c.out), 1, rows_);
  }
  /// Elements of the outputs of the largest piece in a block of so many images.
  std::int64_t outputs(std::int64_t images) const {
    if (cut_ == Cut::blocks) return images * all_.image_size();
    return (rows_ * all_.kh + all_.h - all_.oh * all_.kh) * all_.w * all_.c;  // with rows that no window covers
  }
  /// use(piece) for each piece of images [begin, end).
  template <class Use>
  void each(std::int64_t begin, std::int64_t end, const Use& use) const {
    const std::int64_t pooled = all_.positions() * all_.c;
    if (cut_ == Cut::blocks) return use(Piece{begin, end, 0, all_.h, all_, begin * pooled});
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t r = 0; r < all_.oh; r += rows_) {
        Window strip = all_;
        strip.oh = std::min(rows_, all_.oh - r);
        const std::int64_t first = r * all_.kh,
                           last = r + strip.oh == all_.oh ? all_.h : first + strip.oh * all_.kh;  // with what is left
        strip.h = last - first;
        use(Piece{i, i + 1, first, last, strip, i * pooled + r * all_.ow * all_.c});
      }
  }

 private:
  Cut cut_;
  Window all_;         // the pool of a whole image
  std::int64_t rows_;  // of windows in a piece
};

/// kernel_gradient() where the parts are gradients of the kernel: their sum.
template <class T>
void add_parts(std::int64_t size, std::int64_t parts, const T* sums, T* dk) {
  std::fill(dk, dk + size, T(0));
  for (std::int64_t part = 0; part < parts; ++part)
    for (std::int64_t j = 0; j < size; ++j) dk[j] += sums[part * size + j];
}

}  // namespace ebb::detail
