#pragma once
#include <cstdint>

#include "../real.h"

/// Dense rows: x and y are (rows, C). Weight and bias gradients are sums over fixed groups of rows, added in order.
namespace rapt::inline RAPT_ABI::kernels {

/// y = (x − mean) · rstd · weight + bias with rstd = 1 / √(var + epsilon).
/// weight (C), bias (C) → y, and mean (rows), rstd (rows) for backward
void layer_norm_forward(const Real* x, const Real* weight, const Real* bias, double epsilon, int64_t rows, int64_t C,
                        Real* y, Real* mean, Real* rstd);
/// → dx (rows, C), dweight (C), dbias (C)
void layer_norm_backward(const Real* dy, const Real* x, const Real* weight, const Real* mean, const Real* rstd,
                         int64_t rows, int64_t C, Real* dx, Real* dweight, Real* dbias);

/// y = x · rstd · weight with rstd = 1 / √(mean x² + epsilon).
/// weight (C) → y, and rstd (rows) for backward
void rms_norm_forward(const Real* x, const Real* weight, double epsilon, int64_t rows, int64_t C, Real* y, Real* rstd);
/// → dx (rows, C), dweight (C)
void rms_norm_backward(const Real* dy, const Real* x, const Real* weight, const Real* rstd, int64_t rows, int64_t C,
                       Real* dx, Real* dweight);

/// y = exp(x − max) / Σ exp(x − max) along the middle axis of x, y (outer, n, inner); all −∞ gives 0.
void softmax_forward(const Real* x, int64_t outer, int64_t n, int64_t inner, Real* y);
/// dx = y · (dy − Σ y dy)
void softmax_backward(const Real* dy, const Real* y, int64_t outer, int64_t n, int64_t inner, Real* dx);

/// y = x − max − ln Σ exp(x − max); all −∞ gives −∞.
void log_softmax_forward(const Real* x, int64_t outer, int64_t n, int64_t inner, Real* y);
/// dx = dy − exp(y) · Σ dy, and 0 where y is −∞
void log_softmax_backward(const Real* dy, const Real* y, int64_t outer, int64_t n, int64_t inner, Real* dx);

}  // namespace rapt::inline RAPT_ABI::kernels
