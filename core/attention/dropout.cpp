#include "dropout.h"

#include <algorithm>

namespace rapt::inline RAPT_ABI {

void WeightDropout::factors(Strip strip, int64_t heads, int64_t keys, Real* to) const {
  const auto threshold = uint64_t(p * 0x1p32);
  const Real keep = kept();
  const auto head = uint32_t(strip.batch * heads + strip.head);
  for (int64_t j = 0; j < keys; j += 4) {
    const auto block = uint32_t((strip.key + j) / 4);
    const auto first = uint32_t(strip.at(0).query);
    alignas(64) uint32_t words[4][kTile];
#pragma omp simd
    for (int64_t i = 0; i < kTile; ++i) {
      auto w = philox({block, first + uint32_t(i), head, call}, seed);
      for (size_t n = 0; n < 4; ++n) words[n][i] = w[n];
    }
    for (int64_t n = 0; n < std::min<int64_t>(4, keys - j); ++n) {
      for (int64_t i = 0; i < kTile; ++i) to[(j + n) * kTile + i] = words[n][i] < threshold ? 0 : keep;
    }
  }
}

}  // namespace rapt::inline RAPT_ABI
