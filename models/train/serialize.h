// Saving and loading models.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/history.h>
#include <ebb/models/train/optimizer.h>

namespace ebb {

using Metadata = std::map<std::string, std::string>;  ///< texts in a file beside the tensors

/// Writes all parameters and buffers as safetensors, under the paths that visit gives them. The file is replaced as a
/// whole or not at all. Throws ValueError on a module that is not built, IoError.
void save(Module& module, const std::filesystem::path& path, const Metadata& metadata = {});

/// The contents that save() writes. The tensors share the storage of the module's.
SafeTensors model_contents(Module& module, Metadata metadata = {});

/// Reads a file of save() or save_model() into a module that is built, else ValueError; of a file of save_model(), the
/// model alone. Throws ShapeError listing missing, extra and mis-shaped names together, before anything is changed;
/// DataError or IoError from the file.
void load(Module& module, const std::filesystem::path& path);

/// The state of a training, beside the model.
struct SavedTraining {
  const Optimizer* optimizer = nullptr;  ///< its kind, options, groups, number of steps and state
  const History* history = nullptr;      ///< the epochs so far, and what callbacks remember
  /// Weights by path that the model has in the file, where training continues from others, which the module has:
  /// TrainingState::chosen() during fit(). After fit() the module has them itself.
  TensorMap chosen = {};
};

/// save() together with the architecture (ebb/models/layers/architecture.h), so that load_model needs nothing else,
/// with what is frozen, and with the training so far, if given. A model that was never trained can be saved too.
void save_model(Sequential& net, const std::string& architecture, const std::filesystem::path& path,
                Metadata metadata = {}, const SavedTraining& training = {});
/// The contents that save_model() writes. The tensors share the storage of the model's.
SafeTensors model_contents(Sequential& net, const std::string& architecture, Metadata metadata = {},
                           const SavedTraining& training = {});

/// The result of load_model().
struct SavedModel {
  Sequential net;  ///< the model to use: after training with averages or with the best weights to restore, it has those
  std::string architecture;              ///< as save_model() was given it
  Metadata metadata;                     ///< likewise
  std::unique_ptr<Optimizer> optimizer;  ///< null when none was saved
  std::optional<History> history;  ///< of the training so far, if it was saved; with the weights that it goes on from
};
/// Reads a file of save_model(); frozen parameters are frozen. fit(net, *optimizer, data, {.resume = history, ...})
/// with the same options continues the training to the same bits as without an interruption. Throws DataError when the
/// file holds no architecture, or anything that does not fit it.
SavedModel load_model(const std::filesystem::path& path);

}  // namespace ebb
