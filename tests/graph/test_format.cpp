// Printing.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/graph/format.h>

using namespace ebb;

TEST_CASE("format: tensors as nested brackets with type and shape") {
  CHECK(to_string(scalar(2.5)) == "2.5 float32 ()");
  CHECK(to_string(tensor({1, 2, 3}, i64)) == "[1, 2, 3] int64 (3,)");
  CHECK(to_string(tensor({255, 0}, u8)) == "[255, 0] uint8 (2,)");
  CHECK(to_string(tensor({1, 2, 3, 4}, {2, 2}, f64)) == "[[1, 2],\n [3, 4]] float64 (2, 2)");
  CHECK(to_string(tensor({1, 2, 3, 4}, {2, 1, 2})) == "[[[1, 2]],\n [[3, 4]]] float32 (2, 1, 2)");
  CHECK(to_string(tensor({0.1, -1e-10, 123456789, 1.0 / 3})) == "[0.1, -1e-10, 1.23457e+08, 0.333333] float32 (4,)");
  CHECK(to_string(tensor({INFINITY, -INFINITY, NAN})) == "[inf, -inf, nan] float32 (3,)");
  CHECK(to_string(zeros({0})) == "[] float32 (0,)");
  CHECK(to_string(zeros({2, 0})) == "[[],\n []] float32 (2, 0)");
  CHECK(to_string(Tensor()) == "undefined");
}

TEST_CASE("format: long axes are shortened in the middle") {
  CHECK(to_string(arange(7)) == "[0, 1, 2, 3, 4, 5, 6] float32 (7,)");
  CHECK(to_string(arange(8)) == "[0, 1, 2, ..., 5, 6, 7] float32 (8,)");
  CHECK(to_string(arange(1000, i64).viewed_as({500, 2})) ==
        "[[0, 1],\n [2, 3],\n [4, 5],\n ...,\n [994, 995],\n [996, 997],\n [998, 999]] int64 (500, 2)");
}

TEST_CASE("format: fmt prints shapes, types and tensors, with its own width") {
  CHECK(fmt::format("{}", Shape{2, 3}) == "(2, 3)");
  CHECK(fmt::format("[{:>8}]", Shape{2}) == "[    (2,)]");
  CHECK(fmt::format("{} {:<8}|", f32, u8) == "float32 uint8   |");
  CHECK(fmt::format("{}", tensor({1, 2})) == "[1, 2] float32 (2,)");
}
