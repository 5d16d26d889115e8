#include "differential.h"

#include <cmath>

#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

int64_t checked_half(int64_t dim, int64_t heads) {
  check(dim > 0 && heads > 0 && dim % (2 * heads) == 0,
        "attention: {} heads of two halves do not divide the dimension {}", heads, dim);
  return dim / (2 * heads);
}

}  // namespace

DifferentialAttention::DifferentialAttention(int64_t dim, int64_t head_count, DifferentialOptions o)
    : heads(head_count),
      key_value_heads(checked_key_value_heads(head_count, o.key_value_heads)),
      half(checked_half(dim, head_count)),
      lambda_init(0.8 - 0.6 * std::exp(-0.3 * double(o.depth))),
      causal(o.causal),
      q(child<Linear>("q", dim, dim, LinearOptions{o.bias, o.qkv_deviation})),
      k(child<Linear>("k", dim, key_value_heads * 2 * half, LinearOptions{o.bias, o.qkv_deviation})),
      v(child<Linear>("v", dim, key_value_heads * 2 * half, LinearOptions{o.bias, o.qkv_deviation})),
      proj(child<Linear>("proj", dim, dim, LinearOptions{o.bias, o.proj_deviation})),
      norm(child<RMSNorm>("norm", 2 * half, 1e-5)) {
  check(o.depth >= 0, "attention: layers are counted from 0, but the depth is {}", o.depth);
  auto vector = [&](const char* name) { return param(name, normal({half}, 0, Real(0.1))); };
  lambda_q1 = vector("lambda_q1"), lambda_k1 = vector("lambda_k1");
  lambda_q2 = vector("lambda_q2"), lambda_k2 = vector("lambda_k2");
  if (o.rotary) rotary.emplace(*o.rotary);
}

Tensor DifferentialAttention::lambda() const {
  return exp(sum(lambda_q1 * lambda_k1)) - exp(sum(lambda_q2 * lambda_k2)) + lambda_init;
}

Tensor DifferentialAttention::queries(const Tensor& x, int64_t first_position) const {
  const Tensor qs = split_heads(q(x), 2 * heads);
  return rotary ? rotary->queries(qs, first_position) : qs;
}

Tensor DifferentialAttention::keys(const Tensor& x, int64_t first_position) const {
  const Tensor ks = split_heads(k(x), 2 * key_value_heads);
  return rotary ? rotary->keys(ks, first_position) : ks;
}

Tensor DifferentialAttention::attend(const Tensor& qs, const Tensor& ks, const Tensor& vs) const {
  const AttentionOptions options{.mask = causal ? rapt::causal() : Mask()};
  auto part = [&](int64_t i) {  // every second head from i on
    return attention(slice(qs, 1, i, 2 * heads, 2), slice(ks, 1, i, 2 * key_value_heads, 2), vs, options);
  };
  return proj(merge_heads(norm(part(0) - lambda() * part(1)) * (1 - lambda_init)));
}

Tensor DifferentialAttention::operator()(const Tensor& input) const {
  auto whole = [&](const Tensor& x) { return attend(queries(x, 0), keys(x, 0), split_heads(v(x), key_value_heads)); };
  return run(whole, input);
}

Tensor DifferentialAttention::step(const Tensor& input, KeyValueCache& cache) const {
  NoGrad no_grad;
  check(causal, "attention: a cache needs causal attention");
  auto next = [&](const Tensor& x) {
    const Tensor qs = queries(x, cache.length);
    const auto all = cache.add(keys(x, cache.length), split_heads(v(x), key_value_heads));
    return attend(qs, all.keys, all.values);
  };
  return run(next, input);
}

}  // namespace rapt::inline RAPT_ABI
