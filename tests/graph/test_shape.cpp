// Sizes near the end of their type: refused before anything is allocated, whichever op makes the shape.
#include <doctest/doctest.h>

#include <functional>

#include <ebb/graph/error.h>
#include <ebb/ops/ops.h>

using namespace ebb;

TEST_CASE("shape: sizes whose product or sum leaves 63 bits are refused by every op that makes a shape") {
  constexpr std::int64_t big = std::int64_t{1} << 62, most = INT64_MAX;
  const Tensor x = zeros({2, 4}), image = zeros({1, 4, 4, 2}), kernel = zeros({3, 3, 2, 2}),
               index = tensor({0, 1}, i64);
  const std::vector<std::function<Tensor()>> calls{
      [&] { return pad(x, {.axis = 0, .before = big, .after = big}); },
      [&] { return pad(x, {.axis = 0, .before = big}); },
      [&] { return pad(x, {.axis = 1, .before = most, .after = most}); },
      [&] { return pad(zeros({1}), {.axis = 0, .after = most}); },
      [&] { return scatter_rows(x, index, big); },
      [&] { return scatter_rows(x, index, most); },
      [&] { return one_hot(zeros({4}, i64), big); },
      [&] { return one_hot(zeros({8192}, i64), std::int64_t{1} << 51); },
      [&] { return place(zeros({2}), index, most); },
      [&] {
        return broadcast_to(zeros({1, 1}), {big, 4});
      },
      [&] {
        return reshape(x, {-1, std::int64_t{1} << 33, (std::int64_t{1} << 31) + 1});
      },
      [&] {
        return stack(std::vector<Tensor>(2, zeros({0, big, 1})), 0);
      },
      [&] {
        return add(zeros({0, big, 1}), zeros({1, 1, 4}));
      },
      [&] {
        return matmul(zeros({big, 0}), zeros({0, 4}));
      },
      [&] { return conv2d(image, kernel, {.pad = most}); },
      [&] { return conv2d(image, kernel, {.pad = big}); },
      [&] { return conv2d(image, kernel, {.dilation = most}); },
      [&] { return conv2d(image, kernel, {.dilation = big}); },
      [&] { return conv2d(image, kernel, {.pad = Padding::same(), .dilation = most}); },
      [&] { return conv2d(image, kernel, {.pad = big, .dilation = big}); },
      [&] {
        return conv2d_transpose(zeros({1, 2, 2, 2}), kernel, {big, big});
      },
      [&] {
        return im2col(image, {big, big}, {.pad = big});
      },
      [&] {
        return col2im(zeros({1, 2, 2, 18}), {most, most}, 3);
      },
      [&] { return max_pool2d(image, {.size = big, .pad = big - 1}); },
      [&] { return avg_pool2d(image, {.size = most, .pad = most - 1}); },
      [&] {
        return zeros({big, 2});
      },
      [&] { return arange(big); },
      [&] { return uniform({big}, 0, 1); },
  };
  std::size_t number = 0;
  for (const auto& call : calls) {
    CAPTURE(number);
    ++number;
    const std::size_t before = memory_stats().peak;
    CHECK_THROWS_AS(call(), Error);
    CHECK(memory_stats().peak <= before + (1 << 20));
  }
  CHECK_THROWS_AS(Shape({2, 4}).with(0, big), ShapeError);
  CHECK_THROWS_AS(Shape({2, 4}).with(0, -1), ShapeError);
  CHECK_THROWS_AS(Shape({4}).inserted(0, big), ShapeError);
  CHECK_THROWS_AS(broadcast({big, 1}, {1, 4}, "add"), ShapeError);
  CHECK_THROWS_AS(Generator().permutation(big), ValueError);
  CHECK(conv2d(image, kernel, {.stride = most, .pad = Padding::same()}).shape() == Shape{1, 1, 1, 2});
}
