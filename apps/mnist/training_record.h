// What a training file tells of how it was made: the options, and the runs of mnist train that made it, each with its
// command, its machine and its data.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ebb/models/data/dataset.h>

#include "command.h"

namespace mnist {

/// The options of mnist train.
po::options_description train_options();

/// The options that decide what is trained, those left at their defaults too, as a JSON list of command-line words.
/// --arch is kept as the text `architecture`, never as the name of a file, which may hold another network by the time
/// it is read again.
std::string kept_options(const po::variables_map& values, const std::string& architecture);
/// Stores the options of a file below those of the command line, of which only --epochs and what says where results go
/// may be given. Throws UsageError, or DataError when the file holds no training of mnist train.
void restore_options(const ebb::SavedModel& saved, const std::string& file, po::variables_map& values);

/// One run of mnist train; a training that was resumed has several.
struct Run {
  std::int64_t steps = 0;                         ///< that the training had before
  int epochs = 0;                                 ///< that were asked for
  std::vector<std::string> command = {};          ///< its words
  std::map<std::string, std::string> facts = {};  ///< what its bits depend on: ebb's version, build_facts(), the data
};
/// Those in the file; for one of before, which has none, a single one without command and facts. Throws DataError.
std::vector<Run> runs_in(const ebb::SavedModel& saved, const std::string& file);
std::string to_json(const std::vector<Run>& runs);  ///< for the file
inline constexpr const char* runs_key = "mnist.runs";

/// What the bits of a training on these samples depend on here.
std::map<std::string, std::string> facts_here(const ebb::Dataset& train, const ebb::Dataset& test);
/// "blas: X then, Y here" for each fact that differs; nothing for those that are not recorded.
std::vector<std::string> differences(const std::map<std::string, std::string>& then,
                                     const std::map<std::string, std::string>& here);

}  // namespace mnist
