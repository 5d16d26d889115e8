// Causal attention three times: a dozen lines with whole matrices, the library's dense twin, and the tiles. Their
// results agree; the memory of the first two grows with the square of the length, that of the tiles with the length.
#include <rapt/rapt.h>

#include <chrono>
#include <cmath>
#include <limits>
using namespace rapt;

// softmax(q kᵀ / √D) v for q, k, v (B, H, N, D)
Tensor by_hand(const Tensor& q, const Tensor& k, const Tensor& v) {
  const int64_t n = q.shape[2];
  Tensor scores = matmul(q, transpose(k, 2, 3)) / std::sqrt(double(q.shape[3]));
  Tensor readable = zeros({n, n});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) readable.mutable_data()[i * n + j] = 1;
  }
  Tensor weights = softmax(where(readable, scores, -std::numeric_limits<Real>::infinity()));
  return matmul(weights, v);
}

struct Outcome {
  std::vector<Tensor> results;  // out, dq, dk, dv
  double megabytes = 0, milliseconds = 0;
};

template <class F>
Outcome measure(int64_t n, F attend) {
  manual_seed(1);
  const Shape shape{1, 8, n, 32};
  Tensor q = requires_grad(normal(shape)), k = requires_grad(normal(shape)), v = requires_grad(normal(shape)),
         dy = normal(shape);
  Outcome o;
  for (int run = 0; run < 2; ++run) {  // the first one finds its memory
    for (const Tensor& x : {q, k, v}) set_gradient(x, {});
    o.results.clear();
    reset_peak_memory();
    const int64_t before = memory_stats().in_use;
    auto begin = std::chrono::steady_clock::now();
    Tensor y = attend(q, k, v);
    backward(y, dy);
    o.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    if (run == 0) o.megabytes = double(memory_stats().peak - before) / (1 << 20);
    o.results = {y.detach(), gradient(q), gradient(k), gradient(v)};
  }
  return o;
}

double difference(const Outcome& a, const Outcome& b) {
  double largest = 0;
  for (size_t t = 0; t < a.results.size(); ++t) {
    Tensor apart = abs(a.results[t] - b.results[t]);
    for (Real d : apart.to_vector()) largest = std::isnan(d) ? d : std::max(largest, double(d));
  }
  return largest;
}

int main() {
  fmt::print("forward and backward, 8 heads of width 32; memory besides q, k, v; differences of out, dq, dk, dv\n\n");
  fmt::print(
      "|    N | by hand MB | dense MB | tiled MB | by hand ms | dense ms | tiled ms | hand-tiled | dense-tiled |\n");
  fmt::print(
      "|-----:|-----------:|---------:|---------:|-----------:|---------:|---------:|-----------:|------------:|\n");
  std::vector<Outcome> hands, tiles;
  bool same = true;
  for (int64_t n : {128, 256, 512, 1024}) {
    auto run = [n](auto f) { return measure(n, f); };
    Outcome hand = run(by_hand), tiled = run([](auto&... x) { return attention(x..., {.mask = causal()}); });
    Outcome dense = run([](auto&... x) { return attention_dense(x..., {.mask = causal()}); });
    double d1 = difference(hand, tiled), d2 = difference(dense, tiled);
    same = same && d1 < 1e-4 && d2 < 1e-4;
    fmt::print(
        "| {:>4} | {:>10.1f} | {:>8.1f} | {:>8.1f} | {:>10.1f} | {:>8.1f} | {:>8.1f} | {:>10.1e} | {:>11.1e} |\n", n,
        hand.megabytes, dense.megabytes, tiled.megabytes, hand.milliseconds, dense.milliseconds, tiled.milliseconds, d1,
        d2);
    hands.push_back(hand);
    tiles.push_back(tiled);
  }
  const double square = hands[3].megabytes / hands[2].megabytes, line = tiles[3].megabytes / tiles[2].megabytes;
  fmt::print("\ntwice the length takes {:.1f} times the memory by hand, {:.1f} times by tiles\n", square, line);
  return same && square > 3 && line < 2.5 ? 0 : 1;
}
