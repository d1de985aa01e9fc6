// NumPy's files: .npy and .npz.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Reads an array from a .npy file, which may be gzipped. float32, float64, int64 and uint8 stay what they are, int32 becomes
/// int64 and bool uint8; arrays in Fortran's order are turned. DataError "FILE: byte N: rule: found" on anything else, such as
/// Python objects, big-endian numbers, more than 8 axes, or a file that is longer or shorter than it says; nothing is allocated
/// before that is checked. IoError from the system.
Tensor read_npy(const std::filesystem::path& path);

/// Reads the arrays of a .npz file (numpy.savez, numpy.savez_compressed) by name, likewise.
std::map<std::string, Tensor> read_npz(const std::filesystem::path& path);

/// Writes a .npy file of version 1.0, atomically. Throws ValueError on an undefined tensor; IoError from the system.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

/// Writes a .npz file, atomically; the arrays are stored, not compressed. Throws ValueError also on a name that is empty or not
/// printable ASCII, more than 65535 arrays, or 4 GiB.
void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors);

}  // namespace ebb
