// A bug to find with a debugger, or by --trap-nan alone: docs/debugging.md finds it. A small classifier whose own
// softmax forgets to subtract the maximum, and overflows when the scores have become large: training makes them sharper
// with every step.
#include <rapt/rapt.h>

#include <cmath>
#include <optional>
#include <string_view>

using namespace rapt;

struct Classifier : Module {
  Linear hidden, out;
  Classifier() : hidden(child<Linear>("hidden", 2, 16)), out(child<Linear>("out", 16, 3)) {}

  Tensor probabilities(const Tensor& scores) const {
    Tensor weights = exp(scores);
    return weights / sum(weights, {1}, true);
  }
  Tensor operator()(const Tensor& x, double sharpness) const {
    Scope scope(path());
    return probabilities(out(tanh(hidden(x))) * sharpness);
  }
};

// A part of a model, so that it has a path.
struct Model : Module {
  Classifier classifier;
  Model() : classifier(child<Classifier>("classifier")) {}
};

int main(int argc, char** argv) {
  std::optional<TrapNan> trap;
  std::optional<CheckFinite> finite;
  for (int i = 1; i < argc; ++i) {
    if (argv[i] == std::string_view("--trap-nan")) trap.emplace();
    if (argv[i] == std::string_view("--check-finite")) finite.emplace();
  }
  manual_seed(1);
  Model model;
  AdamW optimizer(model.parameters(), {.learning_rate = 0.02});
  Tensor x = normal({30, 2}), wanted = zeros({30, 3});
  for (int64_t i = 0; i < 30; ++i) wanted.set({i, x.at({i, 0}) > 0 ? 0 : x.at({i, 1}) > 0 ? 1 : 2}, 1);
  try {
    for (int step = 1; step <= 100; ++step) {
      Tensor loss = -mean(log(sum(model.classifier(x, step) * wanted, {1})));
      backward(loss);
      optimizer.step();
      optimizer.zero_gradients();
      if (!std::isfinite(loss.item())) throw Error(fmt::format("step {}: loss is not finite", step));
      if (step % 10 == 0) fmt::print("step {}: loss {:.4f}\n", step, loss.item());
      std::fflush(stdout);
    }
  } catch (const Error& error) {
    fmt::print("{}\n", error.what());
    return 1;
  }
}
