#pragma once
#include <optional>

#include "layer.h"
#include "rotary.h"

namespace rapt::inline RAPT_ABI {

struct DifferentialOptions {
  int64_t key_value_heads = 0;  ///< divides the heads; 0: as many
  int64_t depth = 0;            ///< number of the layer, from 0
  std::optional<RotaryOptions> rotary = {};
  bool causal = true;
  bool bias = false;
  double qkv_deviation = 0;  ///< see LinearOptions::deviation
  double proj_deviation = 0;
};

/// Differential attention (Ye 2024): the difference of two softmaxes, so that what both read by habit cancels:
///
///     y = rms_norm((softmax(q₁ k₁ᵀ) − λ softmax(q₂ k₂ᵀ)) v) (1 − λ₀)
///     λ = exp(a·b) − exp(c·d) + λ₀, λ₀ = 0.8 − 0.6 exp(−0.3 depth)
///
/// With H heads, queries and keys have D = C/2H channels in each half, values 2D. The norm is of each head.
/// Parameters: q.weight (C, C) with rows of 2D for each head, first q₁, then q₂; k.weight (Hkv·2D, C) likewise;
/// v.weight (Hkv·2D, C), proj.weight (C, C), norm.weight (2D), lambda_q1 and lambda_k1 (a, b), lambda_q2 and lambda_k2
/// (c, d), all (D).
struct DifferentialAttention : AttentionLayer {
  int64_t heads, key_value_heads, half;  ///< half: D
  double lambda_init;                    ///< λ₀
  bool causal;
  Linear q, k, v, proj;
  RMSNorm norm;
  Tensor lambda_q1, lambda_k1, lambda_q2, lambda_k2;
  std::optional<RotaryEmbedding> rotary;

  DifferentialAttention(int64_t dim, int64_t heads, DifferentialOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Tensor step(const Tensor& x, KeyValueCache& cache) const override;
  bool has_cache() const override { return causal; }
  Tensor lambda() const;  ///< λ, a number

 private:
  Tensor queries(const Tensor& x, int64_t first_position) const;  // (B, 2H, N, D): q₁ and q₂ in turn
  Tensor keys(const Tensor& x, int64_t first_position) const;     // (B, 2Hkv, N, D)
  Tensor attend(const Tensor& qs, const Tensor& ks, const Tensor& vs) const;
};

}  // namespace rapt::inline RAPT_ABI
