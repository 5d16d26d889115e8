#pragma once
#include "parts.h"

namespace rapt::inline RAPT_ABI {

struct GroupedQueryOptions {
  int64_t key_value_heads = 0;  ///< divides the heads (Ainslie 2023; 1: multi-query, Shazeer 2019); 0: as many
  int64_t head_dim = 0;         ///< D; 0: C / H
  bool causal = true;
  bool bias = true;
  double dropout = 0;        ///< of the output projection's result
  double qkv_deviation = 0;  ///< see LinearOptions::deviation
  double proj_deviation = 0;
};

/// Self-attention in several heads (Vaswani 2017): x (B, N, C) → qkv (B, N, (H + 2 Hkv)·D) → attention → projection
/// (B, N, C). Whatever else there is to it (positions, masks, caps, sinks, gates …) are its parts, in their order.
/// Parameters: qkv.weight with rows q | k | v, head h at rows h·D of each; proj.weight (C, H·D); those of the parts.
struct GroupedQueryAttention : AttentionLayer {
  int64_t heads, key_value_heads, head_dim;
  bool causal;
  Linear qkv, proj;
  std::vector<std::unique_ptr<AttentionPart>> parts;
  Dropout drop;

  GroupedQueryAttention(int64_t dim, int64_t heads, GroupedQueryOptions options = {},
                        std::vector<std::unique_ptr<AttentionPart>> parts = {});
  void add(std::unique_ptr<AttentionPart> part);  ///< after the others
  Tensor operator()(const Tensor& x) const override;
  Tensor step(const Tensor& x, KeyValueCache& cache) const override;
  bool has_cache() const override;
  int64_t horizon() const override;

 private:
  AttentionState split(const Tensor& x, int64_t first_position) const;
  Tensor finish(AttentionState& state) const;
};

}  // namespace rapt::inline RAPT_ABI
