// Printing: to_string, and fmt formatters for the core types (the only header of ebb that needs fmt).
#pragma once
#include <fmt/format.h>

#include <string>

#include <ebb/graph/dtype.h>
#include <ebb/graph/shape.h>
#include <ebb/graph/tensor.h>

namespace ebb {
/// The elements in nested brackets, long axes shortened, followed by dtype and shape.
std::string to_string(const Tensor& t);
}  // namespace ebb

template <>
struct fmt::formatter<ebb::Shape> : fmt::formatter<std::string> {
  auto format(const ebb::Shape& s, format_context& ctx) const { return formatter<std::string>::format(s.str(), ctx); }
};
template <>
struct fmt::formatter<ebb::DType> : fmt::formatter<std::string_view> {
  auto format(ebb::DType t, format_context& ctx) const {
    return formatter<std::string_view>::format(ebb::name_of(t), ctx);
  }
};
template <>
struct fmt::formatter<ebb::Tensor> : fmt::formatter<std::string> {
  auto format(const ebb::Tensor& t, format_context& ctx) const {
    return formatter<std::string>::format(ebb::to_string(t), ctx);
  }
};
