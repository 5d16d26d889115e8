#include "../../nn/attention/words.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "../../core/random.h"
#include "../../nn/attention/grouped_query.h"
#include "../../nn/attention/spec.h"
#include "../../nn/gpt.h"
#include "../../optim/adamw.h"
#include "../expect.h"

namespace rapt {
namespace {

GptConfig tiny(const std::string& attention) {
  GptConfig c;
  c.vocabulary = 11;
  c.context = 12;
  c.layers = 2;
  c.heads = 4;
  c.dim = 32;
  c.attention = attention;
  return c;
}

Tokens numbers(const Shape& shape, int32_t step) {
  Tokens t;
  t.shape = shape;
  for (int64_t i = 0; i < shape.numel(); ++i) t.ids.push_back(int32_t(i * step % 11));
  return t;
}

class EachSpec : public testing::TestWithParam<std::string> {};

TEST_P(EachSpec, Trains) {
  manual_seed(1);
  Gpt gpt(tiny(GetParam()));
  Tokens x = numbers({2, 12}, 3), y = numbers({2, 12}, 5);
  AdamW optimizer(gpt.parameters(), {.learning_rate = 1e-2});
  double first = 0, last = 0;
  for (int step = 0; step < 30; ++step) {
    manual_seed(2, uint64_t(step));
    Tensor loss = gpt.loss(x, y);
    last = double(loss.item());
    if (step == 0) first = last;
    gpt.zero_gradients();
    backward(loss);
    for (const NamedTensor& p : gpt.parameters()) {
      ASSERT_TRUE(gradient(p.tensor)) << p.name;
      for (Real g : gradient(p.tensor).to_vector()) ASSERT_TRUE(std::isfinite(g)) << p.name;
    }
    optimizer.step();
  }
  EXPECT_NEAR(first, std::log(11), 0.1);
  EXPECT_LT(last, first - 1);
}

// Position by position from the cache, as from the whole sequence at once.
TEST_P(EachSpec, StepsLikeTheWhole) {
  manual_seed(3);
  Gpt gpt(tiny(GetParam()));
  manual_seed(4);
  for (const NamedTensor& p : gpt.parameters()) {  // away from the start, where many parts do nothing
    Tensor t = p.tensor.detach();
    copy_into(t, (t + normal(t.shape, 0, Real(0.2))).detach());
  }
  EvalMode eval;
  Tokens all = numbers({1, 9}, 4);
  Tensor whole = gpt(all);
  auto cache = gpt.make_cache();
  Tensor logits;
  for (int64_t n : {4, 1, 3, 1}) {
    int64_t first = cache.front().length;
    logits = gpt.next(Tokens({1, n}, {all.ids.begin() + first, all.ids.begin() + first + n}), cache);
    std::vector<Real> got = logits.to_vector(), expected = select(whole, 1, first + n - 1).to_vector();
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], sizeof(Real) == 8 ? 1e-10 : 2e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Words, EachSpec, testing::ValuesIn(example_specs(12)), [](const auto& each) {
  std::string name = each.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

std::string error_of(const std::string& spec) {
  try {
    check_attention(spec, {.dim = 32, .heads = 4, .context = 12});
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(AttentionWords, SayWhatIsWrong) {
  auto expect = [](const std::string& spec, const std::string& part) {
    EXPECT_NE(error_of(spec).find(part), std::string::npos) << spec << " gives: " << error_of(spec);
  };
  EXPECT_EQ(error_of("gqa:kv=2+rope:theta=10000+window:256+sink+softcap:30"), "");
  expect("gpa:kv=2", "did you mean \"gqa\"?");
  expect("mha+windw:3", "did you mean \"window\"?");
  expect("", "empty");
  expect("mha++rope", "empty");
  expect("gqa:kv=3", "do not divide");
  expect("gqa", "kv is missing, as in \"gqa:kv=1\"");
  expect("gqa:kv=0", "at least 1");
  expect("mha+window:0", "window of 0");
  expect("mha+chunked:0", "at least 1");
  expect("mha+rope:thta=3", "did you mean \"theta\"?");
  expect("mha+rope:theta=x", "must be a number");
  expect("mha+rope:theta=1", "word \"rope:theta=1\": theta must be above 1");
  expect("mha+rope:dims=3", "word \"rope:dims=3\": channels turn in pairs");
  expect("mha+rope:interleaved,interleaved", "given twice");
  expect("mha+t5:max=1e12", "max must be at most 1000000");
  expect("mha+bigbird:seed=-1", "from 0 to 18446744073709551615");
  expect("mha+scale:1e999", "factor must be at most");
  expect("mha+rope+rope", "twice");
  expect("mha+sink+topk:3", "one can be chosen");
  expect("rope+mha", "comes first");
  expect("linear+softcap:3", "stands alone");
  expect("linear+rope", "stands alone");
  expect("kernel:gausian", "did you mean \"gaussian\"?");
  expect("mha+inverted", "there is no word");
  expect("mha+softcap", "missing, as in \"softcap:30\"");
  expect("mha+window:2,5", "nothing behind");
  expect("mha+drop:0.1,seed=3", "the run's");
  expect("mha+causal:top-left", "takes none");
  expect("mha+rope+xpos", "both turn");
  expect("mha+head-dim:7+rope", "turn in pairs");
}

TEST(AttentionWords, RefuseWhatWouldBeLost) {
  auto refused = [](const std::string& spec, const std::string& part) {
    EXPECT_NE(error_of(spec).find(part), std::string::npos) << spec << " gives: " << error_of(spec);
  };
  for (const char* kernel : {"epanechnikov", "boxcar"}) {
    for (const char* other : {"sink", "sigmoid", "talking", "cope", "plus-one", "topk:3", "signed"})
      refused(fmt::format("kernel:{}+{}", kernel, other), "is a normaliser already");
  }
  EXPECT_EQ(error_of("kernel:gaussian+sink"), "");
  for (const char* other : {"softcap:3", "alibi", "sink", "drop:0.1", "t5", "window:3", "temperature", "memory"})
    refused(fmt::format("nsa:block=2+{}", other), "one of the three attentions");
  EXPECT_EQ(error_of("nsa:block=2+rope+qk-norm+gate+head-dim:4"), "");
  for (const char* spec : {"mha+scale:2+cosine", "mha+cosine+scale:2", "deberta+scale:2", "deberta+cosine"})
    refused(spec, "scale of its own");
  for (const char* other : {"scale:2", "xl", "shaw"}) refused(fmt::format("kernel+{}", other), "distance");
  for (const char* spec :
       {"mha+memory:2+forget", "mha+forget+memory:2", "kernel+memory:2", "moba:block=2+memory:2", "deberta+memory:2"})
    refused(spec, "each key");
  for (const char* relative : {"xl", "shaw"}) {
    for (const char* rows : {"topk:3", "entmax", "stick-breaking", "cope", "talking"})
      refused(fmt::format("mha+{}+{}", relative, rows), "whole rows");
  }
  for (const char* other : {"rope", "xpos", "shaw"}) {
    refused(fmt::format("mha+xl+{}", other), "where a key stands");
    refused(fmt::format("mha+{}+xl", other), "where a key stands");
  }
}

// Each layer has the words of its turn, whole and by steps.
TEST(AttentionWords, LayersTakeTurns) {
  GptConfig c = tiny("mha+window:2+rope/gqa:kv=2+rope");
  c.layers = 3;
  manual_seed(10);
  Gpt gpt(c);
  EXPECT_FALSE(gpt.position_embedding.has_value());
  std::vector<int64_t> horizons, rows;
  for (const TransformerBlock& block : gpt.blocks) {
    horizons.push_back(block.attention->horizon());
    rows.push_back(block.attention->parameters().front().tensor.shape[0]);
  }
  EXPECT_EQ(horizons[0], 2);
  EXPECT_GT(horizons[1], 12);
  EXPECT_EQ(horizons[2], 2);
  EXPECT_EQ(rows, (std::vector<int64_t>{96, 64, 96}));  // of qkv: 4 + 4 + 4 heads of 8, and 4 + 2 + 2

  EXPECT_FALSE(Gpt(tiny("mha/mha+rope")).position_embedding.has_value());
  EXPECT_TRUE(Gpt(tiny("mha/mha+qk-norm")).position_embedding.has_value());
  auto refused = [](const std::string& spec, const std::string& part) {
    expect_contains(rapt::error_of([&] { Gpt{tiny(spec)}; }), part);
  };
  refused("mha/mha+rope/gqa:kv=2", "2 layers can't take turns in 3 specifications");
  refused("mha/", "the words of a layer are missing");
  refused("/mha", "the words of a layer are missing");
  refused("mha//mha", "the words of a layer are missing");
  refused("mha/mha+windw:3", "did you mean \"window\"?");
}

// Any two words either are refused before training, or a model of them takes a step, and generates what it trains.
TEST(AttentionWords, EveryPairIsRefusedOrTrains) {
  std::vector<std::string> families, others;
  for (const std::string& spec : example_specs(12)) {
    std::vector<SpecWord> given = parse_spec(specs_in_turn(spec).back());
    std::string head = given.front().text();
    if (std::ranges::find(families, head) == families.end()) families.push_back(head);
    for (size_t i = 1; i < given.size(); ++i) {
      if (std::ranges::find(others, given[i].text()) == others.end()) others.push_back(given[i].text());
    }
  }
  families.emplace_back("kernel:boxcar");
  families.emplace_back("gqa:kv=1");
  std::vector<std::string> pairs;
  for (const std::string& family : families) {
    for (const std::string& word : others) pairs.push_back(family + "+" + word);
  }
  for (const std::string& a : others) {
    for (const std::string& b : others) {
      if (a != b) pairs.push_back("mha+" + a + "+" + b);
    }
  }
  Tokens x = numbers({2, 9}, 3), y = numbers({2, 9}, 5);
  int trained = 0;
  for (const std::string& spec : pairs) {
    SCOPED_TRACE(spec);
    GptConfig c = tiny(spec);
    c.layers = 1;
    try {
      check_model(c);
    } catch (const UsageError&) {
      continue;
    }
    ++trained;
    manual_seed(5);
    Gpt gpt(c);
    Tensor loss = gpt.loss(x, y);
    ASSERT_TRUE(std::isfinite(loss.item()));
    backward(loss);
    EvalMode eval;
    Tensor whole = gpt(x);
    auto cache = gpt.make_cache();
    gpt.next(Tokens({2, 5}, {x.ids[0], x.ids[1], x.ids[2], x.ids[3], x.ids[4], x.ids[9], x.ids[10], x.ids[11],
                             x.ids[12], x.ids[13]}),
             cache);
    std::vector<Real> got = gpt.next(Tokens({2, 1}, {x.ids[5], x.ids[14]}), cache).to_vector();
    std::vector<Real> expected = select(whole, 1, 5).to_vector();
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-4);
  }
  EXPECT_GT(trained, 1000);
}

// One layer of `spec` with parameters like those of another, at x.
Tensor of_spec(const std::string& spec, const Tensor& x) {
  manual_seed(6);
  auto layer = make_attention(spec, {.dim = 32, .heads = 4, .context = 12});
  for (const NamedTensor& p : layer->parameters()) {
    Random draws{7, 0};
    for (char c : p.name) draws.stream = draws.stream * 31 + uint64_t(c);
    Tensor t = p.tensor.detach();
    for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data()[i] = Real(0.3 * draws.normal(uint64_t(i)));
  }
  EvalMode eval;
  return (*layer)(x);
}

// Where an order would not be what anybody means, words mean the same in any.
TEST(AttentionWords, OrderThatMattersNot) {
  Tensor x = normal({2, 12, 32});
  for (auto [one, other] : {std::pair{"mha+scale:0.7+shaw:3", "mha+shaw:3+scale:0.7"},
                            {"mha+head-dim:16+qk-norm", "mha+qk-norm+head-dim:16"},
                            {"mha+memory:3+window:2", "mha+window:2+memory:3"},
                            {"mha+memory:3+dynamic", "mha+dynamic+memory:3"},
                            {"mha+memory:3+xl", "mha+xl+memory:3"},
                            {"mha+head-dim:16+memory:3", "mha+memory:3+head-dim:16"}}) {
    SCOPED_TRACE(one);
    EXPECT_EQ(of_spec(one, x).to_vector(), of_spec(other, x).to_vector());
  }
}

// Memory is read besides what a mask leaves: as whole keys behind which the mask begins.
TEST(AttentionWords, MemoryIsReadBehindAnyMask) {
  constexpr int64_t N = 12, count = 3;
  manual_seed(8);
  Tensor x = normal({1, N, 32});
  const std::pair<const char*, Mask> cases[] = {{"window:2", window(2)},
                                                {"chunked:5", chunked(5)},
                                                {"dilated:3", dilated(3)},
                                                {"longformer:1,2", window(1) | global(2)},
                                                {"stick-breaking", strictly_causal()}};
  for (const auto& [word, mask] : cases) {
    SCOPED_TRACE(word);
    manual_seed(9);
    auto layer = make_attention(fmt::format("mha+{}+memory:{}", word, count), {.dim = 32, .heads = 4, .context = N});
    const auto& attend = dynamic_cast<const GroupedQueryAttention&>(*layer);
    Tensor keys, values;
    for (const NamedTensor& p : layer->parameters()) {
      if (p.name == "memory.keys") keys = p.tensor;
      if (p.name == "memory.values") values = p.tensor;
    }
    Tensor qkv = reshape(attend.qkv(x), {1, N, 12, 8});
    auto part = [&](int64_t i) { return transpose(slice(qkv, 2, 4 * i, 4 * i + 4), 1, 2); };
    Tensor keep = zeros({N, N + count});
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t j = 0; j < N + count; ++j) {
        uint8_t read = j < count;
        if (j >= count && j - count <= i) mask.rule().keep({0, 0, j - count, i, 1, N, N}, &read);
        keep.set({i, j}, Real(read));
      }
    }
    AttentionOptions options{.mask = keep_where(keep)};
    if (std::string(word) == "stick-breaking") {
      options.normalizer = stick_breaking();
      options.score = bias(full({4, 1, 1}, Real(-std::log(double(N)))));
    }
    Tensor y = attention_dense(part(0), cat(std::vector<Tensor>{keys, part(1)}, 2),
                               cat(std::vector<Tensor>{values, part(2)}, 2), options);
    Tensor expected = attend.proj(reshape(transpose(y, 1, 2), {1, N, 32}));
    std::vector<Real> a = (*layer)(x).to_vector(), b = expected.to_vector();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
  }
}

// The examples are to learn with their masks, so these must leave something out at the context of the tests.
TEST(AttentionWords, ExamplesMaskSomething) {
  for (const std::string& spec : example_specs(12)) {
    for (const SpecWord& w : parse_spec(specs_in_turn(spec).back())) {
      if (w.name() != "window" && w.name() != "chunked" && w.name() != "longformer" && w.name() != "bigbird" &&
          w.name() != "dilated")
        continue;
      Tensor x = normal({1, 12, 32});
      EXPECT_NE(of_spec("mha+" + w.text(), x).to_vector(), of_spec("mha", x).to_vector()) << w.text();
    }
  }
}

// The last row reads the others as a set unless positions tell them apart.
TEST(AttentionWords, RopeTurnsLayersOfEveryKind) {
  const AttentionLayerSizes sizes{.dim = 32, .heads = 4, .context = 8};
  manual_seed(3);
  const Tensor x = normal({1, 5, 32}),
               turned = cat(std::vector<Tensor>{slice(x, 1, 1, 2), slice(x, 1, 0, 1), slice(x, 1, 2, 5)}, 1);
  auto last = [&](const std::string& spec, const Tensor& rows) {
    manual_seed(4);
    NoGrad no_grad;
    return select((*make_attention(spec, sizes))(rows), 1, 4).to_vector();
  };
  auto distance = [](const std::vector<Real>& a, const std::vector<Real>& b) {
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double(a[i]) - double(b[i])));
    return most;
  };
  EXPECT_LT(distance(last("differential", x), last("differential", turned)), 1e-6);
  for (const char* spec : {"differential+rope", "mha+rope", "gqa:kv=2+rope"}) {
    EXPECT_GT(distance(last(spec, x), last(spec, turned)), 1e-4) << spec;
  }
  for (const std::string spec : {"mla", "retention", "gla", "delta", "gated-delta"}) {
    EXPECT_GT(distance(last(spec + "+rope:theta=10", x), last(spec, x)), 1e-4) << spec;
  }
}

TEST(AttentionWords, PositionsReplaceTheEmbedding) {
  EXPECT_TRUE(Gpt(tiny("mha")).position_embedding.has_value());
  EXPECT_FALSE(Gpt(tiny("mha+rope")).position_embedding.has_value());
  GptConfig both = tiny("mha+rope");
  both.position = "learned";
  EXPECT_TRUE(Gpt(both).position_embedding.has_value());
}

TEST(Gpt, NormsFeedForwardsAndPositions) {
  for (const std::string& norm : norm_names()) {
    for (const std::string& mlp : mlp_names()) {
      for (const char* position : {"learned", "sinusoidal", "none"}) {
        GptConfig c = tiny("mha");
        c.norm = norm;
        c.mlp = mlp;
        c.position = position;
        manual_seed(1);
        Gpt gpt(c);
        backward(gpt.loss(numbers({2, 12}, 3), numbers({2, 12}, 5)));
        for (const NamedTensor& p : gpt.parameters()) EXPECT_TRUE(gradient(p.tensor)) << norm << mlp << p.name;
      }
    }
  }
  GptConfig wrong = tiny("mha");
  wrong.mlp = "swigloo";
  EXPECT_THROW(Gpt{wrong}, UsageError);
  wrong.mlp = "gelu";
  wrong.norm = "leyer";
  EXPECT_THROW(Gpt{wrong}, UsageError);
}

}  // namespace
}  // namespace rapt
