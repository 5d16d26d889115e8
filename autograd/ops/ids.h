#pragma once
#include <optional>

#include "../../core/tokens.h"

namespace rapt::inline RAPT_ABI {

/// Throws, naming the first id that is outside [0, n) and not `ignored`, and its place.
inline void check_ids(const char* operation, const char* what, const Tokens& tokens, int64_t n,
                      std::optional<int32_t> ignored = {}) {
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    int32_t id = tokens.ids[size_t(i)];
    if ((id >= 0 && id < n) || id == ignored) continue;
    Shape place = tokens.shape;
    for (int64_t d = place.rank - 1, rest = i; d >= 0; --d) {
      place.sizes[d] = rest % tokens.shape.sizes[d];
      rest /= tokens.shape.sizes[d];
    }
    check(false, "{}: {} {} at position {} of {} is outside [0, {})", operation, what, id, place, tokens.shape, n);
  }
}

}  // namespace rapt::inline RAPT_ABI
