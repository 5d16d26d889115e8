#include "../../nn/gpt.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../../core/random.h"
#include "../../nn/attention/grouped_query.h"
#include "../../optim/adamw.h"

namespace rapt {
namespace {

const GroupedQueryAttention& attention(const Gpt& gpt) {
  return dynamic_cast<const GroupedQueryAttention&>(*gpt.blocks[3].attention);
}

GptConfig tiny() {
  GptConfig c;
  c.vocabulary = 17;
  c.context = 8;
  c.layers = 2;
  c.heads = 2;
  c.dim = 12;
  c.bias = true;
  c.mlp = "gelu-tanh";
  return c;
}

Tokens random_tokens(const Shape& shape, int32_t vocabulary, uint64_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < shape.numel(); ++i) ids.push_back(int32_t(Random{seed, 0}.below(vocabulary, uint64_t(i))));
  return {shape, ids};
}

TEST(Gpt, TheFirstLossIsThatOfGuessing) {
  manual_seed(1);
  GptConfig c;
  c.vocabulary = 65;
  Gpt gpt(c);
  EXPECT_NEAR(gpt.loss(random_tokens({8, 64}, 65, 1), random_tokens({8, 64}, 65, 2)).item(), std::log(65.0), 0.1);
}

TEST(Gpt, HasTheParametersOfGpt2) {
  manual_seed(1);
  Gpt gpt(tiny());
  // V·C + T·C + L·(12·C² + 13·C) + 2·C
  EXPECT_EQ(gpt.parameter_count(), 17 * 12 + 8 * 12 + 2 * (12 * 144 + 13 * 12) + 2 * 12);
}

TEST(Gpt, ResidualProjectionsStartSmaller) {
  manual_seed(1);
  GptConfig c;
  c.layers = 8;
  Gpt gpt(c);
  auto deviation = [](const Tensor& t) {
    double squares = 0;
    for (Real v : t.to_vector()) squares += double(v) * double(v);
    return std::sqrt(squares / double(t.numel()));
  };
  EXPECT_NEAR(deviation(attention(gpt).qkv.weight), 0.02, 0.001);
  EXPECT_NEAR(deviation(attention(gpt).proj.weight), 0.02 / 4, 0.0003);
  EXPECT_NEAR(deviation(gpt.blocks[3].mlp.down.weight), 0.02 / 4, 0.0003);
}

TEST(Gpt, LossIsTheCrossEntropyOfItsLogits) {
  manual_seed(2);
  Gpt gpt(tiny());
  Tokens x = random_tokens({3, 8}, 17, 1), y = random_tokens({3, 8}, 17, 2);
  EXPECT_NEAR(gpt.loss(x, y).item(), cross_entropy(gpt(x), y).item(), 1e-5);
}

TEST(Gpt, NoPositionSeesLaterOnes) {
  manual_seed(2);
  Gpt gpt(tiny());
  Tokens x = random_tokens({1, 8}, 17, 1);
  Tensor before = gpt(x);
  x.ids[5] = (x.ids[5] + 1) % 17;
  Tensor after = gpt(x);
  for (int64_t t = 0; t < 8; ++t) {
    bool same = true;
    for (int64_t v = 0; v < 17; ++v) same = same && before.at({0, t, v}) == after.at({0, t, v});
    EXPECT_EQ(same, t < 5) << t;
  }
}

TEST(Gpt, TheCacheGivesTheLogitsOfTheWholeSequence) {
  manual_seed(2);
  Gpt gpt(tiny());
  Tokens x = random_tokens({2, 8}, 17, 1);
  Tensor all = gpt(x).detach();
  auto cache = gpt.make_cache();
  for (auto [begin, end] : {std::pair{0, 3}, {3, 4}, {4, 8}}) {
    std::vector<int32_t> ids;
    for (int b = 0; b < 2; ++b) ids.insert(ids.end(), x.ids.begin() + b * 8 + begin, x.ids.begin() + b * 8 + end);
    Tensor logits = gpt.next({{2, end - begin}, ids}, cache);
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t v = 0; v < 17; ++v) EXPECT_NEAR(logits.at({b, v}), all.at({b, end - 1, v}), 1e-5);
    }
  }
  EXPECT_THROW(gpt.next({{2, 1}, {0, 0}}, cache), Error);  // the context is full
}

TEST(Gpt, RefusesWhatMakesNoModel) {
  GptConfig c = tiny();
  c.heads = 5;
  EXPECT_THROW(Gpt{c}, Error);
  c = tiny();
  c.layers = 0;
  EXPECT_THROW(Gpt{c}, Error);
  Gpt gpt(tiny());
  EXPECT_THROW(gpt(random_tokens({1, 9}, 17, 1)), Error);  // longer than the context
}

TEST(Gpt, ABatchIsOverfitted) {
  manual_seed(4);
  GptConfig c = tiny();
  c.dim = 32;
  Gpt gpt(c);
  Tokens x = random_tokens({4, 8}, 17, 1), y = random_tokens({4, 8}, 17, 2);
  AdamW optimizer(gpt.parameters(), {.learning_rate = 1e-2, .weight_decay = 0});
  double loss = 0;
  for (int step = 0; step < 150; ++step) {
    Tensor l = gpt.loss(x, y);
    loss = double(l.item());
    backward(l);
    optimizer.step();
    optimizer.zero_gradients();
  }
  EXPECT_LT(loss, 0.05);
}

// What PyTorch computes for the same weights: tools/golden_gpt2.py makes the file.
class GptParity : public testing::Test {
 protected:
  using Json = nlohmann::json;
  static constexpr bool kDouble = sizeof(Real) == 8;
  const Json golden = Json::parse(std::ifstream(RAPT_TEST_FOLDER "/golden/gpt2.json"));

  static Shape shape_of(const Json& j) {
    Shape shape;
    for (int64_t s : j.at("shape")) shape.push_back(s);
    return shape;
  }
  static Tensor tensor_of(const Json& j) {
    std::vector<Real> values = j.at("values").get<std::vector<Real>>();
    return from_values(shape_of(j), std::span<const Real>(values));
  }
  static Tokens tokens_of(const Json& j) { return {shape_of(j), j.at("values").get<std::vector<int32_t>>()}; }

  Gpt model(Gelu activation) const {
    GptConfig c = tiny();
    c.mlp = activation == Gelu::tanh ? "gelu-tanh" : "gelu";
    Gpt gpt(c);
    std::vector<NamedTensor> weights;
    for (const auto& [name, value] : golden.at("weights").items()) weights.push_back({name, tensor_of(value)});
    load_parameters(gpt.parameters(), weights);
    return gpt;
  }
  Tokens x(size_t i) const { return tokens_of(golden.at("batches").at(i).at("inputs")); }
  Tokens y(size_t i) const { return tokens_of(golden.at("batches").at(i).at("targets")); }

  void expect_near(const Tensor& ours, const Json& theirs, double tolerance) const {
    ASSERT_EQ(ours.shape, shape_of(theirs));
    std::vector<Real> a = ours.to_vector();
    std::vector<double> b = theirs.at("values").get<std::vector<double>>();
    for (size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << i;
  }

  void check_forward(Gelu activation, const Json& expected) const {
    Gpt gpt = model(activation);
    expect_near(gpt(x(0)), expected.at("logits"), kDouble ? 1e-9 : 1e-5);
    EXPECT_NEAR(gpt.loss(x(0), y(0)).item(), expected.at("loss").get<double>(), kDouble ? 1e-9 : 1e-5);
  }

  void check_training(Gelu activation, const Json& losses) const {
    Gpt gpt = model(activation);
    AdamW optimizer(gpt.parameters(),
                    {.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1});
    ASSERT_EQ(losses.size(), 10u);
    for (size_t i = 0; i < losses.size(); ++i) {
      Tensor loss = gpt.loss(x(i), y(i));
      EXPECT_NEAR(loss.item(), losses.at(i).get<double>(), kDouble ? 1e-8 : 1e-4) << "step " << i;
      backward(loss);
      optimizer.step();
      optimizer.zero_gradients();
    }
  }
};

TEST_F(GptParity, LogitsAndLoss) {
  check_forward(Gelu::tanh, golden);
  check_forward(Gelu::erf, golden.at("gelu_erf"));
}

TEST_F(GptParity, EveryGradient) {
  Gpt gpt = model(Gelu::tanh);
  backward(gpt.loss(x(0), y(0)));
  ASSERT_EQ(golden.at("gradients").size(), gpt.parameters().size());
  for (const NamedTensor& p : gpt.parameters()) {
    SCOPED_TRACE(p.name);
    const Json& expected = golden.at("gradients").at(p.name);
    double largest = 0;
    for (double v : expected.at("values")) largest = std::max(largest, std::abs(v));
    expect_near(gradient(p.tensor), expected, (kDouble ? 1e-9 : 1e-5) * largest);
  }
}

TEST_F(GptParity, TenLossesOfAdamW) {
  check_training(Gelu::tanh, golden.at("adamw").at("losses"));
  check_training(Gelu::erf, golden.at("gelu_erf").at("losses"));
}

}  // namespace
}  // namespace rapt
