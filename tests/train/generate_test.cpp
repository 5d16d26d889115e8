#include "../../train/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "../../core/random.h"

namespace rapt {
namespace {

std::map<int32_t, int> draw(const Tensor& logits, const SamplingOptions& options, int count) {
  std::map<int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[sample_token(logits, options, uint64_t(i))];
  return seen;
}

TEST(Sample, FollowsTheDistribution) {
  Tensor logits = from_values({3}, {std::log(0.5), std::log(0.3), std::log(0.2)});
  auto seen = draw(logits, {.temperature = 1}, 20'000);
  EXPECT_NEAR(seen[0], 10'000, 400);
  EXPECT_NEAR(seen[1], 6'000, 400);
  EXPECT_NEAR(seen[2], 4'000, 400);
}

TEST(Sample, TemperatureSharpens) {
  Tensor logits = from_values({2}, {std::log(0.6), std::log(0.4)});
  // p² / Σ p² at temperature 1/2
  EXPECT_NEAR(draw(logits, {.temperature = 0.5}, 10'000)[0], 10'000 * 0.36 / 0.52, 250);
  EXPECT_EQ(draw(logits, {.temperature = 0}, 100)[0], 100);
}

TEST(Sample, TopKAndTopPLeaveTheTailOut) {
  Tensor logits = from_values({4}, {std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)});
  auto k = draw(logits, {.temperature = 1, .top_k = 2}, 5'000);
  EXPECT_EQ(k.size(), 2u);
  EXPECT_NEAR(k[1], 5'000 * 4.0 / 7, 200);
  auto p = draw(logits, {.temperature = 1, .top_p = 0.65}, 5'000);  // 0.4 + 0.3 is enough
  EXPECT_EQ(p.size(), 2u);
  EXPECT_GT(p[3], 0);
  EXPECT_EQ(draw(logits, {.temperature = 1, .top_p = 1e-9}, 100)[1], 100);
}

TEST(Sample, RefusesLogitsThatAreNotFinite) { EXPECT_THROW(sample_token(from_values({2}, {NAN, NAN}), {}, 0), Error); }

TEST(Generate, EqualsTheModelOnTheWholeSequence) {
  manual_seed(1);
  GptConfig c;
  c.vocabulary = 11;
  c.context = 16;
  c.layers = 2;
  c.heads = 2;
  c.dim = 16;
  Gpt gpt(c);
  std::vector<int32_t> ids{3, 5};
  generate(gpt, ids, {.tokens = 14, .temperature = 0}, [&](int32_t id) {
    // the likeliest token by a forward pass without a cache
    Tensor logits = gpt(Tokens({1, int64_t(ids.size())}, ids));
    int32_t best = 0;
    for (int32_t v = 1; v < 11; ++v) {
      if (logits.at({0, -1, v}) > logits.at({0, -1, best})) best = v;
    }
    EXPECT_EQ(id, best) << ids.size();
    ids.push_back(id);
    return true;
  });
  EXPECT_EQ(ids.size(), 16u);
}

// With a rolling cache the text is what a model of a longer context writes.
TEST(Generate, GoesOnBeyondTheContextWithoutForgettingWithinTheWindow) {
  GptConfig c;
  c.vocabulary = 11;
  c.context = 8;
  c.layers = 2;
  c.heads = 2;
  c.dim = 16;
  c.attention = "gqa:kv=1+rope+window:3";
  auto written = [&](int64_t context) {
    c.context = context;
    manual_seed(1);
    Gpt gpt(c);
    for (const NamedTensor& p : gpt.parameters()) {
      Tensor t = p.tensor.detach();
      copy_into(t, (t * Real(8)).detach());  // or else it writes one token for ever
    }
    std::vector<int32_t> ids;
    generate(gpt, std::vector<int32_t>{3, 5}, {.tokens = 40, .temperature = 1}, [&](int32_t id) {
      ids.push_back(id);
      return true;
    });
    return ids;
  };
  const std::vector<int32_t> ids = written(8);
  EXPECT_EQ(ids.size(), 40u);
  EXPECT_EQ(ids, written(64));
}

TEST(Generate, GoesOnBeyondTheContextAndStopsWhenTold) {
  manual_seed(1);
  GptConfig c;
  c.vocabulary = 11;
  c.context = 8;
  c.layers = 1;
  c.heads = 1;
  c.dim = 8;
  Gpt gpt(c);
  int count = 0;
  std::vector<int32_t> prompt(20, 4);  // longer than the context
  generate(gpt, prompt, {.tokens = 50}, [&](int32_t) {
    ++count;
    return true;
  });
  EXPECT_EQ(count, 50);
  generate(gpt, prompt, {.tokens = 50}, [&](int32_t) { return ++count < 60; });
  EXPECT_EQ(count, 60);
  EXPECT_THROW(generate(gpt, {}, {}, [](int32_t) { return true; }), Error);
}

}  // namespace
}  // namespace rapt
