// Samples that torch_samples wrote, through ebb. Without EBB_TORCH_SAMPLES, which names the files, there is nothing to
// do.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <ebb/autograd/backward.h>
#include <ebb/models/layers/norm.h>
#include <ebb/ops/ops.h>

using namespace ebb;
using nlohmann::json;

namespace {

using In = std::span<const Tensor>;
using Op = std::function<Tensor(In, const json&)>;

Shape shape_of(const json& j) { return Shape(j.get<std::vector<std::int64_t>>()); }
Pair pair_of(const json& j) { return {j[0].get<std::int64_t>(), j[1].get<std::int64_t>()}; }

Op plain(Tensor (*f)(const Tensor&)) {
  return [f](In x, const json&) { return f(x[0]); };
}
Op plain(Tensor (*f)(const Tensor&, const Tensor&)) {
  return [f](In x, const json&) { return f(x[0], x[1]); };
}

/// A reduction along any axes, which come as numbers.
template <class F>
Op along(F f) {
  return [f](In x, const json& a) -> Tensor {
    const auto dims = a["dims"].get<std::vector<int>>();
    const ReduceOptions keep{a["keepdim"].get<bool>()};
    switch (dims.size()) {
      case 0: return x[0];
      case 1: return f(x[0], Axes{dims[0]}, keep);
      case 2: return f(x[0], Axes{dims[0], dims[1]}, keep);
      case 3: return f(x[0], Axes{dims[0], dims[1], dims[2]}, keep);
      default: return f(x[0], Axes(), keep);
    }
  };
}

Conv2dOptions conv_of(const json& a) {
  return {pair_of(a["stride"]), a.value("same", false) ? Padding::same() : Padding(pair_of(a["pad"])),
          pair_of(a["dilation"])};
}
PoolOptions pool_of(const json& a) { return {pair_of(a["size"]), pair_of(a["stride"]), pair_of(a["pad"])}; }

/// A layer with one weight and bias, if they are given.
template <class L>
Tensor layer(L made, In x) {
  made(x[0].detach());
  std::size_t i = 0;
  for (const NamedTensor& t : named_tensors(made))
    if (t.trained) *t.tensor = x[++i];
  return made(x[0]);
}

Tensor transposed(const Tensor& x, std::vector<int> axes) {
  // transpose() takes a list in braces: two axes at a time make any order
  for (std::size_t i = 0; i < axes.size(); ++i) axes[i] = x.shape().normalize(axes[i], "transpose");
  switch (axes.size()) {
    case 0: return transpose(x);
    case 1: return transpose(x, {axes[0]});
    case 2: return transpose(x, {axes[0], axes[1]});
    case 3: return transpose(x, {axes[0], axes[1], axes[2]});
    case 4: return transpose(x, {axes[0], axes[1], axes[2], axes[3]});
    case 5: return transpose(x, {axes[0], axes[1], axes[2], axes[3], axes[4]});
    default: return transpose(x, {axes[0], axes[1], axes[2], axes[3], axes[4], axes[5]});
  }
}

const std::map<std::string, Op>& ops() {
  static const std::map<std::string, Op> all{
      {"add", plain(add)},
      {"sub", plain(sub)},
      {"mul", plain(mul)},
      {"div", plain(div)},
      {"maximum", plain(maximum)},
      {"minimum", plain(minimum)},
      {"pow", [](In x, const json&) { return pow(x[0], x[1]); }},
      {"greater", [](In x, const json&) { return greater(x[0], x[1]); }},
      {"less", [](In x, const json&) { return less(x[0], x[1]); }},
      {"equal", plain(equal)},
      {"exp", plain(exp)},
      {"log", plain(log)},
      {"log1p", plain(log1p)},
      {"sqrt", plain(sqrt)},
      {"square", plain(square)},
      {"reciprocal", plain(reciprocal)},
      {"abs", plain(abs)},
      {"sin", plain(sin)},
      {"cos", plain(cos)},
      {"erf", plain(erf)},
      {"tanh", plain(tanh)},
      {"sigmoid", plain(sigmoid)},
      {"softplus", plain(softplus)},
      {"relu", plain(relu)},
      {"selu", plain(selu)},
      {"gelu", plain(gelu)},
      {"silu", plain(silu)},
      {"neg", [](In x, const json&) { return -x[0]; }},
      {"leaky_relu", [](In x, const json& a) { return leaky_relu(x[0], a["slope"]); }},
      {"elu", [](In x, const json& a) { return elu(x[0], a["alpha"]); }},
      {"clip", [](In x, const json& a) { return clip(x[0], a["low"], a["high"]); }},
      {"where", [](In x, const json&) { return where(x[0], x[1], x[2]); }},
      {"sum", along(sum)},
      {"mean", along(mean)},
      {"max", along(static_cast<Tensor (*)(const Tensor&, Axes, ReduceOptions)>(max))},
      {"min", along(static_cast<Tensor (*)(const Tensor&, Axes, ReduceOptions)>(min))},
      {"variance", along(variance)},
      {"logsumexp", along(logsumexp)},
      {"argmax", [](In x, const json& a) { return argmax(x[0], a["axis"]); }},
      {"reshape", [](In x, const json& a) { return reshape(x[0], shape_of(a["shape"])); }},
      {"transpose", [](In x, const json& a) { return transposed(x[0], a["axes"].get<std::vector<int>>()); }},
      {"broadcast_to", [](In x, const json& a) { return broadcast_to(x[0], shape_of(a["shape"])); }},
      {"sum_to", [](In x, const json& a) { return sum_to(x[0], shape_of(a["shape"])); }},
      {"slice",
       [](In x, const json& a) { return slice(x[0], {.axis = a["axis"], .begin = a["begin"], .end = a["end"]}); }},
      {"pad",
       [](In x, const json& a) {
         Tensor y = x[0];
         for (std::size_t i = 0; i < a["pads"].size(); i += 2)
           y = pad(y, {.axis = -1 - static_cast<int>(i / 2), .before = a["pads"][i], .after = a["pads"][i + 1]});
         return y;
       }},
      {"concat", [](In x, const json& a) { return concat(x, a["axis"]); }},
      {"stack", [](In x, const json& a) { return stack(x, a["axis"]); }},
      {"matmul", [](In x, const json&) { return matmul(x[0], x[1]); }},
      {"linear", [](In x, const json&) { return linear(x[0], x[1], x[2]); }},
      {"conv2d",
       [](In x, const json& a) {
         const std::int64_t groups = a["groups"];
         const Tensor y = groups == 1 ? conv2d(x[0], x[1], conv_of(a)) : conv2d_grouped(x[0], x[1], groups, conv_of(a));
         return x.size() > 2 ? y + x[2] : y;
       }},
      {"conv2d_transpose",
       [](In x, const json& a) {
         const Tensor y = conv2d_transpose(x[0], x[1], pair_of(a["image"]), conv_of(a));
         return x.size() > 2 ? y + x[2] : y;
       }},
      {"max_pool2d", [](In x, const json& a) { return max_pool2d(x[0], pool_of(a)); }},
      {"avg_pool2d", [](In x, const json& a) { return avg_pool2d(x[0], pool_of(a)); }},
      {"im2col",
       [](In x, const json& a) {
         const Tensor y = im2col(x[0], pair_of(a["kernel"]), conv_of(a));
         return reshape(y, Shape{y.size(0), y.size(1) * y.size(2), y.size(3)});
       }},
      {"gather", [](In x, const json&) { return gather(x[0], x[1]); }},
      {"scatter_rows", [](In x, const json& a) { return scatter_rows(x[0], x[1], a["rows"]); }},
      {"one_hot", [](In x, const json& a) { return one_hot(x[0], a["classes"]); }},
      {"softmax", plain(softmax)},
      {"log_softmax", plain(log_softmax)},
      {"cross_entropy",
       [](In x, const json& a) { return cross_entropy(x[0], x[1], {.label_smoothing = a["smoothing"]}); }},
      {"bce_with_logits", plain(bce_with_logits)},
      {"mse", plain(mse)},
      {"mae", plain(mae)},
      {"kl_divergence", plain(kl_divergence)},
      {"huber", [](In x, const json& a) { return huber(x[0], x[1], a.value("delta", 1.0)); }},
      {"batch_norm", [](In x, const json& a) { return batch_norm(x[0], x[1], x[2], {.epsilon = a["eps"]}); }},
      {"layer_norm",
       [](In x, const json& a) {
         return layer(LayerNormalization({.epsilon = a["eps"], .scale = x.size() > 1, .center = x.size() > 1}), x);
       }},
      {"group_norm", [](In x, const json& a) {
         return layer(GroupNormalization(
                          {.groups = a["groups"], .epsilon = a["eps"], .scale = x.size() > 1, .center = x.size() > 1}),
                      x);
       }}};
  return all;
}

/// Empty when equal by torch.testing's tolerances, or no further from the exact value than PyTorch's is somewhere in
/// the tensor (a sum whose terms cancel has lost digits in both).
std::string difference(const std::string& what, const Tensor& got, const Tensor& expected, const Tensor& exact,
                       bool narrow) {
  if (got.shape() != expected.shape())
    return fmt::format("{}: shape {}, expected {}", what, got.shape().str(), expected.shape().str());
  const double relative = narrow ? 1.3e-6 : 1e-7, absolute = narrow ? 1e-5 : 1e-7;
  const std::vector<double> a = got.to_vector(), b = expected.to_vector(), e = exact.to_vector();
  double worst = 0;
  for (std::size_t i = 0; i < b.size(); ++i)
    if (std::isfinite(b[i]) && std::isfinite(e[i])) worst = std::max(worst, std::abs(b[i] - e[i]));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
          std::abs(a[i] - b[i]) <= absolute + relative * std::abs(b[i]) || std::abs(a[i] - e[i]) <= worst))
      return fmt::format("{}: element {} is {}, PyTorch's {}, exactly {}", what, i, a[i], b[i], e[i]);
  return {};
}

}  // namespace

TEST_CASE("torch samples: values and gradients of PyTorch's own samples") {
  const char* path = std::getenv("EBB_TORCH_SAMPLES");
  if (!path) return;
  std::ifstream text(std::string(path) + ".json"), numbers(std::string(path) + ".bin", std::ios::binary);
  const json cases = json::parse(text);
  const std::string bytes((std::istreambuf_iterator<char>(numbers)), std::istreambuf_iterator<char>());
  const auto tensor_of = [&](const json& j) {
    Tensor t = Tensor::empty(shape_of(j["shape"]), f64);
    if (t.bytes())
      std::copy_n(bytes.data() + j["at"].get<std::size_t>() * sizeof(double), t.bytes(),
                  reinterpret_cast<char*>(t.mutable_raw()));
    const std::string type = j["type"];
    return cast(t, type == "f32" ? f32 : type == "f64" ? f64 : type == "u8" ? u8 : i64);
  };
  std::ofstream results(std::string(path) + ".results");
  for (const json& c : cases) {
    std::string verdict;
    try {
      const bool narrow = c["dtype"] == "float32";
      std::vector<Tensor> x, leaves;
      for (const json& in : c["inputs"]) {
        x.push_back(tensor_of(in));
        if (is_float(x.back().dtype())) leaves.push_back(x.back() = variable(x.back()));
      }
      const Tensor y = ops().at(c["op"])(x, c["args"]);
      verdict = difference("value", y, tensor_of(c["output"]), tensor_of(c["exact"]), narrow);
      if (verdict.empty() && c.contains("cotangent")) {
        const std::vector<Tensor> g = grad(y, leaves, {.allow_unused = true, .cotangent = tensor_of(c["cotangent"])});
        for (std::size_t i = 0; i < leaves.size() && verdict.empty(); ++i) {
          const json& expected = c["gradients"][i];
          if (expected.is_null()) continue;
          verdict = difference(fmt::format("gradient {}", i), g[i].defined() ? g[i] : zeros_like(leaves[i].detach()),
                               tensor_of(expected), tensor_of(c["exact_gradients"][i]), narrow);
        }
      }
    } catch (const std::exception& e) {
      verdict = std::string("refused: ") + e.what();
    }
    results << (verdict.empty() ? "equal" : verdict) << '\n';
  }
}
