#include <gtest/gtest.h>
#include <rapt/core/kernels/gather.h>
#include <rapt/core/kernels/reduce.h>
#include <rapt/core/lanes.h>
#include <rapt/core/random.h>
#include <rapt/core/tensor.h>
#include <rapt/core/view.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

TEST(Lanes, SumAndMaxOfAnyLength) {
  std::vector<Real> x(300);
  for (size_t i = 0; i < x.size(); ++i) x[i] = Real((i * 37) % 101) - 50;
  for (int64_t n = 0; n <= 300; ++n) {
    Real sum = 0, top = -kInf;
    for (int64_t i = 0; i < n; ++i) {
      sum += x[size_t(i)];
      top = std::max(top, x[size_t(i)]);
    }
    EXPECT_EQ(lane_sum(n, [&](int64_t i) { return x[size_t(i)]; }), sum) << n;  // small integers: exact
    EXPECT_EQ(lane_max(n, [&](int64_t i) { return x[size_t(i)]; }), top) << n;
  }
  EXPECT_EQ(lane_sum(3, [](int64_t i) { return double(i); }), 3.0);
}

// All ways to sum a tensor of three dimensions, against a plain loop.
TEST(Reduce, SumOverEverySetOfDimensions) {
  manual_seed(1);
  Tensor x = view::transpose(normal({5, 70, 9}), 0, 1);  // (70, 5, 9)
  for (const Tensor& t : {x, contiguous(x)}) {
    for (uint32_t dims = 0; dims < 8; ++dims) {
      Tensor y = kernels::sum_dims(t, dims);
      std::vector<double> expected(size_t(y.numel()), 0);
      for (int64_t i = 0; i < 70; ++i) {
        for (int64_t j = 0; j < 5; ++j) {
          for (int64_t k = 0; k < 9; ++k) {
            int64_t a = dims & 1 ? 0 : i, b = dims & 2 ? 0 : j, c = dims & 4 ? 0 : k;
            expected[size_t((a * y.shape[1] + b) * y.shape[2] + c)] += t.at({i, j, k});
          }
        }
      }
      std::vector<Real> values = y.to_vector();
      for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-4) << dims;
    }
  }
}

// The error of a sum grows with the length of a lane, not of the row.
TEST(Reduce, LongSumsAreAccurate) {
  constexpr int64_t n = 1 << 22;
  EXPECT_NEAR(kernels::sum_dims(full({n}, Real(0.1)), 1).data()[0] / (n * double(Real(0.1))), 1, 1e-5);
  EXPECT_NEAR(kernels::sum_dims(full({n / 4, 4}, Real(0.1)), 1).data()[3] / (n / 4 * double(Real(0.1))), 1, 1e-5);
}

TEST(Reduce, SumOfNothing) {
  EXPECT_EQ(kernels::sum_dims(zeros({0, 3}), 1).to_vector(), std::vector<Real>(3, 0));
  EXPECT_EQ(kernels::sum_dims(zeros({0, 3}), 3).to_vector(), std::vector<Real>(1, 0));
  EXPECT_EQ(kernels::sum_dims(zeros({0, 3}), 2).shape, Shape({0, 1}));
}

TEST(Reduce, SumTo) {
  Tensor x = ones({2, 3, 4});
  for (const Shape& to : {Shape{2, 3, 4}, Shape{4}, Shape{3, 1}, Shape{}, Shape{1, 1, 1}, Shape{2, 1, 4}}) {
    EXPECT_TRUE(kernels::sums_to(x.shape, to));
    Tensor y = kernels::sum_to(x, to);
    EXPECT_EQ(y.shape, to);
    EXPECT_EQ(y.to_vector(), std::vector<Real>(size_t(to.numel()), Real(24 / to.numel())));
  }
  EXPECT_FALSE(kernels::sums_to({3}, {2}));
  EXPECT_FALSE(kernels::sums_to({3}, {1, 3}));
  EXPECT_THROW(kernels::sum_to(x, {3}), Error);
}

TEST(Reduce, MaxTakesTheFirstOfEqualsAndNanBeforeAll) {
  // a row each, and the same as columns
  Tensor x = from_values({5, 4}, {1, 7, 7, 2, -1, -1, -1, -1, 3, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0});
  x.set({3, 1}, kNan);
  x.set({3, 2}, kNan);
  for (int64_t i = 0; i < 4; ++i) x.set({4, i}, -kInf);
  for (const Tensor& t : {x, clone(view::transpose(x, 0, 1))}) {
    Tokens index;
    Tensor y = kernels::max_along("max", t, t.shape[0] == 5 ? 1 : 0, index);
    EXPECT_EQ(index.ids, (std::vector<int32_t>{1, 0, 3, 1, 0}));
    std::vector<Real> values = y.to_vector();
    EXPECT_EQ(values[0], 7);
    EXPECT_EQ(values[2], 9);
    EXPECT_TRUE(std::isnan(values[3]));
    EXPECT_EQ(values[4], -kInf);
  }
  Tokens index;
  EXPECT_THROW(kernels::max_along("max", zeros({3, 0}), 1, index), Error);
}

TEST(Reduce, LogSumExpOfExtremes) {
  for (int dim : {0, 1}) {
    auto value = [&](std::vector<Real> row) {
      Tensor x = from_values({1, int64_t(row.size())}, row);
      if (dim == 0) {  // as the columns of two
        Tensor pair = zeros({int64_t(row.size()), 2});
        for (int64_t i = 0; i < pair.shape[0]; ++i) pair.set({i, 1}, row[size_t(i)]);
        return kernels::logsumexp_along(pair, 0).at({0, 1});
      }
      return kernels::logsumexp_along(x, 1).item();
    };
    EXPECT_EQ(value({-kInf, -kInf}), -kInf);
    EXPECT_EQ(value({-kInf, 3}), 3);
    EXPECT_EQ(value({kInf, 3}), kInf);
    EXPECT_TRUE(std::isnan(value({kNan, 3})));
    EXPECT_NEAR(value({10000, 10000}), 10000 + std::log(2.0), 1e-3);
    EXPECT_NEAR(value({-10000, -10000}), -10000 + std::log(2.0), 1e-3);
    EXPECT_NEAR(value(std::vector<Real>(1000, 0)), std::log(1000.0), 1e-5);
  }
}

TEST(Reduce, CumSumKeepsItsPrecision) {
  constexpr int64_t n = 1 << 20;
  Tensor y = kernels::cumsum_along(full({n}, Real(0.1)), 0, false);
  EXPECT_NEAR(y.at({n - 1}) / (n * double(Real(0.1))), 1, 1e-6);
  Tensor back = kernels::cumsum_along(arange(4), 0, true);
  EXPECT_EQ(back.to_vector(), (std::vector<Real>{6, 6, 5, 3}));
}

TEST(Gather, IndicesAreChecked) {
  Tensor x = zeros({2, 3});
  for (int32_t bad : {-1, 3, std::numeric_limits<int32_t>::min()}) {
    try {
      kernels::gather(x, 1, {{2}, {0, bad}});
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()),
                fmt::format("index_select: index {} at 1 is not in [0, 3), dimension 1 of (2, 3)", bad));
    }
  }
  EXPECT_THROW(kernels::gather(x, 1, {{1, 1}, {0}}), Error);
}

TEST(Gather, RepeatedIndicesAddUp) {
  Tensor dy = view::reshape(arange(2 * 4 * 130), {2, 4, 130});
  Tensor dx = kernels::scatter_add(dy, 1, {{4}, {2, 0, 2, 2}}, 3);
  for (int64_t o : {0, 1}) {
    for (int64_t i : {0, 63, 64, 129}) {
      EXPECT_EQ(dx.at({o, 0, i}), dy.at({o, 1, i}));
      EXPECT_EQ(dx.at({o, 1, i}), 0);
      EXPECT_EQ(dx.at({o, 2, i}), dy.at({o, 0, i}) + dy.at({o, 2, i}) + dy.at({o, 3, i}));
    }
  }
}

}  // namespace
}  // namespace rapt
