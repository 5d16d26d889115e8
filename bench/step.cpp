#include <benchmark/benchmark.h>

#include "../core/random.h"
#include "../nn/gpt.h"
#include "../optim/adamw.h"
#include "../optim/clip.h"

namespace rapt {
namespace {

// One training step of a GPT: forward, backward, clipping, AdamW.
void step(benchmark::State& state) {
  GptConfig c;
  c.layers = state.range(0);
  c.heads = state.range(1);
  c.dim = state.range(2);
  c.context = state.range(3);
  c.vocabulary = state.range(5);
  const int64_t batch = state.range(4);
  manual_seed(1);
  Gpt gpt(c);
  AdamW optimizer(gpt.parameters(), {.learning_rate = 1e-3, .weight_decay = 0.1});
  auto tokens = [&](uint64_t seed) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < batch * c.context; ++i) {
      ids.push_back(int32_t(Random{seed, 0}.below(c.vocabulary, uint64_t(i))));
    }
    return Tokens({batch, c.context}, ids);
  };
  Tokens x = tokens(1), y = tokens(2);
  for (auto _ : state) {
    backward(gpt.loss(x, y));
    clip_gradient_norm(gpt.parameters(), 1);
    optimizer.step();
    optimizer.zero_gradients();
  }
  state.counters["tokens/s"] =
      benchmark::Counter(double(batch * c.context * state.iterations()), benchmark::Counter::kIsRate);
  state.counters["MB"] = double(memory_stats().peak) * 1e-6;
}

BENCHMARK(step)
    ->ArgNames({"L", "H", "E", "T", "B", "V"})
    ->Args({4, 4, 128, 64, 12, 65})
    ->Args({6, 6, 384, 256, 8, 65})
    ->Args({12, 12, 768, 64, 4, 50304})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace rapt
