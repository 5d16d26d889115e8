#include <benchmark/benchmark.h>

#include "../autograd/ops.h"

namespace rapt {
namespace {

// Causal self-attention on a packed projection (B, T, 3·H·D), as modules call it.
struct Case {
  int64_t batch, heads, length, dim;
  explicit Case(const benchmark::State& s)
      : batch(s.range(0)), heads(s.range(1)), length(s.range(2)), dim(s.range(3)) {}
  Tensor projection() const { return normal({batch, length, 3 * heads * dim}); }
  double forward_operations() const { return 2.0 * double(batch * heads * length * length * dim); }  // half of 4BHT²D
};

void rate(benchmark::State& state, double operations) {
  state.counters["GF/s"] =
      benchmark::Counter(operations * 1e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
}

void forward(benchmark::State& state) {
  Case c(state);
  Tensor qkv = c.projection();
  for (auto _ : state) benchmark::DoNotOptimize(packed_attention(qkv, c.heads, {.mask = causal()}));
  rate(state, c.forward_operations());
}

void forward_and_backward(benchmark::State& state) {
  Case c(state);
  Tensor qkv = requires_grad(c.projection());
  Tensor dy = normal({c.batch, c.length, c.heads * c.dim});
  for (auto _ : state) {
    backward(packed_attention(qkv, c.heads, {.mask = causal()}), dy);
    set_gradient(qkv, {});
  }
  rate(state, 3.5 * c.forward_operations());
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "H", "T", "D"})->UseRealTime()->Unit(benchmark::kMillisecond);
  b->Args({12, 4, 64, 32})->Args({8, 6, 256, 64})->Args({1, 12, 1024, 64})->Args({1, 12, 4096, 64});
}
BENCHMARK(forward)->Apply(shapes)->Name("attention/forward");
BENCHMARK(forward_and_backward)->Apply(shapes)->Name("attention/forward_and_backward");

}  // namespace
}  // namespace rapt
