#pragma once
#include <cstdint>
#include <vector>

#include "shape.h"

namespace rapt::inline RAPT_ABI {

/// Integers with a shape: token ids (B, T), indices, class labels. Dense, row-major, no gradient.
struct Tokens {
  Shape shape;
  std::vector<int32_t> ids;

  Tokens() = default;
  Tokens(const Shape& dims, std::vector<int32_t> values) : shape(dims), ids(std::move(values)) {
    check(int64_t(ids.size()) == shape.numel(), "tokens: {} values for the shape {}", ids.size(), shape);
  }
  int64_t numel() const { return int64_t(ids.size()); }
};

}  // namespace rapt::inline RAPT_ABI
