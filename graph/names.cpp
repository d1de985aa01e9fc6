#include <ebb/graph/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include <ebb/graph/printable.h>

namespace ebb::detail {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// Letters to add, drop, change or swap with the next.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view given, const std::vector<std::string>& names) {
  const std::string name = lower(given.substr(0, 300));  // which may be endless
  std::string best;
  std::size_t distance = std::min<std::size_t>(3, name.size() / 2 + 1);  // a short name has too many neighbors
  for (const std::string& candidate : names)
    if (const std::size_t d = edit_distance(name, lower(candidate)); d < distance) {
      distance = d;
      best = candidate;
    }
  return best;
}

std::string did_you_mean(std::string_view guess) {
  return guess.empty() ? "" : fmt::format("; did you mean {}?", guess);
}

std::string unknown_name(std::string_view kind, std::string_view given, const std::vector<std::string>& names) {
  return fmt::format("unknown {} \"{}\"; expected one of {}{}", kind, printable(given, 40), fmt::join(names, ", "),
                     did_you_mean(nearest(given, names)));
}

}  // namespace ebb::detail
