// Every reader of files and texts that others write: what the tests of malformed input and the fuzzers need of each.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace corpus {

/// A file that is only memory, under a path that any reader can open.
class MemoryFile {
 public:
  MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile();
  const std::filesystem::path& path() const { return path_; }
  void set(std::string_view bytes);

 private:
  int fd_;
  std::filesystem::path path_;
};

struct Reader {
  std::string_view name;
  /// Small files that it takes.
  std::vector<std::string> (*seeds)();
  /// Reads a file and gives what is in it, as bytes that differ when the contents do; throws ebb::Error.
  std::string (*read)(const std::filesystem::path& file);
  /// Reads a file and gives the bytes that ebb would write for the same; null where other bytes are as good.
  std::string (*rewrite)(const std::filesystem::path& file) = nullptr;
  /// Part of a seed before this text and after it is not compared with what is written: names of types, which can
  /// become other types.
  std::string_view type_field = {};
  bool text = false;      ///< no file: a text from the command line; an error shows it below the message
  bool cut_shows = true;  ///< a seed that is cut short is never taken
  bool checksum = false;  ///< what is taken holds what the seed holds, whatever was changed
  /// Files that it must refuse: each field at its extremes, nesting, lies about sizes.
  std::vector<std::string> (*attacks)() = nullptr;
};

std::span<const Reader> readers();
const Reader* reader(std::string_view name);

enum class Change { cut, one, several };

/// The seed changed in every systematic way: cut at each byte, each byte changed, left out, doubled; words of 2, 4 and
/// 8 bytes at their extremes; several changes at random places. `visit` gets the bytes and what was done. Long seeds
/// are changed at each n-th byte.
template <class F>
void mutate(std::string_view seed, F&& visit);

}  // namespace corpus

// ---- the templates -------------------------------------------------------------------------------------------------

template <class F>
void corpus::mutate(std::string_view seed, F&& visit) {
  const std::size_t n = seed.size(), step = n / 300 + 1;
  const auto near_end = [&](std::size_t i) { return i < 64 || i + 64 > n || i % step == 0; };
  for (std::size_t i = 0; i < n; ++i)
    if (near_end(i)) visit(std::string(seed.substr(0, i)), Change::cut);
  for (std::size_t i = 0; i < n; ++i) {
    if (!near_end(i)) continue;
    const auto old = static_cast<unsigned char>(seed[i]);
    for (const unsigned v : {old ^ 0x01u, old ^ 0x80u, 0x00u, 0xffu, old + 1u, old ^ 0x20u}) {
      if (static_cast<unsigned char>(v) == old) continue;
      std::string bad(seed);
      bad[i] = static_cast<char>(v);
      visit(bad, Change::one);
    }
    std::string fewer(seed), more(seed);
    fewer.erase(i, 1);
    more.insert(i, 1, seed[i]);
    visit(fewer, Change::one);
    visit(more, Change::one);
  }
  for (std::size_t i = 0; i < n && i < 200; ++i)
    for (const std::string_view word :
         {std::string_view("\xff\xff"), std::string_view("\xff\xff\xff\xff"), std::string_view("\xff\xff\xff\x7f"),
          std::string_view("\x7f\xff\xff\xff"), std::string_view("\0\0\0\0", 4),
          std::string_view("\0\0\0\0\0\0\0\x80", 8), std::string_view("\xff\xff\xff\xff\xff\xff\xff\x7f")}) {
      std::string bad(seed);
      bad.replace(i, word.size(), word.substr(0, std::min(word.size(), n - i)));
      bad.resize(n);
      if (bad != seed) visit(bad, Change::one);
    }
  std::uint32_t state = 1;
  const auto random = [&](std::size_t below) {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::size_t>(state >> 8) % below;
  };
  for (int i = 0; i < 500; ++i) {
    std::string bad(seed);
    for (std::size_t k = 2 + random(3); k > 0; --k) {
      const std::size_t at = random(bad.size());
      if (random(3) == 0) bad.insert(at, seed.substr(random(n), 1 + random(20)));
      else if (random(2) == 0 && bad.size() > 10) bad.erase(at, 1 + random(8));
      else bad[at] = static_cast<char>(random(256));
      if (bad.empty()) bad = "x";
    }
    if (bad != seed) visit(bad, Change::several);
  }
}
