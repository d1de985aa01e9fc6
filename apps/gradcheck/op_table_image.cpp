// Rows of convolutions and pooling.
#include <ebb/ops/pool.h>

#include "op_table.h"

// clang-format off: a table, whose rows are read one beside the other

namespace ebb::testing {
namespace {

Function conv(Conv2dOptions o) {
  return [o](In x) { return conv2d(x[0], x[1], o); };
}
Function conv_plain(Conv2dOptions o) {
  return [o](In x) { return conv2d_plain(x[0], x[1], o); };
}
Function conv_relu(Conv2dOptions o = {}, Pair pool = 1) {
  return [o, pool](In x) { return conv2d_relu(x[0], x[1], x[2], o, pool); };
}
Function conv_back(Pair image, Conv2dOptions o = {}) {
  return [image, o](In x) { return conv2d_transpose(x[0], x[1], image, o); };
}
Function columns(Pair kernel, Conv2dOptions o = {}) {
  return [kernel, o](In x) { return im2col(x[0], kernel, o); };
}
Function max_pool(PoolOptions o) {
  return [o](In x) { return max_pool2d(x[0], o); };
}
Function avg_pool(PoolOptions o) {
  return [o](In x) { return avg_pool2d(x[0], o); };
}

/// The same shapes and options for conv2d and its plain definition.
std::vector<Case> convolutions(Function (*with)(Conv2dOptions)) {
  const Padding same = Padding::same();
  Padding uneven = 0;
  uneven.top = 2;
  uneven.right = 1;
  return {{{{1, 4, 5, 2}, {3, 2, 2, 3}}},
          {{{2, 7, 7, 3}, {3, 3, 3, 2}}, with({.stride = 2, .pad = 1}), "conv(x, y, stride=2, padding=1)"},
          // what Keras calls "same": the odd zero goes to the bottom and right
          {{{1, 5, 6, 1}, {2, 3, 1, 2}},
           with({.stride = {2, 1}, .pad = same}),
           "conv(padded(x, 0, 1, 1, 1), y, stride=(2, 1))"},
          {{{2, 6, 5, 2}, {2, 2, 2, 1}}, with({.dilation = {2, 3}}), "conv(x, y, dilation=(2, 3))"},
          {{{1, 3, 3, 1}, {3, 3, 1, 1}}, with({.stride = 3, .pad = uneven, .dilation = 1})},
          {{{1, 5, 5, 1}, {3, 3, 1, 2}}, with({.stride = 2, .pad = same, .dilation = 2})},
          {{{3, 1, 1, 2}, {1, 1, 2, 2}}},
          {{{0, 3, 3, 2}, {2, 2, 2, 1}}}};
}
std::vector<Case> large_convolutions(Function (*with)(Conv2dOptions)) {
  return {{{{37, 28, 28, 1}, {3, 3, 1, 8}}, with({.pad = 1})},
          {{{9, 13, 13, 32}, {3, 3, 32, 16}}, with({})},
          {{{9, 5, 5, 16}, {3, 3, 16, 48}}, with({})},
          {{{16, 4, 4, 32}, {3, 3, 32, 32}}, with({})},
          {{{5, 6, 7, 16}, {3, 3, 16, 16}}, with({.pad = Padding::same()})},
          {{{9, 9, 9, 3}, {5, 4, 3, 32}}, with({.stride = 2, .pad = 2})},
          {{{9, 9, 8, 16}, {5, 4, 16, 32}}, with({.stride = 2, .pad = 2})},
          {{{7, 6, 5, 32}, {1, 1, 32, 16}}, with({.stride = {1, 2}})}};
}

std::vector<Case> fused_convolutions() {
  return {{{{1, 4, 5, 2}, {3, 2, 2, 3}, {3}}},
          {{{2, 7, 7, 3}, {3, 3, 3, 2}, {2}},
           conv_relu({.pad = 1}, 2),
           "max_pool(torch.relu(conv(x, y, padding=1) + z), 2)"},  // 7 -> 3: a row and a column are left over
          {{{1, 5, 6, 1}, {2, 3, 1, 2}, {2}}, conv_relu({.stride = {2, 1}, .pad = Padding::same()}, {1, 3})},
          {{{2, 6, 5, 1}, {2, 2, 1, 18}, {18}}, conv_relu({.dilation = {2, 3}}, {2, 1})},
          {{{0, 3, 3, 2}, {2, 2, 2, 1}, {1}}, conv_relu({}, 2)}};
}
std::vector<Case> large_fused_convolutions() {
  return {{{{37, 28, 28, 1}, {3, 3, 1, 32}, {32}}, conv_relu({}, 2)},
          {{{9, 13, 13, 32}, {3, 3, 32, 16}, {16}}, conv_relu({.pad = 1}, 2)},
          {{{9, 5, 5, 64}, {3, 3, 64, 64}, {64}}, conv_relu()},
          {{{9, 9, 9, 3}, {5, 4, 3, 32}, {32}}, conv_relu({.stride = 2, .pad = 2})}};
}

std::vector<Refusal> convolution_errors(std::string op, Tensor (*f)(const Tensor&, const Tensor&, Conv2dOptions)) {
  return {refuses<ShapeError>(
              [f] {
                return f(zeros({3, 3, 1}), zeros({2, 2, 1, 1}), {});
              },
              op + ": needs an image batch (n, h, w, c), got (3, 3, 1)"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), zeros({2, 2}), {});
              },
              op + ": needs a kernel (kh, kw, in, out), got (2, 2)"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 3, 3, 2}), zeros({2, 2, 3, 1}), {});
              },
              op + ": the image has 2 channels, the kernel expects 3: (1, 3, 3, 2) and (2, 2, 3, 1)"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), zeros({4, 2, 1, 1}), {});
              },
              op + ": a window of 4x2 does not fit into (1, 3, 3, 1) padded to 3x3"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 1}), {.pad = Pair{1, 0}, .dilation = {1, 5}});
              },
              op + ": a window of 2x6 does not fit into (1, 3, 3, 1) padded to 5x3"),
          refuses<ValueError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 1}), {.stride = 0});
              },
              op + ": kernel 2x2, stride 0x0 and dilation 1x1 must be positive and pads not negative"),
          refuses<ValueError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 1}), {.pad = -1});
              },
              op + ": kernel 2x2, stride 1x1 and dilation 1x1 must be positive and pads not negative")};
}

std::vector<Case> poolings(Function (*with)(PoolOptions), const std::string& torch) {
  Padding corner = 0;
  corner.bottom = corner.left = 1;
  return {{{{1, 4, 4, 2}}},
          {{{2, 11, 5, 1}}},  // 11 -> 5, as Keras does
          {{{1, 5, 6, 2}}, with({.size = 3, .stride = 2}), torch + "(x, 3, stride=2)"},
          {{{1, 5, 5, 2}}, with({.size = 2, .pad = Padding::same()})},
          {{{1, 6, 5, 1}},
           with({.size = {3, 2}, .stride = {1, 3}, .pad = 1}),
           torch + "(x, (3, 2), stride=(1, 3), padding=1)"},
          {{{1, 4, 4, 1}}, with({.size = 2, .stride = 1, .pad = corner})},
          {{{2, 1, 1, 3}}, with({.size = 1})},
          {{{0, 4, 4, 1}}}};
}

std::vector<Refusal> pooling_errors(std::string op, Tensor (*f)(const Tensor&, PoolOptions)) {
  return {refuses<ShapeError>(
              [f] {
                return f(zeros({3, 3}), {});
              },
              op + ": needs an image batch (n, h, w, c), got (3, 3)"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 3, 1, 1}), {});
              },
              op + ": a window of 2x2 does not fit into (1, 3, 1, 1) padded to 3x1"),
          refuses<ValueError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), {.size = -2});
              },
              op + ": kernel -2x-2, stride -2x-2 and dilation 1x1 must be positive and pads not negative"),
          refuses<ValueError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), {.size = 2, .pad = Pair{2, 0}});
              },
              op + ": pads of 2 and 2 must be smaller than the window's height 2"),
          refuses<ValueError>(
              [f] {
                return f(zeros({1, 3, 3, 1}), {.size = 2, .pad = Pair{0, 3}});
              },
              op + ": pads of 3 and 3 must be smaller than the window's width 2"),
          refuses<ShapeError>(
              [f] {
                return f(zeros({1, 0, 3, 1}), {.size = 2, .pad = 1});
              },
              op + ": no elements to pool in (1, 0, 3, 1)"),
          refuses<DTypeError>(
              [f] {
                return f(zeros({1, 2, 2, 1}, u8), {});
              },
              op + ": needs float32 or float64, got uint8 (1, 2, 2, 1); cast(x, f32) converts")};
}

}  // namespace

std::vector<Row> image_rows() {
  std::vector<Refusal> fused_errors = convolution_errors("conv2d", conv2d);
  fused_errors.push_back(refuses<DTypeError>(
      [] {
        return conv2d(zeros({1, 3, 3, 1}, u8), zeros({2, 2, 1, 1}));
      },
      "conv2d: needs float32 or float64, got uint8 (1, 3, 3, 1); cast(x, f32) converts"));
  fused_errors.push_back(refuses<DTypeError>(
      [] {
        return conv2d(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 1}, f64));
      },
      "conv2d: types differ: float32 (1, 3, 3, 1) and float64 (2, 2, 1, 1); cast(x, f32) converts"));
  return {
      {"conv2d", "conv(x, y)", conv({}), convolutions(conv), anywhere, fused_errors, large_convolutions(conv)},
      {"conv2d_plain", "conv(x, y)", conv_plain({}), convolutions(conv_plain), anywhere,
       convolution_errors("conv2d_plain", conv2d_plain), large_convolutions(conv_plain)},
      {"conv2d_relu",
       "torch.relu(conv(x, y) + z)",
       conv_relu(),
       fused_convolutions(),
       anywhere,
       {refuses<ShapeError>(
            [] {
              return conv2d_relu(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 2}), zeros({3}));
            },
            "conv2d_relu: the bias (3,) is not one number for each of the 2 channels out"),
        refuses<ShapeError>(
            [] {
              return conv2d_relu(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 2}), zeros({2}), {}, {1, 3});
            },
            "conv2d_relu: a pool of 1x3 does not fit into 2x2"),
        refuses<ValueError>(
            [] {
              return conv2d_relu(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 2}), zeros({2}), {}, 0);
            },
            "conv2d_relu: a pool of 1 to 255 elements, got 0x0"),
        refuses<ShapeError>(
            [] {
              return conv2d_relu(zeros({1, 3, 3, 2}), zeros({2, 2, 1, 2}), zeros({2}));
            },
            "conv2d: the image has 2 channels, the kernel expects 1: (1, 3, 3, 2) and (2, 2, 1, 2)"),
        refuses<DTypeError>(
            [] {
              return conv2d_relu(zeros({1, 3, 3, 1}), zeros({2, 2, 1, 2}), zeros({2}, f64));
            },
            "conv2d_relu: types differ: float32 (1, 3, 3, 1) and float64 (2,); cast(x, f32) converts")},
       large_fused_convolutions()},
      {"conv2d_grouped",
       "conv(x, y, groups=2)",
       [](In x) { return conv2d_grouped(x[0], x[1], 2); },
       {{{{2, 4, 5, 4}, {3, 2, 2, 6}}},
        {{{1, 5, 5, 2}, {3, 3, 1, 2}}},
        {{{1, 5, 4, 2}, {2, 2, 1, 4}}},
        {{{1, 6, 5, 3}, {3, 3, 1, 3}},
         [](In x) { return conv2d_grouped(x[0], x[1], 3, {.stride = 2, .pad = Padding::same()}); },
         "conv(padded(x, 0, 1, 1, 1), y, stride=2, groups=3)"}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return conv2d_grouped(zeros({3, 3, 1}), zeros({2, 2, 1, 1}), 1);
            },
            "conv2d_grouped: needs an image batch (n, h, w, c), got (3, 3, 1)"),
        refuses<ShapeError>(
            [] {
              return conv2d_grouped(zeros({1, 3, 3, 2}), zeros({2, 2}), 1);
            },
            "conv2d_grouped: needs a kernel (kh, kw, in, out), got (2, 2)"),
        refuses<ShapeError>(
            [] {
              return conv2d_grouped(zeros({1, 3, 3, 4}), zeros({2, 2, 2, 3}), 2);
            },
            "conv2d_grouped: 2 groups do not fit the image (1, 3, 3, 4) and the kernel (2, 2, 2, 3)")},
       {{{{9, 13, 13, 4}, {3, 3, 2, 6}}}}},
      {"conv2d_transpose",
       "conv_back(x, y)",
       conv_back({4, 5}),
       {{{{1, 2, 4, 3}, {3, 2, 2, 3}}},
        {{{2, 4, 4, 2}, {3, 3, 3, 2}}, conv_back(7, {.stride = 2, .pad = 1}), "conv_back(x, y, stride=2, padding=1)"},
        {{{1, 3, 6, 2}, {2, 3, 1, 2}}, conv_back({5, 6}, {.stride = {2, 1}, .pad = Padding::same()})},
        {{{1, 2, 3, 1}, {2, 2, 2, 1}}, conv_back({4, 6}, {.dilation = {2, 3}})},
        {{{0, 2, 4, 1}, {3, 2, 2, 1}}}},
       anywhere,
       {refuses<ShapeError>(
            [] {
              return conv2d_transpose(zeros({1, 3, 3, 1}), zeros({2, 2, 2, 1}), 5);
            },
            "conv2d_transpose: (1, 3, 3, 1) is not what a kernel (2, 2, 2, 1) makes of an image of 5x5, which is (1, "
            "4, 4, 1)"),
        refuses<ShapeError>(
            [] {
              return conv2d_transpose(zeros({1, 3, 3, 1}), zeros({2, 2}), 4);
            },
            "conv2d_transpose: needs a kernel (kh, kw, in, out), got (2, 2)")},
       {{{{37, 26, 26, 8}, {3, 3, 1, 8}}, conv_back(28)}}},
      {"im2col",
       "columns(x, (3, 2))",
       columns({3, 2}),
       {{{{1, 4, 5, 2}}},
        {{{2, 5, 4, 3}}, columns(3, {.stride = 2, .pad = 1})},
        {{{1, 5, 5, 1}}, columns(2, {.pad = Padding::same(), .dilation = 2})},
        {{{0, 4, 4, 1}}}},
       anywhere,
       {refuses<ShapeError>(
           [] {
             return im2col(zeros({1, 3, 3, 1}), 4);
           },
           "im2col: a window of 4x4 does not fit into (1, 3, 3, 1) padded to 3x3")},
       {{{{37, 28, 28, 2}}}}},
      {"col2im",
       {"from_columns(x, (4, 5), (3, 2))", "opset 13 has no Col2Im"},
       [](In x) {
         return col2im(x[0], {4, 5}, {3, 2});
       },
       {{{{1, 2, 4, 12}}},
        {{{2, 3, 2, 27}},
         [](In x) {
           return col2im(x[0], {5, 4}, 3, {.stride = 2, .pad = 1});
         }},
        {{{0, 2, 4, 6}}}},
       anywhere,
       {refuses<ShapeError>(
           [] {
             return col2im(zeros({1, 2, 4, 13}), {4, 5}, {3, 2});
           },
           "col2im: patches (1, 2, 4, 13) do not come from an image of 4x5 by a 3x2 window")},
       {{{{37, 26, 27, 12}},
         [](In x) {
           return col2im(x[0], 28, {3, 2});
         }}}},
      {"max_pool2d",
       "max_pool(x, 2)",
       max_pool({}),
       poolings(max_pool, "max_pool"),
       spread,
       pooling_errors("max_pool2d", max_pool2d),
       {{{{37, 28, 28, 3}}}, {{{5, 13, 13, 16}}, max_pool({.size = 3, .stride = 2, .pad = 1})}}},
      // internal: the second derivative of max_pool2d is that of this one's gradient
      {"max_unpool2d",
       {"none: internal; compared as the gradient of max_pool2d", "part of a gradient"},
       [](In x) {
         return detail::max_unpool2d(x[0], tensor({0, 3, 1, 2, 3, 0}, {1, 1, 3, 2}, u8), {}, {1, 2, 7, 2});
       },
       {{{{1, 1, 3, 2}}},
        {{{1, 2, 1, 1}},
         [](In x) {
           return detail::max_unpool2d(x[0], tensor({299, 4}, {1, 2, 1, 1}, i64), {.size = {1, 300}}, {1, 2, 300, 1});
         }}}},
      {"avg_pool2d",
       "avg_pool(x, 2)",
       avg_pool({}),
       poolings(avg_pool, "avg_pool"),
       anywhere,
       pooling_errors("avg_pool2d", avg_pool2d),
       {{{{37, 28, 28, 3}}}, {{{5, 13, 13, 17}}, avg_pool({.size = 3, .stride = 2, .pad = 1})}}},
  };
}

}  // namespace ebb::testing
