#include "normalization.h"

#include <algorithm>
#include <cmath>

#include "../lanes.h"
#include "../parallel.h"
#include "../storage.h"
#include "../vector_math.h"

namespace rapt::inline RAPT_ABI::kernels {

namespace {

// Rows of n numbers that make a task worth a thread.
int64_t row_grain(int64_t n) { return std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(n, 1)); }

// Rows in a group whose weight gradients are summed by one task: at most 64 groups.
int64_t group_rows(int64_t rows, int64_t C) { return std::max(row_grain(C), (rows + 63) / 64); }

// sum (n) = Σ of the rows of partial, each at a distance of `stride`, in order.
void sum_groups(const Real* partial, int64_t groups, int64_t stride, int64_t n, Real* sum) {
  std::fill(sum, sum + n, Real(0));
  for (int64_t g = 0; g < groups; ++g) {
    const Real* p = partial + g * stride;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) sum[i] += p[i];
  }
}

}  // namespace

// ---- layer_norm ----

void layer_norm_forward(const Real* x, const Real* weight, const Real* bias, double epsilon, int64_t rows, int64_t C,
                        Real* y, Real* mean, Real* rstd) {
  parallel_for(rows, row_grain(C), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Real* xr = x + r * C;
      Real* yr = y + r * C;
      Real m = lane_sum(C, [=](int64_t i) { return xr[i]; }) / Real(C);
      Real variance = lane_sum(C, [=](int64_t i) { return (xr[i] - m) * (xr[i] - m); }) / Real(C);
      Real s = 1 / std::sqrt(variance + Real(epsilon));
#pragma omp simd
      for (int64_t i = 0; i < C; ++i) yr[i] = (xr[i] - m) * s * weight[i] + bias[i];
      mean[r] = m;
      rstd[r] = s;
    }
  });
}

void layer_norm_backward(const Real* dy, const Real* x, const Real* weight, const Real* mean, const Real* rstd,
                         int64_t rows, int64_t C, Real* dx, Real* dweight, Real* dbias) {
  int64_t group = group_rows(rows, C), groups = (rows + group - 1) / group;
  Storage partial(groups * 2 * C);  // (groups, 2, C)
  parallel_tasks(groups, [=, p = partial.data](int64_t g) {
    Real* dw = p + g * 2 * C;
    Real* db = dw + C;
    std::fill(dw, dw + 2 * C, Real(0));
    for (int64_t r = g * group; r < std::min(rows, (g + 1) * group); ++r) {
      const Real *dyr = dy + r * C, *xr = x + r * C;
      Real* dxr = dx + r * C;
      const Real m = mean[r], s = rstd[r];
      // with n = (x − mean) rstd and dn = dy · weight: dx = rstd · (dn − mean dn − n · mean(dn · n))
      Real mean_dn = lane_sum(C, [=](int64_t i) { return dyr[i] * weight[i]; }) / Real(C);
      Real mean_dn_n = lane_sum(C, [=](int64_t i) { return dyr[i] * weight[i] * ((xr[i] - m) * s); }) / Real(C);
#pragma omp simd
      for (int64_t i = 0; i < C; ++i) {
        Real n = (xr[i] - m) * s;
        dw[i] += dyr[i] * n;
        db[i] += dyr[i];
        dxr[i] = s * (dyr[i] * weight[i] - mean_dn - n * mean_dn_n);
      }
    }
  });
  sum_groups(partial.data, groups, 2 * C, C, dweight);
  sum_groups(partial.data + C, groups, 2 * C, C, dbias);
}

// ---- rms_norm ----

void rms_norm_forward(const Real* x, const Real* weight, double epsilon, int64_t rows, int64_t C, Real* y, Real* rstd) {
  parallel_for(rows, row_grain(C), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const Real* xr = x + r * C;
      Real* yr = y + r * C;
      Real square = lane_sum(C, [=](int64_t i) { return xr[i] * xr[i]; }) / Real(C);
      Real s = 1 / std::sqrt(square + Real(epsilon));
#pragma omp simd
      for (int64_t i = 0; i < C; ++i) yr[i] = xr[i] * s * weight[i];
      rstd[r] = s;
    }
  });
}

void rms_norm_backward(const Real* dy, const Real* x, const Real* weight, const Real* rstd, int64_t rows, int64_t C,
                       Real* dx, Real* dweight) {
  int64_t group = group_rows(rows, C), groups = (rows + group - 1) / group;
  Storage partial(groups * C);  // (groups, C)
  parallel_tasks(groups, [=, p = partial.data](int64_t g) {
    Real* dw = p + g * C;
    std::fill(dw, dw + C, Real(0));
    for (int64_t r = g * group; r < std::min(rows, (g + 1) * group); ++r) {
      const Real *dyr = dy + r * C, *xr = x + r * C;
      Real* dxr = dx + r * C;
      const Real s = rstd[r];
      // with n = x rstd and dn = dy · weight: dx = rstd · (dn − n · mean(dn · n))
      Real mean_dn_n = lane_sum(C, [=](int64_t i) { return dyr[i] * weight[i] * (xr[i] * s); }) / Real(C);
#pragma omp simd
      for (int64_t i = 0; i < C; ++i) {
        Real n = xr[i] * s;
        dw[i] += dyr[i] * n;
        dxr[i] = s * (dyr[i] * weight[i] - n * mean_dn_n);
      }
    }
  });
  sum_groups(partial.data, groups, C, C, dweight);
}

// ---- softmax and log_softmax ----

namespace {

// For an axis that isn't the last, (outer, n, inner): f(at, columns) works on up to kColumns neighbouring columns, the
// first of which begins at offset `at`; each has n elements at a distance of `inner`.
constexpr int64_t kColumns = 64;
template <class F>
void for_columns(int64_t outer, int64_t n, int64_t inner, F f) {
  int64_t blocks = (inner + kColumns - 1) / kColumns;
  parallel_for(outer * blocks, row_grain(n * std::min(inner, kColumns)), [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t column = b % blocks * kColumns;
      f(b / blocks * n * inner + column, std::min(kColumns, inner - column));
    }
  });
}

template <class F>
void for_rows(int64_t rows, int64_t n, F f) {
  parallel_for(rows, row_grain(n), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r * n);
  });
}

// The largest of each column, 0 where all are −∞, so that it can be subtracted.
void column_max(const Real* x, int64_t n, int64_t inner, int64_t columns, Real* largest) {
  std::fill(largest, largest + columns, -kInf);
  for (int64_t i = 0; i < n; ++i) {
    const Real* xr = x + i * inner;
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) largest[c] = xr[c] > largest[c] ? xr[c] : largest[c];
  }
  for (int64_t c = 0; c < columns; ++c) largest[c] = largest[c] == -kInf ? 0 : largest[c];
}

}  // namespace

void softmax_forward(const Real* x, int64_t outer, int64_t n, int64_t inner, Real* y) {
  if (inner == 1) {
    for_rows(outer, n, [=](int64_t at) {
      const Real* xr = x + at;
      Real* yr = y + at;
      Real largest = lane_max(n, [=](int64_t i) { return xr[i]; });
      if (largest == -kInf) largest = 0;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) yr[i] = math::exp(xr[i] - largest);
      Real sum = lane_sum(n, [=](int64_t i) { return yr[i]; });
      Real scale = math::inverse_or_zero(sum);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) yr[i] *= scale;
    });
    return;
  }
  for_columns(outer, n, inner, [=](int64_t at, int64_t columns) {
    Real largest[kColumns], scale[kColumns] = {};
    column_max(x + at, n, inner, columns, largest);
    for (int64_t i = 0; i < n; ++i) {
      const Real* xr = x + at + i * inner;
      Real* yr = y + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) {
        yr[c] = math::exp(xr[c] - largest[c]);
        scale[c] += yr[c];
      }
    }
    for (int64_t c = 0; c < columns; ++c) scale[c] = math::inverse_or_zero(scale[c]);  // of a sum, its inverse
    for (int64_t i = 0; i < n; ++i) {
      Real* yr = y + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) yr[c] *= scale[c];
    }
  });
}

void softmax_backward(const Real* dy, const Real* y, int64_t outer, int64_t n, int64_t inner, Real* dx) {
  if (inner == 1) {
    for_rows(outer, n, [=](int64_t at) {
      const Real *dyr = dy + at, *yr = y + at;
      Real* dxr = dx + at;
      Real dot = lane_sum(n, [=](int64_t i) { return yr[i] * dyr[i]; });
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) dxr[i] = yr[i] * (dyr[i] - dot);
    });
    return;
  }
  for_columns(outer, n, inner, [=](int64_t at, int64_t columns) {
    Real dot[kColumns] = {};
    for (int64_t i = 0; i < n; ++i) {
      const Real *dyr = dy + at + i * inner, *yr = y + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) dot[c] += yr[c] * dyr[c];
    }
    for (int64_t i = 0; i < n; ++i) {
      const Real *dyr = dy + at + i * inner, *yr = y + at + i * inner;
      Real* dxr = dx + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) dxr[c] = yr[c] * (dyr[c] - dot[c]);
    }
  });
}

void log_softmax_forward(const Real* x, int64_t outer, int64_t n, int64_t inner, Real* y) {
  if (inner == 1) {
    for_rows(outer, n, [=](int64_t at) {
      const Real* xr = x + at;
      Real* yr = y + at;
      Real largest = lane_max(n, [=](int64_t i) { return xr[i]; });
      if (largest == -kInf) largest = 0;
      Real sum = lane_sum(n, [=](int64_t i) { return math::exp(xr[i] - largest); });
      Real log_sum = sum == 0 ? 0 : math::log_positive(sum);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) yr[i] = xr[i] - largest - log_sum;
    });
    return;
  }
  for_columns(outer, n, inner, [=](int64_t at, int64_t columns) {
    Real largest[kColumns], sum[kColumns] = {}, log_sum[kColumns];
    column_max(x + at, n, inner, columns, largest);
    for (int64_t i = 0; i < n; ++i) {
      const Real* xr = x + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) sum[c] += math::exp(xr[c] - largest[c]);
    }
    for (int64_t c = 0; c < columns; ++c) log_sum[c] = sum[c] == 0 ? 0 : math::log_positive(sum[c]);
    for (int64_t i = 0; i < n; ++i) {
      const Real* xr = x + at + i * inner;
      Real* yr = y + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) yr[c] = xr[c] - largest[c] - log_sum[c];
    }
  });
}

void log_softmax_backward(const Real* dy, const Real* y, int64_t outer, int64_t n, int64_t inner, Real* dx) {
  auto gradient = [](Real dyi, Real yi, Real sum) { return yi == -kInf ? 0 : dyi - math::exp(yi) * sum; };
  if (inner == 1) {
    for_rows(outer, n, [=](int64_t at) {
      const Real *dyr = dy + at, *yr = y + at;
      Real* dxr = dx + at;
      Real sum = lane_sum(n, [=](int64_t i) { return dyr[i]; });
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) dxr[i] = gradient(dyr[i], yr[i], sum);
    });
    return;
  }
  for_columns(outer, n, inner, [=](int64_t at, int64_t columns) {
    Real sum[kColumns] = {};
    for (int64_t i = 0; i < n; ++i) {
      const Real* dyr = dy + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) sum[c] += dyr[c];
    }
    for (int64_t i = 0; i < n; ++i) {
      const Real *dyr = dy + at + i * inner, *yr = y + at + i * inner;
      Real* dxr = dx + at + i * inner;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) dxr[c] = gradient(dyr[c], yr[c], sum[c]);
    }
  });
}

}  // namespace rapt::inline RAPT_ABI::kernels
