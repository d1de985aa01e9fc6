// What a function is given must be there: an empty std::function, a null pointer to a function or a null shared pointer
// is an error where it is given, not where it is used.
#pragma once
#include <functional>
#include <memory>
#include <string_view>

#include <ebb/graph/error.h>

namespace ebb::detail {

template <class F>
bool is_empty(const F&) {  // a lambda
  return false;
}
template <class Signature>
bool is_empty(const std::function<Signature>& f) {
  return !f;
}
template <class T>
bool is_empty(const std::shared_ptr<T>& p) {
  return !p;
}
template <class R, class... A>
bool is_empty(R (*f)(A...)) {
  return !f;
}

/// Throws ValueError "who: wrong".
template <class F>
void expect_given(const F& f, std::string_view who, std::string_view wrong = "the function is empty") {
  if (is_empty(f)) fail<ValueError>(who, wrong);
}

}  // namespace ebb::detail
