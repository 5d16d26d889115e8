#include <algorithm>

#include "../../core/gemm.h"
#include "../../core/lanes.h"
#include "../../core/parallel.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

struct InverseUnitLower {
  static constexpr auto name = "inverse_unit_lower";
  Saved inverse;

  // Forward substitution, X (C, C): X_i = e_i − Σ_{j<i} A_ij X_j
  Tensor forward(std::span<const Tensor> in) {
    check(in[0].rank() >= 2 && in[0].shape[-1] == in[0].shape[-2], "{}: a must be (…, C, C), but is {}", name,
          in[0].shape);
    const int64_t C = in[0].shape[-1];
    Tensor a = contiguous(in[0]), y = empty(a.shape);
    const Real* from = a.data();
    Real* to = y.mutable_data();
    parallel_tasks(C ? a.numel() / (C * C) : 0, [=](int64_t m) {
      const Real* A = from + m * C * C;
      Real* X = to + m * C * C;
      for (int64_t i = 0; i < C; ++i) {
        Real* row = X + i * C;
        std::fill(row, row + C, Real(0));
        for (int64_t j = 0; j < i; ++j) {
          const Real factor = A[i * C + j];
          const Real* x = X + j * C;
#pragma omp simd
          for (int64_t l = 0; l <= j; ++l) row[l] -= factor * x[l];
        }
        row[i] = 1;
      }
    });
    inverse = y;
    return y;
  }

  // da = −(the part below the diagonal of Xᵀ dX Xᵀ)
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    const int64_t C = dy.shape[-1];
    Tensor dense = contiguous(dy), da = empty(dy.shape), scratch = empty(dy.shape);
    const Real *X = inverse.get().data(), *dX = dense.data();
    Real *dA = da.mutable_data(), *product = scratch.mutable_data();
    parallel_tasks(C ? dy.numel() / (C * C) : 0, [=](int64_t m) {
      const int64_t at = m * C * C;
      gemm_serial(true, false, C, C, C, 1, X + at, C, dX + at, C, 0, product + at, C);
      gemm_serial(false, true, C, C, C, -1, product + at, C, X + at, C, 0, dA + at, C);
      for (int64_t i = 0; i < C; ++i) std::fill(dA + at + i * C + i, dA + at + (i + 1) * C, Real(0));
    });
    return {da};
  }

  Cost cost(std::span<const Tensor> in, Needs needs) const {
    const double C = double(in[0].shape[-1]), matrices = C > 0 ? double(in[0].numel()) / (C * C) : 0;
    return {matrices * (C * C * C - C) / 3, needs.any() ? matrices * 4 * C * C * C : 0};
  }
};

struct AffineScan {
  static constexpr auto name = "affine_scan";
  Saved transition, states;

  // Sizes of M (batch, n, D, D) or (batch, n, 1, 1) and P (batch, n, D, E).
  struct Sizes {
    int64_t batch = 1, n, D, E;
    bool number;  // M is one
    Sizes(const Tensor& M, const Tensor& P) {
      check(M.rank() >= 3 && M.rank() == P.rank(), "{}: the transition is {}, but the increment {}", name, M.shape,
            P.shape);
      n = P.shape[-3], D = P.shape[-2], E = P.shape[-1], number = M.shape[-1] == 1 && M.shape[-2] == 1;
      for (int d = 0; d + 2 < P.rank(); ++d) {
        check(M.shape[d] == P.shape[d], "{}: the transition is {}, but the increment {}", name, M.shape, P.shape);
        if (d + 3 < P.rank()) batch *= P.shape[d];
      }
      check(number || (M.shape[-1] == D && M.shape[-2] == D), "{}: the transition is {}, but the increment {}", name,
            M.shape, P.shape);
    }
  };

  // y += M x, or Mᵀ x
  static void multiply_add(const Sizes& s, bool transposed, const Real* M, const Real* x, Real* y) {
    if (!s.number) return gemm_serial(transposed, false, s.D, s.E, s.D, 1, M, s.D, x, s.E, 1, y, s.E);
    const Real factor = *M;
#pragma omp simd
    for (int64_t i = 0; i < s.D * s.E; ++i) y[i] += factor * x[i];
  }

  Tensor forward(std::span<const Tensor> x, Needs needs) {
    const Tensor dense = contiguous(x[0]), increment = contiguous(x[1]);
    const Sizes s(dense, increment);
    Tensor y = empty(increment.shape);
    const int64_t m = s.number ? 1 : s.D * s.D, p = s.D * s.E;
    const Real *M = dense.data(), *P = increment.data();
    Real* S = y.mutable_data();
    if (y.numel() > 0) {
      parallel_tasks(s.batch, [=](int64_t b) {
        const Real *Mb = M + b * s.n * m, *Pb = P + b * s.n * p;
        Real* Sb = S + b * s.n * p;
        std::fill(Sb, Sb + p, Real(0));
        for (int64_t i = 0; i + 1 < s.n; ++i) {
          std::copy(Pb + i * p, Pb + (i + 1) * p, Sb + (i + 1) * p);
          multiply_add(s, false, Mb + i * m, Sb + i * p, Sb + (i + 1) * p);
        }
      });
    }
    if (needs.any()) {
      transition = dense;
      states = y;
    }
    return y;
  }

  // From the end: dP_i = dS_{i+1} + M_{i+1}ᵀ dP_{i+1}, dM_i = dP_i S_iᵀ, and 0 for the last step, which is not taken
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    const Tensor &dense = transition, &S_all = states, dS_all = contiguous(dy);
    const Sizes s(dense, S_all);
    Tensor dP_all = zeros(dy.shape), dM_all = needs[0] ? zeros(dense.shape) : Tensor();
    if (dy.numel() == 0) return {dM_all, dP_all};
    const int64_t m = s.number ? 1 : s.D * s.D, p = s.D * s.E;
    const Real *M = dense.data(), *S = S_all.data(), *dS = dS_all.data();
    Real *dP = dP_all.mutable_data(), *dM = dM_all ? dM_all.mutable_data() : nullptr;
    parallel_tasks(s.batch, [=](int64_t b) {
      const int64_t first = b * s.n;
      for (int64_t i = first + s.n - 2; i >= first; --i) {
        Real* d = dP + i * p;
        std::copy(dS + (i + 1) * p, dS + (i + 2) * p, d);
        multiply_add(s, true, M + (i + 1) * m, dP + (i + 1) * p, d);
        if (!dM) continue;
        if (s.number) {
          const Real* state = S + i * p;
          dM[i] = lane_sum(p, [=](int64_t l) { return d[l] * state[l]; });
        } else {
          gemm_serial(false, true, s.D, s.D, s.E, 1, d, s.E, S + i * p, s.E, 0, dM + i * m, s.D);
        }
      }
    });
    return {dM_all, dP_all};
  }

  Cost cost(std::span<const Tensor> x, Needs needs) const {
    const Sizes s(x[0], x[1]);
    const double product =
        double(s.batch * std::max<int64_t>(0, s.n - 1) * s.D * s.E) * (s.number ? 2 : 2 * double(s.D));
    return {product, needs.any() ? product * (1 + needs[0]) : 0};
  }
};

}  // namespace

Tensor inverse_unit_lower(const Tensor& a, Where where) { return record(InverseUnitLower{}, {a}, where); }

Tensor affine_scan(const Tensor& transition, const Tensor& increment, Where where) {
  return record(AffineScan{}, {transition, increment}, where);
}

}  // namespace rapt::inline RAPT_ABI
