#include "../core/gemm.h"

#include <benchmark/benchmark.h>

#include "../core/tensor.h"

namespace rapt {
namespace {

// The products of a training step: y = x wᵀ, dx = dy w, dw = dyᵀ x for `rows` tokens.
void product(benchmark::State& state, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k) {
  Tensor a = normal({m * k}), b = normal({k * n}), c = empty({m * n});
  for (auto _ : state) {
    gemm(trans_a, trans_b, m, n, k, 1, a.data(), trans_a ? m : k, b.data(), trans_b ? k : n, 0, c.mutable_data(), n);
  }
  state.counters["GF/s"] = benchmark::Counter(2e-9 * double(m) * double(n) * double(k) * double(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

void forward(benchmark::State& s) { product(s, false, true, s.range(0), s.range(2), s.range(1)); }
void input_gradient(benchmark::State& s) { product(s, false, false, s.range(0), s.range(1), s.range(2)); }
void weight_gradient(benchmark::State& s) { product(s, true, false, s.range(2), s.range(1), s.range(0)); }

void layers(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "in", "out"})->UseRealTime();
  b->Args({768, 128, 384})->Args({768, 128, 512})->Args({768, 512, 128});
  b->Args({2048, 384, 1536})->Args({256, 768, 3072});
}
BENCHMARK(forward)->Apply(layers)->Name("gemm/forward");
BENCHMARK(input_gradient)->Apply(layers)->Name("gemm/input_gradient");
BENCHMARK(weight_gradient)->Apply(layers)->Name("gemm/weight_gradient");

}  // namespace
}  // namespace rapt
