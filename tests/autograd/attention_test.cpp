#include <gtest/gtest.h>
#include <rapt/autograd/grad_check.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>

#include "../expect.h"
#include "attention_variants.h"

namespace rapt {
namespace {

AttentionSetting setting(const AttentionSizes& sizes, const Mask& mask = {}) {
  return {"", sizes, [mask](const AttentionSizes&) { return mask; }};
}

void expect_close(const AttentionOutcome& got, const AttentionOutcome& expected, double tolerance) {
  EXPECT_LE(relative_difference(got.out, expected.out), tolerance) << "out";
  EXPECT_LE(relative_difference(got.lse, expected.lse), tolerance) << "lse";
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  for (size_t i = 0; i < got.gradients.size(); ++i)
    EXPECT_LE(relative_difference(got.gradients[i], expected.gradients[i]), tolerance) << "gradient of input " << i;
}

void expect_same_bits(const AttentionOutcome& a, const AttentionOutcome& b) {
  EXPECT_EQ(a.out.to_vector(), b.out.to_vector());
  EXPECT_EQ(a.lse.to_vector(), b.lse.to_vector());
  for (size_t i = 0; i < a.gradients.size(); ++i)
    EXPECT_EQ(a.gradients[i].to_vector(), b.gradients[i].to_vector()) << "gradient of input " << i;
}

// The variants whose weights jump or bend where float and another order of sums may choose differently are compared in
// double alone.
constexpr double kTileTolerance = kDouble ? 1e-11 : 5e-5;

class EachVariant : public testing::TestWithParam<AttentionVariant> {};

TEST_P(EachVariant, TilesAgreeWithDense) {
  for (int64_t size : {9, 70}) {
    for (const AttentionSetting& s : attention_settings(size)) {
      SCOPED_TRACE(fmt::format("{}, size {}", s.name, size));
      expect_close(attend(GetParam(), s, false), attend(GetParam(), s, true), kTileTolerance);
    }
  }
}

TEST_P(EachVariant, GradientsAreDerivatives) {
  if (!kDouble) GTEST_SKIP() << "needs double";
  if (GetParam().straight_through) GTEST_SKIP() << "straight through: not the derivative, on purpose";
  for (const AttentionSetting& s : attention_settings(6)) {
    if (s.sizes.keys == 1) continue;  // many gradients are 0 with one key
    for (bool dense : {false, true}) {
      if (dense && s.name != "causal, rows without keys") continue;  // element by element, which takes a while
      SCOPED_TRACE(fmt::format("{}{}", s.name, dense ? ", dense" : ""));
      AttentionCase c = make_case(GetParam(), s.sizes);
      auto objective = [&](const std::vector<Tensor>& x) {
        return attention_objective(GetParam(), s, c.with(x), dense);
      };
      GradCheckResult result =
          grad_check(objective, c.inputs(), {.step = 1e-4, .directional = !dense, .allow_zero = true});
      EXPECT_TRUE(result.ok) << result.message;
    }
  }
}

TEST_P(EachVariant, SameBitsForAnyNumberOfThreads) {
  int saved = threads();
  AttentionSetting s = setting({.batch = 2, .heads = 4, .kv_heads = 2, .queries = 150, .keys = 200}, causal());
  set_threads(1);
  AttentionOutcome one = attend(GetParam(), s, false);
  for (int count : {2, 3, 8}) {
    set_threads(count);
    expect_same_bits(attend(GetParam(), s, false), one);
  }
  set_threads(saved);
}

// No rows, no keys, no batch: results and gradients of whatever there is are 0.
TEST_P(EachVariant, EmptySizes) {
  for (AttentionSizes sizes : {AttentionSizes{.queries = 0}, AttentionSizes{.keys = 0},
                               AttentionSizes{.queries = 0, .keys = 0}, AttentionSizes{.batch = 0}}) {
    SCOPED_TRACE(fmt::format("B {}, N {}, M {}", sizes.batch, sizes.queries, sizes.keys));
    AttentionOutcome outcome = attend(GetParam(), setting(sizes), false);
    EXPECT_EQ(outcome.out.shape, (Shape{sizes.batch, sizes.heads, sizes.queries, sizes.value_dim}));
    for (Real y : outcome.out.to_vector()) EXPECT_EQ(y, 0);
    for (const Tensor& g : outcome.gradients) {
      const bool sink = GetParam().name.find("sink") != std::string::npos && g.rank() == 1;  // has the lse's
      for (Real x : g.to_vector()) EXPECT_TRUE(sink ? std::isfinite(x) : x == 0) << x;
    }
  }
}

// What comes later must not touch a bit of what came before.
TEST_P(EachVariant, KeepsTheCausalPrefix) {
  if (GetParam().name.starts_with("inverted")) GTEST_SKIP() << "keys are shared out among all queries";
  const int64_t n = 130;
  AttentionSetting s = setting({.queries = n, .keys = n}, causal());
  for (int64_t cut : {1, 63, 100}) {
    AttentionCase a = make_case(GetParam(), s.sizes), b = make_case(GetParam(), s.sizes);
    for (Tensor* t : {&b.q, &b.k, &b.v}) {
      Tensor later = view::slice(t->detach(), 2, cut, n);
      copy_into(later, normal(later.shape, 0, 3));
    }
    NoGrad no_grad;
    Tensor x = attention(a.q, a.k, a.v, options_of(GetParam(), s, a)),
           y = attention(b.q, b.k, b.v, options_of(GetParam(), s, b));
    EXPECT_EQ(slice(x, 2, 0, cut).to_vector(), slice(y, 2, 0, cut).to_vector()) << cut;
  }
}

// NaN and infinities in keys and values that are masked reach nothing.
TEST_P(EachVariant, MaskedNanStaysOut) {
  const int64_t n = 70;
  Tokens padding;
  padding.shape = {1, n};
  for (int64_t j = 0; j < n; ++j) padding.ids.push_back(j == 5 || j > 66);
  AttentionSetting s = setting({.queries = n, .keys = n}, key_padding(padding));
  AttentionCase a = make_case(GetParam(), s.sizes), b = make_case(GetParam(), s.sizes);
  for (int64_t j : {5, 67, 69}) {
    Tensor k = b.k.detach(), v = b.v.detach();
    k.set({0, 0, j, 0}, kNan);
    v.set({0, 1, j, 0}, j == 67 ? kInf : kNan);
  }
  auto run = [&](const AttentionCase& c) {
    backward(attention_objective(GetParam(), s, c, false));
    return gradient(c.q);
  };
  EXPECT_LE(relative_difference(run(b), run(a)), kTileTolerance);  // NaN never is
}

INSTANTIATE_TEST_SUITE_P(Attention, EachVariant, testing::ValuesIn(attention_variants()), [](const auto& each) {
  std::string name = each.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace rapt
