// Attribute: one option of an op, by name, for tools that translate or print graphs.
#pragma once
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include <ebb/graph/tensor.h>

namespace ebb {

/// A number, a list of numbers, or a tensor that the op reads beside its inputs, such as indices.
struct Attribute {
  std::string_view name;                                                        ///< as the op's options name it
  std::variant<std::int64_t, double, std::vector<std::int64_t>, Tensor> value;  ///< its value
};
using Attributes = std::vector<Attribute>;  ///< in the op's own order

}  // namespace ebb
