#pragma once
#include <cstdint>
#include <string>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// C = alpha · op(A) op(B) + beta · C, row-major: op(A) is (m, k), op(B) is (k, n), C is (m, n). With trans_a, A is
/// stored (k, m); with trans_b, B is stored (n, k). lda, ldb and ldc are the distances between stored rows. C is not
/// read when beta is 0, and must not overlap A or B. Parallel; the cut into blocks, and so every bit of the result,
/// depends on m, n, k alone, also when called from inside a parallel task (where it runs on the calling thread).
void gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
          const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc);

/// The same as one block on the calling thread: for tiles, and for parallel work that is cut elsewhere.
void gemm_serial(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
                 const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc);

/// What gemm was asked for since the program began; products inside parallel tasks by gemm_serial are not counted.
struct GemmStats {
  int64_t calls = 0;
  int64_t multiplications = 0;  ///< Σ m n k
};
GemmStats gemm_stats();

/// The libraries behind gemm and the kernels they chose, for people: "OpenBLAS 0.3.21 with SkylakeX kernels,
/// oneDNN 2.6.3 for large products".
std::string blas_description();

}  // namespace rapt::inline RAPT_ABI
