#pragma once
#include <cmath>

#include "../../autograd/ops.h"

/// Heads: how many, and between the layout of projections and that of attention.
namespace rapt::inline RAPT_ABI {

/// (B, N, H·D) → (B, H, N, D), a view of dense rows.
inline Tensor split_heads(const Tensor& x, int64_t heads) {
  check(x.rank() == 3 && heads > 0 && x.shape[2] % heads == 0,
        "attention: expected (B, N, H·D) with {} heads, but got {}", heads, x.shape);
  return transpose(reshape(x, {x.shape[0], x.shape[1], heads, x.shape[2] / heads}), 1, 2);
}

/// (B, H, N, D) → (B, N, H·D); a view of what attention returns.
inline Tensor merge_heads(const Tensor& y) {
  return reshape(transpose(y, 1, 2), {y.shape[0], y.shape[2], y.shape[1] * y.shape[3]});
}

/// x / √C for x (B, N, C), what decays are computed from. With x itself, an optimizer whose step is the same for every
/// weight moves a sum over C of them √C times as far: then decays soon forget all, and long memory, which is learned
/// late, never is.
inline Tensor for_decays(const Tensor& x) { return x * (1 / std::sqrt(double(x.shape[2]))); }

/// How many heads of keys and values: `shared`, which must divide `heads`; 0 means one for each head.
inline int64_t checked_key_value_heads(int64_t heads, int64_t shared) {
  if (shared == 0) return heads;
  check(shared > 0 && heads % shared == 0, "attention: {} heads of keys and values do not divide {} heads", shared,
        heads);
  return shared;
}

}  // namespace rapt::inline RAPT_ABI
