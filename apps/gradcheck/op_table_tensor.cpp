// Rows of reductions, layout and products.
// (over 400 lines because every op has its row)
#include <fmt/format.h>

#include "op_table.h"

// clang-format off: a table, whose rows are read one beside the other

namespace ebb::testing {
namespace {

using Reduction = Tensor (*)(const Tensor&, Axes, ReduceOptions);

/// Every kind of axis subset: all, first, last, middle, gaps between, negative, kept; size 1 and scalars.
std::vector<Case> reductions(Reduction f, bool empty, const std::string& torch) {
  const auto over = [f](Axes axes, bool keep = false) {
    return [f, axes, keep](In x) { return f(x[0], axes, {.keepdims = keep}); };
  };
  std::vector<Case> cases{{{{}}},
                          {{{5}}},
                          {{{3, 1, 4}}},
                          {{{3, 4}}, over(0)},
                          {{{3, 4}}, over(-1)},
                          {{{2, 3, 4}}, over(1), fmt::format(fmt::runtime(torch), "1")},
                          {{{2, 3, 4}}, over({0, 2})},
                          {{{2, 3, 4}}, over({0, 2}, true), fmt::format(fmt::runtime(torch), "(0, 2), keepdim=True")},
                          {{{2, 3, 2, 2}}, over({-1, 1}, true)},
                          {{{2, 3}}, over({}, true)},
                          {{{1, 3}}, over(0)}};
  if (empty) {
    cases.push_back({{{0, 3}}});
    cases.push_back({{{3, 0}}, over(1)});
  } else {
    cases.push_back({{{0, 3}}, over(1)});
  }
  return cases;
}

std::vector<Case> large_reductions(Reduction f) {
  const auto over = [f](Axes axes) { return [f, axes](In x) { return f(x[0], axes, {}); }; };
  return {{{{300, 257}}}, {{{9001, 33}}, over(0)}, {{{300, 257}}, over(1)}, {{{50, 40, 30}}, over({0, 2})}};
}

/// `torch` has {} where the axes stand.
Row reduction(std::string name, std::string torch, Reduction f, Domain domain, bool empty, std::string none = "") {
  std::vector<Refusal> errors{
      refuses<ShapeError>(
          [f] {
            return f(zeros({2, 3}), 2, {});
          },
          name + ": axis 2 does not exist in (2, 3)"),
      refuses<ShapeError>(
          [f] {
            return f(zeros({2, 3}), {1, -1}, {});
          },
          name + ": axis 1 is given twice for (2, 3)"),
  };
  if (name != "mean")  // which is a sum
    errors.push_back(refuses<DTypeError>([f] { return f(zeros({2}, i64), {}, {}); },
                                         name + ": needs float32 or float64, got int64 (2,); cast(x, f32) converts"));
  if (!none.empty()) errors.push_back(refuses<ShapeError>([f] { return f(zeros({0, 3}), 0, {}); }, name + none));
  return {name,
          fmt::format(fmt::runtime(torch), "tuple(range(x.dim()))"),
          [f](In x) { return f(x[0], {}, {}); },
          reductions(f, empty, torch),
          domain,
          errors,
          large_reductions(f)};
}

Function times(MatmulOptions o) {
  return [o](In x) { return matmul(x[0], x[1], o); };
}

Function activated(Tensor (*f)(const Tensor&)) {
  return [f](In x) { return linear(x[0], x[1], x[2], f); };
}
Case dense(Tensor (*f)(const Tensor&), std::string torch) {
  return {{{2, 3}, {3, 4}, {4}}, activated(f), torch + "(x @ y + z)"};
}

}  // namespace

std::vector<Row> tensor_rows() {
  return {
      reduction("sum", "x.sum({})", sum, anywhere, true),
      reduction("mean", "x.mean({})", mean, anywhere, false, ": no elements to average in (0, 3)"),
      reduction("max", "x.amax({})", max, spread, false, ": no elements to choose from in (0, 3)"),
      reduction("min", "x.amin({})", min, spread, false, ": no elements to reduce in (0, 3)"),
      reduction("variance", "x.var(unbiased=False, dim={})", variance, anywhere, false,
                ": no elements to reduce in (0, 3)"),
      reduction("logsumexp", "x.logsumexp({})", logsumexp, anywhere, false, ": no elements to reduce in (0, 3)"),
      {"sum_to",
       "x.sum_to_size(3, 1)",
       [](In x) {
         return sum_to(x[0], {3, 1});
       },
       {{{{3, 4}}}, {{{2, 3, 4}}}, {{{2, 3, 1}}}, {{{0, 3, 2}}}, {{{2, 3}}, [](In x) { return sum_to(x[0], {}); }}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return sum_to(zeros({2, 3}), {2});
            },
            "sum_to: (2,) does not broadcast to (2, 3)"),
        refuses<DTypeError>(
            [] {
              return sum_to(zeros({2, 3}, i64), {3});
            },
            "sum: needs float32 or float64, got int64 (2, 3); cast(x, f32) converts")},
       {},
       "sum"},
      {"reshape",
       "x.reshape(2, -1)",
       [](In x) {
         return reshape(x[0], {2, -1});
       },
       {{{{6}}},
        {{{2, 3}},
         [](In x) {
           return square(reshape(x[0], {2, 3}));
         }},
        {{{3, 4}}},
        {{{1, 1}}, [](In x) { return reshape(x[0], Shape{}); }},
        {{{0, 2}}}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return reshape(zeros({2, 3}), {4, 2});
            },
            "reshape: (2, 3) has 6 elements, (4, 2) has 8"),
        refuses<ShapeError>(
            [] {
              return reshape(zeros({2, 3}), {4, -1});
            },
            "reshape: (2, 3) does not divide into (4, -1)"),
        refuses<ShapeError>(
            [] {
              return reshape(zeros({2, 3}), {-1, -1});
            },
            "reshape: (2, 3) does not divide into (-1, -1)"),
        refuses<ShapeError>(
            [] {
              return reshape(zeros({0}), {0, -1});
            },
            "reshape: (0,) does not divide into (0, -1)")},
       {},
       "",
       2,
       false},
      {"flatten",
       "x.flatten(1)",
       [](In x) { return flatten(x[0]); },
       {{{{2, 3, 4}}}, {{{0, 3, 2}}}, {{{3}}}, {{{2, 1, 1, 3}}}},
       anywhere,
       {refuses<ShapeError>([] { return flatten(zeros({})); }, "flatten: a scalar has no batch axis")},
       {},
       "reshape",
       2,
       false},
      {"transpose",
       "x.permute(*reversed(range(x.dim())))",
       [](In x) { return transpose(x[0]); },
       {{{{2, 3}}},
        {{{5}}},
        {{{}}},
        {{{2, 3, 4}},
         [](In x) {
           return transpose(x[0], {2, 0, 1});
         },
         "x.permute(2, 0, 1)"},
        {{{2, 3, 1, 2}},
         [](In x) {
           return transpose(x[0], {-1, 1, 0, 2});
         }},
        {{{0, 3}}}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return transpose(zeros({2, 3}), {0});
            },
            "transpose: (0) does not name each axis of (2, 3) once"),
        refuses<ShapeError>(
            [] {
              return transpose(zeros({2, 3}), {1, 1});
            },
            "transpose: (1, 1) does not name each axis of (2, 3) once"),
        refuses<ShapeError>(
            [] {
              return transpose(zeros({2, 3}), {0, 2});
            },
            "transpose: axis 2 does not exist in (2, 3)")},
       {},
       "",
       2,
       false},
      {"broadcast_to",
       "x.expand(2, 3, 4)",
       [](In x) {
         return broadcast_to(x[0], {2, 3, 4});
       },
       {{{{4}}},
        {{{3, 1}}},
        {{{}}},
        {{{2, 1, 4}}},
        {{{1, 1}}},
        {{{1}},
         [](In x) {
           return broadcast_to(x[0], {0, 3});
         }}},
       anywhere,
       {refuses<ShapeError>([] { return broadcast_to(zeros({2}), {3}); },
                            "broadcast_to: (2,) does not broadcast to (3,)"),
        refuses<ShapeError>(
            [] {
              return broadcast_to(zeros({2, 3}), {3});
            },
            "broadcast_to: (2, 3) does not broadcast to (3,)"),
        refuses<DTypeError>([] { return broadcast_to(zeros({1}, u8), {3}); },
                            "broadcast_to: needs float32 or float64, got uint8 (1,); cast(x, f32) converts")},
       {{{{257, 1}},
         [](In x) {
           return broadcast_to(x[0], {40, 257, 9});
         }}}},
      {"slice",
       "x[..., 1:-1]",
       [](In x) { return slice(x[0], {.axis = -1, .begin = 1, .end = -1}); },
       {{{{5}}},
        {{{2, 4}}},
        {{{7, 2}}, [](In x) { return slice(x[0], {.begin = 1, .step = 3}); }, "x[1::3]"},
        {{{2, 7, 2}}, [](In x) { return slice(x[0], {.axis = 1, .begin = -100, .end = 100, .step = 2}); }, "x[:, ::2]"},
        {{{3, 2}}, [](In x) { return slice(x[0], {.begin = 2, .end = 2}); }},
        {{{0, 3}}},
        // the second gradient of one value is added in place
        {{{5, 2}},
         [](In x) { return slice(x[0], {.begin = 0, .end = 3}) * slice(x[0], {.begin = 0, .end = 5, .step = 2}); }}},
       anywhere,
       {refuses<ShapeError>([] { return slice(zeros({3}), {.axis = 1}); }, "slice: axis 1 does not exist in (3,)"),
        refuses<ValueError>([] { return slice(zeros({3}), {.step = 0}); },
                            "slice: the step must be at least 1, got 0")},
       {},
       "",
       2,
       false},
      {"pad",
       "F.pad(x, (1, 2))",
       [](In x) { return pad(x[0], {.axis = -1, .before = 1, .after = 2}); },
       {{{{3}}}, {{{2, 1, 3}}}, {{{2, 0}}}, {{{2, 3}}, [](In x) { return pad(x[0], {.after = 1}); }}},
       anywhere,
       {refuses<ValueError>([] { return pad(zeros({3}), {.before = -1}); },
                            "pad: pads must not be negative, got -1 and 0"),
        refuses<ShapeError>([] { return pad(zeros({}), {}); }, "pad: axis 0 does not exist in ()")},
       {},
       "",
       2,
       false},
      {"concat",
       "torch.cat(xs, -1)",
       [](In x) { return concat(x, -1); },
       {{{{2, 3}, {2, 1}}},
        {{{3}}},
        {{{2}, {0}, {3}}},
        {{{2, 1, 2}, {3, 1, 2}, {1, 1, 2}}, [](In x) { return concat(x); }},
        {{{2, 3}},
         [](In x) {
           return concat({x[0], x[0]}, 1);
         }},
        {{{1}}, [](In x) { return concat(std::vector<Tensor>(70, x[0])); }}},
       anywhere,
       {refuses<ValueError>([] { return concat(std::vector<Tensor>{}); }, "concat: nothing to join"),
        refuses<ShapeError>(
            [] {
              return concat({zeros({2, 3}), zeros({2, 4})});
            },
            "concat: shapes differ outside of axis 0: (2, 3) and (2, 4)"),
        refuses<ShapeError>(
            [] {
              return concat({zeros({2}), zeros({2, 4})});
            },
            "concat: shapes differ outside of axis 0: (2,) and (2, 4)"),
        refuses<DTypeError>(
            [] {
              return concat({zeros({2}), zeros({2}, f64)});
            },
            "concat: types differ: float32 (2,) and float64 (2,); cast(x, f32) converts")},
       {},
       "",
       2,
       false},
      {"stack",
       "torch.stack(xs, -1)",
       [](In x) { return stack(x, -1); },
       {{{{2, 3}, {2, 3}}},
        {{{}, {}, {}}},
        {{{2}, {2}}, [](In x) { return stack(x); }},
        {{{2}},
         [](In x) {
           return stack(std::vector{x[0], x[0]}, 1);
         }},
        {{{2}}, [](In x) { return stack(std::vector<Tensor>(70, x[0]), 1); }}},
       anywhere,
       {refuses<ShapeError>([] { return stack(std::vector{zeros({2})}, 2); }, "stack: axis 2 does not exist in (2,)"),
        refuses<ValueError>([] { return stack(std::vector<Tensor>{}); }, "concat: nothing to join")},
       {},
       "",
       2,
       false},
      {"matmul",
       "x @ y",
       times({}),
       {{{{2, 3}, {3, 4}}},
        {{{1, 1}, {1, 1}}},
        {{{5, 7}, {7, 3}}},
        {{{3, 2}, {3, 4}}, times({true, false})},
        {{{2, 3}, {4, 3}}, times({false, true})},
        {{{3, 2}, {4, 3}}, times({true, true}), "x.T @ y.T"},
        {{{2, 2, 3}, {2, 3, 2}}},
        {{{3, 1, 2, 3}, {2, 3, 2}}, nullptr, "x @ y"},
        {{{2, 3}, {2, 3, 4}}},
        {{{2, 3, 2}, {1, 4, 3}}, times({true, true})},
        {{{2, 3, 2}, {3, 4}}, times({true, false})},
        {{{2, 2, 3}, {4, 3}}, times({false, true})},
        {{{2, 2, 3}, {3, 2}}},
        {{{0, 3}, {3, 2}}},
        {{{2, 0}, {0, 3}}},
        {{{0, 2, 3}, {3, 2}}},
        {{{3, 3}}, [](In x) { return matmul(x[0], x[0]); }}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return matmul(zeros({64, 100}), zeros({784, 128}));
            },
            "matmul: inner sizes differ: (64, 100) x (784, 128)"),
        refuses<ShapeError>(
            [] {
              return matmul(zeros({2, 3}), zeros({2, 3}), {true, true});
            },
            "matmul: inner sizes differ: (2, 3)^T x (2, 3)^T"),
        refuses<ShapeError>(
            [] {
              return matmul(zeros({2, 2, 3}), zeros({4, 5}));
            },
            "matmul: inner sizes differ: (2, 2, 3) x (4, 5)"),
        refuses<ShapeError>(
            [] {
              return matmul(zeros({3}), zeros({3, 2}));
            },
            "matmul: needs at least 2 axes on both sides: (3,) x (3, 2)"),
        refuses<ShapeError>(
            [] {
              return matmul(zeros({2, 2, 3}), zeros({3, 3, 2}));
            },
            "matmul: shapes do not broadcast: (2,) and (3,)"),
        refuses<DTypeError>(
            [] {
              return matmul(zeros({2, 3}), zeros({3, 2}, f64));
            },
            "matmul: types differ: float32 (2, 3) and float64 (3, 2); cast(x, f32) converts"),
        refuses<DTypeError>(
            [] {
              return matmul(zeros({2, 3}, i64), zeros({3, 2}, i64));
            },
            "matmul: needs float32 or float64, got int64 (2, 3); cast(x, f32) converts")},
       {{{{201, 99}, {99, 77}}}, {{{33, 99}, {99, 301}}}, {{{6, 40, 50}, {6, 50, 40}}}, {{{3, 101, 40}, {40, 77}}}}},
      {"linear",
       "F.linear(x, y.T, z)",
       [](In x) { return linear(x[0], x[1], x[2]); },
       {{{{2, 3}, {3, 4}, {4}}},
        {{{2, 2, 3}, {3, 1}, {1}}},
        {{{0, 3}, {3, 2}, {2}}},
        {{{1, 5}, {5, 2}, {}}},
        dense(sigmoid, "torch.sigmoid"),
        dense(tanh, "torch.tanh"),
        dense(softplus, "F.softplus")},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return linear(zeros({64, 100}), zeros({784, 128}), zeros({128}));
            },
            "matmul: inner sizes differ: (64, 100) x (784, 128)"),
        refuses<ShapeError>(
            [] {
              return linear(zeros({2, 3}), zeros({3, 4}), zeros({3}));
            },
            "add: shapes do not broadcast: (2, 4) and (3,)")},
       {{{{201, 99}, {99, 77}, {77}}},
        {{{201, 99}, {99, 307}, {307}}, activated(sigmoid)},
        {{{201, 99}, {99, 77}, {77}}, activated(tanh)}}},
      {"linear",
       "torch.relu(x @ y + z)",
       activated(relu),
       {{{{3, 4}, {4, 5}, {5}}}, {{{2, 0}, {0, 3}, {3}}}},
       spread,
       {},
       {{{{201, 99}, {99, 77}, {77}}}},
       "linear_relu"},
      {"linear_plain",
       "x @ y + z",
       [](In x) { return linear_plain(x[0], x[1], x[2]); },
       {{{{2, 3}, {3, 4}, {4}}}},
       anywhere,
       {},
       {}},
  };
}

}  // namespace ebb::testing
