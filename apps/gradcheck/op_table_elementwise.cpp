// Rows of arithmetic and of functions of one number.
#include <cmath>

#include "op_table.h"

// clang-format off: a table, whose rows are read one beside the other

namespace ebb::testing {
namespace {

/// Shapes of every op of two broadcasting inputs: alike, odd, size 1, scalars, both ways, inner axes, empty.
std::vector<Case> pairs(Tensor (*f)(const Tensor&, const Tensor&)) {
  return {{{{2, 3}, {2, 3}}},
          {{{5}, {1}}},
          {{{}, {}}},
          {{{2, 3}, {3}}},
          {{{3}, {2, 3}}},
          {{{2, 1, 3}, {4, 1}}},
          {{{1, 3}, {2, 1}}},
          {{{}, {2, 2}}},
          {{{0, 3}, {3}}},
          {{{2, 1}, {2, 0}}},
          {{{7}}, [f](In x) { return f(x[0], x[0]) + x[0]; }}};
}
std::vector<Case> large_pairs() { return {{{{300, 257}, {300, 257}}}, {{{300, 257}, {257}}}, {{{300, 1}, {1, 257}}}}; }

std::vector<Refusal> pair_errors(const std::string& op, Tensor (*f)(const Tensor&, const Tensor&)) {
  return {refuses<ShapeError>(
              [f] {
                return f(zeros({2, 3}), zeros({2, 4}));
              },
              op + ": shapes do not broadcast: (2, 3) and (2, 4)"),
          refuses<DTypeError>([f] { return f(zeros({2}), zeros({2}, f64)); },
                              op + ": types differ: float32 (2,) and float64 (2,); cast(x, f32) converts"),
          refuses<DTypeError>([f] { return f(zeros({2}, i64), zeros({2}, i64)); },
                              op + ": needs float32 or float64, got int64 (2,); cast(x, f32) converts"),
          refuses<ValueError>([f] { return f(zeros({2}), Tensor()); }, op + ": input 1 is undefined")};
}

Row binary(std::string name, Elsewhere elsewhere, Tensor (*f)(const Tensor&, const Tensor&), Domain domain = anywhere,
           bool repeats = true) {
  std::vector<Case> cases = pairs(f);
  if (!repeats) cases.pop_back();
  return {name, elsewhere, [f](In x) { return f(x[0], x[1]); }, cases, domain, pair_errors(name, f), large_pairs()};
}

/// The last has so many elements that some are met on each side of 0: the others of a row begin with the same few.
std::vector<Case> singles() { return {{{{}}}, {{{1}}}, {{{7}}}, {{{2, 3}}}, {{{3, 1, 2}}}, {{{0, 4}}}, {{{11, 13}}}}; }
std::vector<Case> large_single() { return {{{{300, 257}}}}; }

Row unary(std::string op, Elsewhere elsewhere, Tensor (*f)(const Tensor&), Domain domain = anywhere) {
  return {op,
          elsewhere,
          [f](In x) { return f(x[0]); },
          singles(),
          domain,
          {refuses<DTypeError>(
               [f] {
                 return f(zeros({2, 3}, u8));
               },
               op + ": needs float32 or float64, got uint8 (2, 3); cast(x, f32) converts"),
           refuses<ValueError>([f] { return f(Tensor()); }, op + ": input 0 is undefined")},
          large_single()};
}

Row one_input(std::string name, Elsewhere elsewhere, Function f, Domain domain, std::string node,
              std::vector<Refusal> errors = {}) {
  return {name, elsewhere, f, singles(), domain, errors, large_single(), node};
}

}  // namespace

std::vector<Row> elementwise_rows() {
  return {
      binary("add", "x + y", add),
      binary("sub", "x - y", sub),
      binary("mul", "x * y", mul),
      binary("div", "x / y", div, off_zero),
      binary("pow", "x ** y", pow, positive),
      binary("atan2", {"torch.atan2(x, y)", "opset 13 has the arctangent of a number only"}, atan2, off_zero),
      // at a tie, as in f(x, x), the halves add up to the gradient of x, but a step through the tie has no derivative
      binary("maximum", "torch.maximum(x, y)", maximum, spread, false),
      binary("minimum", "torch.minimum(x, y)", minimum, spread, false),
      one_input("affine", "-1.5 * x + 0.25", [](In x) { return affine(x[0], -1.5, 0.25); }, anywhere, "",
                {refuses<DTypeError>([] { return affine(zeros({2}, i64), 1, 1); },
                                     "affine: needs float32 or float64, got int64 (2,); cast(x, f32) converts")}),
      {"pow",
       "x ** 2.5",
       [](In x) { return pow(x[0], 2.5); },
       {{{{}}},
        {{{2, 3}}},
        {{{0}}},
        {{{5}}, [](In x) { return pow(x[0], -1.0); }},
        {{{5}}, [](In x) { return pow(x[0], 3.0); }}},
       positive,
       {},
       large_single(),
       "pow_scalar"},
      {"pow",
       "x ** 2",
       [](In x) { return pow(x[0], 2.0); },
       {{{{4}}}, {{{4}}, [](In x) { return square(pow(x[0], 1.0)); }}},
       anywhere,
       {},
       {},
       "square"},
      {"operator/", "2 / x", [](In x) { return 2.0 / x[0]; }, singles(), off_zero, {}, large_single(), "div"},
      {"operators",
       "(1 - (x + 2) * 3) / 4 + (-x - 0.5) * x + 0.5 * (2 + x) - (x - x) / (x * x + 1)",
       [](In x) {
         return (1.0 - (x[0] + 2.0) * 3.0) / 4.0 + (-x[0] - 0.5) * x[0] + 0.5 * (2.0 + x[0]) -
                (x[0] - x[0]) / (x[0] * x[0] + 1);
       },
       singles(),
       anywhere,
       {},
       {},
       "affine"},
      unary("exp", "torch.exp(x)", exp),
      unary("log", "torch.log(x)", log, positive),
      unary("log1p", "torch.log1p(x)", log1p, {-0.6, 2}),
      unary("sqrt", "torch.sqrt(x)", sqrt, positive),
      unary("rsqrt", "torch.rsqrt(x)", rsqrt, positive),
      unary("square", "torch.square(x)", square),
      unary("reciprocal", "torch.reciprocal(x)", reciprocal, off_zero),
      unary("abs", "torch.abs(x)", abs, off_zero),
      unary("sin", "torch.sin(x)", sin),
      unary("cos", "torch.cos(x)", cos),
      unary("erf", "torch.erf(x)", erf),
      unary("tanh", "torch.tanh(x)", tanh),
      unary("sigmoid", "torch.sigmoid(x)", sigmoid),
      unary("softplus", "F.softplus(x)", softplus),
      unary("relu", "torch.relu(x)", relu, off_zero),
      one_input(
          "leaky_relu", "F.leaky_relu(x, 0.2)", [](In x) { return leaky_relu(x[0], 0.2); }, off_zero, ""),
      one_input(
          "elu", "F.elu(x, 0.7)", [](In x) { return elu(x[0], 0.7); }, off_zero, ""),
      one_input(
          "selu", "F.selu(x)", [](In x) { return selu(x[0]); }, off_zero, ""),
      unary("gelu", "F.gelu(x)", gelu),
      unary("silu", "F.silu(x)", silu),
      one_input(
          "clip", "torch.clamp(x, -0.5, 0.5)", [](In x) { return clip(x[0], -0.5, 0.5); }, spread, "",
          {refuses<ValueError>([] { return clip(zeros({2}), 1, 0); }, "clip: low 1 is above high 0"),
           refuses<ValueError>([] { return clip(zeros({2}), 0, std::nan("")); }, "clip: low 0 is above high nan")}),
      {"where",
       "torch.where(z > 0, x, y) * z.sum()",
       [](In x) { return where(greater(x[2].detach(), 0.0), x[0], x[1]) * sum(x[2]); },
       {{{{2, 3}, {2, 3}, {2, 3}}},
        {{{3}, {2, 1}, {1}}},
        {{{}, {}, {2, 2}}},
        {{{0, 3}, {3}, {1, 3}}},
        {{{2}, {2}, {4, 2}}}},
       off_zero,
       {refuses<DTypeError>([] { return where(zeros({2}), zeros({2}), zeros({2})); },
                            "where: the condition must be uint8, got float32 (2,)"),
        refuses<ShapeError>([] { return where(zeros({3}, u8), zeros({2}), zeros({2})); },
                            "where: shapes do not broadcast: (2,) and (3,)"),
        refuses<DTypeError>([] { return where(zeros({2}, u8), zeros({2}), zeros({2}, f64)); },
                            "where: types differ: float32 (2,) and float64 (2,); cast(x, f32) converts")},
       {{{{100, 257}, {257}, {100, 1}}}, {{{300, 257}, {300, 257}, {300, 257}}}, {{{}, {257}, {300, 257}}}}},
      // to float64, where differences see a derivative; the tests in float32 run a conversion
      {"cast",
       "x * 3",
       [](In x) { return cast(cast(x[0] * 2, f64) * 1.5, x[0].dtype()); },
       {{{{}}},
        {{{1}}},
        {{{7}}},
        {{{2, 3}}},
        {{{3, 1, 2}}},
        {{{0, 4}}},
        {{{2, 3}}, [](In x) { return cast(x[0] * 2, f64); }}},
       anywhere,
       {},
       {},
       "affine"},
      one_input(
          "stop_gradient", "x * 2 + 1", [](In x) { return x[0] * 2 + stop_gradient(ones_like(x[0])); }, anywhere,
          "add"),
  };
}

}  // namespace ebb::testing
