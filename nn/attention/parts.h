#pragma once
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
  AttentionPart() = default;
  AttentionPart(AttentionPart&&) = default;
  AttentionPart& operator=(AttentionPart&&) = default;

  /// Under which its parameters appear; the word of a specification.
  virtual std::string name() const = 0;
  virtual void before(AttentionState&) const {}       ///< changes q, k, v of the new positions
  virtual void add_options(AttentionState&) const {}  ///< adds to the mask, the score or the normaliser
  virtual Tensor after(const Tensor& y, const AttentionState&) const { return y; }  ///< changes the result (B, H, N, D)
  /// Whether it works on new positions alone, with the keys and values of the earlier ones from a cache.
  virtual bool has_cache() const { return true; }
};

}  // namespace rapt::inline RAPT_ABI
