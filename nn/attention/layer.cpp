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

Tensor AttentionLayer::step(const Tensor&, KeyValueCache&) const {
  throw Error("attention: this variant keeps no cache of keys and values; give it the whole sequence");
}

}  // namespace rapt::inline RAPT_ABI
