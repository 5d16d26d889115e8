#include <gtest/gtest.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/random.h>

#include <cmath>
#include <string>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

TEST(Embedding, LooksUpRowsAndAddsTheirGradients) {
  const int64_t V = 11, C = 150, rows = 60;  // several blocks of columns
  Tensor weight = requires_grad(normal({V, C})), dy = normal({3, 20, C});
  Tokens ids{{3, 20}, std::vector<int32_t>(size_t(rows))};
  for (int64_t i = 0; i < rows; ++i) ids.ids[size_t(i)] = int32_t(i * i % (V - 1));  // repeated; the last never
  Tensor y = embedding(weight, ids);
  EXPECT_EQ(y.shape, Shape({3, 20, C}));
  backward(y, dy);
  std::vector<Real> sums(size_t(V * C), 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < C; ++c) {
      ASSERT_EQ(y.data()[r * C + c], weight.data()[ids.ids[size_t(r)] * C + c]);
      sums[size_t(ids.ids[size_t(r)] * C + c)] += dy.data()[r * C + c];  // in the same order, so to the last bit
    }
  }
  EXPECT_EQ(gradient(weight).to_vector(), sums);
}

// As in a model whose head has the same weight: the second gradient goes into the first.
TEST(Embedding, AddsToTheGradientOfATiedTable) {
  manual_seed(1);
  const Tokens ids({5}, {7, 999, 7, 0, 3});
  Tensor values = normal({1000, 64}), factors = normal({1000, 64}), dy = normal({5, 64});
  auto gradient_of = [&](bool looked_up, bool multiplied) {
    Tensor weight = requires_grad(clone(values));
    Tensor loss = looked_up ? sum(embedding(weight, ids) * dy) : Tensor();
    if (multiplied) loss = loss ? loss + sum(weight * factors) : sum(weight * factors);
    reset_peak_memory();
    const int64_t before = memory_stats().in_use;
    backward(loss);
    if (looked_up && multiplied) {
      EXPECT_LT(memory_stats().peak - before, 2 * values.numel() * int64_t(sizeof(Real)));
    }
    return gradient(weight);
  };
  Tensor both = gradient_of(true, true), apart = gradient_of(true, false) + gradient_of(false, true);
  expect_near(both, apart);
}

TEST(Embedding, SaysWhichIdIsWrong) {
  try {
    embedding(zeros({7, 2}), {{2, 3}, {0, 6, 1, 2, 7, -1}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "embedding: id 7 at position (1, 1) of (2, 3) is outside [0, 7)");
  }
  EXPECT_THROW(embedding(zeros({7, 2}), {{1}, {-1}}), Error);
  EXPECT_THROW(embedding(zeros({7}), {{1}, {0}}), Error);
}

TEST(Dropout, DropsByTheWordsOfTheGenerator) {
  const int64_t n = 20'000;
  for (double p : {0.1, 0.5, 0.97}) {
    manual_seed(77, 5);
    Tensor x = requires_grad(normal({2, n / 2}, 3));
    Random random{77, 6};  // normal took stream 5
    Tensor y = dropout(x, p);
    backward(y, x.detach());
    int64_t dropped = 0;
    for (int64_t i = 0; i < n; ++i) {
      uint32_t word = random.words(uint64_t(i / 64 * 16 + i % 16))[size_t(i % 64 / 16)];
      bool drop = word < uint32_t(p * 0x1p32);
      dropped += drop;
      ASSERT_EQ(y.data()[i], drop ? 0 : x.data()[i] * Real(1 / (1 - p))) << i;
      ASSERT_EQ(gradient(x).data()[i], y.data()[i]) << i;  // the same mask, the same scale
    }
    EXPECT_NEAR(double(dropped) / double(n), p, 5 * std::sqrt(p * (1 - p) / double(n)));
  }
}

TEST(Dropout, EachCallHasAMaskOfItsOwn) {
  manual_seed(1);
  Tensor x = ones({1000});
  std::vector<Real> a = dropout(x, 0.5).to_vector(), b = dropout(x, 0.5).to_vector();
  EXPECT_NE(a, b);
  manual_seed(1);
  EXPECT_EQ(dropout(x, 0.5).to_vector(), a);
  manual_seed(2);
  EXPECT_NE(dropout(x, 0.5).to_vector(), a);
}

TEST(Dropout, Edges) {
  Tensor x = requires_grad(normal({100}));
  Tensor same = dropout(x, 0), none = dropout(x, 1);
  EXPECT_EQ(same.storage, x.storage);
  EXPECT_EQ(none.to_vector(), std::vector<Real>(100, 0));
  backward(same, ones({100}));
  EXPECT_EQ(gradient(x).to_vector(), std::vector<Real>(100, 1));
  set_gradient(x, {});
  backward(none, ones({100}));
  EXPECT_EQ(gradient(x).to_vector(), std::vector<Real>(100, 0));
  EXPECT_THROW(dropout(x, 1.1), Error);
  EXPECT_THROW(dropout(x, -0.1), Error);
  EXPECT_THROW(dropout(x, NAN), Error);
  // what is dropped is 0 whatever it was
  Tensor nan = full({64}, Real(NAN));
  int64_t zeros_found = 0;
  for (Real v : dropout(nan, 0.5).to_vector()) zeros_found += v == 0;
  EXPECT_GT(zeros_found, 10);
}

}  // namespace
}  // namespace rapt
