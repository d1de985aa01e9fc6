// Weights in the names and layouts of PyTorch and Keras.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <ebb/models/layers/sequential.h>
#include <ebb/models/train/serialize.h>

namespace ebb {

/// Whose names and layouts. PyTorch: dense kernels (out, in), convolutions (out, in, h, w), what follows a Flatten
/// permuted as PyTorch flattens (channels first); names as nn.Sequential counts when each activation is a module of its
/// own and GlobalAvgPool2D is AdaptiveAvgPool2d and Flatten ("0.weight"); of a Residual "3.body.0.weight" and
/// "3.shortcut.0.weight", of a Concat "3.branches.0.0.weight". Keras: (in, out) and (h, w, in, out); names by kind,
/// counted over the whole model
/// ("conv2d_1/kernel").
enum class Naming { torch, keras };
/// "torch" or "keras"; ValueError otherwise.
Naming naming_of(std::string_view name);

/// Parameters and buffers of a model that is built. Throws ValueError, naming the layer, where the other side has no
/// counterpart, and for PyTorch on a Flatten of images unless the model was given its input's shape.
std::map<std::string, Tensor> named_as(Naming naming, Sequential& net);
/// Gives the model the values of such tensors, copied. Throws ShapeError listing what is missing, extra or of another
/// shape, each with `source` in front, before anything is changed; ValueError as named_as.
void assign_as(Naming naming, Sequential& net, const std::map<std::string, Tensor>& tensors, const std::string& source);

/// Writes safetensors that PyTorch's load_state_dict takes. Throws what named_as throws, and IoError.
void save_torch(Sequential& net, const std::filesystem::path& path, const Metadata& metadata = {});
/// Reads a state_dict that was saved as safetensors. Throws what assign_as throws; DataError or IoError from the file.
void load_torch(Sequential& net, const std::filesystem::path& path);
/// The same with Keras' names and layouts.
void save_keras(Sequential& net, const std::filesystem::path& path, const Metadata& metadata = {});
/// The same with Keras' names and layouts.
void load_keras(Sequential& net, const std::filesystem::path& path);

}  // namespace ebb
