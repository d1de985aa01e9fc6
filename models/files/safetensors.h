// safetensors files: named tensors and a map of texts, as PyTorch and many others read and write them.
#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include <ebb/graph/tensor.h>

namespace ebb {

/// What a safetensors file holds. Maps, since the order in a file means nothing and no name may occur twice.
struct SafeTensors {
  std::map<std::string, std::string> metadata;  ///< the file's __metadata__
  std::map<std::string, Tensor> tensors;        ///< by name
};

/// Reads a file; each tensor gets its own storage. F32, F64, I64 and U8 stay what they are; F16, BF16, F8_E4M3 and
/// F8_E5M2 become float32; I8, I16, I32, U16, U32 and U64 become int64, BOOL uint8. Strict: everything is checked
/// before memory for a tensor is asked for, and whatever breaks the format is a DataError "FILE: rule: details" (also a
/// dtype with no counterpart, a U64 above 2^63 - 1, more than 8 axes, a key that the format does not have, more than
/// 100,000 tensors and texts or 4 MiB of one). What the system refuses is an IoError.
SafeTensors read_safetensors(const std::filesystem::path& path);

/// Writes a file atomically (see write_atomically). The same contents give the same bytes. Throws ValueError
/// on a tensor named "__metadata__", text that is not UTF-8, an undefined tensor or more than read_safetensors
/// takes; IoError "FILE: cannot write: REASON". `older` names files as write_atomically() takes them.
void write_safetensors(const std::filesystem::path& path, const SafeTensors& contents,
                       std::span<const std::filesystem::path> older = {});

}  // namespace ebb
