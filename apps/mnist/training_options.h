// A training as the options of the command line describe it: for mnist train, and for mnist search, which
// tries many.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ebb/models/train/fit.h>
#include <ebb/models/train/optimizer.h>

#include "command.h"

namespace mnist {

/// Optimizer, rate, epochs, validation and the rest; not the model, the data or the output.
po::options_description training_options();
/// --save, of which `saved` says what it writes, --force, --json and --quiet.
po::options_description output_options(const char* saved);

/// --model best is a set of values for these options; they stand where the user gave none.
void use_preset(po::variables_map& values);

/// The first --limit of them. Throws UsageError when there are fewer.
ebb::Dataset first_of(const po::variables_map& values, const ebb::Dataset& samples);
/// The same. Throws ValueError when --validation-split leaves an empty part.
ebb::Dataset limited(const po::variables_map& values, const ebb::Dataset& samples);
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
/// The samples to train on: all, or the first of --limit. The training takes from them what it needs before it
/// begins: the weights of --class-weight, and unless it was begun before, the mean and scale of a first layer
/// that standardizes.
ebb::Dataset training_samples(const po::variables_map& values, const ebb::Mnist& data, Training& training,
                              bool resumed = false);

}  // namespace mnist
