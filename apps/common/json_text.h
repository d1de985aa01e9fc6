// JSON as text, whatever bytes are in it.
#pragma once
#include <nlohmann/json.hpp>

#include <string>

namespace app {

/// On one line. JSON is UTF-8, and names of files need not be: a byte that is not becomes U+FFFD, and nothing is lost
/// for it.
inline std::string json_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// A text as JSON and the metadata of a model can hold it.
inline std::string utf8(const std::string& text) {
  return nlohmann::ordered_json::parse(json_text(text)).get<std::string>();
}

}  // namespace app
