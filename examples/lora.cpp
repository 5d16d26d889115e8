// Fine-tuning with LoRA (Hu 2021): a trained model stays as it is, and next to some of its layers come small adapters,
// W x + B A x, that learn a new task. They are put on from outside, by hooks, and come off again.
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

// B A x for one Linear layer, A (rank, in), B (out, rank), starting at 0.
struct Adapter : Module {
  Tensor a, b;
  Adapter(const Tensor& weight, int64_t rank)
      : a(param("a", normal({rank, weight.shape[1]}, 0, Real(1 / std::sqrt(double(rank)))))),
        b(param("b", zeros({weight.shape[0], rank}))) {}
  Tensor operator()(const Tensor& x) const { return linear(linear(x, a), b); }
};

// One for every weight of a block, kept under the layer's name.
struct Lora : Module {
  std::vector<std::unique_ptr<Adapter>> adapters;
  std::vector<ModuleHookHandle> hooks;
  std::vector<Tensor> inputs;

  Lora(const Module& model, int64_t rank) : inputs(model.parameters().size()) {
    for (const NamedTensor& p : model.parameters()) {
      if (!p.name.starts_with("blocks.") || !p.name.ends_with(".weight") || p.tensor.rank() != 2) continue;
      const std::string layer = p.name.substr(0, p.name.size() - std::string(".weight").size());
      adapters.push_back(child(layer, std::make_unique<Adapter>(p.tensor, rank)));
      auto note = [&x = inputs[adapters.size() - 1]](const std::string&, std::span<Tensor> in) { x = in[0]; };
      auto add = [&x = inputs[adapters.size() - 1], adapter = adapters.back().get()](const std::string&, Tensor& y) {
        y = y + (*adapter)(std::exchange(x, {}));
      };
      hooks.push_back(model.add_hook_before(note, layer));
      hooks.push_back(model.add_hook_after(add, layer));
    }
  }
  ~Lora() {
    for (ModuleHookHandle& hook : hooks) hook.remove();
  }
  Lora(Lora&&) = delete;  // the hooks know where it stands
};

constexpr int64_t kLetters = 13, kContext = 16;

// Sequences that go on by `stride` from a random letter.
Batch counting(int32_t stride) {
  Tensor first = uniform({32}, 0, Real(kLetters));
  std::vector<int32_t> x, y;
  for (int64_t b = 0; b < 32; ++b) {
    auto letter = int32_t(first.at({b}));
    for (int64_t t = 0; t < kContext; ++t) {
      x.push_back((letter + int32_t(t) * stride) % int32_t(kLetters));
      y.push_back((letter + int32_t(t + 1) * stride) % int32_t(kLetters));
    }
  }
  return {Tokens({32, kContext}, x), Tokens({32, kContext}, y)};
}

double train(const Gpt& model, std::vector<NamedTensor> parameters, int32_t stride, int64_t steps, double rate) {
  AdamW optimizer(parameters, {.learning_rate = rate, .weight_decay = 0});
  Trainer trainer(parameters, optimizer,
                  {.learning_rate = [=](int64_t step) { return rate * (1 - double(step) / double(steps)); },
                   .batch = [=](int64_t, int64_t) { return counting(stride); },
                   .loss = [&](const Batch& b) { return model.loss(b.x, b.y); }});
  double last = 0;
  trainer.run(steps, [&](const StepReport& report) {
    last = report.loss;
    return true;
  });
  return last;
}

double loss_of(const Gpt& model, int32_t stride) {
  EvalMode eval;
  manual_seed(99);
  Batch b = counting(stride);
  return double(model.loss(b.x, b.y).item());
}

int main() {
  const auto file = std::filesystem::temp_directory_path() / "rapt_lora.safetensors";
  manual_seed(1);
  Gpt model({.vocabulary = kLetters, .context = kContext, .layers = 2, .heads = 2, .dim = 32});
  train(model, model.parameters(), 1, 150, 3e-3);
  const double before = loss_of(model, 1), task = loss_of(model, 3);
  fmt::print("trained to count by 1: loss {:.3f}; by 3: {:.3f}\n", before, task);

  model.freeze();
  std::vector<std::vector<Real>> weights;
  for (const NamedTensor& p : model.parameters()) weights.push_back(p.tensor.to_vector());
  double tuned = 0;
  {
    Lora lora(model, 4);
    fmt::print("{} of {} parameters are trained: {}\n", lora.parameter_count(), model.parameter_count(),
               lora.parameters().front().name + ", " + lora.parameters()[1].name + ", …");
    train(model, lora.parameters(), 3, 300, 1e-2);
    tuned = loss_of(model, 3);
    fmt::print("with adapters, trained to count by 3: loss {:.3f}\n", tuned);
    save_state(file, lora.parameters());
  }
  bool unchanged = loss_of(model, 1) == before;
  for (size_t i = 0; i < weights.size(); ++i) unchanged &= weights[i] == model.parameters()[i].tensor.to_vector();
  fmt::print("without them again: by 1 {:.3f}\n", loss_of(model, 1));

  Lora again(model, 4);
  load_state(file, again.parameters());
  const double loaded = loss_of(model, 3);
  fmt::print("with adapters from the file: by 3 {:.3f}\n", loaded);
  std::filesystem::remove(file);
  return task > 1 && tuned < 0.3 * task && unchanged && loaded == tuned ? 0 : 1;
}
