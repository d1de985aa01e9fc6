// Internal: functions of one number, written so that loops over them are vectorized for every instruction set.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ebb/ops/kernels/loops.h>

namespace ebb::detail {

/// ln 2 in two parts, the first so short that a power of two's exponent times it is exact.
inline constexpr float ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0106p-13f;

/// e^x = 2^n (1 + less). x = n ln 2 + r with |r| <= ln 2 / 2, and a minimax polynomial for e^r (Remez; error 0.05 ulp).
struct ExpParts {
  float less;
  std::int32_t n;
  static EBB_INLINE ExpParts of(float x) {  // in [-104, 89]; a NaN passes
    constexpr float round = 0x1.8p23f;      // adding it leaves no room for a fraction
    const float shifted = x * 0x1.715476p+0f + round, n = shifted - round;
    const float t = x - n * ln2_high, u = n * ln2_low, r = t - u, rest = (t - r) - u;  // what r lost in rounding
    const float p = ((((0.00138145394f * r + 0.00836874545f) * r + 0.041668389f) * r + 0.166665211f) * r + 0.49999994f);
    return {r + (r * r * p + rest), std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(round)};
  }
  static EBB_INLINE float power(std::int32_t e) { return std::bit_cast<float>((e + 127) << 23); }
};

/// e^x within 1 ulp in float32 (2 where the result is denormal), overflow to infinity and NaN as std::exp; float64 is
/// std::exp.
template <class T>
EBB_INLINE inline T exp_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::exp(x);
  } else {
    const float low = x < -104.0f ? -104.0f : x;
    const ExpParts e = ExpParts::of(low > 89.0f ? 89.0f : low);
    const float y = 1.0f + e.less;
    const std::int32_t half = e.n >> 1;  // 2^n alone leaves the range of a float
    return y * ExpParts::power(half) * ExpParts::power(e.n - half);
  }
}

/// e^x - 1 for x <= 0, within 2 ulp in float32; float64 is std::expm1.
template <class T>
EBB_INLINE inline T expm1_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::expm1(x);
  } else {
    const ExpParts e = ExpParts::of(x < -20.0f ? -20.0f : x > 0 ? 0.0f : x);  // e^-20 is nothing beside 1
    const float scale = ExpParts::power(e.n);
    return e.less * scale + (scale - 1.0f);
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
    const float q =
        ((((-0.00570498686f * t + 0.0206390861f) * t - 0.0537397154f) * t + 0.133314416f) * t - 0.333332807f);
    const float near = x + x * t * q;                           // |x| < 0.625
    const float far = 1.0f - 2.0f / (exp_of(2.0f * a) + 1.0f);  // no cancellation there
    return a < 0.625f ? near : x < 0 ? -far : far;
  }
}

/// ln x within 1 ulp in float32, denormals too, and at the edges as std::log; float64 is std::log. x = 2^n (1 + f) with
/// sqrt(1/2) <= 1 + f < sqrt(2), and a minimax polynomial (Remez; error 0.1 ulp) for what f - f^2/2 leaves.
template <class T>
EBB_INLINE inline T log_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::log(x);
  } else {
    constexpr std::int32_t root = 0x3f3504f3;  // sqrt(1/2)
    constexpr float infinity = std::numeric_limits<float>::infinity(), least = std::numeric_limits<float>::min();
    const bool small = x < least;
    const std::int32_t bits = std::bit_cast<std::int32_t>(small ? x * 0x1p23f : x) - root;
    const float n = static_cast<float>((bits >> 23) - (small ? 23 : 0));
    const float f = std::bit_cast<float>((bits & 0x7fffff) + root) - 1.0f, t = f * f;
    const float p = (((((((-0.07636439f * f + 0.12762217f) * f - 0.1315961f) * f + 0.1420158f) * f - 0.16623409f) * f +
                       0.20001242f) *
                          f -
                      0.2500082f) *
                         f +
                     0.3333333f);
    const float y = n * ln2_high + (f + (n * ln2_low + (f * t * p - 0.5f * t)));  // what is small is added first
    return x > 0 ? x < infinity ? y : x : x == 0 ? -infinity : std::numeric_limits<float>::quiet_NaN();
  }
}

/// ln(1 + x) within 2 ulp in float32; float64 is std::log1p.
template <class T>
EBB_INLINE inline T log1p_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::log1p(x);
  } else {
    const float sum = 1.0f + x, lost = x < 1 ? x - (sum - 1.0f) : 1.0f - (sum - x), y = log_of(sum);
    return (sum > 0) & (sum < std::numeric_limits<float>::infinity()) ? y + lost / sum : y;
  }
}

/// Within 2 ulp in float32; float64 is std::erf. Near zero x + x q(x^2); beyond, 1 - e^-h(|x|), where h is a minimax
/// polynomial for -ln(erfc) (Remez, errors weighed by erfc; both below 0.1 ulp).
template <class T>
EBB_INLINE inline T erf_of(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::erf(x);
  } else {
    const float size = x < 0 ? -x : x, a = size > 4 ? 4.0f : size, t = a * a;  // erf(4) is 1; a NaN passes
    const float q =
        (((((-0.00063485187f * t + 0.0050577037f) * t - 0.026807288f) * t + 0.11282865f) * t - 0.3761259f) * t +
         0.12837917f);
    const float h =
        ((((((-0.0002036777f * a + 0.0031178743f) * a - 0.02251915f) * a + 0.10452612f) * a + 0.6365188f) * a +
          1.128061f) *
             a +
         0.00010452333f);
    const float y = a < 0.85f ? a + a * q : 1.0f - exp_of(-h);
    return x < 0 ? -y : y;
  }
}

/// Of a normally distributed number: the chance of one below -|x|, and e^(-x^2 / 2). In float32 the chance is that
/// power times a polynomial in 1 / (1 + 0.35 |x|) (Chebyshev nodes; error 0.7 ulp), and the square is split so that it
/// loses no digits.
template <class T>
struct NormalTail {
  T beyond, power;
  static EBB_INLINE NormalTail of(T x) {
    if constexpr (!std::is_same_v<T, float>) {
      return {T(0.5) * std::erfc(std::abs(x) * T(0.70710678118654752)), std::exp(T(-0.5) * x * x)};
    } else {
      const float size = x < 0 ? -x : x, z = size > 14.5f ? 14.5f : size;  // beyond, both are 0; a NaN passes
      const float high = std::bit_cast<float>(std::bit_cast<std::int32_t>(z) & ~0xfff);  // its square is exact
      const float low = 0.5f * (z - high) * (z + high);
      const float power =
          exp_of(-0.5f * high * high) * (1.0f - low * (1.0f - low * (0.5f - low * (0.16666667f - low * 0.041666667f))));
      const float t = 1.0f / (1.0f + 0.35f * z);
      const float p =
          (((((((-0.029732276f * t + 0.14678398f) * t - 0.26141054f) * t + 0.16551016f) * t - 0.02732191f) * t +
             0.10721250f) *
                t +
            0.11942509f) *
               t +
           0.13991433f) *
              t +
          0.13961864f;
      return {power * (t * p), power};
    }
  }
};

/// sin(x + quarters pi/2) within 2 ulp, for |x| <= trig_limit. The angle is reduced in float64: n pi/2 is taken off in
/// two parts, the first of 33 bits, so that n times it is exact.
constexpr float trig_limit = 1 << 20;
template <int quarters>
EBB_INLINE inline float trig_of(float x) {
  const double wide = std::abs(x) <= trig_limit ? static_cast<double>(x) : 0.0;
  constexpr double round = 0x1.8p52;
  const double n = (wide * 0x1.45f306dc9c883p-1 + round) - round;
  const float r = static_cast<float>((wide - n * 0x1.921fb544p+0) - n * 0x1.0b4611a626331p-34), t = r * r;
  const float sine = r + r * t * ((-0.00019518286f * t + 0.008332189f) * t - 0.16666655f);
  const float cosine = (1.0f - 0.5f * t) + t * t * ((2.4432327e-5f * t - 0.001388731f) * t + 0.041666646f);
  const std::int32_t quarter = static_cast<std::int32_t>(n) + quarters;
  const float y = quarter & 1 ? cosine : sine;
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(y) ^ ((quarter & 2) << 30));
}

template <class T>
EBB_INLINE inline T relu_of(T x) {
  return x <= 0 ? 0 : x;  // a NaN passes
}

}  // namespace ebb::detail
