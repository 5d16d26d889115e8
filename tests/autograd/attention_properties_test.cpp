#include <gtest/gtest.h>
#include <rapt/autograd/grad_check.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/storage.h>
#include <rapt/core/view.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cmath>

#include "../expect.h"
#include "attention_variants.h"

namespace rapt {
namespace {

constexpr double kPropertyTolerance = kDouble ? 1e-12 : 2e-5;

struct Leaves {
  Tensor q, k, v;
  explicit Leaves(int64_t queries = 70, int64_t keys = 70, int64_t heads = 2, int64_t dim = 8, uint64_t seed = 5) {
    manual_seed(seed);
    q = requires_grad(normal({2, heads, queries, dim}));
    k = requires_grad(normal({2, heads, keys, dim}));
    v = requires_grad(normal({2, heads, keys, dim}));
  }
};

// Two ways to compute the same: equal results, and equal gradients of q, k, v.
void expect_same(const std::function<Tensor(const Leaves&)>& f, const std::function<Tensor(const Leaves&)>& g,
                 int64_t queries = 70, int64_t keys = 70) {
  Leaves a(queries, keys), b(queries, keys);
  Tensor x = f(a), y = g(b);
  EXPECT_LE(relative_difference(x, y), kPropertyTolerance) << "result";
  manual_seed(8);
  Tensor c = normal(x.shape);
  backward(x, c);
  backward(y, c);
  EXPECT_LE(relative_difference(gradient(a.q), gradient(b.q)), kPropertyTolerance) << "dq";
  EXPECT_LE(relative_difference(gradient(a.k), gradient(b.k)), kPropertyTolerance) << "dk";
  EXPECT_LE(relative_difference(gradient(a.v), gradient(b.v)), kPropertyTolerance) << "dv";
}

Tensor attend(const Leaves& x, const AttentionOptions& o) { return attention(x.q, x.k, x.v, o); }

TEST(AttentionIdentity, PlusOneIsASinkOfZero) {
  expect_same([](const Leaves& x) { return attend(x, {.normalizer = softmax_plus_one(2)}); },
              [](const Leaves& x) { return attend(x, {.normalizer = softmax_with_sink(zeros({2}))}); });
}

// A sink is a gate: σ(L − a) · O.
TEST(AttentionIdentity, SinkIsAGate) {
  Tensor sink = from_values({2}, {0.5, -1});
  expect_same([&](const Leaves& x) { return attend(x, {.mask = causal(), .normalizer = softmax_with_sink(sink)}); },
              [&](const Leaves& x) {
                AttentionResult r = attention_with_lse(x.q, x.k, x.v, {.mask = causal()});
                return r.out * unsqueeze(sigmoid(r.lse - reshape(sink, {2, 1})), 3);
              });
}

TEST(AttentionIdentity, AlibiIsATableOfDistances) {
  Tensor slopes = from_values({2}, {0.3, 0.1}), table = empty({2, 139});
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t d = 0; d < 139; ++d) table.set({h, d}, -slopes.at({h}) * Real(std::abs(d - 69)));
  }
  expect_same([&](const Leaves& x) { return attend(x, {.score = alibi(slopes)}); },
              [&](const Leaves& x) { return attend(x, {.score = relative_bias(table)}); });
}

TEST(AttentionIdentity, TemperatureScalesQueries) {
  Tensor t = from_values({2, 1, 1}, {0.7, 1.9});
  expect_same([&](const Leaves& x) { return attend(x, {.score = temperature(t)}); },
              [&](const Leaves& x) { return attention(x.q * t, x.k, x.v); });
}

// exp(−|q − k|²/2h²) is a softmax of q·k/h² with a bias on each key.
TEST(AttentionIdentity, GaussianKernelIsASoftmaxWithABias) {
  auto squares = [](const Tensor& x) { return sum(x * x, {-1}); };
  Tensor h = from_values({2}, {1.5, 2});
  expect_same(
      [&](const Leaves& x) { return attend(x, {.score = gaussian_kernel(squares(x.q), squares(x.k), h), .scale = 1}); },
      [&](const Leaves& x) {
        Tensor inverse = reshape(1 / (h * h), {2, 1, 1});
        Tensor key_bias = unsqueeze(squares(x.k) * squeeze(inverse, 2) * -0.5, 2);
        return attend(x, {.score = temperature(inverse) | bias(key_bias), .scale = 1});
      });
}

TEST(AttentionIdentity, WideSoftcapIsNothing) {
  expect_same([](const Leaves& x) { return attend(x, {.score = softcap(kDouble ? 1e7 : 1e4)}); },
              [](const Leaves& x) { return attend(x, {}); });
}

TEST(AttentionIdentity, TalkingHeadsThatDoNotTalk) {
  expect_same(
      [](const Leaves& x) { return attend(x, {.mask = causal(), .normalizer = talking_heads(eye(2), eye(2))}); },
      [](const Leaves& x) { return attend(x, {.mask = causal()}); });
}

TEST(AttentionIdentity, TopAllIsEverything) {
  expect_same([](const Leaves& x) { return attend(x, {.mask = causal(), .normalizer = top_k(70)}); },
              [](const Leaves& x) { return attend(x, {.mask = causal()}); });
}

TEST(AttentionIdentity, RepeatedHeadsAreGroups) {
  auto first = [](const Tensor& x) { return slice(x, 1, 0, 1); };
  expect_same([&](const Leaves& x) { return attention(x.q, first(x.k), first(x.v), {.mask = causal()}); },
              [&](const Leaves& x) {
                return attention(x.q, repeat_heads(first(x.k), 2), repeat_heads(first(x.v), 2), {.mask = causal()});
              });
}

// Keys in two parts, merged by their log-sum-exps, are the whole; also backwards.
TEST(AttentionIdentity, PartsMergeByLogSumExp) {
  expect_same([](const Leaves& x) { return attend(x, {}); },
              [](const Leaves& x) {
                auto part = [&](int64_t begin, int64_t end) {
                  return attention_with_lse(x.q, slice(x.k, 2, begin, end), slice(x.v, 2, begin, end));
                };
                AttentionResult a = part(0, 31), b = part(31, 70);
                Tensor both = stack(std::vector<Tensor>{a.lse, b.lse}, -1), total = logsumexp(both, -1);
                return a.out * unsqueeze(exp(a.lse - total), 3) + b.out * unsqueeze(exp(b.lse - total), 3);
              });
}

// Σ_j dS_ij is the gradient of a bias on the query: dL for a softmax, 0 without it.
TEST(AttentionIdentity, RowsOfScoreGradientsSumToTheGradientOfTheLogSumExp) {
  Leaves x;
  Tensor b = requires_grad(zeros({2, 2, 70, 1}));
  AttentionResult r = attention_with_lse(x.q, x.k, x.v, {.score = bias(b)});
  manual_seed(3);
  Tensor dlse = normal(r.lse.shape);
  backward(sum(r.out * normal(r.out.shape)) + sum(r.lse * dlse));
  EXPECT_LE(relative_difference(squeeze(gradient(b), 3), dlse), kPropertyTolerance * 10);
}

// … and p D + (1 − p) dL with a sink of weight p.
TEST(AttentionIdentity, RowsOfScoreGradientsWithASink) {
  Leaves x;
  Tensor b = requires_grad(zeros({2, 2, 70, 1})), sink = from_values({2}, {0.5, -1});
  AttentionResult r = attention_with_lse(x.q, x.k, x.v, {.score = bias(b), .normalizer = softmax_with_sink(sink)});
  manual_seed(3);
  Tensor dout = normal(r.out.shape), dlse = normal(r.lse.shape);
  backward(sum(r.out * dout) + sum(r.lse * dlse));
  NoGrad no_grad;
  Tensor p = exp(reshape(sink, {2, 1}) - r.lse), D = sum(r.out * dout, {-1});
  EXPECT_LE(relative_difference(squeeze(gradient(b), 3), p * D + (1 - p) * dlse), kPropertyTolerance * 10);
}

// Σ over the heads of P dP is Σ of dO · O, also where the weights are mixed: the gradient of a factor on all of them.
TEST(AttentionIdentity, TalkingHeadsKeepTheSumOfTheirProducts) {
  Leaves x;
  manual_seed(4);
  Tensor before = normal({2, 2}), after = requires_grad(normal({2, 2}));
  Tensor y = attend(x, {.mask = causal(), .normalizer = talking_heads(before, after)}), dy = normal(y.shape);
  backward(y, dy);
  NoGrad no_grad;
  EXPECT_LE(relative_difference(sum(gradient(after) * after), sum(dy * y)), kPropertyTolerance * 10);
}

// What tiles refuse is computed by the dense twin: against the formulas.
TEST(AttentionDense, TakesWhatTilesRefuse) {
  Leaves x(9, 9);
  NoGrad no_grad;
  manual_seed(2);
  Tensor rq = normal({2, 2, 9, 8}), rk = normal({2, 17, 8}), rv = normal({5, 8}), mix = normal({2, 2});
  auto expect = [&](const AttentionOptions& o, const Tensor& scores, const std::function<Tensor(const Tensor&)>& f) {
    EXPECT_NE(error_of([&] { attend(x, o); }).find("use attention_dense"), std::string::npos);
    Tensor weights = f(scores), values = zeros({2, 2, 9, 8});
    for (int64_t e = 0; e < values.numel(); ++e) {
      int64_t b = e / 144, h = e / 72 % 2, i = e / 8 % 9, c = e % 8;
      Real sum = 0;
      for (int64_t j = 0; j < 9; ++j) {
        Real v = x.v.at({b, h, j, c});
        if (o.relative_values) v += rv.at({std::clamp<int64_t>(j - i, -2, 2) + 2, c});
        sum += weights.at({b, h, i, j}) * v;
      }
      values.set({b, h, i, c}, sum);
    }
    EXPECT_LE(relative_difference(attention_dense(x.q, x.k, x.v, o), values), kPropertyTolerance);
  };
  const double scale = 1 / std::sqrt(8.0);
  Tensor plain = matmul(x.q, transpose(x.k, -1, -2)) * scale, xl = clone(plain);
  for (int64_t e = 0; e < xl.numel(); ++e) {
    int64_t b = e / 162, h = e / 81 % 2, i = e / 9 % 9, j = e % 9;
    Real dot = 0;
    for (int64_t c = 0; c < 8; ++c) dot += rq.at({b, h, i, c}) * rk.at({h, j - i + 8, c});
    xl.set({b, h, i, j}, xl.at({b, h, i, j}) + dot * Real(scale));
  }
  expect({.normalizer = top_k(9), .relative_queries = rq, .relative_keys = rk}, xl,
         [](const Tensor& s) { return softmax(s); });
  auto mixed = [&](const Tensor& w) { return reshape(matmul(mix, reshape(w, {2, 2, 81})), {2, 2, 9, 9}); };
  expect({.normalizer = talking_heads(eye(2), mix), .relative_values = rv}, plain,
         [&](const Tensor& s) { return mixed(softmax(s)); });
  expect({.mask = strictly_causal(), .normalizer = stick_breaking(), .relative_queries = rq, .relative_keys = rk}, xl,
         [](const Tensor& s) {
           Tensor w = zeros(s.shape);
           for (int64_t e = 0; e < s.numel() / 9; ++e) {
             const int64_t i = e % 9;
             Real left = 1;
             for (int64_t j = i; j-- > 0;) {
               Real sigma = 1 / (1 + std::exp(-s.data()[e * 9 + j]));
               w.mutable_data()[e * 9 + j] = sigma * left;
               left *= 1 - sigma;
             }
           }
           return w;
         });
}

// The weights of far keys are 0 before they are denormal.
TEST(Attention, AlibiHasNoDenormalWeights) {
  manual_seed(2);
  Tensor q = normal({1, 1, 8, 4}), k = normal({1, 1, 4096, 4});
  for (Real w : attention_weights(q, k, {.mask = causal(), .score = alibi(ones({1}))}).to_vector())
    ASSERT_TRUE(w == 0 || std::isnormal(w)) << w;
}

// Tables whose shapes could be taken for those of a bias: several tasks add to each of their entries.
TEST(Attention, TablesWithTheShapeOfABiasHaveTheSameBitsForAnyNumberOfThreads) {
  const int64_t n = 511, heads = 511;
  auto shaw = [] {
    Leaves x(n, n, 1);
    Tensor table = requires_grad(normal({1, n, n}));
    Score read = score_modifier(
        [](auto s, At at, auto t) {
          return s + t(at.head, at.row, std::clamp<int64_t>(at.key - at.query, -255, 255) + 255);
        },
        table);
    backward(sum(attend(x, {.score = read}) * normal({2, 1, n, 8})));
    return gradient(table).to_vector();
  };
  auto forget = [] {  // (B, H, M) with H = N
    manual_seed(6);
    Tensor q = normal({1, heads, heads, 2}), k = normal({1, heads, heads, 2});
    Tensor table = requires_grad(normal({1, heads, heads}));
    backward(sum(attention(q, k, k, {.mask = window(9), .score = forget_gate(table)}) * normal(q.shape)));
    return gradient(table).to_vector();
  };
  int saved = threads();
  set_threads(1);
  const std::vector<Real> one = shaw(), one_forget = forget();
  for (int repetition = 0; repetition < 20; ++repetition) {
    set_threads(2 + repetition % 3);
    ASSERT_EQ(shaw(), one) << repetition;
    if (repetition < 3) {
      ASSERT_EQ(forget(), one_forget) << repetition;
    }
  }
  set_threads(saved);
}

// What is not a bias, in sizes where its tables look like one: as many heads as queries as keys as channels.
TEST(Attention, EveryTableWithTheShapeOfTheScoresHasTheSameBitsForAnyNumberOfThreads) {
  const int64_t n = 72;  // two tiles, so that two tasks meet in an entry
  const AttentionSizes sizes{.batch = 1, .heads = n, .kv_heads = 1, .queries = n, .keys = n, .dim = n, .value_dim = n};
  std::vector<AttentionVariant> variants = attention_variants();
  auto add = [&](const char* name, const Shape& table, auto options) {
    variants.push_back({name, [table](const AttentionSizes&) { return std::vector<Shape>{table}; },
                        [options](const AttentionCase& c) -> AttentionOptions { return options(c.tables[0]); }});
  };
  add("t5", {n, n}, [](const Tensor& t) { return AttentionOptions{.score = t5_bias(t, 64, true)}; });
  add("contextual", {1, n, n, n},
      [](const Tensor& t) { return AttentionOptions{.normalizer = contextual_positions(t)}; });
  add("shaw", {n, n, n}, [](const Tensor& t) {
    auto read = [](auto s, At at, auto x) {
      return s + x(at.head, at.row, std::clamp<int64_t>(at.key - at.query, -3, 3) + 3);
    };
    return AttentionOptions{.score = score_modifier(read, t)};
  });
  add("per row", {n, n}, [](const Tensor& t) {
    return AttentionOptions{.score = score_modifier([](auto s, At at, auto x) { return s + x(at.head, at.row); }, t)};
  });
  add("turned", {n, n}, [](const Tensor& t) {
    return AttentionOptions{.score = score_modifier([](auto s, At at, auto x) { return s + x(at.key, at.row); }, t)};
  });
  add("in its place, then turned", {n, n}, [](const Tensor& t) {
    auto turned = [](auto s, At at, auto x) { return s + x(at.head, at.key); };
    return AttentionOptions{.score = bias(t) | score_modifier(turned, t * 2)};
  });
  const AttentionSetting setting{"", sizes, [](const AttentionSizes&) { return Mask(); }};
  int saved = threads(), tested = 0;
  for (const AttentionVariant& variant : variants) {
    AttentionCase c = make_case(variant, sizes);
    const AttentionOptions o = options_of(variant, setting, c);
    const bool like_scores = std::ranges::any_of(o.tables(), [&](const Tensor& t) {
      return bind_table(nullptr, t.shape, {1, n, n, n}).like_scores();
    });
    if (!like_scores) continue;
    SCOPED_TRACE(variant.name);
    ++tested;
    set_threads(1);
    const AttentionOutcome one = attend(variant, setting, false);
    for (int count : {2, 3, 8}) {
      set_threads(count);
      const AttentionOutcome many = attend(variant, setting, false);
      for (size_t i = 0; i < one.gradients.size(); ++i)
        EXPECT_TRUE(many.gradients[i].to_vector() == one.gradients[i].to_vector())
            << "input " << i << ", threads " << count;
    }
    if (!kDouble) continue;
    const AttentionOutcome dense = attend(variant, setting, true);
    for (size_t i = 0; i < one.gradients.size(); ++i)
      EXPECT_LE(relative_difference(one.gradients[i], dense.gradients[i]), 1e-11) << "input " << i;
  }
  set_threads(saved);
  EXPECT_GE(tested, 14);
}

// A gradient as large as the scores is there once, beside the one that it is added to; read in its place or not.
TEST(Attention, ALargeTableOfALambdaHasNoCopies) {
  auto in_place = [](auto s, At at, auto t) { return s + t(at.row, at.key); };
  auto at = [](auto s, At place, auto t) { return s * t(place); };
  auto turned = [](auto s, At place, auto t) { return s + t(place.key, place.row); };
  auto memory = [](auto f, int64_t n) {
    manual_seed(2);
    Tensor q = normal({1, 2, n, 8}), table = requires_grad(normal({n, n})), dy = ones(q.shape);
    const AttentionOptions o{.score = score_modifier(f, table)};
    backward(attention(q, q, q, o), dy);  // what threads keep, and the sum of gradients, is there from now on
    release_cached_memory();
    const int64_t before = memory_stats().in_use;
    reset_peak_memory();
    backward(attention(q, q, q, o), dy);
    return double(memory_stats().peak - before) / double(n * n * int64_t(sizeof(Real)));
  };
  int saved = threads();
  set_threads(1);
  EXPECT_LE(memory(in_place, 1024), 1.5);
  EXPECT_LE(memory(at, 1024), 1.5);
  EXPECT_LE(memory(turned, 2048), 1.5);
  set_threads(saved);
}

TEST(Attention, RowsWithoutKeys) {
  Tokens padding;
  padding.shape = {2, 70};
  for (int64_t i = 0; i < 140; ++i) padding.ids.push_back(i >= 70);  // the second batch entry whole
  for (const AttentionVariant& variant : attention_variants()) {
    SCOPED_TRACE(variant.name);
    AttentionSetting s{"", {.queries = 70, .keys = 70}, [&](const AttentionSizes&) { return key_padding(padding); }};
    AttentionCase c = make_case(variant, s.sizes);
    for (Tensor t : {c.k.detach(), c.v.detach()}) t.set({1, 0, 3, 0}, kNan);
    AttentionResult r;
    backward(attention_objective(variant, s, c, false, &r));
    for (Real y : select(r.out, 0, 1).to_vector()) ASSERT_EQ(y, 0);
    for (Real g : select(gradient(c.q), 0, 1).to_vector()) ASSERT_EQ(g, 0);
    for (Real g : select(gradient(c.v), 0, 1).to_vector()) ASSERT_EQ(g, 0);
    bool sink = bool(options_of(variant, s, c).normalizer.sink);
    for (Real l : select(r.lse, 0, 1).to_vector()) {
      if (variant.has_lse) {
        ASSERT_TRUE(sink ? std::isfinite(l) : l == -kInf);
      }
    }
    if (variant.name == "sink") {
      for (int64_t h = 0; h < s.sizes.heads; ++h) EXPECT_EQ(r.lse.at({1, h, 0}), c.tables[0].at({h}));
    }
  }
}

// A NaN in a query reaches its own row; in a key, the rows that read it.
TEST(Attention, NanReachesTheRowsThatReadIt) {
  for (bool in_key : {false, true}) {
    Leaves x;
    Tensor t = (in_key ? x.k : x.q).detach();
    t.set({0, 0, 40, 2}, kNan);
    Tensor y = attend(x, {.mask = causal()});
    for (int64_t i = 0; i < 70; ++i) {
      EXPECT_EQ(std::isnan(y.at({0, 0, i, 0})), in_key ? i >= 40 : i == 40) << i;
      EXPECT_FALSE(std::isnan(y.at({0, 1, i, 0})));
    }
    backward(sum(y));
    for (int64_t i = 0; i < 70; ++i) {
      EXPECT_EQ(std::isnan(gradient(x.q).at({0, 0, i, 0})), in_key ? i >= 40 : i == 40) << i;
      // keys that the spoilt rows read
      EXPECT_EQ(std::isnan(gradient(x.k).at({0, 0, i, 0})), in_key || i <= 40) << i;
    }
  }
}

TEST(Attention, ExtremeScores) {
  for (const char* name : {"plain", "sink", "signed", "softcap", "alibi", "top-k", "entmax", "stick-breaking"}) {
    auto found = std::ranges::find_if(attention_variants(), [&](const AttentionVariant& v) { return v.name == name; });
    ASSERT_NE(found, attention_variants().end()) << name;
    AttentionSetting s{"", {.queries = 70, .keys = 90}, [](const AttentionSizes&) { return causal(); }};
    AttentionCase c = make_case(*found, s.sizes);
    for (Tensor t : {c.q.detach(), c.k.detach()}) copy_into(t, (t * 100).detach());  // scores of ±1e4
    AttentionResult r;
    backward(attention_objective(*found, s, c, false, &r));
    for (Real y : r.out.to_vector()) ASSERT_TRUE(std::isfinite(y)) << name;
    for (const Tensor& x : c.inputs()) {
      for (Real g : gradient(x).to_vector()) ASSERT_TRUE(std::isfinite(g)) << name;
    }
  }
}

// Peak memory of forward and backward, beyond what there was.
int64_t working_memory(const AttentionVariant& variant, int64_t n) {
  AttentionSetting s{"",
                     {.batch = 1, .heads = 2, .kv_heads = 2, .queries = n, .keys = n, .dim = 8, .value_dim = 8},
                     [](const AttentionSizes&) { return causal(); }};
  AttentionCase c = make_case(variant, s.sizes);
  Tensor dy = ones(c.q.shape);
  backward(attention(c.q, c.k, c.v, options_of(variant, s, c)), dy);  // what threads keep is there from now on
  AttentionOptions o = options_of(variant, s, c);
  release_cached_memory();
  int64_t before = memory_stats().in_use;
  reset_peak_memory();
  backward(attention(c.q, c.k, c.v, o), dy);
  return memory_stats().peak - before;
}

TEST(Attention, MemoryIsLinear) {
  int saved = threads();
  set_threads(1);  // each thread keeps memory for its largest task so far, which differs from run to run
  for (const AttentionVariant& variant : attention_variants()) {
    std::vector<Shape> tables = variant.tables({.queries = 1000, .keys = 1000});
    bool quadratic = std::ranges::any_of(tables, [](const Shape& t) { return t.numel() >= 1000 * 1000; });
    if (quadratic) continue;  // a bias for each query and key is as large as it is
    SCOPED_TRACE(variant.name);
    int64_t small = working_memory(variant, 1024), large = working_memory(variant, 2048);
    EXPECT_LE(double(large), 2.2 * double(small)) << small << " and " << large << " bytes";
    EXPECT_LT(large, 2 * 2048 * 2048 * int64_t(sizeof(Real)));
  }
  set_threads(saved);
}

TEST(Attention, WeightsAreThoseOfTheDenseTwin) {
  Leaves x(70, 90);
  Tensor sink = from_values({2}, {0.5, -1});
  const AttentionOptions cases[] = {{.mask = causal()},
                                    {.mask = window(9), .score = softcap(2) | alibi(ones({2}))},
                                    {.normalizer = softmax_with_sink(sink)},
                                    {.normalizer = signed_softmax()},
                                    {.normalizer = sigmoid_weights()},
                                    {.normalizer = relu_ratio(2)}};
  for (const AttentionOptions& o : cases) {
    Tensor weights = attention_weights(x.q, x.k, o);
    Tensor from_identity = attention_dense(x.q, x.k, expand(eye(90), {2, 2, 90, 90}), o);
    EXPECT_LE(relative_difference(weights, from_identity), kPropertyTolerance);
    EXPECT_LE(relative_difference(attention_weights(x.q, x.k, o, true), mean(from_identity, {1})), kPropertyTolerance);
  }
  EXPECT_THROW(attention_weights(x.q, x.k, {.normalizer = top_k(3)}), Error);
}

TEST(Attention, DropoutIsThatOfThePositions) {
  const int64_t n = 2000;
  WeightDropout dropout{0.3, 9, 4};
  Tensor q = zeros({1, 1, 3, 4}), k = zeros({1, 1, n, 4}), v = ones({1, 1, n, 1});
  Tensor kept = attention(q, k, v, {.dropout_state = dropout});
  for (Real y : kept.to_vector()) EXPECT_NEAR(y, 1, 0.05);  // the mean over many keys
  // the counter of the specification, entry by entry
  Tensor weights = attention_dense(q, k, expand(eye(n), {1, 1, n, n}), {.dropout_state = dropout});
  for (int64_t j : {0, 1, 2, 3, 4, 777, 1999}) {
    for (int64_t i = 0; i < 3; ++i) {
      auto word = philox({uint32_t(j / 4), uint32_t(i + n - 3), 0, 4}, 9)[size_t(j % 4)];
      EXPECT_EQ(weights.at({0, 0, i, j}) == 0, word < uint64_t(0.3 * 0x1p32));
    }
  }
  for (Real y : attention(q, k, v, {.dropout = 1}).to_vector()) EXPECT_EQ(y, 0);
  manual_seed(1);
  Tensor a = attention(q, k, v, {.dropout = 0.5}), b = attention(q, k, v, {.dropout = 0.5});
  EXPECT_NE(a.to_vector(), b.to_vector());  // each call draws its own
}

TEST(Attention, ExplainsItself) {
  const int64_t n = 4 * kTile;
  AttentionPlan plan = explain({1, 2, n, 8}, {1, 1, n, 8}, {1, 1, n, 8}, {.mask = causal()});
  EXPECT_EQ(plan.tiles, 32);
  EXPECT_EQ(plan.full, 12);
  EXPECT_EQ(plan.partial, 8);
  EXPECT_EQ(plan.skipped, 12);
  EXPECT_EQ(plan.kernel, "tiles");
  EXPECT_EQ(explain({1, 2, n, 8}, {1, 1, n, 8}, {1, 1, n, 8}, {.normalizer = entmax(1.5)}).kernel, "blocks of rows");
  EXPECT_NE(to_string(plan).find("12 full"), std::string::npos);
  const Shape shape{1, 2, n, 8};
  AttentionPlan one = explain(shape, shape, shape),
                both = explain(shape, shape, shape, {.normalizer = inverted_softmax()});
  EXPECT_EQ(both.tiles, 2 * one.tiles);  // of its two calls
  EXPECT_EQ(both.forward_tasks, 2 * one.forward_tasks);
  EXPECT_GT(both.forward_operations, 1.5 * one.forward_operations);
}

// Blocks of rows skip empty tiles inside the band, too: of modifiers and of both products with the keys.
TEST(Attention, BlocksOfRowsComputeNoEmptyTiles) {
  const int64_t n = 6 * kTile, dim = 4;
  const Tokens ids({1, n}, [&] {
    std::vector<int32_t> all;
    for (int64_t j = 0; j < n; ++j) all.push_back(int32_t(j * 5 / n));
    return all;
  }());
  Tokens padding({1, n}, std::vector<int32_t>(size_t(n), 0));
  std::fill_n(padding.ids.begin() + 2 * kTile, 2 * kTile, 1);
  const Mask masks[] = {window(9, 5), (window(9, 0) | global(3)) & causal(), document(ids), key_padding(padding)};
  const Normalizer normalizers[] = {top_k(3),
                                    hard_attention(),
                                    entmax(1.5),
                                    stick_breaking(),
                                    contextual_positions(zeros({1, 2, n, 3})),
                                    talking_heads(eye(2), eye(2))};
  int saved = threads();
  set_threads(1);  // whose floating-point flags these are
  for (const Normalizer& normalizer : normalizers) {
    for (const Mask& mask : masks) {
      SCOPED_TRACE(normalizer.name() + ", " + mask.name());
      std::atomic<int64_t> calls = 0;
      AttentionOptions o{.mask = mask, .normalizer = normalizer};
      if (normalizer.name() == "stick-breaking") o.mask = o.mask & strictly_causal();
      o.score = score_modifier([&calls](auto s, At) { return ++calls, s; });
      manual_seed(3);
      Tensor q = requires_grad(normal({1, 2, n, dim})), k = normal(q.shape), v = normal(q.shape), dy = full(q.shape, 2);
      if (mask.name() == key_padding(padding).name()) {  // keys and values that overflow in any product
        for (Tensor* x : {&k, &v}) {
          Tensor unread = view::slice(*x, 2, 2 * kTile, 4 * kTile);
          fill(unread, std::numeric_limits<Real>::max());
        }
        q = requires_grad(full(q.shape, 2));
      }
      const AttentionPlan plan = explain(q.shape, k.shape, v.shape, o);
      EXPECT_EQ(plan.kernel, "blocks of rows");
      EXPECT_GT(plan.skipped, 0);
      const int64_t scores = (plan.full + plan.partial) * kTile * kTile;
      std::feclearexcept(FE_ALL_EXCEPT);
      Tensor y = attention(q, k, v, o);
      EXPECT_LE(calls, scores) << "forward";
      backward(y, dy);
      EXPECT_LE(calls, 4 * scores) << "backward: scores again, their stages, their derivatives";
      EXPECT_FALSE(std::fetestexcept(FE_OVERFLOW | FE_INVALID));
    }
  }
  set_threads(saved);
}

TEST(Attention, SaysWhatDoesNotFit) {
  Leaves x;
  auto expect = [&](const AttentionOptions& o, const std::string& part) {
    std::string text = error_of([&] { attend(x, o); });
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(error_of([&] { attention_dense(x.q, x.k, x.v, o); }), "");
  };
  expect({.score = alibi(ones({3}))}, "alibi");
  expect({.score = relative_bias(ones({2, 70}))}, "distance");
  expect({.score = bias(ones({3, 70, 70}))}, "broadcast");
  expect({.score = forget_gate(ones({2, 2, 71}))}, "forget");
  expect({.normalizer = softmax_with_sink(ones({5}))}, "sink (H)");
  Normalizer sinking = relu_ratio(1);
  sinking.sink = ones({2});
  expect({.normalizer = sinking}, "no place for a sink");
  expect({.normalizer = talking_heads(ones({2, 2}), ones({2, 3}))}, "(H, H)");
  expect({.normalizer = contextual_positions(ones({2, 2, 70, 1}))}, "contextual");
  expect({.dropout = 1.5}, "probability");
  expect({.relative_values = ones({4, 8})}, "(2C + 1, Dv)");
  expect({.relative_keys = ones({2, 139, 8})}, "go together");
  Score outside = score_modifier([](auto s, At at, auto t) { return s + t[at.key]; }, ones({69}));
  expect({.score = outside}, "outside of its shape");
  Score twice = score_modifier([](auto s, At at, auto t) { return s + t[at.head] + t[0]; }, ones({2}));
  expect({.score = twice}, "twice");
  Score indices = score_modifier([](auto s, At at, auto t) { return s + t(at.head, 0); }, ones({2}));
  expect({.score = indices}, "number of indices");
  EXPECT_THROW(attention(x.q, slice(x.k, 2, 0, 3), x.v), Error);
  EXPECT_NE(error_of([&] { attention(x.q, x.k, slice(x.v, 3, 0, 0)); }).find("Dv must be at least 1"),
            std::string::npos);
  EXPECT_THROW(attention(x.q, slice(x.k, 3, 0, 3), x.v), Error);
  EXPECT_THROW(attention(slice(x.q, 1, 0, 1), x.k, x.v), Error);
  EXPECT_THROW(attention(select(x.q, 0, 0), x.k, x.v), Error);
}

// Every function that a modifier may use, against differences; each takes the score and a captured number.
TEST(Score, FunctionsHaveTheirDerivatives) {
  if (!kDouble) GTEST_SKIP() << "needs double";
  Tensor t = requires_grad(from_values({1}, {1.3}));
  auto check_one = [&](const char* name, auto f) {
    Leaves x(5, 6);
    GradCheckResult r = grad_check(
        [&](const std::vector<Tensor>& in) {
          return attention(in[0], in[1], in[2], {.score = score_modifier(f, in[3])});
        },
        {x.q, x.k, x.v, t}, {.step = 1e-4});
    EXPECT_TRUE(r.ok) << name << ": " << r.message;
  };
  check_one("exp, −", [](auto s, At, auto a) { return exp(s - a[0]); });
  check_one("log, +", [](auto s, At, auto a) { return log(s * s + a[0]); });
  check_one("tanh, ÷", [](auto s, At, auto a) { return tanh(s / a[0]); });
  check_one("sqrt", [](auto s, At, auto a) { return sqrt(a[0] + s * s); });
  check_one("abs", [](auto s, At, auto a) { return abs(s) * a[0]; });
  check_one("pow by a number", [](auto s, At, auto a) { return pow(s * s + 1, 1.7) * a[0]; });
  check_one("pow by a dual", [](auto s, At, auto a) { return pow(s * s + 1, a[0]); });
  check_one("sigmoid", [](auto s, At, auto a) { return sigmoid(s * a[0]); });
  check_one("softplus", [](auto s, At, auto a) { return softplus(s * a[0]); });
  check_one("min, max of numbers", [](auto s, At, auto a) { return min(s, 0.3) + max(-s, -0.2) * a[0]; });
  check_one("branch", [](auto s, At, auto a) { return s > 0.1 ? s * a[0] : -s; });
  check_one("negation, compound", [](auto s, At, auto a) {
    auto y = -s;
    y += 2;
    y *= a[0];
    y -= s;
    return 1 - y;
  });
}

// A table that a branch leaves alone gets nothing there.
TEST(Score, SkippedReadsAddNothing) {
  Leaves x(6, 6);
  Tensor t = requires_grad(ones({6}));
  Score odd = score_modifier([](auto s, At at, auto a) { return at.key % 2 ? s + a[at.key] : s; }, t);
  backward(sum(attend(x, {.score = odd}) * normal({2, 2, 6, 8})));
  for (int64_t j = 0; j < 6; ++j) EXPECT_EQ(gradient(t).at({j}) == 0, j % 2 == 0);
}

TEST(Score, T5BucketsAreThoseOfThePaper) {
  EXPECT_EQ(t5_bucket(0, 32, 128, true), 0);
  EXPECT_EQ(t5_bucket(-7, 32, 128, true), 7);
  EXPECT_EQ(t5_bucket(7, 32, 128, true), 16 + 7);
  EXPECT_EQ(t5_bucket(-8, 32, 128, true), 8);
  EXPECT_EQ(t5_bucket(-1000, 32, 128, true), 15);
  EXPECT_EQ(t5_bucket(1000, 32, 128, true), 31);
  EXPECT_EQ(t5_bucket(5, 32, 128, false), 0);
  EXPECT_EQ(t5_bucket(-15, 32, 128, false), 15);
  EXPECT_EQ(t5_bucket(-127, 32, 128, false), 31);
}

// Gates of 1.7 for 4000 positions sum to 6800, where floats are 0.0005 apart; the last row's weights are e^(−1.7 d).
TEST(AttentionNumbers, ForgetGatesOfALongSequence) {
  const int64_t n = 4000;
  Tensor q = zeros({1, 1, n, 2}), v = zeros({1, 1, n, 2}), gates = full({1, 1, n}, Real(-1.7));
  for (int64_t d = 0; d < 2; ++d) v.set({0, 0, n - 1 - d, d}, 1);
  NoGrad no_grad;
  for (const auto& attend : {attention, attention_dense}) {
    const Tensor out = attend(q, q, v, {.mask = causal(), .score = forget_gates(gates)}, Where::here());
    for (int64_t d = 0; d < 2; ++d) {
      EXPECT_NEAR(out.at({0, 0, n - 1, d}), (1 - std::exp(-1.7)) * std::exp(-1.7 * double(d)), 1e-6);
    }
  }
}

// The sum of a row over keys that all have a larger score at another query is far below the smallest number.
TEST(AttentionNumbers, InvertedOfLargeScores) {
  manual_seed(8);
  Tensor q = normal({1, 2, 96, 6}, 0, 8), k = normal({1, 2, 96, 6}, 0, 8), v = normal({1, 2, 96, 4});
  for (const Mask& mask : {Mask{}, causal()}) {
    const AttentionOptions options{.mask = mask, .normalizer = inverted_softmax()};
    const AttentionResult tiled = attention_with_lse(q, k, v, options),
                          dense = attention_dense_with_lse(q, k, v, options);
    EXPECT_LE(relative_difference(tiled.out, dense.out), kDouble ? 1e-11 : 1e-4);
    EXPECT_LE(relative_difference(tiled.lse, dense.lse), kDouble ? 1e-12 : 1e-5);
  }
}

}  // namespace
}  // namespace rapt
