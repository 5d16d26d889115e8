#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "real.h"

/// Reductions in explicit lanes. Element i goes to lane i mod L, then the lanes are combined as a binary tree, so the
/// order is fixed by n alone, the loop vectorises without -ffast-math, and the rounding error grows with n / L instead
/// of n.
namespace rapt::inline RAPT_ABI {

namespace detail {

template <int L, class T, class F, class Combine>
[[gnu::always_inline]] inline T lane_reduce(int64_t n, T start, F& f, Combine combine) {
  alignas(64) T lane[L];
  for (int i = 0; i < L; ++i) lane[i] = start;
  int64_t j = 0;
  for (; j + L <= n; j += L) {
#pragma omp simd
    for (int i = 0; i < L; ++i) lane[i] = combine(lane[i], f(j + i));
  }
  int rest = int(n - j);
#pragma omp simd
  for (int i = 0; i < rest; ++i) lane[i] = combine(lane[i], f(j + i));
  for (int width = L / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = combine(lane[i], lane[i + width]);
  }
  return lane[0];
}

/// 256 bytes of lanes: four AVX-512 registers, enough to hide the latency of the addition. Short rows get 64 bytes.
template <class T, class F, class Combine>
[[gnu::always_inline]] inline T lane_reduce(int64_t n, T start, F& f, Combine combine) {
  constexpr int kMany = 256 / int(sizeof(T)), kFew = 64 / int(sizeof(T));
  return n >= 2 * kMany ? lane_reduce<kMany>(n, start, f, combine) : lane_reduce<kFew>(n, start, f, combine);
}

}  // namespace detail

/// Σ f(i) over i in [0, n); 0 for n = 0. f(i) gives a Real, or a double to sum in double. It must be free of side
/// effects.
template <class F>
[[gnu::always_inline]] inline auto lane_sum(int64_t n, F f) {
  using T = std::decay_t<decltype(f(int64_t{0}))>;
  return detail::lane_reduce(n, T(0), f, [](T a, T b) { return a + b; });
}

/// The largest f(i) over i in [0, n), NaN left out; −∞ for n = 0.
template <class F>
[[gnu::always_inline]] inline auto lane_max(int64_t n, F f) {
  using T = std::decay_t<decltype(f(int64_t{0}))>;
  return detail::lane_reduce(n, -std::numeric_limits<T>::infinity(), f, [](T a, T b) { return b > a ? b : a; });
}

}  // namespace rapt::inline RAPT_ABI
