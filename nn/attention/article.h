#pragma once
#include "../layers.h"

/// Attention as it is taught, step by step, after Sebastian Raschka's "Understanding and coding self-attention,
/// multi-head attention, causal attention and cross-attention in LLMs" (2024). Sequences are x (N, d_in), or (B, N,
/// d_in) for several at once. Models use GroupedQueryAttention.
namespace rapt::inline RAPT_ABI {

/// softmax(x xᵀ) x: every row becomes a mean of all rows, weighted by how alike they are. Nothing is learned.
Tensor attention_without_weights(const Tensor& x);

/// softmax(q kᵀ / √d_kq) v with queries, keys and values that are learned functions of x: (N, d_in) → (N, d_v).
struct SelfAttention : Module {
  Linear query, key, value;
  SelfAttention(int64_t d_in, int64_t d_kq, int64_t d_v, bool bias = false);
  Tensor operator()(const Tensor& x) const;
};

/// The same for sequences that are read from left to right: a row reads itself and those before it. Weights are
/// dropped while training. Throws for x longer than context_length.
struct CausalAttention : Module {
  int64_t context_length;
  double dropout;
  Linear query, key, value;
  CausalAttention(int64_t d_in, int64_t d_kq, int64_t d_v, int64_t context_length, double dropout = 0,
                  bool bias = false);
  Tensor operator()(const Tensor& x) const;
};

/// Several heads side by side, each with its own weights: (N, d_in) → (N, heads · d_v).
///
///     MultiHeadAttentionWrapper<CausalAttention> four(4, d_in, d_kq, d_v, context_length);
template <class Head = SelfAttention>
struct MultiHeadAttentionWrapper : Module {
  std::vector<Head> heads;

  template <class... Args>
  explicit MultiHeadAttentionWrapper(int64_t count, const Args&... args) {
    check(count > 0, "attention: {} heads", count);
    for (int64_t h = 0; h < count; ++h) heads.push_back(child<Head>(fmt::format("heads.{}", h), args...));
  }

  Tensor operator()(const Tensor& input) const {
    auto all = [&](const Tensor& x) {
      std::vector<Tensor> parts;
      for (const Head& head : heads) parts.push_back(head(x));
      return cat(parts, -1);
    };
    return run(all, input);
  }
};

/// Queries from x (N, d_in), keys and values from another sequence (M, d_in): gives (N, d_v).
struct CrossAttention : Module {
  Linear query, key, value;
  CrossAttention(int64_t d_in, int64_t d_kq, int64_t d_v, bool bias = false);
  Tensor operator()(const Tensor& x, const Tensor& context) const;
};

}  // namespace rapt::inline RAPT_ABI
