// An optimizer of one's own: Lion (Chen 2023), which moves every weight by the rate, in the direction of the sign of a
// mean of gradients. What it keeps in slots is saved and restored with the rest of a run.
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

struct Lion : Optimizer {
  double beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
  size_t mean;
  Lion(std::vector<NamedTensor> p, double rate) : Optimizer(std::move(p), rate), mean(add_slot("lion.mean")) {}

  void update(size_t i, Tensor& weight, const Tensor& gradient) override {
    Real *w = weight.mutable_data(), *m = slot(mean, i).mutable_data();
    const Real *g = gradient.data(), b1 = Real(beta1), b2 = Real(beta2);
    const Real rate = Real(learning_rate()), keep = Real(1 - learning_rate() * weight_decay * decay_factor(i));
    for (int64_t j = 0; j < weight.numel(); ++j) {
      const Real direction = b1 * m[j] + (1 - b1) * g[j];
      w[j] = keep * w[j] - rate * Real((direction > 0) - (direction < 0));
      m[j] = b2 * m[j] + (1 - b2) * g[j];
    }
  }
};

// The loss of a small network on y = sin 3x after `steps`.
double train(Mlp& net, Optimizer& optimizer, int steps) {
  const double rate = optimizer.learning_rate();
  double last = 0;
  for (int step = 0; step < steps; ++step) {
    optimizer.set_learning_rate(rate * (1 - double(step) / steps));
    Tensor x = uniform({64, 1}, -1, 1), y = empty(x.shape);
    for (int64_t i = 0; i < x.numel(); ++i) y.set({i, 0}, std::sin(3 * x.at({i, 0})));
    Tensor error = net(x) - y, loss = sum(error * error) / 64;
    backward(loss);
    optimizer.step();
    optimizer.zero_gradients();
    last = double(loss.item());
  }
  return last;
}

int main() {
  manual_seed(1);
  Mlp net(1, 32);
  Lion optimizer(net.parameters(), 3e-3);
  optimizer.set_group([](const NamedTensor& p) { return p.name.ends_with("bias"); }, {.learning_rate = 0.5});
  const double loss = train(net, optimizer, 800);
  fmt::print("loss after 800 steps of Lion: {:.6f}\n", loss);
  for (const NamedTensor& s : optimizer.state()) fmt::print("kept for the next run: {} {}\n", s.name, s.tensor.shape);
  return loss < 2e-3 && optimizer.state().size() == 5 ? 0 : 1;
}
