#include "gpt.h"

#include <cmath>

namespace rapt::inline RAPT_ABI {

namespace {

constexpr double kDeviation = 0.02;
double residual_deviation(const GptConfig& c) { return kDeviation / std::sqrt(2.0 * double(c.layers)); }

const GptConfig& checked(const GptConfig& c) {
  check(c.vocabulary > 0 && c.context > 0 && c.layers > 0 && c.heads > 0 && c.dim > 0,
        "gpt: vocabulary {}, context {}, layers {}, heads {} and dim {} must all be at least 1", c.vocabulary,
        c.context, c.layers, c.heads, c.dim);
  check(c.dim % c.heads == 0, "gpt: {} heads do not divide dim {}; choose a multiple of {}", c.heads, c.dim, c.heads);
  return c;
}

}  // namespace

TransformerBlock::TransformerBlock(const GptConfig& c)
    : norm1(child<LayerNorm>("norm1", c.dim, c.bias)),
      attention(child<GroupedQueryAttention>("attention", c.dim, c.heads,
                                             GroupedQueryOptions{.bias = c.bias,
                                                                 .dropout = c.dropout,
                                                                 .qkv_deviation = kDeviation,
                                                                 .proj_deviation = residual_deviation(c)})),
      norm2(child<LayerNorm>("norm2", c.dim, c.bias)),
      mlp(child<Mlp>("mlp", c.dim, 4 * c.dim, MlpOptions{c.bias, c.activation, kDeviation, residual_deviation(c)})),
      drop(c.dropout) {}

Tensor TransformerBlock::operator()(const Tensor& x) const {
  Scope scope(path());
  Tensor y = x + attention(norm1(x));
  return y + drop(mlp(norm2(y)));
}

Tensor TransformerBlock::operator()(const Tensor& x, KeyValueCache& cache) const {
  Scope scope(path());
  Tensor y = x + attention.step(norm1(x), cache);
  return y + mlp(norm2(y));
}

Gpt::Gpt(const GptConfig& c)
    : config(checked(c)),
      token_embedding(child<Embedding>("token_embedding", c.vocabulary, c.dim, kDeviation)),
      position_embedding(child<Embedding>("position_embedding", c.context, c.dim, kDeviation)),
      blocks(make_blocks()),
      norm(child<LayerNorm>("norm", c.dim, c.bias)),
      drop(c.dropout) {}

std::vector<TransformerBlock> Gpt::make_blocks() {
  std::vector<TransformerBlock> made;
  for (int64_t i = 0; i < config.layers; ++i) {
    made.push_back(child<TransformerBlock>(fmt::format("blocks.{}", i), config));
  }
  return made;
}

Tensor Gpt::embed(const Tokens& tokens, int64_t first) const {
  check(tokens.shape.rank == 2, "gpt: tokens must be (B, T), but are {}", tokens.shape);
  const int64_t length = tokens.shape[1];
  check(first + length <= config.context, "gpt: {} positions, but the context is {}", first + length, config.context);
  return token_embedding(tokens) + slice(position_embedding.weight, 0, first, first + length);
}

Tensor Gpt::hidden(const Tokens& tokens) const {
  Tensor x = drop(embed(tokens, 0));
  for (const TransformerBlock& block : blocks) x = block(x);
  return norm(x);
}

Tensor Gpt::operator()(const Tokens& tokens) const {
  Scope scope(path());
  return linear(hidden(tokens), token_embedding.weight);
}

Tensor Gpt::loss(const Tokens& tokens, const Tokens& targets, CrossEntropyOptions options) const {
  Scope scope(path());
  return linear_cross_entropy(hidden(tokens), token_embedding.weight, targets, options);
}

std::vector<KeyValueCache> Gpt::make_cache() const { return {blocks.size(), KeyValueCache(config.context)}; }

Tensor Gpt::next(const Tokens& tokens, std::vector<KeyValueCache>& cache) const {
  EvalMode eval;
  Scope scope(path());
  check(cache.size() == blocks.size(), "gpt: {} caches for {} layers", cache.size(), blocks.size());
  Tensor x = embed(tokens, cache.front().length);
  for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i](x, cache[i]);
  return linear(norm(select(x, 1, -1)), token_embedding.weight);
}

}  // namespace rapt::inline RAPT_ABI
