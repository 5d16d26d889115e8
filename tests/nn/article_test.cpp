#include "../../nn/attention/article.h"

#include <gtest/gtest.h>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

// The formula, written out.
Tensor by_hand(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  return matmul(softmax(matmul(q, transpose(k, -1, -2)) * scale), v);
}

TEST(Article, WithoutWeights) {
  manual_seed(1);
  Tensor x = normal({6, 3});
  expect_near(attention_without_weights(x), by_hand(x, x, x, 1));
  Tensor several = normal({2, 6, 3});
  expect_near(attention_without_weights(several), by_hand(several, several, several, 1));
}

TEST(Article, SelfAttentionIsTheFormula) {
  manual_seed(2);
  for (bool bias : {false, true}) {
    SelfAttention attend(5, 4, 7, bias);
    EXPECT_EQ(attend.parameters().size(), bias ? 6u : 3u);
    Tensor x = normal({6, 5}), y = attend(x);
    EXPECT_EQ(y.shape, Shape({6, 7}));
    expect_near(y, by_hand(attend.query(x), attend.key(x), attend.value(x), 0.5));
    // several sequences at once are each the same
    Tensor both = attend(stack(std::vector<Tensor>{x, x * 2}, 0));
    expect_near(select(both, 0, 0), y);
    expect_near(select(both, 0, 1), attend(x * 2));
  }
}

TEST(Article, CausalAttentionReadsWhatCameBefore) {
  manual_seed(3);
  CausalAttention attend(5, 4, 7, 8);
  SelfAttention all(5, 4, 7);
  load_parameters(all.parameters(), attend.parameters());
  Tensor x = normal({6, 5}), y = attend(x);
  for (int64_t n : {1, 3, 6}) {
    Tensor prefix = slice(x, 0, 0, n);  // its last row reads every row
    expect_near(select(y, 0, n - 1), select(all(prefix), 0, n - 1));
  }
  EXPECT_THROW(attend(normal({9, 5})), Error);
  EXPECT_THROW(attend(normal({2, 9, 5})), Error);
}

TEST(Article, DropoutIsForTraining) {
  manual_seed(4);
  CausalAttention attend(5, 4, 7, 8, 0.5), without(5, 4, 7, 8);
  load_parameters(without.parameters(), attend.parameters());
  Tensor x = normal({8, 5});
  EXPECT_NE(attend(x).to_vector(), without(x).to_vector());
  EvalMode eval;
  EXPECT_EQ(attend(x).to_vector(), without(x).to_vector());
}

TEST(Article, TheWrapperPutsHeadsSideBySide) {
  manual_seed(5);
  MultiHeadAttentionWrapper<> several(3, 5, 4, 2);
  EXPECT_EQ(several.parameters().front().name, "heads.0.query.weight");
  EXPECT_EQ(several.parameters().size(), 9u);
  Tensor x = normal({2, 6, 5}), y = several(x);
  EXPECT_EQ(y.shape, Shape({2, 6, 6}));
  expect_near(slice(y, -1, 2, 4), several.heads[1](x));
  MultiHeadAttentionWrapper<CausalAttention> causal_heads(2, 5, 4, 3, 8, 0.1);
  EXPECT_EQ(causal_heads(x).shape, Shape({2, 6, 6}));
  EXPECT_THROW(MultiHeadAttentionWrapper<>(0, 5, 4, 2), Error);
}

TEST(Article, CrossAttentionReadsTheContext) {
  manual_seed(6);
  CrossAttention attend(5, 4, 7);
  Tensor x = normal({3, 5}), context = normal({8, 5});
  expect_near(attend(x, context), by_hand(attend.query(x), attend.key(context), attend.value(context), 0.5));
  EXPECT_EQ(attend(normal({2, 3, 5}), normal({2, 8, 5})).shape, Shape({2, 3, 7}));
  EXPECT_THROW(attend(x, normal({2, 8, 5})), Error);
}

TEST(Article, Gradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  manual_seed(7);
  SelfAttention self(3, 2, 4);
  CausalAttention causal_one(3, 2, 4, 5);
  CrossAttention cross(3, 2, 4);
  using In = const std::vector<Tensor>&;
  auto expect_right = [](const char* name, auto f, const std::vector<Tensor>& inputs) {
    auto result = grad_check(f, inputs);
    EXPECT_TRUE(result) << name << ": " << result.message;
  };
  expect_right("none", [](In x) { return attention_without_weights(x[0]); }, {normal({5, 3})});
  expect_right("self", [&](In x) { return self(x[0]); }, {normal({2, 5, 3})});
  expect_right("causal", [&](In x) { return causal_one(x[0]); }, {normal({5, 3})});
  expect_right("cross", [&](In x) { return cross(x[0], x[1]); }, {normal({5, 3}), normal({4, 3})});
}

}  // namespace
}  // namespace rapt
