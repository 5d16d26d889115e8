#include <gtest/gtest.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>
#include <string>
#include <vector>

#include "../expect.h"
#include "leaf.h"

// What the table of operations does not reach: kinks, infinities, errors, what is shared and what is copied.

namespace rapt {
namespace {

using Values = std::vector<Real>;

// d sum(y) / d x
Values slope(const Tensor& y, const Tensor& x) {
  set_gradient(x, {});
  backward(sum(y));
  return gradient(x).to_vector();
}

template <class F>
void expect_error(F f, const std::string& part) {
  try {
    f();
    ADD_FAILURE() << "nothing was thrown instead of: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Arithmetic, Kinks) {
  Tensor x = leaf({-1, 0, 2});
  EXPECT_EQ(slope(abs(x), x), Values({-1, 0, 1}));
  EXPECT_EQ(slope(clamp(x, 0, 2), x), Values({0, 1, 1}));  // inside [low, high]
  EXPECT_EQ(clamp(x, -0.5, 1).to_vector(), Values({-0.5, 0, 1}));
  Tensor other = requires_grad(from_values({3}, {-1, 5, -3}));
  EXPECT_EQ(slope(maximum(x, other), x), Values({0.5, 0, 1}));
  EXPECT_EQ(slope(maximum(x, other), other), Values({0.5, 1, 0}));
  EXPECT_EQ(slope(relu(x), x), Values({0, 0, 1}));
}

TEST(Arithmetic, PowersAtZero) {
  Tensor x = leaf({0, 2});
  EXPECT_EQ(pow(x, 0.0).to_vector(), Values({1, 1}));
  EXPECT_EQ(slope(pow(x, 0.0), x), Values({0, 0}));
  EXPECT_EQ(slope(pow(x, 1.0), x), Values({1, 1}));
  EXPECT_EQ(slope(pow(x, 2.0), x), Values({0, 4}));
  Tensor p = leaf({3, 0});
  EXPECT_EQ(slope(pow(x, p), x), Values({0, 0}));
  Values by_exponent = slope(pow(x, p), p);
  EXPECT_EQ(by_exponent[0], 0);
  EXPECT_NEAR(by_exponent[1], std::log(2.0), 1e-6);
}

TEST(Arithmetic, NanIsNotHidden) {
  Tensor x = full({1}, kNan), one = ones({1});
  for (const Tensor& y : {relu(x), clamp(x, 0, 1), maximum(x, one), maximum(one, x), abs(x), gelu(x), softplus(x)}) {
    EXPECT_TRUE(std::isnan(y.item()));
  }
}

// The branch that is not taken gives 0, though its value is infinite.
TEST(Arithmetic, WhereGivesNothingToTheOtherBranch) {
  Tensor a = leaf({1, 2}), b = requires_grad(full({2}, kInf));
  Tensor condition = from_values({2}, {1, 0});
  Tensor y = where(condition, a, b);
  EXPECT_EQ(y.to_vector(), Values({1, kInf}));
  EXPECT_EQ(slope(y, a), Values({1, 0}));
  EXPECT_EQ(slope(where(condition, a, b), b), Values({0, 1}));
  // a condition takes part in no graph
  Tensor c = leaf({1, 0});
  EXPECT_FALSE(where(c, 1, 2).node);
}

TEST(Arithmetic, Errors) {
  Tensor x = leaf({1, 2});
  expect_error([&] { clamp(x, 1, 0); }, "clamp: low is 1");
  expect_error([&] { x + zeros({3}); }, "add: shapes (2,) and (3,) don't broadcast");
  expect_error([&] { where(zeros({3}), x, x); }, "where: shapes");
  expect_error([&] { maximum(x, zeros({3})); }, "maximum: shapes");
  expect_error([&] { pow(x, zeros({3})); }, "pow: shapes");
}

TEST(Activations, KnownValues) {
  Tensor x = from_values({5}, {-100, -1, 0, 1, 100});
  auto expect_near = [](const Tensor& y, std::vector<double> expected) {
    Values values = y.to_vector();
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(values[i], expected[i], 1e-6 * std::max(1.0, expected[i])) << i;
    }
  };
  expect_near(gelu(x), {0, -0.15865525393145705, 0, 0.8413447460685429, 100});
  expect_near(gelu(x, Gelu::tanh), {0, -0.15880800939172324, 0, 0.8411919906082768, 100});
  expect_near(silu(x), {0, -0.2689414213699951, 0, 0.7310585786300049, 100});
  expect_near(softplus(x), {0, 0.31326168751822286, 0.6931471805599453, 1.3132616875182228, 100});
  expect_near(sigmoid(x), {0, 0.2689414213699951, 0.5, 0.7310585786300049, 1});
  EXPECT_EQ(exp(full({1}, -61)).item(), 0);
  EXPECT_EQ(exp(full({1}, -kInf)).item(), 0);
}

// Far out, slopes are exactly 0 or 1 and never NaN.
TEST(Activations, SlopesFarOut) {
  for (auto f : {+[](const Tensor& x) { return gelu(x); }, +[](const Tensor& x) { return gelu(x, Gelu::tanh); },
                 +[](const Tensor& x) { return silu(x); }, +[](const Tensor& x) { return softplus(x); }}) {
    Tensor x = leaf({-1e4, 1e4});
    EXPECT_EQ(slope(f(x), x), Values({0, 1}));
  }
}

TEST(Activations, KeepOneTensor) {
  Tensor x = requires_grad(ones({1000}));
  release_cached_memory();
  for (auto f : {+[](const Tensor& t) { return exp(t); }, +[](const Tensor& t) { return tanh(t); },
                 +[](const Tensor& t) { return sigmoid(t); }, +[](const Tensor& t) { return relu(t); },
                 +[](const Tensor& t) { return log(t); }}) {
    int64_t before = memory_stats().in_use;
    Tensor y = f(x);
    EXPECT_EQ(memory_stats().in_use - before, y.storage->capacity * int64_t(sizeof(Real)));  // itself, or the input
  }
  int64_t before = memory_stats().in_use;
  Tensor y = gelu(x);
  EXPECT_EQ(memory_stats().in_use - before, 2 * y.storage->capacity * int64_t(sizeof(Real)));  // the slope
}

TEST(Reductions, OfNothing) {
  Tensor x = requires_grad(zeros({0, 3}));
  EXPECT_EQ(sum(x).item(), 0);
  EXPECT_EQ(mean(x).item(), 0);
  EXPECT_EQ(mean(x, {0}).to_vector(), Values({0, 0, 0}));
  EXPECT_EQ(logsumexp(x, 0).to_vector(), Values(3, -kInf));
  EXPECT_EQ(max(x, 1).shape, Shape({0}));
  expect_error([&] { max(x, 0); }, "max: dimension 0 of (0, 3) has no elements");
  expect_error([&] { argmax(x, 0); }, "argmax: dimension 0 of (0, 3) has no elements");
  backward(mean(x));
  EXPECT_EQ(gradient(x).shape, Shape({0, 3}));
}

TEST(Reductions, Shapes) {
  Tensor x = zeros({2, 3, 4});
  EXPECT_EQ(sum(x).shape, Shape({}));
  EXPECT_EQ(sum(x, {1}).shape, Shape({2, 4}));
  EXPECT_EQ(sum(x, {-1, 0}, true).shape, Shape({1, 3, 1}));
  EXPECT_EQ(mean(x, {0, 1, 2}).shape, Shape({}));
  EXPECT_EQ(max(x, -2).shape, Shape({2, 4}));
  EXPECT_EQ(logsumexp(x, 0, true).shape, Shape({1, 3, 4}));
  EXPECT_EQ(argmax(x, 1).shape, Shape({2, 4}));
  expect_error([&] { sum(x, {1, -2}); }, "sum: dimension -2 of (2, 3, 4) is named twice");
  EXPECT_THROW(sum(x, {3}), Error);
  EXPECT_THROW(max(scalar(1), 0), Error);
}

TEST(Reductions, MaxGivesItsGradientToTheFirstOfEquals) {
  Tensor x = leaf({1, 5, 5, 2});
  EXPECT_EQ(slope(max(x, 0), x), Values({0, 1, 0, 0}));
  EXPECT_EQ(argmax(x, 0).ids, std::vector<int32_t>{1});
  EXPECT_EQ(argmax(from_values({2, 3}, {1, 3, 2, 6, 5, 4}), 1).ids, (std::vector<int32_t>{1, 0}));
  EXPECT_EQ(argmax(from_values({2, 3}, {1, 3, 2, 6, 1, 4}), 0).ids, (std::vector<int32_t>{1, 0, 1}));
}

TEST(Reductions, LogSumExpOfARowOfNothing) {
  Tensor x = requires_grad(from_values({2, 2}, {double(-kInf), double(-kInf), 1, double(-kInf)}));
  Tensor y = logsumexp(x, 1);
  EXPECT_EQ(y.to_vector(), Values({-kInf, 1}));
  EXPECT_EQ(slope(y, x), Values({0, 0, 1, 0}));
}

TEST(Reductions, GradientOfASumIsNotWrittenOut) {
  Tensor x = requires_grad(zeros({100, 100}));
  Tensor y = x * 1;
  Tensor seen;
  add_hook(y, [&](const Tensor& g) {
    seen = g;
    return Tensor();
  });
  backward(sum(y));
  EXPECT_EQ(seen.shape, x.shape);
  EXPECT_EQ(seen.strides, Shape({0, 0}));
}

TEST(Views, ShareTheirNumbers) {
  Tensor x = requires_grad(zeros({4, 6}));
  for (const Tensor& y : {slice(x, 0, 1, 3), select(x, 1, 2), transpose(x, 0, 1), permute(x, {1, 0}),
                          reshape(x, {2, 12}), expand(unsqueeze(x, 0), {3, 4, 6}), split(x, 4, 1)[1]}) {
    EXPECT_EQ(y.storage, x.storage) << y.node->describe();
  }
  EXPECT_NE(cat(std::vector{x, x}, 0).storage, x.storage);
}

TEST(Views, Split) {
  Tensor x = arange(7);
  std::vector<Tensor> parts = split(x, 3, 0);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].to_vector(), Values({3, 4, 5}));
  EXPECT_EQ(parts[2].to_vector(), Values({6}));
  EXPECT_EQ(split(x, 100, 0).size(), 1u);
  EXPECT_TRUE(split(zeros({0}), 3, 0).empty());
  expect_error([&] { split(x, 0, 0); }, "split: the size of a part must be at least 1");
}

TEST(Views, CatAndStack) {
  Tensor a = from_values({2, 1}, {1, 2}), b = from_values({2, 2}, {3, 4, 5, 6});
  EXPECT_EQ(cat(std::vector{a, b}, 1).to_vector(), Values({1, 3, 4, 2, 5, 6}));
  EXPECT_EQ(cat(std::vector{a}, 0).to_vector(), a.to_vector());
  EXPECT_EQ(stack(std::vector{a, a * 10}, -1).to_vector(), Values({1, 10, 2, 20}));
  EXPECT_EQ(stack(std::vector{a, a}, 0).shape, Shape({2, 2, 1}));
  EXPECT_EQ(stack(std::vector{scalar(1), scalar(2)}, 0).to_vector(), Values({1, 2}));
  std::vector<Tensor> many;
  for (int i = 0; i < 100; ++i) many.push_back(requires_grad(full({1, 2}, Real(i))));
  Tensor y = cat(many, 0);
  EXPECT_EQ(y.shape, Shape({100, 2}));
  EXPECT_EQ(y.at({77, 1}), 77);
  Tensor z = stack(many, 1);
  EXPECT_EQ(z.shape, Shape({1, 100, 2}));
  EXPECT_EQ(z.at({0, 66, 0}), 66);
  backward(sum(y * 2) + sum(z));
  EXPECT_EQ(gradient(many[99]).to_vector(), Values({3, 3}));
  expect_error([&] { cat(std::vector{a, b}, 0); }, "cat: (2, 1) and (2, 2) differ in more than dimension 0");
  expect_error([&] { cat(std::vector{a, scalar(1)}, 0); }, "cat: (2, 1) and ()");
  expect_error([&] { stack(std::vector{a, b}, 0); }, "stack: (2, 1) and (2, 2) differ");
  expect_error([] { cat({}, 0); }, "cat: no tensors");
  expect_error([] { stack({}, 0); }, "stack: no tensors");
}

TEST(Views, Pad) {
  Tensor x = from_values({1, 2}, {1, 2});
  EXPECT_EQ(pad(x, 1, 1, 2, 9).to_vector(), Values({9, 1, 2, 9, 9}));
  EXPECT_EQ(pad(x, 0, 0, 1).to_vector(), Values({1, 2, 0, 0}));
  EXPECT_EQ(pad(zeros({0}), 0, 1, 1, 3).to_vector(), Values({3, 3}));
  expect_error([&] { pad(x, 0, -1, 0); }, "pad: sizes must not be negative");
}

TEST(Views, IndexSelect) {
  Tensor x = requires_grad(from_values({3, 2}, {1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(index_select(x, 0, {{4}, {2, 0, 2, 2}}).to_vector(), Values({5, 6, 1, 2, 5, 6, 5, 6}));
  EXPECT_EQ(slope(index_select(x, 0, {{4}, {2, 0, 2, 2}}), x), Values({1, 1, 0, 0, 3, 3}));
  EXPECT_EQ(index_select(x, -1, {{0}, {}}).shape, Shape({3, 0}));
  expect_error([&] { index_select(x, 0, {{2}, {1, 3}}); }, "index 3 at 1 is not in [0, 3), dimension 0 of (3, 2)");
  expect_error([&] { index_select(x, 0, {{1}, {-1}}); }, "index -1 at 0");
  EXPECT_THROW(index_select(x, 2, {{1}, {0}}), Error);
}

TEST(Views, Errors) {
  Tensor x = zeros({2, 3});
  EXPECT_THROW(slice(x, 1, 0, 4), Error);
  EXPECT_THROW(select(x, 1, 3), Error);
  EXPECT_THROW(transpose(x, 0, 2), Error);
  EXPECT_THROW(permute(x, {0}), Error);
  EXPECT_THROW(reshape(x, {4}), Error);
  EXPECT_THROW(expand(x, {2, 4}), Error);
  EXPECT_THROW(squeeze(x, 0), Error);
  EXPECT_THROW(unsqueeze(x, 4), Error);
}

}  // namespace
}  // namespace rapt
