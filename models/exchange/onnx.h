// Models for other runtimes: ONNX (https://onnx.ai).
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include <ebb/models/layers/module.h>

namespace ebb {

/// Options for export_onnx().
struct OnnxOptions {
  DType input = DType::f32;  ///< type of the input's elements: the parameters', or int64 for indices
  std::string name = "ebb";  ///< of the graph
  std::map<std::string, std::string> metadata = {};  ///< texts that go into the file
};

/// Writes what the module computes at inference as an ONNX model (opset 13, IR version 7), atomically: one input
/// "input" of shape (N, sample...) and one output "output", N any size, images still (N, h, w, c). The graph is found
/// by running the module on a few batches of made-up data and watching its ops; a parameter keeps its path as its name.
/// Throws ValueError in one line, naming layer and op: what ONNX cannot express, such as a gradient; ops, options or
/// constants that differ from one batch to the next, since the graph would only be right for one of them (six batches
/// are tried: a branch that none of them takes is not seen); 2 GiB or more. IoError from the file.
void export_onnx(Module& module, const std::filesystem::path& path, const Shape& sample,
                 const OnnxOptions& options = {});

}  // namespace ebb
