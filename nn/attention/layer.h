#pragma once
#include "../layers.h"

namespace rapt::inline RAPT_ABI {

/// The keys and values of one layer that were seen so far, for generating token by token: room for `capacity` of them.
struct KeyValueCache {
  Tensor keys, values;  ///< (B, Hkv, capacity, D)
  int64_t length = 0;   ///< how many are filled
  int64_t capacity = 0;
  explicit KeyValueCache(int64_t room = 0) : capacity(room) {}
  int64_t room() const { return capacity - length; }
  /// Adds N keys and values (B, Hkv, N, D) and gives all so far, as views. No gradient. Throws when there is no room.
  struct Filled {
    Tensor keys, values;
  };
  Filled add(const Tensor& new_keys, const Tensor& new_values);
};

/// Self-attention as a model holds it, whatever the variant: x (B, N, C) → (B, N, C).
struct AttentionLayer : Module {
  virtual ~AttentionLayer() = default;
  AttentionLayer() = default;
  AttentionLayer(AttentionLayer&&) = default;
  AttentionLayer& operator=(AttentionLayer&&) = default;

  virtual Tensor operator()(const Tensor& x) const = 0;
  /// The same for N new positions after those in the cache, which takes in their keys and values. Causal layers only,
  /// no gradient. Throws where has_cache() is false.
  virtual Tensor step(const Tensor& x, KeyValueCache& cache) const;
  virtual bool has_cache() const { return false; }
};

}  // namespace rapt::inline RAPT_ABI
