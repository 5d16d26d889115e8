#pragma once
#include <array>

#include "tensor.h"

namespace rapt::inline RAPT_ABI {

/// A loop nest over up to N strided operands of one (broadcast) shape: neighbouring dimensions that every operand steps
/// through evenly are merged, so that most tensors become one long row.
template <int N>
struct LoopNest {
  Shape shape;                   ///< merged sizes; the last one is the row
  std::array<Shape, N> strides;  ///< of each operand, 0 where it is broadcast

  int64_t row() const { return shape.rank ? shape.sizes[shape.rank - 1] : 1; }
  int64_t rows() const { return row() ? shape.numel() / row() : 0; }
  int64_t row_stride(int operand) const { return shape.rank ? strides[operand].sizes[shape.rank - 1] : 0; }

  /// Element offsets at which row `r` begins, one for each operand.
  std::array<int64_t, N> row_offsets(int64_t r) const {
    std::array<int64_t, N> at{};
    for (int d = shape.rank - 2; d >= 0; --d) {
      int64_t i = r % shape.sizes[d];
      r /= shape.sizes[d];
      for (int k = 0; k < N; ++k) at[k] += i * strides[k].sizes[d];
    }
    return at;
  }
};

/// Strides of `x` as if it had the broadcast shape `shape`.
Shape broadcast_strides(const Tensor& x, const Shape& shape);

template <int N>
LoopNest<N> loop_nest(const Shape& shape, const std::array<const Tensor*, N>& operands) {
  LoopNest<N> nest;
  std::array<Shape, N> full;
  for (int k = 0; k < N; ++k) full[k] = broadcast_strides(*operands[k], shape);
  for (int d = 0; d < shape.rank; ++d) {
    int64_t size = shape.sizes[d];
    if (size == 1) continue;
    int last = nest.shape.rank - 1;
    bool merge = last >= 0;
    for (int k = 0; k < N && merge; ++k) merge = nest.strides[k].sizes[last] == full[k].sizes[d] * size;
    if (merge) {
      nest.shape.sizes[last] *= size;
      for (int k = 0; k < N; ++k) nest.strides[k].sizes[last] = full[k].sizes[d];
    } else {
      nest.shape.push_back(size);
      for (int k = 0; k < N; ++k) nest.strides[k].push_back(full[k].sizes[d]);
    }
  }
  return nest;
}

}  // namespace rapt::inline RAPT_ABI
