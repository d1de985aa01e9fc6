// The training runs of five published Keras notebooks, as data.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace mnist {

/// A loss and an accuracy as a notebook printed them; NaN where it printed none.
struct Score {
  double loss = NAN, accuracy = NAN;
};

/// Where a run's samples come from.
enum class Source {
  split,   ///< the 60,000 training and 10,000 test digits
  table,   ///< all 70,000 in one table, training digits first
  seventh  ///< that table cut by scikit-learn's train_test_split(test_size = 1/7, random_state = 0)
};

/// Some runs do not do what their notebook says they do: then there is one run of each reading.
enum class Reading { both, as_written, as_meant };

struct Experiment {
  std::string id;            ///< "N2-2"
  std::string about;         ///< what the notebook calls it, or what to know of it
  std::string architecture;  ///< ebb/models/layers/architecture.h
  std::string optimizer;     ///< adam, rmsprop or sgd, with Keras' defaults
  Source source = Source::split;
  bool scaled = true;           ///< pixels divided by 255, else 0 to 255
  double validation_split = 0;  ///< 0: the test set is the validation set
  std::int64_t batch = 32;
  int epochs = 1;
  int patience = -1;            ///< of early stopping on val_loss; -1: none
  std::string continues = {};   ///< starts from the weights that this run ended with
  bool keeps_optimizer = true;  ///< ... and its optimizer goes on
  Reading reading = Reading::both;
  bool one_seed = false;                         ///< too long to repeat
  double band = 0.5;                             ///< points of accuracy that ours may be below the published one
  Score train = {}, validation = {}, test = {};  ///< after the last epoch
};

/// All runs, each after the one it continues.
const std::vector<Experiment>& experiments();

}  // namespace mnist
