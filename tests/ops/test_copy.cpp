// What moves elements, bit by bit against loops: all sizes of elements, any number of threads, each instruction set.
#include <doctest/doctest.h>
#include <ebb/ebb.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "restore.h"

using namespace ebb;

namespace {

using Index = std::int64_t;

/// Random bytes: among the floats NaNs of all kinds, which a move must not touch.
Tensor random_bits(const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  std::mt19937 random(static_cast<unsigned>(t.numel()) + 7);
  for (std::size_t i = 0; i < t.bytes(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(random());
  return t;
}

/// A tensor of x's type whose element at `index` is x's element at source(index), or 0 where that is negative.
Tensor moved(const Tensor& x, const Shape& shape, const std::function<Index(const std::vector<Index>&)>& source) {
  Tensor out = zeros(shape, x.dtype());
  const std::size_t bytes = size_of(x.dtype());
  std::vector<Index> index(static_cast<std::size_t>(shape.rank()));
  for (Index e = 0; e < out.numel(); ++e) {
    Index left = e;
    for (int i = shape.rank() - 1; i >= 0; left /= shape[i], --i) index[static_cast<std::size_t>(i)] = left % shape[i];
    if (const Index from = source(index); from >= 0)
      std::memcpy(out.mutable_raw() + static_cast<std::size_t>(e) * bytes,
                  x.raw() + static_cast<std::size_t>(from) * bytes, bytes);
  }
  return out;
}

/// Element `index` of a tensor of this shape, in memory.
Index place_of(const Shape& shape, const std::vector<Index>& index) {
  Index e = 0;
  for (int i = 0; i < shape.rank(); ++i) e = e * shape[i] + index[static_cast<std::size_t>(i)];
  return e;
}

/// Runs check with 1 to 4 threads in each instruction set.
void everywhere(const std::function<void()>& check) {
  for (const int n : {1, 2, 3, 4}) {
    const testing::Threads use(n);
    CAPTURE(n);
    testing::on_every_instruction_set(check);
  }
}

constexpr DType all_types[] = {u8, i64, f32, f64};

}  // namespace

TEST_CASE("copy: transpose moves every bit, whatever the sizes, types, threads and instruction set") {
  struct Setting {
    Shape shape;
    std::initializer_list<int> axes;
  };
  const Setting settings[] = {{{}, {}},
                              {{7}, {0}},
                              {{0, 3}, {1, 0}},
                              {{3, 3}, {1, 0}},
                              {{16, 16}, {1, 0}},
                              {{2, 200}, {1, 0}},
                              {{200, 3}, {1, 0}},
                              {{9, 5}, {1, 0}},
                              {{161, 305}, {1, 0}},           // blocks and squares with rests
                              {{8, 1, 40, 1}, {3, 2, 1, 0}},  // axes of one element
                              {{5, 7, 6, 4}, {0, 2, 1, 3}},   // as attention's heads: runs
                              {{4, 70, 3, 90}, {0, 2, 1, 3}},
                              {{3, 5, 70000}, {1, 0, 2}},  // runs of more than a block
                              {{300, 5, 7}, {0, 2, 1}},    // many small planes
                              {{3, 40, 41, 5}, {0, 3, 1, 2}},
                              {{3, 5, 40, 41}, {0, 2, 3, 1}},
                              {{5, 6, 7, 19}, {3, 1, 2, 0}},
                              {{3, 4, 5, 6, 7}, {4, 2, 0, 3, 1}},
                              {{2, 3, 2, 3, 2, 3, 2, 3}, {7, 6, 5, 4, 3, 2, 1, 0}},
                              {{2, 3, 2, 3, 2, 3, 2, 3}, {1, 3, 5, 0, 2, 4, 6, 7}}};
  for (const Setting& s : settings)
    for (const DType dtype : all_types) {
      CAPTURE(s.shape.str());
      CAPTURE(name_of(dtype));
      const Tensor x = random_bits(s.shape, dtype);
      std::vector<Index> sizes;
      for (const int a : s.axes) sizes.push_back(s.shape[a]);
      const Tensor expected = moved(x, Shape(sizes), [&](const std::vector<Index>& out) {
        std::vector<Index> in(out.size());
        for (std::size_t i = 0; i < out.size(); ++i) in[static_cast<std::size_t>(s.axes.begin()[i])] = out[i];
        return place_of(s.shape, in);
      });
      everywhere([&] { CHECK(same_bits(transpose(x, s.axes), expected)); });
    }
}

TEST_CASE("copy: slice, its gradient, pad and concat move every bit") {
  struct Setting {
    Shape shape;
    SliceOptions options;
  };
  const Setting settings[] = {{{300000}, {.begin = 7, .end = -9}},  // one run of several blocks
                              {{300000}, {.begin = 1, .step = 3}},
                              {{3, 100000}, {.begin = 1, .end = 2}},
                              {{700, 300}, {.axis = 1, .begin = 64, .end = 192}},
                              {{700, 300}, {.axis = 1, .begin = 5, .end = 6}},
                              {{700, 300}, {.axis = 1, .begin = 3, .step = 7}},
                              {{700, 300}, {.axis = 1, .begin = 3, .step = 700}},
                              {{700, 300}, {.axis = 1, .begin = 9, .end = 9}},
                              {{700, 300}, {.begin = 2, .step = 2}},
                              {{2, 60, 61, 3}, {.axis = 2, .begin = 1, .end = -1, .step = 2}},
                              {{0, 3}, {.axis = 1, .begin = 1}}};
  for (const Setting& s : settings)
    for (const DType dtype : all_types) {
      CAPTURE(s.shape.str());
      CAPTURE(name_of(dtype));
      const SliceOptions& o = s.options;
      const auto axis = static_cast<std::size_t>(o.axis);
      const Index n = s.shape[o.axis], end = std::min(n, o.end < 0 ? o.end + n : o.end),
                  count = (end - o.begin + o.step - 1) / o.step;
      const Tensor x = random_bits(s.shape, dtype);
      const Tensor part = moved(x, s.shape.with(o.axis, count), [&](std::vector<Index> at) {
        at[axis] = o.begin + at[axis] * o.step;
        return place_of(s.shape, at);
      });
      const Shape wide = s.shape.with(o.axis, n + 5);
      const Tensor padded = moved(x, wide, [&](std::vector<Index> at) {
        at[axis] -= 2;
        return at[axis] < 0 || at[axis] >= n ? -1 : place_of(s.shape, at);
      });
      const Tensor joined = moved(padded, s.shape.with(o.axis, 2 * n + 5), [&](std::vector<Index> at) {
        at[axis] = at[axis] < n ? at[axis] + 2 : at[axis] - n;
        return place_of(wide, at);
      });
      Tensor back;
      if (is_float(dtype))
        back = moved(part, s.shape, [&](std::vector<Index> at) {
          const Index i = at[axis] - o.begin;
          at[axis] = i / o.step;
          return i < 0 || i % o.step || at[axis] >= count ? -1 : place_of(part.shape(), at);
        });
      everywhere([&] {
        CHECK(same_bits(slice(x, o), part));
        CHECK(same_bits(pad(x, {.axis = o.axis, .before = 2, .after = 3}), padded));
        CHECK(same_bits(concat({x, padded}, o.axis), joined));
        if (!is_float(dtype)) return;
        const Tensor v = variable(x);
        CHECK(same_bits(grad(slice(v, o), v, {.cotangent = part}), back));
      });
    }
}

TEST_CASE(
    "copy: gather and place move every bit, scatter_rows adds within the bound of sums, to the same bits everywhere") {
  std::mt19937 random(3);
  for (const Index width : {1, 3, 100, 300})
    for (const Index count : {0, 1, 700}) {
      CAPTURE(width);
      CAPTURE(count);
      const Index rows = 50;
      Tensor index = Tensor::empty({count}, i64);
      for (Index& i : index.mutable_values<Index>()) i = static_cast<Index>(random() % 49);  // the last row is nobody's
      const auto chosen = index.values<Index>();
      for (const DType dtype : all_types) {
        CAPTURE(name_of(dtype));
        const Tensor x = random_bits({rows, width}, dtype);
        const Tensor expected = moved(x, {count, width}, [&](const std::vector<Index>& at) {
          return chosen[static_cast<std::size_t>(at[0])] * width + at[1];
        });
        everywhere([&] { CHECK(same_bits(gather(x, index), expected)); });
        if (!is_float(dtype)) continue;
        const Tensor p = random_bits({count}, dtype);
        const Tensor placed = moved(p, {count, 49 * width}, [&](const std::vector<Index>& at) {
          return at[1] == chosen[static_cast<std::size_t>(at[0])] ? at[0] : -1;
        });
        const Tensor g = randn({count, width}, dtype);
        const Tensor sums = scatter_rows(g, index, rows);
        visit_float(dtype, [&]<class T>(T) {  // within the bound that ops.h states, of sums in a wider type
          const auto from = g.values<T>();
          const auto w = static_cast<std::size_t>(width);
          std::vector<long double> exact(static_cast<std::size_t>(rows) * w), size(exact.size());
          for (std::size_t i = 0; i < from.size(); ++i) {
            const std::size_t at = static_cast<std::size_t>(chosen[i / w]) * w + i % w;
            exact[at] += from[i];
            size[at] += std::abs(from[i]);
          }
          std::size_t wrong = 0;
          for (std::size_t i = 0; i < exact.size(); ++i)
            wrong += std::abs(sums.values<T>()[i] - exact[i]) >
                     24 * static_cast<long double>(std::numeric_limits<T>::epsilon()) / 2 * size[i];
          CHECK(wrong == 0);
        });
        everywhere([&] {
          CHECK(same_bits(place(p, index, 49 * width), placed));
          CHECK(same_bits(scatter_rows(g, index, rows), sums));
        });
      }
    }
}
