// Models from a line of text: "conv 32 3 relu, pool 2, flatten, dense 10".
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <ebb/models/sequential.h>

namespace ebb {

/// The layers that a text describes, separated by commas:
///   conv FILTERS KERNEL [stride N] [same|valid] [dilation N] [ACTIVATION]
///   pool N | avgpool N | flatten | dropout RATE | dense UNITS [ACTIVATION] | ACTIVATION
/// with ACTIVATION one of activation_names(). Throws ValueError with the text, a mark under the column and the rule.
std::vector<Layer> parse_architecture(std::string_view text);

/// The names that a text may use: relu, sigmoid, tanh, ...
std::vector<std::string> activation_names();
/// The function of a name; throws ValueError listing the names there are.
Activation activation_of(std::string_view name);

}  // namespace ebb
