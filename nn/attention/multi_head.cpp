#include "multi_head.h"

#include <cmath>

#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

int64_t checked_head_dim(int64_t dim, int64_t heads, const MultiHeadOptions& o) {
  check(dim > 0 && heads > 0 && (o.head_dim > 0 || dim % heads == 0),
        "attention: {} heads do not divide the dimension {}", heads, dim);
  return o.head_dim > 0 ? o.head_dim : dim / heads;
}

// Uniform with the variance of Glorot & Bengio (2010), or normal with a given deviation.
Tensor start(int64_t out, int64_t in, double deviation) {
  const Real bound = Real(std::sqrt(6.0 / double(in + out)));
  return deviation > 0 ? normal({out, in}, 0, Real(deviation)) : uniform({out, in}, -bound, bound);
}

// 1 where a mask of PyTorch has 0, else 0.
Tensor kept(const Tokens& mask) {
  std::vector<Real> keep(mask.ids.size());
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = Real(mask.ids[i] == 0);
  return from_values(mask.shape, keep);
}

// (N, M) as it is, (B·H, N, M) as (B, H, N, M)
Tensor by_heads(const Tensor& x, const Shape& q, int64_t keys, const char* name) {
  const int64_t B = q[0], H = q[1], N = q[2];
  check(x.shape == Shape({N, keys}) || x.shape == Shape({B * H, N, keys}),
        "attention: {} must be (N, M) = ({}, {}) or (B·H, N, M) = ({}, {}, {}), but is {}", name, N, keys, B * H, N,
        keys, x.shape);
  return x.rank() == 2 ? x : reshape(x, {B, H, N, keys});
}

// The learned row and the row of zeros go before the others: the last query and key stay aligned.
Tensor with_rows(const Tensor& x, const Tensor& learned, bool zero) {
  const Shape& s = x.shape;
  std::vector<Tensor> parts{x};
  if (zero) parts.insert(parts.begin(), zeros({s[0], s[1], 1, s[3]}));
  if (learned) parts.insert(parts.begin(), expand(split_heads(learned, s[1]), {s[0], s[1], 1, s[3]}));
  return parts.size() == 1 ? x : cat(parts, 2);
}

}  // namespace

MultiHeadAttention::MultiHeadAttention(int64_t embed_dim, int64_t num_heads, MultiHeadOptions o)
    : dim(embed_dim),
      heads(num_heads),
      key_value_heads(checked_key_value_heads(num_heads, o.key_value_heads)),
      head_dim(checked_head_dim(embed_dim, num_heads, o)),
      options(o),
      out_proj(child<Linear>("out_proj", heads * head_dim, dim, LinearOptions{o.bias, o.proj_deviation})) {
  check(o.kdim >= 0 && o.vdim >= 0 && o.window >= 0 && o.softcap >= 0,
        "attention: kdim {}, vdim {}, window {} and softcap {} must not be negative", o.kdim, o.vdim, o.window,
        o.softcap);
  check(o.dropout >= 0 && o.dropout <= 1, "attention: dropout is a probability in [0, 1], got {}", o.dropout);
  if (options.kdim == 0) options.kdim = dim;
  if (options.vdim == 0) options.vdim = dim;
  const int64_t q_rows = heads * head_dim, k_rows = key_value_heads * head_dim, rows = q_rows + 2 * k_rows;
  if (options.kdim == dim && options.vdim == dim) {
    in_proj_weight = param("in_proj_weight", start(rows, dim, o.qkv_deviation));
  } else {
    q_proj_weight = param("q_proj_weight", start(q_rows, dim, o.qkv_deviation));
    k_proj_weight = param("k_proj_weight", start(k_rows, options.kdim, o.qkv_deviation));
    v_proj_weight = param("v_proj_weight", start(k_rows, options.vdim, o.qkv_deviation));
  }
  if (o.bias) {
    in_proj_bias = param("in_proj_bias", zeros({rows}));
    Tensor bias = out_proj.bias.detach();
    fill(bias, 0);
  }
  if (o.add_bias_kv) {
    const Real deviation = Real(1 / std::sqrt(double(k_rows)));
    bias_k = param("bias_k", normal({1, 1, k_rows}, 0, deviation));
    bias_v = param("bias_v", normal({1, 1, k_rows}, 0, deviation));
  }
  if (o.rotary) rotary.emplace(*o.rotary);
  if (o.sink) sink = param("sink", zeros({heads}));
  if (o.qk_norm) {
    q_norm.emplace(child<RMSNorm>("q_norm", head_dim));
    k_norm.emplace(child<RMSNorm>("k_norm", head_dim));
  }
}

// which: 0 query, 1 key, 2 value
Tensor MultiHeadAttention::projected(const Tensor& x, int64_t which) const {
  const int64_t q_rows = heads * head_dim, k_rows = key_value_heads * head_dim;
  const int64_t first = which == 0 ? 0 : q_rows + (which - 1) * k_rows, last = first + (which == 0 ? q_rows : k_rows);
  const Tensor& own = which == 0 ? q_proj_weight : which == 1 ? k_proj_weight : v_proj_weight;
  return linear(x, own ? own : slice(in_proj_weight, 0, first, last),
                in_proj_bias ? slice(in_proj_bias, 0, first, last) : Tensor());
}

MultiHeadAttention::Projected MultiHeadAttention::project(const Tensor& query, const Tensor& key, const Tensor& value,
                                                          int64_t first_key) const {
  Projected p{split_heads(projected(query, 0), heads), split_heads(projected(key, 1), key_value_heads),
              split_heads(projected(value, 2), key_value_heads)};
  if (q_norm) p.q = (*q_norm)(p.q), p.k = (*k_norm)(p.k);
  if (rotary) {
    p.q = rotary->queries(p.q, first_key + p.k.shape[2] - p.q.shape[2]);
    p.k = rotary->keys(p.k, first_key);
  }
  return p;
}

MultiHeadResult MultiHeadAttention::attend(Projected p, const MultiHeadCall& call) const {
  const int64_t keys = p.k.shape[2], added = int64_t(options.add_bias_kv) + int64_t(options.add_zero_attn);
  AttentionOptions o{.dropout = training() ? options.dropout : 0};
  if (call.is_causal) o.mask = causal();
  if (options.window > 0) o.mask = o.mask & window(options.window);
  if (call.key_padding_mask.numel() > 0) {
    const Shape& s = call.key_padding_mask.shape;
    check(s == Shape({p.q.shape[0], keys}), "attention: key_padding_mask must be (B, M) = ({}, {}), but is {}",
          p.q.shape[0], keys, s);
    o.mask = o.mask & keep_where(pad(reshape(kept(call.key_padding_mask), {s[0], 1, 1, keys}), -1, added, 0, 1));
  }
  if (added > 0 && !o.mask.everything()) o.mask = o.mask | mask_of([added](const At& at) { return at.key < added; });
  if (call.attn_mask.numel() > 0)
    o.mask = o.mask & keep_where(pad(by_heads(kept(call.attn_mask), p.q.shape, keys, "attn_mask"), -1, added, 0, 1));
  if (options.softcap > 0) o.score = softcap(options.softcap);
  if (call.attn_bias)
    o.score = o.score | bias(pad(by_heads(call.attn_bias, p.q.shape, keys, "attn_bias"), -1, added, 0));
  if (call.key_padding_bias) {
    const Shape& s = call.key_padding_bias.shape;
    check(s == Shape({p.q.shape[0], keys}), "attention: key_padding_bias must be (B, M) = ({}, {}), but is {}",
          p.q.shape[0], keys, s);
    o.score = o.score | bias(pad(reshape(call.key_padding_bias, {s[0], 1, 1, keys}), -1, added, 0));
  }
  if (sink) o.normalizer = softmax_with_sink(sink);

  p.k = with_rows(p.k, bias_k, options.add_zero_attn);
  p.v = with_rows(p.v, bias_v, options.add_zero_attn);
  if (!call.need_weights) return {out_proj(merge_heads(attention(p.q, p.k, p.v, o))), {}};

  // Each key's value gets one more channel, 1 for it alone: then the result has the weights in it, as they were used.
  const int64_t M = keys + added, D = p.v.shape[3];
  const Tensor one_hot = expand(eye(M), {p.v.shape[0], p.v.shape[1], M, M});
  const Tensor both = attention(p.q, p.k, cat(std::vector<Tensor>{p.v, one_hot}, -1), o);
  Tensor weights = cat(std::vector<Tensor>{slice(both, -1, D + added, D + M), slice(both, -1, D, D + added)}, -1);
  if (call.average_weights) weights = mean(weights, {1});
  return {out_proj(merge_heads(slice(both, -1, 0, D))), weights};
}

MultiHeadResult MultiHeadAttention::operator()(const Tensor& of_query, const Tensor& of_key, const Tensor& of_value,
                                               const MultiHeadCall& call) const {
  auto whole = [&](const Tensor& query, const Tensor& key, const Tensor& value) {
    const int rank = query.rank();
    check((rank == 2 || rank == 3) && key.rank() == rank && value.rank() == rank,
          "attention: query, key and value must all be (B, N, E) or all (N, E), but are {}, {} and {}", query.shape,
          key.shape, value.shape);
    const bool turned = rank == 3 && !options.batch_first;
    auto batched = [&](const Tensor& x) { return rank == 2 ? unsqueeze(x, 0) : turned ? transpose(x, 0, 1) : x; };
    const Tensor q = batched(query), k = batched(key), v = batched(value);
    check(q.shape[0] == k.shape[0] && q.shape[0] == v.shape[0] && k.shape[1] == v.shape[1],
          "attention: query, key and value do not belong together: {}, {} and {}", query.shape, key.shape, value.shape);
    MultiHeadResult r = attend(project(q, k, v, 0), call);
    if (turned) r.output = transpose(r.output, 0, 1);
    if (rank == 2) {
      r.output = squeeze(r.output, 0);
      if (r.weights) r.weights = squeeze(r.weights, 0);
    }
    return r;
  };
  return run(whole, of_query, of_key, of_value);
}

Tensor MultiHeadAttention::operator()(const Tensor& x) const {
  return (*this)(x, x, x, {.is_causal = options.causal}).output;
}

int64_t MultiHeadAttention::horizon() const {
  const bool by_distance = has_cache() && !(options.rotary && options.rotary->xpos);  // xPos has an end
  return by_distance && options.window > 0 ? options.window : Band::kFar;
}

Tensor MultiHeadAttention::step(const Tensor& input, KeyValueCache& cache) const {
  NoGrad no_grad;
  check(has_cache(), "attention: a cache needs causal self-attention of (B, N, E)");
  auto next = [&](const Tensor& query, const Tensor& key, const Tensor& value) {  // as operator() is seen by hooks
    Projected p = project(query, key, value, cache.length);
    auto [keys, values] = cache.add(p.k, p.v);
    p.k = keys;
    p.v = values;
    return attend(std::move(p), {.is_causal = true});
  };
  return run(next, input, input, input).output;
}

}  // namespace rapt::inline RAPT_ABI
