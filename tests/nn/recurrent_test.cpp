#include "../../nn/attention/recurrent.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"
#include "parameters.h"

namespace rapt {
namespace {

// f(name, module) for a small module of each kind, dimension 8 and 4 heads.
template <class F>
void for_each_kind(F f, RecurrentOptions options = {}) {
  manual_seed(21);
  f("LinearAttention", LinearAttention(8, 4, options));
  f("Performer", Performer(8, 4, {.features = 3, .common = options}));
  f("RetentiveAttention", RetentiveAttention(8, 4, options));
  f("GatedLinearAttention", GatedLinearAttention(8, 4, options));
  f("DeltaNet", DeltaNet(8, 4, options));
  f("GatedDeltaNet", GatedDeltaNet(8, 4, options));
}

bool finite(const Tensor& x) {
  std::vector<Real> values = x.to_vector();
  return std::all_of(values.begin(), values.end(), [](Real v) { return std::isfinite(v); });
}

TEST(Recurrent, Shapes) {
  for (int64_t shared : {0, 2, 1}) {
    for_each_kind(
        [](const char* name, const auto& module) {
          for (int64_t N : {1, 3, 9}) {
            Tensor y = module(normal({2, N, 8}));
            EXPECT_EQ(y.shape, Shape({2, N, 8})) << name;
            EXPECT_TRUE(finite(y)) << name;
          }
        },
        {.key_value_heads = shared, .chunk = 4});
  }
}

TEST(Recurrent, LaterTokensNeverMatter) {
  for_each_kind(
      [](const char* name, const auto& module) {
        Tensor x = normal({2, 11, 8}), before = module(x);
        for (int64_t t : {1, 4, 6, 10}) {
          Tensor changed = clone(x), rest = view::slice(changed, 1, t, 11);
          copy_into(rest, normal(rest.shape, 0, 20));
          Tensor after = module(changed);
          EXPECT_EQ(view::slice(after, 1, 0, t).to_vector(), view::slice(before, 1, 0, t).to_vector()) << name;
          EXPECT_NE(after.to_vector(), before.to_vector()) << name;
        }
      },
      {.chunk = 4});
}

TEST(Recurrent, EarlierTokensMatter) {
  for_each_kind([](const char* name, const auto& module) {
    Tensor x = normal({1, 6, 8}), changed = clone(x);
    changed.set({0, 0, 0}, 3);
    EXPECT_NE(view::select(module(x), 1, 5).to_vector(), view::select(module(changed), 1, 5).to_vector()) << name;
  });
}

TEST(Recurrent, TheChunkChangesRoundingOnly) {
  std::vector<std::vector<Real>> results;
  for (int64_t chunk : {1, 4, 64}) {
    size_t i = 0;
    for_each_kind(
        [&](const char* name, const auto& module) {
          manual_seed(5);
          std::vector<Real> y = module(normal({1, 10, 8})).to_vector();
          if (chunk == 1) return results.push_back(y);
          for (size_t j = 0; j < y.size(); ++j) {
            ASSERT_NEAR(y[j], results[i][j], sizeof(Real) == 8 ? 1e-11 : 2e-4) << name << ", chunk " << chunk;
          }
          ++i;
        },
        {.chunk = chunk});
  }
}

// The norm of two channels is strongly curved where they are small: short steps, for which float is too coarse.
constexpr double kStep = 1e-5;

TEST(Recurrent, GradientOfTheInput) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  for (int64_t shared : {0, 2}) {
    for_each_kind(
        [](const char* name, const auto& module) {
          auto result = grad_check([&](const std::vector<Tensor>& x) { return module(x[0]); }, {normal({1, 5, 8})},
                                   {.step = kStep});
          EXPECT_TRUE(result) << name << ": " << result.message;
        },
        {.key_value_heads = shared, .chunk = 2});
  }
}

// Against five-point differences in the numbers themselves.
TEST(Recurrent, GradientsOfTheParameters) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  for_each_kind(
      [](const char* name, const auto& module) {
        Tensor x = normal({2, 5, 8}), c = normal({2, 5, 8});
        backward(sum(module(x) * c));
        for (const NamedTensor& p : module.parameters()) {
          Tensor gradients = gradient(p.tensor);
          ASSERT_TRUE(gradients) << name << ", " << p.name;
          Tensor flat = view::reshape(p.tensor.detach(), {-1});
          for (int64_t i = 0; i < flat.numel(); i += 1 + flat.numel() / 8) {
            NoGrad no_grad;
            const Real value = flat.at({i}), h = Real(kStep);
            auto at = [&](Real shift) {
              flat.set({i}, value + shift);
              return double(sum(module(x) * c).item());
            };
            double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * double(h));
            flat.set({i}, value);
            double analytic = view::reshape(gradients, {-1}).at({i});
            EXPECT_NEAR(analytic, numeric, 1e-7 * std::max(1.0, std::abs(numeric))) << name << ", " << p.name;
          }
        }
      },
      {.bias = true, .chunk = 2});
}

TEST(Recurrent, ParameterNames) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(LinearAttention(8, 2)), (Names{"q.weight", "k.weight", "v.weight", "proj.weight"}));
  EXPECT_EQ(names(Performer(8, 2)), (Names{"q.weight", "k.weight", "v.weight", "proj.weight"}));
  EXPECT_EQ(names(RetentiveAttention(8, 2)), (Names{"q.weight", "k.weight", "v.weight", "proj.weight", "gate.weight"}));
  EXPECT_EQ(names(GatedLinearAttention(8, 2)), (Names{"q.weight", "k.weight", "v.weight", "proj.weight", "gate.weight",
                                                      "decay.weight", "decay.bias", "norm.weight"}));
  EXPECT_EQ(names(DeltaNet(8, 2)),
            (Names{"q.weight", "k.weight", "v.weight", "proj.weight", "beta.weight", "norm.weight"}));
  EXPECT_EQ(names(GatedDeltaNet(8, 2)),
            (Names{"q.weight", "k.weight", "v.weight", "proj.weight", "gate.weight", "beta.weight", "decay.weight",
                   "norm.weight", "log_rate", "decay_bias"}));
  LinearAttention shared(8, 4, {.key_value_heads = 2, .bias = true});
  EXPECT_EQ(names(shared),
            (Names{"q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias", "proj.weight", "proj.bias"}));
  EXPECT_EQ(shared.k.weight.shape, Shape({4, 8}));
}

TEST(Recurrent, PerformerEstimatesSoftmaxAttention) {
  manual_seed(9);
  std::vector<double> errors;
  for (int64_t features : {64, 64 * 256}) {
    Performer performer(8, 2, {.features = features, .seed = 4});
    Tensor x = normal({1, 12, 8});
    auto heads = [&](const Tensor& y) { return transpose(reshape(y, {1, 12, 2, 4}), 1, 2); };
    Tensor exact = attention(heads(performer.q(x)), heads(performer.k(x)), heads(performer.v(x)), {.mask = causal()});
    Tensor expected = performer.proj(reshape(transpose(exact, 1, 2), {1, 12, 8}));
    Tensor difference = performer(x) - expected;
    errors.push_back(std::sqrt(sum(difference * difference).item() / sum(expected * expected).item()));
  }
  EXPECT_LT(errors[1], 0.02);
  EXPECT_LT(errors[1], errors[0] / 4);  // in expectation 1/16
}

TEST(Recurrent, PerformerFeaturesAreOrthogonalAndOfTheSeed) {
  manual_seed(1);
  Performer a(16, 2, {.features = 12, .seed = 3});
  manual_seed(2);
  Performer b(16, 2, {.features = 12, .seed = 3}), c(16, 2, {.features = 12, .seed = 4});
  EXPECT_EQ(a.features.to_vector(), b.features.to_vector());
  EXPECT_NE(a.features.to_vector(), c.features.to_vector());
  Tensor products = matmul(a.features, transpose(a.features, 0, 1));
  for (int64_t i = 0; i < 8; ++i) {
    for (int64_t j = 0; j < i; ++j) EXPECT_NEAR(products.at({i, j}), 0, 1e-5);
  }
  EXPECT_GT(std::abs(products.at({9, 1})), 1e-3);  // of another block
}

// Keys and queries so long that plain exponentials are 0 or infinite.
TEST(Recurrent, LargeInputsStayFinite) {
  for_each_kind([](const char* name, const auto& module) {
    Tensor x = requires_grad(normal({2, 40, 8}, 0, 300));
    Tensor y = module(x);
    EXPECT_TRUE(finite(y)) << name;
    backward(sum(y));
    EXPECT_TRUE(finite(gradient(x))) << name;
  });
}

TEST(Recurrent, RetentionForgetsByThePublishedRates) {
  RetentiveAttention module(8, 4);
  for (int64_t h = 0; h < 4; ++h) {
    EXPECT_NEAR(std::exp(double(module.log_decay.at({h, 0}))), 1 - std::pow(2.0, -5.0 - double(h)), 1e-7);
  }
}

// 1 − 2^(−5−h) a position, as far as the decay's weights are small
TEST(Recurrent, LearnedDecaysBeginAsRetentionsAre) {
  const GatedDeltaNet gated(64, 32);
  const GatedLinearAttention linear(64, 32);
  const std::vector<Real> rates = exp(gated.log_rate.detach()).to_vector(),
                          steps = softplus(gated.decay_bias.detach()).to_vector(),
                          decays = sigmoid(linear.decay.bias.detach()).to_vector();
  for (size_t h = 0; h < rates.size(); ++h) {
    EXPECT_GE(rates[h], 0.999);
    EXPECT_LE(rates[h], 16.001);
    const double log_decay = std::log1p(-std::exp2(-5.0 - double(h)));
    EXPECT_NEAR(-double(rates[h]) * double(steps[h]) / log_decay, 1, 1e-5) << h;
    EXPECT_NEAR(std::pow(double(decays[h]), 1.0 / 16), std::exp(log_decay), 1e-6) << h;
  }
}

// Positions whose channels have the mean 0.5 and a weight of 0.3 everywhere: 0.3 · 0.5 · C / √C is added to each bias.
TEST(Recurrent, DecaysAreComputedFromXOverTheRootOfItsWidth) {
  NoGrad no_grad;
  manual_seed(3);
  Tensor x = normal({1, 6, 16});
  x = x - mean(x, {-1}, true) + 0.5;
  auto same = [&](const auto& module, Tensor bias) {
    Tensor weight = module.decay.weight.detach();
    copy_into(weight, zeros(weight.shape) + 0.3);
    const Tensor by_weight = module(x), begin = clone(bias);
    copy_into(weight, zeros(weight.shape));
    copy_into(bias, begin + 0.3 * 0.5 * 4);
    EXPECT_LE(relative_difference(by_weight, module(x)), 1e-5);
    copy_into(bias, begin);
    EXPECT_GE(relative_difference(by_weight, module(x)), 1e-3);
  };
  const GatedLinearAttention linear(16, 2);
  same(linear, linear.decay.bias.detach());
  const GatedDeltaNet gated(16, 2);
  same(gated, gated.decay_bias.detach());
}

TEST(Recurrent, BadArguments) {
  EXPECT_THROW(LinearAttention(8, 3), Error);
  EXPECT_THROW(LinearAttention(8, 0), Error);
  EXPECT_THROW(DeltaNet(8, 4, {.key_value_heads = 3}), Error);
  EXPECT_THROW(DeltaNet(8, 4, {.chunk = 0}), Error);
  EXPECT_THROW(Performer(8, 4, {.features = -1}), Error);
  EXPECT_THROW(LinearAttention(8, 2)(zeros({3, 8})), Error);
}

}  // namespace
}  // namespace rapt
