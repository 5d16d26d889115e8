#pragma once
#include <concepts>
#include <functional>
#include <memory>
#include <string>

#include "../tensor.h"
#include "../tokens.h"
#include "position.h"

/// Which queries read which keys. Masks combine with & | ! and are three-valued for a tile: an empty tile is skipped, a
/// full one needs no test, and only in a partial one each entry is asked. No gradient flows through a mask.
namespace rapt::inline RAPT_ABI {

/// The sizes a mask may need to know: (B, H, N, M).
struct ScoreShape {
  int64_t batch, heads, queries, keys;
  int64_t offset() const { return keys - queries; }  ///< the position of row 0
};

enum class Cover : uint8_t { empty, full, partial };

/// Bounds of key − query (positions): entries outside are masked. The kernel never visits tiles outside the band.
struct Band {
  static constexpr int64_t kFar = int64_t{1} << 40;
  int64_t low = -kFar, high = kFar;
};

/// One rule. Write one by deriving from this, or by mask_of with a predicate.
struct MaskRule {
  virtual ~MaskRule() = default;
  virtual std::string name() const = 0;
  /// keep[i] = 1 if entry i of the strip is read, else 0.
  virtual void keep(const Strip& strip, uint8_t* keep) const = 0;
  /// `partial` is always a right answer.
  virtual Cover classify(const Box&, const ScoreShape&) const { return Cover::partial; }
  virtual Band band(const ScoreShape&) const { return {}; }
  /// Whether the rule is its band and nothing else.
  virtual bool is_band() const { return false; }
  /// Throws if the rule's tensors don't fit the problem.
  virtual void check_shape(const ScoreShape&) const {}
};

/// A rule by value; the default one reads everything.
class Mask {
 public:
  Mask() = default;
  explicit Mask(std::shared_ptr<const MaskRule> rule) : rule_(std::move(rule)) {}
  bool everything() const { return rule_ == nullptr; }  ///< nothing is masked, and there is no rule()
  const MaskRule& rule() const { return *rule_; }
  std::string name() const { return rule_ ? rule_->name() : "everything"; }

 private:
  std::shared_ptr<const MaskRule> rule_;
};

Mask operator&(const Mask& a, const Mask& b);
Mask operator|(const Mask& a, const Mask& b);
Mask operator!(const Mask& a);

/// key ≤ query: the last query reads every key (aligned at the bottom right, as with a cache).
Mask causal();
/// key < query.
Mask strictly_causal();
/// key ≤ row: the first query reads the first key only. The same as causal() when N = M.
Mask causal_top_left();
/// −left ≤ key − query ≤ right. Throws for negative sizes.
Mask window(int64_t left, int64_t right);
inline Mask window(int64_t size) { return window(size, size); }
/// key < length or causal: a prefix that everybody reads.
Mask prefix(int64_t length);
/// Query and key in the same chunk of `length` positions. Throws for a length below 1.
Mask chunked(int64_t length);
/// (query − key) a multiple of `step`. Throws for a step below 1.
Mask dilated(int64_t step);
/// key < count or query < count: positions that read and are read by all (Longformer).
Mask global(int64_t count);
/// Query and key in the same document of a packed sequence; ids (B, M) or (1, M) by position.
Mask document(const Tokens& ids);
/// Keys where padding (B, M) or (1, M) is not 0 are not read.
Mask key_padding(const Tokens& padding);
/// Entries where `keep`, broadcast to (B, H, N, M), is not 0 are read.
Mask keep_where(const Tensor& keep);
/// Blocks of size × size positions listed in `blocks` (query blocks, key blocks), not 0: read.
Mask block_list(const Tokens& blocks, int64_t size);

/// Any predicate bool(At). It is asked once for each entry of each tile in `band`, forward and backward.
template <class F>
requires std::predicate<F, At> Mask mask_of(F predicate, Band band = {}) {
  struct Predicate final : MaskRule {
    F f;
    Band limits;
    Predicate(F p, Band b) : f(std::move(p)), limits(b) {}
    std::string name() const override { return "predicate"; }
    Band band(const ScoreShape&) const override { return limits; }
    void keep(const Strip& s, uint8_t* to) const override {
      for (int64_t i = 0; i < s.count; ++i) {
        At at = s.at(i);
        int64_t distance = at.key - at.query;
        to[i] = distance >= limits.low && distance <= limits.high && f(at);
      }
    }
  };
  return Mask(std::make_shared<Predicate>(std::move(predicate), band));
}

/// The mask with queries and keys exchanged, for (B, H, M, N).
Mask transposed(const Mask& mask);

}  // namespace rapt::inline RAPT_ABI
