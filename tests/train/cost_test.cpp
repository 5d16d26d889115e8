// What a training step costs, counted instead of timed, so that a regression shows on any machine.
#include <gtest/gtest.h>

#include "../../core/gemm.h"
#include "../../core/parallel.h"
#include "../../core/random.h"
#include "../../nn/gpt.h"
#include "../../optim/adamw.h"
#include "../../optim/clip.h"

namespace rapt {
namespace {

constexpr int64_t kLayers = 2, kHeads = 4, kDim = 128, kContext = 64, kBatch = 3, kVocabulary = 65,
                  kRows = kBatch * kContext;

struct Cost {
  int64_t products, multiplications;  // of the large products
  int64_t allocations, bytes;         // asked of the system; most in use beyond what was before
};

struct Training {
  Gpt gpt;
  AdamW optimizer;
  Tokens x{{kBatch, kContext}, std::vector<int32_t>(kRows, 1)}, y{{kBatch, kContext}, std::vector<int32_t>(kRows, 2)};

  explicit Training(const std::string& attention)
      : gpt((manual_seed(1), GptConfig{.vocabulary = kVocabulary,
                                       .context = kContext,
                                       .layers = kLayers,
                                       .heads = kHeads,
                                       .dim = kDim,
                                       .attention = attention})),
        optimizer(gpt.parameters()) {}

  Cost step() {
    reset_peak_memory();
    GemmStats gemm = gemm_stats();
    MemoryStats memory = memory_stats();
    backward(gpt.loss(x, y));
    clip_gradient_norm(gpt.parameters(), 1);
    optimizer.step();
    optimizer.zero_gradients();
    return {gemm_stats().calls - gemm.calls, gemm_stats().multiplications - gemm.multiplications,
            memory_stats().new_blocks - memory.new_blocks, memory_stats().peak - memory.in_use};
  }
};

TEST(Cost, AStepMakesTheProductsThatItNeedsAndNoMore) {
  Training training("mha");
  training.step();
  Cost cost = training.step();
  // Four linear layers in a block, and the head: each one product forward and two backward.
  EXPECT_EQ(cost.products, 3 * (4 * kLayers + 1));
  const int64_t block = kDim * 3 * kDim + kDim * kDim + 2 * kDim * 4 * kDim;
  EXPECT_EQ(cost.multiplications, 3 * kRows * (kLayers * block + kVocabulary * kDim));
}

TEST(Cost, AStepAsksTheSystemForNoMemoryAndKeepsWhatItMust) {
  // Most that may be in use at once, in activations (rows, dim), beside the gradients of all weights. Each bound is a
  // little above what it is today.
  const std::pair<const char*, int64_t> bounds[] = {
      {"mha", 25}, {"mha+rope+qk-norm", 33}, {"gqa:kv=2+rope+softcap:30", 27}};
  const int before = threads();
  set_threads(1);  // each thread has memory of its own for tiles, and gets it when it first works on one
  for (auto [attention, activations] : bounds) {
    SCOPED_TRACE(attention);
    Training training(attention);
    training.step();
    Cost cost = training.step();
    EXPECT_EQ(cost.allocations, 0);
    const int64_t most = int64_t(sizeof(Real)) * (training.gpt.parameter_count() + activations * kRows * kDim);
    EXPECT_LE(cost.bytes, most);
    EXPECT_GE(cost.bytes, most * 3 / 4) << "better than before: lower the bound";
  }
  set_threads(before);
}

}  // namespace
}  // namespace rapt
