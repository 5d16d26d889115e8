#pragma once
#include <optional>

#include "layer.h"
#include "rotary.h"

namespace rapt::inline RAPT_ABI {

struct MultiHeadOptions {
  // As in torch.nn.MultiheadAttention.
  int64_t kdim = 0, vdim = 0;  ///< of what keys and values are made from; 0: E
  double dropout = 0;          ///< of weights, while training
  bool bias = true;            ///< of the projections
  bool add_bias_kv = false;    ///< one more key and value, learned, that every query may read
  bool add_zero_attn = false;  ///< one more key and value of zeros: a row may read nothing
  bool batch_first = true;     ///< (B, N, E); false, PyTorch's default: (N, B, E)
  // And besides.
  int64_t key_value_heads = 0;               ///< divides the heads (Ainslie 2023); 0: as many
  int64_t head_dim = 0;                      ///< D; 0: E / H
  std::optional<RotaryOptions> rotary = {};  ///< the last query stands where the last key does
  double softcap = 0;                        ///< scores become c·tanh(score / c); 0: they don't
  bool sink = false;                         ///< one more score per head, learned, in each row's sum (gpt-oss)
  int64_t window = 0;                        ///< keys at most this many positions away are read; 0: all
  bool qk_norm = false;       ///< queries and keys divided by their root mean square, times learned weights
  bool causal = true;         ///< in operator()(x) and step()
  double qkv_deviation = 0;   ///< of the weights' normal distribution; 0: PyTorch's uniform (Glorot 2010)
  double proj_deviation = 0;  ///< see LinearOptions::deviation
};

/// How one call differs. Masked keys are those that are not 0, as in PyTorch.
struct MultiHeadCall {
  Tokens key_padding_mask = {};  ///< (B, M), or empty
  Tensor key_padding_bias = {};  ///< added to the scores: PyTorch's key_padding_mask of floats, (B, M)
  Tokens attn_mask = {};         ///< (N, M) or (B·H, N, M), or empty
  Tensor attn_bias =
      {};  ///< added to the scores: PyTorch's attn_mask of floats, of the same shapes; may want a gradient
  bool need_weights = false;    ///< takes time and memory for (M, M) numbers more per head
  bool average_weights = true;  ///< over the heads
  bool is_causal = false;       ///< key ≤ query, the last query standing at the last key
};

struct MultiHeadResult {
  Tensor output;  ///< as the queries
  Tensor
      weights;  ///< (B, N, M'), or (B, H, N, M') unless averaged: after dropout, differentiable; M' counts added keys
};

/// Everything that torch.nn.MultiheadAttention has, under its parameters' names, and some of what it lacks. Parameters:
/// in_proj_weight ((H + 2 Hkv)·D, E) with rows q | k | v, or q_proj_weight, k_proj_weight and v_proj_weight where kdim
/// or vdim is not E; in_proj_bias; bias_k and bias_v (1, 1, Hkv·D); out_proj.weight (E, H·D), out_proj.bias;
/// q_norm.weight and k_norm.weight (D); sink (H). A query all of whose keys are masked gets out_proj.bias.
/// GroupedQueryAttention is faster where its options are enough.
struct MultiHeadAttention : AttentionLayer {
  int64_t dim, heads, key_value_heads, head_dim;
  MultiHeadOptions options;
  Tensor in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, bias_k, bias_v, sink;
  Linear out_proj;
  std::optional<RMSNorm> q_norm, k_norm;
  std::optional<RotaryEmbedding> rotary;

  MultiHeadAttention(int64_t embed_dim, int64_t num_heads, MultiHeadOptions options = {});

  /// query (B, N, E), key (B, M, kdim), value (B, M, vdim), or all without B, or as batch_first says.
  MultiHeadResult operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                             const MultiHeadCall& call = {}) const;
  /// Self-attention.
  Tensor operator()(const Tensor& x) const override;
  Tensor step(const Tensor& x, KeyValueCache& cache) const override;
  bool has_cache() const override { return options.causal && self_attention() && options.batch_first; }
  int64_t horizon() const override;

 private:
  struct Projected {
    Tensor q, k, v;  // (B, H, N, D), (B, Hkv, M, D)
  };
  bool self_attention() const { return bool(in_proj_weight); }
  Tensor projected(const Tensor& x, int64_t which) const;
  Projected project(const Tensor& query, const Tensor& key, const Tensor& value, int64_t first_key) const;
  MultiHeadResult attend(Projected p, const MultiHeadCall& call) const;
};

}  // namespace rapt::inline RAPT_ABI
