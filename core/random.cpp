#include "random.h"

#include <cmath>
#include <numbers>

namespace rapt::inline RAPT_ABI {

namespace {
thread_local Random generator;
}

double Random::normal(uint64_t position) const {
  // a pair of uniforms gives a pair of normals; 1 − u is in (0, 1]
  uint64_t pair = position & ~uint64_t{1};
  double radius = std::sqrt(-2 * std::log(1 - uniform(pair)));
  double angle = 2 * std::numbers::pi * uniform(pair + 1);
  return radius * (position % 2 ? std::sin(angle) : std::cos(angle));
}

void manual_seed(uint64_t seed, uint64_t stream) { generator = {seed, stream}; }

Random next_random() {
  Random now = generator;
  ++generator.stream;
  return now;
}

uint64_t mix_seed(uint64_t seed, uint64_t salt) {
  uint64_t z = seed + 0x9E3779B97F4A7C15 * (salt + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace rapt::inline RAPT_ABI
