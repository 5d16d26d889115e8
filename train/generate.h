#pragma once
#include <functional>
#include <span>

#include "../nn/gpt.h"

namespace rapt::inline RAPT_ABI {

struct SamplingOptions {
  int64_t tokens = 500;
  double temperature = 0.8;  ///< 0: always the likeliest
  int64_t top_k = 0;         ///< only the k likeliest; 0: all
  double top_p = 1;          ///< only the likeliest that together have this probability (Holtzman 2020)
  uint64_t seed = 1;
};

/// Draws one token from logits (V); `position` numbers the draws under the seed.
int32_t sample_token(const Tensor& logits, const SamplingOptions& options, uint64_t position);

/// Continues `prompt` (at least one token), handing each new token to `sink` as it comes; stops early when sink says
/// false. Keys and values are cached. Where the caches roll (Gpt::make_cache), generation goes on without an end;
/// otherwise, when the context is full, from the last seven eighths of it.
void generate(const Gpt& model, std::span<const int32_t> prompt, const SamplingOptions& options,
              const std::function<bool(int32_t)>& sink);

}  // namespace rapt::inline RAPT_ABI
