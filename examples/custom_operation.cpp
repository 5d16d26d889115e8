// Operations of one's own: a struct with a forward and a backward, the same from two functions, and how a wrong
// gradient is found. softsign(x) = x / (1 + |x|), with the derivative 1 / (1 + |x|)².
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

struct Softsign {
  static constexpr auto name = "softsign";
  Saved x;  // kept for backward, which checks that nobody has written to it since

  Tensor forward(std::span<const Tensor> inputs) {
    Tensor in = contiguous(inputs[0]), y = empty(in.shape);
    x = in;
    const Real* from = in.data();
    Real* to = y.mutable_data();
    for (int64_t i = 0; i < y.numel(); ++i) to[i] = from[i] / (1 + std::abs(from[i]));
    return y;
  }
  // one gradient for each input
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor d = contiguous(dy), dx = empty(dy.shape);
    const Real *from = x.get().data(), *slope = d.data();
    Real* to = dx.mutable_data();
    for (int64_t i = 0; i < dx.numel(); ++i) to[i] = slope[i] / ((1 + std::abs(from[i])) * (1 + std::abs(from[i])));
    return {dx};
  }
  // Only if it is to be differentiated twice: the same from recorded operations, where x has its place in the graph.
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    return {dy / pow(1 + abs(at.input(0, x)), 2)};
  }
};

Tensor softsign(const Tensor& x, Where where = Where::here()) { return record(Softsign{}, {x}, where); }

// For a quick one, two functions are enough. This backward is made of recorded operations, so it can be differentiated.
Tensor quick_softsign(const Tensor& x) {
  return record(
      "quick_softsign", {x}, [](auto in) { return in[0] / (1 + abs(in[0])); },
      [](const Tensor& dy, auto in, const Tensor&) { return std::vector{dy / pow(1 + abs(in[0]), 2)}; });
}

// And what is made of recorded operations alone needs no backward at all.
Tensor composed_softsign(const Tensor& x) { return x / (1 + abs(x)); }

// With a mistake: the square is missing.
Tensor wrong_softsign(const Tensor& x) {
  return record(
      "wrong_softsign", {x}, [](auto in) { return in[0] / (1 + abs(in[0])); },
      [](const Tensor& dy, auto in, const Tensor&) { return std::vector{dy / (1 + abs(in[0]))}; });
}

int main() {
  manual_seed(1);
  const Tensor start = uniform({3, 4}, Real(0.3), 2);
  auto check = [&](const char* what, auto softsign_of) {
    GradCheckResult result = grad_check([&](const auto& x) { return softsign_of(x[0]); }, {start});
    fmt::print("{:<9} {}\n", what, result.message);
    return result.ok;
  };
  const bool right = check("struct", [](const Tensor& x) { return softsign(x); });
  const bool quick = check("functions", quick_softsign), composed = check("composed", composed_softsign);
  const bool wrong = check("mistake", wrong_softsign);

  // the second derivative is −2 sign(x) / (1 + |x|)³
  bool twice = true;
  for (auto* softsign_of : {+[](const Tensor& x) { return softsign(x); }, &quick_softsign, &composed_softsign}) {
    Tensor x = requires_grad(from_values({2}, {0.5, -1}));
    Tensor slope = gradients(sum(softsign_of(x)), {x}, {.create_graph = true}).front();
    Tensor second = gradients(sum(slope), {x}).front();
    fmt::print("at 0.5 and −1: slope {:.4f} and {:.4f}, second derivative {:.4f} and {:.4f}\n", slope.at({0}),
               slope.at({1}), second.at({0}), second.at({1}));
    twice = twice && std::abs(second.at({0}) + 2 / 3.375) < 1e-4 && std::abs(second.at({1}) - 0.25) < 1e-4;
  }
  return right && quick && composed && !wrong && twice ? 0 : 1;
}
