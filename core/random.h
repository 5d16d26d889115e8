#pragma once
#include <array>
#include <cstdint>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// Philox4x32-10 (Salmon et al. 2011): four random words as a pure function of a 128-bit counter and a 64-bit key.
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint64_t key) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = uint64_t{0xD2511F53} * counter[0], p1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {uint32_t(p1 >> 32) ^ counter[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter[3] ^ k1, uint32_t(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

/// Random numbers without state: number `position` of sequence `stream` under `seed` never depends on what was drawn
/// before.
struct Random {
  uint64_t seed = 0;
  uint64_t stream = 0;

  /// Words 4·block … 4·block+3 of the sequence.
  std::array<uint32_t, 4> words(uint64_t block) const {
    return philox({uint32_t(block), uint32_t(block >> 32), uint32_t(stream), uint32_t(stream >> 32)}, seed);
  }
  uint32_t word(uint64_t position) const { return words(position / 4)[position % 4]; }
  /// Uniform in [0, 1), 53 bits.
  double uniform(uint64_t position) const {
    auto w = words(position / 2);
    uint64_t bits = position % 2 ? uint64_t{w[2]} << 32 | w[3] : uint64_t{w[0]} << 32 | w[1];
    return double(bits >> 11) * 0x1p-53;
  }
  /// Uniform integer in [0, n), n ≥ 1, without bias that matters (n ≪ 2^53).
  int64_t below(int64_t n, uint64_t position) const { return int64_t(uniform(position) * double(n)); }
  /// Standard normal (Box–Muller).
  double normal(uint64_t position) const;
};

/// The state behind functions that draw numbers without being told which (dropout, normal, uniform): each call takes
/// the next stream. A training step calls manual_seed with a function of (seed, step), so that resuming needs no saved
/// state.
void manual_seed(uint64_t seed, uint64_t stream = 0);
Random next_random();

/// One 64-bit number from two, for deriving seeds (SplitMix64's finalizer).
uint64_t mix_seed(uint64_t seed, uint64_t salt);

}  // namespace rapt::inline RAPT_ABI
