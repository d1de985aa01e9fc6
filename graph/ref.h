// Ref<T>: an intrusive reference-counted pointer. T supplies retain() and release().
#pragma once
#include <cstddef>
#include <utility>

namespace ebb {

/// Shared ownership of an object that counts its own references: one word, no control block.
template <class T>
class Ref {
 public:
  Ref() = default;        ///< null
  Ref(std::nullptr_t) {}  ///< null
  /// Shares what the other holds.
  Ref(const Ref& other) : p_(other.p_) {
    if (p_) p_->retain();
  }
  Ref(Ref&& other) noexcept : p_(std::exchange(other.p_, nullptr)) {}  ///< takes it; the other is null afterwards
  /// Lets go of the old object.
  Ref& operator=(Ref other) noexcept {
    std::swap(p_, other.p_);
    return *this;
  }
  ~Ref() {
    if (p_) p_->release();
  }

  /// Takes over a reference that the caller already holds (a new object starts with one).
  static Ref adopt(T* p) {
    Ref r;
    r.p_ = p;
    return r;
  }
  /// Adds a reference to an object that others hold.
  static Ref share(T* p) {
    if (p) p->retain();
    return adopt(p);
  }
  /// Gives the reference away: the caller must release it.
  [[nodiscard]] T* detach() { return std::exchange(p_, nullptr); }

  T* get() const { return p_; }                              ///< the object, or null
  T* operator->() const { return p_; }                       ///< not to be used on null
  T& operator*() const { return *p_; }                       ///< not to be used on null
  explicit operator bool() const { return p_ != nullptr; }   ///< true unless null
  friend bool operator==(const Ref&, const Ref&) = default;  ///< the same object

 private:
  T* p_ = nullptr;
};

}  // namespace ebb
