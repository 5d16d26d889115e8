#include "../../nn/attention/differential.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

// The paper's listing, one head after the other.
Tensor by_hand(const DifferentialAttention& m, const Tensor& x) {
  const int64_t D = m.half, N = x.shape[0];
  auto at = [](const Tensor& t, int64_t i) { return double(t.at({i})); };
  double ab = 0, cd = 0;
  for (int64_t i = 0; i < D; ++i) {
    ab += at(m.lambda_q1, i) * at(m.lambda_k1, i);
    cd += at(m.lambda_q2, i) * at(m.lambda_k2, i);
  }
  const double lambda = std::exp(ab) - std::exp(cd) + m.lambda_init;
  Tensor future = zeros({N, N});
  for (int64_t i = 0; i < N && m.causal; ++i) {
    for (int64_t j = i + 1; j < N; ++j) future.set({i, j}, -1e9);
  }
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < m.heads; ++h) {
    const int64_t g = h / (m.heads / m.key_value_heads);
    auto weights = [&](int64_t i) {
      Tensor q = slice(m.q(x), 1, (2 * h + i) * D, (2 * h + i + 1) * D);
      Tensor k = slice(m.k(x), 1, (2 * g + i) * D, (2 * g + i + 1) * D);
      return softmax(matmul(q, transpose(k, 0, 1)) / std::sqrt(double(D)) + future);
    };
    Tensor y = matmul(weights(0) - lambda * weights(1), slice(m.v(x), 1, g * 2 * D, (g + 1) * 2 * D));
    heads.push_back(y / sqrt(mean(y * y, {-1}, true) + 1e-5) * m.norm.weight * (1 - m.lambda_init));
  }
  return m.proj(cat(heads, 1));
}

TEST(Differential, IsTheFormula) {
  for (const DifferentialOptions& o : std::vector<DifferentialOptions>{
           {}, {.key_value_heads = 2, .depth = 3}, {.depth = 1, .causal = false, .bias = true}}) {
    manual_seed(1);
    DifferentialAttention attend(16, 4, o);
    Tensor x = normal({2, 6, 16}), y = attend(x);
    for (int64_t b : {0, 1}) expect_near(select(y, 0, b), by_hand(attend, select(x, 0, b)));
  }
}

TEST(Differential, LambdaByDepth) {
  EXPECT_NEAR(DifferentialAttention(8, 2).lambda_init, 0.2, 1e-12);
  EXPECT_NEAR(DifferentialAttention(8, 2, {.depth = 2}).lambda_init, 0.8 - 0.6 * std::exp(-0.6), 1e-12);
  manual_seed(2);
  EXPECT_NEAR(DifferentialAttention(64, 2).lambda().item(), 0.2, 0.3);
}

TEST(Differential, StepByStepIsTheWhole) {
  for (const DifferentialOptions& o :
       std::vector<DifferentialOptions>{{}, {.key_value_heads = 1, .rotary = RotaryOptions{}}}) {
    manual_seed(3);
    DifferentialAttention attend(16, 2, o);
    ASSERT_TRUE(attend.has_cache());
    EvalMode eval;
    Tensor x = normal({2, 9, 16}), whole = attend(x);
    KeyValueCache cache(9);
    int64_t from = 0;
    for (int64_t to : {5, 6, 9}) {
      expect_near(attend.step(slice(x, 1, from, to), cache), slice(whole, 1, from, to));
      from = to;
    }
  }
  DifferentialAttention two_sided(16, 2, {.causal = false});
  KeyValueCache cache(9);
  EXPECT_FALSE(two_sided.has_cache());
  EXPECT_THROW(two_sided.step(normal({2, 1, 16}), cache), Error);
}

TEST(Differential, Gradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  manual_seed(4);
  DifferentialAttention attend(8, 2, {.depth = 1, .rotary = RotaryOptions{}});
  auto result =
      grad_check([&](const std::vector<Tensor>& x) { return attend(x[0]); }, {normal({1, 5, 8})}, {.step = 1e-4});
  EXPECT_TRUE(result) << result.message;
  // λ's vectors, against differences
  Tensor x = normal({1, 5, 8}), c = normal({1, 5, 8});
  attend.zero_gradients();
  backward(sum(attend(x) * c));
  for (Tensor p : {attend.lambda_q1, attend.lambda_k1, attend.lambda_q2, attend.lambda_k2}) {
    NoGrad no_grad;
    Tensor values = p.detach();
    const Real value = values.at({1}), h = Real(1e-4);
    auto at = [&](Real shift) {
      values.set({1}, value + shift);
      return double(sum(attend(x) * c).item());
    };
    double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * double(h));
    values.set({1}, value);
    EXPECT_NE(numeric, 0);
    EXPECT_NEAR(gradient(p).at({1}), numeric, 1e-8);
  }
}

TEST(Differential, BadArguments) {
  EXPECT_THROW(DifferentialAttention(8, 8), Error);  // no two halves
  EXPECT_THROW(DifferentialAttention(8, 0), Error);
  EXPECT_THROW(DifferentialAttention(16, 4, {.key_value_heads = 3}), Error);
  EXPECT_THROW(DifferentialAttention(16, 4, {.depth = -1}), Error);
}

}  // namespace
}  // namespace rapt
