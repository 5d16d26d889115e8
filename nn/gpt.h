#pragma once
#include <optional>

#include "attention/words.h"

namespace rapt::inline RAPT_ABI {

/// The form of a GPT: by default that of GPT-2 (Radford 2019); "gqa:kv=2+rope", "rms" and "swiglu" make it Llama's.
struct GptConfig {
  int64_t vocabulary = 256;
  int64_t context = 128;  ///< longest sequence
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t dim = 128;
  std::string attention = "mha";  ///< see attention/words.h
  std::string position = "auto";  ///< learned, sinusoidal or none; auto: learned unless attention has positions
  std::string norm = "layer";     ///< norm_names()
  std::string mlp = "gelu";       ///< mlp_names(); hidden width 4·dim, for gated ones 8/3·dim in steps of 16
  bool bias = false;              ///< in linear layers and norms
  double dropout = 0;
};

/// Throws UsageError or Error for a configuration that makes no model.
void check_model(const GptConfig& config);

/// x + attention(norm1(x)), then x + mlp(norm2(x)): pre-norm.
struct TransformerBlock : Module {
  Norm norm1;
  std::unique_ptr<AttentionLayer> attention;
  Norm norm2;
  Mlp mlp;
  Dropout drop;
  TransformerBlock(const GptConfig& config, int64_t layer);
  Tensor operator()(const Tensor& x) const;
  Tensor step(const Tensor& x, KeyValueCache& cache) const;
};

/// Token and position embeddings, blocks, a final norm, and the token embedding again as the output head.
/// Weights start from N(0, 0.02), those that write to the residual stream from N(0, 0.02/√(2L)).
struct Gpt : Module {
  GptConfig config;
  Embedding token_embedding;
  std::optional<Embedding> position_embedding;  ///< where positions are learned
  std::vector<TransformerBlock> blocks;
  Norm norm;
  Dropout drop;

  /// Draws the weights from the current generator. Throws for sizes that make no model.
  explicit Gpt(const GptConfig& config);

  /// tokens (B, T), T ≤ context → logits (B, T, V)
  Tensor operator()(const Tokens& tokens) const;
  /// Mean cross entropy of predicting `targets` (B, T), in nats.
  Tensor loss(const Tokens& tokens, const Tokens& targets, CrossEntropyOptions options = {}) const;

  /// One cache for each layer: with room for `context` positions, or rolling where the model has no position embedding
  /// and the layer a horizon below the context (AttentionLayer::horizon). Without an end if all of them roll.
  std::vector<KeyValueCache> make_cache() const;
  /// tokens (B, n) that follow those in the cache → logits (B, V) of the token after the last. No gradient.
  Tensor next(const Tokens& tokens, std::vector<KeyValueCache>& cache) const;

 private:
  std::vector<TransformerBlock> make_blocks();
  Tensor sinusoids_;  // (context, dim) where positions are sinusoidal
  Tensor embed(const Tokens& tokens, int64_t first_position, int64_t room) const;
  Tensor hidden(const Tokens& tokens) const;
};

}  // namespace rapt::inline RAPT_ABI
