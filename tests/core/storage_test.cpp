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
  int64_t before = memory_stats().system_allocations;
  for (int i = 0; i < 10; ++i) {
    Storage storage(12345 + i);  // the same size class
    EXPECT_EQ(storage.data, first);
  }
  EXPECT_EQ(memory_stats().system_allocations, before);
}

// What a training step does: the second one asks nothing of the system.
TEST(Storage, TheNextStepReusesTheMemoryOfTheLast) {
  auto step = [] {
    std::vector<Tensor> kept;
    for (int64_t i = 1; i < 20; ++i) kept.push_back(full({i, 77}, Real(i)));
  };
  step();
  int64_t before = memory_stats().system_allocations;
  step();
  EXPECT_EQ(memory_stats().system_allocations, before);
}

TEST(Storage, Counters) {
  release_cached_memory();
  MemoryStats start = memory_stats();
  EXPECT_EQ(start.cached, 0);
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak, start.in_use);
  auto a = std::make_unique<Storage>(1024);
  auto b = std::make_unique<Storage>(2048);
  MemoryStats both = memory_stats();
  EXPECT_EQ(both.in_use - start.in_use, 3072 * kBytes);
  EXPECT_EQ(both.system_allocations - start.system_allocations, 2);
  a.reset();
  MemoryStats one = memory_stats();
  EXPECT_EQ(one.in_use - start.in_use, 2048 * kBytes);
  EXPECT_EQ(one.cached, 1024 * kBytes);
  EXPECT_EQ(one.peak - start.in_use, 3072 * kBytes);
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak - start.in_use, 2048 * kBytes);
  a = std::make_unique<Storage>(1024);
  EXPECT_EQ(memory_stats().cached, 0);
  EXPECT_EQ(memory_stats().system_allocations, both.system_allocations);
  a.reset();
  release_cached_memory();
  EXPECT_EQ(memory_stats().cached, 0);
  EXPECT_EQ(b->data[0] = 1, 1);  // what is in use stays
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
