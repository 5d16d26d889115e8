#pragma once
#include "../tensor.h"

namespace rapt::inline RAPT_ABI {

struct AttentionOptions {
  bool causal = false;  ///< query i reads keys j ≤ i + M − N (aligned at the bottom right)
  Real scale = 0;       ///< of q·k; 0 means 1/√D
};

/// Scaled dot-product attention, softmax(scale · q kᵀ) v, by tiles and with an online softmax (Dao et al. 2022): memory
/// is linear in N and M.
///
/// q is (B, H, N, D), k (B, Hkv, M, D), v (B, Hkv, M, Dv), out (B, H, N, Dv) and lse (B, H, N), the log of the sum of
/// the exponentials of each row's scores. H is a multiple of Hkv; query head h reads head h / (H / Hkv). The inputs may
/// have any strides, though a last axis that isn't dense is copied. The results are given, may be views with a dense
/// last axis, and are overwritten. A query without keys gets out 0, lse −∞ and gradient 0. Results don't depend on the
/// number of threads. Throws when shapes don't fit.
void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options, Tensor& out,
                       Tensor& lse);

/// The gradients of q, k and v, from the gradients of out and of lse (null: none). Probabilities are computed again
/// from lse.
void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& dout, const Tensor* dlse, const AttentionOptions& options, Tensor& dq, Tensor& dk,
                        Tensor& dv);

/// The same with whole (N, M) matrices in plain loops: slow, easy to read and to change, and what the tiles are tested
/// against.
void attention_dense_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                             Tensor& out, Tensor& lse);
void attention_dense_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                              const Tensor& dout, const Tensor* dlse, const AttentionOptions& options, Tensor& dq,
                              Tensor& dk, Tensor& dv);

}  // namespace rapt::inline RAPT_ABI
