#include "../../watch/check_finite.h"

#include <gtest/gtest.h>

#include <limits>

#include "../../autograd/ops.h"
#include "../expect.h"

namespace rapt {
namespace {

std::string report_of(const std::function<void()>& f) {
  CheckFinite check;
  try {
    f();
  } catch (const NotFiniteError& error) {
    return error.what();
  }
  return "";
}

TEST(CheckFinite, NamesTheFirstBadResultAndItsPlace) {
  std::string text = report_of([] {
    Scope scope(std::make_shared<const std::string>("blocks.2"));
    Tensor x = log(from_values({2, 3}, {1, 2, 3, 4, -5, 0}));
    exp(x);
  });
  expect_contains(text, "log (");
  expect_contains(text, "check_finite_test.cpp:");
  expect_contains(text, "in blocks.2)");
  expect_contains(text, "1 NaN, 1 −Inf among its 6 numbers (2, 3), the first at [1, 1]");
  expect_contains(text, "its inputs are all finite");
}

TEST(CheckFinite, SaysWhichInputWasBadAlready) {
  Tensor weight = ones({3, 2});
  weight.set({2, 1}, kNan);
  std::string text = report_of([&] { matmul(ones({4, 3}), weight); });
  expect_contains(text, "matmul (");
  expect_contains(text, "its input 1 was bad already: 1 NaN among its 6 numbers (3, 2), the first at [2, 1]");
}

TEST(CheckFinite, LooksAtBackward) {
  Tensor x = requires_grad(zeros({3}));
  std::string text = report_of([&] { backward(sum(sqrt(x))); });
  expect_contains(text, "backward of sqrt (");
  expect_contains(text, "gradient is not finite: 3 Inf");
  expect_contains(text, "the gradient that reached it is finite");
}

TEST(CheckFinite, SeesASumOfGradientsThatOverflows) {
  const Real large = std::numeric_limits<Real>::max();
  Tensor x = requires_grad(zeros({2}));
  std::string text = report_of([&] { backward(sum(x * large) + sum(x * large)); });
  expect_contains(text, "backward of leaf (");
  expect_contains(text, "the gradient that reached it was bad already");
}

TEST(CheckFinite, LooksAtStridedResults) {
  Tensor x = ones({3, 4});
  x.set({1, 2}, kInf);
  expect_contains(report_of([&] { transpose(x, 0, 1); }), "the first at [2, 1]");
}

TEST(CheckFinite, LetsMasksPass) {
  Tensor scores = requires_grad(uniform({4, 4}, -1, 1));
  Tensor keep = from_values({4}, {1, 1, 0, 1});
  EXPECT_EQ(report_of([&] { backward(sum(softmax(where(keep, scores, -kInf) * 2, -1) * scores)); }), "");
  expect_contains(report_of([&] { where(keep, scores, kInf); }), "where (");
  expect_contains(report_of([&] { log(zeros({2})); }), "log (");
}

TEST(CheckFinite, IsOffAgainAfterwards) {
  { CheckFinite check; }
  EXPECT_NO_THROW(log(full({2}, -1)));
}

}  // namespace
}  // namespace rapt
