// What is kept of a training: nothing that went wrong, and what went well in spite of a disk that is full.
#pragma once
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include <ebb/graph/error.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/train/finite.h>
#include <ebb/models/train/fit.h>

#include "command.h"

namespace mnist {

inline bool lacks_memory(const std::exception& e) {
  return dynamic_cast<const std::bad_alloc*>(&e) || dynamic_cast<const ebb::MemoryError*>(&e);
}

/// What an exception says, in words: a lack of memory has none of its own.
inline std::string words_of(const std::exception& e) {
  return dynamic_cast<const std::bad_alloc*>(&e) ? "out of memory" : e.what();
}

/// What put_by() set aside before the work, for what is to be kept of it. Without it, destructors that ask for memory
/// in vain, as those of nlohmann's JSON do, would end the program while it saves.
inline std::unique_ptr<char[]> reserve;
inline void put_by() { reserve = std::make_unique<char[]>(std::size_t{1} << 20); }
/// From here on the first lack of memory takes it.
inline void use_reserve() {
  std::set_new_handler([] {
    if (!reserve) throw std::bad_alloc();
    reserve.reset();
  });
}

/// Whether something is there that is no file, such as a pipe: it gets one model and cannot be replaced.
inline bool takes_one_model(const std::filesystem::path& target) {
  std::error_code none;
  return std::filesystem::exists(target, none) && !std::filesystem::is_regular_file(target, none);
}

/// Why the network is no good: a weight that is no number, or a loss on the first samples of one of these that is none;
/// else empty.
inline std::string went_wrong(ebb::Sequential& net, std::initializer_list<const ebb::Dataset*> all) {
  use_reserve();
  if (std::string bad = ebb::not_finite(net); !bad.empty()) return bad;
  for (const ebb::Dataset* data : all) {
    const std::int64_t n = std::min<std::int64_t>(512, data->size());
    try {
      const double loss = ebb::evaluate(net, data->slice(0, n)).loss;
      if (!std::isfinite(loss)) return fmt::format("the loss on {} samples is {} at its end", n, loss);
    } catch (const std::exception& e) {  // a lack of memory is no reason to lose it
      if (!lacks_memory(e)) throw;
    }
  }
  return "";
}

/// How far a fit() came that an exception ended, by its record; empty where the network is nothing to be kept.
inline std::string up_to_there(const ebb::History& so_far, ebb::Sequential& net) {
  use_reserve();
  const bool good = so_far.interrupted && so_far.epochs() + so_far.partial.batches > 0 &&
                    std::isfinite(so_far.partial.loss) && ebb::not_finite(net).empty();
  return good ? fmt::format("{} epochs and {} batches", so_far.epochs(), so_far.partial.batches) : "";
}

/// Bytes of a file of this network's weights.
inline std::uintmax_t bytes_of(ebb::Sequential& net) {
  std::uintmax_t bytes = 0;
  for (const ebb::NamedTensor& w : ebb::named_tensors(net)) bytes += w.tensor->bytes();
  return bytes;
}

/// Where a file that is written more than once is: /dev/stdout leads nowhere any more when the file behind it has been
/// replaced.
inline std::filesystem::path place_of(const std::string& file) {
  std::error_code unresolved;
  const auto place = std::filesystem::canonical(file, unresolved);
  return unresolved ? std::filesystem::path(file) : place;
}

/// write(target); where that fails after all the work, another file is written. Throws IoError that says which, and
/// what holds() says of target.
template <class Write, class Holds>
void keep(const std::filesystem::path& target, const Write& write, const Holds& holds) {
  use_reserve();
  try {
    try {
      write(target);
    } catch (const std::exception& e) {  // what the first try took is free again
      if (!lacks_memory(e)) throw;
      write(target);
    }
  } catch (const ebb::WrittenBeside&) {  // it is whole, under another name
    throw;
  } catch (const ebb::IoError& e) {
    const std::string still = holds();
    std::string folder = (std::filesystem::temp_directory_path() / "ebb-XXXXXX").string();
    if (!::mkdtemp(folder.data())) throw;
    write(folder + "/model.safetensors");
    throw ebb::IoError(fmt::format("{}; the training is in {}/model.safetensors instead{}", e.what(), folder, still));
  }
}

}  // namespace mnist
