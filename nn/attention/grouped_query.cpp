#include "grouped_query.h"

#include <algorithm>

#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

int64_t checked_head_dim(int64_t dim, int64_t heads, const GroupedQueryOptions& o) {
  check(heads > 0 && (o.head_dim > 0 || dim % heads == 0), "attention: {} heads do not divide the dimension {}", heads,
        dim);
  return o.head_dim > 0 ? o.head_dim : dim / heads;
}

}  // namespace

GroupedQueryAttention::GroupedQueryAttention(int64_t dim, int64_t head_count, GroupedQueryOptions o,
                                             std::vector<std::unique_ptr<AttentionPart>> given)
    : heads(head_count),
      key_value_heads(checked_key_value_heads(head_count, o.key_value_heads)),
      head_dim(checked_head_dim(dim, head_count, o)),
      causal(o.causal),
      qkv(child<Linear>("qkv", dim, (heads + 2 * key_value_heads) * head_dim, LinearOptions{o.bias, o.qkv_deviation})),
      proj(child<Linear>("proj", heads * head_dim, dim, LinearOptions{o.bias, o.proj_deviation})),
      drop(o.dropout) {
  for (auto& part : given) add(std::move(part));
}

void GroupedQueryAttention::add(std::unique_ptr<AttentionPart> part) {
  std::string name = part->name();
  parts.push_back(child(name, std::move(part)));
}

bool GroupedQueryAttention::has_cache() const {
  bool all = causal;
  for (const auto& part : parts) all = all && part->has_cache();
  return all;
}

int64_t GroupedQueryAttention::horizon() const {
  int64_t least = Band::kFar;
  if (!has_cache()) return least;
  for (const auto& part : parts) {
    const std::optional<int64_t> own = part->horizon();
    if (!own) return Band::kFar;
    least = std::min(least, *own);
  }
  return least;
}

AttentionState GroupedQueryAttention::split(const Tensor& x, int64_t first_position) const {
  const int64_t batch = x.shape[0], count = x.shape[1];
  Tensor rows = reshape(qkv(x), {batch, count, heads + 2 * key_value_heads, head_dim});
  auto part = [&](int64_t first, int64_t n) { return transpose(slice(rows, 2, first, first + n), 1, 2); };
  AttentionState state{
      x, part(0, heads), part(heads, key_value_heads), part(heads + key_value_heads, key_value_heads), first_position,
      {}};
  if (causal) state.options.mask = rapt::causal();
  for (const auto& p : parts) p->before(state);
  return state;
}

Tensor GroupedQueryAttention::finish(AttentionState& state) const {
  for (const auto& part : parts) part->add_options(state);
  Tensor y = attention(state.q, state.k, state.v, state.options);
  for (const auto& part : parts) y = part->after(y, state);
  return drop(proj(merge_heads(y)));
}

Tensor GroupedQueryAttention::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    if (parts.empty() && key_value_heads == heads)  // the projection as it is: nothing is copied
      return drop(proj(packed_attention(qkv(x), heads, {.mask = causal ? rapt::causal() : Mask()})));
    AttentionState state = split(x, 0);
    return finish(state);
  };
  return run(attend, input);
}

Tensor GroupedQueryAttention::step(const Tensor& input, KeyValueCache& cache) const {
  if (!has_cache()) return AttentionLayer::step(input, cache);
  NoGrad no_grad;
  auto next = [&](const Tensor& x) {
    AttentionState state = split(x, cache.length);
    auto [keys, values] = cache.add(state.k, state.v);
    state.k = keys;
    state.v = values;
    return finish(state);
  };
  return run(next, input);
}

}  // namespace rapt::inline RAPT_ABI
