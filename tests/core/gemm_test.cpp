#include <gtest/gtest.h>
#include <omp.h>
#include <rapt/core/check.h>
#include <rapt/core/gemm.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/transpose.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

std::vector<Real> random_values(int64_t n, uint64_t stream) {
  Random random{7, stream};
  std::vector<Real> x(n);
  for (int64_t i = 0; i < n; ++i) x[i] = Real(random.uniform(i) * 2 - 1);
  return x;
}

// A stored matrix whose rows are `extra` elements longer than needed; those are NaN, so that reading them shows.
struct StoredMatrix {
  int64_t rows, columns, stride;
  std::vector<Real> values;

  StoredMatrix(int64_t r, int64_t c, int64_t extra, uint64_t stream)
      : rows(r), columns(c), stride(std::max<int64_t>(1, c + extra)), values(random_values(r * stride, stream)) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = columns; j < stride; ++j) values[i * stride + j] = kNan;
    }
  }
  Real operator()(bool trans, int64_t i, int64_t j) const {
    return trans ? values[j * stride + i] : values[i * stride + j];
  }
};

struct GemmCase {
  int64_t m, n, k;
  bool trans_a = false, trans_b = false;
  Real alpha = 1, beta = 0;
  int64_t extra = 0;
};

using Gemm = void (*)(bool, bool, int64_t, int64_t, int64_t, Real, const Real*, int64_t, const Real*, int64_t, Real,
                      Real*, int64_t);

void expect_right(Gemm f, const GemmCase& x) {
  SCOPED_TRACE(fmt::format("m {} n {} k {} trans {} {} alpha {} beta {} extra {}", x.m, x.n, x.k, x.trans_a, x.trans_b,
                           x.alpha, x.beta, x.extra));
  StoredMatrix a(x.trans_a ? x.k : x.m, x.trans_a ? x.m : x.k, x.extra, 1);
  StoredMatrix b(x.trans_b ? x.n : x.k, x.trans_b ? x.k : x.n, x.extra, 2);
  StoredMatrix c(x.m, x.n, x.extra, 3);
  StoredMatrix before = c;
  if (x.beta == 0) std::fill(c.values.begin(), c.values.end(), kNan);
  f(x.trans_a, x.trans_b, x.m, x.n, x.k, x.alpha, a.values.data(), a.stride, b.values.data(), b.stride, x.beta,
    c.values.data(), c.stride);
  double worst = 0;
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.n; ++j) {
      long double sum = 0;
      for (int64_t p = 0; p < x.k; ++p) sum += (long double)a(x.trans_a, i, p) * (long double)b(x.trans_b, p, j);
      double expected = double(x.alpha * sum) + (x.beta == 0 ? 0 : double(x.beta) * double(before(false, i, j)));
      double error = std::fabs(double(c(false, i, j)) - expected);
      worst = std::max(worst, std::isnan(error) ? 1e30 : error);
    }
    for (int64_t j = x.n; j < c.stride; ++j)
      ASSERT_TRUE(std::isnan(c.values[i * c.stride + j])) << "wrote beyond a row";
  }
  EXPECT_LE(worst, std::numeric_limits<Real>::epsilon() * (16 + double(x.k)));
}

class GemmTest : public ::testing::TestWithParam<Gemm> {};
INSTANTIATE_TEST_SUITE_P(both, GemmTest, ::testing::Values(&gemm, &gemm_serial),
                         [](const auto& each) { return each.index == 0 ? "parallel" : "serial"; });

TEST_P(GemmTest, odd_shapes_all_transposes) {
  const int64_t shapes[][3] = {{1, 1, 1},     {1, 7, 5},       {7, 1, 5},      {5, 3, 1},
                               {2, 3, 4},     {17, 33, 9},     {64, 64, 64},   {65, 63, 129},
                               {33, 257, 31}, {100, 200, 300}, {257, 65, 193}, {300, 31, 700}};
  for (auto [m, n, k] : shapes) {
    for (bool trans_a : {false, true}) {
      for (bool trans_b : {false, true}) expect_right(GetParam(), {m, n, k, trans_a, trans_b});
    }
  }
}

TEST_P(GemmTest, alpha_beta_strides) {
  for (bool trans_a : {false, true}) {
    for (bool trans_b : {false, true}) {
      for (Real alpha : {Real(1), Real(-0.5), Real(0)}) {
        for (Real beta : {Real(0), Real(1), Real(0.25)}) {
          expect_right(GetParam(), {70, 90, 50, trans_a, trans_b, alpha, beta, 13});
          expect_right(GetParam(), {1, 40, 30, trans_a, trans_b, alpha, beta, 3});
          expect_right(GetParam(), {40, 1, 30, trans_a, trans_b, alpha, beta, 3});
        }
      }
      expect_right(GetParam(), {130, 70, 210, trans_a, trans_b, 2, 1, 1500});  // rows on pages of their own
      expect_right(GetParam(), {520, 390, 40, trans_a, trans_b, 2, 1, 1500});
    }
  }
}

TEST_P(GemmTest, long_inner_axis) {
  for (bool trans_a : {false, true}) {
    expect_right(GetParam(), {24, 40, 5000, trans_a, false, 1, 1, 0});
    expect_right(GetParam(), {64, 64, 3001, trans_a, true, 1, 0, 5});
    expect_right(GetParam(), {1, 3, 4099, trans_a, true, 1, 0.5, 0});
  }
}

// More than 2^26 multiplications with all axes long: those go to oneDNN where it is there.
TEST_P(GemmTest, large_products) {
  for (bool trans_a : {false, true}) {
    for (bool trans_b : {false, true})
      expect_right(GetParam(), {1030, 270, 250, trans_a, trans_b, Real(0.5), Real(trans_a), 13});
  }
}

TEST_P(GemmTest, nothing_to_do) {
  std::vector<Real> a(12, 1), b(12, 1), c(12, 2);
  GetParam()(false, false, 0, 4, 3, 1, a.data(), 3, b.data(), 4, 0, c.data(), 4);
  GetParam()(false, false, 3, 0, 4, 1, a.data(), 4, b.data(), 1, 0, c.data(), 1);
  for (Real x : c) EXPECT_EQ(x, 2);
  GetParam()(false, false, 3, 2, 0, 1, a.data(), 1, b.data(), 2, Real(0.5), c.data(), 4);  // an empty sum
  EXPECT_EQ(c, (std::vector<Real>{1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2}));
  std::fill(c.begin(), c.end(), kNan);
  GetParam()(false, false, 3, 4, 0, 1, a.data(), 1, b.data(), 4, 0, c.data(), 4);
  for (Real x : c) EXPECT_EQ(x, 0);
}

TEST_P(GemmTest, refuses_bad_sizes) {
  Real x = 0;
  int64_t huge = int64_t{1} << 32;
  EXPECT_THROW(GetParam()(false, false, 1, 1, huge, 1, &x, huge, &x, 1, 0, &x, 1), Error);
  EXPECT_THROW(GetParam()(false, false, 1, 1, 1, 1, &x, huge, &x, 1, 0, &x, 1), Error);
  EXPECT_THROW(GetParam()(false, false, -1, 1, 1, 1, &x, 1, &x, 1, 0, &x, 1), Error);
  EXPECT_THROW(GetParam()(false, false, 2, 2, 2, 1, &x, 1, &x, 2, 0, &x, 2), Error);
  EXPECT_THROW(GetParam()(false, false, 2, 2, 2, 1, &x, 2, &x, 2, 0, &x, 1), Error);
}

// The bits must depend on the shapes alone: not on the number of threads, nor on being called inside a parallel task.
TEST(Gemm, same_bits_for_any_number_of_threads) {
  int saved = threads();
  const int64_t shapes[][3] = {{200, 300, 100}, {64, 48, 4000},  {1, 500, 300},   {500, 1, 300},
                               {40, 40, 40},    {384, 128, 768}, {1030, 270, 250}};
  for (auto [m, n, k] : shapes) {
    for (int trans = 0; trans < 4; ++trans) {
      bool trans_a = trans & 1, trans_b = trans & 2;
      std::vector<Real> a = random_values(m * k, 1), b = random_values(k * n, 2);
      auto run = [&, m = m, n = n, k = k] {
        std::vector<Real> c(m * n, kNan);
        gemm(trans_a, trans_b, m, n, k, 1, a.data(), trans_a ? m : k, b.data(), trans_b ? k : n, 0, c.data(), n);
        return c;
      };
      set_threads(1);
      std::vector<Real> one = run();
      auto same = [&](const std::vector<Real>& c) {
        return std::memcmp(c.data(), one.data(), c.size() * sizeof(Real)) == 0;
      };
      for (int count : {2, 3, 8}) {
        set_threads(count);
        EXPECT_TRUE(same(run())) << count << " threads, m " << m << " n " << n << " k " << k << " trans " << trans;
      }
      bool inside[2] = {};
      parallel_tasks(2, [&](int64_t i) { inside[i] = same(run()); });
      EXPECT_TRUE(inside[0] && inside[1]) << "inside tasks, m " << m << " n " << n << " k " << k;
    }
  }
  set_threads(saved);
}

int threads_of_this_process() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) count += entry.is_directory();
  return count;
}

TEST(Gemm, serial_product_starts_no_threads_and_leaves_openmp_alone) {
  int before = omp_get_max_threads(), running = threads_of_this_process();
  omp_set_num_threads(running + 3);
  int64_t n = 300;
  std::vector<Real> a = random_values(n * n, 1), b = random_values(n * n, 2), c(n * n);
  gemm_serial(false, false, n, n, n, 1, a.data(), n, b.data(), n, 0, c.data(), n);
  EXPECT_EQ(omp_get_max_threads(), running + 3);
  EXPECT_EQ(threads_of_this_process(), running);
  omp_set_num_threads(before);
}

TEST(Gemm, describes_itself) { EXPECT_FALSE(blas_description().empty()); }

TEST(Transpose, all_sizes) {
  for (int64_t rows : {1, 7, 8, 9, 17, 64}) {
    for (int64_t columns : {1, 5, 8, 16, 31, 64}) {
      std::vector<Real> src = random_values(rows * (columns + 3), 1), dst(columns * (rows + 2), kNan);
      transpose(rows, columns, src.data(), columns + 3, dst.data(), rows + 2);
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t i = 0; i < rows; ++i) ASSERT_EQ(dst[j * (rows + 2) + i], src[i * (columns + 3) + j]);
        for (int64_t i = rows; i < rows + 2; ++i) ASSERT_TRUE(std::isnan(dst[j * (rows + 2) + i]));
      }
    }
  }
}

}  // namespace
}  // namespace rapt
