#pragma once
#include "../data/batches.h"
#include "../data/tokenizer.h"
#include "../nn/gpt.h"

namespace rapt::inline RAPT_ABI {

/// How well a model predicts a text.
struct Evaluation {
  double loss = 0;           ///< mean cross entropy in nats per token
  double bits_per_byte = 0;  ///< the same in bits per byte of text, whatever the tokenizer
  int64_t tokens = 0;        ///< predicted tokens
};

Evaluation evaluate(const Gpt& model, const ValidationBatches& batches, const Tokenizer& tokenizer);

}  // namespace rapt::inline RAPT_ABI
