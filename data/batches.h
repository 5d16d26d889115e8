#pragma once
#include <cstdint>
#include <vector>

#include "../core/tensor.h"
#include "../core/tokens.h"
#include "tokenizer.h"

namespace rapt::inline RAPT_ABI {

/// A view of token ids that are stored in 1, 2 or 4 bytes each.
struct TokenSpan {
  const void* data = nullptr;
  int width = 4;  ///< bytes per id; unsigned when 1 or 2
  int64_t size = 0;

  int32_t operator[](int64_t i) const;
  /// Ids [begin, begin + count) to `to`. Throws when they are not all there.
  void copy(int64_t begin, int64_t count, int32_t* to) const;
  /// Ids [begin, end). Throws when they are not all there.
  TokenSpan part(int64_t begin, int64_t end) const;
};

/// The token ids of a text, in as few bytes each as the vocabulary allows.
class TokenStream {
 public:
  TokenStream() = default;
  /// Throws as Tokenizer::encode does.
  TokenStream(const Tokenizer& tokenizer, std::string_view text);

  int64_t size() const { return int64_t(bytes_.size()) / width_; }
  TokenSpan span() const { return {bytes_.data(), width_, size()}; }

 private:
  int width_ = 4;
  std::vector<char> bytes_;
};

/// The beginning of a text to train on, and the end to validate on.
struct Split {
  TokenSpan train, validation;
};

/// The last `validation_fraction` of the tokens (rounded down) is for validation. Each part must hold at least one
/// window of context + 1 tokens, else DataError says how long the text has to be; fraction 0 means no validation.
Split split_tokens(TokenSpan tokens, double validation_fraction, int64_t context);

/// Inputs and targets. Of a text: both (B, T), and y[b, t] is the token after x[b, t]. A data source of one's own may
/// fill the tensors instead, or besides, with whatever its loss reads.
struct Batch {
  Tokens x, y;
  Tensor inputs{}, targets{};
};

/// Training batches: windows at quasi-random places, each in its own equal part of the text and there following a
/// Kronecker sequence, so that all of the text is seen equally often; a function of (seed, step) alone, so that a run
/// resumes anywhere.
/// The `micro_steps` batches of a step together hold the windows one batch of micro_steps · batch_size would.
struct TrainBatches {
  TokenSpan tokens;
  int64_t batch_size = 1;   ///< B, windows per batch
  int64_t context = 1;      ///< T, tokens per window
  int64_t micro_steps = 1;  ///< batches whose gradients are summed before a step
  uint64_t seed = 0;

  Batch batch(int64_t step, int64_t micro_step = 0) const;
};

/// Validation batches: consecutive windows that do not overlap, so that every token but the first is a target exactly
/// once. The last window may be shorter; it is then a batch of its own, (1, T'). Losses have to be weighted by
/// y.numel().
struct ValidationBatches {
  TokenSpan tokens;
  int64_t batch_size = 1;   ///< B; the last batch may have fewer windows
  int64_t context = 1;      ///< T
  int64_t max_windows = 0;  ///< > 0: only so many windows, evenly spaced

  int64_t targets() const;  ///< tokens predicted by all batches together
  int64_t batches() const;
  Batch batch(int64_t i) const;  ///< 0 ≤ i < batches()

 private:
  int64_t all_windows() const;
  bool sampled() const;
  int64_t full_windows() const;  // those of T tokens that are used
};

}  // namespace rapt::inline RAPT_ABI
