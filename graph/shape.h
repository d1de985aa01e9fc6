// Shape: the sizes of a tensor's axes, held inline.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace ebb {

/// Sizes of up to 8 axes, row-major (the last axis is contiguous). Rank 0 is a scalar; sizes of 0 are legal.
class Shape {
 public:
  static constexpr int max_rank = 8;  ///< of any tensor

  Shape() = default;  ///< of a scalar
  /// Throws ShapeError on a negative size, a rank above 8 or a product that does not fit 63 bits.
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);  ///< likewise

  int rank() const { return rank_; }  ///< number of axes
  /// Number of elements; 1 for a scalar.
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= sizes_[i];
    return n;
  }
  std::int64_t operator[](int axis) const {
    return sizes_[axis];
  }  ///< size of an axis, from 0 to rank() - 1, unchecked
  /// Size of an axis; a negative axis counts from the last. Throws ShapeError when there is no such axis.
  std::int64_t at(int axis) const { return sizes_[normalize(axis, "shape")]; }
  /// A negative axis made non-negative; throws ShapeError naming op when out of range.
  int normalize(int axis, std::string_view op) const;

  const std::int64_t* begin() const { return sizes_.data(); }        ///< the sizes in order
  const std::int64_t* end() const { return sizes_.data() + rank_; }  ///< one past the last size
  /// The same rank and sizes.
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.sizes_[i] != b.sizes_[i]) return false;
    return true;
  }

  /// This shape with one axis replaced, removed, or added in front of position `axis`.
  Shape with(int axis, std::int64_t size) const;
  Shape without(int axis) const;                      ///< one axis less
  Shape inserted(int axis, std::int64_t size) const;  ///< one axis more, in front of position `axis`

  /// "(64, 784)", "(10,)" for rank 1, "()" for a scalar.
  std::string str() const;

 private:
  std::array<std::int64_t, max_rank> sizes_;  // only the first rank_ are set: copying is all a Shape ever costs
  int rank_ = 0;
};

/// The NumPy broadcast of two shapes; throws ShapeError naming op and both shapes when there is none.
Shape broadcast(const Shape& a, const Shape& b, std::string_view op);
/// True when `from` broadcasts to `to` without changing it.
bool broadcasts_to(const Shape& from, const Shape& to);

}  // namespace ebb
