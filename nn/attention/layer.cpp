#include "layer.h"

#include <algorithm>

#include "../../core/view.h"

namespace rapt::inline RAPT_ABI {

KeyValueCache KeyValueCache::rolling(int64_t horizon) {
  check(horizon >= 0 && horizon < Band::kFar, "attention: a rolling cache needs a horizon of 0 or more, got {}",
        horizon);
  KeyValueCache cache(2 * horizon + 1);
  cache.horizon = horizon;
  return cache;
}

int64_t room(const std::vector<KeyValueCache>& caches) {
  int64_t least = Band::kFar;
  for (const KeyValueCache& cache : caches) least = std::min(least, cache.room());
  return least;
}

KeyValueCache::Filled KeyValueCache::add(const Tensor& new_keys, const Tensor& new_values) {
  NoGrad no_grad;
  const int64_t count = new_keys.shape[2];
  check(count <= room(), "attention: {} positions for a cache with room for {}", count, room());
  if (!keys) {
    auto with_room = [&](const Tensor& x) { return empty({x.shape[0], x.shape[1], capacity, x.shape[3]}); };
    keys = with_room(new_keys);
    values = with_room(new_values);
  }
  length += count;
  const int64_t first = std::max<int64_t>(0, held - horizon);  // that a new query may read
  if (held + count > capacity) {
    const int64_t seen = held - first + count, kept = std::min(seen, horizon);
    auto moved = [&](Tensor& memory, const Tensor& x) {
      Tensor all = cat(std::vector<Tensor>{view::slice(memory, 2, first, held), x}, 2);
      Tensor front = view::slice(memory, 2, 0, kept);
      copy_into(front, view::slice(all, 2, seen - kept, seen));
      return all;
    };
    Filled all{moved(keys, new_keys), moved(values, new_values)};
    held = kept;
    return all;
  }
  Tensor k = view::slice(keys, 2, held, held + count), v = view::slice(values, 2, held, held + count);
  copy_into(k, new_keys);
  copy_into(v, new_values);
  held += count;
  return {view::slice(keys, 2, first, held), view::slice(values, 2, first, held)};
}

Tensor AttentionLayer::step(const Tensor& x, KeyValueCache& cache) const {
  NoGrad no_grad;
  Tensor as_keys = unsqueeze(x, 1);  // (B, 1, N, C)
  Tensor all = cache.add(as_keys, slice(as_keys, 3, 0, 0)).keys;
  return slice((*this)(squeeze(all, 1)), 1, cache.length - x.shape[1], cache.length);
}

}  // namespace rapt::inline RAPT_ABI
