// What somebody who uses the library would write: a module, a gradient, an optimizer, the version.
#include <rapt/rapt.h>

static_assert(RAPT_VERSION_NUMBER >= 100, "find_package(rapt 0.1)");

struct Model : rapt::Module {
  rapt::Linear up, down;
  Model() : up(child<rapt::Linear>("up", 2, 4)), down(child<rapt::Linear>("down", 4, 1)) {}
  rapt::Tensor operator()(const rapt::Tensor& x) const { return down(rapt::tanh(up(x))); }
};

int main() {
  Model model;
  rapt::AdamW optimizer(model.parameters(), {.learning_rate = 1e-2});
  rapt::Tensor loss = rapt::sum(model(rapt::ones({3, 2})));
  rapt::backward(loss);
  optimizer.step();
  fmt::print("rapt {}, {} bytes a number, {} parameters\n", RAPT_VERSION, sizeof(rapt::Real), model.parameter_count());
}
