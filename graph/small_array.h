// SmallArray: an array whose length is known at run time, on the stack while it is short.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace ebb::detail {

/// n elements, T() at first; no allocation for up to `few` of them.
template <class T, std::size_t few>
class SmallArray {
 public:
  explicit SmallArray(std::size_t n) : many_(n > few ? n : 0), all_(n > few ? many_.data() : few_.data(), n) {}
  SmallArray(const SmallArray&) = delete;
  SmallArray& operator=(const SmallArray&) = delete;
  T& operator[](std::size_t i) { return all_[i]; }
  std::span<T> all() const { return all_; }

 private:
  std::array<T, few> few_{};
  std::vector<T> many_;
  std::span<T> all_;
};

}  // namespace ebb::detail
