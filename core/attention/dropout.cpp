#include "dropout.h"

#include <algorithm>

namespace rapt::inline RAPT_ABI {

namespace {

// Philox for the queries of a strip, kLanes side by side. Each lane holds a word of 32 bits in 64, for the products.
constexpr int64_t kLanes = 8;
using Counts [[gnu::vector_size(8 * kLanes)]] = uint64_t;

constexpr uint64_t kLow = 0xFFFFFFFF;

struct Counters {
  Counts c[4];

  void encrypt(uint64_t key) {
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
      Counts p0 = c[0] * uint64_t{0xD2511F53}, p1 = c[2] * uint64_t{0xCD9E8D57};
      c[0] = (p1 >> 32) ^ c[1] ^ uint64_t { k0 };
      c[2] = (p0 >> 32) ^ c[3] ^ uint64_t { k1 };
      c[1] = p1 & kLow;
      c[3] = p0 & kLow;
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
  }
};

}  // namespace

void WeightDropout::factors(Strip strip, int64_t heads, int64_t keys, Real* to) const {
  const auto threshold = uint64_t(p * 0x1p32);
  const Real keep = kept();
  const auto head = uint32_t(strip.batch * heads + strip.head);
  const auto first = uint64_t(strip.at(0).query);
  for (int64_t j = 0; j < keys; j += 4) {
    const uint64_t block = uint32_t((strip.key + j) / 4);
    for (int64_t i = 0; i < kTile; i += kLanes) {
      Counters w{{Counts{} + block, (Counts{0, 1, 2, 3, 4, 5, 6, 7} + first + uint64_t(i)) & kLow,
                  Counts{} + uint64_t{head}, Counts{} + uint64_t{call}}};
      w.encrypt(seed);
      for (int64_t n = 0; n < std::min<int64_t>(4, keys - j); ++n) {
        for (int64_t l = 0; l < kLanes; ++l) to[(j + n) * kTile + i + l] = w.c[n][l] < threshold ? 0 : keep;
      }
    }
  }
}

}  // namespace rapt::inline RAPT_ABI
