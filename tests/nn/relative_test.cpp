#include "../../nn/attention/relative.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../expect.h"
#include "parameters.h"

namespace rapt {
namespace {

Tensor parameter(const Module& m, const std::string& name) {
  for (const NamedTensor& p : m.parameters()) {
    if (p.name == name) return p.tensor;
  }
  throw Error("no parameter " + name);
}

// Equation 4 and 5 of the paper, entry by entry.
TEST(Relative, DebertaIsTheFormula) {
  for (bool causal : {false, true}) {
    manual_seed(1);
    const int64_t H = 4, shared = 2, D = 2, N = 7, reach = 3;
    DebertaAttention attend(8, H, {.common = {.key_value_heads = shared, .causal = causal}, .reach = reach});
    randomize(attend);
    Tensor x = normal({1, N, 8}), qkv = reshape(attend.qkv(x), {N, (H + 2 * shared) * D});
    Tensor positions = parameter(attend, "relative.positions");
    ASSERT_EQ(positions.shape, Shape({2 * reach, 8}));
    Tensor kr = linear(positions, parameter(attend, "relative.key.weight"));
    Tensor qr = linear(positions, parameter(attend, "relative.query.weight"));
    std::vector<Tensor> heads;
    for (int64_t h = 0; h < H; ++h) {
      const int64_t g = h / (H / shared);
      auto head = [&](const Tensor& t, int64_t i) { return slice(t, 1, i * D, (i + 1) * D); };
      Tensor q = head(qkv, h), k = head(qkv, H + g), v = head(qkv, H + shared + g), s = zeros({N, N});
      auto dot = [&](const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
        return sum(select(a, 0, i) * select(b, 0, j)).item();
      };
      auto delta = [&](int64_t i, int64_t j) {
        return i - j <= -reach ? 0 : i - j >= reach ? 2 * reach - 1 : i - j + reach;
      };
      for (int64_t i = 0; i < N; ++i) {
        for (int64_t j = 0; j < N; ++j) {
          const Real score =
              dot(q, i, k, j) + dot(q, i, head(kr, h), delta(i, j)) + dot(k, j, head(qr, g), delta(j, i));
          s.set({i, j}, causal && j > i ? Real(-1e9) : Real(score / std::sqrt(3.0 * double(D))));
        }
      }
      heads.push_back(matmul(softmax(s), v));
    }
    expect_near(attend(x), unsqueeze(attend.proj(cat(heads, 1)), 0));
  }
}

TEST(Relative, DebertaStepByStep) {
  manual_seed(2);
  DebertaAttention attend(8, 2, {.reach = 3});
  randomize(attend);
  ASSERT_TRUE(attend.has_cache());
  EvalMode eval;
  Tensor x = normal({2, 9, 8}), whole = attend(x);
  KeyValueCache cache(9);
  expect_near(attend.step(slice(x, 1, 0, 5), cache), slice(whole, 1, 0, 5));
  expect_near(attend.step(slice(x, 1, 5, 6), cache), slice(whole, 1, 5, 6));
  expect_near(attend.step(slice(x, 1, 6, 9), cache), slice(whole, 1, 6, 9));
  EXPECT_THROW(DebertaAttention(8, 2, {.reach = 0}), Error);
}

// Each parameter of `layer` as an input.
void expect_right_gradients(const AttentionLayer& layer, const std::vector<std::string>& names) {
  Tensor x = normal({1, 6, 8});
  auto result = grad_check([&](const std::vector<Tensor>& in) { return layer(in[0]); }, {x}, {.step = 1e-4});
  EXPECT_TRUE(result) << result.message;
  layer.zero_gradients();
  Tensor c = normal(x.shape);
  backward(sum(layer(x) * c));
  for (const std::string& name : names) {
    Tensor p = parameter(layer, name), gradients = gradient(p);
    ASSERT_TRUE(gradients) << name;
    NoGrad no_grad;
    Tensor values = reshape(p.detach(), {-1});
    for (int64_t i = 0; i < values.numel(); i += 1 + values.numel() / 6) {
      const Real value = values.at({i}), h = Real(1e-4);
      auto at = [&](Real shift) {
        values.set({i}, value + shift);
        return double(sum(layer(x) * c).item());
      };
      const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * double(h));
      values.set({i}, value);
      EXPECT_NEAR(reshape(gradients, {-1}).at({i}), numeric, 1e-8) << name << " at " << i;
    }
  }
}

TEST(Relative, DebertaGradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  manual_seed(3);
  DebertaAttention attend(8, 4, {.common = {.key_value_heads = 2}, .reach = 2});
  randomize(attend);
  expect_right_gradients(attend, {"relative.positions", "relative.key.weight", "relative.query.weight", "qkv.weight"});
}

GroupedQueryAttention with_dynamic_bias(bool logarithmic, bool causal) {
  std::vector<std::unique_ptr<AttentionPart>> parts;
  parts.push_back(dynamic_bias_part(2, {.hidden = 4, .logarithmic = logarithmic}));
  return GroupedQueryAttention(8, 2, {.causal = causal}, std::move(parts));
}

TEST(Relative, DynamicBiasStartsAtNothing) {
  manual_seed(4);
  GroupedQueryAttention attend = with_dynamic_bias(true, true), plain(8, 2);
  for (const NamedTensor& p : plain.parameters()) {
    Tensor values = p.tensor.detach();
    copy_into(values, parameter(attend, p.name).detach());
  }
  Tensor x = normal({2, 5, 8});
  expect_near(attend(x), plain(x));
}

TEST(Relative, DynamicBiasIsAFunctionOfTheDistance) {
  for (bool logarithmic : {false, true}) {
    manual_seed(5);
    GroupedQueryAttention attend = with_dynamic_bias(logarithmic, false);
    randomize(attend);
    auto weight = [&](const char* name) { return parameter(attend, fmt::format("dynamic.{}", name)); };
    const int64_t N = 6;
    Tensor bias_matrix = empty({2, N, N});
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t j = 0; j < N; ++j) {
        double d = double(j - i);
        if (logarithmic) d = std::copysign(std::log(std::abs(d) + 1), d);
        Tensor y = silu(linear(from_values({1}, {d}), weight("in.weight"), weight("in.bias")));
        y = linear(silu(linear(y, weight("middle.weight"), weight("middle.bias"))), weight("out.weight"));
        for (int64_t h : {0, 1}) bias_matrix.set({h, i, j}, y.at({h}));
      }
    }
    Tensor x = normal({1, N, 8}), qkv = reshape(attend.qkv(x), {1, N, 6, 4});
    auto heads = [&](int64_t first) { return transpose(slice(qkv, 2, first, first + 2), 1, 2); };
    Tensor y = attention(heads(0), heads(2), heads(4), {.score = bias(bias_matrix)});
    expect_near(attend(x), attend.proj(reshape(transpose(y, 1, 2), {1, N, 8})));
  }
}

TEST(Relative, DynamicBiasGradientsAndCache) {
  manual_seed(6);
  GroupedQueryAttention attend = with_dynamic_bias(true, true);
  randomize(attend);
  Tensor x = normal({2, 7, 8});
  {
    EvalMode eval;
    Tensor whole = attend(x);
    KeyValueCache cache(7);
    expect_near(attend.step(slice(x, 1, 0, 4), cache), slice(whole, 1, 0, 4));
    expect_near(attend.step(slice(x, 1, 4, 7), cache), slice(whole, 1, 4, 7));
  }
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  expect_right_gradients(attend,
                         {"dynamic.in.weight", "dynamic.in.bias", "dynamic.middle.weight", "dynamic.out.weight"});
}

}  // namespace
}  // namespace rapt
