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

void dropout(const Real* x, int64_t n, double p, Real scale, Random random, Real* y) {
  constexpr int kBlocks = 16, kGroup = 4 * kBlocks;
  const uint32_t threshold = uint32_t(p * 0x1p32);
  parallel_for(n, 1 << 13, [=](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[kGroup];
    for (int64_t at = begin; at < end; at += kGroup) {
      for (int b = 0; b < kBlocks; ++b) {  // in this order, blocks side by side, it vectorises
        auto block = random.words(uint64_t(at / kGroup * kBlocks + b));
        for (int w = 0; w < 4; ++w) words[w * kBlocks + b] = block[size_t(w)];
      }
      int64_t count = std::min<int64_t>(kGroup, end - at);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) y[at + i] = words[i] < threshold ? 0 : scale * x[at + i];
    }
  });
}

}  // namespace rapt::inline RAPT_ABI::kernels
