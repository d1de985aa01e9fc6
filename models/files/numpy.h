// NumPy's files: .npy and .npz.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Reads an array from a .npy file of version 1 to 3, which may be gzipped. float32, float64, int64 and uint8 stay what
/// they are; float16 becomes float32, int8, int16, int32, uint16, uint32 and uint64 become int64, bool uint8; in either
/// byte order and in C's or Fortran's order of axes. DataError "FILE: byte N: rule: found" on anything else, such as
/// Python objects, complex numbers, a uint64 above 2^63 - 1, more than 8 axes, or a file that is longer or shorter than
/// it says; nothing is allocated before that is checked. IoError from the system.
Tensor read_npy(const std::filesystem::path& path);

/// Reads the arrays of a .npz file (numpy.savez, numpy.savez_compressed) by name, likewise.
std::map<std::string, Tensor> read_npz(const std::filesystem::path& path);

/// Writes a .npy file of version 1.0, atomically. Throws ValueError on an undefined tensor; IoError from the system.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

/// Writes a .npz file, atomically; the arrays are stored, not compressed. Throws ValueError also on a name that is
/// empty or not printable ASCII, more than 65535 arrays, or 4 GiB.
void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors);

}  // namespace ebb
