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
  Tokens(const Shape& shape, std::vector<int32_t> ids) : shape(shape), ids(std::move(ids)) {
    check(int64_t(this->ids.size()) == shape.numel(), "tokens: {} values for the shape {}", this->ids.size(), shape);
  }
  int64_t numel() const { return int64_t(ids.size()); }
};

}  // namespace rapt::inline RAPT_ABI
