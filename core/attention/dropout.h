#pragma once
#include "../random.h"
#include "position.h"

namespace rapt::inline RAPT_ABI {

/// Which weights are dropped, as a function of their positions alone: Philox with the seed as key, counter (⌊key/4⌋,
/// query, b·H + h, call), word key mod 4; dropped if below ⌊p · 2³²⌋. The forward, the backward and the dense twin draw
/// the same.
struct WeightDropout {
  double p = 0;  ///< in [0, 1]
  uint64_t seed = 0;
  uint32_t call = 0;

  explicit operator bool() const { return p > 0; }
  Real kept() const { return p < 1 ? Real(1 / (1 - p)) : Real(0); }  ///< what kept weights are multiplied with

  /// factors[key][i] = 0 or 1/(1−p) for `keys` strips from `strip` on, kTile apart; strip.key a multiple of 4.
  void factors(Strip strip, int64_t heads, int64_t keys, Real* factors) const;
};

}  // namespace rapt::inline RAPT_ABI
