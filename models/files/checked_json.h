// Internal: JSON from files, of which nothing is taken on trust.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace ebb::detail {

using CheckedJson = nlohmann::json;

/// Parses a text: no key twice, not deeper than 8, at most 1,000,000 values. Throws ValueError with the byte and the
/// rule.
CheckedJson parse_json(std::string_view text);

/// What a value must be; else ValueError "NAME: expected ..., found ...".
const CheckedJson& member(const CheckedJson& object, const char* name);
std::int64_t whole(const CheckedJson& object, const char* name);  ///< a member that counts: from 0 to 2^53
bool flag(const CheckedJson& object, const char* name);
std::string text(const CheckedJson& object, const char* name);
const CheckedJson& list(const CheckedJson& object, const char* name);
const CheckedJson& object_of(const CheckedJson& object, const char* name);
/// A number; null is NaN, and "inf" and "-inf" are what JSON lacks.
double number(const CheckedJson& value, std::string_view name);
/// [[noreturn]] "NAME: expected WHAT, found VALUE".
[[noreturn]] void expected(std::string_view name, std::string_view what, const CheckedJson& found);

}  // namespace ebb::detail
