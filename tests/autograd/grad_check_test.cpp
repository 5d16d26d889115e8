#include <gtest/gtest.h>
#include <rapt/autograd/grad_check.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/kernels/elementwise.h>
#include <rapt/core/random.h>

#include <cmath>
#include <string>
#include <vector>

// The checker itself: it must find what is wrong.

namespace rapt {
namespace {

using Inputs = const std::vector<Tensor>&;

// x², whose gradient is wrong at one place by a little.
struct WrongSquare {
  static constexpr auto name = "wrong_square";
  double error = 0;
  Saved x{};
  Tensor forward(std::span<const Tensor> in) {
    x = in[0];
    return in[0] * in[0];
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dx = dy * x.get() * 2;
    Tensor at = clone(dx);
    at.set({1, 2}, dx.at({1, 2}) * Real(1 + error));
    return {at};
  }
};

Tensor numbers() {
  manual_seed(3);
  return uniform({3, 4}, 1, 2);
}

double visible_error() { return sizeof(Real) == 8 ? 1e-6 : 0.3; }

TEST(GradCheck, AcceptsARightGradient) {
  for (bool directional : {false, true}) {
    GradCheckResult result =
        grad_check([](Inputs x) { return record(WrongSquare{0}, {x[0]}); }, {numbers()}, {.directional = directional});
    EXPECT_TRUE(result.ok) << result.message;
    EXPECT_NE(result.message.find("ok"), std::string::npos) << result.message;
  }
}

TEST(GradCheck, FindsAWrongElementAndNamesIt) {
  GradCheckResult result =
      grad_check([](Inputs x) { return x[0] + record(WrongSquare{visible_error()}, {x[1]}); }, {numbers(), numbers()});
  EXPECT_FALSE(result.ok);
  EXPECT_EQ(result.input, 1);
  EXPECT_EQ(result.index, Shape({1, 2}));
  EXPECT_NEAR(result.analytic / result.numeric, 1 + visible_error(), visible_error() / 2);
  EXPECT_NE(result.message.find("input 1 at (1, 2)"), std::string::npos) << result.message;
  EXPECT_NE(result.message.find("FAILED"), std::string::npos) << result.message;
}

TEST(GradCheck, FindsAWrongElementAlongADirection) {
  GradCheckResult result = grad_check([](Inputs x) { return record(WrongSquare{visible_error()}, {x[0]}); },
                                      {numbers()}, {.directional = true});
  EXPECT_FALSE(result.ok) << result.message;
}

TEST(GradCheck, RefusesGradientsThatAreZeroEverywhere) {
  auto function = [](Inputs x) { return x[0] + x[1] * 0; };
  GradCheckResult result = grad_check(function, {numbers(), numbers()});
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.message.find("input 1 is zero everywhere"), std::string::npos) << result.message;
  EXPECT_TRUE(grad_check(function, {numbers(), numbers()}, {.allow_zero = true}));
}

TEST(GradCheck, RefusesAnInputThatIsNotUsed) {
  EXPECT_FALSE(grad_check([](Inputs x) { return x[0] * 2; }, {numbers(), numbers()}));
  GradCheckResult none = grad_check([](Inputs x) { return x[0].detach(); }, {numbers()});
  EXPECT_FALSE(none);
  EXPECT_NE(none.message.find("does not depend"), std::string::npos) << none.message;
}

TEST(GradCheck, RefusesAFunctionThatIsNotDeterministic) {
  int calls = 0;
  GradCheckResult result = grad_check([&](Inputs x) { return x[0] * double(++calls); }, {numbers()});
  EXPECT_FALSE(result);
  EXPECT_NE(result.message.find("not deterministic"), std::string::npos) << result.message;
}

TEST(GradCheck, GivesTheSameRandomNumbersToEveryCall) {
  GradCheckResult result = grad_check([](Inputs x) { return x[0] * normal({3, 4}); }, {numbers()});
  EXPECT_TRUE(result) << result.message;
}

TEST(GradCheck, NanIsAFailure) {
  for (bool directional : {false, true}) {
    GradCheckResult result =
        grad_check([](Inputs x) { return log(x[0] - 10); }, {numbers()}, {.directional = directional});
    EXPECT_FALSE(result) << result.message;
  }
}

struct NanBackward {
  static constexpr auto name = "nan_backward";
  Tensor forward(std::span<const Tensor> x) { return clone(x[0]); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dx = clone(dy);
    dx.set({0, 1}, Real(NAN));
    return {dx};
  }
};

// Though right elements come after it.
TEST(GradCheck, NanInTheGradientIsAFailure) {
  GradCheckResult result = grad_check([](Inputs x) { return record(NanBackward{}, {x[0]}); }, {numbers()});
  EXPECT_FALSE(result);
  EXPECT_EQ(result.index, Shape({0, 1})) << result.message;
}

TEST(GradCheck, LeavesTheInputsAlone) {
  Tensor x = numbers();
  std::vector<Real> before = x.to_vector();
  grad_check([](Inputs in) { return in[0] * in[0]; }, {x});
  EXPECT_EQ(x.to_vector(), before);
  EXPECT_FALSE(x.node);
}

}  // namespace
}  // namespace rapt
