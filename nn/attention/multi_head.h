#pragma once
#include "../layers.h"

namespace rapt::inline RAPT_ABI {

/// The keys and values of one layer that were seen so far, for generating token by token: room for `capacity` of them.
struct KeyValueCache {
  Tensor keys, values;  ///< (B, H, capacity, D)
  int64_t length = 0;   ///< how many are filled
  int64_t capacity = 0;
  explicit KeyValueCache(int64_t room = 0) : capacity(room) {}
  int64_t room() const { return capacity - length; }
};

struct MultiHeadOptions {
  bool causal = true;
  bool bias = true;
  double dropout = 0;        ///< of the output projection's result
  double qkv_deviation = 0;  ///< see LinearOptions::deviation
  double proj_deviation = 0;
};

/// Self-attention in several heads (Vaswani 2017): x (B, N, C) → qkv (B, N, 3C) → attention → projection (B, N, C).
/// Parameters: qkv.weight (3C, C) with rows q | k | v, head h at rows h·C/H; proj.weight (C, C).
struct MultiHeadAttention : Module {
  int64_t heads;
  bool causal;
  Linear qkv, proj;
  Dropout drop;
  MultiHeadAttention(int64_t dim, int64_t heads, MultiHeadOptions options = {});
  Tensor operator()(const Tensor& x) const;
  /// The same for N new positions after those in the cache, which takes their keys and values. Causal only; no gradient
  /// flows through the cache. Throws when the cache has no room for them.
  Tensor operator()(const Tensor& x, KeyValueCache& cache) const;
};

}  // namespace rapt::inline RAPT_ABI
