// ONNX: how each op is written, one row an op at the end of the file.
// (over 400 lines because every op has its row)
#include <algorithm>
#include <array>
#include <numbers>
#include <numeric>

#include <ebb/models/exchange/onnx_graph.h>
#include <ebb/ops/kernels/window.h>
#include <ebb/ops/ops.h>

namespace ebb::detail {
namespace {

/// An NHWC axis where the channels come first.
std::int64_t axis_first(std::int64_t axis) {
  constexpr std::array<std::int64_t, 4> to{0, 2, 3, 1};
  return to[static_cast<std::size_t>(axis)];
}

/// A function of each element, or of two or more with broadcasting.
void elementwise(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  std::vector<std::string> in;
  for (const int id : s.inputs) {
    // What broadcasts over the batch needs something else that is as large as it.
    const int axis = e.value(id).batch_axis;
    const bool alone =
        axis >= 0 && std::ranges::none_of(s.inputs, [&](int other) {
          return !e.is_constant(other) && e.shape(other).rank() == e.shape(id).rank() && e.value(other).grows(axis);
        });
    in.push_back(alone && !first ? e.full(id) : e.in_order(id, first));
  }
  e.give(s, e.node(type, std::move(in)), first);
}

/// Elementwise, but nothing at all for a factor of ones, such as that of a dropout of channels.
void product(OnnxGraph& e, const Step& s, std::string_view type) {
  for (const std::size_t i : {0u, 1u}) {
    const int x = s.inputs[i], ones = s.inputs[1 - i];
    if (e.is_constant(ones) && !e.is_constant(x) && e.shape(x) == e.shape(s.output) &&
        same_bits(e.value(ones).value, ones_like(e.value(ones).value)))
      return e.alias(s, x);
  }
  elementwise(e, s, type);
}

void comparison(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  e.give(s, e.node(type, {e.in_order(s.inputs[0], first), e.in_order(s.inputs[1], first)}), first, true);
}

void where(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  e.give(
      s,
      e.node(type, {e.condition(s.inputs[2], first), e.in_order(s.inputs[0], first), e.in_order(s.inputs[1], first)}),
      first);
}

void cast_to(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  e.give(
      s,
      e.node(type, {e.in_order(s.inputs[0], first)}, OnnxAttributes()("to", std::int64_t{type_of(e.dtype(s.output))})),
      first);
}

/// x * scale + shift
void affine_of(OnnxGraph& e, const Step& s, std::string_view) {
  const bool first = e.runs_first(s.inputs);
  const double scale = s.number("scale"), shift = s.number("shift");
  const DType t = e.dtype(s.output);
  std::string y = e.in_order(s.inputs[0], first);
  if (scale == -1) y = e.node("Neg", {y});
  else if (scale != 1) y = e.node("Mul", {y, e.number(scale, t)});
  if (shift != 0 || scale == 1) y = e.node("Add", {y, e.number(shift, t)});
  e.give(s, y, first);
}

/// What `emit` makes of the input.
template <class Emit>
void mapped(OnnxGraph& e, const Step& s, const Emit& emit) {
  const bool first = e.runs_first(s.inputs);
  e.give(s, emit(e.in_order(s.inputs[0], first)), first);
}
void square_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node(type, {x, x}); });
}
void rsqrt_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node(type, {e.node("Sqrt", {x})}); });
}
void log1p_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) {
    return e.node(type, {e.node("Add", {x, e.number(1, e.dtype(s.output))})});
  });
}
/// x (1 + erf(x / sqrt 2)) / 2
void gelu_of(OnnxGraph& e, const Step& s, std::string_view type) {
  const DType t = e.dtype(s.output);
  mapped(e, s, [&](const std::string& x) {
    const std::string y = e.node(type, {e.node("Mul", {x, e.number(1 / std::numbers::sqrt2, t)})});
    return e.node("Mul", {x, e.node("Add", {e.node("Mul", {y, e.number(0.5, t)}), e.number(0.5, t)})});
  });
}
void silu_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node("Mul", {x, e.node(type, {x})}); });
}
void power(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) {
    return e.node(type, {x, e.number(s.number("exponent"), e.dtype(s.output))});
  });
}
void leaky(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node(type, {x}, OnnxAttributes()("alpha", s.number("slope"))); });
}
void elu_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node(type, {x}, OnnxAttributes()("alpha", s.number("alpha"))); });
}
void selu_of(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) {
    return e.node(type, {x}, OnnxAttributes()("alpha", s.number("alpha"))("gamma", s.number("scale")));
  });
}
void clip_to(OnnxGraph& e, const Step& s, std::string_view type) {
  const DType t = e.dtype(s.output);
  mapped(e, s, [&](const std::string& x) {
    return e.node(type, {x, e.number(s.number("low"), t), e.number(s.number("high"), t)});
  });
}
void along_last(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  e.give(s, e.node(type, {e.in_order(s.inputs[0], first)}, OnnxAttributes()("axis", std::int64_t{first ? 1 : -1})),
         first);
}
void same_value(OnnxGraph& e, const Step& s, std::string_view type) {
  mapped(e, s, [&](const std::string& x) { return e.node(type, {x}); });
}

void reduce(OnnxGraph& e, const Step& s, std::string_view type) {
  const int x = s.inputs[0];
  const std::int64_t mask = s.integer("mask");
  const bool keep = s.integer("keepdims") != 0, image = e.runs_first(s.inputs);
  if (image && mask == 0b0110 && (type == "ReduceMax" || type == "ReduceMean")) {  // over the height and the width
    const std::string y = e.node(type == "ReduceMax" ? "GlobalMaxPool" : "GlobalAveragePool", {e.first(x)});
    return e.give(s, keep ? y : e.node("Flatten", {y}, OnnxAttributes()("axis", std::int64_t{1})), keep);
  }
  const bool first = image && keep;
  Ints axes;
  for (int k = 0; k < e.shape(x).rank(); ++k)
    if (mask >> k & 1) axes.push_back(first ? axis_first(k) : k);
  OnnxAttributes options;
  options("keepdims", std::int64_t{keep});
  std::vector<std::string> in{e.in_order(x, first)};
  if (type == "ReduceSum") in.push_back(e.list(axes));  // an input since opset 13, of this one alone
  else options("axes", axes);
  e.give(s, e.node(type, std::move(in), options), first);
}
void argmax_of(OnnxGraph& e, const Step& s, std::string_view type) {
  e.give(s, e.node(type, {e.plain(s.inputs[0])},
                   OnnxAttributes()("axis", s.integer("axis"))("keepdims", std::int64_t{0})));
}

void reshape_to(OnnxGraph& e, const Step& s, std::string_view type) {
  const int x = s.inputs[0];
  const Ints sizes = e.reshaped(s);
  const bool flat = e.shape(s.output).rank() == 2 && sizes[0] == -1 && e.shape(x).rank() > 2 &&
                    e.shape(x)[0] == e.shape(s.output)[0] && e.value(x).grows(0);
  // A pixel's channels are in one order only.
  if (flat && e.is_first(x) && e.shape(x)[1] * e.shape(x)[2] == 1)
    return e.give(s, e.node("Flatten", {e.first(x)}, OnnxAttributes()("axis", std::int64_t{1})));
  if (flat) return e.give(s, e.node("Flatten", {e.plain(x)}, OnnxAttributes()("axis", std::int64_t{1})));
  e.give(s, e.node(type, {e.plain(x), e.list(sizes)}));
}
void transpose_by(OnnxGraph& e, const Step& s, std::string_view type) {
  const auto& axes = s.integers("axes");
  e.give(s, e.node(type, {e.plain(s.inputs[0])},
                   OnnxAttributes()("perm", Ints(axes.begin(), axes.begin() + e.shape(s.output).rank()))));
}
void broadcast_as(OnnxGraph& e, const Step& s, std::string_view type) {
  e.give(s, e.node(type, {e.plain(s.inputs[0]), e.sizes(s.output)}));
}
void slice_of(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  const std::int64_t axis = s.integer("axis"), begin = s.integer("begin"), step = s.integer("step");
  e.give(s,
         e.node(type, {e.in_order(s.inputs[0], first), e.list({begin}), e.list({begin + s.integer("count") * step}),
                       e.list({first ? axis_first(axis) : axis}), e.list({step})}),
         first);
}
/// Zeros around.
void pad_by(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first = e.runs_first(s.inputs);
  const std::int64_t axis = s.integer("axis"), rank = e.shape(s.inputs[0]).rank(), at = first ? axis_first(axis) : axis;
  Ints pads(static_cast<std::size_t>(2 * rank));
  pads[static_cast<std::size_t>(at)] = s.integer("before");
  pads[static_cast<std::size_t>(rank + at)] = s.integer("after");
  e.give(s, e.node(type, {e.in_order(s.inputs[0], first), e.list(pads), e.number(0, e.dtype(s.output))}), first);
}
void concat_of(OnnxGraph& e, const Step& s, std::string_view type) {
  const bool first =
      e.runs_first(s.inputs) && std::ranges::none_of(s.inputs, [&](int id) { return e.is_constant(id); });
  std::vector<std::string> in;
  for (const int id : s.inputs) in.push_back(first ? e.first(id) : e.full(id));
  const std::int64_t axis = s.integer("axis");
  e.give(s, e.node(type, std::move(in), OnnxAttributes()("axis", first ? axis_first(axis) : axis)), first);
}

void matmul_of(OnnxGraph& e, const Step& s, std::string_view type) {
  std::vector<std::string> in;
  for (int i = 0; i < 2; ++i) {
    const int id = s.inputs[static_cast<std::size_t>(i)], rank = e.shape(id).rank();
    if (!s.integer(i ? "transpose_b" : "transpose_a")) {
      in.push_back(e.full(id));
      continue;
    }
    Ints perm;
    for (int k = 0; k < rank; ++k) perm.push_back(k < rank - 2 ? k : 2 * rank - 3 - k);
    in.push_back(e.node("Transpose", {e.full(id)}, OnnxAttributes()("perm", perm)));
  }
  e.give(s, e.node(type, std::move(in)));
}
/// x W + b, and the activation of that type if any. W is written as (out, in): some runtimes read no other order.
void linear_of(OnnxGraph& e, const Step& s, std::string_view activation) {
  const int kernel = s.inputs[1];
  const std::string w =
      e.is_constant(kernel) ? e.turned(e.value(kernel).value, transpose(e.value(kernel).value)) : e.plain(kernel);
  const std::string y = e.node("Gemm", {e.full(s.inputs[0]), w, e.plain(s.inputs[2])},
                               OnnxAttributes()("transB", std::int64_t{e.is_constant(kernel)}));
  e.give(s, activation.empty() ? y : e.node(activation, {y}));
}

// Kernels are (out, in, h, w) there, and the same order serves the transposed convolution.
std::string kernel_of(OnnxGraph& e, int id) {
  if (!e.is_constant(id)) return e.node("Transpose", {e.plain(id)}, OnnxAttributes()("perm", Ints{3, 2, 0, 1}));
  return e.turned(e.value(id).value, transpose(e.value(id).value, {3, 2, 0, 1}));
}
/// What one needs to know of a window on the image of a value.
struct Geometry {
  Window w;
  std::int64_t bottom, right;
  static Padding padding(const Step& s) {
    const auto& p = s.integers("pads");
    Padding out;
    out.top = p[0], out.left = p[1], out.bottom = p[2], out.right = p[3], out.is_same = s.integer("same") != 0;
    return out;
  }
  static Pair pair(const Ints& v) { return {v[0], v[1]}; }
  Geometry(const Step& s, const Shape& image, Pair kernel)
      : w(s.op, image, kernel, pair(s.integers("stride")), padding(s), pair(s.integers("dilation"))),
        bottom(end(w.oh, w.sh, w.dh, w.kh, w.h, w.top, padding(s), padding(s).bottom)),
        right(end(w.ow, w.sw, w.dw, w.kw, w.w, w.left, padding(s), padding(s).right)) {}
  /// Zeros at the far side: as given, or for same padding what the last window reaches beyond the image.
  static std::int64_t end(std::int64_t out, std::int64_t stride, std::int64_t dilation, std::int64_t kernel,
                          std::int64_t size, std::int64_t begin, const Padding& p, std::int64_t given) {
    return p.is_same ? std::max<std::int64_t>(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - size - begin)
                     : given;
  }
  OnnxAttributes options(bool dilates = true) const {
    OnnxAttributes o;
    o("kernel_shape", Ints{w.kh, w.kw})("strides", Ints{w.sh, w.sw})("pads", Ints{w.top, w.left, bottom, right});
    if (dilates) o("dilations", Ints{w.dh, w.dw});
    return o;
  }
};

/// Image, kernel, and the bias if any.
std::vector<std::string> convolved(OnnxGraph& e, const Step& s) {
  std::vector<std::string> in{e.first(s.inputs[0]), kernel_of(e, s.inputs[1])};
  if (s.inputs.size() > 2) in.push_back(e.plain(s.inputs[2]));
  return in;
}

void convolution(OnnxGraph& e, const Step& s, std::string_view type) {
  const Shape &x = e.shape(s.inputs[0]), &k = e.shape(s.inputs[1]);
  const Geometry g(s, x, {k[0], k[1]});
  e.give(s, e.node(type, convolved(e, s), g.options()("group", x[3] / k[2])), true);
}
/// Convolution, bias, relu and a pool of windows side by side.
void convolution_relu(OnnxGraph& e, const Step& s, std::string_view type) {
  const Shape& k = e.shape(s.inputs[1]);
  const Geometry g(s, e.shape(s.inputs[0]), {k[0], k[1]});
  std::string y = e.node(type, convolved(e, s), g.options()("group", std::int64_t{1}));
  y = e.node("Relu", {y});
  if (const Ints& pool = s.integers("pool"); pool != Ints{1, 1})
    y = e.node("MaxPool", {y}, OnnxAttributes()("kernel_shape", pool)("strides", pool));
  e.give(s, y, true);
}
void transposed_convolution(OnnxGraph& e, const Step& s, std::string_view type) {
  const Shape &k = e.shape(s.inputs[1]), &out = e.shape(s.output);
  Geometry g(s, out, {k[0], k[1]});  // of the convolution that it undoes
  // The output is stride * (in - 1) + kernel - pads + output_padding.
  const auto rest = [](std::int64_t in, std::int64_t stride, std::int64_t dilation, std::int64_t kernel,
                       std::int64_t begin,
                       std::int64_t size) { return stride * (in - 1) + dilation * (kernel - 1) + 1 - begin - size; };
  const std::int64_t bottom = rest(g.w.oh, g.w.sh, g.w.dh, g.w.kh, g.w.top, g.w.h),
                     right = rest(g.w.ow, g.w.sw, g.w.dw, g.w.kw, g.w.left, g.w.w);
  g.bottom = std::max<std::int64_t>(0, bottom), g.right = std::max<std::int64_t>(0, right);
  OnnxAttributes o = g.options();
  if (bottom < 0 || right < 0) o("output_padding", Ints{g.bottom - bottom, g.right - right});
  e.give(s, e.node(type, convolved(e, s), o), true);
}
void pooling(OnnxGraph& e, const Step& s, std::string_view type) {
  const Geometry g(s, e.shape(s.inputs[0]), Geometry::pair(s.integers("kernel")));
  OnnxAttributes o = g.options(false);
  if (type == "AveragePool") o("count_include_pad", std::int64_t{0});
  e.give(s, e.node(type, {e.first(s.inputs[0])}, o), true);
}
/// Patches as channels: a convolution whose filters each look at one element.
void patches(OnnxGraph& e, const Step& s, std::string_view type) {
  const Pair kernel = Geometry::pair(s.integers("kernel"));
  const Geometry g(s, e.shape(s.inputs[0]), kernel);
  const std::int64_t n = g.w.patch();
  const Tensor eye =
      transpose(reshape(one_hot(arange(n, i64), n, e.dtype(s.output)), {n, g.w.kh, g.w.kw, g.w.c}), {0, 3, 1, 2});
  e.give(s, e.node(type, {e.first(s.inputs[0]), e.constant(eye)}, g.options()), true);
}

void gather_of(OnnxGraph& e, const Step& s, std::string_view type) {
  e.give(s, e.node(type, {e.full(s.inputs[0]), e.full(s.inputs[1])}, OnnxAttributes()("axis", std::int64_t{0})));
}
void pick_of(OnnxGraph& e, const Step& s, std::string_view type) {
  const std::string last = e.list({-1});
  const std::string y = e.node(type, {e.full(s.inputs[0]), e.node("Unsqueeze", {e.full(s.inputs[1]), last})},
                               OnnxAttributes()("axis", std::int64_t{-1}));
  e.give(s, e.node("Squeeze", {y, last}));
}
std::string hot(OnnxGraph& e, const Step& s, std::string_view type, int indices) {
  const std::string classes = e.constant(scalar(static_cast<double>(e.shape(s.output).at(-1)), i64));
  return e.node(type, {e.full(indices), classes, e.constant(tensor({0, 1}, e.dtype(s.output)))});
}
void one_hot_of(OnnxGraph& e, const Step& s, std::string_view type) { e.give(s, hot(e, s, type, s.inputs[0])); }
void place_of(OnnxGraph& e, const Step& s, std::string_view type) {
  const std::string values = e.node("Unsqueeze", {e.full(s.inputs[0]), e.list({-1})});
  e.give(s, e.node("Mul", {hot(e, s, type, s.inputs[1]), values}));
}
/// Over all axes but the last.
void normalize_batch(OnnxGraph& e, const Step& s, std::string_view) {
  Ints axes(static_cast<std::size_t>(e.shape(s.output).rank() - 1));
  std::iota(axes.begin(), axes.end(), 0);
  const OnnxAttributes over = OnnxAttributes()("axes", axes)("keepdims", std::int64_t{1});
  const std::string x = e.plain(s.inputs[0]), centered = e.node("Sub", {x, e.node("ReduceMean", {x}, over)});
  const std::string variance = e.node("ReduceMean", {e.node("Mul", {centered, centered})}, over);
  const std::string deviation =
      e.node("Sqrt", {e.node("Add", {variance, e.number(s.number("epsilon"), e.dtype(s.output))})});
  const std::string y = e.node("Mul", {e.node("Div", {centered, deviation}), e.plain(s.inputs[1])});
  e.give(s, e.node("Add", {y, e.plain(s.inputs[2])}));
}

constexpr auto rows = std::to_array<OnnxRow>({
    {"abs", "Abs", elementwise},
    {"add", "Add", elementwise},
    {"affine", "", affine_of},
    {"argmax", "ArgMax", argmax_of},
    {"avg_pool2d", "AveragePool", pooling},
    {"batch_norm", "", normalize_batch},
    {"broadcast_to", "Expand", broadcast_as},
    {"cast", "Cast", cast_to},
    {"clip", "Clip", clip_to},
    {"concat", "Concat", concat_of},
    {"conv2d", "Conv", convolution},
    {"conv2d_grouped", "Conv", convolution},
    {"conv2d_relu", "Conv", convolution_relu},
    {"conv2d_transpose", "ConvTranspose", transposed_convolution},
    {"cos", "Cos", elementwise},
    {"div", "Div", elementwise},
    {"elu", "Elu", elu_of},
    {"equal", "Equal", comparison},
    {"erf", "Erf", elementwise},
    {"exp", "Exp", elementwise},
    {"gather", "Gather", gather_of},
    {"gelu", "Erf", gelu_of},
    {"greater", "Greater", comparison},
    {"hook", "Identity", same_value},
    {"im2col", "Conv", patches},
    {"leaky_relu", "LeakyRelu", leaky},
    {"linear", "", linear_of},
    {"linear_relu", "Relu", linear_of},
    {"linear_sigmoid", "Sigmoid", linear_of},
    {"linear_tanh", "Tanh", linear_of},
    {"log", "Log", elementwise},
    {"log1p", "Log", log1p_of},
    {"log_softmax", "LogSoftmax", along_last},
    {"logsumexp", "ReduceLogSumExp", reduce},
    {"matmul", "MatMul", matmul_of},
    {"max", "ReduceMax", reduce},
    {"max_pool2d", "MaxPool", pooling},
    {"maximum", "Max", elementwise},
    {"mean", "ReduceMean", reduce},
    {"min", "ReduceMin", reduce},
    {"minimum", "Min", elementwise},
    {"mul", "Mul", product},
    {"one_hot", "OneHot", one_hot_of},
    {"pad", "Pad", pad_by},
    {"pick", "GatherElements", pick_of},
    {"place", "OneHot", place_of},
    {"pow", "Pow", elementwise},
    {"pow_scalar", "Pow", power},
    {"reciprocal", "Reciprocal", elementwise},
    {"relu", "Relu", elementwise},
    {"reshape", "Reshape", reshape_to},
    {"rsqrt", "Reciprocal", rsqrt_of},
    {"selu", "Selu", selu_of},
    {"sigmoid", "Sigmoid", elementwise},
    {"sign", "Sign", elementwise},
    {"silu", "Sigmoid", silu_of},
    {"sin", "Sin", elementwise},
    {"slice", "Slice", slice_of},
    {"softmax", "Softmax", along_last},
    {"softplus", "Softplus", elementwise},
    {"sqrt", "Sqrt", elementwise},
    {"square", "Mul", square_of},
    {"sub", "Sub", elementwise},
    {"sum", "ReduceSum", reduce},
    {"tanh", "Tanh", elementwise},
    {"transpose", "Transpose", transpose_by},
    {"where", "Where", where},
});

}  // namespace

const OnnxRow* onnx_row(std::string_view op) {
  const auto it = std::ranges::find(rows, op, &OnnxRow::op);
  return it == rows.end() ? nullptr : &*it;
}

}  // namespace ebb::detail
