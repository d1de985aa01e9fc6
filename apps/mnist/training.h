// A training as the options of the command line describe it: for mnist train, and for mnist search, which
// tries many.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "command.h"

namespace mnist {

/// Optimiser, rate, epochs, validation and the rest; not the model, the data or the output.
po::options_description training_options();

/// --model best is a set of values for options; they stand where the user gave none. `options` holds all of
/// the command's.
void use_preset(const po::options_description& options, po::variables_map& values);

struct Training {
  std::string architecture;
  std::uint64_t seed;
  ebb::Sequential net;
  std::unique_ptr<ebb::Optimizer> optimizer;
  ebb::FitOptions fit;  ///< without validation data
  double scale;         ///< what pixels are multiplied by
  bool validates_on_test;
};
/// Checks the options and builds the network. Throws UsageError.
Training make_training(const po::variables_map& values);
/// The samples to train on: all, or the first of --limit.
ebb::Dataset training_samples(const po::variables_map& values, const ebb::Mnist& data, double scale);
/// What --class-weight balanced gives each digit: samples / (10 samples of the digit); nothing without it.
std::vector<double> class_weights(const po::variables_map& values, const ebb::Dataset& samples);

}  // namespace mnist
