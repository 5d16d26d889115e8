#include <gtest/gtest.h>
#include <rapt/autograd/grad_check.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/random.h>

#include <cmath>
#include <string>
#include <vector>

#include "../expect.h"

// Operations from two functions, and what goes wrong with operations of one's own.

namespace rapt {
namespace {

Tensor cube(const Tensor& x) {
  return record(
      "cube", {x}, [](auto in) { return in[0] * in[0] * in[0]; },
      [](const Tensor& dy, auto in, const Tensor&) { return std::vector{3 * dy * in[0] * in[0]}; });
}

// x / |x|, row by row, with raw loops
Tensor unit(const Tensor& x) {
  auto length = [](const Tensor& t) { return std::sqrt(double(sum(t * t).item())); };
  return record(
      "unit", {x}, [=](auto in) { return in[0] / length(in[0]); },
      [=](const Tensor& dy, auto in, const Tensor& y) {
        Tensor dx = clone(dy);
        const double along = double(sum(dy * y).item());
        for (int64_t i = 0; i < dx.numel(); ++i) {
          dx.mutable_data()[i] = Real((double(dx.data()[i]) - along * double(y.data()[i])) / length(in[0]));
        }
        return std::vector{dx};
      });
}

TEST(Functions, MakeAnOperation) {
  manual_seed(2);
  for (auto* op : {cube, unit}) {
    GradCheckResult result = grad_check([&](const std::vector<Tensor>& x) { return op(x[0]); }, {normal({5})});
    EXPECT_TRUE(result) << result.message;
  }
  Tensor x = requires_grad(from_values({1}, {2}));
  const int line = __LINE__ + 1;
  Tensor y = record(
      "twice", {x}, [](auto in) { return in[0] * 2; },
      [](const Tensor& dy, auto, const Tensor&) { return std::vector{dy * 2}; });
  EXPECT_STREQ(y.node->name(), "twice");
  EXPECT_GE(y.node->where.line, line);
  EXPECT_NE(std::string(y.node->where.file).find("functions_test"), std::string::npos);
  EXPECT_EQ(y.item(), 4);
  backward(y);
  EXPECT_EQ(gradient(x).item(), 2);
  EXPECT_STREQ(y.node->name(), "twice");  // also after it let go of everything
}

TEST(Functions, SeveralInputsOfWhichSomeWantNothing) {
  Tensor a = requires_grad(from_values({2}, {1, 2})), b = from_values({2}, {3, 4});
  Tensor y = record(
      "product", {a, b}, [](auto x) { return x[0] * x[1]; },
      [](const Tensor& dy, auto x, const Tensor&) {
        return std::vector{dy * x[1], dy * x[0]};
      });
  backward(sum(y));
  EXPECT_EQ(gradient(a).to_vector(), (std::vector<Real>{3, 4}));
}

TEST(Functions, KeepNoGraphAlive) {
  Tensor x = requires_grad(ones({2}));
  cube(cube(x));
  EXPECT_EQ(x.node.use_count(), 1);
}

TEST(Functions, OfRecordedOperationsHaveSecondGradients) {
  Tensor x = requires_grad(from_values({1}, {2}));
  Tensor g = gradients(cube(x), {x}, {.create_graph = true}).front();
  EXPECT_EQ(g.item(), 12);
  EXPECT_EQ(gradients(g, {x}).front().item(), 12);
}

TEST(Functions, OfRawLoopsRefuseSecondGradients) {
  Tensor x = requires_grad(from_values({2}, {3, 4}));
  const std::string error = error_of([&] { gradients(sum(unit(x)), {x}, {.create_graph = true}); });
  EXPECT_NE(error.find("second-order gradients of unit are not available"), error.npos) << error;
  EXPECT_NE(error.find("functions_test.cpp"), error.npos) << error;
}

TEST(Functions, WrongGradientsNameTheOperation) {
  Tensor x = requires_grad(ones({2, 3}));
  auto with = [&](BackwardFunction backward_function) {
    return error_of([&] {
      backward(sum(record(
          "mine", {x, x}, [](auto in) { return clone(in[0]); }, std::move(backward_function))));
    });
  };
  std::string count = with([](const Tensor& dy, auto, const Tensor&) { return std::vector{dy}; });
  EXPECT_NE(count.find("mine (") + 1 && count.find("1 gradients for 2 inputs") + 1, 0u) << count;
  std::string shape = with([](const Tensor& dy, auto, const Tensor&) { return std::vector{dy, zeros({3, 2})}; });
  EXPECT_NE(shape.find("mine ("), shape.npos) << shape;
  EXPECT_NE(shape.find("gradient 1 has the shape (3, 2), its input (2, 3)"), shape.npos) << shape;
  std::string thrown = with([](const Tensor&, auto, const Tensor&) -> std::vector<Tensor> { throw Error("no idea"); });
  EXPECT_NE(thrown.find("mine ("), thrown.npos) << thrown;
  EXPECT_NE(thrown.find("no idea"), thrown.npos) << thrown;
  EXPECT_NE(error_of([&] {
              record(
                  "mine", {x}, [](auto) { return Tensor(); },
                  [](const Tensor&, auto, const Tensor&) { return std::vector<Tensor>{}; });
            }).find("mine: the forward function returned an empty tensor"),
            std::string::npos);
  EXPECT_NE(error_of([&] { record("mine", {x}, nullptr, nullptr); }).find("mine needs"), std::string::npos);
}

TEST(Freeze, AFrozenLeafIsAConstant) {
  Tensor a = requires_grad(from_values({2}, {1, 2})), b = requires_grad(from_values({2}, {3, 4}));
  set_gradient(b, ones({2}));
  freeze(b);
  EXPECT_TRUE(is_frozen(b));
  EXPECT_FALSE(gradient(b));  // dropped
  Tensor y = a * b;
  EXPECT_FALSE(y.node->inputs[1]);
  backward(sum(y));
  EXPECT_EQ(gradient(a).to_vector(), (std::vector<Real>{3, 4}));
  EXPECT_FALSE(gradient(b));
  EXPECT_FALSE((b * 2).node);  // nothing to record
  freeze(b, false);
  backward(sum(a * b));
  EXPECT_EQ(gradient(b).to_vector(), (std::vector<Real>{1, 2}));
  EXPECT_NE(error_of([&] { freeze(a * b); }).find("only leaves"), std::string::npos);
  EXPECT_THROW(freeze(ones({1})), Error);
}

// Operations whose backward computes all gradients, wanted or not.
TEST(Freeze, AlsoWhereBackwardGivesAllGradients) {
  Tensor x = requires_grad(normal({3, 4})), w = requires_grad(ones({4})), b = requires_grad(zeros({4}));
  freeze(w);
  backward(sum(layer_norm(x, w, b)));
  EXPECT_FALSE(gradient(w));
  EXPECT_TRUE(gradient(b));
}

}  // namespace
}  // namespace rapt
