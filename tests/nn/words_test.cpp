#include "../../nn/attention/words.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../core/random.h"
#include "../../nn/gpt.h"
#include "../../optim/adamw.h"

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

INSTANTIATE_TEST_SUITE_P(Words, EachSpec, testing::ValuesIn(example_specs()), [](const auto& each) {
  std::string name = each.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

std::string error_of(const std::string& spec) {
  try {
    make_attention(spec, {.dim = 32, .heads = 4, .context = 12});
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
  expect("gqa", "kv is missing");
  expect("gqa:kv=0", "at least 1");
  expect("mha+window:0", "window of 0");
  expect("mha+chunked:0", "at least 1");
  expect("mha+rope:thta=3", "did you mean \"theta\"?");
  expect("mha+rope:theta=x", "must be a number");
  expect("mha+rope+rope", "twice");
  expect("mha+sink+topk:3", "one can be chosen");
  expect("rope+mha", "comes first");
  expect("linear+softcap:3", "stands alone");
  expect("kernel:gausian", "did you mean \"gaussian\"?");
  expect("mha+inverted", "there is no word");
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
