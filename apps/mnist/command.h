// What the sub-commands of mnist share beside apps/common/program.h: the model they name.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ebb/models/data/split.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/serialize.h>

#include "program.h"

namespace mnist {

namespace po = app::po;
using app::Exit, app::UsageError, app::Values, app::file_of, app::files_of, app::words, app::numbers, app::text,
    app::number, app::one_of, app::joined, app::data_options, app::load_data, app::use_threads, app::check_output,
    app::same_file, app::refuse_same_files;
using enum app::Exit;

extern const app::Command train_command, verify_command, evaluate_command, predict_command, data_command, plot_command,
    summary_command, search_command, reproduce_command, transfer_command, export_command, graph_command;

/// Samples in a batch, where --batch does not say otherwise.
inline constexpr std::int64_t default_batch = 128;

/// --model, --arch, --layers and the rest that describe a network.
po::options_description model_options();
/// The architecture that those options ask for, as a line of text (ebb/models/layers/architecture.h).
std::string architecture(const po::variables_map& values);
/// A network for digits of 28 x 28 pixels and ten classes; throws UsageError when the text describes none.
ebb::Sequential build_network(const std::string& architecture);

/// --json.
po::options_description json_option();
/// The name of the model's file; throws UsageError when none was given.
std::string model_file(const po::variables_map& values);
/// The model in it.
ebb::SavedModel load_file(const po::variables_map& values);
/// The network of a file when one is given, else the one that the options describe.
ebb::Sequential network(const po::variables_map& values);

/// --test-size, --split-seed, --stratify.
po::options_description split_options();
/// The split that they ask for; none without --test-size. Throws UsageError.
std::optional<ebb::SplitOptions> split_of(const po::variables_map& values);
/// Where none is asked for, the split of the training in the file, so that its test samples are those of then.
void use_split_of(const ebb::SavedModel& model, const std::string& file, po::variables_map& values);
/// The data, split anew if asked for.
ebb::Mnist split_data(const ebb::Mnist& data, const po::variables_map& values);
/// Under this key a training file keeps the options that were given, as a JSON list of command-line words.
inline constexpr const char* options_key = "mnist.options";
/// Those words; none when the file keeps none. Throws DataError.
std::vector<std::string> options_in(const ebb::SavedModel& model, const std::string& file);

/// Checks before long work that a result of so many bytes can be written where this option says; returns the name,
/// empty when the option was not given. What the command reads is never overwritten, and another file that is not empty
/// only with --force, or where `goes_on` says that it is written on. Throws UsageError or IoError.
std::string output_file(const po::variables_map& values, const char* option, bool goes_on = false,
                        std::uintmax_t bytes = 0);
/// Throws UsageError when an option's file is one that the command reads: a file named on the command line, one of the
/// data, or the network's description.
void refuse_input(const po::variables_map& values, const char* option, const std::string& file);

/// Throws DataError when a weight of the model is no finite number: nothing that is computed with it would mean
/// anything.
void refuse_not_finite(ebb::SavedModel& model, const std::string& file);

/// What pixels are multiplied by before the network sees them; throws DataError when the file does not say it well.
double scale_of(const ebb::SavedModel& model, const std::string& file);

}  // namespace mnist
