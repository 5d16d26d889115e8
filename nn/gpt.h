#pragma once
#include "attention/grouped_query.h"

namespace rapt::inline RAPT_ABI {

/// A GPT of the GPT-2 form (Radford 2019).
struct GptConfig {
  int64_t vocabulary = 256;
  int64_t context = 128;  ///< longest sequence, for the learned positions
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t dim = 128;
  bool bias = false;  ///< in linear layers and norms
  double dropout = 0;
  Gelu activation = Gelu::erf;
};

/// x + attention(norm1(x)), then x + mlp(norm2(x)): pre-norm.
struct TransformerBlock : Module {
  LayerNorm norm1;
  GroupedQueryAttention attention;
  LayerNorm norm2;
  Mlp mlp;
  Dropout drop;
  explicit TransformerBlock(const GptConfig& config);
  Tensor operator()(const Tensor& x) const;
  Tensor operator()(const Tensor& x, KeyValueCache& cache) const;
};

/// Token and learned position embeddings, blocks, a final norm, and the token embedding again as the output head.
/// Weights start from N(0, 0.02), those that write to the residual stream from N(0, 0.02/√(2L)).
struct Gpt : Module {
  GptConfig config;
  Embedding token_embedding, position_embedding;
  std::vector<TransformerBlock> blocks;
  LayerNorm norm;
  Dropout drop;

  /// Draws the weights from the current generator. Throws for sizes that make no model.
  explicit Gpt(const GptConfig& config);

  /// tokens (B, T), T ≤ context → logits (B, T, V)
  Tensor operator()(const Tokens& tokens) const;
  /// Mean cross entropy of predicting `targets` (B, T), in nats.
  Tensor loss(const Tokens& tokens, const Tokens& targets, CrossEntropyOptions options = {}) const;

  /// One cache for each layer, with room for `context` positions.
  std::vector<KeyValueCache> make_cache() const;
  /// tokens (B, n) that follow those in the cache → logits (B, V) of the token after the last. No gradient.
  Tensor next(const Tokens& tokens, std::vector<KeyValueCache>& cache) const;

 private:
  std::vector<TransformerBlock> make_blocks();
  Tensor embed(const Tokens& tokens, int64_t first_position) const;
  Tensor hidden(const Tokens& tokens) const;
};

}  // namespace rapt::inline RAPT_ABI
