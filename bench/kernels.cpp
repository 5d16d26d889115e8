#include <benchmark/benchmark.h>

#include "../autograd/ops.h"
#include "../core/random.h"
#include "../data/batches.h"
#include "../data/stories.h"
#include "../optim/adamw.h"
#include "../optim/muon.h"

namespace rapt {
namespace {

constexpr int64_t kRows = 2048, kColumns = 768;  // 6 MB: more than a core's own cache

// Reads and writes of the tensor, forward and backward, a second.
void rate(benchmark::State& state, double passes) {
  state.counters["GB/s"] =
      benchmark::Counter(passes * double(kRows * kColumns) * sizeof(Real) * 1e-9 * double(state.iterations()),
                         benchmark::Counter::kIsRate);
}

// An operation (rows, columns) -> (rows, columns), with its backward.
void operation(benchmark::State& state, Tensor (*f)(const Tensor&)) {
  Tensor x = requires_grad(normal({kRows, kColumns})), dy = normal({kRows, kColumns});
  for (auto _ : state) {
    backward(f(x), dy);
    set_gradient(x, {});
  }
  rate(state, 5);  // x, y; x, dy, dx
}

const Tensor& weight() {
  static const Tensor w = ones({kColumns});
  return w;
}

BENCHMARK_CAPTURE(operation, gelu, [](const Tensor& x) { return gelu(x); })->UseRealTime();
BENCHMARK_CAPTURE(operation, silu, [](const Tensor& x) { return silu(x); })->UseRealTime();
BENCHMARK_CAPTURE(operation, exp, [](const Tensor& x) { return exp(x); })->UseRealTime();
BENCHMARK_CAPTURE(operation, softmax, [](const Tensor& x) { return softmax(x); })->UseRealTime();
BENCHMARK_CAPTURE(operation, layer_norm, [](const Tensor& x) { return layer_norm(x, weight(), {}); })->UseRealTime();
BENCHMARK_CAPTURE(operation, rms_norm, [](const Tensor& x) { return rms_norm(x, weight()); })->UseRealTime();
BENCHMARK_CAPTURE(operation, add, [](const Tensor& x) { return x + x; })->UseRealTime();
BENCHMARK_CAPTURE(operation, transpose, [](const Tensor& x) {
  return reshape(transpose(reshape(x, {kRows / 64, 64, 12, 64}), 1, 2), {kRows, kColumns});
})->UseRealTime();

Tokens tokens(int64_t batch, int64_t length, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < batch * length; ++i) ids.push_back(int32_t(Random{1, 0}.below(vocabulary, uint64_t(i))));
  return Tokens({batch, length}, ids);
}

void output_and_loss(benchmark::State& state) {
  const int64_t vocabulary = state.range(0), rows = state.range(1), dim = state.range(2);
  Tensor x = requires_grad(normal({1, rows, dim})), w = requires_grad(normal({vocabulary, dim}, 0, Real(0.02)));
  Tokens targets = tokens(1, rows, vocabulary);
  for (auto _ : state) {
    backward(linear_cross_entropy(x, w, targets));
    set_gradient(x, {});
    set_gradient(w, {});
  }
  state.counters["GF/s"] = benchmark::Counter(6e-9 * double(vocabulary * rows * dim) * double(state.iterations()),
                                              benchmark::Counter::kIsRate);
}
BENCHMARK(output_and_loss)
    ->ArgNames({"V", "rows", "dim"})
    ->Args({65, 768, 128})
    ->Args({50304, 256, 768})
    ->UseRealTime();

void embed(benchmark::State& state) {
  Tensor w = requires_grad(normal({50304, kColumns})), dy = normal({1, kRows, kColumns});
  Tokens ids = tokens(1, kRows, 50304);
  for (auto _ : state) {
    backward(embedding(w, ids), dy);
    set_gradient(w, {});
  }
}
BENCHMARK(embed)->UseRealTime();

template <class Optimizer, class Config>
void update(benchmark::State& state) {
  Tensor w = requires_grad(normal({kRows, kColumns}));
  std::vector<NamedTensor> parameters{{"weight", w}};
  Optimizer optimizer(parameters, Config{});
  Tensor g = normal({kRows, kColumns});
  for (auto _ : state) {
    set_gradient(w, g);
    optimizer.step();
  }
  rate(state, 7);  // reads weight, gradient and two moments, writes three of them
}
BENCHMARK(update<AdamW, AdamWConfig>)->Name("optimizer/adamw")->UseRealTime();
BENCHMARK(update<Muon, MuonConfig>)->Name("optimizer/muon")->UseRealTime();

void tokenizer(benchmark::State& state) {
  std::string text = make_stories(1, 1 << 20).text;
  Tokenizer characters = Tokenizer::characters(text);
  for (auto _ : state) benchmark::DoNotOptimize(characters.encode(text));
  state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(text.size()));
}
BENCHMARK(tokenizer)->UseRealTime()->Unit(benchmark::kMillisecond);

void loader(benchmark::State& state) {
  std::string text = make_stories(1, 1 << 20).text;
  TokenStream stream(Tokenizer::characters(text), text);
  TrainBatches batches{.tokens = stream.span(), .batch_size = 12, .context = 128, .seed = 1};
  int64_t step = 0;
  for (auto _ : state) benchmark::DoNotOptimize(batches.batch(step++));
  state.SetItemsProcessed(int64_t(state.iterations()) * 12 * 128);
}
BENCHMARK(loader)->UseRealTime();

}  // namespace
}  // namespace rapt
