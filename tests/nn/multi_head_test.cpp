#include "../../nn/attention/multi_head.h"

#include <gtest/gtest.h>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../../nn/attention/grouped_query.h"
#include "../autograd/golden.h"
#include "../expect.h"

namespace rapt {
namespace {

Tokens golden_mask(const Json& j) {
  Tokens t;
  for (int64_t size : j.at("shape")) t.shape.push_back(size);
  t.ids = j.at("values").get<std::vector<int32_t>>();
  return t;
}

// torch.nn.MultiheadAttention: outputs, weights and every gradient (tools/golden_attention.py).
TEST(MultiHead, AgreesWithPyTorch) {
  const Json json = Json::parse(std::ifstream(RAPT_TEST_FOLDER "/golden/attention.json"));
  const double tolerance = sizeof(Real) == 8 ? 1e-9 : 1e-5;
  for (const Json& c : json.at("modules")) {
    SCOPED_TRACE(c.at("case").get<std::string>());
    const Json& o = c.at("options");
    MultiHeadOptions options;
    options.kdim = o.value("kdim", 0);
    options.vdim = o.value("vdim", 0);
    options.bias = o.value("bias", true);
    options.add_bias_kv = o.value("add_bias_kv", false);
    options.add_zero_attn = o.value("add_zero_attn", false);
    options.batch_first = o.value("batch_first", true);
    MultiHeadAttention attend(6, 2, options);

    std::vector<NamedTensor> parameters;
    for (const auto& [name, value] : c.at("parameters").items()) parameters.push_back({name, golden_tensor(value)});
    load_parameters(attend.parameters(), parameters);  // also: the same names and shapes, none missing
    std::map<std::string, Tensor> leaves;
    for (const NamedTensor& p : attend.parameters()) leaves[p.name] = p.tensor;
    for (const auto& [name, value] : c.at("inputs").items()) leaves[name] = requires_grad(golden_tensor(value));

    MultiHeadCall call{.need_weights = c.contains("weights"), .average_weights = c.at("average")};
    call.is_causal = c.at("causal");
    call.attn_bias = leaves["attn_bias"];
    call.key_padding_bias = leaves["key_padding_bias"];
    const Json& masks = c.at("masks");
    if (masks.contains("attn_mask")) call.attn_mask = golden_mask(masks.at("attn_mask"));
    if (masks.contains("key_padding_mask")) call.key_padding_mask = golden_mask(masks.at("key_padding_mask"));
    auto [output, weights] = attend(leaves["query"], leaves["key"], leaves["value"], call);
    expect_golden(output.detach(), c.at("output"), tolerance);
    Tensor total = sum(output * golden_tensor(c.at("cotangents").at("output")));
    if (call.need_weights) {
      expect_golden(weights.detach(), c.at("weights"), tolerance);
      total = total + sum(weights * golden_tensor(c.at("cotangents").at("weights")));
    }
    backward(total);
    for (const auto& [name, value] : c.at("gradients").items()) {
      SCOPED_TRACE(name);
      expect_golden(gradient(leaves[name]), value, tolerance);
    }
  }
}

// PyTorch gives NaN here.
TEST(MultiHead, AQueryWithoutKeysGetsTheBias) {
  manual_seed(1);
  for (bool need_weights : {false, true}) {
    MultiHeadAttention attend(6, 2);
    for (const NamedTensor& p : attend.parameters()) {
      Tensor values = p.tensor.detach();
      copy_into(values, normal(values.shape));
    }
    Tensor x = requires_grad(normal({2, 3, 6}));
    Tokens padding({2, 3}, {0, 0, 1, 1, 1, 1}), mask({3, 3}, {0, 0, 0, 1, 1, 0, 0, 0, 0});
    auto [output, weights] =
        attend(x, x, x, {.key_padding_mask = padding, .attn_mask = mask, .need_weights = need_weights});
    for (auto [b, row] : {std::pair{0, 1}, {1, 0}, {1, 1}, {1, 2}}) {
      Tensor y = select(select(output, 0, b), 0, row);
      EXPECT_EQ(y.to_vector(), attend.out_proj.bias.to_vector()) << b << ", " << row;
      if (!weights) continue;
      EXPECT_EQ(sum(select(select(weights, 0, b), 0, row)).item(), 0);
    }
    backward(sum(output));
    for (Real g : gradient(x).to_vector()) EXPECT_TRUE(std::isfinite(g));
  }
}

// A bias of −∞ masks like a mask.
TEST(MultiHead, MasksOfMinusInfinity) {
  manual_seed(2);
  MultiHeadAttention attend(6, 2);
  const double inf = std::numeric_limits<double>::infinity();
  Tensor x = requires_grad(normal({1, 3, 6}));
  Tensor by_bias = attend(x, x, x, {.attn_bias = from_values({3, 3}, {0, -inf, 0, -inf, -inf, -inf, 0, 0, 0})}).output;
  Tensor by_mask = attend(x, x, x, {.attn_mask = Tokens({3, 3}, {0, 1, 0, 1, 1, 1, 0, 0, 0})}).output;
  expect_near(by_bias, by_mask);
  Tensor c = normal(by_bias.shape);
  backward(sum(by_bias * c));
  Tensor from_bias = clone(gradient(x));
  Tensor again = requires_grad(x.detach());
  backward(sum(attend(again, again, again, {.attn_mask = Tokens({3, 3}, {0, 1, 0, 1, 1, 1, 0, 0, 0})}).output * c));
  expect_near(from_bias, gradient(again));
}

TEST(MultiHead, WeightsAreThoseThatWereUsed) {
  manual_seed(3);
  MultiHeadAttention attend(6, 2, {.dropout = 0.5, .bias = false});
  Tensor x = normal({1, 8, 6});
  manual_seed(9);
  auto [output, weights] = attend(x, x, x, {.need_weights = true, .average_weights = false});
  Tensor v = transpose(reshape(linear(x, slice(attend.in_proj_weight, 0, 12, 18)), {1, 8, 2, 3}), 1, 2);
  Tensor y = reshape(transpose(matmul(weights, v), 1, 2), {1, 8, 6});
  expect_near(output, attend.out_proj(y));
  std::vector<Real> w = weights.to_vector();
  EXPECT_GT(std::count(w.begin(), w.end(), Real(0)), 30);  // of 128
  manual_seed(9);
  expect_near(attend(x, x, x).output, output);
  EvalMode eval;
  Tensor all = attend(x, x, x, {.need_weights = true}).weights;
  expect_near(sum(all, {-1}), ones({1, 8}));
}

// What PyTorch lacks, against the layer made of parts.
TEST(MultiHead, GroupedHeadsOfAnyWidth) {
  manual_seed(4);
  MultiHeadAttention attend(6, 4, {.key_value_heads = 2, .head_dim = 5});
  GroupedQueryAttention other(6, 4, {.key_value_heads = 2, .head_dim = 5});
  auto copy = [](Tensor to, const Tensor& from) {
    Tensor values = to.detach();
    copy_into(values, from);
  };
  EXPECT_EQ(attend.in_proj_weight.shape, Shape({40, 6}));
  copy(other.qkv.weight, attend.in_proj_weight.detach());
  copy(other.qkv.bias, attend.in_proj_bias.detach());
  copy(other.proj.weight, attend.out_proj.weight.detach());
  copy(other.proj.bias, attend.out_proj.bias.detach());
  Tensor x = normal({2, 7, 6});
  expect_near(attend(x), other(x));
}

const std::vector<MultiHeadOptions>& rich_options() {
  static const std::vector<MultiHeadOptions> all{
      {},
      {.key_value_heads = 2, .head_dim = 6, .rotary = RotaryOptions{}},
      {.add_bias_kv = true, .add_zero_attn = true, .window = 3, .qk_norm = true},
      {.add_bias_kv = true, .rotary = RotaryOptions{.xpos = true}, .softcap = 2, .sink = true, .window = 2},
  };
  return all;
}

TEST(MultiHead, StepByStepIsTheWhole) {
  for (const MultiHeadOptions& options : rich_options()) {
    manual_seed(5);
    MultiHeadAttention attend(8, 4, options);
    ASSERT_TRUE(attend.has_cache());
    EvalMode eval;
    Tensor x = normal({2, 9, 8}), whole = attend(x);
    KeyValueCache cache(9);
    int64_t from = 0;
    for (int64_t to : {4, 5, 6, 9}) {
      expect_near(attend.step(slice(x, 1, from, to), cache), slice(whole, 1, from, to));
      from = to;
    }
    EXPECT_THROW(attend.step(slice(x, 1, 0, 1), cache), Error);
  }
  MultiHeadAttention two_sided(8, 4, {.causal = false});
  KeyValueCache cache(9);
  EXPECT_FALSE(two_sided.has_cache());
  EXPECT_THROW(two_sided.step(normal({2, 1, 8}), cache), Error);
}

TEST(MultiHead, WindowKeepsItsPlaceBesideAddedKeys) {
  manual_seed(6);
  MultiHeadAttention attend(8, 2, {.add_bias_kv = true, .window = 2});
  Tensor w = attend(normal({1, 6, 8}), normal({1, 6, 8}), normal({1, 6, 8}), {.need_weights = true, .is_causal = true})
                 .weights;
  ASSERT_EQ(w.shape, Shape({1, 6, 7}));
  for (int64_t i = 0; i < 6; ++i) {
    for (int64_t j = 0; j < 7; ++j) EXPECT_EQ(w.at({0, i, j}) > 0, j == 6 || (j <= i && j >= i - 2)) << i << ", " << j;
  }
}

TEST(MultiHead, Gradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  for (const MultiHeadOptions& options : rich_options()) {
    manual_seed(7);
    MultiHeadAttention attend(8, 4, options);
    auto result =
        grad_check([&](const std::vector<Tensor>& x) { return attend(x[0]); }, {normal({1, 5, 8})}, {.step = 1e-4});
    EXPECT_TRUE(result) << result.message;
    Tensor x = normal({1, 5, 8});
    backward(sum(attend(x) * normal(x.shape)));
    for (const NamedTensor& p : attend.parameters()) EXPECT_TRUE(gradient(p.tensor)) << p.name;
  }
}

TEST(MultiHead, BadArguments) {
  EXPECT_THROW(MultiHeadAttention(6, 4), Error);
  EXPECT_THROW(MultiHeadAttention(6, 0), Error);
  EXPECT_THROW(MultiHeadAttention(6, 2, {.dropout = 1.5}), Error);
  EXPECT_THROW(MultiHeadAttention(6, 2, {.key_value_heads = 4}), Error);
  EXPECT_THROW(MultiHeadAttention(6, 2, {.window = -1}), Error);
  MultiHeadAttention attend(6, 2);
  Tensor x = zeros({2, 3, 6});
  EXPECT_THROW(attend(x, zeros({1, 3, 6}), zeros({1, 3, 6})), Error);
  EXPECT_THROW(attend(x, zeros({3, 6}), zeros({3, 6})), Error);
  EXPECT_THROW(attend(x, x, x, {.key_padding_mask = Tokens({1, 3}, {0, 0, 0})}), Error);
  EXPECT_THROW(attend(x, x, x, {.key_padding_bias = zeros({1, 3})}), Error);
  EXPECT_THROW(attend(x, x, x, {.attn_mask = Tokens({2, 3}, {0, 0, 0, 0, 0, 0})}), Error);
  EXPECT_THROW(attend(x, x, x, {.attn_bias = zeros({2, 3, 3})}), Error);
}

}  // namespace
}  // namespace rapt
