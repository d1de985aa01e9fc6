// Internal: lines of comma-separated values.
#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ebb::detail {

/// The cells of a line, out of their quotes (RFC 4180): a quote stands at both ends of a cell or, doubled, inside such
/// a one. `refuse` throws; it gets the number of the cell, from 1, and what is wrong with it.
std::vector<std::string> separated(std::string_view line, char separator,
                                   const std::function<void(std::size_t cell, const std::string& what)>& refuse);

}  // namespace ebb::detail
