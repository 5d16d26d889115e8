#include "generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../core/random.h"

namespace rapt::inline RAPT_ABI {

int32_t sample_token(const Tensor& logits, const SamplingOptions& options, uint64_t position) {
  std::vector<Real> score = logits.to_vector();
  check(!score.empty(), "sample: no logits");
  std::vector<int32_t> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return score[size_t(a)] > score[size_t(b)]; });
  check(std::isfinite(score[size_t(order[0])]), "sample: the logits are not finite");
  if (options.temperature == 0) return order[0];

  size_t count = options.top_k > 0 ? std::min(order.size(), size_t(options.top_k)) : order.size();
  std::vector<double> weight(count);
  double total = 0;
  for (size_t i = 0; i < count; ++i) {
    weight[i] = std::exp((double(score[size_t(order[i])]) - double(score[size_t(order[0])])) / options.temperature);
    total += weight[i];
  }
  if (options.top_p < 1) {
    double kept = 0;
    size_t n = 0;
    while (n < count && kept < options.top_p * total) kept += weight[n++];
    count = std::max<size_t>(n, 1);
    total = std::accumulate(weight.begin(), weight.begin() + int64_t(count), 0.0);
  }
  double at = Random{options.seed, 0}.uniform(position) * total;
  for (size_t i = 0; i + 1 < count; ++i) {
    at -= weight[i];
    if (at < 0) return order[i];
  }
  return order[count - 1];
}

void generate(const Gpt& model, std::span<const int32_t> prompt, const SamplingOptions& options,
              const std::function<bool(int32_t)>& sink) {
  check(!prompt.empty(), "generate: the prompt has no token to begin with");
  check(options.temperature >= 0 && options.top_k >= 0 && options.top_p > 0 && options.top_p <= 1,
        "generate: temperature {} must not be negative, top-k {} neither, top-p {} must be in (0, 1]",
        options.temperature, options.top_k, options.top_p);
  const int64_t context = model.config.context;
  std::vector<int32_t> seen(prompt.begin(), prompt.end());
  std::vector<KeyValueCache> cache;
  int64_t cached = 0;  // how many of `seen` the cache ends with
  for (int64_t i = 0; i < options.tokens; ++i) {
    int64_t fresh = int64_t(seen.size()) - cached;
    if (cache.empty() || room(cache) < fresh) {
      cache = model.make_cache();
      // begin with all that fits, and later with most of it: a model that forgets loses its thread, and running over
      // the whole text again for an eighth of the context costs little beside what comes after it
      int64_t most = cached == 0 ? context : std::max<int64_t>(1, context - std::max<int64_t>(1, context / 8));
      fresh = std::min<int64_t>(int64_t(seen.size()), most);
    }
    std::vector<int32_t> ids(seen.end() - fresh, seen.end());
    Tensor logits = model.next(Tokens({1, fresh}, std::move(ids)), cache);
    cached = int64_t(seen.size());
    int32_t token = sample_token(logits, options, uint64_t(i));
    seen.push_back(token);
    if (!sink(token)) return;
  }
}

}  // namespace rapt::inline RAPT_ABI
