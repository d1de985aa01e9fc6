// What the sub-commands of mnist share beside apps/common/program.h: the model they name.
#pragma once
#include <string>
#include <vector>

#include <ebb/ebb.h>

#include "program.h"

namespace mnist {

namespace po = app::po;
using app::Exit, app::UsageError, app::parse, app::file_of, app::nearest, app::words, app::numbers, app::data_options, app::load_data,
    app::use_threads;
using enum app::Exit;

int train(const std::vector<std::string>& args);
int evaluate(const std::vector<std::string>& args);
int predict(const std::vector<std::string>& args);
int summary(const std::vector<std::string>& args);
int export_files(const std::vector<std::string>& args);
int graph(const std::vector<std::string>& args);
int search(const std::vector<std::string>& args);
int reproduce(const std::vector<std::string>& args);
int transfer(const std::vector<std::string>& args);

/// --model, --arch, --layers and the rest that describe a network.
po::options_description model_options();
/// The architecture that those options ask for, as a line of text (ebb/models/architecture.h).
std::string architecture(const po::variables_map& values);
/// A network for digits of 28 x 28 pixels and ten classes; throws UsageError when the text describes none.
ebb::Sequential build_network(const std::string& architecture);
/// What pixels are multiplied by before the network sees them; throws DataError when the file does not say it well.
double scale_of(const ebb::SavedModel& model, const std::string& file);

}  // namespace mnist
