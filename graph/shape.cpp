#include <ebb/graph/shape.h>

#include <fmt/format.h>

#include <ebb/graph/error.h>

namespace ebb {

Shape::Shape(std::span<const std::int64_t> sizes) {
  if (sizes.size() > max_rank)
    fail<ShapeError>("shape", fmt::format("{} axes, at most {} are supported", sizes.size(), max_rank));
  std::int64_t product = 1;
  for (const std::int64_t n : sizes) {
    if (n < 0) fail<ShapeError>("shape", fmt::format("negative size in ({})", fmt::join(sizes, ", ")));
    if (n != 0 && __builtin_mul_overflow(product, n, &product))
      fail<ShapeError>("shape", fmt::format("({}) has too many elements", fmt::join(sizes, ", ")));
    sizes_[static_cast<std::size_t>(rank_++)] = n;
  }
}

int Shape::normalize(int axis, std::string_view op) const {
  if (axis < -rank_ || axis >= rank_) fail<ShapeError>(op, fmt::format("axis {} does not exist in {}", axis, str()));
  return axis < 0 ? axis + rank_ : axis;
}

Shape Shape::with(int axis, std::int64_t size) const {
  Shape s = *this;
  s.sizes_[static_cast<std::size_t>(axis)] = size;
  return Shape(std::span(s.begin(), s.end()));  // checks the sizes
}

Shape Shape::without(int axis) const {
  Shape s;
  for (int i = 0; i < rank_; ++i)
    if (i != axis) s.sizes_[static_cast<std::size_t>(s.rank_++)] = (*this)[i];
  return s;
}

Shape Shape::inserted(int axis, std::int64_t size) const {
  if (rank_ == max_rank) fail<ShapeError>("shape", "more than 8 axes are not supported");
  Shape s;
  for (int i = 0; i <= rank_; ++i) {
    if (i == axis) s.sizes_[static_cast<std::size_t>(s.rank_++)] = size;
    if (i < rank_) s.sizes_[static_cast<std::size_t>(s.rank_++)] = (*this)[i];
  }
  return Shape(std::span(s.begin(), s.end()));
}

std::string Shape::str() const { return fmt::format("({}{})", fmt::join(begin(), end(), ", "), rank_ == 1 ? "," : ""); }

Shape broadcast(const Shape& a, const Shape& b, std::string_view op) {
  if (a == b) return a;
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  const int shift = longer.rank() - shorter.rank();
  Shape out = longer;
  for (int i = 0; i < shorter.rank(); ++i) {
    const std::int64_t m = longer[i + shift], n = shorter[i];
    if (m != n && m != 1 && n != 1)
      fail<ShapeError>(op, fmt::format("shapes do not broadcast: {} and {}", a.str(), b.str()));
    if (m == 1) out = out.with(i + shift, n);
  }
  return out;
}

bool broadcasts_to(const Shape& from, const Shape& to) {
  const int shift = to.rank() - from.rank();
  if (shift < 0) return false;
  for (int i = 0; i < from.rank(); ++i)
    if (from[i] != 1 && from[i] != to[i + shift]) return false;
  return true;
}

}  // namespace ebb
