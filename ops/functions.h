// Internal: functions of one number, written so that loops over them are vectorised for every instruction set.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include <ebb/ops/loops.h>

namespace ebb::detail {

/// e^x within 1 ulp in float32 (2 where the result is denormal), overflow to infinity and NaN as std::exp; float64 is
/// std::exp. x = n ln 2 + r with |r| <= ln 2 / 2, a minimax polynomial for e^r (Remez; error 0.05 ulp), then two
/// scalings by powers of two, since 2^n alone leaves the range of a float.
template <class T>
EBB_INLINE inline T exp_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::exp(x);
  } else {
    const float low = x < -104.0f ? -104.0f : x, c = low > 89.0f ? 89.0f : low;  // a NaN passes
    constexpr float round = 0x1.8p23f;  // adding it leaves no room for a fraction
    const float shifted = c * 0x1.715476p+0f + round, n = shifted - round;
    // ln 2 in two parts, the first so short that n times it is exact; `rest` is what r lost in rounding
    const float t = c - n * 0x1.63p-1f, u = n * -0x1.bd0106p-13f, r = t - u, rest = (t - r) - u;
    const float p = ((((0.00138145394f * r + 0.00836874545f) * r + 0.041668389f) * r + 0.166665211f) * r + 0.49999994f);
    const float y = 1.0f + (r + (r * r * p + rest));
    const std::int32_t whole = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(round), half = whole >> 1;
    const auto power = [](std::int32_t e) EBB_INLINE { return std::bit_cast<float>((e + 127) << 23); };
    return y * power(half) * power(whole - half);
  }
}

/// 1 / (1 + e^-x) within 2 ulp in float32.
template <class T>
EBB_INLINE inline T sigmoid_of(T x) {
  // e^-|x| is at most 1: nothing overflows, and small results keep their digits; what rounding took from the sum is
  // made good in the quotient
  const T one = 1, e = exp_of(x < 0 ? x : -x), sum = one + e, lost = e - (sum - one), q = (x < 0 ? e : one) / sum;
  return q - q * lost;
}

/// Within 2 ulp in float32; float64 is std::tanh.
template <class T>
EBB_INLINE inline T tanh_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::tanh(x);
  } else {
    const float a = x < 0 ? -x : x, t = x * x;
    const float q = ((((-0.00570498686f * t + 0.0206390861f) * t - 0.0537397154f) * t + 0.133314416f) * t - 0.333332807f);
    const float near = x + x * t * q;                        // |x| < 0.625
    const float far = 1.0f - 2.0f / (exp_of(2.0f * a) + 1.0f);  // no cancellation there
    return a < 0.625f ? near : x < 0 ? -far : far;
  }
}

template <class T>
EBB_INLINE inline T relu_of(T x) {
  return x <= 0 ? 0 : x;  // a NaN passes
}

}  // namespace ebb::detail
