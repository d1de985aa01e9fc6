// What bench compare found, and how it is shown. Pure functions of numbers.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "workloads.h"

namespace bench {

/// One program with one workload: a number per round (all programs in the same order of rounds), and one per start.
struct Measured {
  std::string name = "";             ///< "ebb", or the peer's configuration: "base", "flat+tc", ...
  std::vector<double> seconds = {};  ///< of an epoch; for inference, of a sample
  std::vector<double> first_step = {}, memory_mb = {};
};

/// One row: ours and the peer in each of its configurations.
struct Cell {
  Workload workload;
  int threads = 1;
  Measured ours = {};
  std::vector<Measured> peers = {};
  double limit = 0;  ///< seconds of an epoch that this machine allows; 0: not known
};

/// After the same whole epochs: a number for each seed.
struct Learned {
  std::string workload;
  int epochs = 0;
  std::vector<double> ours = {}, peer = {};           ///< test accuracy
  std::vector<double> our_loss = {}, peer_loss = {};  ///< mean of the last epoch
  /// The medians are within one point of each other, or each is in the range of the other's seeds; or neither program
  /// has learned anything yet.
  bool equal() const;
};

struct Range {
  double low, middle, high;  ///< minimum, median, maximum
};
Range range(const std::vector<double>& values);
/// The peer's configuration with the lowest median. Throws std::logic_error when there is none.
const Measured& best_peer(const Cell& cell);
/// The peer's median at its best over ours; low and high are over the rounds, each with what ran next to it.
Range ratio(const Cell& cell);
/// What the ratio against LibTorch is held to.
double least(const Cell& cell);

/// Everything about a run that is not in a cell.
struct Run {
  std::string date, processor, ours, peer;  ///< "2024-05-01 12:00 UTC", "AMD EPYC, 2 processors", versions
  std::string notes;                        ///< what the peer's configurations were
  bool against_torch = true;                ///< else against another build, for which no ratio is held to anything
  std::int64_t samples = 60000;             ///< in an epoch
  std::vector<Cell> training = {}, inference = {};
  std::vector<Learned> learned = {};
};

/// One line per cell, for a terminal.
std::string text_table(const Run& run);
/// One row per workload, for a page.
std::string markdown_table(const Run& run);
/// The ratios as an SVG document: a bar for each number of threads, against LibTorch a mark at what it is held to.
std::string chart(const Run& run);
nlohmann::ordered_json to_json(const Run& run);

}  // namespace bench
