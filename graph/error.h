// Typed exceptions and the one way to raise them: "layer.path: op: the rule broken, with all shapes".
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace ebb {

/// Base of everything that ebb throws on purpose. what() is one line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ShapeError : Error {
  using Error::Error;
};  ///< shapes, axes or sizes that do not fit
struct DTypeError : Error {
  using Error::Error;
};  ///< an element type that the operation refuses
struct ValueError : Error {
  using Error::Error;
};  ///< an option or argument out of its range
struct GradientError : Error {
  using Error::Error;
};  ///< differentiation that is not defined or no longer possible
struct NumericError : Error {
  using Error::Error;
};  ///< a NaN or infinity where none may be
struct DataError : Error {
  using Error::Error;
};  ///< a file from outside that breaks its format
struct IoError : Error {
  using Error::Error;
};  ///< the system refused to read or write
struct MemoryError : Error {
  using Error::Error;
};  ///< the system gave no memory; says what was asked for

/// "scope.path: op: message", with the path of the layer that is running now (empty parts are left out).
std::string located(std::string_view op, std::string_view message);

/// Throws E with located(op, message).
template <class E>
[[noreturn]] void fail(std::string_view op, std::string_view message) {
  throw E(located(op, message));
}

namespace detail {
/// Throws ValueError("who: rule, got value") unless it holds, for options of what runs in no layer.
void expect(bool holds, std::string_view who, std::string_view rule, double value);
}  // namespace detail

}  // namespace ebb
