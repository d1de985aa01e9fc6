// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC11, section 3.3).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// A stream of random numbers: {seed, stream, position}. Numbers depend on these three alone, so a saved generator
/// continues exactly, and streams of one seed are independent.
class Generator {
 public:
  /// At position 0.
  explicit Generator(std::uint64_t seed = 0, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  std::uint64_t seed() const { return seed_; }      ///< as given
  std::uint64_t stream() const { return stream_; }  ///< as given
  /// Blocks of four 32-bit numbers drawn so far.
  std::uint64_t position() const { return position_; }
  void seek(std::uint64_t position) { position_ = position; }  ///< goes on from there, as position() told it

  /// The next numbers, in whole blocks of four (a rest is thrown away).
  void fill(std::span<std::uint32_t> out);
  std::uint64_t next_u64();  ///< 64 random bits, from one block
  /// Uniform integer in [0, n).
  std::uint64_t below(std::uint64_t n);
  /// Uniform in [0, 1) with 53 bits.
  double uniform();
  /// A random order of 0 .. n-1 (Fisher-Yates from the top).
  std::vector<std::int64_t> permutation(std::int64_t n);

 private:
  std::uint64_t seed_, stream_, position_ = 0;
};

/// This thread's generator, used where none is given.
Generator& default_generator();
/// Restarts this thread's default generator.
void manual_seed(std::uint64_t seed);

/// Uniform in [low, high).
Tensor uniform(const Shape& shape, double low, double high, DType dtype = DType::f32,
               Generator& generator = default_generator());
/// Normally distributed (Box and Muller 1958).
Tensor normal(const Shape& shape, double mean, double stddev, DType dtype = DType::f32,
              Generator& generator = default_generator());
/// Standard normal.
Tensor randn(const Shape& shape, DType dtype = DType::f32, Generator& generator = default_generator());
/// Uniform in [0, 1).
Tensor rand(const Shape& shape, DType dtype = DType::f32, Generator& generator = default_generator());
/// Each element `value` with probability `keep`, else 0.
Tensor bernoulli(const Shape& shape, double keep, double value, DType dtype = DType::f32,
                 Generator& generator = default_generator());

}  // namespace ebb
