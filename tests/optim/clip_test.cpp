#include <gtest/gtest.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>
#include <rapt/optim/clip.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../autograd/golden.h"

namespace rapt {
namespace {

std::vector<NamedTensor> with_gradients(const std::vector<Tensor>& gradients) {
  std::vector<NamedTensor> parameters;
  for (size_t i = 0; i < gradients.size(); ++i) {
    parameters.push_back({fmt::format("p{}", i), requires_grad(zeros(gradients[i].shape))});
    set_gradient(parameters.back().tensor, gradients[i]);
  }
  return parameters;
}

double norm_of(const std::vector<NamedTensor>& parameters) {
  double sum = 0;
  for (const NamedTensor& p : parameters) {
    if (!gradient(p.tensor)) continue;
    for (Real g : gradient(p.tensor).to_vector()) sum += double(g) * double(g);
  }
  return std::sqrt(sum);
}

TEST(ClipGradientNorm, ScalesAllTogether) {
  manual_seed(3);
  Tensor a = normal({300, 200}), b = normal({7}), c = normal({});
  auto parameters = with_gradients({clone(a), clone(b), clone(c)});
  parameters.push_back({"none", requires_grad(zeros({3}))});
  double before = norm_of(parameters);
  EXPECT_NEAR(clip_gradient_norm(parameters, 2.5), before, 1e-6 * before);
  EXPECT_NEAR(norm_of(parameters), 2.5, 1e-5);
  EXPECT_NEAR(gradient(parameters[1].tensor).at({4}), double(b.at({4})) * 2.5 / before, 1e-6);
  EXPECT_FALSE(gradient(parameters[3].tensor));
}

TEST(ClipGradientNorm, LeavesSmallGradientsAlone) {
  Tensor a = from_values({2}, {3, 4});
  for (double most : {5.0, 6.0, double(INFINITY)}) {
    auto parameters = with_gradients({clone(a)});
    EXPECT_EQ(clip_gradient_norm(parameters, most), 5);
    EXPECT_EQ(gradient(parameters[0].tensor).to_vector(), a.to_vector());
  }
  auto nothing = with_gradients({zeros({0}), zeros({3})});
  EXPECT_EQ(clip_gradient_norm(nothing, 1), 0);
  EXPECT_EQ(gradient(nothing[1].tensor).to_vector(), std::vector<Real>(3, 0));
}

TEST(ClipGradientNorm, DoesNotOverflow) {
  auto parameters = with_gradients({full({4}, Real(1e30))});  // whose squares are no floats
  EXPECT_NEAR(clip_gradient_norm(parameters, 1) / 2e30, 1, 1e-6);
  EXPECT_NEAR(gradient(parameters[0].tensor).at({2}), 0.5, 1e-6);
}

TEST(ClipGradientNorm, TakesStridedGradients) {
  Tensor strided = view::slice(from_values({4}, {3, 100, 4, 100}), 0, 0, 4, 2);
  auto parameters = with_gradients({strided});
  EXPECT_EQ(clip_gradient_norm(parameters, 2.5), 5);
  EXPECT_NEAR(gradient(parameters[0].tensor).at({1}), 2, 1e-5);
}

TEST(ClipGradientNorm, NamesTheFirstThatIsNotFinite) {
  for (Real bad : {std::numeric_limits<Real>::quiet_NaN(), std::numeric_limits<Real>::infinity()}) {
    auto parameters = with_gradients({full({50'000}, 9), full({50'000}, 9), full({3}, bad)});
    Tensor(gradient(parameters[1].tensor)).set({40'000}, bad);
    try {
      clip_gradient_norm(parameters, 1);
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("the gradient of p1 is not finite"), std::string::npos) << error.what();
    }
    EXPECT_EQ(gradient(parameters[0].tensor).at({0}), 9);  // nothing has been scaled
  }
  EXPECT_THROW(clip_gradient_norm(with_gradients({ones({2})}), 0), Error);
}

TEST(ClipGradientNorm, DoesNotDependOnThreads) {
  manual_seed(1);
  Tensor a = normal({100'003}), b = normal({50, 70});
  double expected = 0;
  for (int n : {1, 2, 7}) {
    int before = threads();
    set_threads(n);
    auto parameters = with_gradients({clone(a), clone(b)});
    double norm = clip_gradient_norm(parameters, 1);
    set_threads(before);
    if (n == 1) expected = norm;
    EXPECT_EQ(norm, expected) << n;
  }
}

TEST(ClipGradientNorm, IsWhatPyTorchComputes) {
  const Json& c = golden().at("clip");
  std::vector<Tensor> gradients;
  for (const Json& g : c.at("gradients")) gradients.push_back(golden_tensor(g));
  auto parameters = with_gradients(gradients);
  EXPECT_NEAR(clip_gradient_norm(parameters, c.at("largest")), c.at("norm"), sizeof(Real) == 8 ? 1e-10 : 1e-6);
  for (size_t i = 0; i < parameters.size(); ++i) {
    expect_golden(gradient(parameters[i].tensor), c.at("clipped")[i]);
  }
}

}  // namespace
}  // namespace rapt
