#include <gtest/gtest.h>
#include <rapt/core/lanes.h>
#include <rapt/core/random.h>

#include <cmath>
#include <limits>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

TEST(Lanes, sum_of_every_length) {
  Random random{5, 0};
  std::vector<Real> x(700);
  for (size_t i = 0; i < x.size(); ++i) x[i] = Real(random.uniform(i) - 0.5);
  long double exact = 0;
  for (int64_t n = 0; n <= int64_t(x.size()); ++n) {
    Real sum = lane_sum(n, [&](int64_t i) { return x[i]; });
    EXPECT_NEAR(double(sum), double(exact), 20 * std::numeric_limits<Real>::epsilon()) << n;
    if (n < int64_t(x.size())) exact += x[n];
  }
}

TEST(Lanes, sum_in_double) {
  std::vector<float> x(100000, 0.1f);
  double sum = lane_sum(int64_t(x.size()), [&](int64_t i) { return double(x[i]); });
  EXPECT_NEAR(sum, 1e5 * double(0.1f), 1e-6);
}

TEST(Lanes, rounding_stays_small_in_long_sums) {
  std::vector<float> x(1 << 20, 0.1f);
  double exact = double(0.1f) * double(x.size());
  float one_after_another = 0;
  for (float value : x) one_after_another += value;
  float sum = lane_sum(int64_t(x.size()), [&](int64_t i) { return x[i]; });
  EXPECT_LT(std::fabs(sum / exact - 1), 3e-4);
  EXPECT_LT(20 * std::fabs(sum / exact - 1), std::fabs(one_after_another / exact - 1));
}

TEST(Lanes, maximum_of_every_length) {
  Random random{6, 0};
  std::vector<Real> x(300);
  for (size_t i = 0; i < x.size(); ++i) x[i] = Real(random.uniform(i) - 2);
  Real expected = -kInf;
  for (int64_t n = 0; n <= int64_t(x.size()); ++n) {
    EXPECT_EQ(lane_max(n, [&](int64_t i) { return x[i]; }), expected) << n;
    if (n < int64_t(x.size())) expected = std::max(expected, x[n]);
  }
}

TEST(Lanes, nan) {
  for (int64_t n : {3, 40, 300}) {
    std::vector<Real> x(n, 1);
    x[n / 2] = std::numeric_limits<Real>::quiet_NaN();
    EXPECT_TRUE(std::isnan(lane_sum(n, [&](int64_t i) { return x[i]; })));
    EXPECT_EQ(lane_max(n, [&](int64_t i) { return x[i]; }), 1);
  }
}

}  // namespace
}  // namespace rapt
