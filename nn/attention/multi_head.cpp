#include "multi_head.h"

#include "../../core/view.h"

namespace rapt::inline RAPT_ABI {

MultiHeadAttention::MultiHeadAttention(int64_t dim, int64_t head_count, MultiHeadOptions options)
    : heads(head_count),
      causal(options.causal),
      qkv(child<Linear>("qkv", dim, 3 * dim, LinearOptions{options.bias, options.qkv_deviation})),
      proj(child<Linear>("proj", dim, dim, LinearOptions{options.bias, options.proj_deviation})),
      drop(options.dropout) {
  check(heads > 0 && dim % heads == 0, "attention: {} heads do not divide the dimension {}", heads, dim);
}

Tensor MultiHeadAttention::operator()(const Tensor& x) const {
  Scope scope(path());
  return drop(proj(packed_attention(qkv(x), heads, {.mask = causal ? rapt::causal() : Mask()})));
}

Tensor MultiHeadAttention::operator()(const Tensor& x, KeyValueCache& cache) const {
  Scope scope(path());
  NoGrad no_grad;
  check(causal, "attention: a cache needs causal attention");
  const int64_t batch = x.shape[0], count = x.shape[1], dim = x.shape[2] / heads;
  check(count <= cache.room(), "attention: {} positions for a cache with room for {}", count, cache.room());
  if (!cache.keys) {
    cache.keys = empty({batch, heads, cache.capacity, dim});
    cache.values = empty({batch, heads, cache.capacity, dim});
  }
  // (B, N, 3C) -> three of (B, H, N, D)
  Tensor packed = view::reshape(qkv(x), {batch, count, 3, heads, dim});
  auto part = [&](int64_t i) { return view::transpose(view::select(packed, 2, i), 1, 2); };
  Tensor new_keys = view::slice(cache.keys, 2, cache.length, cache.length + count);
  Tensor new_values = view::slice(cache.values, 2, cache.length, cache.length + count);
  copy_into(new_keys, part(1));
  copy_into(new_values, part(2));
  cache.length += count;
  Tensor y = attention(part(0), view::slice(cache.keys, 2, 0, cache.length),
                       view::slice(cache.values, 2, 0, cache.length), {.mask = rapt::causal()});
  return proj(reshape(transpose(y, 1, 2), {batch, count, heads * dim}));
}

}  // namespace rapt::inline RAPT_ABI
