#pragma once
#include <cstdint>

#include "../random.h"

namespace rapt::inline RAPT_ABI::kernels {

/// y[r] = weight[ids[r]]
/// weight (V, C), ids (rows) in [0, V) → y (rows, C)
void embedding_forward(const Real* weight, const int32_t* ids, int64_t rows, int64_t C, Real* y);
/// dweight[ids[r]] += dy[r], rows in order
/// dy (rows, C) → dweight (V, C)
void embedding_backward(const Real* dy, const int32_t* ids, int64_t rows, int64_t C, Real* dweight);

/// y[i] = 0 with probability p, else scale · x[i]; 0 ≤ p < 1. Element i is dropped when its random word is below
/// p · 2^32: 64 elements share 16 blocks of Philox, and element 64 g + 16 w + b has word w of block 16 g + b.
/// The same call on dy is the backward.
void dropout(const Real* x, int64_t n, double p, Real scale, Random random, Real* y);

}  // namespace rapt::inline RAPT_ABI::kernels
