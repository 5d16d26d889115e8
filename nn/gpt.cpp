#include "gpt.h"

#include <algorithm>
#include <cmath>

#include "attention/spec.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr double kDeviation = 0.02;
double residual_deviation(const GptConfig& c) { return kDeviation / std::sqrt(2.0 * double(c.layers)); }

const GptConfig& checked(const GptConfig& c) {
  check_model(c);
  return c;
}

int64_t hidden_width(const GptConfig& c) {
  if (!Mlp::gated(mlp_kind(c.mlp))) return 4 * c.dim;
  return (8 * c.dim / 3 + 15) / 16 * 16;  // as many parameters with the gate
}

std::string position_of(const GptConfig& c) {
  if (c.position != "auto") return c.position;
  return has_positions(c.attention) ? "none" : "learned";
}

AttentionLayerSizes attention_sizes(const GptConfig& c, int64_t layer) {
  return {.dim = c.dim,
          .heads = c.heads,
          .context = c.context,
          .layer = layer,
          .bias = c.bias,
          .dropout = c.dropout,
          .qkv_deviation = kDeviation,
          .proj_deviation = residual_deviation(c)};
}

Tensor sinusoids(int64_t count, int64_t dim) {
  Tensor table = empty({count, dim});
  for (int64_t p = 0; p < count; ++p) {
    for (int64_t c = 0; c < dim; ++c) {
      double angle = double(p) / std::pow(10000.0, double(c - c % 2) / double(dim));
      table.set({p, c}, Real(kDeviation * (c % 2 == 0 ? std::sin(angle) : std::cos(angle))));
    }
  }
  return table;
}

}  // namespace

void check_model(const GptConfig& c) {
  check(c.vocabulary > 0 && c.context > 0 && c.layers > 0 && c.heads > 0 && c.dim > 0,
        "gpt: vocabulary {}, context {}, layers {}, heads {} and dim {} must all be at least 1", c.vocabulary,
        c.context, c.layers, c.heads, c.dim);
  check(c.dim % c.heads == 0, "gpt: {} heads do not divide dim {}; choose a multiple of {}", c.heads, c.dim, c.heads);
  norm_kind(c.norm);
  mlp_kind(c.mlp);
  check<UsageError>(
      c.position == "auto" || c.position == "learned" || c.position == "sinusoidal" || c.position == "none",
      "position: there is no \"{}\"; known are auto, learned, sinusoidal, none", c.position);
  const size_t turns = specs_in_turn(c.attention).size();
  check<UsageError>(int64_t(turns) <= c.layers,
                    "attention \"{}\": {} layers can't take turns in {} specifications; there is at most one for each",
                    c.attention, c.layers, turns);
  check_attention(c.attention, attention_sizes(c, 0));
}

TransformerBlock::TransformerBlock(const GptConfig& c, int64_t layer)
    : norm1(child<Norm>("norm1", norm_kind(c.norm), c.dim, c.bias)),
      attention(child("attention", make_attention(c.attention, attention_sizes(c, layer)))),
      norm2(child<Norm>("norm2", norm_kind(c.norm), c.dim, c.bias)),
      mlp(child<Mlp>("mlp", c.dim, hidden_width(c),
                     MlpOptions{c.bias, mlp_kind(c.mlp), kDeviation, residual_deviation(c)})),
      drop(c.dropout) {}

Tensor TransformerBlock::operator()(const Tensor& input) const {
  auto block = [&](const Tensor& x) {
    Tensor y = x + (*attention)(norm1(x));
    return y + drop(mlp(norm2(y)));
  };
  return run(block, input);
}

Tensor TransformerBlock::step(const Tensor& input, KeyValueCache& cache) const {
  auto block = [&](const Tensor& x) {
    Tensor y = x + attention->step(norm1(x), cache);
    return y + mlp(norm2(y));
  };
  return run(block, input);
}

Gpt::Gpt(const GptConfig& c)
    : config(checked(c)),
      token_embedding(child<Embedding>("token_embedding", c.vocabulary, c.dim, kDeviation)),
      position_embedding(position_of(c) == "learned"
                             ? std::optional(child<Embedding>("position_embedding", c.context, c.dim, kDeviation))
                             : std::nullopt),
      blocks(make_blocks()),
      norm(child<Norm>("norm", norm_kind(c.norm), c.dim, c.bias)),
      drop(c.dropout) {
  if (position_of(c) == "sinusoidal") sinusoids_ = sinusoids(c.context, c.dim);
}

std::vector<TransformerBlock> Gpt::make_blocks() {
  std::vector<TransformerBlock> made;
  for (int64_t i = 0; i < config.layers; ++i) {
    made.push_back(child<TransformerBlock>(fmt::format("blocks.{}", i), config, i));
  }
  return made;
}

Tensor Gpt::embed(const Tokens& tokens, int64_t first, int64_t room) const {
  check(tokens.shape.rank == 2, "gpt: tokens must be (B, T), but are {}", tokens.shape);
  const int64_t length = tokens.shape[1];
  check(length <= room, "gpt: {} positions, but the context is {}", first + length, config.context);
  Tensor x = token_embedding(tokens);
  if (position_embedding) return x + position_embedding->rows(first, first + length);
  return sinusoids_ ? x + slice(sinusoids_, 0, first, first + length) : x;
}

Tensor Gpt::hidden(const Tokens& tokens) const {
  Tensor x = drop(embed(tokens, 0, config.context));
  for (const TransformerBlock& block : blocks) x = block(x);
  return norm(x);
}

Tensor Gpt::operator()(const Tokens& tokens) const {
  return run([&] { return linear(hidden(tokens), token_embedding.weight); });
}

Tensor Gpt::loss(const Tokens& tokens, const Tokens& targets, CrossEntropyOptions options) const {
  return run([&] { return linear_cross_entropy(hidden(tokens), token_embedding.weight, targets, options); });
}

std::vector<KeyValueCache> Gpt::make_cache() const {
  const bool positions = position_embedding || sinusoids_;
  auto rolls = [&](const TransformerBlock& b) { return !positions && b.attention->horizon() < config.context; };
  const bool endless = std::ranges::all_of(blocks, rolls);
  std::vector<KeyValueCache> caches;
  for (const TransformerBlock& block : blocks) {
    caches.emplace_back(config.context);
    if (!rolls(block)) continue;
    KeyValueCache rolling = KeyValueCache::rolling(block.attention->horizon());
    if (endless || rolling.capacity < config.context) caches.back() = std::move(rolling);
  }
  return caches;
}

Tensor Gpt::next(const Tokens& tokens, std::vector<KeyValueCache>& cache) const {
  EvalMode eval;
  check(cache.size() == blocks.size(), "gpt: {} caches for {} layers", cache.size(), blocks.size());
  return run([&] {
    Tensor x = embed(tokens, cache.front().length, room(cache));
    for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i].step(x, cache[i]);
    return linear(norm(select(x, 1, -1)), token_embedding.weight);
  });
}

}  // namespace rapt::inline RAPT_ABI
