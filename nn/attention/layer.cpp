#include "layer.h"

#include "../../core/view.h"

namespace rapt::inline RAPT_ABI {

KeyValueCache::Filled KeyValueCache::add(const Tensor& new_keys, const Tensor& new_values) {
  const int64_t count = new_keys.shape[2];
  check(count <= room(), "attention: {} positions for a cache with room for {}", count, room());
  if (!keys) {
    auto with_room = [&](const Tensor& x) { return empty({x.shape[0], x.shape[1], capacity, x.shape[3]}); };
    keys = with_room(new_keys);
    values = with_room(new_values);
  }
  Tensor k = view::slice(keys, 2, length, length + count), v = view::slice(values, 2, length, length + count);
  copy_into(k, new_keys);
  copy_into(v, new_values);
  length += count;
  return {view::slice(keys, 2, 0, length), view::slice(values, 2, 0, length)};
}

Tensor AttentionLayer::step(const Tensor& x, KeyValueCache& cache) const {
  NoGrad no_grad;
  Tensor as_keys = unsqueeze(x, 1);  // (B, 1, N, C)
  Tensor all = cache.add(as_keys, slice(as_keys, 3, 0, 0)).keys;
  return slice((*this)(squeeze(all, 1)), 1, cache.length - x.shape[1], cache.length);
}

}  // namespace rapt::inline RAPT_ABI
