// Malformed input, thousands of files a reader: tests/corpus/readers.cpp lists the readers, what they take and what
// they must refuse.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>

#include <ctime>
#include <fstream>
#include <string>

#include "corpus/readers.h"

namespace {

using corpus::Change;
using corpus::Reader;

/// The most memory that this process has had since reset_peak(), in bytes; 0 where the system does not say.
std::size_t peak_memory() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) * 1024;
  return 0;
}
bool reset_peak() { return static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush); }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool counts_memory = false;  // their shadows count as memory of the process
constexpr double patience = 20;
#else
constexpr bool counts_memory = true;
constexpr double patience = 2;
#endif

/// For a message: as it would stand in a C++ string.
std::string escaped(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (const char c : bytes.substr(0, 600)) {
    if (c >= ' ' && c <= '~') out += c;
    else (((out += "\\x") += digits[static_cast<unsigned char>(c) >> 4]) += digits[c & 15]) += "\"\"";
  }
  return out;
}

struct Trial {
  bool taken = false;
  std::string read, error;
};

/// Reads some bytes; whatever happens, it is an error of ebb in one line, in no time and no memory.
Trial tried(const Reader& r, corpus::MemoryFile& file, std::string_view bytes) {
  file.set(bytes);
  Trial out;
  const bool counts = counts_memory && bytes.size() > 10'000 && reset_peak();
  const std::size_t before = counts ? peak_memory() : 0;
  const std::clock_t start = std::clock();  // of this process: the machine may be busy
  try {
    out.read = r.read(file.path());
    out.taken = true;
  } catch (const ebb::Error& e) {
    out.error = e.what();
  }
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < patience);
  if (counts) CHECK(peak_memory() - before < bytes.size() + (std::size_t{64} << 20));
  if (out.taken) return out;
  CHECK(!out.error.empty());
  if (r.text) {
    CHECK(out.error.size() < 1000);
  } else {
    CHECK(out.error.size() < 700);
    CHECK(out.error.find('\n') == std::string::npos);
    CHECK(out.error.starts_with(file.path().string() + ": "));
  }
  return out;
}

/// Whether what was taken is what stands there.
bool faithful(const Reader& r, const corpus::MemoryFile& file, std::string_view seed, std::string_view bytes,
              Change change, const std::string& of_seed, const Trial& t) {
  if (t.read == of_seed) return true;
  if (r.checksum) return false;
  if (!r.rewrite || r.rewrite(file.path()) == bytes) return true;
  if (r.type_field.empty()) return false;
  if (change == Change::several)
    return true;  // one that means nothing and one that does: neither the seed nor what ebb writes
  // Another type, of which ebb writes the one that it becomes.
  const auto types = [&](std::string_view text) {
    std::string out;
    for (std::size_t at = 0; (at = text.find(r.type_field, at)) != text.npos; ++at)
      out += text.substr(at, r.type_field.size() + 4);
    return out;
  };
  return types(seed) != types(bytes);
}

}  // namespace

TEST_CASE("corpus: every reader refuses malformed input, or reads what stands there") {
  corpus::MemoryFile file;
  for (const Reader& r : corpus::readers()) {
    CAPTURE(r.name);
    int refused = 0, taken = 0, wrong = 0, cuts = 0;
    for (const std::string& seed : r.seeds()) {
      const Trial good = tried(r, file, seed);
      CAPTURE(good.error);
      REQUIRE(good.taken);
      corpus::mutate(seed, [&](const std::string& bytes, Change change) {
        const Trial t = tried(r, file, bytes);
        (t.taken ? taken : refused) += 1;
        if (t.taken && change == Change::cut && r.cut_shows) ++cuts;
        if (!t.taken || faithful(r, file, seed, bytes, change, good.read, t)) return;
        ++wrong;
        CAPTURE(escaped(bytes));
        CHECK_MESSAGE(false, "taken, and not what stands there");
      });
    }
    for (const std::string& bytes : r.attacks()) {
      CAPTURE(escaped(bytes));
      CHECK_FALSE(tried(r, file, bytes).taken);
      ++refused;
    }
    MESSAGE(r.name << ": " << refused << " refused, " << taken << " taken");
    CHECK(refused >= 1000);
    CHECK(wrong == 0);
    CHECK(cuts == 0);
  }
}
