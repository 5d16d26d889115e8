#pragma once
#include "tensor.h"

/// Views of detached data: the same storage under other shapes and strides. The differentiable functions of the same
/// names are in autograd/ops.h; a kernel or a backward uses these where no graph is wanted.
namespace rapt::inline RAPT_ABI::view {

/// Elements begin, begin + step, … below end of dimension `dim`. Negative begin and end count from the end. step ≥ 1.
Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step = 1);
/// Index `i` of dimension `dim`, which disappears.
Tensor select(const Tensor& x, int dim, int64_t i);
Tensor transpose(const Tensor& x, int a, int b);
/// Dimension i of the result is dimension dims[i] of x.
Tensor permute(const Tensor& x, std::span<const int> dims);
/// Size-1 dimensions (and missing leading ones) repeated by stride 0.
Tensor expand(const Tensor& x, const Shape& shape);
Tensor squeeze(const Tensor& x, int dim);    ///< drops a dimension of size 1
Tensor unsqueeze(const Tensor& x, int dim);  ///< adds one
/// The same elements in row-major order under another shape, one size may be −1. A view where strides allow, else a
/// copy.
Tensor reshape(const Tensor& x, const Shape& shape);
/// `shape` with its −1 resolved for `numel` elements. Throws when it doesn't fit.
Shape resolve_shape(const Shape& shape, int64_t numel);

}  // namespace rapt::inline RAPT_ABI::view
