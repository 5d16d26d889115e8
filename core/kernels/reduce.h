#pragma once
#include "../tensor.h"
#include "../tokens.h"

namespace rapt::inline RAPT_ABI::kernels {

/// Whether a tensor of shape `from` is what `to` broadcasts to.
bool sums_to(const Shape& from, const Shape& to);
/// Undoes broadcasting: sums x over the dimensions in which `shape` is 1 or missing.
Tensor sum_to(const Tensor& x, const Shape& shape);
/// Sum over the dimensions in `dims` (bit d: dimension d), which stay with size 1. Fixed order: 64 lanes along rows.
Tensor sum_dims(const Tensor& x, uint32_t dims);

// Along one dimension: x (outer…, n, inner…).

/// The largest element, its index in `index` (of the first where several are equal; NaN is largest): (outer…, 1,
/// inner…). Throws for n = 0 naming `op`.
Tensor max_along(const char* op, const Tensor& x, int dim, Tokens& index);
/// Its gradient: dy (outer…, 1, inner…) at `index`, zero elsewhere: (outer…, n, inner…).
Tensor max_along_backward(const Tensor& dy, int dim, const Tokens& index, int64_t n);
/// log Σ exp x (outer…, 1, inner…); −∞ where all x are −∞.
Tensor logsumexp_along(const Tensor& x, int dim);
/// Running sums in double, from the first element on, or from the last back.
Tensor cumsum_along(const Tensor& x, int dim, bool reverse);

}  // namespace rapt::inline RAPT_ABI::kernels
