// mnist export: a saved network for other programs.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <array>
#include <filesystem>

#include <ebb/models/exchange/interop.h>
#include <ebb/models/exchange/onnx.h>
#include <ebb/models/files/numpy.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/report/summary.h>

#include "command.h"
#include "json_text.h"
#include "saving.h"

namespace mnist {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

po::options_description export_options() {
  return joined(
      {app::option_group(
           "Formats (at least one)",
           {
               {"onnx", text(), "write the network as ONNX, opset 13: input (N, 28, 28, 1), output (N, 10)"},
               {"npz", text(), "write the weights for NumPy"},
               {"safetensors", text(), "write the weights as safetensors"},
           }),
       app::option_group("Output", {
                                       {"layout", one_of("ebb", {"ebb", "torch", "keras"}),
                                        "names and layout of the weights in --npz and --safetensors: ebb, torch (for "
                                        "load_state_dict of an nn.Sequential), or keras"},
                                       {"force", "overwrite files that exist"},
                                       {"json", "print JSON instead of text"},
                                   })});
}

std::map<std::string, ebb::Tensor> weights(ebb::Sequential& net, const std::string& layout) {
  if (layout != "ebb") return ebb::named_as(ebb::naming_of(layout), net);
  std::map<std::string, ebb::Tensor> out;
  for (const ebb::NamedTensor& t : ebb::named_tensors(net)) out[t.path] = t.tensor->detach();
  return out;
}

int run_export(Values& v) {
  const auto layout = v["layout"].as<std::string>();
  const std::string file = model_file(v);
  constexpr std::array formats{"onnx", "npz", "safetensors"};
  std::vector<std::string> paths;
  for (const char* f : formats)
    if (v.count(f)) paths.push_back(v[f].as<std::string>());
  if (paths.empty()) throw UsageError("export as what? Give --onnx, --npz or --safetensors and a file to write");
  if (layout != "ebb" && !v.count("npz") && !v.count("safetensors"))
    throw UsageError("--layout is for --npz and --safetensors");
  std::vector<std::pair<std::string, std::string>> named{{"the file read", file}};
  for (const char* f : formats)
    if (v.count(f)) named.emplace_back(std::string("--") + f, v[f].as<std::string>());
  refuse_same_files(named);
  ebb::SavedModel model = ebb::load_model(file);
  refuse_not_finite(model, file);
  const double scale = scale_of(model, file);
  for (const std::string& path : paths) check_output(path, v.count("force") != 0);

  Json written = Json::array();
  const auto write = [&](const char* format, const std::string& what, const auto& to) {
    const auto path = v[format].as<std::string>();
    const fs::path target = place_of(path);
    to(target);
    std::error_code pipe;  // which has no size
    const auto bytes = fs::file_size(target, pipe);
    if (v.count("json"))
      written.push_back({{"format", format}, {"file", path}, {"bytes", pipe ? Json() : Json(bytes)}});
    else app::print("{}: {}{}\n", path, what, pipe ? "" : ", " + ebb::format_bytes(static_cast<double>(bytes)));
  };
  const ebb::Metadata about{{"architecture", model.architecture}, {"scale", fmt::format("{}", scale)}};
  if (v.count("onnx")) {
    write("onnx", "ONNX opset 13", [&](const fs::path& to) {
      ebb::export_onnx(model.net, to, *model.net.input_shape(), {.name = "mnist", .metadata = about});
    });
  }
  if (v.count("npz") || v.count("safetensors")) {
    const auto tensors = weights(model.net, layout);
    const std::string what = fmt::format("{} tensors, layout {}", tensors.size(), layout);
    if (v.count("npz")) write("npz", what, [&](const fs::path& to) { ebb::write_npz(to, tensors); });
    if (v.count("safetensors"))
      write("safetensors", what, [&](const fs::path& to) { ebb::write_safetensors(to, {about, tensors}); });
  }
  if (v.count("json")) app::print("{}\n", app::json_text({{"scale", scale}, {"layout", layout}, {"files", written}}));
  else app::print("input: pixels times {:.6g}, (N, 28, 28, 1)\n", scale);
  return ok;
}

}  // namespace

const app::Command export_command{
    .name = "export",
    .about = "write a saved network for ONNX runtimes, PyTorch, Keras or NumPy",
    .arguments = "FILE [OPTIONS]",
    .description = "The network expects pixels times the scale that is printed (1/255).\n",
    .examples =
        "  mnist export digits.safetensors --onnx digits.onnx\n"
        "  mnist export digits.safetensors --safetensors torch.safetensors \\\n"
        "    --layout torch\n",
    .options = export_options,
    .run = run_export,
    .files = 1,
};

}  // namespace mnist
