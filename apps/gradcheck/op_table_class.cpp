// Rows of indices, classification and noise; and the ops that no gradient passes.
// (over 400 lines because each refusal of a row is a case of its own)
#include <cmath>

#include "op_table.h"

// clang-format off: a table, whose rows are read one beside the other

namespace ebb::testing {
namespace {

Tensor classes(std::int64_t n, std::int64_t c) {  // 0, 2, 4, ... modulo c
  Tensor t = Tensor::empty({n}, i64);
  for (std::int64_t i = 0; i < n; ++i) t.mutable_values<std::int64_t>()[static_cast<std::size_t>(i)] = 2 * i % c;
  return t;
}
/// Rows of numbers in (0, 1) that do not add up to one: the gradient must not take for granted that they do.
Tensor weights(const Tensor& x) {
  return cast(sigmoid(cos(cast(reshape(arange(x.numel()), x.shape()), f64))), x.dtype());
}

using Loss = Tensor (*)(const Tensor&, const Tensor&, CrossEntropyOptions);

Row entropy(std::string name, std::string no_onnx, Loss f) {
  const std::string labels = "F.cross_entropy(x, 2 * torch.arange(len(x)) % x.shape[1]";
  const auto sparse = [f](double smoothing) {
    return
        [f, smoothing](In x) { return f(x[0], classes(x[0].size(0), x[0].size(1)), {.label_smoothing = smoothing}); };
  };
  const auto dense = [f](double smoothing) {
    return [f, smoothing](In x) { return f(x[0], weights(x[0]), {.label_smoothing = smoothing}); };
  };
  return {name,
          {labels + ")", no_onnx},
          sparse(0),
          {{{{3, 4}}},
           {{{1, 1}}},
           {{{5, 3}}, sparse(0.1), labels + ", label_smoothing=0.1)"},
           {{{3, 4}}, dense(0), "F.cross_entropy(x, torch.sigmoid(torch.cos(torch.arange(12.0))).reshape(3, 4))"},
           {{{2, 5}}, dense(0.2)},
           {{{2, 3}}, [f](In x) { return f(x[0], cast(classes(2, 3), u8), {}); }},
           {{{3, 4}},
            [f](In x) {
              return f(x[0], classes(3, 4),
                       {.label_smoothing = 0.1, .class_weights = cast(tensor({1, 0.5, 2, 0}), x[0].dtype())});
            }},
           // divided by the number of rows, as in Keras, not by the sum of their weights
           {{{3, 4}},
            [f](In x) {
              return f(x[0], classes(3, 4), {.class_weights = cast(tensor({1, 0.5, 2, 0}), x[0].dtype())});
            },
            labels + ", torch.tensor([1, 0.5, 2, 0]), reduction='sum') / 3"}},
          anywhere,
          {refuses<ShapeError>([f] { return f(zeros({4}), zeros({4}, i64), {}); },
                               name + ": needs logits (n, classes), got (4,)"),
           refuses<ShapeError>(
               [f] {
                 return f(zeros({0, 4}), zeros({0}, i64), {});
               },
               name + ": needs logits (n, classes), got (0, 4)"),
           refuses<ShapeError>(
               [f] {
                 return f(zeros({2, 4}), zeros({3}, i64), {});
               },
               name + ": logits (2, 4) need labels (2,), got (3,)"),
           refuses<ShapeError>(
               [f] {
                 return f(zeros({2, 4}), zeros({2}), {});
               },
               name + ": logits (2, 4) and label probabilities (2,) differ in shape"),
           refuses<ValueError>(
               [f] {
                 return f(zeros({2, 4}), Tensor(), {});
               },
               name + ": no labels: their tensor is undefined"),
           refuses<ValueError>(
               [f] {
                 return f(zeros({2, 4}), tensor({0, 4}, i64), {});
               },
               name + ": label 4 is outside of [0, 4)"),
           refuses<ValueError>(
               [f] {
                 return f(zeros({2, 4}), tensor({-1, 0}, i64), {});
               },
               name + ": label -1 is outside of [0, 4)"),
           refuses<ValueError>(
               [f] {
                 return f(zeros({2, 4}), zeros({2}, i64), {.label_smoothing = 1});
               },
               name + ": label_smoothing must be in [0, 1), got 1"),
           refuses<ShapeError>(
               [f] {
                 return f(zeros({2, 4}), zeros({2}, i64), {.class_weights = ones({3})});
               },
               name + ": logits (2, 4) need class weights (4,), got (3,)"),
           refuses<DTypeError>(
               [f] {
                 return f(zeros({2, 4}), zeros({2, 4}, f64), {});
               },
               name + ": types differ: float32 (2, 4) and float64 (2, 4); cast(x, f32) converts")},
          {{{{700, 101}}}}};
}

Row normalized(std::string name, Tensor (*f)(const Tensor&, const Tensor&, const Tensor&, BatchNormOptions)) {
  const std::string torch =
      "F.batch_norm(x.reshape(-1, x.shape[-1]), None, None, y, z, training=True, eps=1e-3).reshape(x.shape)";
  const Tensor x = zeros({2, 3}), c = zeros({3});
  return {name,
          torch,
          [f](In in) { return f(in[0], in[1], in[2], {}); },
          {{{{5, 3}, {3}, {3}}},
           {{{2, 3, 2, 2}, {2}, {2}}, nullptr, torch},
           {{{70, 1}, {1}, {1}}},
           {{{3, 66}, {66}, {66}}},
           {{{4, 3}, {3}, {3}}, [f](In in) { return f(in[0] + 20, in[1], in[2], {.epsilon = 0.1}); }}},
          anywhere,
          {refuses<ShapeError>([=] { return f(c, c, c, {}); }, name + ": needs an input (n, ..., channels), got (3,)"),
           refuses<ShapeError>(
               [=] {
                 return f(zeros({0, 3}), c, c, {});
               },
               name + ": needs an input (n, ..., channels), got (0, 3)"),
           refuses<ShapeError>([=] { return f(x, zeros({2}), c, {}); },
                               name + ": (2, 3) needs gamma and beta (3,), got (2,) and (3,)"),
           refuses<ValueError>([=] { return f(x, c, c, {.epsilon = 0}); }, name + ": epsilon must be above 0, got 0"),
           refuses<DTypeError>([=] { return f(x, c, zeros({3}, f64), {}); },
                               name + ": types differ: float32 (2, 3) and float64 (3,); cast(x, f32) converts")},
          {{{{3000, 37}, {37}, {37}}}, {{{3, 41, 41, 5}, {5}, {5}}}, {{{700, 129}, {129}, {129}}}}};
}

std::vector<Refusal> row_errors(std::string op, Tensor (*f)(const Tensor&)) {
  return {refuses<ShapeError>([f] { return f(scalar(1)); }, op + ": a scalar has no rows"),
          refuses<DTypeError>([f] { return f(zeros({2}, i64)); },
                              op + ": needs float32 or float64, got int64 (2,); cast(x, f32) converts")};
}
std::vector<Refusal> pair_errors(std::string op, std::string a, std::string b,
                                 Tensor (*f)(const Tensor&, const Tensor&)) {
  return {refuses<ShapeError>(
      [f] {
        return f(zeros({2, 1}), zeros({2}));
      },
      op + ": " + a + " (2, 1) and " + b + " (2,) differ in shape")};
}

}  // namespace

std::vector<Row> class_rows() {
  const Tensor index = tensor({2, 0, 2, 1, 2, 0}, {2, 3}, i64);
  return {
      {"gather",
       "x[torch.tensor([[2, 0, 2], [1, 2, 0]])]",
       [index](In x) { return gather(x[0], index); },
       {{{{3, 2}}},
        {{{3}}},
        {{{4, 1, 2}},
         [](In x) {
           return gather(x[0], tensor({3, 3}, u8));
         }},
        {{{3, 0}}},
        {{{3, 2}}, [](In x) { return gather(x[0], scalar(1, i64)); }},
        {{{3, 2}}, [](In x) { return gather(x[0], zeros({0}, i64)); }},
        {{{3, 2}},
         [](In x) {
           return gather(x[0], tensor({1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1}, i64));
         }}},
       anywhere,
       {refuses<ValueError>([] { return gather(zeros({3}), tensor({3}, i64)); },
                            "gather: index 3 is outside of [0, 3)"),
        refuses<ValueError>([] { return gather(zeros({3}), tensor({-1}, i64)); },
                            "gather: index -1 is outside of [0, 3)"),
        refuses<DTypeError>([] { return gather(zeros({3}), zeros({1})); },
                            "gather: indices must be int64 or uint8, got float32 (1,)"),
        refuses<ShapeError>([] { return gather(scalar(1), zeros({1}, i64)); }, "gather: a scalar has no rows")},
       {},
       "",
       2,
       false},
      {"scatter_rows",
       {"torch.zeros(4, *x.shape[2:]).index_add(0, torch.tensor([[2, 0, 2], [1, 2, 0]]).flatten(), x.flatten(0, 1))",
        "the gradient of gather"},
       [index](In x) { return scatter_rows(x[0], index, 4); },
       {{{{2, 3, 2}}},
        {{{2, 3}}},
        {{{2, 3, 0}}},
        {{{11, 2}}, [](In x) { return scatter_rows(x[0], zeros({11}, i64), 2); }}},
       anywhere,
       {refuses<ShapeError>(
            [index] {
              return scatter_rows(zeros({3, 2}), index, 4);
            },
            "scatter_rows: (3, 2) does not begin with the shape of the indices (2, 3)"),
        refuses<ValueError>(
            [index] {
              return scatter_rows(zeros({2, 3}), index, 2);
            },
            "scatter_rows: index 2 is outside of [0, 2)")}},
      {"pick",
       "x.gather(-1, torch.tensor([[2, 0, 2], [1, 2, 0]])[..., None])[..., 0]",
       [index](In x) { return pick(x[0], index); },
       {{{{2, 3, 4}}},
        {{{2, 3, 3}}},
        {{{3}}, [](In x) { return pick(x[0], scalar(2, i64)); }},
        {{{0, 3}}, [](In x) { return pick(x[0], zeros({0}, i64)); }}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return pick(zeros({2, 3}), zeros({3}, i64));
            },
            "pick: indices (3,) do not fit the rows of (2, 3)"),
        refuses<ValueError>(
            [] {
              return pick(zeros({1, 3}), tensor({3}, i64));
            },
            "pick: index 3 is outside of [0, 3)")}},
      {"place",
       "torch.zeros(*x.shape, 4).scatter(-1, torch.tensor([[2, 0, 2], [1, 2, 0]])[..., None], x[..., None])",
       [index](In x) { return place(x[0], index, 4); },
       {{{{2, 3}}}, {{{}}, [](In x) { return place(x[0], scalar(1, i64), 3); }}},
       anywhere,
       {refuses<ShapeError>([] { return place(zeros({2}), zeros({3}, i64), 4); },
                            "place: values (2,) and indices (3,) differ in shape"),
        refuses<ValueError>([] { return place(zeros({1}), tensor({4}, i64), 4); },
                            "place: index 4 is outside of [0, 4)")}},
      {"softmax",
       "F.softmax(x, -1)",
       [](In x) { return softmax(x[0]); },
       {{{{5}}}, {{{3, 4}}}, {{{2, 1, 3}}}, {{{2, 1}}}, {{{0, 3}}}, {{{3, 0}}}},
       anywhere,
       row_errors("softmax", softmax),
       {{{{2000, 37}}}}},
      {"log_softmax",
       "F.log_softmax(x, -1)",
       [](In x) { return log_softmax(x[0]); },
       {{{{5}}}, {{{3, 4}}}, {{{2, 1, 3}}}, {{{2, 1}}}, {{{0, 3}}}},
       anywhere,
       row_errors("log_softmax", log_softmax),
       {{{{2000, 37}}}}},
      entropy("cross_entropy", "a loss", cross_entropy),
      entropy("cross_entropy_plain", "", cross_entropy_plain),
      normalized("batch_norm", batch_norm),
      normalized("batch_norm_plain", batch_norm_plain),
      {"bce_with_logits",
       {"F.binary_cross_entropy_with_logits(x, y)", "a loss"},
       [](In x) { return bce_with_logits(x[0], x[1]); },
       {{{{2, 3}, {2, 3}}}, {{{}, {}}}, {{{1}, {1}}}},
       anywhere,
       pair_errors("bce_with_logits", "logits", "targets", bce_with_logits),
       {{{{300, 257}, {300, 257}}}}},
      {"mse",
       "F.mse_loss(x, y)",
       [](In x) { return mse(x[0], x[1]); },
       {{{{2, 3}, {2, 3}}}, {{{}, {}}}, {{{1}, {1}}}},
       anywhere,
       pair_errors("mse", "prediction", "target", mse),
       {{{{300, 257}, {300, 257}}}}},
      {"mae",
       "F.l1_loss(x, y)",
       [](In x) { return mae(x[0], x[1]); },
       {{{{2, 3}, {2, 3}}}, {{{}, {}}}, {{{1}, {1}}}},
       spread,
       pair_errors("mae", "prediction", "target", mae),
       {{{{300, 257}, {300, 257}}}}},
      {"huber",
       {"F.huber_loss(x, y, delta=0.9)", "a loss"},
       [](In x) { return huber(x[0], x[1], 0.9); },
       {{{{2, 3}, {2, 3}}}, {{{}, {}}}, {{{1}, {1}}}},
       spread,
       {refuses<ShapeError>(
            [] {
              return huber(zeros({2, 1}), zeros({2}));
            },
            "huber: prediction (2, 1) and target (2,) differ in shape"),
        refuses<ValueError>([] { return huber(zeros({2}), zeros({2}), 0); }, "huber: delta must be above 0, got 0")},
       {{{{300, 257}, {300, 257}}}}},
      {"kl_divergence",
       "F.kl_div(F.log_softmax(x, -1), y, reduction='batchmean')",
       [](In x) { return kl_divergence(x[0], x[1]); },
       {{{{2, 3}, {2, 3}}}, {{{1, 1}, {1, 1}}}},
       positive,
       {refuses<ShapeError>([] { return kl_divergence(zeros({4}), zeros({4})); },
                            "kl_divergence: needs logits (n, classes), got (4,)"),
        refuses<ShapeError>(
            [] {
              return kl_divergence(zeros({2, 4}), zeros({2}));
            },
            "kl_divergence: logits (2, 4) and targets (2,) differ in shape")},
       {{{{700, 101}, {700, 101}}}}},
      {"dropout",
       "none: random",
       [](In x) {
         Generator same(7);
         const Training on(true);
         return dropout(x[0], 0.4, same);
       },
       {{{{3, 5}}}, {{{}}}, {{{0}}}},
       anywhere,
       {refuses<ValueError>([] { return dropout(zeros({2}), 1); }, "dropout: the rate must be in [0, 1), got 1"),
        refuses<ValueError>([] { return dropout(zeros({2}), -0.1); }, "dropout: the rate must be in [0, 1), got -0.1")},
       {{{{300, 257}}}}},
  };
}

std::vector<ValueRow> value_rows() {
  const auto slope = [](Function f) {
    return [f] {
      const Tensor a = variable(tensor({-1, 0, 2, 3}, f64)), b = variable(tensor({1, 0, 1, 3}, f64));
      return grad(f(std::vector{a, b}), a, {.cotangent = ones({4}, f64)});
    };
  };
  return {
      {"greater",
       [] {
         return greater(tensor({1, 2, 3}), tensor({2, 2, 2}));
       },
       {0, 0, 1}},
      {"greater",
       [] {
         return greater(tensor({0, 1, 2}, i64), 0.5);
       },
       {0, 1, 1}},
      {"greater",
       [] {
         return greater(tensor({0, 255}, u8), -1);
       },
       {1, 1}},
      {"less",
       [] {
         return less(tensor({1, 2, 3}), tensor({2, 2, 2}));
       },
       {1, 0, 0}},
      {"less",
       [] {
         return less(tensor({0, 1}, i64), 0.5);
       },
       {1, 0}},
      {"less",
       [] {
         return less(tensor({-1, 0}), 0);
       },
       {1, 0}},
      {"equal",
       [] {
         return equal(tensor({1, 2}, i64), tensor({2}, i64));
       },
       {0, 1}},
      {"argmax",
       [] {
         return argmax(tensor({1, 5, 5, 2, 2, 2}, {2, 3}));
       },
       {1, 0}},  // the first of equals
      {"argmax",
       [] {
         return argmax(tensor({1, 5, 5, 2, 2, 9}, {2, 3}, u8), 0);
       },
       {1, 0, 1}},
      {"one_hot",
       [] {
         return one_hot(tensor({2, 0}, u8), 3, f64);
       },
       {0, 0, 1, 1, 0, 0}},
      {"stop_gradient",
       [] {
         return stop_gradient(variable(tensor({1, 2})));
       },
       {1, 2}},
      {"sign", slope([](In x) { return abs(x[0]); }), {-1, 0, 1, 1}, "part of a gradient"},
      {"share", slope([](In x) { return maximum(x[0], x[1]); }), {0, 0.5, 1, 0.5}, "part of a gradient"},
      {"share", slope([](In x) { return minimum(x[0], x[1]); }), {1, 0.5, 0, 0.5}, "part of a gradient"},
      // ties share the gradient of max; the first takes that of max_pool2d
      {"max",
       [] {
         const Tensor x = variable(tensor({2, 7, 7, 1}));
         return grad(max(x), x);
       },
       {0, 0.5, 0.5, 0}},
      {"max_pool2d",
       [] {
         const Tensor x = variable(tensor({2, 7, 7, 7}, {1, 2, 2, 1}));
         return grad(max_pool2d(x), x);
       },
       {0, 1, 0, 0}},
      {"max_pool2d",
       [] {
         const Tensor x = variable(full({1, 1, 1, 1}, -INFINITY));
         return grad(max_pool2d(x, {.size = 2, .stride = 1, .pad = 1}), x, {.cotangent = ones({1, 2, 2, 1})});
       },
       {4}},
      {"relu",
       [] {
         const Tensor x = variable(tensor({-1, 0, 1}));
         return grad(sum(relu(x)), x);
       },
       {0, 0, 1}},
      {"cast",
       [] {
         return cast(tensor({1.7, -1.7, 300}), i64);
       },
       {1, -1, 300}},
      {"cast",
       [] {
         const Tensor x = variable(tensor({1, 2}));
         return grad(sum(square(cast(x, f64))), x);
       },
       {2, 4}},
      {"maximum",
       [] {
         return maximum(tensor({NAN, 1}), tensor({1, NAN}));
       },
       {NAN, NAN}},
      {"relu", [] { return relu(tensor({NAN})); }, {NAN}},
      {"max",
       [] {
         return max(tensor({1, NAN, 2}));
       },
       {NAN}},
      {"pow",
       [] {
         return pow(tensor({0, 3}), 0.0);
       },
       {1, 1}},
      {"slice", [] { return slice(arange(5), {.begin = 1, .step = INT64_MAX}); }, {1}},
  };
}

}  // namespace ebb::testing
