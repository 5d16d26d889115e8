#pragma once
#include <functional>
#include <optional>

#include "layer.h"
#include "rotary.h"

/// What GroupedQueryAttention is made of besides its projections: each part adds one idea to the attention it belongs
/// to.
namespace rapt::inline RAPT_ABI {

/// One call of an attention layer on its way through the parts.
struct AttentionState {
  Tensor x;                ///< (B, N, C), what the layer was given
  Tensor q, k, v;          ///< (B, H, N, D), (B, Hkv, N, D); with a cache, k and v of all M positions after before()
  int64_t first_position;  ///< of x
  AttentionOptions options;
};

struct AttentionPart : Module {
  virtual ~AttentionPart() = default;
  AttentionPart() : Module(NeverCalled{}) {}
  AttentionPart(AttentionPart&&) = default;
  AttentionPart& operator=(AttentionPart&&) = default;

  /// Under which its parameters appear; the word of a specification.
  virtual std::string name() const = 0;
  virtual void before(AttentionState&) const {}       ///< changes q, k, v of the new positions
  virtual void add_options(AttentionState&) const {}  ///< adds to the mask, the score or the normaliser
  virtual Tensor after(const Tensor& y, const AttentionState&) const { return y; }  ///< changes the result (B, H, N, D)
  /// Whether it works on new positions alone, with the keys and values of the earlier ones from a cache.
  virtual bool has_cache() const { return true; }
  /// How many positions back a query reads at most, Band::kFar for any distance; none if besides the distance of a key
  /// its place in the sequence counts, so that a cache must keep all keys.
  virtual std::optional<int64_t> horizon() const { return Band::kFar; }
};

/// Which a part needs to know to be made.
struct PartSizes {
  int64_t dim, heads, key_value_heads, head_dim, context;  ///< C, H, Hkv, D, and the longest sequence
};

using PartPointer = std::unique_ptr<AttentionPart>;

// Positions
PartPointer rotary_part(const RotaryOptions& options);
/// Slopes (H) of the paper (Press 2022), or e^log_slopes learned from there on: the smallest are a hundredth of the
/// largest, and a step that suits one would lose the other. No other position is needed.
PartPointer alibi_part(const PartSizes& sizes, bool learned);
/// table (H, buckets), from 0 (Raffel 2020); for causal attention.
PartPointer t5_part(const PartSizes& sizes, int64_t buckets, int64_t reach);
/// table (H, context): a learned number for each distance back, from 0.
PartPointer distance_part(const PartSizes& sizes);
/// keys and values (2·reach + 1, D) for clipped distances (Shaw 2018).
PartPointer shaw_part(const PartSizes& sizes, int64_t reach);
/// content_bias and position_bias (H, D), keys.weight (H·D, C) of sinusoids of the distance (Dai 2019).
PartPointer transformer_xl_part(const PartSizes& sizes);
/// gate.weight (H, C), gate.bias (H): gates σ(gate(x / √C)) (Lin 2025).
PartPointer forget_part(const PartSizes& sizes);
/// positions (P, D): contextual positions (Golovneva 2024).
PartPointer contextual_part(const PartSizes& sizes, int64_t positions);

// Queries and keys
/// RMS norm with learned weights query.weight, key.weight (D) (Henry 2020, Qwen 3).
PartPointer qk_norm_part(const PartSizes& sizes);
/// Queries and keys of length 1, and a learned temperature (H), from √D (Henry 2020).
PartPointer cosine_part(const PartSizes& sizes);
/// keys and values (1, Hkv, count, D) that every query reads besides, whatever the masks of the parts before it say
/// (Sukhbaatar 2019). Masks go before it, parts that have something for each key (xl, dynamic) behind it.
PartPointer memory_part(const PartSizes& sizes, int64_t count);

// Scores and weights
PartPointer temperature_part(const PartSizes& sizes);  ///< factor (H), from 1
PartPointer sink_part(const PartSizes& sizes);         ///< sink (H), from 0
PartPointer sigmoid_part(const PartSizes& sizes);      ///< bias (H), from −ln context (Ramapuram 2024)
/// bias (H), from −ln context: at a bias of 0 each key would begin with half of what is left, and nothing that is more
/// than a few positions away could be learned (Tan 2024, without the bias).
PartPointer stick_breaking_part(const PartSizes& sizes);
PartPointer talking_part(const PartSizes& sizes);  ///< before, after (H, H), from the identity

// Results
/// y ⊙ σ(gate(x)), gate.weight (H·D, C) (Qwen 3 Next).
PartPointer gate_part(const PartSizes& sizes);

/// Words without parameters: masks, scale, softcap, normalisers, dropout of weights (while training). Scores that it
/// adds are to depend on distances alone.
PartPointer plain_part(const std::string& name, std::function<void(AttentionOptions&)> apply);

}  // namespace rapt::inline RAPT_ABI
