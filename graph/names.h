// Internal: a name from outside that is none of those there are.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace ebb::detail {

/// The name that `given` may have been meant for: the nearest one, whatever the case of its letters; empty when none
/// is near.
std::string nearest(std::string_view given, const std::vector<std::string>& names);

/// "; did you mean adam?" for the end of a message; empty for an empty guess.
std::string did_you_mean(std::string_view guess);

/// unknown optimizer "adm"; expected one of sgd, adam; did you mean adam?
std::string unknown_name(std::string_view kind, std::string_view given, const std::vector<std::string>& names);

}  // namespace ebb::detail
