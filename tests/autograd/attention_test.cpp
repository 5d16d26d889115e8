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
    std::vector<Tensor> gradients;
    for (const Tensor& x : c.inputs()) gradients.push_back(gradient(x));
    return gradients;
  };
  std::vector<Tensor> expected = run(a), got = run(b);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(relative_difference(got[i], expected[i]), kTileTolerance) << "input " << i;  // NaN never is
  }
  NoGrad no_grad;
  EXPECT_LE(relative_difference(attention_dense(b.q, b.k, b.v, options_of(GetParam(), s, b)),
                                attention_dense(a.q, a.k, a.v, options_of(GetParam(), s, a))),
            kTileTolerance)
      << "dense";
}

// NaN in a query, key or value reaches the rows that read it and no others; and on the way back the keys that those
// rows read and no others.
TEST_P(EachVariant, NanReachesTheRowsThatReadIt) {
  if (GetParam().name.starts_with("inverted")) GTEST_SKIP() << "keys are shared out among all queries";
  if (GetParam().name.starts_with("prefix or")) GTEST_SKIP() << "has a mask of its own";
  const int64_t n = 70, at = 40, behind = GetParam().name.starts_with("stick") ? 1 : 0;
  const int64_t reach = GetParam().name.starts_with("window") ? 5 : n;
  const bool mixes_heads = GetParam().name.starts_with("talking");
  AttentionSetting s = setting({.queries = n, .keys = n}, causal());
  auto spoilt = [](const Tensor& x, int64_t h, int64_t row) {
    bool any = false;
    for (int64_t c = 0; c < x.shape[3]; ++c) any |= std::isnan(x.at({0, h, row, c}));
    return any;
  };
  for (int part = 0; part < 2; ++part) {  // q, k
    AttentionCase c = make_case(GetParam(), s.sizes);
    (part == 0 ? c.q : c.k).detach().set({0, 0, at, 2}, kNan);
    AttentionResult r;
    backward(attention_objective(GetParam(), s, c, false, &r));
    auto reads = [&](int64_t i) { return part == 0 ? i == at : i >= at + behind && i <= at + reach; };
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t h = 0; h < 2; ++h) {
        const bool expected = reads(i) && (h == 0 || mixes_heads);
        EXPECT_EQ(spoilt(r.out, h, i), expected) << "part " << part << ", head " << h << ", row " << i;
        EXPECT_FALSE(spoilt(gradient(c.q), h, i) && !expected) << "dq, part " << part << ", row " << i;
        bool later = true;  // no spoilt row reads this key
        for (int64_t row = i + behind; row < n && row <= i + reach; ++row) later &= !reads(row);
        EXPECT_FALSE(later && spoilt(gradient(c.v), h, i)) << "dv, part " << part << ", key " << i;
        EXPECT_FALSE(later && spoilt(gradient(c.k), h, i)) << "dk, part " << part << ", key " << i;
      }
    }
  }
}

// The same of every gradient, the captured tensors' included: whatever has no NaN in the dense form has none in tiles.
// The window leaves rows in the spoilt tiles that are not spoilt, and masked keys of spoilt rows in the tiles beside.
TEST_P(EachVariant, NanReachesNoMoreThanInTheDenseForm) {
  const int64_t n = 150;
  for (const Mask& mask : {causal(), causal() & window(10, 0)}) {
    AttentionSetting s = setting({.queries = n, .keys = n}, mask);
    for (size_t part = 0; part < 3; ++part) {  // q, k, v
      auto gradients = [&](bool dense) {
        AttentionCase c = make_case(GetParam(), s.sizes);
        c.inputs()[part].detach().set({0, 0, 60, 2}, kNan);
        backward(attention_objective(GetParam(), s, c, dense));
        std::vector<std::vector<Real>> all;
        for (const Tensor& x : c.inputs()) all.push_back(gradient(x).to_vector());
        return all;
      };
      const std::vector<std::vector<Real>> tiled = gradients(false), dense = gradients(true);
      for (size_t input = 0; input < dense.size(); ++input) {
        if (input == 3 && GetParam().name == "contextual positions") continue;  // which positions NaN is between
        int64_t spilt = 0;
        for (size_t i = 0; i < dense[input].size(); ++i) {
          spilt += std::isnan(tiled[input][i]) && !std::isnan(dense[input][i]);
        }
        EXPECT_EQ(spilt, 0) << "gradient of input " << input << ", NaN in " << part << ", " << mask.name();
      }
    }
  }
}

// What rows before a key send back never reaches it.
TEST_P(EachVariant, KeysIgnoreTheGradientsOfEarlierRows) {
  if (GetParam().name.starts_with("inverted")) GTEST_SKIP() << "keys are shared out among all queries";
  if (GetParam().name.starts_with("prefix or")) GTEST_SKIP() << "reads ahead";
  const int64_t n = 130, cut = 100;
  AttentionSetting s = setting({.queries = n, .keys = n}, causal());
  auto run = [&](double factor) {
    AttentionCase c = make_case(GetParam(), s.sizes);
    Tensor y = attention(c.q, c.k, c.v, options_of(GetParam(), s, c)), dy = normal(y.shape);
    Tensor before = view::slice(dy, 2, 0, cut);
    copy_into(before, (before * factor).detach());
    backward(y, dy);
    return std::pair(slice(gradient(c.k), 2, cut, n).to_vector(), slice(gradient(c.v), 2, cut, n).to_vector());
  };
  auto a = run(1), b = run(-3);
  EXPECT_EQ(a.first, b.first);
  EXPECT_EQ(a.second, b.second);
}

INSTANTIATE_TEST_SUITE_P(Attention, EachVariant, testing::ValuesIn(attention_variants()), [](const auto& each) {
  std::string name = each.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace rapt
