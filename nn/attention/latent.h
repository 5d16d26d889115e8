#pragma once
#include <optional>

#include "layer.h"
#include "rotary.h"

namespace rapt::inline RAPT_ABI {

struct LatentOptions {
  int64_t rank_q = 0;   ///< of the queries' projection; 0: one matrix
  int64_t rank_kv = 0;  ///< of keys and values together; 0: 2·d_nope
  int64_t d_nope = 0;   ///< channels of a key that know no position; 0: C/H
  int64_t d_rope = 0;   ///< channels that do, even, one key for all heads; 0: half of d_nope
  int64_t d_v = 0;      ///< of a value; 0: d_nope
  RotaryOptions rotary = {};
  bool bias = false;
  double qkv_deviation = 0;  ///< see LinearOptions::deviation
  double proj_deviation = 0;
};

/// Multi-head latent attention (DeepSeek-V2 2024), causal: keys and values of all heads are linear functions of one
/// short vector c = norm(kv_down x) of rank_kv numbers, and a cache holds that and the d_rope channels of the position:
///
///     key of head h = [W_k[h] c; rope(k_rope)], value of head h = W_v[h] c, kv_up = W_k | W_v for each head
///
/// Training makes keys and values; step() moves W_k to the queries and W_v behind the attention instead, which then
/// reads c itself: its values are the first rank_kv channels of its keys, the same memory, for all heads.
/// Parameters: q.weight (H·(d_nope + d_rope), C), or q_down.weight (rank_q, C), q_norm.weight (rank_q), q_up.weight;
/// kv_down.weight (rank_kv + d_rope, C), kv_norm.weight (rank_kv), kv_up.weight (H·(d_nope + d_v), rank_kv),
/// proj.weight (C, H·d_v).
struct MultiHeadLatentAttention : AttentionLayer {
  int64_t heads, rank_kv, d_nope, d_rope, d_v;
  std::optional<Linear> q, q_down, q_up;
  std::optional<RMSNorm> q_norm;
  Linear kv_down;
  RMSNorm kv_norm;
  Linear kv_up, proj;
  RotaryEmbedding rotary;

  MultiHeadLatentAttention(int64_t dim, int64_t heads, LatentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  /// The cache holds [c; k_rope] as its keys, (B, 1, M, rank_kv + d_rope), and no values.
  Tensor step(const Tensor& x, KeyValueCache& cache) const override;
  bool has_cache() const override { return true; }

 private:
  struct Parts {
    Tensor q_nope, q_rope;  // (B, H, N, d_nope), (B, H, N, d_rope)
    Tensor c, k_rope;       // (B, 1, N, rank_kv), (B, 1, N, d_rope)
  };
  Parts split(const Tensor& x, int64_t first_position) const;
  double scale() const;
  // (B, H, N, d_v) from the latent vectors of all M positions: with keys and values of every head made from them,
  Tensor attend(const Tensor& q_nope, const Tensor& q_rope, const Tensor& c, const Tensor& k_rope) const;
  // or from what the cache holds, [c; k_rope].
  Tensor attend_absorbed(const Tensor& q_nope, const Tensor& q_rope, const Tensor& latent) const;
};

}  // namespace rapt::inline RAPT_ABI
