// Linear regression: a line through noisy points by gradient descent, and by the formula for it.
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

int main() {
  manual_seed(1);
  Tensor x = uniform({100}, -1, 1), y = 3 * x - 0.5 + normal({100}, 0, Real(0.1));

  Tensor slope = requires_grad(scalar(0)), offset = requires_grad(scalar(0));
  for (int step = 0; step <= 200; ++step) {
    Tensor error = slope * x + offset - y;
    Tensor loss = mean(error * error);
    if (step % 50 == 0) {
      fmt::print("step {:>3}: y = {:.4f} x + {:.4f}, loss {:.5f}\n", step, slope.item(), offset.item(), loss.item());
    }
    backward(loss);
    for (Tensor* w : {&slope, &offset}) {  // w −= rate · d loss / d w, in place; an optimizer does the same
      w->mutable_data()[0] -= Real(0.2) * gradient(*w).item();
      set_gradient(*w, {});
    }
  }

  Tensor dx = x - mean(x), dy = y - mean(y);
  const double best_slope = double((sum(dx * dy) / sum(dx * dx)).item());
  const double best_offset = double(mean(y).item()) - best_slope * double(mean(x).item());
  fmt::print("the formula: y = {:.4f} x + {:.4f}\n", best_slope, best_offset);
  const bool same = std::abs(slope.item() - best_slope) < 1e-3 && std::abs(offset.item() - best_offset) < 1e-3;
  return same ? 0 : 1;
}
