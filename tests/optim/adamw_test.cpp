#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/optim/adamw.h>

#include <cmath>
#include <vector>

namespace rapt {
namespace {

// The formulas of the paper in double, for one number.
struct Naive {
  double w, m = 0, v = 0;
  void step(const AdamWConfig& c, double g, int t, bool decay) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    double m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    w -= c.learning_rate * ((decay ? c.weight_decay * w : 0) + m_hat / (std::sqrt(v_hat) + c.epsilon));
  }
};

TEST(AdamW, IsItsFormula) {
  AdamWConfig config{.learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.3};
  manual_seed(6);
  // the vector is longer than a piece of parallel work
  Tensor matrix = requires_grad(normal({9, 31})), vector = requires_grad(normal({20'001}));
  AdamW optimizer({{"matrix", matrix}, {"vector", vector}}, config);
  std::vector<Naive> numbers;
  for (const Tensor& t : {matrix, vector}) {
    for (Real w : t.to_vector()) numbers.push_back({double(w)});
  }
  for (int t = 1; t <= 5; ++t) {
    size_t at = 0;
    for (const Tensor& p : {matrix, vector}) {
      Tensor g = normal(p.shape);
      set_gradient(p, g);
      for (Real gi : g.to_vector()) numbers[at++].step(config, double(gi), t, p.rank() == 2);
    }
    optimizer.step();
  }
  size_t at = 0;
  for (const Tensor& p : {matrix, vector}) {
    for (Real w : p.to_vector()) {
      ASSERT_NEAR(w, numbers[at].w, sizeof(Real) == 8 ? 1e-13 : 3e-6) << at;
      ++at;
    }
  }
}

TEST(AdamW, OnlyMatricesDecay) {
  std::vector<Tensor> tensors;
  for (const Shape& shape : {Shape{}, Shape{4}, Shape{2, 2}, Shape{2, 2, 2}}) {
    tensors.push_back(requires_grad(ones(shape)));
    set_gradient(tensors.back(), zeros(shape));
  }
  AdamW optimizer({{"a", tensors[0]}, {"b", tensors[1]}, {"c", tensors[2]}, {"d", tensors[3]}},
                  {.learning_rate = 0.5, .weight_decay = 0.25});
  optimizer.step();
  for (const Tensor& t : tensors) EXPECT_EQ(t.to_vector()[0], Real(t.rank() >= 2 ? 1 - 0.5 * 0.25 : 1));
}

TEST(AdamW, TheRateOfTheMomentCounts) {
  Tensor w = requires_grad(zeros({1}));
  AdamW optimizer({{"w", w}}, {.learning_rate = 1});
  optimizer.set_learning_rate(0.125);
  set_gradient(w, ones({1}));
  optimizer.step();
  EXPECT_NEAR(w.item(), -0.125, 1e-6);  // the first step is rate · sign(g)
}

// A gradient that ends: the means fall toward 0 and must not stay among the denormals.
TEST(AdamW, MeansEndAtZero) {
  Tensor w = requires_grad(zeros({64}));
  AdamW optimizer({{"w", w}}, {.beta1 = 0.5, .beta2 = 0.5});
  for (int step = 0; step < 1200; ++step) {
    // then gradients whose squares would be denormals in float
    set_gradient(w, full({64}, step == 0 ? Real(1) : step < 600 ? Real(0) : Real(1e-20)));
    optimizer.step();
    if (step == 599) {
      for (const NamedTensor& s : optimizer.state()) {
        if (s.name == "steps") continue;
        EXPECT_EQ(s.tensor.to_vector(), std::vector<Real>(64, 0)) << s.name;
      }
    }
  }
  EXPECT_EQ(optimizer.state()[2].name, "adamw.v.w");
  EXPECT_EQ(optimizer.state()[2].tensor.to_vector(), std::vector<Real>(64, 0));
  EXPECT_GT(optimizer.state()[1].tensor.to_vector()[0], 0);
}

}  // namespace
}  // namespace rapt
