#pragma once
#include <algorithm>
#include <array>

#include "../parallel.h"
#include "../strided.h"

namespace rapt::inline RAPT_ABI::kernels {

constexpr int64_t kElementwiseGrain = 1 << 13;

namespace detail {

// One row with the steps known at compile time where they are 0 or 1, and f inlined whatever its size, so that the loop
// vectorises.
template <class F, size_t... I>
[[gnu::flatten]] void map_row(F f, Real* y, const std::array<const Real*, sizeof...(I)>& x,
                              const std::array<int64_t, sizeof...(I)>& step, int64_t n, std::index_sequence<I...>) {
  constexpr size_t kInputs = sizeof...(I);
  if (((step[I] == 1) && ...)) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = f(x[I][i]...);
    return;
  }
  if constexpr (kInputs == 2) {
    if (step[0] == 1 && step[1] == 0) {
      const Real b = *x[1];
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] = f(x[0][i], b);
      return;
    }
    if (step[0] == 0 && step[1] == 1) {
      const Real a = *x[0];
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] = f(a, x[1][i]);
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[I][i * step[I]]...);
}

}  // namespace detail

/// y = f(x…) element by element over the broadcast shape, dense. F: (Real, …) -> Real, without branches where it should
/// vectorise.
template <class F, class... T>
Tensor map(F f, const T&... x) {
  constexpr int kInputs = sizeof...(T);
  const std::array<const Tensor*, kInputs> inputs{&x...};
  Shape shape = inputs[0]->shape;
  for (int k = 1; k < kInputs; ++k) shape = broadcast("map", shape, inputs[k]->shape);
  Tensor y = empty(shape);
  if (y.numel() == 0) return y;
  auto nest = loop_nest<kInputs + 1>(shape, {&y, &x...});
  Real* out = y.mutable_data();
  const std::array<const Real*, kInputs> in{x.data()...};
  std::array<int64_t, kInputs> step;
  for (int k = 0; k < kInputs; ++k) step[k] = nest.row_stride(k + 1);
  const int64_t row = nest.row(), rows = nest.rows();
  if (rows == 1) {
    parallel_for(row, kElementwiseGrain, [&](int64_t begin, int64_t end) {
      auto at = in;
      for (int k = 0; k < kInputs; ++k) at[k] += begin * step[k];
      detail::map_row(f, out + begin, at, step, end - begin, std::make_index_sequence<kInputs>{});
    });
  } else {
    parallel_for(rows, std::max<int64_t>(1, kElementwiseGrain / row), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        auto offsets = nest.row_offsets(r);
        auto at = in;
        for (int k = 0; k < kInputs; ++k) at[k] += offsets[k + 1];
        detail::map_row(f, out + offsets[0], at, step, row, std::make_index_sequence<kInputs>{});
      }
    });
  }
  return y;
}

/// y = f(x) and slope = f'(x) in one pass, both dense. F: (Real x, Real& y, Real& slope).
template <class F>
Tensor map_with_slope(F f, const Tensor& x, Tensor& slope) {
  const Tensor dense = contiguous(x);
  Tensor y = empty(x.shape);
  slope = empty(x.shape);
  const Real* in = dense.data();
  Real* out = y.mutable_data();
  Real* out_slope = slope.mutable_data();
  parallel_for(x.numel(), kElementwiseGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      Real value, derivative;
      f(in[i], value, derivative);
      out[i] = value;
      out_slope[i] = derivative;
    }
  });
  return y;
}

/// sum += x, for a dense sum of the same shape.
void add_into(Tensor& sum, const Tensor& x);

}  // namespace rapt::inline RAPT_ABI::kernels
