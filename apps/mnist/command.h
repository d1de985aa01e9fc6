// What the sub-commands of mnist share: options, messages, the model and the data they name.
#pragma once
#include <boost/program_options.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <ebb/ebb.h>

namespace mnist {

namespace po = boost::program_options;

/// A mistake in the command line: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum Exit { ok = 0, failed = 1, usage = 2, interrupted = 130 };

struct Command {
  const char* name;
  const char* about;
  int (*run)(const std::vector<std::string>& args);
};
int train(const std::vector<std::string>& args);
int evaluate(const std::vector<std::string>& args);
int predict(const std::vector<std::string>& args);
int summary(const std::vector<std::string>& args);
int graph(const std::vector<std::string>& args);
int search(const std::vector<std::string>& args);
int reproduce(const std::vector<std::string>& args);
int transfer(const std::vector<std::string>& args);

/// Parses a command's arguments. Prints help (usage, options, examples) and returns false when --help is among them.
/// Throws UsageError with the nearest option name on an unknown one. With `takes_file`, one argument that is no option
/// is allowed: file_of(values).
bool parse(const std::vector<std::string>& args, const po::options_description& options, const std::string& usage,
           const std::string& examples, po::variables_map& values, bool takes_file = false);
/// The model file that was given; empty when none was.
std::string file_of(const po::variables_map& values);

/// The nearest of some names, or nothing when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& names);

/// "N2, N4" as words.
std::vector<std::string> words(const std::string& text, char separator = ',');
/// "512,64" as numbers; throws UsageError naming the option.
std::vector<std::int64_t> numbers(const std::string& option, const std::string& text);

/// --model, --arch, --layers and the rest that describe a network.
po::options_description model_options();
/// The architecture that those options ask for, as a line of text (ebb/models/architecture.h).
std::string architecture(const po::variables_map& values);
/// A network for digits of 28 x 28 pixels and ten classes; throws UsageError when the text describes none.
ebb::Sequential build_network(const std::string& architecture);

/// --data, --dataset, --threads.
po::options_description data_options();
ebb::Mnist load_data(const po::variables_map& values);
/// What pixels are multiplied by before the network sees them; throws DataError when the file does not say it well.
double scale_of(const ebb::SavedModel& model, const std::string& file);
/// Applies --threads.
void use_threads(const po::variables_map& values);

}  // namespace mnist
