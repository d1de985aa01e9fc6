// Internal: texts from outside, in messages.
#pragma once
#include <string>
#include <string_view>

namespace ebb::detail {

/// What a message shows of a text from outside: one line of ASCII, no longer than `most` and three dots.
inline std::string printable(std::string_view text, std::size_t most) {
  std::string out;
  for (const char c : text.substr(0, most)) out += c >= ' ' && c <= '~' ? c : '?';
  return text.size() > most ? out + "..." : out;
}

}  // namespace ebb::detail
