#include <gtest/gtest.h>

#include "../../core/random.h"
#include "../../nn/attention/grouped_query.h"
#include "../../nn/attention/multi_head.h"
#include "../../nn/attention/words.h"
#include "../../nn/gpt.h"
#include "../expect.h"

namespace rapt {
namespace {

constexpr AttentionLayerSizes kRollingSizes{.dim = 16, .heads = 4, .context = 12, .bias = true};

std::unique_ptr<AttentionLayer> windowed(const std::string& spec) {
  manual_seed(1);
  auto layer = make_attention(spec, kRollingSizes);
  for (const NamedTensor& p : layer->parameters()) {  // away from the start, where many parts do nothing
    Tensor t = p.tensor.detach();
    copy_into(t, (t + normal(t.shape, 0, Real(0.5))).detach());
  }
  return layer;
}

// Steps of several sizes, among them ones longer than what is kept, are the forward pass over the whole.
void expect_rolling_is_the_whole(const AttentionLayer& layer, int64_t horizon) {
  EvalMode eval;
  ASSERT_EQ(layer.horizon(), horizon);
  manual_seed(2);
  const Tensor x = normal({2, 24, 16}), whole = layer(x);
  for (const std::vector<int64_t>& pattern : std::vector<std::vector<int64_t>>{{1}, {13, 1, 2}, {1, 1, 9}, {24}}) {
    auto cache = KeyValueCache::rolling(horizon);
    int64_t from = 0;
    for (size_t i = 0; from < 24; ++i) {
      const int64_t to = std::min<int64_t>(24, from + pattern[i % pattern.size()]);
      expect_near(layer.step(slice(x, 1, from, to), cache), slice(whole, 1, from, to));
      from = to;
    }
    EXPECT_EQ(cache.length, 24);
    EXPECT_EQ(cache.keys.shape[2], 2 * horizon + 1);  // however long the sequence
    EXPECT_LE(cache.held, 2 * horizon + 1);
  }
}

TEST(RollingCache, IsTheWholeForward) {
  for (const char* spec :
       {"mha+window:4", "gqa:kv=2+rope:theta=100+window:5", "mqa+alibi:learned+window:3", "mha+alibi+window:1",
        "gqa:kv=2+t5:buckets=8,max=6+window:6+sink", "mha+distance+window:4+softcap:2", "mha+shaw:3+window:5",
        "mha+xl+window:4", "mha+cope:3+window:4", "mha+dynamic+window:7", "kernel:laplace+rope+window:4",
        "deberta:reach=3+window:5", "mha+rope+qk-norm+gate+window:6"}) {
    const std::string text = spec;
    SCOPED_TRACE(text);
    const auto layer = windowed(text);
    expect_rolling_is_the_whole(*layer, std::stoll(text.substr(text.find("window:") + 7)));
  }
}

TEST(RollingCache, OfTheModule) {
  for (const MultiHeadOptions& options : std::vector<MultiHeadOptions>{
           {.window = 3},
           {.key_value_heads = 2, .rotary = RotaryOptions{}, .window = 4},
           {.add_bias_kv = true, .add_zero_attn = true, .softcap = 2, .sink = true, .window = 5, .qk_norm = true}}) {
    manual_seed(3);
    MultiHeadAttention attend(16, 4, options);
    expect_rolling_is_the_whole(attend, options.window);
  }
}

TEST(RollingCache, OfNothingButTheQuery) {
  manual_seed(3);
  GroupedQueryAttention attend(16, 4);
  attend.add(plain_part("self", [](AttentionOptions& o) { o.mask = o.mask & window(0); }));
  expect_rolling_is_the_whole(attend, 0);
}

TEST(RollingCache, OnlyWhereDistancesAreAllThatCounts) {
  for (const char* spec : {"mha", "mha+rope", "mha+window:4+memory:2", "mha+window:4+chunked:3", "mha+window:4+xpos",
                           "mha+window:4+forget", "moba:block=2,count=2+window:4", "nsa:block=2,count=2",
                           "mha+longformer:4,1", "mla", "linear"}) {
    EXPECT_EQ(make_attention(spec, kRollingSizes)->horizon(), Band::kFar) << spec;
  }
  EXPECT_EQ(MultiHeadAttention(16, 4, {.rotary = RotaryOptions{.xpos = true}, .window = 4}).horizon(), Band::kFar);
  EXPECT_EQ(MultiHeadAttention(16, 4, {.window = 4, .causal = false}).horizon(), Band::kFar);
  EXPECT_EQ(MultiHeadAttention(16, 4).horizon(), Band::kFar);
  EXPECT_THROW(KeyValueCache::rolling(-1), Error);
}

GptConfig windowed_config(const std::string& attention, const std::string& position) {
  GptConfig c;
  c.vocabulary = 11;
  c.context = 8;
  c.layers = 2;
  c.heads = 2;
  c.dim = 16;
  c.attention = attention;
  c.position = position;
  return c;
}

TEST(RollingCache, TakesAModelBeyondItsContext) {
  for (const char* spec : {"mha+rope+window:3", "gqa:kv=1+alibi+window:2"}) {
    SCOPED_TRACE(spec);
    GptConfig c = windowed_config(spec, "auto");
    manual_seed(4);
    Gpt gpt(c);
    c.context = 64;
    manual_seed(4);
    Gpt wide(c);  // the same weights
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 30; ++i) ids.push_back(i * i % 11);
    const Tokens x({1, 30}, ids);
    EvalMode eval;
    const Tensor whole = wide(x);
    auto cache = gpt.make_cache();
    for (int64_t n = 0; n < 30; ++n) {
      Tensor logits = gpt.next(Tokens({1, 1}, {x.ids[size_t(n)]}), cache);
      expect_near(logits, select(whole, 1, n));
    }
    EXPECT_LE(cache.front().keys.shape[2], 7);
  }
}

TEST(RollingCache, OnlyInTheLayersWithAWindow) {
  manual_seed(6);
  Gpt gpt(windowed_config("mha+rope+window:2/mha+rope", "auto"));
  const Tokens x({1, 8}, {3, 1, 4, 1, 5, 9, 2, 6});
  EvalMode eval;
  const Tensor whole = gpt(x);
  auto cache = gpt.make_cache();
  for (int64_t n = 0; n < 8; ++n) {
    EXPECT_EQ(room(cache), 8 - n);
    expect_near(gpt.next(Tokens({1, 1}, {x.ids[size_t(n)]}), cache), select(whole, 1, n));
  }
  EXPECT_EQ(cache[0].keys.shape[2], 5);
  EXPECT_EQ(cache[1].keys.shape[2], 8);
  EXPECT_THROW(gpt.next(Tokens({1, 1}, {1}), cache), Error);
}

TEST(RollingCache, NotWithPlacesInTheSequence) {
  auto rolls = [](const std::string& attention, const std::string& position) {
    manual_seed(5);
    return Gpt(windowed_config(attention, position)).make_cache().front().horizon < Band::kFar;
  };
  EXPECT_TRUE(rolls("mha+rope+window:3", "auto"));
  EXPECT_TRUE(rolls("mha+window:3", "none"));
  EXPECT_FALSE(rolls("mha+window:3", "learned"));
  EXPECT_FALSE(rolls("mha+rope+window:3", "sinusoidal"));
  EXPECT_FALSE(rolls("mha+rope+window:8", "auto"));  // all of the context
  manual_seed(5);
  Gpt learned(windowed_config("mha+window:3", "learned"));
  auto cache = learned.make_cache();
  learned.next(Tokens({1, 8}, std::vector<int32_t>(8, 1)), cache);
  EXPECT_THROW(learned.next(Tokens({1, 1}, {1}), cache), Error);
}

}  // namespace
}  // namespace rapt
