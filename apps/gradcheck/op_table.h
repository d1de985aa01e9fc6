// The op table: one row per primitive and composition of ops/ops.h. From a row follow the tests of gradients,
// types, memory, threads, drawings and messages (test_op_table.cpp); a new op needs one row in an
// op_table_*.cpp.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <typeinfo>
#include <vector>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/graph/analysis.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/ops/ops.h>

namespace ebb::testing {

using In = std::span<const Tensor>;
using Function = std::function<Tensor(In)>;

/// Where input values come from: uniform in [low, high), moved away from 0 by `gap`; or, for ops with kinks
/// and ties, `distinct`: different multiples of a step, shuffled over all inputs, none closer to 0 or to
/// another than the step.
struct Domain {
  double low = -2, high = 2, gap = 0;
  bool distinct = false;
};
inline constexpr Domain anywhere{}, positive{0.4, 2.5}, off_zero{-2, 2, 0.15}, spread{.distinct = true};

/// Shapes of the inputs, and options or repeated inputs through a function of its own.
struct Case {
  std::vector<Shape> shapes;
  Function f = nullptr;    // null: the row's
  std::string torch = "";  // what PyTorch is asked for; empty: the row's, if the function is the row's
};

/// The op in other libraries.
struct Elsewhere {
  /// `torch`: of the inputs x, y, z, or xs, in the words of tests/parity.py: "torch.exp(x)"; or "none: " and the
  /// reason. `no_onnx`: why the op is not exported; empty for one that is, by the table in
  /// models/exchange/onnx_ops.cpp.
  Elsewhere(std::string torch_, std::string no_onnx_ = "") : torch(std::move(torch_)), no_onnx(std::move(no_onnx_)) {}
  Elsewhere(const char* torch_) : torch(torch_) {}
  std::string torch, no_onnx;
};

/// A call that must be refused, the type of what it throws and the whole message.
struct Refusal {
  std::function<void()> call;
  std::string message;
  /// Empty when the call threw E with this message, else what happened.
  std::function<std::string()> verdict;
};
template <class E>
Refusal refuses(std::function<Tensor()> call, std::string message) {
  return {[call] { call(); }, message,
          [call, message]() -> std::string {
            try {
              call();
            } catch (const E& e) {
              if (typeid(e) != typeid(E)) return std::string("another type of exception: ") + e.what();
              return e.what() == message ? "" : std::string("another message: ") + e.what();
            } catch (const std::exception& e) {
              return std::string("another type of exception: ") + e.what();
            }
            return "nothing was thrown";
          }};
}

struct Row {
  std::string name;  // the function in ops/ops.h
  Elsewhere elsewhere;
  Function f;
  std::vector<Case> cases;
  Domain domain = anywhere;
  std::vector<Refusal> errors = {};
  std::vector<Case> large = {};  // big enough for several blocks: bits and instruction sets only
  std::string node = "";         // the op that its graph shows; empty: as the name
  int order = 2;                 // derivatives that exist
  bool floats_only = true;       // integers are refused with DTypeError

  const std::string& op() const { return node.empty() ? name : node; }
  const Function& function(const Case& c) const { return c.f ? c.f : f; }
};

/// An op that no gradient passes: what it gives for a tiny input.
struct ValueRow {
  std::string name;  // the function, or the primitive where it is internal
  std::function<Tensor()> f;
  std::vector<double> expected;
  std::string no_onnx = "";  // as Elsewhere's
};

std::vector<Row> elementwise_rows();
std::vector<Row> tensor_rows();
std::vector<Row> image_rows();
std::vector<Row> class_rows();
std::vector<ValueRow> value_rows();

/// All rows.
const std::vector<Row>& rows();

/// A case that is compared with PyTorch: that of a row with the most elements up to 100, and those with an expression
/// of their own.
struct Parity {
  std::string name;  // "sum#3"
  const Row& row;
  const Case& c;
  const std::string& torch;
};
std::vector<Parity> parity_cases();

/// float64 inputs for a case, the same every time.
std::vector<Tensor> inputs_for(const Row& row, const Case& c, std::uint64_t seed = 1);

/// Inputs as float32, and back.
std::vector<Tensor> cast_all(In inputs, DType dtype);
std::vector<Tensor> variables(In inputs);

/// max |a - b| / max(1, max |b|), infinite where shapes differ or a value is not finite in one of them only.
double distance(const Tensor& a, const Tensor& b);

}  // namespace ebb::testing
