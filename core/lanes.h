#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "real.h"

/// Reductions in explicit lanes. Element i goes to lane i mod L, then the lanes are combined as a binary tree, so the
/// order is fixed by n alone, the loop vectorises without -ffast-math, and the rounding error grows with n / L instead
/// of n.
namespace rapt::inline RAPT_ABI {

namespace detail {

template <class T, int N>
using Vector [[gnu::vector_size(N * sizeof(T))]] = T;

/// Combines the upper half of the N lanes of v with the lower, and so on down to one. In registers: halves that were
/// written to memory and read back at another width would wait for it.
template <int N, class V, class Combine>
[[gnu::always_inline]] inline auto combine_lanes(V v, Combine combine) {
  using T = std::decay_t<decltype(v[0])>;
  if constexpr (N == 2) {
    return combine(T(v[0]), T(v[1]));
  } else {
    return [&]<int... I>(std::integer_sequence<int, I...>) {
      Vector<T, N / 2> low = __builtin_shufflevector(v, v, I...), high = __builtin_shufflevector(v, v, (I + N / 2)...);
      return combine_lanes<N / 2>(combine(low, high), combine);
    }
    (std::make_integer_sequence<int, N / 2>());
  }
}

template <int L, class T, class F, class Combine>
[[gnu::always_inline]] inline T lane_reduce(int64_t n, T start, F& f, Combine combine) {
  constexpr int kWide = 64 / int(sizeof(T));
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
  Vector<T, kWide> wide[L / kWide];
  std::memcpy(wide, lane, sizeof(lane));
  for (int width = L / kWide / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) wide[i] = combine(wide[i], wide[i + width]);
  }
  return combine_lanes<kWide>(wide[0], combine);
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
  return detail::lane_reduce(n, T(0), f, [](auto a, auto b) { return a + b; });
}

/// The largest f(i) over i in [0, n), NaN left out; −∞ for n = 0.
template <class F>
[[gnu::always_inline]] inline auto lane_max(int64_t n, F f) {
  using T = std::decay_t<decltype(f(int64_t{0}))>;
  return detail::lane_reduce(n, -std::numeric_limits<T>::infinity(), f, [](auto a, auto b) { return b > a ? b : a; });
}

}  // namespace rapt::inline RAPT_ABI
