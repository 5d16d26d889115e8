#pragma once
#include "../layers.h"

namespace rapt::inline RAPT_ABI {

/// The keys and values of one layer that were seen so far, for generating token by token. A dense cache holds up to
/// `capacity` of them; a rolling one, for a layer whose queries read no more than `horizon` positions back, forgets
/// what none of the next queries will read: its memory is bounded by the horizon, and it is never full.
struct KeyValueCache {
  Tensor keys, values;  ///< (B, Hkv, capacity, D), the first `held` of them filled
  int64_t length = 0;   ///< positions seen, whether they are still held or not
  int64_t held = 0;     ///< the last ones of them
  int64_t capacity = 0;
  int64_t horizon = Band::kFar;
  explicit KeyValueCache(int64_t positions = 0) : capacity(positions) {}
  /// With twice the horizon in memory, so that few steps move what is kept.
  static KeyValueCache rolling(int64_t horizon);
  int64_t room() const { return horizon < Band::kFar ? Band::kFar : capacity - length; }
  /// Adds N keys and values (B, Hkv, N, D) and gives all so far, or in a rolling cache at least the new ones and
  /// `horizon` before them. As views where there is room. No gradient. Throws when a dense cache has no room.
  struct Filled {
    Tensor keys, values;
  };
  Filled add(const Tensor& new_keys, const Tensor& new_values);
};

/// Positions for which the caches of all layers have room.
int64_t room(const std::vector<KeyValueCache>& caches);

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
  /// How many positions before its own a query reads at most, if nothing but the distance to them counts: then step()
  /// may be given a rolling cache of this horizon. Band::kFar: a dense one.
  virtual int64_t horizon() const { return Band::kFar; }
};

}  // namespace rapt::inline RAPT_ABI
