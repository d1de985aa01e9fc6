// Models from text: "conv 32 3 relu, pool 2, flatten, dense 10", or from JSON.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <ebb/models/layers/sequential.h>

namespace ebb {

/// The layers that a text describes, separated by commas, such as
///   conv 32 3 stride 2 same relu, residual (conv 32 3 same relu, conv 32 3 same),
///   concat (conv 8 1 | pool 3 stride 1 same)
/// A word is a layer of architecture_help() or one of activation_names(). What a layer needs follows by position, the
/// rest by name in any order. Throws ValueError with the text, a mark under the column and the rule.
std::vector<Layer> parse_architecture(std::string_view text);

/// The same from a JSON list: [{"layer": "conv", "filters": 32, "kernel": 3, "activation": "relu"}, ...] with the names
/// of architecture_help(); "padding": "same"; flags true or false; "layers", "shortcut" and "branches" are lists of
/// layers. Throws ValueError with line, column and the rule.
std::vector<Layer> parse_architecture_json(std::string_view json);

/// The text that parse_architecture reads back as these layers; initializers are left out. Throws ValueError naming a
/// layer that no text describes, such as a lambda.
std::string describe_architecture(const std::vector<Layer>& layers);

/// Two lines for each kind of layer: its word, what it needs and takes; what it is.
std::string architecture_help();

/// Names of activations: relu, sigmoid, tanh, ...
std::vector<std::string> activation_names();
/// The function with this name, null for linear; throws ValueError listing the names.
Activation activation_of(std::string_view name);
/// The name of a function, null meaning linear; empty when it has none.
std::string_view activation_name(Activation f);

}  // namespace ebb
