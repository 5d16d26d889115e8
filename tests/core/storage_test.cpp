#include <gtest/gtest.h>
#include <rapt/core/check.h>
#include <rapt/core/storage.h>
#include <rapt/core/tensor.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace rapt {
namespace {

constexpr int64_t kBytes = sizeof(Real);

TEST(Storage, IsAligned) {
  for (int64_t n : {0, 1, 3, 17, 1000, 123457}) {
    Storage storage(n);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(storage.data) % 64, 0u);
    EXPECT_GE(storage.capacity, n);
    EXPECT_EQ(storage.version, 0u);
  }
}

TEST(Storage, WastesAtMostAnEighth) {
  for (int64_t n = 128; n < 3000000; n += n / 7) {
    Storage storage(n);
    EXPECT_LE(storage.capacity - n, n / 8 + 1) << n;
  }
}

TEST(Storage, IsReused) {
  Real* first;
  {
    Storage storage(12345);
    first = storage.data;
  }
  int64_t before = memory_stats().new_blocks;
  for (int i = 0; i < 10; ++i) {
    Storage storage(12345 + i);  // the same size class
    EXPECT_EQ(storage.data, first);
  }
  EXPECT_EQ(memory_stats().new_blocks, before);
}

// What a training step does: the second one asks nothing of the system.
TEST(Storage, TheNextStepReusesTheMemoryOfTheLast) {
  auto step = [] {
    std::vector<Tensor> kept;
    for (int64_t i = 1; i < 20; ++i) kept.push_back(full({i, 77}, Real(i)));
  };
  step();
  int64_t before = memory_stats().new_blocks;
  step();
  EXPECT_EQ(memory_stats().new_blocks, before);
}

TEST(Storage, Counters) {
  constexpr int64_t kSmaller = 3 << 20, kLarger = 6 << 20;  // blocks on pages of their own
  release_cached_memory();
  MemoryStats start = memory_stats();
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak, start.in_use);
  auto a = std::make_unique<Storage>(kSmaller);
  auto b = std::make_unique<Storage>(kLarger);
  MemoryStats both = memory_stats();
  EXPECT_EQ(both.in_use - start.in_use, (kSmaller + kLarger) * kBytes);
  EXPECT_EQ(both.new_blocks - start.new_blocks, 2);
  a.reset();
  MemoryStats one = memory_stats();
  EXPECT_EQ(one.in_use - start.in_use, kLarger * kBytes);
  EXPECT_EQ(one.cached - start.cached, kSmaller * kBytes);
  EXPECT_EQ(one.peak - start.in_use, (kSmaller + kLarger) * kBytes);
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak - start.in_use, kLarger * kBytes);
  a = std::make_unique<Storage>(kSmaller);
  EXPECT_EQ(memory_stats().cached, start.cached);
  EXPECT_EQ(memory_stats().new_blocks, both.new_blocks);
  a.reset();
  release_cached_memory();
  EXPECT_EQ(memory_stats().cached, start.cached);
  EXPECT_EQ(b->data[0] = 1, 1);  // what is in use stays
}

// Small blocks go back to the system with the last one of their region.
TEST(Storage, ReleasesRegionsWithoutBlocksInUse) {
  release_cached_memory();
  const int64_t before = memory_stats().cached;
  std::vector<std::unique_ptr<Storage>> blocks;
  for (int i = 0; i < 1000; ++i) {
    blocks.push_back(std::make_unique<Storage>(15 * 1024));
    blocks.back()->data[0] = Real(i);
  }
  for (int i = 0; i < 1000; ++i) {
    if (i != 500) blocks[size_t(i)].reset();
  }
  const int64_t all = memory_stats().cached - before;
  release_cached_memory();
  EXPECT_LT(memory_stats().cached - before, all);  // what shares a region with block 500 or with other tensors is left
  EXPECT_EQ(blocks[500]->data[0], 500);
  blocks.clear();
  release_cached_memory();
  EXPECT_LT(memory_stats().cached - before, 300 * 15 * 1024 * kBytes);
}

TEST(Storage, RefusesSizesOutOfRange) {
  EXPECT_THROW(Storage{-1}, Error);
  EXPECT_THROW(Storage{std::numeric_limits<int64_t>::max()}, Error);
}

#ifndef __SANITIZE_ADDRESS__  // which ends the program instead
TEST(Storage, RefusesMoreThanAnyMachineHas) {
  MemoryStats before = memory_stats();
  EXPECT_THROW(Storage{int64_t{1} << 50}, Error);
  EXPECT_EQ(memory_stats().in_use, before.in_use);
}
#endif

#ifndef NDEBUG
TEST(Storage, BeginsAsNanInDebugBuilds) {
  { Tensor used = ones({100}); }
  EXPECT_TRUE(std::isnan(empty({100}).data()[50]));
}
#endif

}  // namespace
}  // namespace rapt
