#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/optim/sgd.h>

#include <vector>

namespace rapt {
namespace {

TEST(SGD, IsItsFormula) {
  for (const SGDConfig& c : {SGDConfig{.learning_rate = 0.1}, SGDConfig{.learning_rate = 0.1, .weight_decay = 0.2},
                             SGDConfig{.learning_rate = 0.1, .momentum = 0.7, .weight_decay = 0.2},
                             SGDConfig{.learning_rate = 0.1, .momentum = 0.7, .nesterov = true, .weight_decay = 0.2}}) {
    manual_seed(6);
    Tensor w = requires_grad(normal({40'000}));
    SGD optimizer({{"w", w}}, c);
    std::vector<double> expected(size_t(w.numel())), buffer(expected.size(), 0);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = double(w.data()[i]);
    for (int step = 0; step < 4; ++step) {
      Tensor g = normal(w.shape);
      set_gradient(w, g);
      optimizer.step();
      for (size_t i = 0; i < expected.size(); ++i) {
        double d = double(g.data()[i]) + c.weight_decay * expected[i];
        buffer[i] = c.momentum * buffer[i] + d;
        expected[i] -= c.learning_rate * (c.nesterov ? d + c.momentum * buffer[i] : buffer[i]);
      }
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(w.data()[i], expected[i], sizeof(Real) == 8 ? 1e-13 : 3e-6) << i;
    }
  }
}

}  // namespace
}  // namespace rapt
