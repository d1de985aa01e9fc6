// Internal: the ONNX graph that export_onnx() builds. onnx.cpp is its machinery, onnx_ops.cpp the table of ops.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ebb/models/exchange/onnx.h>
#include <ebb/models/exchange/protobuf.h>
#include <ebb/models/exchange/trace.h>

namespace ebb::detail {

using Ints = std::vector<std::int64_t>;

/// Numbers of onnx.proto.
enum TensorType { type_float = 1, type_uint8 = 2, type_int64 = 7, type_bool = 9, type_double = 11 };
TensorType type_of(DType t);

/// Attributes of a node, encoded.
class OnnxAttributes {
 public:
  OnnxAttributes& operator()(std::string_view name, std::int64_t value) {
    return add(ProtoMessage().text(1, name).integer(3, value).integer(20, 2));
  }
  OnnxAttributes& operator()(std::string_view name, double value) {
    return add(ProtoMessage().text(1, name).number(2, static_cast<float>(value)).integer(20, 1));
  }
  OnnxAttributes& operator()(std::string_view name, const Ints& values) {
    return add(ProtoMessage().text(1, name).integers(8, values).integer(20, 7));
  }
  const std::vector<ProtoMessage>& all() const { return all_; }

 private:
  OnnxAttributes& add(ProtoMessage m) {
    all_.push_back(std::move(m));
    return *this;
  }
  std::vector<ProtoMessage> all_;
};

class OnnxGraph;
/// How one op is written.
struct OnnxRow {
  std::string_view op, type;  ///< ours, and theirs where there is one for it
  void (*emit)(OnnxGraph& g, const Step& s, std::string_view type);
};
/// Null for an op that ONNX does not have.
const OnnxRow* onnx_row(std::string_view op);

/// Images are channels-last here and channels-first there. Each value is written in the order in which it is computed,
/// and turned when the other one is asked for: never back and forth.
class OnnxGraph {
 public:
  OnnxGraph(Module& module, const Program& program);
  /// Translates the program. Throws ValueError.
  void build();
  void write(const std::filesystem::path& path, const OnnxOptions& options) const;

  [[noreturn]] static void refuse(const Step& s, std::string_view why);

  const TracedValue& value(int id) const { return p_.values[static_cast<std::size_t>(id)]; }
  const Shape& shape(int id) const { return value(id).value.shape(); }
  bool is_constant(int id) const { return !value(id).computed; }
  DType dtype(int id) const { return value(id).value.dtype(); }

  /// Adds a node; returns the name of what it gives.
  std::string node(std::string_view type, std::vector<std::string> inputs, OnnxAttributes attributes = {});
  /// The names of constants; equal ones are stored once.
  std::string constant(const Tensor& t, TensorType type);
  std::string constant(const Tensor& t) { return constant(t, type_of(t.dtype())); }
  std::string number(double v, DType t) { return constant(scalar(v, t)); }
  std::string list(const Ints& v) { return constant(Tensor::from(v, {static_cast<std::int64_t>(v.size())})); }
  /// A constant turned to the order that an op wants; a parameter keeps its name.
  std::string turned(const Tensor& t, const Tensor& in_order);

  /// The value as ebb has it, or with the channels first.
  std::string in_order(int id, bool channels_first);
  std::string plain(int id) { return in_order(id, false); }
  std::string first(int id) { return in_order(id, true); }
  /// The same as the Boolean that ONNX has for a comparison or a mask.
  std::string condition(int id, bool channels_first);
  /// The value as plain() has it; a constant that is made as large as the batch is.
  std::string full(int id);
  /// Whether an image is there with the channels first only.
  bool is_first(int id) const {
    return plain_[static_cast<std::size_t>(id)].empty() && !first_[static_cast<std::size_t>(id)].empty();
  }
  /// Whether an op on these should run with the channels first.
  bool runs_first(const std::vector<int>& ids) const;
  /// Says what the step's result is called.
  void give(const Step& s, std::string name, bool channels_first = false, bool boolean = false);
  /// Says that the step's result is this value.
  void alias(const Step& s, int id);

  /// The sizes of a value as a tensor.
  std::string sizes(int id);
  /// The sizes for a Reshape; -1 where one grows with the batch.
  Ints reshaped(const Step& s) const;

 private:
  struct Node {
    std::string type, name;  // it gives one value, of the node's name
    std::vector<std::string> inputs;
    OnnxAttributes attributes;
  };
  struct Initializer {
    std::string name;
    Tensor value;
    TensorType type;
    const std::byte* parameter;  // where it comes from; null for other constants
  };
  std::string raw(int id, bool channels_first);
  std::int64_t batches(const TracedValue& v, int axis) const;
  std::string add_initializer(const Tensor& value, TensorType type, const std::byte* parameter);
  void drop_unused();
  ProtoMessage described(std::string_view name, int id) const;

  const Program& p_;
  const Step* step_ = nullptr;
  std::vector<std::string> plain_, first_;  // names of the values that are written, in each order
  std::vector<bool> boolean_;               // values that ONNX has as Booleans
  std::unordered_map<const std::byte*, std::string> parameters_;
  std::vector<Initializer> initializers_;
  std::vector<Node> nodes_;
  std::string batch_;  // the number of samples as a tensor
};

}  // namespace ebb::detail
