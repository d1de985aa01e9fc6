// Saving and loading models.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <ebb/models/sequential.h>

namespace ebb {

using Metadata = std::map<std::string, std::string>;  ///< texts that go into a file beside the tensors

/// Writes all parameters and buffers as safetensors, under the paths that visit gives them. The file is replaced as a
/// whole or not at all. Throws IoError.
void save(Module& module, const std::filesystem::path& path, const Metadata& metadata = {});

/// Reads what save() wrote into a module that is built. Throws ShapeError listing missing, extra and mis-shaped names
/// together, before anything is changed; DataError or IoError from the file.
void load(Module& module, const std::filesystem::path& path);

/// save() together with the architecture (ebb/models/architecture.h), so that load_model needs nothing else.
void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path, Metadata metadata = {});

/// What load_model() gives.
struct SavedModel {
  Sequential net;  ///< with the saved parameters
  std::string architecture;  ///< as save_model() was given it
  Metadata metadata;  ///< likewise
};
/// Reads what save_model() wrote. Throws DataError when the file holds no architecture, or tensors that do not fit it.
SavedModel load_model(const std::filesystem::path& path);

/// Throws IoError when a file could not be written there: no such folder, no permission, or, unless `overwrite`, a file
/// that exists. Asked before long work whose result goes there.
void check_writable(const std::filesystem::path& path, bool overwrite);

}  // namespace ebb
