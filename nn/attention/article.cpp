#include "article.h"

namespace rapt::inline RAPT_ABI {

namespace {

// One head: (N, D) or (B, N, D), which attention sees as (1, 1, N, D) or (B, 1, N, D).
Tensor one_head(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {}) {
  check((q.rank() == 2 || q.rank() == 3) && q.rank() == k.rank(),
        "attention: sequences are (N, d) or (B, N, d), but are {} and {}", q.shape, k.shape);
  auto four = [](const Tensor& x) { return x.rank() == 2 ? unsqueeze(unsqueeze(x, 0), 0) : unsqueeze(x, 1); };
  const Tensor y = squeeze(attention(four(q), four(k), four(v), options), 1);
  return q.rank() == 2 ? squeeze(y, 0) : y;
}

}  // namespace

Tensor attention_without_weights(const Tensor& x) { return one_head(x, x, x, {.scale = 1}); }

SelfAttention::SelfAttention(int64_t d_in, int64_t d_kq, int64_t d_v, bool bias)
    : query(child<Linear>("query", d_in, d_kq, LinearOptions{bias})),
      key(child<Linear>("key", d_in, d_kq, LinearOptions{bias})),
      value(child<Linear>("value", d_in, d_v, LinearOptions{bias})) {}

Tensor SelfAttention::operator()(const Tensor& input) const {
  return run([&](const Tensor& x) { return one_head(query(x), key(x), value(x)); }, input);
}

CausalAttention::CausalAttention(int64_t d_in, int64_t d_kq, int64_t d_v, int64_t length, double drop, bool bias)
    : context_length(length),
      dropout(drop),
      query(child<Linear>("query", d_in, d_kq, LinearOptions{bias})),
      key(child<Linear>("key", d_in, d_kq, LinearOptions{bias})),
      value(child<Linear>("value", d_in, d_v, LinearOptions{bias})) {
  check(length > 0, "attention: a context of {} positions", length);
}

Tensor CausalAttention::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    check(x.rank() < 2 || x.shape[-2] <= context_length, "attention: x is {}, but the context has {} positions",
          x.shape, context_length);
    return one_head(query(x), key(x), value(x), {.mask = causal(), .dropout = training() ? dropout : 0});
  };
  return run(attend, input);
}

CrossAttention::CrossAttention(int64_t d_in, int64_t d_kq, int64_t d_v, bool bias)
    : query(child<Linear>("query", d_in, d_kq, LinearOptions{bias})),
      key(child<Linear>("key", d_in, d_kq, LinearOptions{bias})),
      value(child<Linear>("value", d_in, d_v, LinearOptions{bias})) {}

Tensor CrossAttention::operator()(const Tensor& input, const Tensor& context) const {
  auto attend = [&](const Tensor& x, const Tensor& from) { return one_head(query(x), key(from), value(from)); };
  return run(attend, input, context);
}

}  // namespace rapt::inline RAPT_ABI
