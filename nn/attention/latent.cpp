#include "latent.h"

#include <cmath>

#include "../../core/view.h"
#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

int64_t head_width(int64_t dim, int64_t heads, const LatentOptions& o) {
  check(dim > 0 && heads > 0 && (o.d_nope > 0 || dim % heads == 0),
        "attention: {} heads do not divide the dimension {}", heads, dim);
  check(o.rank_q >= 0 && o.rank_kv >= 0 && o.d_nope >= 0 && o.d_rope >= 0 && o.d_v >= 0 && o.d_rope % 2 == 0,
        "attention: rank_q {}, rank_kv {}, d_nope {}, d_rope {} (even) and d_v {} must not be negative", o.rank_q,
        o.rank_kv, o.d_nope, o.d_rope, o.d_v);
  return o.d_nope > 0 ? o.d_nope : dim / heads;
}

}  // namespace

MultiHeadLatentAttention::MultiHeadLatentAttention(int64_t dim, int64_t head_count, LatentOptions o)
    : heads(head_count),
      rank_kv(o.rank_kv > 0 ? o.rank_kv : 2 * head_width(dim, head_count, o)),
      d_nope(head_width(dim, head_count, o)),
      d_rope(o.d_rope > 0 ? o.d_rope : 2 * ((d_nope + 3) / 4)),
      d_v(o.d_v > 0 ? o.d_v : d_nope),
      kv_down(child<Linear>("kv_down", dim, rank_kv + d_rope, LinearOptions{o.bias, o.qkv_deviation})),
      kv_norm(child<RMSNorm>("kv_norm", rank_kv)),
      kv_up(child<Linear>("kv_up", rank_kv, heads * (d_nope + d_v), LinearOptions{false, o.qkv_deviation})),
      proj(child<Linear>("proj", heads * d_v, dim, LinearOptions{o.bias, o.proj_deviation})),
      rotary(o.rotary) {
  const LinearOptions linear_options{o.bias, o.qkv_deviation};
  const int64_t rows = heads * (d_nope + d_rope);
  if (o.rank_q == 0) {
    q.emplace(child<Linear>("q", dim, rows, linear_options));
  } else {
    q_down.emplace(child<Linear>("q_down", dim, o.rank_q, linear_options));
    q_norm.emplace(child<RMSNorm>("q_norm", o.rank_q));
    q_up.emplace(child<Linear>("q_up", o.rank_q, rows, linear_options));
  }
}

double MultiHeadLatentAttention::scale() const { return 1 / std::sqrt(double(d_nope + d_rope)); }

MultiHeadLatentAttention::Parts MultiHeadLatentAttention::split(const Tensor& x, int64_t first_position) const {
  const Tensor queries = split_heads(q ? (*q)(x) : (*q_up)((*q_norm)((*q_down)(x))), heads);
  const Tensor down = unsqueeze(kv_down(x), 1);
  return {slice(queries, -1, 0, d_nope), rotary.queries(slice(queries, -1, d_nope, d_nope + d_rope), first_position),
          kv_norm(slice(down, -1, 0, rank_kv)),
          rotary.keys(slice(down, -1, rank_kv, rank_kv + d_rope), first_position)};
}

Tensor MultiHeadLatentAttention::attend(const Tensor& q_nope, const Tensor& q_rope, const Tensor& c,
                                        const Tensor& k_rope) const {
  const Tensor up = split_heads(kv_up(squeeze(c, 1)), heads);
  Shape each = k_rope.shape;
  each[1] = heads;
  const Tensor k = cat(std::vector<Tensor>{slice(up, -1, 0, d_nope), expand(k_rope, each)}, -1);
  const Tensor v = slice(up, -1, d_nope, d_nope + d_v);
  const Tensor whole_q = cat(std::vector<Tensor>{q_nope, q_rope}, -1);
  return attention(whole_q, k, v, {.mask = causal(), .scale = scale()});
}

Tensor MultiHeadLatentAttention::attend_absorbed(const Tensor& q_nope, const Tensor& q_rope,
                                                 const Tensor& latent) const {
  const Tensor c = view::slice(latent, -1, 0, rank_kv);
  const Tensor up = reshape(kv_up.weight, {heads, d_nope + d_v, rank_kv});
  const Tensor moved = matmul(q_nope, slice(up, 1, 0, d_nope));  // W_kᵀ q, (B, H, N, rank_kv)
  const Tensor y =
      attention(cat(std::vector<Tensor>{moved, q_rope}, -1), latent, c, {.mask = causal(), .scale = scale()});
  return matmul(y, transpose(slice(up, 1, d_nope, d_nope + d_v), 1, 2));
}

Tensor MultiHeadLatentAttention::operator()(const Tensor& input) const {
  auto whole = [&](const Tensor& x) {
    const Parts p = split(x, 0);
    return proj(merge_heads(attend(p.q_nope, p.q_rope, p.c, p.k_rope)));
  };
  return run(whole, input);
}

Tensor MultiHeadLatentAttention::step(const Tensor& input, KeyValueCache& cache) const {
  NoGrad no_grad;
  auto next = [&](const Tensor& x) {
    const Parts p = split(x, cache.length);
    const Tensor added = cat(std::vector<Tensor>{p.c, p.k_rope}, -1);
    const Tensor latent = cache.add(added, view::slice(added, -1, 0, 0)).keys;
    // what is hooked to kv_up would not be met where its weight is taken apart
    const Tensor y = kv_up.has_hooks() ? attend(p.q_nope, p.q_rope, view::slice(latent, -1, 0, rank_kv),
                                                view::slice(latent, -1, rank_kv, rank_kv + d_rope))
                                       : attend_absorbed(p.q_nope, p.q_rope, latent);
    return proj(merge_heads(y));
  };
  return run(next, input);
}

}  // namespace rapt::inline RAPT_ABI
