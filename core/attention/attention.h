#pragma once
#include <optional>

#include "normalizer.h"

namespace rapt::inline RAPT_ABI {

/// What makes one attention different from another. The default is plain scaled dot-product attention.
struct AttentionOptions {
  Mask mask = {};              ///< which keys each query reads: causal() & window(256)
  Score score = {};            ///< what happens to each score: softcap(30) | relative_bias(table)
  Normalizer normalizer = {};  ///< how scores become weights: softmax_with_sink(sink)
  double scale = 0;            ///< of q·k; 0 means 1/√D
  double dropout = 0;          ///< probability of dropping a weight, in [0, 1]
  std::optional<WeightDropout> dropout_state =
      {};  ///< p, seed and call instead of `dropout` and the next random stream

  /// Transformer-XL's term (Dai 2019): scale · relative_queries[b, h, row] · relative_keys[h, key − row + N − 1] is
  /// added to the score. (B, H, N, D) and (H or 1, N + M − 1, D), or both empty.
  Tensor relative_queries = {}, relative_keys = {};
  /// Shaw's values (Shaw 2018): the value of a key is v + relative_values[clip(key − query, ±C) + C]. (2C + 1, Dv) or
  /// empty.
  Tensor relative_values = {};

  /// Every tensor in here that can receive a gradient, in a fixed order.
  std::vector<Tensor> tables() const;
};

/// What the kernels are called with: tensors without graph.
struct AttentionCall {
  Tensor q, k, v;
  const AttentionOptions& options;
  std::vector<Tensor> tables;  ///< options.tables(), detached
  WeightDropout dropout;
};

/// softmax(scale · q kᵀ) v and its variants, by tiles and with an online softmax (Dao 2022): memory is linear in N and
/// M.
///
/// q is (B, H, N, D), k (B, Hkv, M, D), v (B, Hkv, M, Dv), out (B, H, N, Dv) and lse (B, H, N), the log of the sum of
/// each row's weights before they are divided by it. H is a multiple of Hkv; query head h reads head h / (H / Hkv). The
/// inputs may have any strides, though a last axis that isn't dense is copied. The results are given, may be views with
/// a dense last axis, and are overwritten. A query without keys gets out 0, lse −∞ and gradient 0. Results don't depend
/// on the number of threads. NaN reaches the rows that read it and no others. Throws when shapes don't fit.
void attention_forward(const AttentionCall& call, Tensor& out, Tensor& lse);

/// The gradients of q, k, v and of the tables (an empty tensor for one that is not wanted), from the gradients of out
/// and of lse (null: none). Scores and weights are computed again.
void attention_backward(const AttentionCall& call, const Tensor& out, const Tensor& lse, const Tensor& dout,
                        const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv, std::span<Tensor> dtables);

/// The weights that attention computes, (B, H, N, M), or their mean over the heads, (B, N, M), again from the
/// log-sum-exp; without dropout.
Tensor attention_weights(const AttentionCall& call, const Tensor& lse, bool mean_over_heads = false);

/// What a call will do.
struct AttentionPlan {
  std::string kernel;   ///< "tiles", or "blocks of rows" for normalisers that need whole rows
  std::string variant;  ///< mask, score and normaliser by name
  int64_t tiles = 0;    ///< of the score matrix, over batch and heads
  int64_t skipped = 0, full = 0, partial = 0;
  int64_t forward_tasks = 0, backward_tasks = 0;
  double forward_operations = 0, backward_operations = 0;  ///< floating-point, of the matrix products
  int64_t saved_bytes = 0;                                 ///< kept for the backward beside q, k, v: out and lse
  int64_t backward_bytes = 0;                              ///< of the backward's working memory
};
AttentionPlan plan_attention(const AttentionCall& call);
std::string to_string(const AttentionPlan& plan);

}  // namespace rapt::inline RAPT_ABI
