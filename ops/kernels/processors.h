// Internal: how many threads this process can run at a time.
#pragma once
#include <string>

namespace ebb::detail {

/// Processors that this process may use: those of its affinity, but no more than its control groups grant the time of.
int processors();

/// Processors whose time the control groups of this process grant, a part of one counted as one; 0 without a limit.
/// Reads proc/self and the mounted hierarchies, of version 1 or 2, under `root`. What cannot be read limits nothing.
int granted_processors(const std::string& root = "");

}  // namespace ebb::detail
