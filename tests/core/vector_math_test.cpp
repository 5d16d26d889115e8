#include <gtest/gtest.h>
#include <rapt/core/vector_math.h>

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

constexpr bool kFloat = std::is_same_v<Real, float>;

// Distance of y from the exact value, in units in the last place of that value.
double ulps(Real y, long double exact) {
  if (std::isnan(exact)) return std::isnan(y) ? 0 : 1e30;
  if (std::isinf(Real(exact)) || std::isinf(y)) return y == Real(exact) ? 0 : 1e30;
  Real magnitude = std::max(std::fabs(Real(exact)), std::numeric_limits<Real>::min());
  Real ulp = std::nextafter(magnitude, kInf) - magnitude;
  return double(std::fabs((long double)y - exact) / ulp);
}

// Arguments that are spread evenly over [low, high], and others that are dense near 0 on both sides.
std::vector<Real> sweep(Real low, Real high, int n = 400000) {
  std::vector<Real> xs;
  for (int i = 0; i <= n; ++i) xs.push_back(low + (high - low) * (Real(i) / Real(n)));
  for (Real x = Real(1e-37); x < 100; x *= Real(1.0007)) {
    for (Real signed_x : {x, -x}) {
      if (signed_x >= low && signed_x <= high) xs.push_back(signed_x);
    }
  }
  return xs;
}

template <class F, class Exact>
void expect_within(const char* name, double bound, const std::vector<Real>& xs, F f, Exact exact) {
  std::vector<Real> ys(xs.size());
  for (size_t i = 0; i < xs.size(); ++i) ys[i] = f(xs[i]);  // a loop the compiler vectorises, as in use
  double worst = 0;
  Real where = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    double error = ulps(ys[i], exact((long double)xs[i]));
    if (error > worst) worst = error, where = xs[i];
    ASSERT_EQ(std::isnan(ys[i]), std::isnan(f(xs[i])));
  }
  EXPECT_LE(worst, bound) << name << " at " << where;
  ::testing::Test::RecordProperty(name, std::to_string(worst));
}

TEST(VectorMath, exp_error) {
  auto exact = [](long double x) { return std::exp(x); };
  auto f = [](Real x) { return math::exp(x); };
  expect_within("exp", kFloat ? 1.5 : 1, sweep(-60, Real(88.7)), f, exact);
}

TEST(VectorMath, exp_edges) {
  EXPECT_EQ(math::exp(Real(0)), 1);
  EXPECT_EQ(math::exp(Real(-0.0)), 1);
  EXPECT_EQ(math::exp(std::numeric_limits<Real>::denorm_min()), 1);
  EXPECT_GT(math::exp(Real(-60)), 0);
  EXPECT_EQ(math::exp(std::nextafter(Real(-60), -kInf)), 0);
  EXPECT_EQ(math::exp(Real(-100)), 0);
  EXPECT_EQ(math::exp(-std::numeric_limits<Real>::max()), 0);
  EXPECT_EQ(math::exp(-kInf), 0);
  EXPECT_EQ(math::exp(kInf), kInf);
  EXPECT_EQ(math::exp(std::numeric_limits<Real>::max()), kInf);
  EXPECT_TRUE(std::isnan(math::exp(kNan)));
  if (kFloat) {
    EXPECT_EQ(math::exp(Real(88.73)), kInf);
    EXPECT_LT(math::exp(Real(88.72)), kInf);
    EXPECT_EQ(math::exp(Real(1e6)), kInf);
  }
}

TEST(VectorMath, log_error) {
  auto exact = [](long double x) { return std::log(x); };
  auto f = [](Real x) { return math::log(x); };
  expect_within("log_near_one", 1, sweep(Real(0.4), Real(2.5)), f, exact);
  std::vector<Real> xs;
  for (Real x = std::numeric_limits<Real>::denorm_min(); x < std::numeric_limits<Real>::max() / 2;) {
    xs.push_back(x);
    x = std::max(x * Real(1.0003), std::nextafter(x, kInf));
  }
  expect_within("log", 1, xs, f, exact);
}

TEST(VectorMath, log_edges) {
  EXPECT_EQ(math::log(Real(1)), 0);
  EXPECT_EQ(math::log(Real(0)), -kInf);
  EXPECT_EQ(math::log(Real(-0.0)), -kInf);
  EXPECT_EQ(math::log(kInf), kInf);
  EXPECT_TRUE(std::isnan(math::log(Real(-1))));
  EXPECT_TRUE(std::isnan(math::log(-kInf)));
  EXPECT_TRUE(std::isnan(math::log(-std::numeric_limits<Real>::denorm_min())));
  EXPECT_TRUE(std::isnan(math::log(kNan)));
}

TEST(VectorMath, tanh) {
  auto exact = [](long double x) { return std::tanh(x); };
  auto f = [](Real x) { return math::tanh(x); };
  expect_within("tanh", 3, sweep(-25, 25), f, exact);
  expect_within("tanh_small", 3, sweep(-1, 1), f, exact);
  EXPECT_EQ(f(Real(0)), 0);
  EXPECT_TRUE(std::signbit(f(Real(-0.0))));
  EXPECT_EQ(f(std::numeric_limits<Real>::denorm_min()), std::numeric_limits<Real>::denorm_min());
  EXPECT_EQ(f(kInf), 1);
  EXPECT_EQ(f(-kInf), -1);
  EXPECT_TRUE(std::isnan(f(kNan)));
  for (Real x : sweep(-25, 25, 1000)) {
    EXPECT_LE(std::fabs(f(x)), 1);
    EXPECT_EQ(f(-x), -f(x));
  }
}

TEST(VectorMath, erf) {
  auto exact = [](long double x) { return std::erf(x); };
  auto f = [](Real x) { return math::erf(x); };
  expect_within("erf", kFloat ? 3 : 2, sweep(-7, 7), f, exact);
  expect_within("erf_small", kFloat ? 3 : 2, sweep(-1, 1), f, exact);
  EXPECT_EQ(f(Real(0)), 0);
  EXPECT_TRUE(std::signbit(f(Real(-0.0))));
  EXPECT_EQ(f(kInf), 1);
  EXPECT_EQ(f(-kInf), -1);
  EXPECT_TRUE(std::isnan(f(kNan)));
  for (Real x : sweep(-7, 7, 1000)) {
    EXPECT_LE(std::fabs(f(x)), 1);
    EXPECT_EQ(f(-x), -f(x));
  }
}

TEST(VectorMath, sigmoid) {
  auto exact = [](long double x) { return 1 / (1 + std::exp(-x)); };
  auto f = [](Real x) { return math::sigmoid(x); };
  expect_within("sigmoid", 3, sweep(-60, 60), f, exact);
  expect_within("sigmoid_small", 3, sweep(-2, 2), f, exact);
  EXPECT_EQ(f(Real(0)), Real(0.5));
  EXPECT_EQ(f(Real(-61)), 0);
  EXPECT_EQ(f(-kInf), 0);
  EXPECT_EQ(f(kInf), 1);
  EXPECT_TRUE(std::isnan(f(kNan)));
}

TEST(VectorMath, softplus) {
  auto exact = [](long double x) { return std::log1p(std::exp(x)); };
  auto f = [](Real x) { return math::softplus(x); };
  expect_within("softplus", 3, sweep(-60, 100), f, exact);
  expect_within("softplus_small", 3, sweep(-4, 4), f, exact);
  EXPECT_EQ(f(Real(-61)), 0);
  EXPECT_EQ(f(-kInf), 0);
  EXPECT_EQ(f(kInf), kInf);
  EXPECT_TRUE(std::isnan(f(kNan)));
}

}  // namespace
}  // namespace rapt
