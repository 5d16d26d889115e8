#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "real.h"

/// exp, log, tanh, erf, sigmoid and softplus for inner loops. The float versions have no branches, calls or tables, so
/// that a plain loop over them (`#pragma omp simd` where the compiler hesitates) vectorises; the double versions call
/// the C library. Errors are in units in the last place (ulp) of the exact result, over all finite arguments; NaN gives
/// NaN.
namespace rapt::inline RAPT_ABI::math {

/// exp is exactly 0 below this. e^−60 ≈ 9e−27 is far below rounding beside any weight that counts, and products with it
/// stay out of the range of denormals, which cost some cores a hundred cycles each.
inline constexpr float kExpCutoff = -60;

namespace detail {

// x = z ln 2 + r with |r| ≤ ln 2 / 2; ok for |x| < 2^21.
struct Reduced {
  float r;
  uint32_t z;  // two's complement in the low 22 bits
};
[[gnu::always_inline]] inline Reduced reduce(float x) {
  constexpr float kRound = 12582912;  // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits
  float shifted = x * 1.44269504f + kRound;
  float z = shifted - kRound;
  float r = x - z * 0.693359375f;  // ln 2 in two parts: the first has few bits, so that the product is exact
  r = r - z * -2.12194440e-4f;
  return {r, std::bit_cast<uint32_t>(shifted)};
}
[[gnu::always_inline]] inline float power_of_two(uint32_t z) { return std::bit_cast<float>((z + 127) << 23); }

// (e^r − 1 − r) / r² for |r| ≤ ln 2 / 2; minimax, relative error of e^r 3.1e−9.
[[gnu::always_inline]] inline float exp_tail(float r) {
  float p = 0.00138146011f;
  p = p * r + 0.00836871564f;
  p = p * r + 0.041668389f;
  p = p * r + 0.166665211f;
  return p * r + 0.49999994f;
}

// e^x − 1 for −60 ≤ x ≤ 0, accurate near 0 too.
[[gnu::always_inline]] inline float expm1_negative(float x) {
  auto [r, z] = reduce(x);
  float u = r * r * exp_tail(r) + r;
  float s = power_of_two(z);
  return s * u + (s - 1);
}

}  // namespace detail

/// e^x, exactly 0 for x < −60; 1.5 ulp.
[[gnu::always_inline]] inline float exp(float x) {
  float c = x < kExpCutoff ? kExpCutoff : x;
  c = c > 89 ? 89 : c;
  auto [r, z] = detail::reduce(c);
  float p = detail::exp_tail(r) * (r * r) + r + 1;
  float y = (p + p) * detail::power_of_two(z - 1);  // in two steps, since 2^128 is no float
  return x < kExpCutoff ? 0 : y;
}
/// 1 ulp.
inline double exp(double x) { return x < double(kExpCutoff) ? 0 : std::exp(x); }

/// ln x for x > 0; 1 ulp. For other x something that means nothing, without a floating-point exception: for loops that
/// choose another value there, and evaluate this nevertheless because they are vectorised.
[[gnu::always_inline]] inline float log_positive(float x) {
  bool tiny = x < std::numeric_limits<float>::min();
  float scaled = x * (tiny ? 0x1p23f : 1);                       // denormals become normal
  uint32_t bits = std::bit_cast<uint32_t>(scaled) - 0x3f3504f3;  // √½: the mantissa m will lie in [√½, √2)
  float e = float(int32_t(bits) >> 23) - (tiny ? 23.f : 0.f);
  float f = std::bit_cast<float>((bits & 0x7fffff) + 0x3f3504f3) - 1;
  float p = -0.0763448775f;  // ln(1 + f) = f − f²/2 + f³ p(f); minimax, relative error 5.9e−9
  p = p * f + 0.127615735f;
  p = p * f - 0.13160184f;
  p = p * f + 0.142017588f;
  p = p * f - 0.166233569f;
  p = p * f + 0.200012267f;
  p = p * f - 0.250008196f;
  p = p * f + 0.333333313f;
  float square = f * f;
  float low = e * -2.12194440e-4f + square * f * p;
  float y = (low - 0.5f * square + f) + e * 0.693359375f;
  return x < std::numeric_limits<float>::infinity() ? y : x;
}
/// 1 ulp. At least the smallest normal number, for compilers may compute the log of 0 where it is not wanted.
inline double log_positive(double x) { return std::log(std::max(x, std::numeric_limits<double>::min())); }

/// ln x; −∞ at 0, NaN below; 1 ulp.
[[gnu::always_inline]] inline float log(float x) {
  // computed and not chosen, so that who traps floating-point exceptions sees −∞ (1/0) and NaN (0/0) being made
  float at_zero = x == 0, defined = !(x <= 0);
  return math::log_positive(x) - at_zero / defined;
}
/// 1 ulp.
inline double log(double x) { return std::log(x); }

/// 1 / x, and 0 for 0, without dividing by 0.
template <class T>
[[gnu::always_inline]] inline T inverse_or_zero(T x) {
  T none = T(x == 0);
  return (1 - none) / (x + none);
}

/// tanh x; 3 ulp.
[[gnu::always_inline]] inline float tanh(float x) {
  float a = std::fabs(x);
  a = a > 10 ? 10 : a;
  float t = detail::expm1_negative(-2 * a);
  return std::copysign(t / (t + 2), x);
}
/// 3 ulp.
inline double tanh(double x) { return std::tanh(x); }

/// The error function 2/√π ∫₀ˣ exp(−t²) dt; 3 ulp.
[[gnu::always_inline]] inline float erf(float x) {
  float a = std::fabs(x);
  a = a > 4 ? 4 : a;           // 1 from 3.92 on
  float q = -9.25567201e-06f;  // −ln(1 − erf a) / a on [0, 4]; minimax, relative error of erf 4.1e−9
  q = q * a + 0.000117635587f;
  q = q * a - 0.000632815179f;
  q = q * a + 0.00166698522f;
  q = q * a - 0.000160350683f;
  q = q * a - 0.0191530902f;
  q = q * a + 0.102777839f;
  q = q * a + 0.636619389f;
  q = q * a + 1.12837923f;
  return std::copysign(detail::expm1_negative(-a * q), x);
}
/// 2 ulp.
inline double erf(double x) { return std::erf(x); }

/// 1 / (1 + e^−x), exactly 0 for x < −60; 3 ulp.
template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  T e = math::exp(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (1 + e);
}

/// ln(1 + e^x), exactly 0 for x < −60; 3 ulp. ln σ(x) is −softplus(−x).
[[gnu::always_inline]] inline float softplus(float x) {
  float e = math::exp(-std::fabs(x));
  float y = 1 + e;
  return (x > 0 ? x : 0) + (math::log_positive(y) + (e - (y - 1)) / y);  // what rounding took from y is given back
}
/// 3 ulp.
inline double softplus(double x) { return (x > 0 ? x : 0) + std::log1p(math::exp(-std::fabs(x))); }

}  // namespace rapt::inline RAPT_ABI::math
