#pragma once
#include "../tensor.h"

namespace rapt::inline RAPT_ABI::kernels {

/// Whether a tensor of shape `from` is what `to` broadcasts to.
bool sums_to(const Shape& from, const Shape& to);
/// Undoes broadcasting: sums x over the dimensions in which `shape` is 1 or missing.
Tensor sum_to(const Tensor& x, const Shape& shape);
/// Sum over the dimensions in `dims` (bit d: dimension d), which stay with size 1. Fixed order: 64 lanes along rows.
Tensor sum_dims(const Tensor& x, uint32_t dims);

}  // namespace rapt::inline RAPT_ABI::kernels
