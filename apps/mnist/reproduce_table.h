// The table of mnist reproduce.
#pragma once
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "notebooks.h"

namespace mnist {

/// "loss / accuracy", with "-" for NaN.
std::string score(double loss, double accuracy);
/// One row for each of training, validation and test that is published or, for a run of which nothing is, was
/// made.
std::vector<std::vector<std::string>> rows_of(const Experiment& e,
                                              const std::vector<const nlohmann::ordered_json*>& records, bool quick);
/// Rows of cells, the first of them the names of the columns, as aligned text or as Markdown.
std::string table(const std::vector<std::vector<std::string>>& rows, bool markdown);

}  // namespace mnist
