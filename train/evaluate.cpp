#include "evaluate.h"

#include <cmath>
#include <numbers>

namespace rapt::inline RAPT_ABI {

Evaluation evaluate(const Gpt& model, const ValidationBatches& batches, const Tokenizer& tokenizer) {
  EvalMode eval;
  std::vector<int64_t> bytes_of(size_t(tokenizer.vocabulary_size()));
  for (size_t id = 0; id < bytes_of.size(); ++id) bytes_of[id] = tokenizer.token_bytes(int32_t(id));
  Evaluation result;
  double nats = 0;
  int64_t bytes = 0;
  for (int64_t i = 0; i < batches.batches(); ++i) {
    Batch batch = batches.batch(i);
    nats += double(model.loss(batch.x, batch.y).item()) * double(batch.y.numel());
    result.tokens += batch.y.numel();
    for (int32_t id : batch.y.ids) bytes += bytes_of[size_t(id)];
  }
  check(result.tokens > 0, "evaluate: there is nothing to predict");
  result.loss = nats / double(result.tokens);
  result.bits_per_byte = nats / std::numbers::ln2 / double(bytes);
  return result;
}

}  // namespace rapt::inline RAPT_ABI
