#include "../../nn/attention/kernel.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

constexpr SmoothingKernel kAll[] = {SmoothingKernel::gaussian, SmoothingKernel::laplace, SmoothingKernel::epanechnikov,
                                    SmoothingKernel::boxcar};

double weight(SmoothingKernel kernel, double rho, double h) {
  switch (kernel) {
    case SmoothingKernel::gaussian: return std::exp(-rho * rho / (2 * h * h));
    case SmoothingKernel::laplace: return std::exp(-rho / h);
    case SmoothingKernel::epanechnikov: return std::max(0.0, 1 - rho * rho / (h * h));
    case SmoothingKernel::boxcar: return rho < h;
  }
  return 0;
}

TEST(Kernel, SmoothIsTheFormula) {
  for (SmoothingKernel kernel : kAll) {
    manual_seed(1);
    Tensor query = normal({5, 2}), key = normal({9, 2}), y = normal({9, 3});
    Tensor out = kernel_smooth(query, key, y, scalar(Real(1.3)), kernel);
    ASSERT_EQ(out.shape, Shape({5, 3}));
    for (int64_t i = 0; i < 5; ++i) {
      double total = 0, sums[3] = {};
      for (int64_t j = 0; j < 9; ++j) {
        double w =
            weight(kernel, std::hypot(query.at({i, 0}) - key.at({j, 0}), query.at({i, 1}) - key.at({j, 1})), 1.3);
        total += w;
        for (int64_t c = 0; c < 3; ++c) sums[c] += w * double(y.at({j, c}));
      }
      for (int64_t c = 0; c < 3; ++c) EXPECT_NEAR(out.at({i, c}), total > 0 ? sums[c] / total : 0, kClose);
    }
  }
}

TEST(Kernel, SmoothsNumbers) {
  Tensor x = from_values({4}, {0, 1, 2, 10}), y = from_values({4}, {1, 2, 3, 7});
  Tensor at = from_values({3}, {1, 10, 20});
  Tensor box = kernel_smooth(at, x, y, scalar(Real(1.5)), SmoothingKernel::boxcar);
  ASSERT_EQ(box.shape, Shape({3}));
  EXPECT_NEAR(box.at({0}), 2, 1e-6);
  EXPECT_NEAR(box.at({1}), 7, 1e-6);
  EXPECT_EQ(box.at({2}), 0);  // nobody near
  // far from 0, in float: squares of a million have no digits left for a distance of 1
  Tensor far = kernel_smooth(at + 1e6, x + 1e6, y, scalar(Real(1.5)), SmoothingKernel::boxcar);
  expect_near(far, box, 1e-5);
  EXPECT_THROW(kernel_smooth(at, x, from_values({2}, {1, 2}), scalar(1)), Error);
  EXPECT_THROW(kernel_smooth(at, normal({4, 1}), y, scalar(1)), Error);
  EXPECT_THROW(kernel_smooth(at, x, y, from_values({2}, {1, 2})), Error);
}

// Σ K y by hand
TEST(Kernel, SumsWithoutDividing) {
  const Tensor at = from_values({2}, {0.25, 2}), x = from_values({3}, {0, 1, 2.5}), y = from_values({3}, {1, -2, 4});
  const double h = 1.5;
  for (SmoothingKernel kernel : kAll) {
    const Tensor sums = kernel_smooth(at, x, y, scalar(Real(h)), kernel, false);
    for (int64_t i = 0; i < 2; ++i) {
      double expected = 0;
      for (int64_t j = 0; j < 3; ++j) {
        const double r = std::fabs(double(at.at({i})) - double(x.at({j}))) / h;
        const double weight = kernel == SmoothingKernel::gaussian       ? std::exp(-r * r / 2)
                              : kernel == SmoothingKernel::laplace      ? std::exp(-r)
                              : kernel == SmoothingKernel::epanechnikov ? std::max(0.0, 1 - r * r)
                                                                        : double(r < 1);
        expected += weight * double(y.at({j}));
      }
      EXPECT_NEAR(sums.at({i}), expected, 1e-5) << int(kernel);
    }
  }
}

TEST(Kernel, GradientsOfTheRegression) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  for (SmoothingKernel kernel : kAll) {
    manual_seed(2);
    if (kernel == SmoothingKernel::boxcar) continue;  // flat
    const double h = kernel == SmoothingKernel::epanechnikov ? 6 : 1.2;
    auto result =
        grad_check([&](const std::vector<Tensor>& x) { return kernel_smooth(x[0], x[1], x[2], x[3] + h, kernel); },
                   {normal({4, 2}), normal({5, 2}), normal({5}), normal({}, 0, Real(0.1))}, {.step = 1e-4});
    EXPECT_TRUE(result) << int(kernel) << ": " << result.message;
  }
}

// A masked key of NaN has gradient 0, as in plain attention.
TEST(Kernel, MaskedNanHasNoGradient) {
  for (SmoothingKernel kernel : kAll) {
    manual_seed(4);
    Tensor q = requires_grad(normal({1, 2, 5, 3})), k = requires_grad(normal({1, 1, 7, 3})), v = normal({1, 1, 7, 3});
    for (int64_t c : {0, 2}) k.detach().set({0, 0, 6, c}, c ? kInf : kNan);
    AttentionOptions o = kernel_options(kernel, q, k, full({2}, 3));
    o.mask = key_padding(Tokens({1, 7}, {0, 0, 0, 0, 0, 0, 1}));
    Tensor y = attention(q, k, v, o);
    backward(y, ones(y.shape));
    for (Real x : gradient(q).to_vector()) EXPECT_TRUE(std::isfinite(x));
    for (int64_t j = 0; j < 7; ++j) {
      for (int64_t c = 0; c < 3; ++c) {
        const Real x = gradient(k).at({0, 0, j, c});
        EXPECT_TRUE(j == 6 ? x == 0 : std::isfinite(x)) << j << ": " << x;
      }
    }
  }
}

// A regression that finds its bandwidth: leave-one-out error falls when the bandwidth is learned.
TEST(Kernel, LearnsABandwidth) {
  manual_seed(3);
  Tensor x = uniform({60}, 0, 6), y = zeros({60});
  for (int64_t i = 0; i < 60; ++i) y.set({i}, Real(std::sin(double(x.at({i})))));
  Tensor y_noisy = y + normal({60}, 0, Real(0.2)), log_h = requires_grad(scalar(Real(std::log(3.0))));
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    Tensor h = exp(log_h);
    Tensor error = kernel_smooth(slice(x, 0, 0, 60, 2), slice(x, 0, 1, 60, 2), slice(y_noisy, 0, 1, 60, 2), h) -
                   slice(y_noisy, 0, 0, 60, 2);
    Tensor loss = mean(error * error);
    backward(loss);
    last = double(loss.item());
    if (step == 0) first = last;
    Tensor value = log_h.detach();
    value.set({}, value.item() - Real(0.5) * gradient(log_h).item());
    set_gradient(log_h, {});
  }
  EXPECT_LT(last, first / 3);
  EXPECT_LT(std::exp(double(log_h.item())), 1);
}

TEST(Kernel, TheLayerIsTheFormula) {
  for (SmoothingKernel kernel : kAll) {
    manual_seed(4);
    KernelAttention attend(8, 2, {.common = {.bias = false}, .kernel = kernel, .bandwidth = 1.5});
    Tensor x = normal({1, 5, 8}), qkv = reshape(attend.qkv(x), {5, 24});
    Tensor expected = zeros({5, 8});
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 5; ++i) {
        double total = 0;
        std::vector<double> sums(4);
        for (int64_t j = 0; j <= i; ++j) {
          double rho2 = 0;
          for (int64_t c = 0; c < 4; ++c) {
            double difference = double(qkv.at({i, h * 4 + c})) - double(qkv.at({j, 8 + h * 4 + c}));
            rho2 += difference * difference;
          }
          const double w = weight(kernel, std::sqrt(rho2), 1.5);
          total += w;
          for (int64_t c = 0; c < 4; ++c) sums[size_t(c)] += w * double(qkv.at({j, 16 + h * 4 + c}));
        }
        for (int64_t c = 0; c < 4; ++c) expected.set({i, h * 4 + c}, Real(total > 0 ? sums[size_t(c)] / total : 0));
      }
    }
    expect_near(attend(x), attend.proj(unsqueeze(expected, 0)));
  }
}

TEST(Kernel, TheLayerHasGradientsAndACache) {
  for (SmoothingKernel kernel : kAll) {
    manual_seed(5);
    KernelAttention attend(8, 2, {.common = {.key_value_heads = 1}, .kernel = kernel});
    ASSERT_TRUE(attend.has_cache());
    Tensor x = normal({2, 6, 8});
    backward(sum(attend(x) * normal(x.shape)));
    EXPECT_EQ(attend.parameters().back().name, "kernel.log_bandwidth");
    EXPECT_TRUE(gradient(attend.parameters().back().tensor));
    EvalMode eval;
    KeyValueCache cache(6);
    Tensor whole = attend(x);
    expect_near(attend.step(slice(x, 1, 0, 4), cache), slice(whole, 1, 0, 4));
    expect_near(attend.step(slice(x, 1, 4, 6), cache), slice(whole, 1, 4, 6));
  }
  EXPECT_THROW(KernelAttention(8, 2, {.bandwidth = -1}), Error);
  if (sizeof(Real) == 4) return;
  KernelAttention attend(8, 2);
  auto result =
      grad_check([&](const std::vector<Tensor>& x) { return attend(x[0]); }, {normal({1, 5, 8})}, {.step = 1e-4});
  EXPECT_TRUE(result) << result.message;
}

}  // namespace
}  // namespace rapt
