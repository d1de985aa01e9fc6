// Generated digits: an MNIST-like data set that needs no files.
#pragma once
#include <cstdint>

#include <ebb/models/data/mnist.h>

namespace ebb {

/// Digits drawn as pen strokes in several styles each, then bent, turned, shifted, smudged and covered with
/// noise: hard enough that a linear classifier stays well behind a convolutional network. Each image depends
/// only on the seed, its part and its index, and on no library's random numbers or mathematics: same seed,
/// same bits. Throws ValueError on a negative count.
Mnist synthetic_digits(std::int64_t train = 60000, std::int64_t test = 10000, std::uint64_t seed = 1);

}  // namespace ebb
