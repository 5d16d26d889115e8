#include <gtest/gtest.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/tensor.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace rapt {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers of Random123's philox4x32-10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t f = 0xffffffff;
  EXPECT_EQ(philox({f, f, f, f}, ~uint64_t{0}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, IsAFunctionOfSeedStreamAndPosition) {
  Random a{1, 2}, same{1, 2};
  EXPECT_EQ(a.uniform(1000), same.uniform(1000));
  EXPECT_EQ(a.words(3)[1], a.word(13));
  std::set<uint32_t> seen;
  for (uint64_t seed : {1, 2}) {
    for (uint64_t stream : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
      for (uint64_t position : {uint64_t{0}, uint64_t{1}, uint64_t{4}, uint64_t{1} << 40}) {
        seen.insert(Random{seed, stream}.word(position));
      }
    }
  }
  EXPECT_EQ(seen.size(), 24u);
}

TEST(Random, UniformMoments) {
  Random random{42, 0};
  constexpr int n = 200000;
  double sum = 0, squares = 0, together = 0, low = 1, high = 0, last = 0.5;
  std::array<int, 10> bins{};
  for (int i = 0; i < n; ++i) {
    double u = random.uniform(uint64_t(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++bins[size_t(u * 10)];
    sum += u;
    squares += u * u;
    together += (u - 0.5) * (last - 0.5);
    low = std::min(low, u);
    high = std::max(high, u);
    last = u;
  }
  // within five standard errors
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  EXPECT_NEAR(together / n, 0, 5.0 / 12 / std::sqrt(n));  // neighbours are independent
  EXPECT_LT(low, 1e-4);
  EXPECT_GT(high, 1 - 1e-4);
  for (int count : bins) EXPECT_NEAR(count, n / 10, 5 * std::sqrt(n * 0.09));
}

TEST(Random, NormalMoments) {
  Random random{42, 7};
  constexpr int n = 200000;
  double sum = 0, squares = 0, fourth = 0, together = 0, last = 0;
  int beyond = 0;
  for (int i = 0; i < n; ++i) {
    double z = random.normal(uint64_t(i));
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
    together += z * last;
    beyond += std::fabs(z) > 1.959964;
    last = z;
  }
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96.0 / n));
  EXPECT_NEAR(together / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(double(beyond) / n, 0.05, 5 * std::sqrt(0.05 * 0.95 / n));
}

TEST(Random, Below) {
  Random random{3, 0};
  std::array<int, 7> bins{};
  for (uint64_t i = 0; i < 70000; ++i) {
    int64_t v = random.below(7, i);
    ASSERT_GE(v, 0);
    ASSERT_LT(v, 7);
    ++bins[size_t(v)];
  }
  for (int count : bins) EXPECT_NEAR(count, 10000, 5 * std::sqrt(70000 * 6.0 / 49));
  EXPECT_EQ(random.below(1, 5), 0);
}

TEST(Random, EachCallTakesTheNextStream) {
  manual_seed(9);
  Tensor a = normal({5}), b = normal({5}), c = uniform({5}, 2, 3);
  EXPECT_NE(a.to_vector(), b.to_vector());
  manual_seed(9);
  EXPECT_EQ(normal({5}).to_vector(), a.to_vector());
  manual_seed(9, 1);
  EXPECT_EQ(normal({5}).to_vector(), b.to_vector());
  EXPECT_EQ(uniform({5}, 2, 3).to_vector(), c.to_vector());
  for (Real v : c.to_vector()) {
    EXPECT_GE(v, 2);
    EXPECT_LT(v, 3);
  }
}

TEST(Random, TensorsAreTheSameForAnyNumberOfThreads) {
  int before = threads();
  std::vector<Real> expected;
  for (int n : {1, 2, 3, 8}) {
    set_threads(n);
    manual_seed(1);
    std::vector<Real> values = normal({100, 1000}, 5, 2).to_vector();
    if (expected.empty()) expected = values;
    EXPECT_EQ(values, expected);
  }
  set_threads(before);
}

TEST(Random, MixedSeedsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (uint64_t salt = 0; salt < 50; ++salt) seen.insert(mix_seed(seed, salt));
  }
  EXPECT_EQ(seen.size(), 2500u);
}

}  // namespace
}  // namespace rapt
