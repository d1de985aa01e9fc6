// Internal: what a module computes at inference, as a list of ops, found by watching it run.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <ebb/graph/attribute.h>
#include <ebb/models/layers/module.h>

namespace ebb::detail {

/// A value that an op reads or makes.
struct TracedValue {
  Tensor value;  ///< in a pass with `Program::batch` samples; of a constant that is alike for each sample, one of them
  bool computed = false;  ///< from the input; else a constant
  Shape other;  ///< in a pass with `Program::other_batch` samples: the axes whose sizes differ grow with the batch
  int batch_axis = -1;  ///< of a constant that is made as large as the batch: the axis, where `value` has size 1

  bool grows(int axis) const { return value.shape()[axis] != other[axis]; }
};

/// One op.
struct Step {
  std::string op, path;     ///< its name, and the layer that ran it
  std::vector<int> inputs;  ///< values; those that the op holds as attributes, such as indices, come last
  int output = -1;          ///< a value
  Attributes attributes;    ///< without tensors

  const Attribute* find(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::vector<std::int64_t>& integers(std::string_view name) const;
  /// "layers.0: conv2d"
  std::string place() const;
};

/// The ops and compositions on the way from the input, value 0, to the output, in order.
struct Program {
  static constexpr std::int64_t batch = 3, other_batch = 5;
  std::vector<TracedValue> values;
  std::vector<Step> steps;
  int output = -1;
};

/// Runs the module at inference on several batches of made-up data. Throws ValueError, naming op and layer, where the
/// passes differ in what may not depend on the data: the ops that run, their options, and the constants that they read.
/// A composition (ebb/graph/composition.h) is one step if `knows` says so of its name, else it is the ops inside.
Program trace(Module& module, const Shape& sample, DType dtype, std::string_view caller,
              bool (*knows)(std::string_view op));

}  // namespace ebb::detail
