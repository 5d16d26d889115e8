#include "../../nn/attention/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

constexpr double kRotaryTolerance = sizeof(Real) == 8 ? 1e-11 : 2e-4;

void expect_close(const Tensor& a, const Tensor& b, double tolerance = kRotaryTolerance) {
  expect_near(a, b, tolerance);
}

Tensor scores(const Tensor& q, const Tensor& k) { return matmul(q, transpose(k, -1, -2)); }

std::vector<RotaryOptions> all_kinds() {
  return {{},
          {.style = RotaryStyle::interleaved},
          {.dims = 4},
          {.theta = 500, .scaling = RotaryScaling::linear, .factor = 3},
          {.scaling = RotaryScaling::ntk, .factor = 3},
          {.scaling = RotaryScaling::yarn, .factor = 4, .original_context = 256},
          {.scaling = RotaryScaling::llama3, .factor = 8, .original_context = 128},
          {.xpos = true}};
}

TEST(Rotary, ShiftingBothPositionsKeepsTheScores) {
  manual_seed(1);
  Tensor q = normal({2, 3, 5, 8}), k = normal({2, 3, 7, 8});
  for (const RotaryOptions& options : all_kinds()) {
    RotaryEmbedding rotary(options);
    Tensor expected = scores(rotary.queries(q, 3), rotary.keys(k, 0));
    for (int64_t shift : {1, 10, 501}) {
      expect_close(scores(rotary.queries(q, 3 + shift), rotary.keys(k, shift)), expected, 10 * kRotaryTolerance);
    }
    // and another distance gives others
    EXPECT_GT(std::abs(scores(rotary.queries(q, 4), rotary.keys(k, 0)).at({0, 0, 0, 0}) - expected.at({0, 0, 0, 0})),
              1e-3);
  }
}

TEST(Rotary, AngleIsPositionTimesFrequency) {
  RotaryEmbedding rotary({.theta = 100});
  Tensor y = rotary(from_values({1, 4}, {1, 0, 0, 1}), 7);
  EXPECT_NEAR(y.at({0, 0}), std::cos(7.0), kRotaryTolerance);
  EXPECT_NEAR(y.at({0, 2}), std::sin(7.0), kRotaryTolerance);
  EXPECT_NEAR(y.at({0, 1}), -std::sin(0.7), kRotaryTolerance);
  EXPECT_NEAR(y.at({0, 3}), std::cos(0.7), kRotaryTolerance);
}

TEST(Rotary, KeepsNorms) {
  manual_seed(2);
  Tensor x = normal({3, 9, 8});
  for (RotaryStyle style : {RotaryStyle::half_split, RotaryStyle::interleaved}) {
    RotaryEmbedding rotary({.style = style});
    expect_close(sum(rotary(x, 20) * rotary(x, 20), {-1}), sum(x * x, {-1}));
  }
}

TEST(Rotary, BackwardIsTheInverseRotation) {
  manual_seed(3);
  RotaryEmbedding rotary;
  Tensor x = normal({2, 5, 6}), leaf = requires_grad(x);
  Tensor y = rotary(leaf, 4);
  backward(y, y.detach());  // turned back: x again
  expect_close(gradient(leaf), x);
}

TEST(Rotary, StylesDifferByAPermutationOfChannels) {
  manual_seed(4);
  Tensor x = normal({2, 5, 6});
  const Tokens split_order({6}, {0, 2, 4, 1, 3, 5});  // interleaved → half-split
  Tensor half = RotaryEmbedding()(index_select(x, -1, split_order), 2);
  Tensor interleaved = RotaryEmbedding({.style = RotaryStyle::interleaved})(x, 2);
  EXPECT_EQ(index_select(interleaved, -1, split_order).to_vector(), half.to_vector());
}

TEST(Rotary, TheOtherChannelsStay) {
  manual_seed(5);
  Tensor x = normal({2, 5, 8});
  for (RotaryStyle style : {RotaryStyle::half_split, RotaryStyle::interleaved}) {
    Tensor y = RotaryEmbedding({.dims = 4, .style = style})(x, 1);
    EXPECT_EQ(view::slice(y, -1, 4, 8).to_vector(), view::slice(x, -1, 4, 8).to_vector());
    Tensor alone = RotaryEmbedding({.style = style})(view::slice(x, -1, 0, 4), 1);
    EXPECT_EQ(view::slice(y, -1, 0, 4).to_vector(), alone.to_vector());
  }
}

TEST(Rotary, HeadsOfAProjectionKeepTheirOrderInMemory) {
  manual_seed(6);
  Tensor merged = normal({2, 5, 3, 8});  // (B, N, H, D)
  Tensor heads = view::transpose(merged, 1, 2);
  Tensor y = RotaryEmbedding()(heads, 0);
  EXPECT_TRUE(view::transpose(y, 1, 2).contiguous());
  EXPECT_EQ(y.to_vector(), RotaryEmbedding()(clone(heads), 0).to_vector());
}

TEST(Rotary, OneAtATimeIsTheSameAsTogether) {
  manual_seed(7);
  Tensor x = normal({2, 200, 8});
  RotaryEmbedding rotary, fresh;
  Tensor together = rotary(x);
  for (int64_t n : {0, 63, 64, 199}) {  // the tables of `fresh` grow
    Tensor row = view::slice(x, 1, n, n + 1);
    EXPECT_EQ(fresh(row, n).to_vector(), view::slice(together, 1, n, n + 1).to_vector());
  }
  EXPECT_EQ(rotary(view::slice(x, -1, 0, 4)).to_vector(), RotaryEmbedding()(view::slice(x, -1, 0, 4)).to_vector());
}

TEST(Rotary, YarnScoresGetTheFactorSquared) {
  RotaryEmbedding rotary({.scaling = RotaryScaling::yarn, .factor = 4, .original_context = 256});
  manual_seed(8);
  Tensor x = normal({1, 8});
  double m = 0.1 * std::log(4.0) + 1;
  EXPECT_NEAR(scores(rotary(x, 9), rotary(x, 9)).item(), m * m * sum(x * x).item(), kRotaryTolerance);
}

// Numbers from the formulas of Hugging Face's modeling_rope_utils.
TEST(Rotary, ScaledFrequencies) {
  auto expect = [](const RotaryOptions& options, const std::vector<double>& expected) {
    std::vector<double> got = rotary_frequencies(options, 2 * int64_t(expected.size()));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-11 * expected[i]) << i;
  };
  expect({.theta = 10000, .scaling = RotaryScaling::yarn, .factor = 4, .original_context = 2048},
         {1.0, 0.316227766017, 0.1, 0.0256935059889, 0.00625, 0.00138349647632, 0.00025, 7.90569415042e-05});
  expect({.theta = 500000, .scaling = RotaryScaling::llama3, .factor = 8, .original_context = 8192},
         {1.0, 0.193922744749, 0.0376060309309, 0.00729266473722, 0.000524846160993, 3.42810219595e-05,
          6.64786987118e-06, 1.28917317215e-06});
  expect({.theta = 10000, .scaling = RotaryScaling::linear, .factor = 4}, {0.25, 0.0025});
  // the slowest of all is divided by the factor exactly
  expect({.theta = 10000, .scaling = RotaryScaling::ntk, .factor = 4}, {1, 0.0464158883361 / 2, 0.00215443469003 / 4});
}

TEST(Rotary, XposFallsWithTheDistance) {
  RotaryEmbedding rotary({.xpos = true});
  Tensor x = from_values({1, 4}, {1, 0, 0, 0});  // the fastest pair: ζ = 0.4 / 1.4
  double near = scores(rotary.queries(x, 600), rotary.keys(x, 600)).item();
  double far = scores(rotary.queries(x, 600), rotary.keys(x, 88)).item();
  EXPECT_NEAR(near, 1, kRotaryTolerance);
  EXPECT_NEAR(far, 0.4 / 1.4 * std::cos(512.0), kRotaryTolerance);
}

TEST(Rotary, BadArguments) {
  Tensor x = zeros({2, 5, 8});
  auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  contains(error_of([] { RotaryEmbedding({.dims = 3}); }), "dims must be even, got 3");
  contains(error_of([] { RotaryEmbedding({.theta = 0}); }), "theta must be above 1");
  contains(error_of([] { RotaryEmbedding({.scaling = RotaryScaling::yarn, .factor = 2}); }), "original_context");
  contains(error_of([] { RotaryEmbedding({.scaling = RotaryScaling::linear, .factor = 0.5}); }), "at least 1");
  contains(error_of([&] { RotaryEmbedding({.dims = 10})(x); }), "10 channels turn in pairs, but x is (2, 5, 8)");
  contains(error_of([&] { RotaryEmbedding()(zeros({5, 7})); }), "7 channels turn in pairs");
  contains(error_of([&] { RotaryEmbedding()(x, -1); }), "first position is -1");
  contains(error_of([&] { RotaryEmbedding({.xpos = true})(x); }), "queries() and keys()");
  contains(error_of([&] { RotaryEmbedding({.xpos = true}).keys(x, 100000); }), "positions, got 100005");
  contains(error_of([&] { rotate(x, zeros({4, 2}), zeros({4, 2})); }), "4 positions, but x is (2, 5, 8)");
  contains(error_of([&] { rotate(x, zeros({5, 5}), zeros({5, 5})); }), "turn 10 channels");
  contains(error_of([&] { rotate(x, zeros({5, 2}), zeros({5, 1})); }), "(5, 2) and (5, 1)");
}

}  // namespace
}  // namespace rapt
