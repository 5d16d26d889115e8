#pragma once
#include <cstdint>

#include "../real.h"

namespace rapt::inline RAPT_ABI::kernels {

/// −Σ q ln p with p = softmax(logits) over V classes and q the smoothed target: 1 − smoothing on the target class, and
/// smoothing / V on every class.
struct CrossEntropy {
  int64_t V = 0;
  int32_t ignore_index = -100;  ///< rows with this target cost 0 and have gradient 0
  double smoothing = 0;
};

/// logits (rows, V), targets (rows) in [0, V) or ignore_index → loss (rows)
void cross_entropy_forward(const CrossEntropy& options, const Real* logits, const int32_t* targets, int64_t rows,
                           double* loss);
/// dlogits = scale · (p − q)
/// → dlogits (rows, V)
void cross_entropy_backward(const CrossEntropy& options, const Real* logits, const int32_t* targets, int64_t rows,
                            Real scale, Real* dlogits);
/// Both at once, while a row is at hand; dlogits takes the place of logits.
void cross_entropy_in_place(const CrossEntropy& options, Real* logits, const int32_t* targets, int64_t rows, Real scale,
                            double* loss);

}  // namespace rapt::inline RAPT_ABI::kernels
