// A module of one's own: a gated network that learns to multiply two numbers.
#include <rapt/rapt.h>
using namespace rapt;

struct Gated : Module {
  Linear up, gate, down;
  Gated(int64_t dim, int64_t hidden)
      : up(child<Linear>("up", dim, hidden)),
        gate(child<Linear>("gate", dim, hidden)),
        down(child<Linear>("down", hidden, 1)) {}
  Tensor operator()(const Tensor& x) const { return down(up(x) * silu(gate(x))); }
};

int main() {
  Gated model(2, 16);
  AdamW optimizer(model.parameters(), {.learning_rate = 1e-2});
  double last = 1;
  for (int step = 1; step <= 500; ++step) {
    Tensor x = uniform({64, 2}, -1, 1);
    Tensor error = squeeze(model(x), 1) - select(x, 1, 0) * select(x, 1, 1);
    Tensor loss = mean(error * error);
    backward(loss);
    optimizer.step();
    optimizer.zero_gradients();
    last = double(loss.item());
    if (step % 100 == 0) fmt::print("step {}: loss {:.6f}\n", step, last);
  }
  return last < 1e-3 ? 0 : 1;
}
