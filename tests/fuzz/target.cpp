// One libFuzzer target for every reader of tests/corpus; EBB_READER names the one. EBB_SEEDS names a folder for its
// seeds.
#include <ebb/graph/error.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "corpus/readers.h"

namespace {

const corpus::Reader& chosen() {
  const char* name = std::getenv("EBB_READER");
  if (const corpus::Reader* r = corpus::reader(name ? name : "")) return *r;
  std::fprintf(stderr, "EBB_READER must be one of:");
  for (const corpus::Reader& r : corpus::readers()) std::fprintf(stderr, " %s", std::string(r.name).c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("EBB_SEEDS");
  int n = 0;
  for (const std::string& seed : chosen().seeds())
    if (folder) std::ofstream(std::string(folder) + "/seed" + std::to_string(n++), std::ios::binary) << seed;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const corpus::Reader& reader = chosen();
  static corpus::MemoryFile& file = *new corpus::MemoryFile;
  file.set({reinterpret_cast<const char*>(data), size});
  try {
    reader.read(file.path());
  } catch (const ebb::Error&) {  // anything else is a finding
  }
  return 0;
}
