#include "embedding.h"

#include <algorithm>

#include "../parallel.h"

namespace rapt::inline RAPT_ABI::kernels {

void embedding_forward(const Real* weight, const int32_t* ids, int64_t rows, int64_t C, Real* y) {
  parallel_for(rows, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(C, 1)), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(weight + ids[r] * C, C, y + r * C);
  });
}

// One task has some columns of all rows, so that no two tasks add to the same place.
void embedding_backward(const Real* dy, const int32_t* ids, int64_t rows, int64_t C, Real* dweight) {
  parallel_for(C, 64, [=](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      const Real* from = dy + r * C;
      Real* to = dweight + ids[r] * C;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) to[c] += from[c];
    }
  });
}

namespace {

// Words of 16 blocks of Philox4x32-10 (core/random.h) at a time, word w of block b in words[w][b].
constexpr int kBlocks = 16;
void philox_blocks(Random random, uint64_t first, uint32_t (&words)[4][kBlocks]) {
  for (int b = 0; b < kBlocks; ++b) {
    words[0][b] = uint32_t(first + uint64_t(b));
    words[1][b] = uint32_t((first + uint64_t(b)) >> 32);
    words[2][b] = uint32_t(random.stream);
    words[3][b] = uint32_t(random.stream >> 32);
  }
  uint32_t k0 = uint32_t(random.seed), k1 = uint32_t(random.seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
#pragma omp simd
    for (int b = 0; b < kBlocks; ++b) {
      uint64_t p0 = uint64_t{0xD2511F53} * words[0][b], p1 = uint64_t{0xCD9E8D57} * words[2][b];
      words[0][b] = uint32_t(p1 >> 32) ^ words[1][b] ^ k0;
      words[1][b] = uint32_t(p1);
      words[2][b] = uint32_t(p0 >> 32) ^ words[3][b] ^ k1;
      words[3][b] = uint32_t(p0);
    }
  }
}

}  // namespace

void dropout(const Real* x, int64_t n, double p, Real scale, Random random, Real* y) {
  constexpr int kGroup = 4 * kBlocks;
  const uint32_t threshold = uint32_t(p * 0x1p32);
  parallel_for(n, 1 << 13, [=](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4][kBlocks];
    for (int64_t at = begin; at < end; at += kGroup) {
      philox_blocks(random, uint64_t(at / kGroup * kBlocks), words);
      int64_t count = std::min<int64_t>(kGroup, end - at);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) y[at + i] = words[0][i] < threshold ? 0 : scale * x[at + i];
    }
  });
}

}  // namespace rapt::inline RAPT_ABI::kernels
