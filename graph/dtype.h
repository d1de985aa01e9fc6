// Element types.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace ebb {

/// Element type of a tensor. f32 and f64 carry gradients; i64 holds labels and indices; u8 images and masks.
enum class DType : std::uint8_t { f32, f64, i64, u8 };
inline constexpr DType f32 = DType::f32, f64 = DType::f64, i64 = DType::i64, u8 = DType::u8;  ///< short names

/// Bytes per element.
constexpr std::size_t size_of(DType t) { return t == DType::f32 ? 4 : t == DType::u8 ? 1 : 8; }
/// True for the types that can carry a gradient.
constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::f64; }
/// "float32", "float64", "int64" or "uint8".
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[] = {"float32", "float64", "int64", "uint8"};
  return names[static_cast<int>(t)];
}

/// The DType of a C++ element type.
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  else if constexpr (std::is_same_v<T, double>) return DType::f64;
  else if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
  else {
    static_assert(std::is_same_v<T, std::uint8_t>, "element types: float, double, std::int64_t, std::uint8_t");
    return DType::u8;
  }
}

/// Calls f with a value of the C++ type that t stands for: `visit_dtype(t, []<class T>(T) { ... })`.
template <class F>
decltype(auto) visit_dtype(DType t, F&& f) {
  switch (t) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::i64: return f(std::int64_t{});
    default: return f(std::uint8_t{});
  }
}
/// The same for f32 and f64 only; the caller has checked that t is one of them.
template <class F>
decltype(auto) visit_float(DType t, F&& f) {
  if (t == DType::f32) return f(float{});
  return f(double{});
}

}  // namespace ebb
